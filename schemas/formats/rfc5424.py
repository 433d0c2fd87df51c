"""The syslog protocol: a header around a message that another format made.

Source: RFC 5424; framing (RFC 6587, RFC 5425) is the sink's. No byte order mark, since it would
stand between the header and `CEF:`. Control characters and line breaks in the message go, so that
it stays one event under any framing. It is cut, at a code point, to the bytes that are left. A
format that shortens better, and has no such characters, goes behind the `header` as it is: it is to
be asked for no more than `max_bytes - len(header)`.

`structured` is for receivers that know none of those. Structured data holds the main fields, each
cut to 200 characters: event_id, replay (its name, of a replayed alert), kind, severity, status,
entity, product, alert_type, resource, subscription_id, subscription_name; its SD-ID has the number
that RFC 5612 sets aside for those without their own. The message is the record's JSON; where that
does not fit, title and description. Nothing is dropped but what does not fit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._text import HARMLESS, cut

__all__ = ["FORMATS", "header", "main_fields", "priority", "rfc5424", "structured"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SEVERITIES = {
    "unknown": 5,
    "informational": 6,
    "low": 5,
    "medium": 4,
    "high": 3,
    "critical": 2,
}
_PARAMETER = str.maketrans({**HARMLESS, ord('"'): r"\"", ord("\\"): r"\\", ord("]"): r"\]"})
_CONTROLS = bytes(code for code, harmless in HARMLESS.items() if code < 0x80 and not harmless)
_SD = '="]'  # not in the names of structured data
_SD_ID = "alert@32473"
_BLANKS = bytes.maketrans(b"\t\n\r", b"   ")

StructuredData = Mapping[str, Mapping[str, str]]
"""SD-ID (`name@enterprise-number`) to parameters."""


def structured(alert: Alert, *, max_bytes: int = 8192, **names: Any) -> bytes:
    """The alert as one syslog message, unframed, at most `max_bytes` long; from 480 on all fit.

    names: as for `header`; without `msgid` it is the alert's kind.
    """
    names = {"msgid": alert.kind, **names}
    head = header(alert, **names, data={_SD_ID: main_fields(alert)})
    if len(head) > max_bytes:
        head = header(alert, **names, data={_SD_ID: {"event_id": alert.event_id}})
    message = alert.raw
    if len(message) > max_bytes - len(head):
        message = f"{alert.title}: {alert.description}".encode("utf-8", "replace")
    return rfc5424(message, head, max_bytes=max_bytes)


def main_fields(alert: Alert) -> dict[str, str]:
    """What structured data holds, the most important first; what is empty is left out."""
    named = {
        "event_id": alert.event_id,
        "replay": alert.replay,
        "kind": alert.kind,
        "severity": alert.severity,
        "status": alert.status,
        "entity": alert.entity,
        "product": alert.product,
        "alert_type": alert.alert_type,
        "resource": alert.resource,
        "subscription_id": alert.subscription_id,
        "subscription_name": alert.subscription.name if alert.subscription else "",
    }
    return {name: text[:200] for name, text in named.items() if text}


def rfc5424(message: bytes, head: bytes, *, max_bytes: int = 8192) -> bytes:
    """One syslog message, unframed, at most `max_bytes` long.

    message: UTF-8; head: as from `header`.
    """
    message = message.translate(_BLANKS, _CONTROLS)
    if not message.isascii():
        text = message.decode("utf-8", "replace").translate(HARMLESS)
        message = text.lstrip("\ufeff").encode()  # a mark that some read as part, others not
    room = max_bytes - len(head)
    if len(message) > room:
        message = cut(message.decode(), room).encode()
    return head + message


def header(
    alert: Alert,
    *,
    facility: int = 16,
    hostname: str = "",
    app_name: str = "alertbeam",
    procid: str = "",
    msgid: str = "",
    data: StructuredData | None = None,
) -> bytes:
    """Everything in front of the message, with the blank between them.

    facility: 0-23; 16 is local0. Names are reduced to printable ASCII and cut to the RFC's lengths
    (255, 48, 128, 32); an empty one becomes `-`. The time is the event's, UTC, to milliseconds.
    Raises ValueError for an impossible facility.
    """
    second, ms = divmod(alert.event_ms, 1000)
    names = _names(hostname, app_name, procid, msgid)
    said = "".join(map(_element, data, data.values())) if data else "-"
    return f"<{priority(alert, facility)}>1 {_time(second)}.{ms:03}Z {names} {said} ".encode(
        "utf-8", "replace"
    )


def priority(alert: Alert, facility: int) -> int:
    """PRI. Raises ValueError for an impossible facility."""
    if not 0 <= facility <= 23:
        raise ValueError(f"a syslog facility is 0 to 23, not {facility}")
    return facility * 8 + _SEVERITIES.get(alert.severity, 5)


@functools.lru_cache(1024)
def _time(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


@functools.lru_cache(1024)
def _names(hostname: str, app_name: str, procid: str, msgid: str) -> str:
    limits = ((hostname, 255), (app_name, 48), (procid, 128), (msgid, 32))
    return " ".join(_name(text, most) for text, most in limits)


@functools.lru_cache(1024)
def _name(text: str, most: int, also: str = "") -> str:
    """Printable ASCII without blanks, and without the characters in `also`."""
    return "".join(c for c in text if "!" <= c <= "~" and c not in also)[:most] or "-"


def _element(identity: str, parameters: Mapping[str, str]) -> str:
    said = "".join(
        f' {_name(name, 32, _SD)}="{_escaped(text)}"' for name, text in parameters.items()
    )
    return f"[{_name(identity, 32, _SD)}{said}]"


def _escaped(text: str) -> str:
    if text.isprintable() and not ('"' in text or "\\" in text or "]" in text):
        return text  # as nearly all are; to look takes less than to translate
    return text.translate(_PARAMETER)


FORMATS = (
    Format(
        "rfc5424",
        structured,
        media_type="text/plain",
        standard="RFC 5424",
        drops="nothing where the record fits; else all but main fields, title and description",
        shortens="main fields are cut to 200 characters; a record that does not fit gives way to "
        "its title and description, and these are cut at a code point",
        max_bytes=8192,
    ),
)
