"""What one shift leaves for the next, through a clean end or a crash: where it had read to, and
what it had seen. And what it leaves for replays: which sinks have what was seen, for a month.

    handed-over                 positions, and which of the files below hold
    seen/<generation>-<shift>   16 bytes a key, of what was new to the deduplication in a shift
    seen/weak-<shift>           keys whose record may not have reached every sink
    high-water                  up to where anything may have been read, kept ahead of reading
    known/index/<writer>        which of the files below hold; a writer is the live run, or a replay
    known/keys/<writer>/…       the same keys, of generations that the deduplication has forgotten
    known/lacks/<sink>/<source>/<partition>.json   events that were written off for the sink

`handed-over` is replaced whole, after its files, and so is a writer's index: these are what counts,
all else is swept. The argument that nothing is lost by what was seen stands in docs/adr/0011.

## Why no sink lacks what it is said to have

A file of keys has a *claim*: of which events its records are, and which sinks took part. It is
written at a clean end alone, when all that was read is settled in the accounts, which outlast a
crash; so each of these sinks had an outcome for the record that passed with the key:

- delivered, or dead (a dead letter has its own command), or owed, which will be paid;
- or not routed: so a sink is named with its *terms*, what it wanted then. Whoever asks trusts the
  claim only if by the same terms it had to be routed, or if the sink took everything;
- or it was written off: owed, and never delivered. `lack` says so, of which events and before it
  happens. A claim that is of any of these events is void for this sink, all of it: keys have no
  address. What rests on a claim (a replay that passed over what a sink had) names its events too.

A key that is weak when the shift ends is in no claim: it was marked by what is read again for
nobody, or some sink had settled its record in an earlier process. A sink that was new, or away, had
no part in that, though the deduplication may call the key strong once all are past their marks. So
a file holds sure keys first, then unsure ones, and the latter are never kept for replays.

All that is lost, damaged or doubtful is no claim: an alert comes twice, rather than not at all.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from schemas.batch import Origin
from schemas.runs import Run
from transforms.state_store import StateStore, place, unplace

__all__ = [
    "ALL",
    "DAY_MS",
    "KEY_BYTES",
    "REMEMBER_MS",
    "Claim",
    "Events",
    "HandedOver",
    "HighWater",
    "KeyFile",
    "Keys",
    "Packed",
    "claims",
    "discard",
    "high_water",
    "hull",
    "keys_of",
    "lack",
    "lacking",
    "load",
    "marks",
    "overlap",
    "put",
    "put_marks",
    "read_claim",
    "remember",
    "save",
    "seen_keys",
    "weaken",
]

KEY_BYTES = 16
ALL = "*"
DAY_MS = 24 * 3600 * 1000
REMEMBER_MS = 31 * DAY_MS
_PATH = "handed-over"
_MARKS = "high-water"
_LIVE = "live"
_MAGIC = b"keys by sinks 1\n"
_DIGEST = 16
_MOST_FILES = 16  # of a generation, or of a day, until they become one
_MOST_BYTES = 8 * 1024 * 1024  # of one that others become: what joining takes, a few times
_FULL = "-full"  # how the name of one ends that is not joined with others any more
_MOST_LACKS = 1_000  # ranges of a partition, until they become one
_MARGIN = (100, 100_000)  # events that a mark is ahead of reading
_AHEAD_SECONDS = 1.0

Keys = dict[int, list[bytes]]
"""By generation."""


class Packed:
    """Keys in 16 bytes each, where there may be a shift's. In a list they take 72, scattered among
    what lives less long, whose memory they keep from the system."""

    __slots__ = ("joined",)

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self.joined = bytearray()
        self.extend(keys)

    def extend(self, keys: Iterable[bytes]) -> None:
        self.joined += keys.joined if isinstance(keys, Packed) else b"".join(keys)

    def __len__(self) -> int:
        return len(self.joined) // KEY_BYTES

    def __iter__(self) -> Iterator[bytes]:
        ends = range(0, len(self.joined), KEY_BYTES)
        return (bytes(self.joined[at : at + KEY_BYTES]) for at in ends)


Events = dict[str, tuple[int, int]]
"""The first and the last event, by `str(origin)`."""


class HandedOver(msgspec.Struct):
    """How a shift that ended cleanly left everything.

    number: the shift's. By `str(origin)`: positions, the event up to which everything is settled,
        and marked as seen; counted, up to which the digests have told it; unsettled, where a
        partition is not yet past what an earlier crash left: the last event that may have been
        read before it.
    generation: the deduplication's. files, weak: names under `seen/`; weak is `ALL` where every
        key is.
    sinks: those that took part, each with its terms. read: which events were read, also those that
        were read again. remember_ms: how long that is kept for replays; 0: not at all.
    """

    number: int
    horizon_ms: int
    positions: dict[str, int]
    counted: dict[str, int] = {}
    unsettled: dict[str, int] = {}
    generation: int = -1
    files: list[str] = []
    weak: str = ""
    sinks: dict[str, str] = {}
    read: Events = {}
    remember_ms: int = REMEMBER_MS


class Claim(msgspec.Struct):
    """What a file of keys says. sinks: those that have what its first `sure` keys are of, each with
    its terms then. read: the events that these are of. rests: by sink, events of which other claims
    were, because of which it was passed over.
    """

    sinks: dict[str, str] = {}
    read: Events = {}
    sure: int = 0
    rests: dict[str, Events] = {}


_Body = bytes | memoryview
_Parts = Sequence[_Body]
"""Of a file's keys, in order."""

