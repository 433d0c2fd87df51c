"""The account behind each sink: receipts in, positions and sums out, in the state store.

One account a sink, keyed by partition, and no Flatten before it: so it fuses with the forwarding
path on the local runner, and checkpoints follow within a fraction of a second. The partition's
checkpoint is the least position of its sinks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from schemas.batch import Origin
from schemas.ledger import Ledger, Owing, Payment, Span, joined
from schemas.receipt import Outcomes, Receipt
from transforms import coders, metrics, owed
from transforms.attempts import Attempts, attempt
from transforms.owed import account_path
from transforms.receipts import row, segments, spill
from transforms.state_store import StateStore, place, unplace

__all__ = ["Account", "Settled", "begin", "checkpoint", "receipts", "settled", "wait_until_written"]

_FLUSH_SECONDS = 0.2  # from one to the next; longer where one takes longer than
_FLUSH_TAKES = 0.006  # seconds: at most 3 % of the time goes here, but for
_FLUSH_LATEST = 1.0  # seconds: what is owed and paid must be seen in the store soon
_LOOKS = 20  # for a moment in which nothing moves
# Beside the pipeline: with many sinks, its bundles would wait for the disk much of the time.
_WRITER = ThreadPoolExecutor(1, thread_name_prefix="accounts")


class Settled(msgspec.Struct):
    """What the store holds of one sink and partition, up to and including `position`.

    records: counted where they were parsed; the sums hold if `outcomes` adds up to it.
    enqueued_ms: of the youngest alert.
    began: the first event that it speaks of; -1: an older version wrote it, and nobody knows.
    offset: the hub's own position of the event at `position`; "" where it is not known.
    spans: its youngest receipts, by minutes, up to `position`; the others: `receipts`.
    """

    position: int
    records: int
    enqueued_ms: int
    outcomes: Outcomes
    began: int = -1
    offset: str = ""
    spans: list[Span] = []


class _Position(msgspec.Struct):
    position: int


_SETTLED = msgspec.json.Decoder(Settled)
_POSITION = msgspec.json.Decoder(_Position)  # the rest is skipped: it is asked for often


def settled(store: StateStore, sink: str) -> dict[Origin, Settled]:
    """Every partition's settled position and sums of a sink."""
    found = {}
    for path in store.list(place("accounts", sink)):
        data = store.get(path)
        if data is not None:
            _, _, *source, partition = unplace(path)
            origin = Origin("/".join(source), partition.removesuffix(".json"))
            found[origin] = _SETTLED.decode(data)
    return found


def checkpoint(store: StateStore, sinks: Iterable[str], origin: Origin) -> int | None:
    """The last sequence number that every sink has settled; None where none has any.

    A sink that was added has no position yet: it begins where the others stand.
    """
    positions = []
    for sink in sinks:
        data = store.get(account_path(sink, origin.source, origin.partition))
        if data is not None:
            positions.append(_POSITION.decode(data).position)
    return min(positions, default=None)


def receipts(store: StateStore, sink: str, origin: Origin) -> tuple[Settled, list[Span]] | None:
    """A partition's account, and all of its receipts in order: of one moment, also while a run
    writes them. None where the sink has settled nothing of it."""
    source, partition = _pair(origin)
    path = account_path(sink, source, partition)
    data, older = store.get(path), None
    for _ in range(_LOOKS):
        older = segments(store, sink, source, partition)
        before, data = data, store.get(path)
        if older is not None and data == before:
            break
    if data is None:
        return None
    found = _SETTLED.decode(data)
    return found, row(older or [], found.spans)


def begin(store: StateStore, sinks: Iterable[str], origin: Origin, position: int) -> None:
    """Give sinks that have settled nothing of a partition their first position, durably.

    To be said before the first batch is read: receipts come in any order, and the first one to
    come need not be the first batch's.
    """
    for sink in sinks:
        path = account_path(sink, origin.source, origin.partition)
        if store.get(path) is None:
            store.put(path, msgspec.json.encode(Settled(position, 0, 0, Outcomes(), position + 1)))


def wait_until_written() -> None:
    """Wait for what a shift that failed has still to write: its DoFns need not have been torn down.
    Whoever reads the accounts before would begin behind where they are a moment later."""
    _WRITER.submit(lambda: None).result()


