"""The syslog protocol: a header around a message that another format made.

Source: RFC 5424; framing (RFC 6587, RFC 5425) is the sink's. No byte order mark, since it would
stand between the header and `CEF:`. Control characters and line breaks in the message go, so that
it stays one event under any framing. It is cut, at a code point, to the bytes that are left: a
format that shortens better is to be asked for no more than `max_bytes - len(header)`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._text import HARMLESS, cut

__all__ = ["FORMATS", "header", "rfc5424"]

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
_BLANKS = bytes.maketrans(b"\t\n\r", b"   ")

StructuredData = Mapping[str, Mapping[str, str]]
"""SD-ID (`name@enterprise-number`) to parameters."""


def rfc5424(message: bytes, head: bytes, *, max_bytes: int = 8192) -> bytes:
    """One syslog message, unframed, at most `max_bytes` long.

    message: UTF-8; head: as from `header`.
    """
    message = message.translate(_BLANKS, _CONTROLS)
    if not message.isascii():
        message = message.decode("utf-8", "replace").translate(HARMLESS).encode()
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
    if not 0 <= facility <= 23:
        raise ValueError(f"a syslog facility is 0 to 23, not {facility}")
    priority = facility * 8 + _SEVERITIES.get(alert.severity, 5)
    time = (_EPOCH + timedelta(milliseconds=alert.event_ms)).isoformat(timespec="milliseconds")
    names = _names(hostname, app_name, procid, msgid)
    said = "".join(map(_element, data, data.values())) if data else "-"
    return f"<{priority}>1 {time[:-6]}Z {names} {said} ".encode("utf-8", "replace")


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
        f' {_name(name, 32, _SD)}="{text.translate(_PARAMETER)}"'
        for name, text in parameters.items()
    )
    return f"[{_name(identity, 32, _SD)}{said}]"


FORMATS = (
    Format(
        "rfc5424",
        lambda alert: rfc5424(alert.raw, header(alert)),
        media_type="text/plain",
        standard="RFC 5424",
        drops="nothing, where the record fits",
        shortens="the message is cut at a code point",
        max_bytes=8192,
    ),
)
