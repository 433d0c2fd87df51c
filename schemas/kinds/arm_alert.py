"""Defender for Cloud's alerts API: a security alert as an Azure resource.

Its answers list them under `value`. Source: REST reference of Microsoft.Security, Alerts
2022-01-01; and 2019-01-01, whose names for some fields were others (`state`, `reportedSeverity`).
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _arm, _base
from schemas.kinds._alerts import mentioned, resource
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._values import listed, plain, struct, value_of

__all__ = ["KIND"]

NAME = "arm_alert"
_TYPES = ("microsoft.security/locations/alerts", "microsoft.security/alerts")
_RESOURCE_KEYS = frozenset({"azureresourceid"})
_LOCATION = re.compile(r"/locations/([^/]+)/", re.IGNORECASE)


class _Properties(msgspec.Struct, kw_only=True, gc=False):
    systemAlertId: str | None
    alertDisplayName: str | None
    alertType: str | None
    severity: str | None
    status: str | None  # Active, InProgress, Resolved, Dismissed
    timeGeneratedUtc: str | None
    processingEndTimeUtc: str | None = None
    startTimeUtc: str | None = None
    endTimeUtc: str | None = None
    description: str | None = None
    intent: str | None = None
    techniques: msgspec.Raw = ABSENT
    subTechniques: msgspec.Raw = ABSENT
    compromisedEntity: str | None = None
    resourceIdentifiers: msgspec.Raw = ABSENT
    extendedProperties: msgspec.Raw = ABSENT
    vendorName: str | None = None
    productName: str | None = None
    alertUri: str | None = None
    # As 2019-01-01 names them.
    alertName: str | None = None
    reportedSeverity: str | None = None
    state: str | None = None
    reportedTimeUtc: str | None = None
    detectedTimeUtc: str | None = None
    associatedResource: str | None = None
    subscriptionId: str | None = None
    instanceId: str | None = None


class Row(_base.Row, kw_only=True, gc=False):
    id: str | None
    name: str | None
    type: Literal["Microsoft.Security/Locations/alerts", "Microsoft.Security/locations/alerts"]
    properties: _Properties | str | None


def tells(fields: Fields) -> bool:
    return fields.text("type").lower() in _TYPES


def read(row: Row, raw: bytes) -> Alert:
    it, repairs = _arm.properties(row.properties, _Properties)
    entity = it.systemAlertId or row.name or (row.id or "").lower() or _base.body_hash(raw)
    word, status = it.severity or it.reportedSeverity or "", it.status or it.state or ""
    # As with the export: an update may change neither status nor time.
    version = f"{status} {it.processingEndTimeUtc or ''} {_base.crc32(raw):08x}"
    resources = _resources(it)
    techniques = (*_words(it.techniques), *_words(it.subTechniques))
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=it.alertDisplayName or it.alertType or it.alertName or row.name or "",
        description=it.description or "",
        severity=_base.severity(word),
        severity_original=word,
        status=_base.status(status),
        status_original=status,
        event_ms=_millis(it.timeGeneratedUtc or it.reportedTimeUtc or it.detectedTimeUtc),
        start_ms=_millis(it.startTimeUtc or it.detectedTimeUtc),
        end_ms=_millis(it.endTimeUtc),
        subscription_id=_base.subscription_of(row.id) or _subscription(it, resources),
        resource_ids=resources,
        resource=_base.short_name(it.compromisedEntity or next(iter(resources), "")),
        tactics=_base.words(it.intent or _intent(it.extendedProperties)),
        techniques=_base.unique(techniques),
        vendor=it.vendorName or "Microsoft",
        product=it.productName or _arm.PRODUCT,
        alert_type=it.alertType or it.alertName or "",
        link=it.alertUri or "",
        raw=raw,
        repairs=repairs,
    )


def _millis(written: str | None) -> int:
    return _base.millis(_base.moment(written or ""))


def _words(said: msgspec.Raw) -> list[str]:
    return [word for word in listed(value_of(said)) if isinstance(word, str)]


def _intent(properties: msgspec.Raw) -> str:
    """Where 2019-01-01 has it."""
    if b"killchainintent" not in bytes(properties).lower():
        return ""
    named = _base.values_of(value_of(properties), frozenset({"killchainintent"}))
    return next(named, "")


def _resources(it: _Properties) -> tuple[str, ...]:
    named = _base.values_of(value_of(it.resourceIdentifiers), _RESOURCE_KEYS)
    return _base.unique((it.associatedResource, *named))


def _subscription(it: _Properties, resources: tuple[str, ...]) -> str:
    """Where the alert's own id names none."""
    return (
        next(filter(None, map(_base.subscription_of, resources)), "")
        or (it.subscriptionId or "").lower()
        or _base.effective_subscription(it.extendedProperties)
        or _base.subscription_in(it.alertUri)
    )


def details(raw: bytes) -> Details:
    row = struct(Row, raw)
    it, _ = _arm.properties(row.properties, _Properties)
    location = _LOCATION.search(row.id or "")
    found = mentioned(_arm.property_fields(raw), *map(resource, _resources(it)))
    return msgspec.structs.replace(
        found,
        related=_base.unique((*found.related, it.instanceId)),
        attributes=found.attributes | plain(location=location and location[1]),
    )


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`type` is `Microsoft.Security/locations/alerts` or `Microsoft.Security/alerts`",
)
