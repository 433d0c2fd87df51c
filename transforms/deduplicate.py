"""Drops exact repeats, passes status updates.

An alert's `key` tells exact repeats. What was seen is kept in two generations that turn on the
enqueued time of what is read, so no timer is needed: a key is remembered for at least one
horizon and at most two. State is sharded by a stable part of the key, one call a batch and shard.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec

from schemas.batch import NOBODY, AlertBatch, Dropped
from schemas.receipt import Outcome
from transforms import coders
from transforms.state_store import StateStore

__all__ = ["Deduplicate", "Seen", "deduplicate_batch", "forget", "hand_over", "shard_batch"]

_KEY_BYTES = 16
_SNAPSHOT = "seen/snapshot"


class Seen:
    """Two generations of keys. `horizon_ms` is the length of one, in enqueued time."""

    __slots__ = ("current", "generation", "horizon_ms", "older")

    def __init__(self, horizon_ms: int, generation: int = -1) -> None:
        self.horizon_ms = horizon_ms
        self.generation = generation
        self.current: set[bytes] = set()
        self.older: set[bytes] = set()

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


def deduplicate_batch(batch: AlertBatch, seen: Seen) -> tuple[AlertBatch, list[bytes]]:
    """The batch without repeats, and the keys that were new.

    A batch that is addressed to one sink pays a debt: it passes, unmarked. One that is addressed
    to nobody only marks.
    """
    if batch.only is not None and batch.only != NOBODY:
        return batch, []
    new = [alert for alert in batch.alerts if seen.add(alert.key)]
    if len(new) == len(batch.alerts):
        return batch, [alert.key for alert in new]
    kept = {id(alert) for alert in new}
    repeats = [
        Dropped(alert.sequence, alert.index, Outcome.REPEAT)
        for alert in batch.alerts
        if id(alert) not in kept
    ]
    passed = msgspec.structs.replace(batch, alerts=new, dropped=batch.dropped + repeats)
    return passed, [alert.key for alert in new]


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

    def put(self, run: str, shard: int, shards: int, seen: Seen) -> None:
        with self._lock:
            self._runs.setdefault(run, {})[shard, shards] = seen

    def take(self, run: str) -> dict[tuple[int, int], Seen]:
        with self._lock:
            return self._runs.pop(run, {})


_REGISTRY = _Registry()


def hand_over(run: str, store: StateStore) -> None:
    """Write what a shift has seen, after it drained cleanly: everything in it is settled then.

    The next shift, or a new process, begins with it. After a crash the last one serves: repeats
    of what came since may pass once more, and nothing can be lost by it.
    """
    found = _REGISTRY.take(run)
    if not found:
        return
    shards = list(found.values())
    (_, count), horizon_ms = next(iter(found)), shards[0].horizon_ms
    quiet = (n for n in range(count) if (n, count) not in found)
    shards.extend(_snapshot(store, shard, count, horizon_ms) for shard in quiet)
    generation = max(seen.generation for seen in shards)
    current: list[bytes] = []
    older: list[bytes] = []
    for seen in shards:
        if seen.generation == generation:
            current.extend(seen.current)
            older.extend(seen.older)
        elif seen.generation == generation - 1:
            older.extend(seen.current)
    header = f"{horizon_ms} {generation} {len(current)} {len(older)}\n".encode()
    body = b"".join((*current, *older))
    digest = hashlib.blake2b(header + body, digest_size=16).digest()
    store.put(_SNAPSHOT, header + body + digest)


def forget(run: str) -> None:
    """Drop what a shift that failed has seen: what of it is not settled is read again."""
    _REGISTRY.take(run)


def _snapshot(store: StateStore, shard: int, shards: int, horizon_ms: int) -> Seen:
    """The shard's part of the last snapshot; empty where there is none, or it does not fit."""
    seen = Seen(horizon_ms)
    data = store.get(_SNAPSHOT) or b""
    content, digest = data[:-16], data[-16:]
    if not data or hashlib.blake2b(content, digest_size=16).digest() != digest:
        return seen
    header, _, body = content.partition(b"\n")
    horizon, generation, current, older = map(int, header.split())
    if horizon != horizon_ms:
        return seen
    seen.generation = generation
    keys = [body[at : at + _KEY_BYTES] for at in range(0, len(body), _KEY_BYTES)]
    assert len(keys) == current + older

    def mine(found: list[bytes]) -> set[bytes]:
        if shards == 1:
            return set(found)
        return {key for key in found if int.from_bytes(key[:4], "big") % shards == shard}

    seen.current, seen.older = mine(keys[:current]), mine(keys[current:])
    return seen


