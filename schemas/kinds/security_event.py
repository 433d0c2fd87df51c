"""Log Analytics export: a row of a Windows event, of table SecurityEvent, WindowsEvent or Event.

Source: the tables' pages in "Azure Monitor Logs reference". The event's data is in columns of its
own (SecurityEvent), and in `EventData`: XML, an object, or text that holds one of them; where it
did not parse (WindowsEvent), `RawEventData` has the XML.

`EventOriginId` is an event's own id in SecurityEvent; in WindowsEvent it is the machine's.
"""

from __future__ import annotations

import functools
import operator
import re
from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _values, _windows
from schemas.kinds._base import Fields, Kind

__all__ = ["KIND"]

NAME = "security_event"
_TABLES = ("securityevent", "windowsevent", "event")


class Row(_base.Row, kw_only=True, gc=False):
    Type: Literal["SecurityEvent", "WindowsEvent", "Event"]
    EventID: int | str
    TimeGenerated: datetime | None = None
    Computer: str | None = None
    item_id: str | None = msgspec.field(name="_ItemId", default=None)
    resource_id: str | None = msgspec.field(name="_ResourceId", default=None)
    subscription_id: str | None = msgspec.field(name="_SubscriptionId", default=None)
    EventOriginId: str | None = None
    EventRecordId: str | int | None = None
    EventSourceName: str | None = None  # SecurityEvent
    Provider: str | None = None  # WindowsEvent
    Source: str | None = None  # Event
    Level: str | int | None = None  # SecurityEvent
    EventLevelName: str | None = None
    EventLevel: str | int | None = None
    Keywords: str | None = None
    Activity: str | None = None
    RenderedDescription: str | None = None


def tells(fields: Fields) -> bool:
    return fields.text("Type").lower() in _TABLES and "EventID" in fields


def read(row: Row, raw: bytes) -> Alert:
    version = ""
    if not (entity := row.item_id or ""):
        version = _base.body_hash(raw)
        is_own = (row.Type or "").lower() == "securityevent" and row.EventOriginId
        record = "" if row.EventRecordId is None else str(row.EventRecordId)
        entity = "/".join(filter(None, (row.EventOriginId, record))) if is_own else version
    provider = row.EventSourceName or row.Provider or row.Source or ""
    event_id = "" if row.EventID is None else str(row.EventID)
    level = row.EventLevelName or row.Level or row.EventLevel
    severity, word = _windows.severity("" if level is None else str(level), row.Keywords or "")
    resource_id = (row.resource_id or "").strip()
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=_windows.title(provider, event_id, row.RenderedDescription or row.Activity or ""),
        description=row.RenderedDescription or "",
        severity=severity,
        severity_original=word,
        event_ms=_base.millis(row.TimeGenerated),
        subscription_id=_base.subscription_of(resource_id) or (row.subscription_id or "").lower(),
        resource_ids=_base.unique((resource_id,)),
        resource=row.Computer or _base.short_name(resource_id),
        product="Windows",
        alert_type=f"{provider}/{event_id}",
        raw=raw,
    )


# Of a row, not of its event. (`process` is the last part of a process's name.)
_OWN = frozenset(
    {
        *("tenant_id", "type", "time_generated", "time_collected", "source_system", "computer"),
        *("item_id", "resource_id", "subscription_id", "event_data", "raw_event_data", "mg"),
        *("management_group_name", "source_computer_id", "event_origin_id", "parameter_xml"),
        *("event_id", "event_record_id", "event_source_name", "provider", "source", "channel"),
        *("event_log", "level", "event_level", "event_level_name", "keywords", "activity"),
        *("rendered_description", "system_user_id", "process", "message", "partition_key"),
        *("row_key", "storage_account", "azure_deployment_id", "azure_table_name"),
    }
)
# What a query over several tables puts behind the names of columns that differ in type.
_TYPED = re.compile("_(?:string|dynamic|guid)$")


def details(raw: bytes) -> Details:
    record = _values.value_of(msgspec.Raw(raw))
    columns = {_column(name): value for name, value in record.items()} if record else {}
    said = _windows.facts(columns)

    def first(*names: str) -> str:
        return next((said[name] for name in names if name in said), "")

    event = _windows.Event(
        provider=first("event_source_name", "provider", "source"),
        event_id=first("event_id"),
        level=first("level", "event_level"),
        keywords=first("keywords"),
        channel=first("channel", "event_log"),
        computer=first("computer"),
        record_id=first("event_record_id"),
        user_id=first("system_user_id"),
        data=_event_data(columns)
        | {name: value for name, value in said.items() if name not in _OWN},
    )
    return _windows.details(event, first("resource_id"))


def _column(name: str) -> str:
    return _TYPED.sub("", _values.snake(name[:128]))


def _event_data(columns: dict[str, Any]) -> dict[str, str]:
    names = ("event_data", "raw_event_data", "parameter_xml")
    value = next(filter(None, map(columns.get, names)), None)
    if value is None:
        return _windows.lines(str(columns.get("rendered_description", "")))
    if isinstance(value, str) and value.lstrip().startswith("<"):
        return _windows.parse(value).data if "</System>" in value else _windows.values(value)
    value = _values.opened(value)
    if isinstance(value, list):  # without names
        value = {f"param{number}": item for number, item in enumerate(value, 1)}
    if not isinstance(value, dict):
        return {}
    inner = (item for item in value.values() if isinstance(item, dict))  # `UserData`'s own element
    return functools.reduce(operator.or_, map(_windows.facts, inner), _windows.facts(value))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` is `SecurityEvent`, `WindowsEvent` or `Event`, with an `EventID`",
)
