"""A line of syslog, as rsyslog's omazureeventhubs (and others) put it on a hub.

Formats: `schemas.kinds._syslog`. The record is `{"message": "<the line>"}`: what a line of text is
unwrapped as, or what a shipper made of it.

A time of RFC 3164 has neither year nor zone and is not used: then the shipper's `@timestamp`
counts, else the time at which the hub got the line. A line names no id: equal lines are one event
(those of old formats have seconds only), but for the shipper's time.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _syslog, _text
from schemas.kinds._base import Fields, Kind

__all__ = ["KIND"]

NAME = "syslog_line"
_begins = re.compile(_syslog.BEGINS).match
_absolute = re.compile(r"\d{4}-.{15,30}(?:Z|[+-]\d\d:?\d\d)").fullmatch


class Row(_text.Row, kw_only=True, gc=False):
    message: Annotated[str, msgspec.Meta(pattern=_syslog.BEGINS)]


def tells(fields: Fields) -> bool:
    return _text.is_text(fields) and _begins(fields.text("message")) is not None


def read(row: Row, raw: bytes) -> Alert:
    line = _syslog.parse(row.message or "")
    entity = _base.body_hash((row.message or "").encode())
    read_at = _base.millis(row.timestamp)
    version = str(read_at or "")
    word = _syslog.SEVERITIES[line.priority & 7] if line.priority >= 0 else ""
    time = _base.moment(line.time) if _absolute(line.time) else None
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=_syslog.title(line.program, line.message),
        description=line.message,
        severity=_syslog.severity(word),
        severity_original=word,
        event_ms=_base.millis(time) or read_at,
        resource=line.host,
        vendor="",  # whoever wrote the program
        product=line.program,
        alert_type="/".join(filter(None, (line.facility, line.program))),
        raw=raw,
    )


def details(raw: bytes) -> Details:
    return _syslog.details(_syslog.parse(_text.message(raw)))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`message` begins like a line of syslog: a priority, or a time and a host",
)
