"""What sinks are owed, in the state store: a few small objects a partition, exact through crashes.

What comes to be owed is added to the partition's youngest *segment*, until that holds
`_MOST_RUNS` runs and the next begins; what is paid is struck out, and counted, in the same write.
A segment that is paid wholly goes: its counts are added to the partition's sum under `paid/`,
which names it, so that it counts once even if a crash leaves both.

Segments are written before the position moves over what they speak of. So what lies beyond the
position is void, and after a crash it is trimmed: those records are read again anyway.

Dead letters that are tried again are owed, too: a segment of their own each time, with the letters
under `tried/`. In its sums they are dead less once, so that `owed` takes what `dead` gives.
"""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from schemas.dead_letter import DeadLetter
from schemas.ledger import IOU, Owing, Payment
from schemas.runs import Run, addresses, clip, intersect, runs, subtract, union
from transforms.dead_letters import (
    pack,
    read_dead_letters,
    refused_again,
    strike,
    unpack,
    write_dead_letters,
)
from transforms.hand_over import lack
from transforms.state_store import StateStore, place, unplace

__all__ = [
    "Aside",
    "Debt",
    "Sums",
    "account_path",
    "alone",
    "aside_of",
    "changed",
    "debts",
    "drop_aside",
    "letters_of",
    "put_aside",
    "sums",
    "trim",
    "try_again",
    "void_letters",
    "write",
    "write_off",
]

_MOST_RUNS = 2_000
_MOST_LETTERS = 2_000  # of a segment of them, and bytes
_LETTERS_BYTES = 4 * 1024 * 1024
_TRIED = 2**62  # such segments are numbered from here on: no hub's event is
_AT_ONCE = 10_000  # records that are written off with one file
_CLOSED = 64  # closed segments that are remembered: more than a reader can have overlooked
_MOST_KEPT = 256  # answers, of different sinks and stores


class _Paid(msgspec.Struct):
    """What segments that are gone came to; `closed`: the first events of the last of them."""

    delivered: int = 0
    dead: int = 0
    closed: list[int] = []
    not_routed: int = 0


class _Tried(IOU):
    """Dead letters that are tried again. dead: less than 0, as they are counted dead already.
    not_routed: understood now, and of no interest to the sink."""

    not_routed: int = 0


class _Counts(msgspec.Struct):
    """A segment without its runs, which are skipped as it is read."""

    delivered: int
    dead: int
    since_ms: int
    not_routed: int = 0


class _Position(msgspec.Struct):
    position: int


_IOU = msgspec.json.Decoder(IOU)
_TRIED_IOU = msgspec.json.Decoder(_Tried)
_PAID = msgspec.json.Decoder(_Paid)
_COUNTS = msgspec.json.Decoder(_Counts)
_POSITION = msgspec.json.Decoder(_Position)


def account_path(sink: str, source: str, partition: str) -> str:
    """Where the sink's position and sums lie."""
    return place("accounts", sink, *source.split("/"), f"{partition}.json")


# ---------------------------------------------------------------------------------- writing

alone = threading.Lock()
"""Held by whoever writes what is owed, or a position over it: a runner may have several of the
same account in one process, and other processes are kept out (`StateStore.lock`)."""


def write(
    store: StateStore,
    sink: str,
    source: str,
    partition: str,
    owing: Sequence[Owing],
    payment: Payment | None = None,
) -> None:
    """Add what came to be owed, in order, and strike out what was paid. Saying either again
    changes nothing. Hold `alone`; say `changed` once the position has moved, too."""
    book = _Book(store, sink, source, partition)
    if owing:
        book.owe(owing)
    if payment is not None:
        book.pay(payment)
    book.save()


def trim(store: StateStore, sink: str, source: str, partition: str, position: int) -> None:
    """Forget what a crash left beyond the position; what was paid stays counted. Hold `alone`."""
    book = _Book(store, sink, source, partition)
    book.trim(position)
    book.save()


