"""Writing to one sink: encode, hand to its delivery engine, wait, and say how each record ended.

`process` never waits for the system; `finish_bundle` waits for what is in flight, bounded by the
sink's patience. Sinks send side by side, so a bundle takes as long as the slowest of them, and a
sink whose circuit is open costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from schemas.batch import AlertBatch, Origin
from schemas.dead_letter import DeadLetter
from schemas.receipt import Outcome, Outcomes, Receipt, runs
from transforms import coders
from transforms.account import settled
from transforms.dead_letters import write_dead_letters
from transforms.delivery.engine import Engine, Parcel, engine_for
from transforms.sinks.base import Sink
from transforms.state_store import StateStore

__all__ = ["WriteTo", "parcels", "receipt"]


def parcels(sink: Sink[Any], batch: AlertBatch, after: int) -> list[Parcel]:
    """The batch's alerts with a sequence number above `after`, encoded; what cannot be encoded
    is dead already."""
    found = []
    source, partition = batch.origin.source, batch.origin.partition
    for alert in batch.alerts:
        if alert.sequence > after:
            try:
                parcel = Parcel(alert, sink.encode(alert, source, partition))
            except ValueError as error:
                parcel = Parcel(alert, b"", Outcome.DEAD, f"cannot be encoded: {error}")
            except Exception as error:  # noqa: BLE001 - an encoder's bug must not stop the partition
                parcel = Parcel(alert, b"", Outcome.DEAD, f"encoder failed: {type(error).__name__}")
            found.append(parcel)
    return found


def receipt(sink: str, batch: AlertBatch, sent: list[Parcel], after: int) -> Receipt:
    """How every record of the batch ended for this sink. Each parcel has its outcome by now."""
    counts = [0] * len(Outcome)
    for dropped in batch.dropped:
        if dropped.sequence > after:
            counts[dropped.outcome] += 1
    for parcel in sent:
        assert parcel.outcome is not None, "the engine left a record without an outcome"
        counts[parcel.outcome] += 1

    def ended(outcome: Outcome) -> Any:
        if not counts[outcome]:
            return []
        return runs((p.alert.sequence, p.alert.index) for p in sent if p.outcome is outcome)

    paying = batch.only is not None
    return Receipt(
        batch.origin.source,
        batch.origin.partition,
        sink,
        batch.first,
        batch.last,
        batch.size,
        Outcomes(*counts, earlier=batch.size - sum(counts)),
        ended(Outcome.OWED),
        max((alert.enqueued_ms for alert in batch.alerts), default=0),
        batch.only,
        ended(Outcome.DELIVERED) if paying else [],
        ended(Outcome.DEAD) if paying else [],
    )


class _Write(beam.DoFn):
    def __init__(self, sink: Sink[Any], run: str, store: StateStore) -> None:
        self._sink = sink
        self._run = run
        self._store = store

    def setup(self) -> None:
        self._engine: Engine = engine_for(self._sink, self._run)
        # After a crash the partition is read again from the least position of all sinks; what
        # this sink had settled beyond it is not sent twice.
        accounts = settled(self._store, self._sink.name)
        self._settled = {origin: entry.position for origin, entry in accounts.items()}

    def start_bundle(self) -> None:
        self._sent: list[tuple[AlertBatch, list[Parcel], int]] = []

    def process(self, batch: AlertBatch) -> None:
        after = -1
        if batch.only is None:
            after = self._settled.get(batch.origin, -1)
        sent = parcels(self._sink, batch, after)
        self._engine.submit([parcel for parcel in sent if parcel.outcome is None])
        self._sent.append((batch, sent, after))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._engine.settle()
        letters = [
            _letter(self._sink.name, batch.origin, parcel)
            for batch, sent, _ in self._sent
            for parcel in sent
            if parcel.outcome is Outcome.DEAD
        ]
        if letters:
            write_dead_letters(self._store, letters)
        for batch, sent, after in self._sent:
            yield WindowedValue(
                receipt(self._sink.name, batch, sent, after), MIN_TIMESTAMP, [GlobalWindow()]
            )
        self._sent = []


def _letter(sink: str, origin: Origin, parcel: Parcel) -> DeadLetter:
    alert = parcel.alert
    return DeadLetter(
        origin.source,
        origin.partition,
        alert.sequence,
        alert.index,
        alert.enqueued_ms,
        sink,
        parcel.reason,
        alert.raw,
    )


class WriteTo(beam.PTransform):
    """`PCollection[AlertBatch]`, routed for this sink → `PCollection[Receipt]`."""

    def __init__(self, sink: Sink[Any], run: str, store: StateStore) -> None:
        super().__init__()
        self._sink = sink
        self._run = run
        self._store = store

    def expand(self, batches: Any) -> Any:
        write = _Write(self._sink, self._run, self._store)
        return batches | "Send" >> beam.ParDo(write).with_output_types(Receipt)


coders.register()