_CLAIM = msgspec.json.Decoder(Claim)
_RANGES = msgspec.json.Decoder(list[tuple[int, int]])


def load(store: StateStore) -> HandedOver | None:
    data = store.get(_PATH)
    return msgspec.json.decode(data, type=HandedOver) if data else None


def put(store: StateStore, handed: HandedOver) -> None:
    """Replace it whole, as it is."""
    store.put(_PATH, msgspec.json.encode(handed))


def save(
    store: StateStore,
    handed: HandedOver,
    fresh: Mapping[int, Iterable[bytes]],
    weak: Iterable[bytes],
) -> None:
    """Add what was new in a shift to the keys of the one before, and hand over.

    fresh: by generation; only the two last ones are kept here, those before them for replays. weak:
    all that are at the shift's end, also if every partition is past its mark.
    """
    before = load(store)
    files: list[str] = []
    if before and before.horizon_ms == handed.horizon_ms:
        files += before.files
        handed.generation = max(handed.generation, before.generation)
    unsure = {*weak}
    over = [each for each in sorted(fresh) if each < handed.generation - 1]
    for generation in sorted({*fresh} - {*over}):
        name = f"{generation:012d}-{handed.number}"
        claim, body = _claimed(handed, fresh[generation], unsure)
        _write(store, name, claim, [body])
        files.append(name)
    files = [*dict.fromkeys(files)]
    gone = [name for name in files if _generation(name) < handed.generation - 1]
    if handed.remember_ms and (gone or over):
        told = ((each, *_claimed(handed, fresh[each], unsure)) for each in over)
        _keep(store, handed, heapq.merge(told, _read_all(store, gone), key=itemgetter(0)))
    files = [name for name in files if name not in gone]
    small = sorted(name for name in files if not name.endswith(_FULL))
    for generation, same in itertools.groupby(small, _generation):
        if len(names := [*same]) > _MOST_FILES:
            files = [name for name in files if name not in names]
            groups = _by_sinks((claim, body) for _, claim, body in _read_all(store, names))
            for number, (claim, parts) in enumerate(groups):
                full = _FULL if _length(parts) > _MOST_BYTES // 2 else ""
                merged = f"{generation:012d}-{handed.number}-all{number or ''}{full}"
                _write(store, merged, claim, parts)
                files.append(merged)
    handed.files = files
    if handed.unsettled and unsure:
        handed.weak = f"weak-{handed.number}"
        _write(store, handed.weak, Claim(), [b"".join(unsure)])
    put(store, handed)
    for path in store.list("seen"):
        if path.removeprefix("seen/") not in (*files, handed.weak):
            store.delete(path)