class _Deduplicate(beam.DoFn):
    """State: a bag of keys for even generations, one for odd ones, and a stamp.

    A DoFn's own sets are only a memo of the bags, good while its stamp equals the state's: a
    bundle that was rolled back, or another instance, makes it read the bags again.
    """

    EVEN = BagStateSpec("even", BytesCoder())
    ODD = BagStateSpec("odd", BytesCoder())
    STAMP = ReadModifyWriteStateSpec("stamp", BytesCoder())

    def __init__(self, horizon_ms: int, shards: int, run: str, store: StateStore) -> None:
        self._horizon_ms = horizon_ms
        self._shards = shards
        self._run = run
        self._store = store

    def setup(self) -> None:
        self._memos: dict[int, tuple[bytes, Seen]] = {}
        self._name = uuid.uuid4().hex  # in stamps: no other instance writes the same

    def process(  # type: ignore[no-untyped-def]
        self,
        element: tuple[int, AlertBatch],
        even=beam.DoFn.StateParam(EVEN),
        odd=beam.DoFn.StateParam(ODD),
        stamp=beam.DoFn.StateParam(STAMP),
    ) -> Iterator[AlertBatch]:
        shard, batch = element
        bags = (even, odd)
        seen = self._recall(shard, stamp, bags)
        before = seen.generation
        newest = max((alert.enqueued_ms for alert in batch.alerts), default=0)
        turned = batch.only in (None, NOBODY) and seen.turn(newest)
        if turned:
            bags[seen.generation % 2].clear()
            if seen.generation != before + 1:
                bags[(seen.generation + 1) % 2].clear()
        passed, new = deduplicate_batch(batch, seen)
        if new:
            bags[seen.generation % 2].add(b"".join(new))
        if new or turned:
            count = int(self._memos[shard][0].split()[1]) + 1
            current = f"{seen.generation} {count} {self._name}".encode()
            self._remember(shard, current, seen, stamp)
        yield passed

    def _recall(self, shard: int, stamp: Any, bags: tuple[Any, Any]) -> Seen:
        current = stamp.read()
        memo = self._memos.get(shard)
        if current and memo and memo[0] == current:
            return memo[1]
        if not current:
            seen = _snapshot(self._store, shard, self._shards, self._horizon_ms)
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
        self._remember(shard, current, seen, None)
        return seen

    def _remember(self, shard: int, current: bytes, seen: Seen, stamp: Any) -> None:
        self._memos[shard] = (current, seen)
        _REGISTRY.put(self._run, shard, self._shards, seen)
        if stamp is not None:
            stamp.write(current)


def _keys(bag: Any) -> Iterator[bytes]:
    for joined in bag.read():
        for at in range(0, len(joined), _KEY_BYTES):
            yield joined[at : at + _KEY_BYTES]


class Deduplicate(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]`, repeats among `dropped`.

    horizon_ms: how long a key is remembered at least, in enqueued time.
    shards: parts of the state; 1 on the local runner, about twice the parallelism on Flink.
    """

    def __init__(self, horizon_ms: int, shards: int, run: str, store: StateStore) -> None:
        super().__init__()
        self._horizon_ms = horizon_ms
        self._shards = shards
        self._run = run
        self._store = store

    def expand(self, batches: Any) -> Any:
        do_fn = _Deduplicate(self._horizon_ms, self._shards, self._run, self._store)
        return (
            batches
            | "By shard"
            >> beam.FlatMap(shard_batch, self._shards).with_output_types(tuple[int, AlertBatch])
            | "Drop repeats" >> beam.ParDo(do_fn).with_output_types(AlertBatch)
        )


coders.register()