def write_off(
    store: StateStore,
    sink: str,
    source: str,
    partition: str,
    written_off: Iterable[Run],
    reason: str,
    at_ms: int,
) -> None:
    """End what is owed as dead: a dead letter each, then the sums. Saying it again changes nothing.

    at_ms: about when the records were enqueued. The letters have no body, but for those that were
    tried again. `alone` must not be held.
    """
    written_off = [*written_off]
    lack(store, sink, source, partition, written_off)
    with alone:
        known = _Book(store, sink, source, partition).letters()
    left = sorted(addresses(written_off))
    for at in range(0, len(left), _AT_ONCE):
        part = left[at : at + _AT_ONCE]
        nobody = DeadLetter(source, partition, 0, 0, at_ms, sink, reason, b"")
        write_dead_letters(
            store,
            (
                msgspec.structs.replace(
                    known.get(each, nobody),
                    sequence=each[0], index=each[1], step=sink, reason=reason,
                )
                for each in part
            ),
        )  # fmt: skip
        with alone:
            write(store, sink, source, partition, (), Payment([], runs(part), part[-1][0]))
    changed(store, sink)


def try_again(store: StateStore, sink: str, letters: Iterable[DeadLetter]) -> None:
    """Let dead letters of one partition, which the sink's account has counted, be owed to it.

    Those that are already are passed over: said again after a crash, it changes nothing, as long
    as nothing was paid in between. Hold `alone`; `strike` the letters then, and say `changed`.
    """
    books: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        books.setdefault((letter.source, letter.partition), []).append(letter)
    for (source, partition), found in books.items():
        _Book(store, sink, source, partition).try_again(found)


def void_letters(store: StateStore, sinks: Iterable[str]) -> None:
    """Strike what a crash left of letters between being written and being counted: those of records
    that are owed. To be said while nothing is on its way, at the start of a run or of a payment."""
    left: dict[tuple[str, str, str], list[Run]] = {}
    for debt in (debt for sink in sinks for debt in debts(store, sink)):
        left.setdefault((debt.source, debt.partition, debt.sink), []).extend(debt.iou.owed)
    found: dict[tuple[str, str, str], dict[tuple[int, int], DeadLetter]] = {}
    for letter in read_dead_letters(store) if left else ():
        whose = letter.source, letter.partition, letter.step
        if whose in left:
            letter.body = b""  # there may be many
            found.setdefault(whose, {})[letter.sequence, letter.index] = letter
    for whose, letters in found.items():
        void = intersect(runs(letters), left[whose])
        strike(store, [letters[at] for at in addresses(void)])


def changed(store: StateStore, sink: str) -> None:
    """Tell readers to look again at what the sink is owed."""
    store.put(place("changed", sink), uuid.uuid4().bytes, sync=False)


