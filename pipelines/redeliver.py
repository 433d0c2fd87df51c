"""Pays by hand what sinks are owed: reads exactly those records again, for that sink alone.

The same graph as forwarding, with another source: batches addressed to one sink, which pass the
deduplication and go to no other (docs/adr/0001).
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from transforms.read.sdk import HubError, kept_sequences
from transforms.state_store import StateStore

__all__ = ["Paid", "redeliver"]

_BATCH_EVENTS = 200
_BATCH_BYTES = 1024 * 1024
_NEAR_EVENTS = 5_000
_RECORDS_A_ROUND = 20_000  # what one Beam run holds in flight
_SILENCE_SECONDS = 20.0
_ASKERS = 8


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
        return self._read(owed)

    def _read(self, owed: _Owed) -> Iterator[Batch]:
        """What is gone from the hub, or does not come, is left out, and stays owed."""
        reader = session(self._run).reader(owed.origin.source, owed.access)
        name = owed.origin.partition
        for runs in _near(owed.runs):
            wanted = {s for run in runs for s in range(run.first, run.last + 1)}
            first, stop = min(wanted), max(wanted) + 1
            reader.seek(name, first)
            while first < stop and reader.wait(name, stop, _SILENCE_SECONDS) == "ready":
                events = reader.take(name, stop, _BATCH_EVENTS, _BATCH_BYTES)
                last = events[-1].sequence
                records = [
                    Record(e.sequence, 0, e.enqueued_ms, e.body)
                    for e in events
                    if e.sequence in wanted
                ]
                if records:
                    about = [run for run in runs if run.first <= last and run.last >= first]
                    yield Batch(owed.origin, first, last, owed.sink, records, about)
                first = last + 1


def _near(runs: Iterable[Addresses]) -> Iterator[list[Addresses]]:
    """Runs in groups that are worth reading through: seeking costs a new link."""
    group: list[Addresses] = []
    last = 0
    for run in sorted(runs):
        if group and run.first > last + _NEAR_EVENTS:
            yield group
            group = []
        group.append(run)
        last = max(last, run.last)
    if group:
        yield group


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
                for round_ in _rounds(_readable(name, debts(store, name), access, say)):
                    items = [
                        _Owed(name, origin, access[origin.source], tuple(runs))
                        for origin, runs in round_.items()
                    ]
                    pipeline = beam.Pipeline(runner=choose(runner).runner)
                    forward(pipeline, _ReadDebts(run, items), settings, subscriptions, run)
                    pipeline.run().wait_until_finish()
                    before, left = left, _left(store, name)
                    say(f"{name}: {owed - left:,} of {owed:,} paid")
                    if left == before:
                        break  # it takes nothing, or nothing could be read: enough for now
                outcome.append(Paid(name, owed, owed - left))
    finally:
        close_session(run)
        close_all(run)
    return outcome


def _left(store: StateStore, sink: str) -> int:
    return sum(debt.iou.count for debt in debts(store, sink))


def _readable(
    sink: str,
    found: Iterable[Debt],
    access: Mapping[str, EventHubsAccess],
    say: Callable[[str], None],
) -> list[tuple[Origin, Addresses]]:
    """What of the open debts can be read again, by partition, oldest first; says what cannot."""
    runs: dict[Origin, list[Addresses]] = {}
    for debt in found:
        if debt.iou.owed:
            runs.setdefault(Origin(debt.source, debt.partition), []).extend(debt.iou.owed)
    gone: Counter[str] = Counter()
    problems = dict.fromkeys(
        f"{origin.source}: it is owed from there, but the settings do not name it any more"
        for origin in runs
        if origin.source not in access
    )
    with ThreadPoolExecutor(_ASKERS, thread_name_prefix="ask hub") as pool:
        asked = {
            origin: pool.submit(kept_sequences, access[origin.source], origin.partition)
            for origin in runs
            if origin.source in access
        }
    readable: list[tuple[Origin, Addresses]] = []
    for origin, answer in asked.items():
        try:
            kept = answer.result()
        except HubError as error:
            problems[f"{origin.source}: {error}"] = None
            continue
        for run in runs[origin]:
            first, stop = max(run.first, kept.start), min(run.last + 1, kept.stop)
            gone[origin.source] += len(run) - max(0, stop - first)
            if first < stop:
                readable.append((origin, Addresses(first, stop - 1, run.index)))
    for problem in problems:
        say(f"{sink}: {problem}")
    for source, count in gone.items():
        if count:
            say(
                f"{sink}: {count:,} records are gone from {source}, which keeps events only for "
                "so long: they stay owed"
            )
    return readable


def _rounds(
    readable: Iterable[tuple[Origin, Addresses]],
) -> Iterator[dict[Origin, list[Addresses]]]:
    """Portions of about `_RECORDS_A_ROUND` records."""
    portion: dict[Origin, list[Addresses]] = {}
    count = 0
    for origin, run in readable:
        portion.setdefault(origin, []).append(run)
        count += len(run)
        if count >= _RECORDS_A_ROUND:
            yield portion
            portion, count = {}, 0
    if portion:
        yield portion


coders.register()
