"""Defender for Cloud: how a subscription complies with a standard, one of its controls, or one
assessment under a control.

It names no time. Source: real continuous exports of assessments; REST reference Regulatory
Compliance 2019-01-01-preview.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _arm, _base
from schemas.kinds._arm import Assessed, Enrichment
from schemas.kinds._base import Fields, Kind
from schemas.kinds._entities import merged
from schemas.kinds._values import plain, struct

__all__ = ["KIND"]

NAME = "regulatory_compliance"
_PATH = re.compile(
    r"/regulatoryComplianceStandards/([^/]+)(?:/regulatoryComplianceControls/([^/]+))?"
    r"(?:/regulatoryComplianceAssessments/([^/]+))?",
    re.IGNORECASE,
)


class _Properties(msgspec.Struct, gc=False):
    state: str | None  # Passed, Failed, Skipped, Unsupported
    description: str | None = None
    scope: str | None = None
    # Numbers: an assessment's of resources, a control's of assessments, a standard's of controls.
    passedResources: int | None = None
    failedResources: int | None = None
    skippedResources: int | None = None
    unsupportedResources: int | None = None
    passedAssessments: int | None = None
    failedAssessments: int | None = None
    skippedAssessments: int | None = None
    unsupportedAssessments: int | None = None
    passedControls: int | None = None
    failedControls: int | None = None
    skippedControls: int | None = None
    unsupportedControls: int | None = None
    assessmentType: str | None = None
    assessmentDetailsLink: str | None = None


class Row(_base.Row, kw_only=True, gc=False):
    securityEventDataEnrichment: Enrichment
    tenantId: str | None = None
    id: str | None
    name: str | None
    type: Annotated[str, msgspec.Meta(pattern=r"^Microsoft\.Security/regulatoryCompliance")]
    properties: _Properties | str | None


def tells(fields: Fields) -> bool:
    return fields.text("type").lower().startswith("microsoft.security/regulatorycompliance")


def read(row: Row, raw: bytes) -> Alert:
    it, repairs = _arm.properties(row.properties, _Properties)
    enrichment = row.securityEventDataEnrichment
    entity = row.id.lower() if row.id else _base.body_hash(raw)
    numbers = _numbers(it)
    if not it.state and not numbers:
        numbers = {"body": _base.body_hash(raw)}
    version = _arm.version(enrichment, it.state, *_arm.pairs(numbers))
    resource = _arm.scope(row.id)
    standard, control, assessment = _path(row)
    title = "" if control and not assessment else it.description
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=title or " ".join(filter(None, (standard, control))) or row.name or "",
        description=it.description or "",
        status=_arm.state(it.state, enrichment),
        status_original=it.state or "",
        subscription_id=_base.subscription_of(row.id),
        resource_ids=_base.unique((resource,)),
        resource=_base.short_name(resource),
        product=_arm.PRODUCT,
        alert_type=assessment or "/".join(filter(None, (standard, control))) or row.name or "",
        link=_arm.link(it.assessmentDetailsLink),
        raw=raw,
        repairs=repairs,
    )


def _path(row: Row) -> tuple[str, str, str]:
    """Standard, control and assessment, of which the last ones may be blank."""
    found = _PATH.search(row.id or "")
    return (found[1], found[2] or "", found[3] or "") if found else ("", "", "")


def _numbers(it: _Properties) -> dict[str, str]:
    return plain(
        passed=_first(it.passedResources, it.passedAssessments, it.passedControls),
        failed=_first(it.failedResources, it.failedAssessments, it.failedControls),
        skipped=_first(it.skippedResources, it.skippedAssessments, it.skippedControls),
        unsupported=_first(
            it.unsupportedResources, it.unsupportedAssessments, it.unsupportedControls
        ),
    )


def _first(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


def details(raw: bytes) -> Details:
    row = struct(Row, raw)
    it, _ = _arm.properties(row.properties, _Properties)
    enrichment = row.securityEventDataEnrichment or _arm.empty(Enrichment)
    standard, control, assessment = _path(row)
    return Details(
        entities=merged([_arm.thing(_arm.empty(Assessed), _arm.scope(row.id))]),
        action=enrichment.action or "",
        attributes=_numbers(it)
        | plain(
            tenant_id=row.tenantId,
            snapshot=enrichment.isSnapshot,
            standard=standard,
            control=control,
            assessment=assessment,
            assessment_type=it.assessmentType,
            scope=it.scope,
        ),
    )


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`type` begins with `Microsoft.Security/regulatoryCompliance`",
)
