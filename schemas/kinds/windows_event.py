"""Azure diagnostics extension for Windows: an event of the event log, sent to a hub.

Source: no page documents its fields; the extension's tables in storage have the same
(`WADWindowsEventLogsTable`), "Send data from Windows Azure diagnostics extension to Azure Event
Hubs" its setup. `RawXml` is the event itself; `Description` its text, in the machine's language.

Machine, channel and record number name an event; numbers begin again when a log is cleared, so the
time is its version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _values, _windows
from schemas.kinds._base import ABSENT, Fields, Kind

__all__ = ["KIND"]

NAME = "windows_event"
_CATEGORY = "WindowsEventLogsTable"


class Properties(msgspec.Struct, gc=False):
    ProviderName: str | None = None
    EventId: int | str | None = None
    Level: int | str | None = None
    Channel: str | None = None
    RoleInstance: str | None = None
    Description: str | None = None
    RawXml: str | None = None


class Row(_base.Row, kw_only=True, gc=False):
    category: Literal["WindowsEventLogsTable"]
    properties: msgspec.Raw
    time: datetime | None = None
    level: str | None = None


def tells(fields: Fields) -> bool:
    return fields.text("category").lower() == _CATEGORY.lower()


def read(row: Row, raw: bytes) -> Alert:
    its, repair = _values.part(Properties, row.properties)
    system = _windows.parse(its.RawXml or "", whole=False)
    provider, event_id, computer = _names(its, system)
    channel = its.Channel or system.channel
    time = _base.millis(row.time) or _base.millis(_base.moment(system.time))
    named = computer and channel and system.record_id
    entity = f"{computer}/{channel}/{system.record_id}" if named else _base.body_hash(raw)
    version = str(time) if named else ""
    level = system.level or ("" if its.Level is None else str(its.Level))
    severity, word = _windows.severity(level, system.keywords)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=_windows.title(provider, event_id, its.Description or ""),
        description=its.Description or "",
        severity=severity,
        severity_original=word if word == "Audit Failure" else row.level or word,
        event_ms=time,
        resource=computer,
        product="Windows",
        alert_type=f"{provider}/{event_id}",
        repairs=(repair,) if repair else (),
        raw=raw,
    )


def _names(its: Properties, system: _windows.Event) -> tuple[str, str, str]:
    """Provider, event id, machine. `RoleInstance` is a machine's name behind an underscore."""
    event_id = system.event_id if its.EventId is None else str(its.EventId)
    computer = system.computer or (its.RoleInstance or "").removeprefix("_")
    return its.ProviderName or system.provider, event_id, computer


def details(raw: bytes) -> Details:
    try:
        fields = Fields(raw)
    except (ValueError, RecursionError):
        return Details()
    its, _ = _values.part(Properties, fields.get("properties") or ABSENT)
    event = _windows.parse(its.RawXml or "")
    event.provider, event.event_id, event.computer = _names(its, event)
    event.channel = its.Channel or event.channel
    event.data = event.data or _windows.lines(its.Description or "")
    return _windows.details(event)


KIND = Kind(NAME, Row, tells, read, details, told_by=f"`category` is `{_CATEGORY}`")