def _claimed(handed: HandedOver, keys: Iterable[bytes], unsure: set[bytes]) -> tuple[Claim, bytes]:
    """A file of a shift's keys: what is sure first."""
    keys = Packed(keys)
    sure = Packed(key for key in keys if key not in unsure) if unsure else keys
    rest = Packed(key for key in keys if key in unsure) if unsure else Packed()
    claim = Claim(handed.sinks, handed.read, len(sure) if handed.sinks and handed.read else 0)
    return claim, b"".join((sure.joined, rest.joined))


def _keep(store: StateStore, handed: HandedOver, found: Iterable[tuple[int, Claim, bytes]]) -> None:
    span_ms = handed.horizon_ms
    timed = ((generation * span_ms, claim, body) for generation, claim, body in found)
    _archive(store, _LIVE, timed, span_ms, handed.remember_ms)


def discard(store: StateStore, handed: HandedOver) -> None:
    """Forget what was seen: it fits no horizon, until a shift that ended cleanly has some anew. For
    replays it is true all the same."""
    if handed.remember_ms and handed.files:
        _keep(store, handed, _read_all(store, handed.files))
    kept = msgspec.structs.replace(handed, horizon_ms=0, files=[], weak="", generation=-1)
    put(store, kept)


def weaken(store: StateStore, handed: HandedOver) -> None:
    """What was seen ends nothing of what is read again."""
    put(store, msgspec.structs.replace(handed, weak=ALL))


def seen_keys(store: StateStore, handed: HandedOver) -> tuple[Keys, list[bytes]] | None:
    """The keys by generation, and the weak ones; None if any file is missing or damaged."""
    found: Keys = {}
    for name in handed.files:
        read = read_claim(store, f"seen/{name}")
        if read is None:
            return None
        found.setdefault(_generation(name), []).extend(keys_of(read[1]))
    if handed.weak == ALL:
        return found, [key for keys in found.values() for key in keys]
    weak = read_claim(store, f"seen/{handed.weak}") if handed.weak else (Claim(), b"")
    return None if weak is None else (found, keys_of(weak[1]))


def _generation(name: str) -> int:
    return int(name.partition("-")[0])


def _write(store: StateStore, name: str, claim: Claim, parts: _Parts) -> None:
    store.put(f"seen/{name}", _packed(claim, parts))


def _read_all(store: StateStore, names: Iterable[str]) -> Iterator[tuple[int, Claim, bytes]]:
    """What can be read of them, with their generations, which are in order."""
    for name in sorted(names):
        if found := read_claim(store, f"seen/{name}"):
            yield _generation(name), *found


# ------------------------------------------------------------------------------- files of keys


def _packed(claim: Claim, parts: _Parts) -> bytes:
    said = msgspec.json.encode(claim)
    parts = [_MAGIC, len(said).to_bytes(4, "big"), said, *parts]
    return b"".join((*parts, _digest(*parts)))


def read_claim(store: StateStore, path: str) -> tuple[Claim, bytes] | None:
    """A file's claim, and all of its keys; None if it is missing or damaged."""
    data = store.get(path) or b""
    data, digest = data[:-_DIGEST], data[-_DIGEST:]
    if _digest(data) != digest:
        return None
    if not data.startswith(_MAGIC):  # an older version's: who took part is not known
        return None if len(data) % KEY_BYTES else (Claim(), data)
    at = len(_MAGIC) + 4
    end = at + int.from_bytes(data[at - 4 : at], "big")
    return _CLAIM.decode(data[at:end]), data[end:]


def keys_of(body: bytes) -> list[bytes]:
    return [body[at : at + KEY_BYTES] for at in range(0, len(body), KEY_BYTES)]


def _digest(*parts: bytes | memoryview) -> bytes:
    found = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        found.update(part)
    return found.digest()


def _length(parts: _Parts) -> int:
    return sum(map(len, parts))


