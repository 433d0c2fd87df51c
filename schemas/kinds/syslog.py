"""Log Analytics export: a row of the Syslog table.

Source: "Azure Monitor Logs reference", Syslog. `TimeGenerated` is when the row was made,
`EventTime` when the machine wrote the message. A message in CEF is one that nobody parsed; it stays
a message.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _entities, _syslog
from schemas.kinds._base import Fields, Kind

__all__ = ["KIND"]

NAME = "syslog"


class Row(_base.Row, kw_only=True, gc=False):
    Type: Literal["Syslog"]
    SyslogMessage: str | None
    TimeGenerated: datetime | None = None
    EventTime: datetime | None = None
    item_id: str | None = msgspec.field(name="_ItemId", default=None)
    resource_id: str | None = msgspec.field(name="_ResourceId", default=None)
    subscription_id: str | None = msgspec.field(name="_SubscriptionId", default=None)
    Facility: str | None = None
    SeverityLevel: str | None = None
    Computer: str | None = None
    HostName: str | None = None
    ProcessName: str | None = None


def tells(fields: Fields) -> bool:
    return fields.text("Type").lower() == "syslog"


def read(row: Row, raw: bytes) -> Alert:
    entity = row.item_id or _base.body_hash(raw)
    resource_id = (row.resource_id or "").strip()
    program = row.ProcessName or ""
    message = row.SyslogMessage or ""
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, ""),
        entity=entity,
        title=_syslog.title(program, message),
        description=message,
        severity=_syslog.severity(row.SeverityLevel),
        severity_original=row.SeverityLevel or "",
        event_ms=_base.millis(row.EventTime) or _base.millis(row.TimeGenerated),
        subscription_id=_base.subscription_of(resource_id) or (row.subscription_id or "").lower(),
        resource_ids=_base.unique((resource_id,)),
        resource=row.HostName or row.Computer or _base.short_name(resource_id),
        vendor="",  # whoever wrote the program
        product=program,
        alert_type="/".join(filter(None, (row.Facility, program))),
        raw=raw,
    )


def details(raw: bytes) -> Details:
    try:
        fields = Fields(raw)
    except (ValueError, RecursionError):
        return Details()
    host = fields.text("HostName") or fields.text("Computer")
    return _syslog.details(
        _syslog.Line(
            facility=fields.text("Facility"),
            host=host,
            address=fields.text("HostIP"),
            program=fields.text("ProcessName"),
            pid=fields.text("ProcessID"),
            message=fields.text("SyslogMessage"),
        ),
        _entities.host(fields.text("Computer"), id=fields.text("_ResourceId").strip()),
    )


KIND = Kind(NAME, Row, tells, read, details, told_by="`Type` is `Syslog`")
