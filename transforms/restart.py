"""Begins a partition elsewhere than behind what is settled: on explicit word, after retention
overtook it, or in a hub that was made anew.

The only way that a position moves other than over settled records. Forward, what is passed over
is written down as a gap, and what is owed stays owed. Back, the account so far is a closed chapter
and kept under `history/<time>/`; a new one begins, and carries over what is still owed at or below
the position. Of a hub that is gone nothing is carried over: its numbers mean other events now.

    moves/<source>/<partition>.json       what is being done; written first, and done after a crash
    history/<time>/<path>                 the closed chapter, each object at its path
    history/<time>/moves/…                who moved what, and why

Call with the run's lock held, before anything of the partition is read.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone

import msgspec

from schemas.batch import Origin
from schemas.ledger import IOU, Span
from schemas.receipt import Outcomes
from transforms import owed
from transforms.account import Settled, begin, checkpoint
from transforms.capture import read_capture
from transforms.gaps import GONE, Gap, forget_gaps, gaps_folder, record_gap
from transforms.hand_over import load, marks, put, put_marks
from transforms.owed import account_path
from transforms.state_store import StateStore, place, unplace

__all__ = ["Moved", "move", "pass_over", "renew", "resume"]

_OF_SINKS = ("accounts", "owed", "paid", "receipts")


class Moved(msgspec.Struct, frozen=True):
    """What was done. least, most: where the sinks stood. history: the folder in the store that
    keeps the chapter that was closed; "": none was."""

    origin: Origin
    least: int
    most: int
    position: int
    history: str = ""


class _Move(msgspec.Struct):
    """back: sinks that begin a new chapter; on: sinks that go forward. new: nothing of the old
    chapter counts any more. kept: whether history has all of it."""

    origin: Origin
    position: int
    why: str
    time: str
    back: list[str] = []
    on: list[str] = []
    gaps: list[Gap] = []
    new: bool = False
    kept: bool = False


_MOVE = msgspec.json.Decoder(_Move)
_IOU = msgspec.json.Decoder(IOU)
_SETTLED = msgspec.json.Decoder(Settled)


def move(
    store: StateStore, sinks: Iterable[str], origin: Origin, position: int, why: str
) -> Moved | None:
    """Let every sink of the partition go on behind `position`; None if all stand there.

    A sink that has no account yet begins there. After a step back the deduplication's memory is
    gone: what is wanted again is no repeat. why: for the gap, and for history.
    """
    return _move(store, [*sinks], origin, position, why, back=True)


def pass_over(
    store: StateStore, sinks: Iterable[str], origin: Origin, position: int, why: str = GONE
) -> Moved | None:
    """Forward alone: sinks that stand before `position` go on behind it; None if there is none."""
    return _move(store, [*sinks], origin, position, why, back=False)


def renew(
    store: StateStore, sinks: Iterable[str], origin: Origin, position: int, why: str
) -> Moved | None:
    """Close the chapter of everything that the store knows of the partition, also of sinks that
    are gone, and begin behind `position`; with no sinks given, begin nothing. None if nothing is
    known of it."""
    known = {
        name
        for top in _OF_SINKS
        for name in {unplace(path)[1] for path in store.list(top)}
        if any(_chapter(store, name, origin))
    }
    positions = [*_stands(store, known, origin).values()]
    doing = _Move(origin, position, why, _free(store, origin), sorted({*known, *sinks}), new=True)
    doing.on = [*sinks]
    if not known and not any(_of_nobody(store, origin)):
        return None
    return _begin(store, doing, positions)


def resume(store: StateStore) -> None:
    """Finish what a crash interrupted."""
    for path in [*store.list("moves")]:
        _finish(store, path, _MOVE.decode(store.get(path) or b""))


def _move(
    store: StateStore, sinks: list[str], origin: Origin, position: int, why: str, back: bool
) -> Moved | None:
    stands = _stands(store, sinks, origin)
    doing = _Move(origin, position, why, _free(store, origin))
    doing.back = [sink for sink, at in stands.items() if at > position and back]
    doing.on = [sink for sink, at in stands.items() if at < position]
    if not (doing.back or doing.on):
        if back:
            begin(store, sinks, origin, position)
        return None
    now_ms, passed = int(time.time() * 1000), f"passed over: {why}" if back else why
    edges = sorted({position, *(stands[sink] for sink in doing.on)})
    for at, following in itertools.pairwise(edges):
        whose = tuple(sorted(sink for sink in doing.on if stands[sink] <= at))
        everybody = len(whose) == len(stands)
        doing.gaps.append(Gap(at + 1, following, now_ms, passed, () if everybody else whose))
    moved = _begin(store, doing, [stands[sink] for sink in (*doing.back, *doing.on)])
    if back:
        begin(store, sinks, origin, position)
    return moved


def _begin(store: StateStore, doing: _Move, positions: list[int]) -> Moved:
    path = _path(doing.origin)
    store.put(path, msgspec.json.encode(doing))
    _finish(store, path, doing)
    return Moved(
        doing.origin,
        min(positions, default=-1),
        max(positions, default=-1),
        doing.position,
        f"history/{doing.time}" if doing.back else "",
    )


def _finish(store: StateStore, path: str, doing: _Move) -> None:
    """Every step may be said again: what it makes is the same."""
    origin, history = doing.origin, f"history/{doing.time}"
    if doing.back and not doing.kept:
        for each in _closed(store, doing):
            store.put(f"{history}/{each}", store.get(each) or b"")
        doing.kept = True
        store.put(path, msgspec.json.encode(doing))
    with owed.alone:
        if doing.new:
            for each in _closed(store, doing):
                store.delete(each)
            begin(store, doing.on, origin, doing.position)
        else:
            for sink in doing.back:
                _new_chapter(store, sink, origin, doing.position)
            for sink in doing.on:
                _go_on(store, sink, origin, doing.position)
    if doing.back:
        forget_gaps(store, origin, doing.position)
    _hand_over(store, doing)
    for gap in doing.gaps:
        record_gap(store, origin, gap)
    for sink in {*doing.back, *doing.on}:
        owed.changed(store, sink)
    _tell_checkpoint(store, doing)
    store.put(f"{history}/{path}", msgspec.json.encode(doing))
    store.delete(path)


def _new_chapter(store: StateStore, sink: str, origin: Origin, position: int) -> None:
    """What is owed at or below the position is all that it begins with: as one receipt, so that
    an account is the sum of its receipts here as everywhere."""
    source, partition = origin.source, origin.partition
    owed.trim(store, sink, source, partition, position)
    left: list[IOU] = []
    for path in [*store.list(place("owed", sink, *source.split("/"), partition))]:
        iou = _IOU.decode(store.get(path) or b"")
        iou.delivered = iou.dead = 0  # counted in the chapter that is closed
        store.put(path, msgspec.json.encode(iou))
        left.append(iou)
    for path in [*_chapter(store, sink, origin)]:
        if path.split("/")[0] in ("paid", "receipts"):
            store.delete(path)
    count = sum(iou.count for iou in left)
    began, spans, outcomes = position + 1, [], Outcomes(owed=count)
    if count:
        began = min(run.first for iou in left for run in iou.owed)
        since_ms = min((iou.since_ms for iou in left if iou.since_ms), default=0)
        spans = [Span(began, position, count, outcomes, since_ms, since_ms)]
    begun = Settled(position, count, 0, outcomes, began, "", spans)
    store.put(account_path(sink, source, partition), msgspec.json.encode(begun))


def _go_on(store: StateStore, sink: str, origin: Origin, position: int) -> None:
    path = account_path(sink, origin.source, origin.partition)
    stored = _SETTLED.decode(store.get(path) or b"")
    if stored.position < position:
        # What a crash left beyond the old position is void, and must not count behind the new one.
        owed.trim(store, sink, origin.source, origin.partition, stored.position)
        stored.position, stored.offset = position, ""
        store.put(path, msgspec.json.encode(stored))


def _tell_checkpoint(store: StateStore, doing: _Move) -> None:
    origin = doing.origin
    path = place("checkpoints", *origin.source.split("/"), "checkpoint", origin.partition)
    least = checkpoint(store, [*doing.back, *doing.on], origin)
    if least is not None:
        store.put(path, msgspec.json.encode({"sequencenumber": str(least)}), sync=False)
    else:
        store.delete(path)


def _hand_over(store: StateStore, doing: _Move) -> None:
    """Digests count from the position on, too; and after a step back nothing was seen yet. That
    records up to the high-water mark are no repeats of what is read to warm up, stays true."""
    name = str(doing.origin)
    handed = load(store)
    if handed is not None:
        if doing.back:
            handed.positions[name] = handed.counted[name] = doing.position
            handed.horizon_ms, handed.files, handed.weak = 0, [], ""
        else:
            for reached_to in (handed.positions, handed.counted):
                reached_to[name] = max(reached_to.get(name, -1), doing.position)
        if doing.new:
            handed.unsettled.pop(name, None)
        put(store, handed)
    if doing.new:
        reached = {each: mark for each, mark in marks(store).items() if each != name}
        put_marks(store, reached)


def _stands(store: StateStore, sinks: Iterable[str], origin: Origin) -> dict[str, int]:
    """The positions of the sinks that have one."""
    found = {sink: checkpoint(store, [sink], origin) for sink in sinks}
    return {sink: position for sink, position in found.items() if position is not None}


def _closed(store: StateStore, doing: _Move) -> list[str]:
    """All objects of the chapter that ends."""
    found = [path for sink in doing.back for path in _chapter(store, sink, doing.origin)]
    found += store.list(gaps_folder(doing.origin))
    if doing.new:
        found += _of_nobody(store, doing.origin)
    return list(dict.fromkeys(found))


def _chapter(store: StateStore, sink: str, origin: Origin) -> Iterator[str]:
    """The objects of one sink's account of the partition."""
    parts = (sink, *origin.source.split("/"))
    for top in _OF_SINKS:
        yield from store.list(place(top, *parts, origin.partition))
        path = place(top, *parts, f"{origin.partition}.json")
        if store.get(path) is not None:
            yield path


def _of_nobody(store: StateStore, origin: Origin) -> Iterator[str]:
    """The objects that are no single sink's."""
    parts = (*origin.source.split("/"), origin.partition)
    yield from store.list(gaps_folder(origin))
    yield from store.list(place("aside", "events", *parts))
    # Dead letters of all consumer groups of a hub lie in one folder.
    for path in store.list(place("dead", *parts[:2], origin.partition)):
        _, letter = next(read_capture(store.get(path) or b""), (None, {}))
        if letter.get("alertbeam-source") == origin.source:
            yield path


def _path(origin: Origin) -> str:
    return place("moves", *origin.source.split("/"), f"{origin.partition}.json")


def _free(store: StateStore, origin: Origin) -> str:
    """A name for history that none of the partition has, by the time now."""
    now = datetime.now(timezone.utc)
    while True:
        name = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z"
        if store.get(f"history/{name}/{_path(origin)}") is None:
            return name
        now += timedelta(milliseconds=1)
