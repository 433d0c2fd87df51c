"""The thin Beam skins of the steps between reading and writing: Parse, Enrich, Route, Digests.

What they do is in the plain modules that they call, which need no Beam to be read or tested.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.metrics import Metrics
from apache_beam.transforms import trigger, window
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from schemas.alert import Alert, Subscription
from schemas.batch import NOBODY, TO_DIGESTS, AlertBatch, Batch, Dropped, Record
from schemas.dead_letter import DeadLetter
from schemas.digest import to_alert
from schemas.receipt import Outcome
from schemas.runs import addresses, clip
from transforms import coders, metrics
from transforms.dead_letters import write_dead_letters
from transforms.digest import Tally, add, digest, digest_key, merge
from transforms.drift import watch
from transforms.enrich import enrich_batch, enrich_batch_at
from transforms.parse import parse_again, parse_batch
from transforms.route import Where, compile_where, route_batch
from transforms.state_store import StateStore
from transforms.subscription_history import History

__all__ = [
    "LATER_SUBSCRIPTION",
    "MASKED",
    "REPAIRED",
    "UNKNOWN_SUBSCRIPTION",
    "Digests",
    "Enrich",
    "Parse",
    "Route",
    "Shift",
]

_LOGGER = logging.getLogger(__name__)

UNKNOWN_SUBSCRIPTION = "unknown_subscription"
"""The counter of alerts whose subscription the subscriptions file does not have."""

LATER_SUBSCRIPTION = "later_subscription"
"""The counter of replayed alerts that happened before anything was known of subscriptions: they
got what was known first."""

REPAIRED = "repaired:"
"""In front of a repair's name: the counter of records that needed it."""

MASKED = "masked"
"""The counter of secrets that were masked."""


class _Parse(beam.DoFn):
    def __init__(
        self, store: StateStore, run: str = "run", masking: bool = True, at_once: bool = False
    ) -> None:
        self._store = store
        self._run = run
        self._masking = masking
        self._at_once = at_once
        self._counters: dict[str, Any] = {}

    def setup(self) -> None:
        self._watch = watch(self._run, self._store)

    def start_bundle(self) -> None:
        self._letters: list[DeadLetter] = []

    def process(self, batch: Batch) -> Iterator[AlertBatch]:
        parse = parse_again if batch.retried else parse_batch
        parsed, letters = parse(batch, self._masking)
        if batch.wanted is not None:
            parsed, letters = _only_wanted(batch, parsed, letters)
        if batch.only not in (NOBODY, TO_DIGESTS):  # else they were written when it came first
            self._letters.extend(letters)
        if self._at_once:
            self.finish_bundle()
        if batch.only is None:  # else it was counted when it came first
            self._count(parsed.alerts)
            metrics.PARSED.add(parsed.size, batch.origin.source)
            self._watch.look(parsed.alerts)
        yield parsed

    def _count(self, alerts: list[Alert]) -> None:
        counts = Counter(alert.kind for alert in alerts)
        for alert in alerts:
            if alert.repairs:
                counts.update(f"{REPAIRED}{name}" for name in alert.repairs)
            if alert.masked:
                counts[MASKED] += alert.masked
        for name, count in counts.items():
            if name not in self._counters:
                self._counters[name] = Metrics.counter("alertbeam", name)
            self._counters[name].inc(count)

    def finish_bundle(self) -> None:
        # Before any sink ends its bundle: no position moves over a letter that is not on disk.
        if self._letters:
            write_dead_letters(self._store, self._letters)
            for step, count in Counter(letter.step for letter in self._letters).items():
                metrics.DEAD.add(count, step)
            self._letters = []

    def teardown(self) -> None:
        try:
            self._watch.save()
        except OSError as error:
            # Only the watch: were this raised, the accounts after it would not be torn down.
            _LOGGER.warning("what was learnt of fields could not be saved: %s", error)


