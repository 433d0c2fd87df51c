"""One line of JSON an alert: what alertbeam understood of it, and the record itself under `raw`.

The form is our own: https://github.com/ndjson/ndjson-spec (one valid JSON text a line, UTF-8).
Nothing is dropped and nothing is shortened. In `raw` line breaks between tokens go, and characters
that some readers take for line breaks (U+0085, U+2028, U+2029) are escaped; its content stays. A
replayed alert has one field more, `replay`.
"""

from __future__ import annotations

import functools
from datetime import datetime, timedelta, timezone

import msgspec

from schemas.alert import Alert, Subscription
from schemas.formats._base import Format

__all__ = ["FORMATS", "ndjson"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FRACTIONS = ("Z", *(f".{ms:03}000Z" for ms in range(1, 1000)))
_BREAKS = (
    ("\u0085".encode(), rb"\u0085"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


class _Line(msgspec.Struct):
    id: str
    kind: str
    entity: str
    version: str
    time: str
    enqueued: str
    severity: str
    status: str
    title: str
    alert_type: str
    product: str
    resource: str
    tactics: tuple[str, ...]
    subscription: Subscription | None
    source: str
    partition: str
    sequence: int
    index: int


_encode = msgspec.json.Encoder().encode


def ndjson(alert: Alert, *, source: str = "", partition: str = "") -> bytes:
    """The alert as one line, without its newline; times are RFC 3339 in UTC.

    Raises ValueError when `alert.raw` is no JSON object.
    """
    raw = alert.raw
    if not (raw.startswith(b"{") and raw.endswith(b"}")):
        raise ValueError("the record is not a JSON object")
    of = alert.subscription_id
    said = _Line(
        id=alert.event_id,
        kind=alert.kind,
        entity=alert.entity,
        version=alert.version,
        time=_time(alert.event_ms),
        enqueued=_time(alert.enqueued_ms),
        severity=alert.severity,
        status=alert.status,
        title=alert.title,
        alert_type=alert.alert_type,
        product=alert.product,
        resource=alert.resource,
        tactics=alert.tactics,
        subscription=alert.subscription or (Subscription.bare(of) if of else None),
        source=source,
        partition=partition,
        sequence=alert.sequence,
        index=alert.index,
    )
    head = _encode(said)[:-1]
    if alert.replay:
        head += b',"replay":' + _encode(alert.replay)
    line = b'%b,"raw":%b}' % (head, raw)
    if b"\n" in line or b"\r" in line:
        line = line.translate(None, b"\r\n")  # valid JSON has them between tokens only
    if not line.isascii():
        for character, escape in _BREAKS:  # these it has in strings only
            line = line.replace(character, escape)
    return line


def _time(ms: int) -> str:
    minute, rest = divmod(ms, 60_000)
    second, fraction = divmod(rest, 1000)
    return f"{_minute(minute)}{second:02}{_FRACTIONS[fraction]}"


@functools.lru_cache(4096)  # a second's would be asked for once, where alerts come from history
def _minute(minute: int) -> str:
    return (_EPOCH + timedelta(minutes=minute)).isoformat()[:17]


FORMATS = (
    Format(
        "ndjson",
        ndjson,
        media_type="application/json",
        standard="ndjson-spec 1.0; the fields are our own",
        drops="nothing: the record is in it as it came",
        shortens="never",
    ),
)
