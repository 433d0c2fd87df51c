"""Events that were never read: the hub had them no more, or somebody said to pass them over.

They are written down where they are found, before anything is read behind them, so that no report
is silent about them.
"""

from __future__ import annotations

import msgspec

from schemas.batch import Origin
from transforms.state_store import StateStore, place

__all__ = ["Gap", "gaps", "record_gap"]


class Gap(msgspec.Struct, frozen=True, order=True):
    """The events `first..last` of a partition. found_ms: when it was noticed. why: one sentence."""

    first: int
    last: int
    found_ms: int
    why: str


_GAP = msgspec.json.Decoder(Gap)


def record_gap(store: StateStore, origin: Origin, gap: Gap) -> None:
    """Durable when it returns; saying it again (after a crash, or by another reader) changes
    nothing but the time."""
    name = f"{gap.first:020d}-{gap.last:020d}.json"
    path = place("gaps", *origin.source.split("/"), origin.partition, name)
    if store.get(path) is None:
        store.put(path, msgspec.json.encode(gap))


def gaps(store: StateStore, origin: Origin) -> list[Gap]:
    """Those of a partition, in order; none lies wholly inside another."""
    folder = place("gaps", *origin.source.split("/"), origin.partition)
    found = sorted(_GAP.decode(store.get(path) or b"") for path in store.list(folder))
    return [
        gap
        for gap in found
        if not any(o is not gap and o.first <= gap.first and gap.last <= o.last for o in found)
    ]
