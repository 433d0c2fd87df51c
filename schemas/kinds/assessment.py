"""Defender for Cloud: an assessment, which the portal calls a recommendation, of one resource.

It comes when its state changes, and in weekly snapshots. Source: real continuous exports; the
schema in Azure/Microsoft-Defender-for-Cloud; REST reference Assessments 2025-05-04 (`risk`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import _arm, _base
from schemas.kinds._arm import Assessed, Enrichment
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import merged, scalar
from schemas.kinds._mitre import mitre
from schemas.kinds._values import listed, plain, struct, value_of

__all__ = ["KIND"]

NAME = "assessment"


class _Status(msgspec.Struct, gc=False):
    code: str | None
    cause: str | None = None
    description: str | None = None
    statusChangeDate: str | None = None
    firstEvaluationDate: str | None = None


class _Metadata(msgspec.Struct, gc=False):
    displayName: str | None
    severity: str | None = None
    description: str | None = None
    assessmentType: str | None = None
    policyDefinitionId: str | None = None
    remediationDescription: str | None = None
    userImpact: str | None = None
    implementationEffort: str | None = None
    categories: msgspec.Raw = ABSENT
    threats: msgspec.Raw = ABSENT
    tactics: msgspec.Raw = ABSENT
    techniques: msgspec.Raw = ABSENT


class _Risk(msgspec.Struct, gc=False):
    level: str | None
    riskFactors: msgspec.Raw = ABSENT
    attackPathsReferences: msgspec.Raw = ABSENT


class _Links(msgspec.Struct, gc=False):
    azurePortal: str | None
    azurePortalUri: str | None = None  # so the REST API


class _Properties(msgspec.Struct, gc=False):
    resourceDetails: Assessed
    displayName: str | None
    status: _Status
    additionalData: msgspec.Raw = ABSENT
    metadata: _Metadata | None = None
    risk: _Risk | None = None
    links: _Links | None = None


class Row(_base.Row, kw_only=True, gc=False):
    assessmentEventDataEnrichment: Enrichment | None = None
    securityEventDataEnrichment: Enrichment
    tenantId: str | None = None
    type: Literal["Microsoft.Security/assessments"]
    id: str | None
    name: str | None
    properties: _Properties | str | None


def tells(fields: Fields) -> bool:
    return fields.text("type").lower() == "microsoft.security/assessments"


def read(row: Row, raw: bytes) -> Alert:
    it, repairs = _arm.properties(row.properties, _Properties)
    status = it.status or _arm.empty(_Status)
    metadata = it.metadata or _arm.empty(_Metadata)
    enrichment = _enrichment(row)
    entity = row.id.lower() if row.id else _base.body_hash(raw)
    changed = status.statusChangeDate or _base.body_hash(raw)
    version = _arm.version(enrichment, status.code, changed)
    resource = _resource(row, it)
    word = metadata.severity or (it.risk.level if it.risk else None) or ""
    assessed = it.resourceDetails or _arm.empty(Assessed)
    tactics, techniques = _mitre(metadata)
    links = it.links or _arm.empty(_Links)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=it.displayName or metadata.displayName or row.name or "",
        description=metadata.description or "",
        severity=_base.severity(word),
        severity_original=word,
        status=_arm.state(status.code, enrichment),
        status_original=status.code or "",
        event_ms=_base.millis(_base.moment(status.statusChangeDate or "")),
        start_ms=_base.millis(_base.moment(status.firstEvaluationDate or "")),
        subscription_id=_base.subscription_of(row.id) or _base.subscription_of(resource),
        resource_ids=_base.unique((resource,)),
        resource=assessed.name or _base.short_name(resource),
        tactics=tactics,
        techniques=techniques,
        product=_arm.PRODUCT,
        alert_type=row.name or "",
        link=_arm.link(links.azurePortal or links.azurePortalUri),
        raw=raw,
        repairs=repairs,
    )


def _enrichment(row: Row) -> Enrichment | None:
    return row.securityEventDataEnrichment or row.assessmentEventDataEnrichment


def _resource(row: Row, it: _Properties) -> str:
    return (it.resourceDetails.azure_id if it.resourceDetails else "") or _arm.scope(row.id)


def _mitre(metadata: _Metadata) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not metadata.tactics and not metadata.techniques:
        return (), ()  # most name none: nothing is decoded
    return mitre([value_of(metadata.tactics), value_of(metadata.techniques)])


def details(raw: bytes) -> Details:
    row = struct(Row, raw)
    it, _ = _arm.properties(row.properties, _Properties)
    assessed = it.resourceDetails or _arm.empty(Assessed)
    status = it.status or _arm.empty(_Status)
    metadata = it.metadata or _arm.empty(_Metadata)
    risk = it.risk or _arm.empty(_Risk)
    enrichment = _enrichment(row) or _arm.empty(Enrichment)
    return Details(
        entities=merged([_arm.thing(assessed, _resource(row, it)), *_users(it)]),
        action=enrichment.action or "",
        related=_base.unique(map(scalar, listed(value_of(risk.attackPathsReferences)))),
        attributes=plain(
            tenant_id=row.tenantId,
            cloud=assessed.cloud,
            snapshot=enrichment.isSnapshot,
            assessment_type=metadata.assessmentType,
            policy_definition_id=metadata.policyDefinitionId,
            cause=status.cause,
            reason=status.description,
            remediation=metadata.remediationDescription,
            category=metadata.categories,
            threats=metadata.threats,
            techniques=metadata.techniques,
            user_impact=metadata.userImpact,
            implementation_effort=metadata.implementationEffort,
            risk_level=risk.level,
            risk_factors=risk.riskFactors,
        ),
    )


def _users(it: _Properties) -> Iterator[Entity]:
    """Whom the finding is about: `additionalData.usersWithNoMfaObjectIdList` and its like."""
    found = value_of(it.additionalData)
    for name, ids in found.items() if isinstance(found, dict) else ():
        if name.lower().startswith("users") and name.lower().endswith("objectidlist"):
            for each in listed(ids):
                yield Entity(type="user", id=scalar(each))


KIND = Kind(NAME, Row, tells, read, details, told_by="`type` is `Microsoft.Security/assessments`")
