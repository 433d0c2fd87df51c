"""A record said shorter: what is sent where the whole record is larger than a system takes.

The form is our own: one JSON object on one line, of the fields below, marked `"shortened": true`.
The id is always there. Title and description are cut at a code point, the title to half of the
room; of the other fields none is cut, since half an id or half a link is none: what would take more
than a quarter of the room is left out. What is empty is left out too, and control characters go.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import msgspec

from schemas.alert import Alert
from schemas.formats._text import HARMLESS, cut

__all__ = ["shortened"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_encode = msgspec.json.Encoder().encode


def shortened(alert: Alert, most: int) -> bytes:
    """The alert's main fields as one JSON object of at most `most` bytes.

    Raises ValueError where not even its id fits.
    """
    said = b'{"shortened":true,"id":"%b"' % alert.event_id.encode()
    room = most - len(said) - 1
    if room < 0:
        raise ValueError(f"its id alone needs {most - room} bytes, not {most}")
    quarter, half = room // 4, room // 2
    for name, text in (
        ("kind", alert.kind),
        ("severity", alert.severity),
        ("status", alert.status),
        ("time", _time(alert.event_ms)),
        ("replay", alert.replay),
        ("entity", alert.entity),
        ("subscription_id", alert.subscription_id),
        ("alert_type", alert.alert_type),
        ("product", alert.product),
        ("resource", alert.resource),
        ("link", alert.link),
    ):
        field = _field(name, text)
        if len(field) <= min(quarter, room):
            said += field
            room -= len(field)
    said += (title := _cut_field("title", alert.title, min(half, room)))
    said += _cut_field("description", alert.description, room - len(title))
    return said + b"}"


def _field(name: str, text: str) -> bytes:
    """`,"name":"text"`, as it stands in an object; empty where there is no text."""
    text = text.translate(HARMLESS)
    return b',"%b":%b' % (name.encode(), _encode(text)) if text else b""


def _cut_field(name: str, text: str, most: int) -> bytes:
    """The same with as much of the text as fits into `most` bytes; some characters take more."""
    text = cut(text, most)
    fits, too_long = 0, len(text) + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(_field(name, text[:middle])) <= most:
            fits = middle
        else:
            too_long = middle
    return _field(name, text[:fits])


def _time(ms: int) -> str:
    time = (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")
    return time[:-6] + "Z" if ms else ""
