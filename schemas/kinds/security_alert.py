"""Log Analytics export: a row of the SecurityAlert table (Sentinel, Defender and others).

`TenantId` is the workspace's id. Rows of older workspaces name some columns otherwise
(`Severity`, `StartTimeUtc`, …) and may lack `Type`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _alerts, _base, iot_alert
from schemas.kinds._base import ABSENT, Fields, Kind

__all__ = ["KIND"]

NAME = "security_alert"
_IOT = _alerts.IOT
_RESOURCE_KEYS = frozenset({"azureid", "resourceid"})


class Row(_base.Row, kw_only=True, gc=False):
    Type: Literal["SecurityAlert"]
    item_id: str | None = msgspec.field(name="_ItemId")
    SystemAlertId: str | None
    AlertName: str | None
    DisplayName: str | None
    AlertType: str | None
    AlertSeverity: str | None
    Status: str | None
    TimeGenerated: datetime | None
    ProcessingEndTime: str | None
    StartTime: datetime | None
    EndTime: datetime | None
    # The export leaves empty columns out.
    Description: str | None = None
    CompromisedEntity: str | None = None
    ResourceId: str | None = None
    Tactics: str | None = None
    Techniques: str | None = None
    SubTechniques: str | None = None
    AlertLink: str | None = None
    VendorName: str | None = None
    ProductName: str | None = None
    ProviderName: str | None = None
    Entities: msgspec.Raw = ABSENT
    ExtendedProperties: msgspec.Raw = ABSENT
    # As older rows name them.
    AlertDisplayName: str | None = None
    Severity: str | None = None
    StartTimeUtc: datetime | None = None
    EndTimeUtc: datetime | None = None


def tells(fields: Fields) -> bool:
    named = fields.text("ProductName") + fields.text("ProviderName")
    return _alerts.is_row(fields) and _alerts.IOT not in named


def read(row: Row, raw: bytes) -> Alert:
    if _IOT in (row.ProductName or "") or _IOT in (row.ProviderName or ""):
        return iot_alert.understood(raw)  # a row has nothing else to tell them apart by
    entity = row.SystemAlertId or _base.body_hash(raw)
    # A row has its own id, which an export that repeats it keeps.
    last = row.item_id or ("" if row.ProcessingEndTime else _base.body_hash(raw))
    version = f"{row.Status or ''} {row.ProcessingEndTime or ''} {last}"
    word = row.AlertSeverity or row.Severity
    main = row.ResourceId
    resources = _base.unique((main,)) or _resources(row.Entities)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=row.DisplayName or row.AlertDisplayName or row.AlertName or "",
        description=row.Description or "",
        severity=_base.severity(word),
        severity_original=word or "",
        status=_base.status(row.Status),
        status_original=row.Status or "",
        event_ms=_base.millis(row.TimeGenerated),
        start_ms=_base.millis(row.StartTime or row.StartTimeUtc),
        end_ms=_base.millis(row.EndTime or row.EndTimeUtc),
        subscription_id=_base.subscription_of(main) or _subscription(row, resources),
        resource_ids=resources,
        resource=_base.short_name(row.CompromisedEntity or main),
        tactics=_base.words(row.Tactics),
        techniques=_base.unique((*_base.words(row.Techniques), *_base.words(row.SubTechniques))),
        vendor=row.VendorName or "Microsoft",
        product=row.ProductName or row.ProviderName or "",
        alert_type=row.AlertType or "",
        link=row.AlertLink or "",
        raw=raw,
    )


def _resources(entities: msgspec.Raw) -> tuple[str, ...]:
    """The Azure resources among an alert's entities, which may be a string of JSON."""
    if b"subscriptions" not in bytes(entities).lower():
        return ()
    named = _base.values_of(_base.decoded(entities), _RESOURCE_KEYS)
    return _base.unique(name for name in named if _base.subscription_of(name))


def _subscription(row: Row, resources: tuple[str, ...]) -> str:
    """Where the row's own resource names none. Never WorkspaceSubscriptionId: that is the
    workspace's."""
    return (
        next(filter(None, map(_base.subscription_of, resources)), "")
        or _base.effective_subscription(row.ExtendedProperties)
        or _base.subscription_in(row.AlertLink)
    )


def details(raw: bytes) -> Details:
    return _alerts.mentioned(Fields(raw))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` is `SecurityAlert`; without `Type`: `AlertName` and `SystemAlertId`; not an"
    " `iot_alert`",
)
