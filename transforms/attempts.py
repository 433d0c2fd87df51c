"""Attempts at reading a partition, where a runner's own state outlasts its workers (Flink).

    attempts/<source>/<partition>.json    the youngest attempt

After a failure such a runner reads again from its own checkpoint, though sinks have settled more by
then, and the store says so. What a sink has settled is final: so whoever reads a partition anew
first writes down where each sink stands, and its batches name that attempt by number. No batch lies
across one of those positions; each sink passes over what comes before its own; its account goes on
from whichever is further, the runner's state or the store; and an account of an older attempt, that
a worker still has in hand, is not written any more. What the deduplication makes of it:
docs/adr/0011, which holds here with an attempt for a crash.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

import msgspec

from schemas.batch import Origin
from transforms.state_store import StateStore, place

__all__ = ["NO_ATTEMPT", "Attempt", "Attempts", "attempt", "begin"]

_FOR_EVER = 2**62


class Attempt(msgspec.Struct, frozen=True):
    """number: when it began, in ns; 0: no attempt, which only clusters have. settled: by sink, up
    to where. mark: the last event that may have been read before. told: up to where the digests
    have told it."""

    number: int = 0
    settled: dict[str, int] = {}
    mark: int = -1
    told: int = -1

    @property
    def partly(self) -> int:
        """Up to where any sink had settled it."""
        return max(self.settled.values(), default=-1)

    def until(self, first: int, stop: int) -> int:
        """How far a batch that begins with `first` may go: not across a position."""
        positions = sorted(self.settled.values())
        at = bisect_left(positions, first)
        return min(stop, positions[at] + 1) if at < len(positions) else stop


NO_ATTEMPT = Attempt()
_DECODER = msgspec.json.Decoder(Attempt)


def attempt(store: StateStore, origin: Origin) -> Attempt:
    """The partition's youngest."""
    data = store.get(_path(origin))
    return _DECODER.decode(data) if data else NO_ATTEMPT


def begin(
    store: StateStore, origin: Origin, settled: dict[str, int], mark: int | None, told: int = -1
) -> Attempt:
    """Begin an attempt, durably. mark: None where nobody knows."""
    before = attempt(store, origin)
    number = max(time.time_ns(), before.number + 1)
    begun = Attempt(number, settled, _FOR_EVER if mark is None else mark, told)
    store.put(_path(origin), msgspec.json.encode(begun))
    return begun


class Attempts:
    """What one DoFn knows of attempts: each is looked up once, when its first batch comes."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._known: dict[Origin, tuple[int, Attempt]] = {}

    def of(
        self, origin: Origin, number: int, new: Callable[[Attempt], None] = lambda attempt: None
    ) -> Attempt:
        """The attempt of this number, or a younger one of the partition. new: called when this is
        the first batch of it."""
        if not number:
            return NO_ATTEMPT
        named, known = self._known.get(origin, (0, NO_ATTEMPT))
        if number > named:
            known = attempt(self._store, origin)
            self._known[origin] = number, known
            new(known)
        return known


def _path(origin: Origin) -> str:
    return place("attempts", *origin.source.split("/"), f"{origin.partition}.json")