class _Account(beam.DoFn):
    """Stateful, keyed by origin. The ledger of a key lies in the runner's state.

    The one writer of what its sink is owed, and of the positions over it; a runner may have
    several of it, one after the other for a key.
    """

    LEDGER = ReadModifyWriteStateSpec("ledger", BytesCoder())

    def __init__(
        self, sink: str, sinks: tuple[str, ...], store: StateStore, at_once: bool = False
    ) -> None:
        self._sink = sink
        self._sinks = sinks
        self._store = store
        self._at_once = at_once

    def setup(self) -> None:
        self._decoder = msgspec.msgpack.Decoder(Ledger)
        self._written: dict[Origin, int] = {}  # up to where the store has what is owed
        self._moved: dict[Origin, Ledger] = {}  # since the last flush
        self._paid: dict[Origin, Payment] = {}
        self._flush_at = 0.0  # monotonic
        self._flushing: Future[float] | None = None
        self._attempts = Attempts(self._store)

    def process(  # type: ignore[no-untyped-def]
        self, element: tuple[str, Receipt], cell=beam.DoFn.StateParam(LEDGER)
    ) -> None:
        receipt = element[1]
        origin = Origin(receipt.source, receipt.partition)
        if receipt.only is not None:
            if receipt.delivered or receipt.dead or receipt.not_routed:
                self._paid.setdefault(origin, Payment()).add(receipt)
            return
        packed = cell.read()
        ledger = self._decoder.decode(packed) if packed else self._begin(origin, receipt.first)
        if origin not in self._written:
            self._written[origin] = self._trim(origin)
            if ledger.position < self._written[origin]:  # the runner went back further
                ledger = self._begin(origin, receipt.first)
        ledger.written(self._written[origin])
        before = ledger.position
        ledger.add(receipt)
        ledger.advance()
        cell.write(msgspec.msgpack.encode(ledger))
        if ledger.position != before:
            self._moved[origin] = ledger

    def finish_bundle(self) -> None:
        if self._at_once:
            self._flush_all()
            return
        if self._flushing is not None and self._flushing.done():
            self._flushed()
        due = not self._flushing and time.monotonic() >= self._flush_at
        if due and (self._moved or self._paid):
            moved, paid = self._moved, self._paid
            self._moved, self._paid = {}, {}
            self._flushing = _WRITER.submit(self._flush, moved, paid)

    def teardown(self) -> None:
        if self._flushing is not None:
            self._flushed()
        self._flush_all()

    def _anew(self, origin: Origin) -> None:
        """Another attempt at reading it began: what the one before has still in hand is void."""
        self._written.pop(origin, None)
        self._moved.pop(origin, None)

    def _flush_all(self) -> None:
        moved, paid = self._moved, self._paid
        self._moved, self._paid = {}, {}
        self._flush(moved, paid)

    def _flushed(self) -> None:
        """Raises what went wrong."""
        flushing, self._flushing = self._flushing, None
        assert flushing is not None, "a flush was begun"
        took = flushing.result()
        # Some files a partition: where there are many, less often.
        pause = _FLUSH_SECONDS * max(1.0, took / _FLUSH_TAKES)
        self._flush_at = time.monotonic() + min(pause, _FLUSH_LATEST)

    def _begin(self, origin: Origin, first: int) -> Ledger:
        """The ledger of a partition that the runner has no state of: from the store.

        If that has none either, every sink gets a position now: were one settled before the
        others have theirs, a new process would read on behind it, and they would miss the rest.
        """
        begin(self._store, {*self._sinks, self._sink}, origin, first - 1)
        stored = self._stored(origin)
        return Ledger(
            stored.position,
            stored.records,
            stored.outcomes,
            stored.enqueued_ms,
            offset=stored.offset,
        )

    def _stored(self, origin: Origin) -> Settled:
        data = self._store.get(account_path(self._sink, *_pair(origin)))
        assert data is not None, "an account begins before it goes on"
        return _SETTLED.decode(data)

    def _trim(self, origin: Origin) -> int:
        """Void what a crash left beyond the position, which is given."""
        with owed.alone:
            position = self._stored(origin).position
            owed.trim(self._store, self._sink, *_pair(origin), position)
        return position

    def _flush(self, moved: Mapping[Origin, Ledger], paid: Mapping[Origin, Payment]) -> float:
        """Write what came since the last time; the seconds that it took."""
        began = time.monotonic()
        owes = False
        for origin in {**moved, **paid}:
            ledger, payment = moved.get(origin), paid.get(origin)
            owes = owes or payment is not None or bool(ledger and ledger.owing)
            with owed.alone:
                self._write(origin, ledger, payment)
        if owes:
            owed.changed(self._store, self._sink)
        return time.monotonic() - began

    def _write(self, origin: Origin, ledger: Ledger | None, payment: Payment | None) -> None:
        """IOUs first, then the position: a position in the store is the truth."""
        source, partition = _pair(origin)
        owing: list[Owing] = []
        if ledger and ledger.attempt and attempt(self._store, origin).number > ledger.attempt:
            ledger = None
        if ledger is not None:
            stored = self._stored(origin)
            position = stored.position
            ledger.written(position)
            owing = ledger.owing
        if owing or payment:
            owed.write(self._store, self._sink, source, partition, owing, payment)
        if ledger is None:
            return
        if position < ledger.position:  # or another of this DoFn went on
            spans = spill(self._store, self._sink, source, partition, stored.spans)
            self._store.put(
                account_path(self._sink, source, partition),
                msgspec.json.encode(
                    Settled(
                        ledger.position,
                        ledger.records,
                        ledger.enqueued_ms,
                        ledger.outcomes,
                        stored.began,
                        ledger.offset,
                        joined(spans, ledger.spans),
                    )
                ),
            )
            least = checkpoint(self._store, self._sinks, origin)
            if least is not None and least > position:  # this sink stood there, the last to go on
                metrics.CHECKPOINT.set(time.time(), source, partition)
            self._store.put(
                place("checkpoints", *source.split("/"), "checkpoint", partition),
                msgspec.json.encode({"sequencenumber": str(least)}),
                sync=False,  # said again from the accounts
            )
        self._written[origin] = max(position, ledger.position)


def _pair(origin: Origin) -> tuple[str, str]:
    return origin.source, origin.partition


class Account(beam.PTransform):
    """`PCollection[Receipt]` of one sink → nothing; keeps the sink's account in the store.

    sinks: the names of all sinks of the pipeline, whose least position is the checkpoint.
    at_once: write at the end of each bundle, and not beside the pipeline: where bundles are few,
        and a worker may end without a word.
    """

    def __init__(
        self, sink: str, sinks: Iterable[str], store: StateStore, at_once: bool = False
    ) -> None:
        super().__init__()
        self._sink = sink
        self._sinks = tuple(sinks)
        self._store = store
        self._at_once = at_once

    def expand(self, receipts: Any) -> Any:
        return (
            receipts
            | "By partition"
            >> beam.Map(lambda r: (f"{r.source}/{r.partition}", r)).with_output_types(
                tuple[str, Receipt]
            )
            | "Add up" >> beam.ParDo(_Account(self._sink, self._sinks, self._store, self._at_once))
        )


coders.register()
