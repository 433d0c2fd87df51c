"""Event Hubs as an unbounded Beam source: a splittable DoFn, one partition an element.

One more element stands for what sinks are owed: its batches come from the `Payer`, between those
that are live, each addressed to one sink.

The restriction is a range of sequence numbers. `process` takes what the background reader holds,
leaves as soon as nothing waits (latency) or its share of a bundle is full (checkpoints come at
least each second or so, and bundles are bounded by bytes), and defers the rest. Only the first
idle partition of a bundle waits, and it waits for whichever partition has something, so an idle
one never holds back another.

After a crash, a partition is first read again from where the last clean shift ended, addressed to
nobody or to the digests alone (docs/adr/0011); nothing is live before all are through with that.

`on_cluster.py` has the same for clusters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from schemas.batch import NOBODY, TO_DIGESTS, Batch, Origin, Record
from transforms import coders, heartbeat, metrics
from transforms.attempts import NO_ATTEMPT, Attempt
from transforms.gaps import GONE, Gap, record_gap
from transforms.hand_over import high_water
from transforms.read.access import EventHubsAccess
from transforms.read.frames import Event
from transforms.read.payer import Debts, payer
from transforms.read.reader import HubReader, session
from transforms.state_store import StateStore

__all__ = [
    "END",
    "Debts",
    "Partition",
    "ReadEventHubs",
    "ReadPartition",
    "warm_up",
    "warming",
]

END = 2**62
"""A sequence number that no hub reaches: the end of an unbounded range."""

_BATCH_EVENTS = 200
_BATCH_BYTES = 1024 * 1024
_BUNDLE_SECONDS = 1.0
_BUNDLE_BYTES = 16 * 1024 * 1024
_GATHER_SECONDS = 0.05
_ARREARS_SECONDS = 0.1  # a bundle: so that live alerts wait little for what sinks are owed
_DRAIN_SECONDS = 0.005
_GONE_SECONDS = 3.0  # of silence at a partition's end: nothing is left of what was to be marked
_IDLE_SECONDS = 1.0
_IDLE_WATERMARK_SECONDS = 1.0
_WATERMARK = ManualWatermarkEstimator.default_provider()


class Partition(NamedTuple):
    """What to read: the events `start..stop-1` of one partition. Those before `counted` only mark
    what was seen, those before `live` are for the digests, too; sinks get the others. told: up to
    where the digests have told it, on a cluster."""

    source: str
    partition: str
    access: EventHubsAccess
    start: int
    stop: int = END
    counted: int = 0
    live: int = 0
    told: int = -1


_WARMING: dict[str, set[Origin]] = {}


def warm_up(run: str, origins: Iterable[Origin]) -> None:
    """Which partitions of the run have something before `live`: to be said before it is read."""
    _WARMING[run] = set(origins)


def warming(run: str) -> bool:
    """Whether any partition is still before `live`."""
    return bool(_WARMING.get(run))


class _Tracker(OffsetRestrictionTracker):
    """Sequence numbers; splits only at the current position: a partition has one reader."""

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None

    def is_bounded(self) -> bool:
        return bool(self._range.stop < END)


class ReadPartition(beam.DoFn, beam.transforms.core.RestrictionProvider):
    """`Partition` (or `Debts`) → `Batch`."""

    seconds, bytes = _BUNDLE_SECONDS, _BUNDLE_BYTES  # of a bundle, for all who have something

    def __init__(self, run: str, store: StateStore | None = None) -> None:
        self._run = run
        self._store = store
        self._pause_until = 0.0  # monotonic

    def initial_restriction(self, element: Partition | Debts) -> OffsetRange:
        if isinstance(element, Debts):
            return OffsetRange(0, END)  # of batches
        return OffsetRange(element.start, max(element.start, element.stop))

    def create_tracker(self, restriction: OffsetRange) -> _Tracker:
        return _Tracker(restriction)

    def restriction_size(self, element: Partition | Debts, restriction: OffsetRange) -> int:
        """The backlog: events enqueued and not yet read, as far as the hub told."""
        if restriction.stop < END:
            return int(restriction.size())
        if isinstance(element, Debts):
            return 1
        last = session(self._run).reader(element.source, element.access).backlog(element.partition)
        return max(0, last - restriction.start + 1)

    def truncate(self, element: Partition | Debts, restriction: OffsetRange) -> None:
        return None  # drained: what was not read stays in the hub

    def start_bundle(self) -> None:
        heartbeat.progress(self._run, bundles=1)
        # A bundle costs some ms however few events it holds: under load, let some gather.
        session(self._run).wait(max(0.0, self._pause_until - time.monotonic()), _BATCH_EVENTS)
        self._pause_until = time.monotonic() + _GATHER_SECONDS
        self._may_wait = True
        self._sharers = 0

    @beam.DoFn.unbounded_per_element()
    def process(  # type: ignore[no-untyped-def]
        self,
        element: Partition | Debts,
        tracker=beam.DoFn.RestrictionParam(),
        watermark=beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[TimestampedValue]:
        if isinstance(element, Debts):
            yield from self._owed(element, tracker, watermark)
            return
        origin = Origin(element.source, element.partition)
        reading = session(self._run)
        reader = reading.reader(element.source, element.access)
        restriction = tracker.current_restriction()
        first, stop = restriction.start, restriction.stop
        attempt = self._attempt(element, origin, first, reader)
        reader.seek(element.partition, first)
        if metrics.on():
            metrics.READ_AT.set(time.time(), origin.source, origin.partition)
            metrics.stand([reader.status(element.partition)], {})
        if not self._sharers:
            self._sharers = max(1, reading.ready())
        deadline = time.monotonic() + self.seconds / self._sharers
        bytes_left = self.bytes / self._sharers
        idle = True
        while first < stop and not reading.draining:
            only, limit = self._address(element, origin, first)
            limit = attempt.until(first, limit)
            if only is None and warming(self._run):
                break
            events = reader.take(element.partition, limit, _BATCH_EVENTS, _BATCH_BYTES)
            if not events:
                gone = only is not None and reader.quiet(element.partition, _GONE_SECONDS)
                if gone or reader.wait(element.partition, limit, 0) == "past":
                    # The rest of the range is gone from the hub.
                    if only is None:
                        self._gap(origin, first, limit)
                    if not tracker.try_claim(limit - 1):
                        return
                    first = limit
                    continue
                if not self._may_wait:
                    break
                self._may_wait = False
                reading.wait(_IDLE_SECONDS)
                continue
            self._may_wait = idle = False
            last = events[-1]
            if not tracker.try_claim(last.sequence):
                return
            if only is None:
                if last.sequence - first >= len(events):
                    self._gaps(origin, first, events)
                self._cover(origin, last.sequence)
                metrics.READ.add(len(events), origin.source, origin.partition)
            records = [Record(e.sequence, 0, e.enqueued_ms, e.body) for e in events]
            at = Timestamp(micros=last.enqueued_ms * 1000)
            batch = Batch(
                origin, first, last.sequence, only, records, None, last.offset,
                attempt=attempt.number,
            )  # fmt: skip
            yield TimestampedValue(batch, at)
            self._advance(watermark, at)
            first = last.sequence + 1
            bytes_left -= sum(len(event.body) for event in events)
            if bytes_left <= 0 or time.monotonic() > deadline:
                break
            if first < stop and not reader.waiting(element.partition):
                break
        else:
            tracker.try_claim(stop)  # read to the end, or told to end
            self._ended(origin)
            if first >= stop:
                _WARMING.get(self._run, set()).discard(origin)
                reader.release(element.partition)
            return
        if reader.quiet(element.partition, _IDLE_WATERMARK_SECONDS):
            # Nothing older can come: an idle partition must not hold back the watermark.
            self._advance(watermark, Timestamp.of(time.time() - _IDLE_WATERMARK_SECONDS))
        tracker.defer_remainder(self._rest(origin, idle))

    def _attempt(
        self, element: Partition, origin: Origin, first: int, reader: HubReader
    ) -> Attempt:
        """Which attempt at reading the partition this is."""
        return NO_ATTEMPT

    def _cover(self, origin: Origin, sequence: int) -> None:
        """Events up to this one are handed on now."""
        if self._store is not None:
            high_water(self._run, self._store).cover(origin, sequence)

    def _ended(self, origin: Origin) -> None:
        """Nothing more is read of the partition."""

    def _rest(self, origin: Origin | None, idle: bool) -> Duration | None:
        """How long to leave the partition (None: what is owed) alone; None: not at all."""
        return None

    def _address(self, element: Partition, origin: Origin, first: int) -> tuple[str | None, int]:
        """Whom what comes next is for, and up to where."""
        if first < element.counted:
            return NOBODY, element.counted
        if first < element.live:
            return TO_DIGESTS, element.live
        _WARMING.get(self._run, set()).discard(origin)
        return None, element.stop

    def _owed(self, element: Debts, tracker: Any, watermark: Any) -> Iterator[TimestampedValue]:
        """What sinks are owed, as it comes; ends with the run, once nothing of it is in hand."""
        reading = session(self._run)
        paying = payer(self._run, element)
        assert paying is not None, "it was made just now"
        now = Timestamp.of(time.time())
        if reading.draining:
            paying.put_back()
        number = tracker.current_restriction().start
        waits = not paying.waiting
        # What follows in the same stage has been done when `yield` returns.
        until = time.monotonic() + _ARREARS_SECONDS
        while paying.waiting and time.monotonic() < until:
            if not tracker.try_claim(number):
                return
            number += 1
            if batch := paying.take():
                yield TimestampedValue(batch, now)
        if paying.idle if reading.draining else element.until_paid and paying.finished:
            tracker.try_claim(END)
            return
        if reading.draining:
            time.sleep(_DRAIN_SECONDS)
        elif self._may_wait and waits:
            self._may_wait = False
            reading.wait(_IDLE_SECONDS)
        self._advance(watermark, now)
        tracker.defer_remainder(self._rest(None, waits))

    def _gaps(self, origin: Origin, first: int, events: list[Event]) -> None:
        for event in events:
            self._gap(origin, first, event.sequence)
            first = event.sequence + 1

    def _gap(self, origin: Origin, first: int, following: int) -> None:
        """Write down that the hub has none of these events any more."""
        if following > first and self._store is not None:
            now_ms = int(time.time() * 1000)
            record_gap(self._store, origin, Gap(first, following - 1, now_ms, GONE))

    @staticmethod
    def _advance(watermark: Any, to: Timestamp) -> None:
        """Never back: a hub's clock and ours differ."""
        current = watermark.current_watermark()
        if current is None or to > current:
            watermark.set_watermark(to)


class ReadEventHubs(beam.PTransform):
    """`PBegin → PCollection[Batch]`, timestamped by enqueued time.

    partitions: of any number of hubs; all in one `Create`, so that they are one root.
    owed: whom to pay what, if anybody is to be.
    run: names the process-wide reading session, which the caller drains and closes.
    store: where events are written down that the hub has no more.
    """

    def __init__(
        self,
        run: str,
        partitions: list[Partition],
        owed: Debts | None = None,
        store: StateStore | None = None,
    ) -> None:
        super().__init__()
        self._read = ReadPartition(run, store)
        self._elements = [*partitions, *([owed] if owed else [])]

    def expand(self, begin: Any) -> Any:
        return (
            begin
            | "Partitions" >> beam.Create(self._elements, reshuffle=False)
            | "Read" >> beam.ParDo(self._read).with_output_types(Batch)
        )


coders.register()
