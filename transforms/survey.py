"""Which records of a replay are exact repeats, told before any of them is sent.

    replays/<name>/told/<round>/repeats/<lane>/<n>   of the parts 64 n to 64 n + 63, in order
    replays/<name>/told/<round>/keys/<shard>         of all others, by generation
    replays/<name>/told/<round>/all                  once everything is written

On a bounded runner a key's alerts come together, in no order, and in memory. So the files are read
twice: first for the keys alone, 40 bytes an alert, which are put in order, and told by the same
rule as on one machine (transforms/deduplicate.py); then to be sent, each batch without what was
told. So workers may read them side by side, and a job that begins anew needs no memory of the one
before. A record that is not what it was when it was told, as its file was replaced, passes.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from schemas.batch import AlertBatch, Batch, Dropped
from schemas.receipt import Outcome
from transforms import coders
from transforms.deduplicate import Seen
from transforms.hand_over import KEY_BYTES, Keys, keys_of
from transforms.parse import parse_batch
from transforms.read.files.base import RECORDS
from transforms.read.plan import folder
from transforms.replayed import Taken, take_batch
from transforms.state_store import StateStore

__all__ = ["DropTold", "Survey", "Told"]

_ROW = struct.Struct(f">IQIq{KEY_BYTES}s")  # lane, sequence, index, enqueued, key: they sort so
_ADDRESS = struct.calcsize(">IQI")
_TURN = bytes(KEY_BYTES)  # no alert's key: it only says that time went on
_REPEAT = struct.Struct(f">QI{KEY_BYTES}s")  # sequence, index, key
_PARTS = 64  # of a file of repeats
_HELD_BYTES = 4 * 1024 * 1024
_FILES = 4  # that are held

_encode = msgspec.msgpack.Encoder().encode
_KEYS = msgspec.msgpack.Decoder(dict[int, bytes])


class Told(NamedTuple):
    """What a survey told of a replay's round."""

    store: StateStore
    name: str
    round: int

    @property
    def folder(self) -> str:
        return f"{folder(self.name)}/told/{self.round}"

    @property
    def whole(self) -> bool:
        return self.store.get(f"{self.folder}/all") is not None

    def end(self) -> None:
        """Say that everything is written."""
        self.store.put(f"{self.folder}/all", b"")

    def repeats(self, lane: int, number: int) -> bytes:
        return self.store.get(f"{self.folder}/repeats/{lane}/{number}") or b""

    def passed(self) -> Iterator[Keys]:
        """The keys of what was no repeat, a shard at a time."""
        for path in self.store.list(f"{self.folder}/keys"):
            if data := self.store.get(path):
                yield {at: keys_of(joined) for at, joined in _KEYS.decode(data).items()}

    def forget(self) -> None:
        self.store.delete(f"{self.folder}/all")  # first: without it, it is told again
        for path in [*self.store.list(self.folder)]:
            self.store.delete(path, sync=False)


class _Keys(beam.DoFn):
    """Batches to rows, by shard. That time went on, every shard is to know."""

    def __init__(self, taken: Taken, masking: bool, horizon_ms: int, shards: int) -> None:
        self._taken = taken
        self._masking = masking
        self._horizon_ms = horizon_ms
        self._shards = shards

    def start_bundle(self) -> None:
        self._rows: dict[int, bytearray] = {}
        self._size = 0
        self._before = ("", -1, -1)

    def process(self, batch: Batch) -> Iterator[tuple[int, bytes]]:
        alerts = take_batch(parse_batch(batch, self._masking)[0], self._taken).alerts
        if not alerts:
            return
        lane = int(batch.origin.partition)
        generation = alerts[0].enqueued_ms // self._horizon_ms  # a batch is of one
        if self._before != (batch.origin.partition, batch.first - 1, generation):
            first = alerts[0]
            turn = _ROW.pack(lane, first.sequence, first.index, first.enqueued_ms, _TURN)
            for shard in range(self._shards):
                self._rows.setdefault(shard, bytearray()).extend(turn)
        self._before = batch.origin.partition, batch.last, generation
        for alert in alerts:
            key = alert.key
            shard = int.from_bytes(key[:4], "big") % self._shards
            row = _ROW.pack(lane, alert.sequence, alert.index, alert.enqueued_ms, key)
            self._rows.setdefault(shard, bytearray()).extend(row)
        self._size += len(alerts) * _ROW.size
        if self._size > _HELD_BYTES:
            yield from self._take()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for element in self._take():
            yield WindowedValue(element, MIN_TIMESTAMP, [GlobalWindow()])

    def _take(self) -> Iterator[tuple[int, bytes]]:
        rows, self._rows, self._size = self._rows, {}, 0
        return ((shard, bytes(joined)) for shard, joined in rows.items())


