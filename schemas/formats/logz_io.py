"""Logz.io: a document of the Elastic Common Schema that its indexes take without objection.

Source: "HTTP" (bulk uploads) and "Understanding Invalid Log Errors" (docs.logz.io). A line of more
than 500,000 bytes is refused. A log with a field of more than 32,700 characters, of more than ten
levels or a thousand fields, without `@timestamp`, or whose field has another type than yesterday is
taken, and stored as `logzio-invalid-log` or not searchable. So it is never the record's own JSON:
the fields are those of `ecs`, whose types do not change; the record is the text `event.original`.
There is no `type` at the top, which would take the place of the one in the request.

What is too long is cut at a code point, all fields alike, until the line fits; lists lose their
last items. What was cut has the tag `shortened`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._text import cut
from schemas.formats.ecs import ecs

__all__ = ["FORMATS", "LINE_BYTES", "logz_io"]

LINE_BYTES = 499_999  # and a newline
_FIELD_BYTES = 32_700  # no field of so many bytes has more characters
_STEPS = (_FIELD_BYTES, 10_000, 3_000, 1_000, 300, 100)  # ids and times are shorter than the last


def logz_io(alert: Alert, most: int = LINE_BYTES) -> bytes:
    """The alert as one line of at most `most` bytes, without its newline.

    Raises ValueError when `alert.raw` is no JSON object, or where not even the ids fit.
    """
    if not alert.event_ms:
        alert = msgspec.structs.replace(alert, event_ms=alert.enqueued_ms)
    said = ecs(alert)
    if len(said) <= min(most, _FIELD_BYTES):
        return said  # nor is any field longer
    document = msgspec.json.decode(said)
    for room in _STEPS:
        shorter = _cut(document, room)
        if shorter != document:
            shorter["tags"] = ["shortened"]
        line = msgspec.json.encode(shorter)
        if len(line) <= most:
            return line
    raise ValueError(f"its fields alone need {len(line)} bytes, not {most}")


def _cut(value: Any, room: int) -> Any:
    if isinstance(value, str):
        return cut(value, room)
    if isinstance(value, list):
        return [_cut(item, room) for item in value[: room // 10]]
    if isinstance(value, dict):
        return {name: _cut(item, room) for name, item in value.items()}
    return value


FORMATS = (
    Format(
        "logz_io",
        logz_io,
        media_type="application/json",
        standard="Elastic Common Schema 8.17, within the limits of Logz.io's bulk listener",
        drops="nothing: the record is in event.original as it came",
        shortens="fields are cut to 32,700 bytes of UTF-8, and shorter where the line is still too "
        "long; lists lose their last items",
        max_bytes=LINE_BYTES,
    ),
)
