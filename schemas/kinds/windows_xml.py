"""A Windows event as XML, as forwarders (NXLog, Splunk, Windows Event Forwarding) put it on a hub.

Source: Windows "Event Schema" (learn.microsoft.com, windows/win32/wes/eventschema-schema). The
record is `{"message": "<Event …>"}`: what a line of text is unwrapped as, or what a shipper made of
it. An event that was cut is read as far as it goes.

Machine, channel and record number name an event; numbers begin again when a log is cleared, so the
time is its version.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _text, _windows
from schemas.kinds._base import Fields, Kind

__all__ = ["KIND"]

NAME = "windows_xml"
_BEGINS = r"^\s{0,16}(?:<\?xml[^>]{0,128}\?>\s{0,16})?<(?:\w{1,16}:)?Event[\s>]"
_begins = re.compile(_BEGINS).match


class Row(_text.Row, kw_only=True, gc=False):
    message: Annotated[str, msgspec.Meta(pattern=_BEGINS)]


def tells(fields: Fields) -> bool:
    return _text.is_text(fields) and _begins(fields.text("message")) is not None


def read(row: Row, raw: bytes) -> Alert:
    xml = row.message or ""
    event = _windows.parse(xml, whole=False)
    named = event.computer and event.channel and event.record_id
    entity = f"{event.computer}/{event.channel}/{event.record_id}"
    version = event.time
    if not (named and version):
        entity, version = _base.body_hash(raw), ""
    severity, word = _windows.severity(event.level, event.keywords)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=_windows.title(event.provider, event.event_id, event.message),
        description=event.message,
        severity=severity,
        severity_original=word,
        event_ms=_base.millis(_base.moment(event.time)),
        resource=event.computer,
        product="Windows",
        alert_type=f"{event.provider}/{event.event_id}",
        raw=raw,
    )


def details(raw: bytes) -> Details:
    return _windows.details(_windows.parse(_text.message(raw)))


KIND = Kind(NAME, Row, tells, read, details, told_by="`message` begins with `<Event`")
