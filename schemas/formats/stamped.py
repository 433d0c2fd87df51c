"""The record on one line, with two fields of ours before its own; three if it was replayed.

For systems whose own content (apps, parsers) reads Microsoft's records as they come, and which
tell records apart by nothing but what is in them. The form is our own:

    alertbeam_time   the event's time, RFC 3339 in UTC, before any other time in the record, for
                     those who take the first that they see; left out where there is none
    alertbeam_id     stable for this version of the alert
    alertbeam_replay the replay's name; left out where there is none

As in `ndjson`, line breaks between tokens go, and characters that some readers take for line breaks
are escaped. A field of the record that bears one of our names goes.
"""

from __future__ import annotations

import msgspec

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._records import rfc3339
from schemas.formats._shortened import shortened

__all__ = ["FORMATS", "stamped", "stamped_within"]

_OURS = ("alertbeam_time", "alertbeam_id", "alertbeam_replay")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def stamped(alert: Alert) -> bytes:
    """The record's JSON object. Raises ValueError when `alert.raw` is none."""
    raw = alert.raw
    if not (raw.startswith(b"{") and raw.endswith(b"}")):
        raise ValueError("the record is not a JSON object")
    if b"alertbeam_" in raw or rb"\u" in raw:
        raw = _without_ours(raw)
    time = rfc3339(alert.event_ms)
    line = b'{"alertbeam_time":"%b",' % time.encode() if time else b"{"
    line += b'"alertbeam_id":"%b"' % alert.event_id.encode()
    if alert.replay:
        line += b',"alertbeam_replay":' + msgspec.json.encode(alert.replay)
    own = raw[1:].lstrip(b" \t\r\n").translate(None, b"\r\n")  # breaks are between tokens only
    line += own if own.startswith(b"}") else b"," + own
    if not line.isascii():
        for character in "\u0085\u2028\u2029":
            line = line.replace(character.encode(), b"\\u%04x" % ord(character))
    return line


def stamped_within(alert: Alert, most: int) -> bytes:
    """The same within `most` bytes, of the alert's main fields instead of the record.

    Raises ValueError where not even its id fits.
    """
    small = msgspec.structs.replace(alert, raw=b"{}")
    small.raw = shortened(alert, most - len(stamped(small)) + 1)
    return stamped(small)


def _without_ours(raw: bytes) -> bytes:
    try:
        fields = _fields(raw)
    except (ValueError, RecursionError):
        return raw
    if not any(name in fields for name in _OURS):
        return raw
    kept = {name: value for name, value in fields.items() if name not in _OURS}
    return msgspec.json.encode(kept)


FORMATS = (
    Format(
        "stamped",
        stamped,
        media_type="application/json",
        standard="none: what the source wrote, and two fields of our own",
        drops="nothing: the record is it, on one line",
        shortens="never",
    ),
)
