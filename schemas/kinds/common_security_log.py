"""Log Analytics export: a row of the CommonSecurityLog table, which holds events that came as CEF.

Source: the table's reference (learn.microsoft.com, azure/azure-monitor/reference/tables/
commonsecuritylog). `LogSeverity` is a word or CEF's number: 0-3 low, 4-6 medium, 7-8 high, 9-10
very high, which is critical here. `Computer` is the machine that sent the event.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.kinds import _base, _columns, _entities
from schemas.kinds._base import Fields, Kind
from schemas.kinds._columns import Columns
from schemas.kinds._monitor import outcome
from schemas.kinds._things import address, endpoint, hashes, hostname, things

__all__ = ["KIND"]

NAME = "common_security_log"
_SEVERITIES = ("low",) * 4 + ("medium",) * 3 + ("high",) * 2 + ("critical",) * 2


class Row(_base.Row, kw_only=True, gc=False):
    Type: Literal["CommonSecurityLog"]
    item_id: str | None = msgspec.field(name="_ItemId", default=None)
    TimeGenerated: datetime | None = None
    StartTime: datetime | None = None
    EndTime: datetime | None = None
    DeviceVendor: str | None = None
    DeviceProduct: str | None = None
    DeviceEventClassID: str | None = None
    DeviceName: str | None = None
    Computer: str | None = None
    Activity: str | None = None
    Message: str | None = None
    LogSeverity: str | None = None
    resource_id: str | None = msgspec.field(name="_ResourceId", default=None)
    subscription_id: str | None = msgspec.field(name="_SubscriptionId", default=None)


def tells(fields: Fields) -> bool:
    return fields.text("Type").lower() == "commonsecuritylog"


def read(row: Row, raw: bytes) -> Alert:
    entity = row.item_id or _base.body_hash(raw)
    word = row.LogSeverity or ""
    subscription = row.subscription_id or _base.subscription_of(row.resource_id)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, ""),
        entity=entity,
        title=row.Activity or row.DeviceEventClassID or row.DeviceProduct or "CommonSecurityLog",
        description=row.Message or "",
        severity=_severity(word),
        severity_original=word,
        event_ms=_base.millis(row.TimeGenerated),
        start_ms=_base.millis(row.StartTime),
        end_ms=_base.millis(row.EndTime),
        subscription_id=subscription.lower(),
        resource_ids=_base.unique((row.resource_id,)),
        resource=row.Computer or row.DeviceName or "",
        vendor=row.DeviceVendor or "",
        product=row.DeviceProduct or "",
        alert_type=row.DeviceEventClassID or "",
        raw=raw,
    )


def _severity(word: str) -> str:
    if word.isascii() and word.isdigit() and len(word) < 3 and int(word) < len(_SEVERITIES):
        return _SEVERITIES[int(word)]
    return "critical" if word.lower() in ("very-high", "veryhigh") else _base.severity(word)


def details(raw: bytes) -> Details:
    columns = _columns.read(raw)
    columns.omit(*_SAID)
    return Details(
        entities=things(_mentioned(columns)),
        action=columns.text("DeviceAction", "SimplifiedDeviceAction"),
        outcome=outcome(columns.text("EventOutcome")),
        related=_base.unique((columns.text("ExtID"), columns.text("ExternalID"))),
        attributes=_columns.facts(columns),
    )


# Of these the alert itself tells.
_SAID = (
    *("_ItemId", "Type", "TimeGenerated", "StartTime", "EndTime", "Activity", "Message"),
    *("DeviceVendor", "DeviceProduct", "DeviceEventClassID", "LogSeverity", "_SubscriptionId"),
)


def _mentioned(columns: Columns) -> Iterator[Entity]:
    yield from _end(columns, "Source", "actor", "source")
    yield from _end(columns, "Destination", "target", "target")
    device = columns.text("DeviceName")
    yield from hostname(device, columns.text("DeviceDnsDomain", "DeviceNtDomain") if device else "")
    yield from hostname(columns.text("Computer"))
    for name in ("DeviceAddress", "DeviceTranslatedAddress", "MaliciousIP"):
        yield from address(columns.text(name))
    yield from endpoint(columns.text("RemoteIP"), columns.text("RemotePort"))
    yield Entity(type="process", name=columns.text("ProcessName"), pid=columns.text("ProcessID"))
    yield _file(columns, "", "target")
    yield _file(columns, "Old", "source")
    yield Entity(type="url", name=columns.text("RequestURL"), role="target")
    resource = columns.text("_ResourceId")
    yield Entity(type="resource", name=_base.short_name(resource), id=resource)


def _end(columns: Columns, end: str, who: Role, where: Role) -> Iterator[Entity]:
    """The machine, addresses, account and process at one end."""
    said = {
        name: columns.text(end + name)
        for name in ("HostName", "DnsDomain", "NTDomain", "UserName", "UserID", "MACAddress")
    }
    domain = said["DnsDomain"] or said["NTDomain"]
    if name := said["HostName"]:
        yield from hostname(name, domain, where, MACAddress=said["MACAddress"])
    yield from endpoint(columns.text(f"{end}IP"), columns.text(f"{end}Port"), where)
    translated = columns.text(f"{end}TranslatedAddress")
    yield from endpoint(translated, columns.text(f"{end}TranslatedPort"), where)
    yield _entities.user(
        said["UserName"], said["NTDomain"] if said["UserName"] else "", id=said["UserID"], role=who
    )
    yield Entity(
        type="process",
        name=columns.text(f"{end}ProcessName"),
        pid=columns.text(f"{end}ProcessId"),
        role=who,
    )


def _file(columns: Columns, prefix: str, role: Role) -> Entity:
    name, path = columns.text(f"{prefix}FileName"), columns.text(f"{prefix}FilePath")
    found = hashes(columns.text(f"{prefix}FileHash"))
    return _entities.file(name or path, path if name else "", hashes=found, role=role)


KIND = Kind(NAME, Row, tells, read, details, told_by="`Type` is `CommonSecurityLog`")