def _only_wanted(
    batch: Batch, parsed: AlertBatch, letters: list[DeadLetter]
) -> tuple[AlertBatch, list[DeadLetter]]:
    """Of a batch that pays: the records that it is about. Other dead letters were written before;
    what was understood once and is no more, as this is another version, is one now."""
    wanted = {*addresses(clip(batch.wanted or [], batch.first, batch.last))}
    alerts = [alert for alert in parsed.alerts if (alert.sequence, alert.index) in wanted]
    lost = wanted - {(alert.sequence, alert.index) for alert in alerts}
    dead = {(letter.sequence, letter.index): letter for letter in letters}
    if batch.retried:  # a letter may hold some that are understood, and some that are not
        lost |= wanted & dead.keys()
    at_all = {record.sequence: record for record in batch.records}
    step = batch.only or "parse"  # only the sink that it was owed to lost it
    found = [
        msgspec.structs.replace(dead.get(each) or _vanished(batch, each, at_all), step=step)
        for each in sorted(lost)
        if each[0] in at_all
    ]
    dropped = [Dropped(letter.sequence, letter.index, Outcome.DEAD) for letter in found]
    parsed = msgspec.structs.replace(
        parsed, size=len(alerts) + len(dropped), alerts=alerts, dropped=dropped
    )
    return parsed, found


def _vanished(batch: Batch, at: tuple[int, int], records: Mapping[int, Record]) -> DeadLetter:
    record = records[at[0]]
    reason = "it was owed, and the event holds no such record any more"
    source, partition = batch.origin.source, batch.origin.partition
    return DeadLetter(source, partition, *at, record.enqueued_ms, "parse", reason, record.body)


class Parse(beam.PTransform):
    """`PCollection[Batch] → PCollection[AlertBatch]`; dead letters go to the state store.

    at_once: before each batch is passed on, as sinks say how it ended before the bundle does.
    """

    def __init__(
        self, store: StateStore, run: str = "run", masking: bool = True, at_once: bool = False
    ) -> None:
        super().__init__()
        self._parse = _Parse(store, run, masking, at_once)

    def expand(self, batches: Any) -> Any:
        return batches | "Decode" >> beam.ParDo(self._parse).with_output_types(AlertBatch)


class _Enrich(beam.DoFn):
    def __init__(self, subscriptions: Mapping[str, Subscription] | History) -> None:
        self._subscriptions = subscriptions
        self._unknown = Metrics.counter("alertbeam", UNKNOWN_SUBSCRIPTION)
        self._later = Metrics.counter("alertbeam", LATER_SUBSCRIPTION)

    def process(self, batch: AlertBatch) -> Iterator[AlertBatch]:
        known = self._subscriptions
        if isinstance(known, History):
            yield enrich_batch_at(batch, known, self._unknown.inc, self._later.inc)
        else:
            yield enrich_batch(batch, known, self._unknown.inc)


class Enrich(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]` with subscriptions set: as they are, or
    as they were when each alert happened."""

    def __init__(self, subscriptions: Mapping[str, Subscription] | History) -> None:
        super().__init__()
        known = subscriptions if isinstance(subscriptions, History) else dict(subscriptions)
        self._enrich = _Enrich(known)

    def expand(self, batches: Any) -> Any:
        return batches | "Look up" >> beam.ParDo(self._enrich).with_output_types(AlertBatch)


class _Route(beam.DoFn):
    def __init__(self, sink: str, where: Where | None) -> None:
        self._sink = sink
        self._where = where

    def setup(self) -> None:
        self._predicate = compile_where(self._where)

    def process(self, batch: AlertBatch) -> Iterator[AlertBatch]:
        routed = route_batch(batch, self._sink, self._predicate)
        if routed is not None:
            yield routed


class Route(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]`: what the sink should have."""

    def __init__(self, sink: str, where: Where | None) -> None:
        super().__init__()
        self._sink = sink
        self._where = where

    def expand(self, batches: Any) -> Any:
        route = _Route(self._sink, self._where)
        return batches | "Choose" >> beam.ParDo(route).with_output_types(AlertBatch)


class Shift(NamedTuple):
    """One run of the local runner: its number (through restarts), and when the one before it in
    this process drained, in ms: windows that had ended by then have fired; 0 if there was none.
    recounts: `schemas.digest.Digest.recounts`."""

    number: int
    drained_ms: int = 0
    recounts: int | None = None


class _Tallies(beam.DoFn):
    """A batch's alerts, counted by key and by the part of a window that they surely share."""

    def __init__(self, by: tuple[str, ...], slot_ms: int, samples: int) -> None:
        self._by = by
        self._slot_ms = slot_ms
        self._samples = samples

    def process(self, batch: AlertBatch) -> Iterator[TimestampedValue]:
        if batch.only not in (None, TO_DIGESTS):
            return
        tallies: dict[tuple[int, tuple[str, ...]], Tally] = {}
        for alert in batch.alerts:
            if alert.counted:
                continue
            slot = alert.event_ms // self._slot_ms * self._slot_ms
            place = slot, digest_key(alert, self._by)
            tally = tallies.get(place)
            if tally is None:
                tally = tallies[place] = Tally(severities={}, statuses={}, kinds={})
            tallies[place] = add(tally, alert, self._samples)
        for (slot, key), tally in tallies.items():
            packed = msgspec.json.encode(key).decode()
            yield TimestampedValue((packed, tally), Timestamp(micros=slot * 1000))


