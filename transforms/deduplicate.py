"""Drops exact repeats, passes status updates.

An alert's `key` tells exact repeats. What was seen is kept in two generations that turn on the
enqueued time of what is read, so no timer is needed: a key is remembered for at least one
horizon and at most two. State is sharded by a stable part of the key, one call a batch and shard.

A repeat must never outlive its original, whatever a crash leaves: docs/adr/0011 has the argument.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec

from schemas.alert import Alert
from schemas.batch import NOBODY, TO_DIGESTS, AlertBatch, Dropped, Origin
from schemas.receipt import Outcome
from transforms import coders, metrics
from transforms.attempts import Attempt, Attempts
from transforms.hand_over import KEY_BYTES, HandedOver, Packed, load, save, seen_keys
from transforms.spread import spread_numbers
from transforms.state_store import StateStore

__all__ = [
    "Deduplicate",
    "Seen",
    "Unsettled",
    "deduplicate_batch",
    "forget",
    "hand_over",
    "leave",
    "left_by",
    "shard_batch",
]

_MARKING = (NOBODY, TO_DIGESTS)


class Unsettled(NamedTuple):
    """What a crash left of a partition. Events up to `mark` may have been read before it; some
    sinks have settled those up to `partly`, but not every sink has. The digests have told those up
    to `told`."""

    partly: int = -1
    mark: int = -1
    told: int = -1


_NOTHING = Unsettled()


class Seen:
    """Two generations of keys. `horizon_ms` is the length of one, in enqueued time.

    fresh: what was new since it was handed over, by generation.
    weak: keys whose record may not have reached every sink (it was read again only to be marked,
        or some sinks had settled it). They tell a repeat, but for what a crash left unsettled.
    """

    __slots__ = ("current", "fresh", "generation", "horizon_ms", "older", "weak")

    def __init__(self, horizon_ms: int, generation: int = -1) -> None:
        self.horizon_ms = horizon_ms
        self.generation = generation
        self.current: set[bytes] = set()
        self.older: set[bytes] = set()
        self.fresh: dict[int, Packed] = {}
        self.weak: set[bytes] = set()

    def turn(self, enqueued_ms: int) -> bool:
        """Forget what is older than two horizons at this time; whether anything turned."""
        generation = enqueued_ms // self.horizon_ms
        if generation <= self.generation:
            return False
        self.older = self.current if generation == self.generation + 1 else set()
        self.current = set()
        self.generation = generation
        return True

    def add(self, key: bytes) -> bool:
        """Whether the key is new; it is not the next time."""
        if key in self.current or key in self.older:
            return False
        self.current.add(key)
        return True


def deduplicate_batch(
    batch: AlertBatch, seen: Seen, left: Unsettled = _NOTHING
) -> tuple[AlertBatch, list[bytes]]:
    """The batch without repeats, and the keys that were new.

    A batch that is addressed to one sink pays a debt: it passes, unmarked. One that is addressed
    to nobody, or to the digests, only marks.

    left: what a crash left of the batch's partition.
    """
    if batch.only is not None and batch.only not in _MARKING:
        return batch, []
    if batch.only is None and batch.first > left.mark:
        passed = [alert for alert in batch.alerts if seen.add(alert.key)]
        new = [alert.key for alert in passed]
    else:
        passed, new = _after_a_crash(batch, seen, left)
    if new:
        seen.fresh.setdefault(seen.generation, Packed()).extend(new)
    if len(passed) == len(batch.alerts):
        return batch, new
    kept = {id(alert) for alert in passed}
    repeats = [
        Dropped(alert.sequence, alert.index, Outcome.REPEAT)
        for alert in batch.alerts
        if id(alert) not in kept
    ]
    if batch.only is None:
        metrics.REPEATS.add(len(repeats), batch.origin.source)
    return msgspec.structs.replace(batch, alerts=passed, dropped=batch.dropped + repeats), new


def _after_a_crash(
    batch: AlertBatch, seen: Seen, left: Unsettled
) -> tuple[list[Alert], list[bytes]]:
    """Of what is read again: what passes, and the keys that were new."""
    passed, new = [], []
    for alert in batch.alerts:
        weak = batch.only is not None or alert.sequence <= left.partly
        if seen.add(alert.key):
            new.append(alert.key)
            passed.append(alert)
            alert.counted = batch.only is None and alert.sequence <= left.told
            if weak:
                seen.weak.add(alert.key)
        elif batch.only is None and alert.sequence <= left.mark and alert.key in seen.weak:
            alert.counted = True  # when it was read to be marked, or that other record now
            passed.append(alert)
            if not weak:
                seen.weak.discard(alert.key)
    return passed, new


def shard_batch(batch: AlertBatch, shards: int) -> Iterator[tuple[int, AlertBatch]]:
    """The batch cut by shard. The parts keep its range and size; together they are the batch."""
    if shards == 1:
        yield 0, batch
        return
    parts: dict[int, list[Any]] = {}
    for alert in batch.alerts:
        parts.setdefault(int.from_bytes(alert.key[:4], "big") % shards, []).append(alert)
    dropped = batch.dropped
    for shard, alerts in sorted(parts.items()) or [(0, [])]:
        yield shard, msgspec.structs.replace(batch, alerts=alerts, dropped=dropped)
        dropped = []


class _Registry:
    """What each run's DoFns in this process remember, so that a shift can hand it over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, dict[tuple[int, int], Seen]] = {}
        self._left: dict[str, dict[tuple[int, int], Seen]] = {}

    def put(self, run: str, shard: int, shards: int, seen: Seen) -> None:
        """What another instance saw in the same shift, and no bag holds, goes on with it."""
        with self._lock:
            known = self._runs.setdefault(run, {})
            before = known.get((shard, shards))
            if before is not None and before is not seen:
                seen.fresh, seen.weak = before.fresh, before.weak
            known[shard, shards] = seen

    def leave(self, run: str) -> list[Seen]:
        """Everything of a shift, from now on the next one's."""
        with self._lock:
            found = self._runs.pop(run, {})
            self._left.setdefault(run, {}).update(found)
            return list(found.values())

    def inherit(self, run: str, shard: int, shards: int) -> Seen | None:
        """Only once: a bundle that is taken back spoils it."""
        with self._lock:
            return self._left.get(run, {}).pop((shard, shards), None)

    def drop(self, run: str) -> None:
        with self._lock:
            self._runs.pop(run, None)
            self._left.pop(run, None)