class _Book:
    """The segments of one sink and partition, by their first event. Read as they are needed."""

    def __init__(self, store: StateStore, sink: str, source: str, partition: str) -> None:
        self._store = store
        self._sink, self._source, self._partition = sink, source, partition
        self._folder = place("owed", sink, *source.split("/"), partition)
        self._paid_path = _paid_path(sink, source, partition)
        self._paid = _paid(store, sink, source, partition)
        self._firsts: list[int] = []
        self._tries: list[int] = []
        self._ended: list[tuple[list[DeadLetter], list[DeadLetter]]] = []  # and not dead; dead
        self._read: dict[int, tuple[bytes, IOU]] = {}
        for path in store.list(self._folder):
            first = _first(path)
            if first in self._paid.closed:
                self._delete(first)  # a crash left it
            elif first < _TRIED:
                self._firsts.append(first)
            else:
                self._tries.append(first)

    def owe(self, owing: Iterable[Owing]) -> None:
        iou = self._iou(self._firsts[-1]) if self._firsts else None
        known = iou.last if iou else -1
        for entry in owing:
            if entry.last <= known:
                continue  # a flush got thus far, and failed then
            if iou is None or len(iou.owed) >= _MOST_RUNS:
                iou = self._begin(min(run.first for run in entry.owed))
            iou.owed.extend(entry.owed)
            if len(iou.owed) >= _MOST_RUNS:
                iou.owed = union(iou.owed)
            iou.last = entry.last
            iou.since_ms = iou.since_ms or entry.since_ms
        if iou is not None:
            iou.owed = union(iou.owed)

    def pay(self, payment: Payment) -> None:
        runs = (*payment.delivered, *payment.dead)
        if self._firsts and runs:
            begin = bisect_right(self._firsts, min(run.first for run in runs)) - 1
            stop = bisect_right(self._firsts, max(run.last for run in runs))
            for first in self._firsts[max(begin, 0) : stop]:
                self._iou(first).pay(payment)
        for number in self._tries:
            self._pay_tried(number, payment)

    def _pay_tried(self, number: int, payment: Payment) -> None:
        iou = self._iou(number)
        assert isinstance(iou, _Tried), "its number says so"
        before = iou.owed
        iou.pay(payment)
        left = iou.count
        iou.owed = subtract(iou.owed, payment.not_routed)
        iou.not_routed += left - iou.count
        if ended := subtract(before, iou.owed):
            letters = self._letters(number)
            dead = {*addresses(intersect(subtract(ended, payment.delivered), payment.dead))}
            well = {*addresses(ended)} - dead
            self._ended.append(
                ([letters[at] for at in well], [letters[at] for at in dead]),
            )

    def try_again(self, letters: Iterable[DeadLetter]) -> None:
        """Writes at once: the letters, then that they are owed."""
        self._sweep()
        every = (*self._firsts, *self._tries)  # a crash may have left letters of either
        owed = {at for first in every for at in addresses(self._iou(first).owed)}
        fresh = [each for each in letters if (each.sequence, each.index) not in owed]
        while fresh:
            size = most = 0
            while most < min(len(fresh), _MOST_LETTERS) and size < _LETTERS_BYTES:
                size += len(fresh[most].body)
                most += 1
            now, fresh = fresh[:most], fresh[most:]
            before = max(_TRIED, *self._tries, *self._paid.closed, 0)
            number = max(_TRIED + time.time_ns(), before + 1)  # none twice, whatever the clock does
            self._tries.append(number)
            self._store.put(self._letters_path(number), pack(now))
            iou = _Tried(
                runs((each.sequence, each.index) for each in now),
                max(each.sequence for each in now),
                min(each.enqueued_ms for each in now),
                dead=-len(now),
            )
            self._store.put(self._path(number), msgspec.json.encode(iou))

    def letters(self) -> dict[tuple[int, int], DeadLetter]:
        """Those that are tried again, by their addresses."""
        return {at: each for n in self._tries for at, each in self._letters(n).items()}

    def _letters(self, number: int) -> dict[tuple[int, int], DeadLetter]:
        """As the sink's own."""
        found = letters_of(self._store, self._letters_path(number))
        return {
            at: msgspec.structs.replace(letter, step=self._sink) for at, letter in found.items()
        }

    def trim(self, position: int) -> None:
        self._sweep()
        for first in reversed(self._firsts):
            iou = self._iou(first)
            if iou.last <= position:
                break
            iou.owed = clip(iou.owed, 0, position)
            iou.last = position

    def save(self) -> None:
        """Write what is new, the oldest first. Letters before that they are owed no more."""
        for well, dead in self._ended:
            strike(self._store, well)
            refused_again(self._store, dead)
        self._ended.clear()
        for first, (data, iou) in sorted(self._read.items()):
            new = msgspec.json.encode(iou)
            if not iou.owed:
                self._close(first, iou)
            elif new != data:
                self._store.put(self._path(first), new)

    def _close(self, first: int, iou: IOU) -> None:
        not_routed = iou.not_routed if isinstance(iou, _Tried) else 0
        if iou.delivered or iou.dead or not_routed:
            self._paid.delivered += iou.delivered
            self._paid.dead += iou.dead
            self._paid.not_routed += not_routed
            self._paid.closed = [*self._paid.closed[1 - _CLOSED :], first]
            self._store.put(self._paid_path, msgspec.json.encode(self._paid))
        self._delete(first)

    def _sweep(self) -> None:
        """Letters that a crash left without a segment."""
        known = {*map(self._letters_path, self._tries)}
        folder = place("tried", self._sink, *self._source.split("/"), self._partition)
        for path in self._store.list(folder):
            if path not in known:
                self._store.delete(path)

    def _delete(self, first: int) -> None:
        self._store.delete(self._path(first))
        if first >= _TRIED:
            self._store.delete(self._letters_path(first))

    def _begin(self, first: int) -> IOU:
        self._firsts.append(first)
        self._read[first] = b"", IOU([])
        return self._read[first][1]

    def _iou(self, first: int) -> IOU:
        if first not in self._read:
            data = self._store.get(self._path(first))
            assert data is not None, "only who is alone deletes segments"
            decoder = _IOU if first < _TRIED else _TRIED_IOU
            self._read[first] = data, decoder.decode(data)
        return self._read[first][1]

    def _path(self, first: int) -> str:
        return f"{self._folder}/{first:020d}.json"

    def _letters_path(self, number: int) -> str:
        return _letters_path(self._sink, self._source, self._partition, number)