class _Tell(beam.DoFn):
    """A shard's rows, in order, to repeats by file; the other keys are written down."""

    def __init__(self, told: Told, horizon_ms: int) -> None:
        self._told = told
        self._horizon_ms = horizon_ms

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        shard, values = element
        keys, repeats = tell(values, self._horizon_ms)
        path = f"{self._told.folder}/keys/{shard:04d}"
        self._told.store.put(path, _encode({at: bytes(joined) for at, joined in keys.items()}))
        for (lane, number), joined in repeats.items():
            yield lane << 32 | number, bytes(joined)


def tell(
    values: Iterable[bytes], horizon_ms: int
) -> tuple[dict[int, bytearray], dict[tuple[int, int], bytearray]]:
    """The keys of what passes, by generation, and what does not, by lane and file."""
    rows = sorted(
        joined[at : at + _ROW.size] for joined in values for at in range(0, len(joined), _ROW.size)
    )
    seen = Seen(horizon_ms)
    keys: dict[int, bytearray] = {}
    repeats: dict[tuple[int, int], bytearray] = {}
    before = b""
    for row in rows:
        lane, sequence, index, enqueued_ms, key = _ROW.unpack(row)
        seen.turn(enqueued_ms)
        if key == _TURN or row[:_ADDRESS] == before:  # a task that was tried again is no copy
            continue
        before = row[:_ADDRESS]
        if seen.add(key):
            keys.setdefault(seen.generation, bytearray()).extend(key)
        else:
            file = lane, sequence // RECORDS // _PARTS
            repeats.setdefault(file, bytearray()).extend(_REPEAT.pack(sequence, index, key))
    return keys, repeats


class _WriteRepeats(beam.DoFn):
    def __init__(self, told: Told) -> None:
        self._told = told

    def process(self, element: tuple[int, Iterable[bytes]]) -> None:
        file, values = element
        path = f"{self._told.folder}/repeats/{file >> 32}/{file & 0xFFFFFFFF}"
        rows = sorted(
            joined[at : at + _REPEAT.size]
            for joined in values
            for at in range(0, len(joined), _REPEAT.size)
        )
        self._told.store.put(path, b"".join(rows))


class Survey(beam.PTransform):
    """`PCollection[Batch]` → nothing. No batch may lie across two generations.

    shards: parts of the keys, each of which is put in order in memory.
    """

    def __init__(
        self, told: Told, taken: Taken, masking: bool, horizon_ms: int, shards: int
    ) -> None:
        super().__init__()
        self._told = told
        self._keys = _Keys(taken, masking, horizon_ms, shards)
        self._tell = _Tell(told, horizon_ms)

    def expand(self, batches: Any) -> Any:
        pair = tuple[int, bytes]
        return (
            batches
            | "Keys" >> beam.ParDo(self._keys).with_output_types(pair)
            | "By shard" >> beam.GroupByKey()
            | "Tell repeats" >> beam.ParDo(self._tell).with_output_types(pair)
            | "By file" >> beam.GroupByKey()
            | "Write down" >> beam.ParDo(_WriteRepeats(self._told))
        )


class _Drop(beam.DoFn):
    def __init__(self, told: Told) -> None:
        self._told = told

    def setup(self) -> None:
        self._files: dict[tuple[int, int], bytes] = {}

    def process(self, batch: AlertBatch) -> Iterator[AlertBatch]:
        yield self._drop(batch) if batch.alerts and batch.only is None else batch

    def _drop(self, batch: AlertBatch) -> AlertBatch:
        repeats = {
            (sequence, index): key
            for number in range(
                batch.alerts[0].sequence // RECORDS // _PARTS,
                batch.alerts[-1].sequence // RECORDS // _PARTS + 1,
            )
            for sequence, index, key in self._within(batch, number)
        }
        gone = [a for a in batch.alerts if repeats.get((a.sequence, a.index)) == a.key]
        if not gone:
            return batch
        away = {id(alert) for alert in gone}
        dropped = [Dropped(alert.sequence, alert.index, Outcome.REPEAT) for alert in gone]
        alerts = [alert for alert in batch.alerts if id(alert) not in away]
        return msgspec.structs.replace(batch, alerts=alerts, dropped=batch.dropped + dropped)

    def _within(self, batch: AlertBatch, number: int) -> Iterator[tuple[int, int, bytes]]:
        file = int(batch.origin.partition), number
        data = self._files.get(file)
        if data is None:
            while len(self._files) >= _FILES:
                del self._files[next(iter(self._files))]
            data = self._files[file] = self._told.repeats(*file)
        size = _REPEAT.size
        rows = range(len(data) // size)

        def sequence(row: int) -> int:
            return int.from_bytes(data[row * size : row * size + 8], "big")

        first = bisect_left(rows, batch.first, key=sequence)
        last = bisect_right(rows, batch.last, key=sequence)
        return _REPEAT.iter_unpack(data[first * size : last * size])


class DropTold(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]`, what was told among `dropped`. None:
    nothing was."""

    def __init__(self, told: Told | None) -> None:
        super().__init__()
        self._drop = _Drop(told) if told else None

    def expand(self, batches: Any) -> Any:
        if self._drop is None:
            return batches
        return batches | "Drop" >> beam.ParDo(self._drop).with_output_types(AlertBatch)


coders.register()