def _by_sinks(found: Iterable[tuple[Claim, _Body]]) -> Iterator[tuple[Claim, _Parts]]:
    """One of those for which the same sinks took part; where these are too many, one of all, for
    which only those did that took part in each. No more is in memory at a time than fits one."""
    some: list[tuple[Claim, _Body]] = []
    length = 0
    for claim, body in found:
        if some and length + len(body) > _MOST_BYTES:
            yield from _grouped(some)
            some, length = [], 0
        some.append((claim, body))
        length += len(body)
    yield from _grouped(some)


def _grouped(found: Iterable[tuple[Claim, _Body]]) -> Iterator[tuple[Claim, _Parts]]:
    groups: dict[tuple[tuple[str, str], ...], list[tuple[Claim, _Body]]] = {}
    for claim, body in found:
        groups.setdefault(tuple(sorted(claim.sinks.items())), []).append((claim, body))
    if len(groups) > _MOST_FILES // 2:
        yield _together([each for same in groups.values() for each in same])
    else:
        yield from map(_together, groups.values())


def _together(found: Sequence[tuple[Claim, _Body]]) -> tuple[Claim, _Parts]:
    claims = [claim for claim, _ in found]
    same = set.intersection(*({*claim.sinks.items()} for claim in claims))
    sinks = dict(sorted(same))
    ends = [claim.sure * KEY_BYTES for claim in claims]
    bodies = [memoryview(body) for _, body in found]  # copied once, where they are written
    parts = [body[:end] for body, end in zip(bodies, ends, strict=True)]
    parts += [body[end:] for body, end in zip(bodies, ends, strict=True)]
    rests = {sink: hull(c.rests.get(sink, {}) for c in claims) for sink in sinks}
    return Claim(
        sinks,
        hull(claim.read for claim in claims),
        sum(claim.sure for claim in claims),
        {sink: events for sink, events in rests.items() if events},
    ), parts


def hull(of: Iterable[Events]) -> Events:
    """The least ranges that hold all of them."""
    found: Events = {}
    for events in of:
        for name, (first, last) in events.items():
            begin, end = found.get(name, (first, last))
            found[name] = min(begin, first), max(end, last)
    return found


# -------------------------------------------------------------------- what is kept for replays


class _Name(NamedTuple):
    """What the name of a kept file says. at_ms: when it was written down. sinks, all: digests."""

    begin_ms: int
    end_ms: int
    at_ms: int
    keys: int
    sinks: str
    all: str

    def __str__(self) -> str:
        times = f"{self.begin_ms:015d}-{self.end_ms}-{self.at_ms}"
        return f"{times}-{self.keys}-{self.sinks}-{self.all}"

    @classmethod
    def parse(cls, text: str) -> _Name:
        begin, end, at, keys, sinks, all_ = text.rpartition("/")[2].split("-")
        return cls(int(begin), int(end), int(at), int(keys), sinks, all_)


def remember(
    store: StateStore,
    sinks: Mapping[str, str],
    keys: Mapping[int, Iterable[bytes]],
    writer: str,
    *,
    horizon_ms: int,
    read: Events,
    rests: Mapping[str, Events] = {},
    keep_ms: int = REMEMBER_MS,
) -> None:
    """Keep what a stretch of a replay has delivered, when all of it is settled for these sinks.

    sinks: with their terms (`transforms.known.terms`). keys: sure ones only, by generation of
    `horizon_ms`. writer: nobody else writes by that name. read: the stretch's events. rests: of
    which events the claims are because of which a sink was passed over (`Known.rests`).
    """
    if keep_ms:
        found = (
            (generation * horizon_ms, Claim(dict(sinks), read, len(same), dict(rests)), same)
            for generation, same in ((each, Packed(of)) for each, of in sorted(keys.items()))
        )
        timed = ((begin_ms, claim, bytes(same.joined)) for begin_ms, claim, same in found)
        _archive(store, writer, timed, horizon_ms, keep_ms)


