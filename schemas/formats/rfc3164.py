"""The BSD syslog protocol, for servers that know no later one.

Source: RFC 3164, section 4: `<PRI>Mmm dd hh:mm:ss HOSTNAME TAG: CONTENT`, 1,024 bytes in all. The
time is the event's; the protocol knows neither year nor time zone: it is UTC. Of a host's name the
domain goes, as the RFC demands; an address stays. The tag is up to 32 letters and digits.

CONTENT is our own: the main fields of `rfc5424.structured` as `name="value"`, with `"` and `\\`
escaped by `\\`, in three quarters of the room, the id first; then the record's JSON, and where that
does not fit its title and description. Control characters and line breaks go.
"""

from __future__ import annotations

import functools
import ipaddress
from datetime import datetime, timedelta, timezone

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._text import HARMLESS
from schemas.formats.rfc5424 import main_fields, priority, rfc5424

__all__ = ["FORMATS", "header", "rfc3164"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_VALUE = str.maketrans({**HARMLESS, ord('"'): r"\"", ord("\\"): r"\\"})


def rfc3164(
    alert: Alert,
    *,
    max_bytes: int = 1024,
    facility: int = 16,
    hostname: str = "",
    tag: str = "alertbeam",
) -> bytes:
    """The alert as one syslog message, unframed, at most `max_bytes` long; from 480 on all fit."""
    head = header(alert, facility=facility, hostname=hostname, tag=tag)
    fields = [f'{name}="{text.translate(_VALUE)}" ' for name, text in main_fields(alert).items()]
    room = max_bytes * 3 // 4
    while len(said := head + "".join(fields).encode("utf-8", "replace")) > room and fields[1:]:
        fields.pop()
    message = alert.raw
    if len(message) > max_bytes - len(said):
        message = f"{alert.title}: {alert.description}".encode("utf-8", "replace")
    return rfc5424(message, said, max_bytes=max_bytes)


def header(alert: Alert, *, facility: int = 16, hostname: str = "", tag: str = "") -> bytes:
    """Everything in front of the message, with the blank between them.

    facility: 0-23; 16 is local0. tag: none where it is empty, since what follows begins with its
    own, as `CEF:` does. Raises ValueError for an impossible facility.
    """
    named = f"{_tag(tag)}: " if tag else ""
    time = _time(alert.event_ms // 1000)
    return f"<{priority(alert, facility)}>{time} {_host(hostname)} {named}".encode()


@functools.lru_cache(1024)
def _time(second: int) -> str:
    time = _EPOCH + timedelta(seconds=second)
    return f"{_MONTHS[time.month - 1]} {time.day:2} {time:%H:%M:%S}"


@functools.lru_cache(64)
def _host(name: str) -> str:
    name = "".join(c for c in name if "!" <= c <= "~")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.partition(".")[0][:63] or "alertbeam"


@functools.lru_cache(64)
def _tag(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isalnum())[:32] or "alertbeam"


FORMATS = (
    Format(
        "rfc3164",
        rfc3164,
        media_type="text/plain",
        standard="RFC 3164",
        drops="year and milliseconds of the time; where the record does not fit, all but main "
        "fields, title and description",
        shortens="main fields are cut to 200 characters, the last ones go; a record that does not "
        "fit gives way to its title and description, and these are cut at a code point",
        max_bytes=1024,
    ),
)
