"""What a shift has to read again before anything is live: docs/adr/0011 has the argument.

After a clean shift in the same process that is nothing. After a crash it is what came since the
last clean end, for the digests and to mark what was seen; where what was seen is lost, too, it is
the deduplication's last horizon.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from schemas.batch import Origin
from transforms.account import checkpoint, receipts, settled
from transforms.deduplicate import Unsettled, hand_over
from transforms.hand_over import HandedOver, discard, high_water, load, marks, seen_keys, weaken
from transforms.read.event_hubs import Partition
from transforms.read.sdk import HubError, kept_sequences
from transforms.state_store import StateStore

__all__ = ["ColdStart", "clean_end", "cold_start", "firing", "horizon_start"]

_LOGGER = logging.getLogger(__name__)
_FIRING = "firing"
_ASKERS = 8


class ColdStart(NamedTuple):
    """partitions: as they were, but from an earlier event on where something is read again.
    left: what a crash left unsettled. again: how many events are read again. recounts: the first
    pane since the last clean end that may have been told already; None if none was.
    """

    partitions: list[Partition]
    left: dict[Origin, Unsettled]
    again: int = 0
    recounts: int | None = None

    @property
    def warming(self) -> list[Origin]:
        """The partitions that have something to read again."""
        return [_origin(each) for each in self.partitions if each.start < each.live]


def cold_start(
    store: StateStore,
    sinks: Iterable[str],
    partitions: Iterable[Partition],
    horizon_ms: int,
    remembered: bool = False,
) -> ColdStart:
    """Where to begin, given where each partition goes on live (`start`).

    remembered: whether this process still has what was seen, and need not look for it.
    """
    sinks = [*sinks]
    positions, began = _accounts(store, sinks)
    handed, reached = load(store), marks(store)
    known = dict(handed.positions) if handed else {}
    told = dict(handed.counted) if handed else {}
    remembers = handed is not None and handed.horizon_ms == horizon_ms
    if handed and remembers and not remembered and seen_keys(store, handed) is None:
        _LOGGER.warning("what the deduplication had seen is damaged: it is read again")
        remembers = False
    if handed and not remembers:
        discard(store, handed)
    elif handed and _came_back(handed, positions):
        weaken(store, handed)
    left, found = {}, []
    for each in partitions:
        origin, live = _origin(each), each.start
        name = str(origin)
        partly = max(positions.get(origin, [live - 1]))
        mark = max(partly, reached.get(name, -1), told.get(name, -1))
        if handed:
            mark = max(mark, handed.unsettled.get(name, -1))
        if mark >= live:
            left[origin] = Unsettled(partly, mark, told.get(name, -1))
        # Where no shift ended cleanly yet, nothing was told since the account began.
        ever = began.get(origin, live)
        counted = min(live, told[name] + 1 if name in told else ever)
        start = min(counted, known[name] + 1 if name in known else ever)
        if not remembers and origin in positions:
            start = min(start, horizon_start(store, sinks, origin, live, horizon_ms))
        found.append(each._replace(start=start, counted=counted, live=live))
    found = _kept(found)
    again = sum(each.live - each.start for each in found)
    number = int(fired) if (fired := store.get(_FIRING)) else None
    if number is not None and handed and number <= handed.number:
        number = None
        store.delete(_FIRING)  # a crash just after the end left it: the next shift says its own
    return ColdStart(found, left, again, number)


def _origin(partition: Partition) -> Origin:
    return Origin(partition.source, partition.partition)


def _accounts(
    store: StateStore, sinks: Iterable[str]
) -> tuple[dict[Origin, list[int]], dict[Origin, int]]:
    """The sinks' positions, and the first event that any of them ever had, where it is known."""
    positions: dict[Origin, list[int]] = {}
    began: dict[Origin, int] = {}
    for sink in sinks:
        for origin, entry in settled(store, sink).items():
            positions.setdefault(origin, []).append(entry.position)
            if entry.began >= 0:
                began[origin] = min(began.get(origin, entry.began), entry.began)
    return positions, began


def _came_back(handed: HandedOver, positions: Mapping[Origin, list[int]]) -> bool:
    """Whether a sink was out of the settings for a while: what the others had meanwhile is read
    again for it."""
    return any(
        min(of_sinks) < handed.counted.get(str(origin), -1)
        for origin, of_sinks in positions.items()
    )


def horizon_start(
    store: StateStore, sinks: Iterable[str], origin: Origin, live: int, horizon_ms: int
) -> int:
    """The first event of the last horizon before `live`, as the receipts tell its time."""
    first = live
    for sink in sinks:
        found = receipts(store, sink, origin)
        spans = [span for span in found[1] if span.first < live] if found else []
        last_ms = max((span.until_ms for span in spans), default=0)
        young = [span.first for span in spans if span.until_ms >= last_ms - horizon_ms]
        first = min([first, *young])
    return first


def _kept(partitions: list[Partition]) -> list[Partition]:
    """What the hub does not have any more need not be waited for."""

    def kept(each: Partition) -> Partition:
        if each.start >= each.live:
            return each
        try:
            first = kept_sequences(each.access, each.partition).start
        except HubError:
            return each  # reading will say so
        start = max(each.start, min(first, each.live))
        return each._replace(start=start, counted=max(each.counted, start))

    with ThreadPoolExecutor(_ASKERS, thread_name_prefix="what the hub keeps") as pool:
        return list(pool.map(kept, partitions))


def firing(store: StateStore, number: int) -> None:
    """The shift's panes fire now: should it not end cleanly, some may have been told."""
    if store.get(_FIRING) is None:
        store.put(_FIRING, str(number).encode())


def clean_end(
    run: str,
    store: StateStore,
    sinks: Iterable[str],
    started: ColdStart,
    heads: Mapping[Origin, int],
    number: int,
    horizon_ms: int,
    terms: Mapping[str, str] = {},
) -> bool:
    """Hand over after a shift that drained cleanly; False, and nothing is, if anything that was
    read is not settled: then it has to count as a crash.

    heads: up to which event each partition was read. terms: by sink, what it wanted in this shift.
    """
    before = load(store)
    positions = dict(before.positions) if before else {}
    counted = dict(before.counted) if before else {}
    unsettled = dict(before.unsettled) if before else {}
    read = {}
    for each in started.partitions:
        origin = _origin(each)
        name = str(origin)
        head = heads.get(origin, each.start - 1)
        position = checkpoint(store, sinks, origin)
        if position is None or head > position:
            return False
        positions[name] = head
        if head >= each.start:
            read[name] = each.start, head
        counted[name] = max(head, each.counted - 1, counted.get(name, -1))
        left = started.left.get(origin)
        if left and left.mark > head:
            unsettled[name] = left.mark
        else:
            unsettled.pop(name, None)
    handed = HandedOver(
        number, horizon_ms, positions, counted, unsettled, sinks=dict(terms), read=read
    )
    hand_over(run, store, handed)
    reached = {name: max(head, unsettled.get(name, -1)) for name, head in positions.items()}
    high_water(run, store).settle(reached)
    store.delete(_FIRING)
    return True