def _archive(
    store: StateStore,
    writer: str,
    found: Iterable[tuple[int, Claim, bytes]],
    span_ms: int,
    keep_ms: int,
) -> None:
    """Add what is sure in these files, which are in order of time, to a writer's, and drop what is
    too old.

    Time is the clock's: should that be wrong, what is dropped too soon only comes twice.
    """
    now_ms = int(time.time() * 1000)
    index = f"known/index/{place(writer)}"
    names = [name for name in _index(store, index) if not _expired(name, now_ms - keep_ms)]
    for begin_ms, same in itertools.groupby(found, lambda each: max(each[0], 0)):
        sure = (
            (claim, memoryview(body)[: claim.sure * KEY_BYTES])
            for _, claim, body in same
            if claim.sure and claim.sinks
        )
        for claim, parts in _by_sinks(sure):
            names.append(_put(store, writer, begin_ms, begin_ms + span_ms, now_ms, claim, parts))
    names = _fewer(store, writer, names)
    store.put(index, msgspec.json.encode(sorted(map(str, names))))
    mine = f"known/keys/{place(writer)}/"
    held = {mine + str(name) for name in names}
    for path in store.list("known/keys"):
        # Of another writer's only what is too old: it may be about to say that it has the rest.
        old = _expired(_Name.parse(path), now_ms - keep_ms)
        if old or (path.startswith(mine) and path not in held):
            store.delete(path, sync=False)


def _put(
    store: StateStore,
    writer: str,
    begin_ms: int,
    end_ms: int,
    at_ms: int,
    claim: Claim,
    parts: _Parts,
) -> _Name:
    told = msgspec.json.encode(sorted(claim.sinks.items()))
    keys, sinks = _length(parts) // KEY_BYTES, hashlib.blake2b(told, digest_size=8).hexdigest()
    data = _packed(claim, parts)
    name = _Name(begin_ms, end_ms, at_ms, keys, sinks, data[-_DIGEST:].hex())
    store.put(f"known/keys/{place(writer)}/{name}", data)
    return name


