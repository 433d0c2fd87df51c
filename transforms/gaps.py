"""Events that were never read: the hub had them no more, or somebody said to pass them over.

They are written down where they are found, before anything is read behind them, so that no report
is silent about them.
"""

from __future__ import annotations

import msgspec

from schemas.batch import Origin
from transforms.state_store import StateStore, place

__all__ = ["GONE", "Gap", "forget_gaps", "gaps", "gaps_folder", "record_gap"]

GONE = "the hub had them no more when they were to be read"


class Gap(msgspec.Struct, frozen=True, order=True):
    """The events `first..last` of a partition. found_ms: when it was noticed. why: one sentence.

    sinks: whom alone they are missing at, as the others had settled them before; none: everybody.
    """

    first: int
    last: int
    found_ms: int
    why: str
    sinks: tuple[str, ...] = ()

    def covers(self, other: Gap) -> bool:
        """Whether it says all that the other does."""
        inside = self.first <= other.first and other.last <= self.last
        return inside and (not self.sinks or {*self.sinks} >= {*other.sinks} > set())


_GAP = msgspec.json.Decoder(Gap)


def gaps_folder(origin: Origin) -> str:
    """Where a partition's lie in the store."""
    return place("gaps", *origin.source.split("/"), origin.partition)


def record_gap(store: StateStore, origin: Origin, gap: Gap) -> None:
    """Durable when it returns; saying it again (after a crash, or by another reader) changes
    nothing but the time."""
    path = f"{gaps_folder(origin)}/{gap.first:020d}-{gap.last:020d}.json"
    stored = store.get(path)
    if stored is not None:
        before = _GAP.decode(stored)
        if before.covers(gap):
            return
        both = {*before.sinks, *gap.sinks} if gap.sinks else ()
        gap = msgspec.structs.replace(gap, sinks=tuple(sorted(both)))
    store.put(path, msgspec.json.encode(gap))


def gaps(store: StateStore, origin: Origin) -> list[Gap]:
    """Those of a partition, in order; none lies wholly inside another."""
    found: list[Gap] = []
    for gap in sorted(_GAP.decode(store.get(p) or b"") for p in store.list(gaps_folder(origin))):
        if not any(other.covers(gap) for other in found):
            found = [other for other in found if not gap.covers(other)] + [gap]
    return found


def forget_gaps(store: StateStore, origin: Origin, position: int) -> None:
    """Those behind the position, and what of one lies there: it is to be read again."""
    for path in [*store.list(gaps_folder(origin))]:
        gap = _GAP.decode(store.get(path) or b"")
        if gap.last > position:
            if gap.first <= position:
                record_gap(store, origin, msgspec.structs.replace(gap, last=position))
            store.delete(path)