def _letters_path(sink: str, source: str, partition: str, number: int) -> str:
    return place("tried", sink, *source.split("/"), partition, f"{number}.avro")


def letters_of(store: StateStore, path: str) -> dict[tuple[int, int], DeadLetter]:
    """The letters of a debt, by `(sequence, index)`; none where it is paid already."""
    data = store.get(path)
    return {(each.sequence, each.index): each for each in unpack(data)} if data else {}


def _paid_path(sink: str, source: str, partition: str) -> str:
    return place("paid", sink, *source.split("/"), f"{partition}.json")


def _paid(store: StateStore, sink: str, source: str, partition: str) -> _Paid:
    data = store.get(_paid_path(sink, source, partition))
    return _PAID.decode(data) if data else _Paid()


def _first(path: str) -> int:
    return int(path.rpartition("/")[2].removesuffix(".json"))


# ---------------------------------------------------------------------------------- reading


class Debt(NamedTuple):
    """A segment, what of it lies at or before the position, and where it is. Only to be read.

    letters: where the records themselves are, if they are dead letters that are tried again.
    """

    sink: str
    source: str
    partition: str
    path: str
    first: int
    iou: IOU
    letters: str = ""


class Sums(NamedTuple):
    """How records that a sink was owed ended. since_ms: when the oldest of those that it still is
    owed was enqueued, or somewhat before; 0: nothing is owed, or not known. dead: less those that
    were dead before they came to be owed: it may be negative."""

    delivered: int
    dead: int
    since_ms: int
    not_routed: int = 0


def debts(store: StateStore, sink: str, segments: int | None = None) -> list[Debt]:
    """What a sink is owed now, by partition, the oldest first. Costs one small read when nothing
    has changed since it was asked last.

    segments: at most so many of a partition, the oldest: a long outage need not fit into memory.
    """
    return [*_kept(store, sink, segments, lambda: [*_debts(store, sink, segments)])]


def _debts(store: StateStore, sink: str, segments: int | None) -> Iterator[Debt]:
    for (source, partition), paths in _segments(store, sink).items():
        position = _position(store, sink, source, partition)
        hub = [path for path in paths if _first(path) < _TRIED]
        chosen = hub[:segments] + paths[len(hub) :][:segments]
        read = ((path, store.get(path)) for path in chosen)
        found = [(path, _IOU.decode(data)) for path, data in read if data is not None]
        closed = _paid(store, sink, source, partition).closed  # after: it may go meanwhile
        for path, iou in found:
            if iou.last > position:
                iou.owed = clip(iou.owed, 0, position)
                iou.last = position
            first = _first(path)
            if iou.owed and first not in closed:
                letters = ""
                if first >= _TRIED:
                    letters = _letters_path(sink, source, partition, first)
                yield Debt(sink, source, partition, path, first, iou, letters)