_REGISTRY = _Registry()


def hand_over(run: str, store: StateStore, handed: HandedOver) -> None:
    """Write what a shift has seen, after it drained cleanly: everything in it is settled then.

    The next shift, or a new process, begins with it; after a crash, what came since is read again.
    """
    shards = _REGISTRY.leave(run)
    fresh: dict[int, Packed] = {}
    weak: set[bytes] = set()
    for seen in shards:
        for generation, keys in seen.fresh.items():
            fresh.setdefault(generation, Packed()).extend(keys)
        seen.fresh = {}
        weak |= seen.weak  # also where all are strong from now on: `save` claims none of them
        if not handed.unsettled:
            seen.weak = set()
        handed.generation = max(handed.generation, seen.generation)
    save(store, handed, fresh, weak)


def leave(run: str) -> dict[int, Packed]:
    """What a replay's shift has delivered, by generation; the next one goes on with all that was
    seen. What was only marked, another lane may still have to deliver."""
    fresh: dict[int, Packed] = {}
    for seen in _REGISTRY.leave(run):
        for generation, keys in seen.fresh.items():
            strong = keys if not seen.weak else (key for key in keys if key not in seen.weak)
            fresh.setdefault(generation, Packed()).extend(strong)
        seen.fresh = {}
    return fresh


def forget(run: str) -> None:
    """Drop what a shift that failed has seen: what of it is not settled is read again."""
    _REGISTRY.drop(run)


def _handed_over(store: StateStore, shard: int, shards: int, horizon_ms: int) -> Seen:
    """The shard's part of what was handed over; empty where there is none, or it does not fit."""
    seen = Seen(horizon_ms)
    handed = load(store)
    if handed is None or handed.horizon_ms != horizon_ms:
        return seen
    found = seen_keys(store, handed)
    if found is None:
        return seen

    def mine(keys: list[bytes]) -> set[bytes]:
        if shards == 1:
            return set(keys)
        return {key for key in keys if int.from_bytes(key[:4], "big") % shards == shard}

    keys, weak = found
    seen.generation = handed.generation
    seen.current = mine(keys.get(seen.generation, []))
    seen.older = mine(keys.get(seen.generation - 1, [])) - seen.current
    seen.weak = mine(weak)
    return seen


def _never(source: str) -> bool:
    return False


