"""What happened in a window: counts by chosen keys, with samples that lead back to the alerts."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from schemas.alert import SEVERITIES, Alert

__all__ = ["Digest", "Sample", "from_json", "to_alert", "to_json"]


class Sample(msgspec.Struct, frozen=True, order=True):
    """One alert of many: `id` is its `event_id`, 32 hex digits."""

    id: str
    title: str


class Digest(msgspec.Struct, kw_only=True, frozen=True):
    """One pane of one key's window. Panes add up: each counts what came since the one before. After
    a crash between telling and settling, one may count again what the panes from `recounts` on
    had counted.

    Times are milliseconds since the epoch, UTC; the window is start_ms <= time < end_ms.
    """

    name: str  # the digest's, from the settings
    key: dict[str, str]  # what was counted apart: {"subscription": "…", "severity": "high"}
    start_ms: int
    end_ms: int
    pane: int  # from 0
    timing: Literal["early", "on_time", "late"]
    total: int
    severities: dict[str, int]
    statuses: dict[str, int]
    kinds: dict[str, int]
    first_ms: int  # the least and the greatest event time in it
    last_ms: int
    samples: list[Sample]
    recounts: int | None = None

    @property
    def id(self) -> str:
        """32 hex digits, equal when the same pane is made again."""
        parts = (self.name, self.start_ms, self.end_ms, self.pane, sorted(self.key.items()))
        return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Digest)


def to_json(digest: Digest) -> bytes:
    """The digest and its `id` as one JSON object on one line."""
    fields = msgspec.structs.asdict(digest)
    if digest.recounts is None:
        del fields["recounts"]
    return _ENCODER.encode({"id": digest.id, **fields})


def from_json(data: bytes) -> Digest:
    """The reverse of `to_json`. Raises msgspec.ValidationError."""
    return _DECODER.decode(data)


def to_alert(digest: Digest) -> Alert:
    """The digest in the shape that every sink can write; its JSON is `raw`."""
    of = ", ".join(value for value in digest.key.values() if value)
    subscription = digest.key.get("subscription", "")
    return Alert(
        kind="digest",
        key=bytes.fromhex(digest.id),
        entity=digest.name,
        version=str(digest.pane),
        title=f"{digest.name}: {digest.total} alerts" + (f" ({of})" if of else ""),
        severity=max(digest.severities, key=SEVERITIES.index, default="unknown"),
        event_ms=digest.last_ms,
        start_ms=digest.start_ms,
        end_ms=digest.end_ms,
        subscription_id=subscription,
        product="alertbeam",
        alert_type=digest.name,
        raw=to_json(digest),
    )
