"""Defender for Cloud: the secure score of a subscription, and the score of each of its controls.

It names no time. Source: a real continuous export of a control; REST reference SecureScores and
SecureScoreControls 2020-01-01.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _arm, _base
from schemas.kinds._arm import Assessed, Enrichment
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import merged
from schemas.kinds._values import leniently, plain, struct, value_of

__all__ = ["KIND"]

NAME = "secure_score"


class _Score(msgspec.Struct, gc=False):
    """max: the points to be had. current: those that were. percentage: from 0 to 1."""

    max: float | None
    current: float | None
    percentage: float | None = None


class _Properties(msgspec.Struct, gc=False):
    displayName: str | None
    score: _Score
    weight: int | None = None
    # A control's: numbers of resources.
    healthyResourceCount: int | None = None
    unhealthyResourceCount: int | None = None
    notApplicableResourceCount: int | None = None
    definition: msgspec.Raw = ABSENT


class _Definition(msgspec.Struct, gc=False):
    name: str | None = None
    properties: msgspec.Raw = ABSENT


class Row(_base.Row, kw_only=True, gc=False):
    securityEventDataEnrichment: Enrichment
    tenantId: str | None = None
    id: str | None
    name: str | None
    type: Literal[
        "Microsoft.Security/secureScores/secureScoreControls", "Microsoft.Security/secureScores"
    ]
    properties: _Properties | str | None


def tells(fields: Fields) -> bool:
    return fields.text("type").lower().startswith("microsoft.security/securescore")


def read(row: Row, raw: bytes) -> Alert:
    it, repairs = _arm.properties(row.properties, _Properties)
    entity = row.id.lower() if row.id else _base.body_hash(raw)
    numbers = _numbers(it) or {"body": _base.body_hash(raw)}
    version = _arm.version(row.securityEventDataEnrichment, *_arm.pairs(numbers))
    resource = _arm.scope(row.id)
    name = it.displayName or row.name
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=f"Secure score: {name}" if name else "Secure score",
        subscription_id=_base.subscription_of(row.id),
        resource_ids=_base.unique((resource,)),
        resource=_base.short_name(resource),
        product=_arm.PRODUCT,
        alert_type=row.name or "",
        raw=raw,
        repairs=repairs,
    )


def _numbers(it: _Properties) -> dict[str, str]:
    score = it.score or _arm.empty(_Score)
    return plain(
        score_current=_points(score.current),
        score_max=_points(score.max),
        weight=it.weight,
        healthy_resources=it.healthyResourceCount,
        unhealthy_resources=it.unhealthyResourceCount,
        not_applicable_resources=it.notApplicableResourceCount,
    )


def _points(number: float | None) -> str:
    return "" if number is None else str(number).removesuffix(".0")


def details(raw: bytes) -> Details:
    row = struct(Row, raw)
    it, _ = _arm.properties(row.properties, _Properties)
    enrichment = row.securityEventDataEnrichment or _arm.empty(Enrichment)
    definition = leniently(_Definition, bytes(it.definition))
    return Details(
        entities=merged([_arm.thing(_arm.empty(Assessed), _arm.scope(row.id))]),
        action=enrichment.action or "",
        attributes=_numbers(it)
        | plain(
            tenant_id=row.tenantId,
            snapshot=enrichment.isSnapshot,
            score_percentage=_points(it.score.percentage if it.score else None),
            control=definition.name,
            assessments=_assessments(definition),
        ),
    )


def _assessments(definition: _Definition) -> list[str]:
    """The keys of those that count for the control."""
    found = value_of(definition.properties)
    listed = found.get("assessmentDefinitions") if isinstance(found, dict) else None
    return [_base.short_name(each) for each in _base.values_of(listed, frozenset({"id"}))]


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`type` begins with `Microsoft.Security/secureScore`",
)