class _Merge(beam.CombineFn):
    def __init__(self, samples: int) -> None:
        self._samples = samples

    def create_accumulator(self) -> Tally:
        return Tally()

    def add_input(self, total: Tally, tally: Tally) -> Tally:
        return merge((total, tally), self._samples)

    def merge_accumulators(self, tallies: Iterable[Tally]) -> Tally:
        return merge(tallies, self._samples)

    def extract_output(self, total: Tally) -> Tally:
        return total


class _Panes(beam.DoFn):
    """Each key's window as an alert that every sink can write."""

    def __init__(self, name: str, by: tuple[str, ...], shift: Shift | None) -> None:
        self._name = name
        self._by = by
        self._shift = shift

    def process(  # type: ignore[no-untyped-def]
        self,
        element: tuple[str, Tally],
        span=beam.DoFn.WindowParam,
        pane=beam.DoFn.PaneInfoParam,
    ) -> Iterator[Alert]:
        packed, tally = element
        start, end = span.start.micros // 1000, span.end.micros // 1000
        timing: Literal["early", "on_time", "late"]
        recounts = self._shift.recounts if self._shift else None
        if self._shift is None:
            number = pane.index
            timing = "early" if pane.timing == 0 else "late" if pane.timing == 2 else "on_time"
        else:
            # The runner fires once, at the shift's end: which pane that is, the clock tells.
            number = self._shift.number
            if end > time.time() * 1000:
                timing = "early"
            else:
                timing = "late" if end <= self._shift.drained_ms else "on_time"
        key = msgspec.json.decode(packed, type=list[str])
        told = digest(tally, self._name, self._by, key, (start, end), number, timing)
        if tally.total:  # else a window ended after an early pane that had told all of it
            yield to_alert(msgspec.structs.replace(told, recounts=recounts))


class Digests(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[Alert]`: one pane of a key's window an element.

    windows: Beam's fixed, sliding or session windows, on event time. early, lateness: seconds.
    Panes discard: the counts of a window's panes add up. On the local runner (`shift` set) a
    shift's end fires all of them; elsewhere Beam's triggers do.
    """

    def __init__(
        self,
        name: str,
        windows: Any,
        by: tuple[str, ...],
        *,
        early: float | None,
        lateness: float,
        samples: int,
        shift: Shift | None,
    ) -> None:
        super().__init__()
        self._name = name
        self._windows = windows
        self._by = by
        self._early = early
        self._lateness = lateness
        self._samples = samples
        self._shift = shift

    def expand(self, batches: Any) -> Any:
        tallies = _Tallies(self._by, _slot_ms(self._windows), self._samples)
        pair = tuple[str, Tally]
        return (
            batches
            | "Count in batches" >> beam.ParDo(tallies).with_output_types(pair)
            | "Cut in windows" >> self._window()
            | "Add up" >> beam.CombinePerKey(_Merge(self._samples)).with_output_types(pair)
            | "Tell" >> beam.ParDo(_Panes(self._name, self._by, self._shift))
        )

    def _window(self) -> beam.WindowInto:
        discarding = trigger.AccumulationMode.DISCARDING
        if self._shift is not None:
            return beam.WindowInto(self._windows, accumulation_mode=discarding)
        # Whole seconds only, and none would fire at every element.
        early = self._early and trigger.AfterProcessingTime(math.ceil(self._early))
        return beam.WindowInto(
            self._windows,
            trigger=trigger.AfterWatermark(early=early, late=trigger.AfterCount(1)),
            accumulation_mode=discarding,
            allowed_lateness=self._lateness,
        )


def _slot_ms(windows: Any) -> int:
    """The longest time whose alerts lie in the same windows, whichever they are: 1 ms for
    sessions, whose bounds are the alerts' own times."""
    if isinstance(windows, window.FixedWindows):
        return max(1, math.gcd(windows.size.micros, windows.offset.micros) // 1000)
    if isinstance(windows, window.SlidingWindows):
        size, every, offset = windows.size.micros, windows.period.micros, windows.offset.micros
        return max(1, math.gcd(size, every, offset) // 1000)
    return 1


coders.register()
