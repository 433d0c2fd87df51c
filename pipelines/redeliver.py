"""Pays by hand what sinks are owed: reads exactly those records again, for that sink alone.

The same graph as forwarding, with another source: batches addressed to one sink, which pass the
deduplication and go to no other (docs/adr/0001).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam

from pipelines.forward import accounts, forward
from pipelines.runners import choose
from pipelines.settings import Settings
from schemas.batch import Batch, Origin, Record
from schemas.receipt import Run as Addresses
from transforms import coders
from transforms.delivery.engine import close_all
from transforms.enrich import load_subscriptions
from transforms.owed import Debt, debts
from transforms.read.access import EventHubsAccess
from transforms.read.reader import close_session, session
from transforms.state_store import StateStore

__all__ = ["Paid", "redeliver"]

_BATCH_EVENTS = 200
_BATCH_BYTES = 1024 * 1024
_RECORDS_A_ROUND = 20_000  # what one Beam run holds in flight
_SILENCE_SECONDS = 20.0


class Paid(NamedTuple):
    """What became of the debts to one sink, in records."""

    sink: str
    owed: int
    paid: int

    @property
    def left(self) -> int:
        return self.owed - self.paid


class _Owed(NamedTuple):
    sink: str
    origin: Origin
    access: EventHubsAccess
    runs: tuple[Addresses, ...]


class _ReadOwed(beam.DoFn):
    def __init__(self, run: str) -> None:
        self._run = run

    def process(self, owed: _Owed) -> Iterator[Batch]:
        reading = session(self._run)
        reader = reading.reader(owed.origin.source, owed.access)
        name = owed.origin.partition
        stop = max(run.last for run in owed.runs) + 1
        first = min(run.first for run in owed.runs)
        wanted = {s for run in owed.runs for s in range(run.first, run.last + 1)}
        reader.seek(name, first)
        while first < stop:
            events = reader.take(name, stop, _BATCH_EVENTS, _BATCH_BYTES)
            if not events:
                if reader.waiting(name):
                    return  # the rest of the range is gone from the hub, and stays owed
                if not reading.wait(_SILENCE_SECONDS):
                    return
                continue
            last = events[-1].sequence
            records = [
                Record(e.sequence, 0, e.enqueued_ms, e.body) for e in events if e.sequence in wanted
            ]
            if records:
                runs = [run for run in owed.runs if run.first <= last and run.last >= first]
                yield Batch(owed.origin, first, last, owed.sink, records, runs)
            first = last + 1


class _ReadDebts(beam.PTransform):
    def __init__(self, run: str, owed: list[_Owed]) -> None:
        super().__init__()
        self._run = run
        self._owed = owed

    def expand(self, begin: Any) -> Any:
        return (
            begin
            | "Debts" >> beam.Create(self._owed, reshuffle=False)
            | "Read again" >> beam.ParDo(_ReadOwed(self._run)).with_output_types(Batch)
        )


def redeliver(
    settings: Settings, sink: str | None, say: Callable[[str], None], runner: str = "DirectRunner"
) -> list[Paid]:
    """Pay all debts to `sink` (None: to every sink of the settings), oldest first.

    Stops with a sink that takes nothing; what is not paid stays owed, exactly.
    """
    store = StateStore(str(settings.state))
    store.prepare()
    run = uuid.uuid4().hex
    access = {entry.name: entry.event_hubs for entry in settings.sources}
    subscriptions = (
        load_subscriptions(settings.subscriptions.file) if settings.subscriptions else {}
    )
    outcome = []
    try:
        with store.lock("redeliver"):
            for name in accounts(settings):
                if sink not in (None, name):
                    continue
                owed = left = _left(store, name)
                for round_ in _rounds(debts(store, name)):
                    items = [
                        _Owed(name, Origin(d.source, d.partition), access[d.source], (*d.iou.owed,))
                        for d in round_
                        if d.source in access
                    ]
                    if not items:
                        say(f"{name}: the settings no longer have the source of some debts")
                        continue
                    pipeline = beam.Pipeline(runner=choose(runner).runner)
                    forward(pipeline, _ReadDebts(run, items), settings, subscriptions, run)
                    pipeline.run().wait_until_finish()
                    before, left = left, _left(store, name)
                    say(f"{name}: {owed - left:,} of {owed:,} paid")
                    if left == before:
                        break
                outcome.append(Paid(name, owed, owed - left))
    finally:
        close_session(run)
        close_all(run)
    return outcome


def _left(store: StateStore, sink: str) -> int:
    return sum(debt.iou.count for debt in debts(store, sink))


def _rounds(found: Iterator[Debt]) -> Iterator[list[Debt]]:
    """Open debts in portions of about `_RECORDS_A_ROUND` records."""
    portion: list[Debt] = []
    count = 0
    for debt in list(found):
        if debt.iou.owed:
            portion.append(debt)
            count += debt.iou.count
            if count >= _RECORDS_A_ROUND:
                yield portion
                portion, count = [], 0
    if portion:
        yield portion


coders.register()