class _Deduplicate(beam.DoFn):
    """State: bags of keys of even generations, of odd ones, and of those that are weak; a stamp.

    A DoFn's own sets are only a memo of the bags, good while its stamp equals the state's: a
    bundle that was rolled back, or another instance, makes it read the bags again.
    """

    EVEN = BagStateSpec("even", BytesCoder())
    ODD = BagStateSpec("odd", BytesCoder())
    WEAK = BagStateSpec("weak", BytesCoder())
    STAMP = ReadModifyWriteStateSpec("stamp", BytesCoder())

    def __init__(
        self,
        horizon_ms: int,
        shards: int,
        run: str,
        store: StateStore,
        left: Mapping[Origin, Unsettled] = {},
        recalls: bool = True,
        lasting: bool = False,
        off: Callable[[str], bool] = _never,
    ) -> None:
        self._horizon_ms = horizon_ms
        self._shards = shards
        self._run = run
        self._store = store
        self._left = dict(left)
        self._recalls = recalls
        self._lasting = lasting
        self._off = off

    def setup(self) -> None:
        self._attempts = Attempts(self._store)
        self._memos: dict[int, tuple[bytes, Seen]] = {}
        self._name = uuid.uuid4().hex  # in stamps: no other instance writes the same

    def process(  # type: ignore[no-untyped-def]
        self,
        element: tuple[int, AlertBatch],
        even=beam.DoFn.StateParam(EVEN),
        odd=beam.DoFn.StateParam(ODD),
        stamp=beam.DoFn.StateParam(STAMP),
        weak=beam.DoFn.StateParam(WEAK),
    ) -> Iterator[AlertBatch]:
        key, batch = element
        shard = key % self._shards
        if batch.only not in (None, *_MARKING) or self._off(batch.origin.source):
            yield batch
            return
        bags = (even, odd, weak)
        seen = self._recall(shard, stamp, bags)
        before = seen.generation
        newest = max((alert.enqueued_ms for alert in batch.alerts), default=0)
        turned = seen.turn(newest)
        if turned:
            bags[seen.generation % 2].clear()
            if seen.generation != before + 1:
                bags[(seen.generation + 1) % 2].clear()
        if batch.attempt:
            left = left_by(self._attempts.of(batch.origin, batch.attempt))
        else:
            left = self._left.get(batch.origin, _NOTHING)
        passed, new = deduplicate_batch(batch, seen, left)
        if new:
            bags[seen.generation % 2].add(b"".join(new))
        if self._lasting:
            self._keep(seen, new, turned, weak)
        if new or turned:
            count = int(self._memos[shard][0].split()[1]) + 1
            current = f"{seen.generation} {count} {self._name}".encode()
            self._remember(shard, current, seen, stamp)
        yield passed

    @staticmethod
    def _keep(seen: Seen, new: list[bytes], turned: bool, bag: Any) -> None:
        """Nothing is handed over but by the runner's state, and so the weak keys are in it."""
        seen.fresh.clear()
        if turned and seen.weak:
            seen.weak &= seen.current | seen.older
            bag.clear()
            new = [*seen.weak]
        if weak := [key for key in new if key in seen.weak]:
            bag.add(b"".join(weak))

    def _recall(self, shard: int, stamp: Any, bags: tuple[Any, Any, Any]) -> Seen:
        current = stamp.read()
        memo = self._memos.get(shard)
        if current and memo and memo[0] == current:
            return memo[1]
        if not current:
            # The shift before left it in this process; else it lies in the store.
            seen = _REGISTRY.inherit(self._run, shard, self._shards)
            if seen is None and self._recalls:
                seen = _handed_over(self._store, shard, self._shards, self._horizon_ms)
            seen = seen or Seen(self._horizon_ms)
            for keys, bag in (
                (seen.current, bags[seen.generation % 2]),
                (seen.older, bags[(seen.generation + 1) % 2]),
            ):
                bag.clear()
                if keys:
                    bag.add(b"".join(keys))
            current = f"{seen.generation} 0 {self._name}".encode()
            self._remember(shard, current, seen, stamp)
            return seen
        seen = Seen(self._horizon_ms, int(current.split()[0]))
        seen.current = set(_keys(bags[seen.generation % 2]))
        seen.older = set(_keys(bags[(seen.generation + 1) % 2]))
        if self._lasting:
            seen.weak = set(_keys(bags[2]))
        self._remember(shard, current, seen, None)
        return seen

    def _remember(self, shard: int, current: bytes, seen: Seen, stamp: Any) -> None:
        self._memos[shard] = (current, seen)
        if not self._lasting:
            _REGISTRY.put(self._run, shard, self._shards, seen)
        if stamp is not None:
            stamp.write(current)


def _keys(bag: Any) -> Iterator[bytes]:
    for joined in bag.read():
        for at in range(0, len(joined), KEY_BYTES):
            yield joined[at : at + KEY_BYTES]


def left_by(attempt: Attempt) -> Unsettled:
    """What the attempts before this one left of the partition."""
    return Unsettled(attempt.partly, attempt.mark, attempt.told)


def _keyed(batch: AlertBatch, keys: Sequence[int]) -> Iterator[tuple[int, AlertBatch]]:
    for shard, part in shard_batch(batch, len(keys)):
        yield keys[shard], part


class Deduplicate(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]`, repeats among `dropped`.

    horizon_ms: how long a key is remembered at least, in enqueued time.
    shards: parts of the state; 1 on the local runner, about twice the parallelism on Flink.
    left: what a crash left unsettled, by partition.
    recalls: whether it begins with what the live stream handed over; a replay has its own.
    lasting: whether the runner's state outlasts this process; then batches tell what a crash left
        (`transforms.attempts`), and nothing is handed over.
    off: whether all of a source passes.
    """

    def __init__(
        self,
        horizon_ms: int,
        shards: int,
        run: str,
        store: StateStore,
        left: Mapping[Origin, Unsettled] = {},
        recalls: bool = True,
        lasting: bool = False,
        off: Callable[[str], bool] = _never,
    ) -> None:
        super().__init__()
        self._keys = spread_numbers(shards) if lasting else [*range(shards)]
        self._do_fn = _Deduplicate(horizon_ms, shards, run, store, left, recalls, lasting, off)

    def expand(self, batches: Any) -> Any:
        return (
            batches
            | "By shard"
            >> beam.FlatMap(_keyed, self._keys).with_output_types(tuple[int, AlertBatch])
            | "Drop repeats" >> beam.ParDo(self._do_fn).with_output_types(AlertBatch)
        )


coders.register()