def sums(store: StateStore, sink: str) -> Sums:
    """What payments came to, over all partitions. As cheap as `debts`."""
    return _kept(store, sink, "sums", lambda: _sums(store, sink))


def _sums(store: StateStore, sink: str) -> Sums:
    delivered = dead = not_routed = since_ms = 0
    open_: dict[tuple[str, str], dict[int, _Counts]] = {}
    for origin, paths in _segments(store, sink).items():
        read = ((path, store.get(path)) for path in paths)
        open_[origin] = {_first(path): _COUNTS.decode(data) for path, data in read if data}
    for path in store.list(place("paid", sink)):  # after: a segment may close meanwhile
        _, _, *source, partition = unplace(path)
        origin = "/".join(source), partition.removesuffix(".json")
        paid = _paid(store, sink, *origin)
        delivered += paid.delivered
        dead += paid.dead
        not_routed += paid.not_routed
        for first in paid.closed:
            open_.get(origin, {}).pop(first, None)
    for segment in (segment for found in open_.values() for segment in found.values()):
        delivered += segment.delivered
        dead += segment.dead
        not_routed += segment.not_routed
        since_ms = min(since_ms or segment.since_ms, segment.since_ms or since_ms)
    return Sums(delivered, dead, since_ms, not_routed)


def _segments(store: StateStore, sink: str) -> dict[tuple[str, str], list[str]]:
    """Paths by source and partition, the oldest first."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in store.list(place("owed", sink)):
        _, _, *source, partition, _ = unplace(path)
        found.setdefault(("/".join(source), partition), []).append(path)
    return found


def _position(store: StateStore, sink: str, source: str, partition: str) -> int:
    data = store.get(account_path(sink, source, partition))
    return _POSITION.decode(data).position if data else -1


T = TypeVar("T")
_answers: dict[tuple[Path, str, object], tuple[bytes | None, object]] = {}


def _kept(store: StateStore, sink: str, question: object, ask: Callable[[], T]) -> T:
    """The last answer, unless the sink's `changed` says otherwise since."""
    token = store.get(place("changed", sink))  # first: what changes while asking is asked again
    key = store.folder, sink, question
    known, answer = _answers.get(key, (None, None))
    if answer is None or known != token:
        answer = ask()
        if len(_answers) >= _MOST_KEPT:
            _answers.clear()
        _answers[key] = token, answer
    return answer  # type: ignore[return-value]


# -------------------------------------------------------------------- payloads, kept in time


class Aside(NamedTuple):
    """A file in Capture's layout with every event of `first..last`, for whichever sink."""

    first: int
    last: int
    path: str


def put_aside(
    store: StateStore, source: str, partition: str, first: int, last: int, data: bytes
) -> str:
    """Keep events that the hub would soon delete; the file's path."""
    path = f"{_aside(source, partition)}/{first:020d}-{last:020d}.avro"
    store.put(path, data)
    return path


def aside_of(store: StateStore, source: str, partition: str) -> list[Aside]:
    """What is set aside of a partition, the oldest first."""
    found = []
    for path in store.list(_aside(source, partition)):
        first, _, last = path.rpartition("/")[2].removesuffix(".avro").partition("-")
        found.append(Aside(int(first), int(last), path))
    return found


def drop_aside(store: StateStore, sinks: Iterable[str], source: str, partition: str) -> None:
    """Delete what none of the sinks is owed, or may still come to owe, any more."""
    files = aside_of(store, source, partition)
    if not files:
        return
    sinks = [*sinks]
    settled = min((_position(store, sink, source, partition) for sink in sinks), default=-1)
    owed = [
        run
        for sink in sinks
        for debt in debts(store, sink)
        if (debt.source, debt.partition) == (source, partition) and not debt.letters
        for run in debt.iou.owed
    ]
    for file in files:
        if file.last <= settled and not clip(owed, file.first, file.last):
            store.delete(file.path)


def _aside(source: str, partition: str) -> str:
    return place("aside", "events", *source.split("/"), partition)
