"""Defender for Cloud, continuous export to an event hub: a security alert.

Real alerts are PascalCase and not exactly what the alerts API documents; an alert comes again on
each change of its status, often on another partition.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _alerts, _base, iot_alert
from schemas.kinds._base import ABSENT, Fields, Kind

__all__ = ["KIND"]

NAME = "defender_alert"
_IOT = _alerts.IOT


class _Resource(msgspec.Struct, gc=False):
    AzureResourceId: str | None = None


class Row(_base.Row, kw_only=True, gc=False):
    # In the order in which the export writes them: decoding is fastest so.
    VendorName: str | None = None
    AlertType: str | None
    ProductName: str | None = None
    StartTimeUtc: datetime | None
    EndTimeUtc: datetime | None
    TimeGenerated: datetime | None
    ProcessingEndTime: str | None
    Severity: str | None
    Status: str | None
    SystemAlertId: str
    Intent: str | None
    AzureResourceId: str | None
    AzureResourceSubscriptionId: str | None = None
    CompromisedEntity: str | None
    AlertDisplayName: str
    Description: str | None
    ResourceIdentifiers: list[_Resource] | None = None
    Techniques: str | None = None
    ExtendedProperties: msgspec.Raw = ABSENT
    AlertUri: str | None = None
    # Log Analytics rows have these.
    Type: None = None
    AlertName: None = None


def tells(fields: Fields) -> bool:
    return _alerts.is_exported(fields) and _IOT not in fields.text("ProductName")


def read(row: Row, raw: bytes) -> Alert:
    if _IOT in (row.ProductName or ""):
        return iot_alert.understood(raw)  # an alert has nothing else to tell them apart by
    entity = row.SystemAlertId or _base.body_hash(raw)
    # An update may change neither status nor time: a checksum of the whole tells it apart.
    version = f"{row.Status or ''} {row.ProcessingEndTime or ''} {_base.crc32(raw):08x}"
    main = row.AzureResourceId
    others = row.ResourceIdentifiers or ()
    resources = _base.unique([main, *[other.AzureResourceId for other in others]])
    return Alert(  # by position, which takes a tenth off the whole parse
        NAME,
        _base.key(NAME, entity, version),
        entity,
        version,
        row.AlertDisplayName or "",
        row.Description or "",
        _base.severity(row.Severity),
        row.Severity or "",
        _base.status(row.Status),
        row.Status or "",
        _base.millis(row.TimeGenerated),
        _base.millis(row.StartTimeUtc),
        _base.millis(row.EndTimeUtc),
        _base.subscription_of(main) or _subscription(row, resources),
        resources,
        _base.short_name(row.CompromisedEntity or main),
        _base.words(row.Intent),
        _base.words(row.Techniques),
        row.VendorName or "Microsoft",
        row.ProductName or "Microsoft Defender for Cloud",
        row.AlertType or "",
        row.AlertUri or "",
        raw,
    )


def _subscription(row: Row, resources: tuple[str, ...]) -> str:
    """Where the alert's own resource names none. Never WorkspaceSubscriptionId: that is the
    workspace's."""
    return (
        next(filter(None, map(_base.subscription_of, resources)), "")
        or (row.AzureResourceSubscriptionId or "").lower()
        or _base.effective_subscription(row.ExtendedProperties)
        or _base.subscription_in(row.AlertUri)
    )


def details(raw: bytes) -> Details:
    return _alerts.mentioned(Fields(raw))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="two of `SystemAlertId`, `AlertDisplayName`, `AlertType`; no `Type` or `AlertName`;"
    " not an `iot_alert`",
)