def _fewer(store: StateStore, writer: str, names: list[_Name]) -> list[_Name]:
    """A day's files of the same sinks, the least of them made one where there are many."""
    days: dict[tuple[int, str], list[_Name]] = {}
    for name in names:
        days.setdefault((name.begin_ms // DAY_MS, name.sinks), []).append(name)
    most = _MOST_BYTES // KEY_BYTES
    for day, same in days.items():
        while True:
            same.sort(key=lambda name: name.keys)
            if sum(name.keys <= most // 2 for name in same) <= _MOST_FILES:
                break
            keys = [*itertools.accumulate(name.keys for name in same[:_MOST_FILES])]
            fit = sum(each <= most for each in keys)
            least, left = same[:fit], same[fit:]
            read = (read_claim(store, f"known/keys/{place(writer)}/{name}") for name in least)
            if there := [each for each in read if each]:
                begin_ms = min(name.begin_ms for name in least)
                end_ms = max(name.end_ms for name in least)
                at_ms = max(name.at_ms for name in least)
                left.append(_put(store, writer, begin_ms, end_ms, at_ms, *_together(there)))
            same = left
        days[day] = same
    return [name for same in days.values() for name in same]


def _index(store: StateStore, path: str) -> list[_Name]:
    return [_Name.parse(each) for each in msgspec.json.decode(store.get(path) or b"[]")]


def _expired(name: _Name, since_ms: int) -> bool:
    return max(name.end_ms, name.at_ms) <= since_ms


class KeyFile(NamedTuple):
    """A file of keys that counts, of alerts that were enqueued from `begin_ms` on."""

    path: str
    begin_ms: int


def claims(store: StateStore) -> list[KeyFile]:
    """Every file that counts now. What is handed over first: a generation that is over meanwhile
    is found twice, and not never."""
    found = []
    if handed := load(store):
        span_ms = handed.horizon_ms
        found += [KeyFile(f"seen/{name}", _generation(name) * span_ms) for name in handed.files]
    for path in store.list("known/index"):
        keys = path.replace("index", "keys", 1)
        found += [KeyFile(f"{keys}/{name}", name.begin_ms) for name in _index(store, path)]
    return found


def lack(
    store: StateStore, sink: str, source: str, partition: str, written_off: Iterable[Run]
) -> None:
    """Say that the sink never gets what it was owed of these events. To be said before that is
    forgotten: a claim that is void too early only has an alert come twice."""
    path = place("known", "lacks", sink, *source.split("/"), f"{partition}.json")
    data = store.get(path)
    found = _RANGES.decode(data) if data else []
    joined: list[tuple[int, int]] = []
    for first, last in sorted([*found, *((run.first, run.last) for run in written_off)]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    if len(joined) > _MOST_LACKS:
        joined = [(joined[0][0], joined[-1][1])]
    if joined != found:
        store.put(path, msgspec.json.encode(joined))


def lacking(store: StateStore, sink: str) -> dict[str, list[tuple[int, int]]]:
    """The events of which the sink was owed what it never got, by `str(origin)`."""
    found = {}
    for path in store.list(place("known", "lacks", sink)):
        _, _, _, *source, partition = unplace(path)
        origin = Origin("/".join(source), partition.removesuffix(".json"))
        found[str(origin)] = _RANGES.decode(store.get(path) or b"[]")
    return found


def overlap(events: Events, lacks: Mapping[str, Iterable[tuple[int, int]]]) -> bool:
    """Whether any of the events is among those that a sink lacks."""
    return any(
        first <= end and begin <= last
        for name, (first, last) in events.items()
        for begin, end in lacks.get(name, ())
    )


# ----------------------------------------------------------------------------- high-water marks


def marks(store: StateStore) -> dict[str, int]:
    """Up to where anything may ever have been read, by `str(origin)`."""
    return msgspec.json.decode(store.get(_MARKS) or b"{}", type=dict[str, int])


def put_marks(store: StateStore, marks: Mapping[str, int]) -> None:
    """Replace all of them."""
    store.put(_MARKS, msgspec.json.encode(marks))


class HighWater:
    """Keeps the marks ahead of reading. Durable: no copy of an alert can settle, because its
    original was seen, before the original's own position is known to have been read.

    Ahead by about a second's reading, so that one write a second suffices; at first by less, since
    after a crash a repeat of what lies before a mark may pass.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._marks = marks(store)
        self._heads: dict[str, int] = {}
        self._before: dict[str, int] = {}  # the heads when the marks were written last
        self._written = 0.0  # monotonic

    def cover(self, origin: Origin, sequence: int) -> None:
        """To be said before anything up to this event is handed on."""
        name = str(origin)
        with self._lock:
            self._heads[name] = sequence
            if sequence <= self._marks.get(name, -1):
                return
            now = time.monotonic()
            took = max(now - self._written, 0.001)
            # Never back: behind an older mark may still be what a crash left unsettled.
            ahead = {
                each: max(head + self._margin(each, head, took), self._marks.get(each, -1))
                for each, head in self._heads.items()
            }
            self._put({**self._marks, **ahead})
            self._before, self._written = dict(self._heads), now

    def _margin(self, name: str, head: int, took: float) -> int:
        read = head - self._before.get(name, head)
        least, most = _MARGIN
        return max(least, min(most, 2 * read, int(read / took * _AHEAD_SECONDS)))

    def settle(self, marks: Mapping[str, int]) -> None:
        """Everything that was read is settled, but for what is left up to these marks."""
        with self._lock:
            self._heads.clear()
            self._before.clear()
            self._put(dict(marks))

    def _put(self, marks: dict[str, int]) -> None:
        put_marks(self._store, marks)
        self._marks = marks


_HIGH_WATERS: dict[str, HighWater] = {}
_LOCK = threading.Lock()


def high_water(run: str, store: StateStore) -> HighWater:
    """The run's, in this process."""
    with _LOCK:
        if run not in _HIGH_WATERS:
            _HIGH_WATERS[run] = HighWater(store)
        return _HIGH_WATERS[run]
