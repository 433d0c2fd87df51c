"""History files as a bounded Beam source: a splittable DoFn, one lane of a replay an element.

As with a hub's partition, the restriction is a range of sequence numbers, here addresses in the
lane; `process` gives a bundle's worth of batches and defers the rest, so that what was read is
settled, and written down as settled, about once a second. A lane that goes on in the middle first
reads the files of one deduplication horizon before, addressed to nobody, to know what was seen.

What sinks came to be owed is another kind of element: it is read again from the same files, as
batches addressed to that sink alone.

Where a runner has no deferring (`ReadShares`), lanes are cut in *stretches* of parts, which several
readers share. A stretch's batches tile its addresses, and so together the lane's.
"""

from __future__ import annotations

import errno
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from schemas.batch import NOBODY, Batch, Origin, Record
from schemas.runs import Run, clip, union
from transforms import coders, heartbeat
from transforms.delivery.engines import engines
from transforms.read.files import HEAD_BYTES, tell
from transforms.read.files.base import RECORDS, Chunk, Part, Place, Unread, address
from transforms.read.filesystems import open_file
from transforms.read.plan import Plan, folder, length, origin, write_unread
from transforms.spool import Done
from transforms.state_store import StateStore

__all__ = [
    "Lane",
    "Owing",
    "Progress",
    "ReadHistory",
    "ReadShares",
    "Share",
    "SinksShutError",
    "StorageError",
    "admit",
    "admitted",
    "batches",
    "close_reading",
    "dismiss",
    "read_part",
    "reading",
]

_BATCH_EVENTS = 200
_BATCH_BYTES = 1024 * 1024
_DAY_MS = 86_400_000
_BUNDLE_SECONDS = 1.0
_BUNDLE_BYTES = 32 * 1024 * 1024
_OWED_RECORDS = 2_000  # of a bundle that pays
_OWED_EVENTS = 100  # of a batch that pays
_FIRST = 50  # records, before the sink's engine can say what it takes
_RETRIES = 5
_HOLD_SECONDS = 0.05
_STRETCH_BYTES = 16 * 1024 * 1024
_STRETCHES = 64  # at least, where there is that much
_LOOK_SECONDS = 1.0  # whether to stop
_GONE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR)
END = 2**62
_sequence = attrgetter("sequence")
_WATERMARK = ManualWatermarkEstimator.default_provider()
_OF_A_PART = RECORDS - 1


class StorageError(Exception):
    """Files cannot be read now, though they may be there; the message says which, and why."""


class SinksShutError(Exception):
    """No sink took anything for as long as was to be waited; the message says why."""


class Lane(NamedTuple):
    """What to read of one lane: the addresses `start..stop-1`.

    place: where `start`'s part can be read from, `<byte>:<number>`; "": from its beginning.
    before: parts that are read first, by lane and number, to mark what was seen.
    rate: records a second, at most; 0: any.
    """

    name: str
    lane: int
    start: int
    stop: int
    place: str = ""
    before: tuple[tuple[int, int], ...] = ()
    rate: float = 0.0


class Owing(NamedTuple):
    """What of a lane a sink is owed, and is to be paid.

    patience: seconds that it may take nothing, until the rest stays owed.
    """

    name: str
    lane: int
    sink: str
    owed: tuple[Run, ...]
    patience: float


class Share(NamedTuple):
    """One reader's, of `of`: every `of`th stretch of all lanes.

    job: reading ends when another is admitted, or none. rate: records a second, at most; 0: any.
    patience: seconds that all sinks may take nothing.
    """

    name: str
    number: int
    of: int
    job: str
    rate: float = 0.0
    patience: float = 600.0


class Progress:
    """Where reading stands in this process; written by the reader, read by whoever shows it."""

    def __init__(self) -> None:
        self.bytes = 0  # of parts that were read, as stored
        self.records = 0
        self.part: Part | None = None
        self.held = ""  # why nothing is read now
        self.unread = 0
        self.warming = False
        self.draining = False  # a shift ends: nothing more is to be read


def read_part(
    part: Part, base: int, place: Place | None = None, stopping: Callable[[], bool] = lambda: False
) -> Iterator[Chunk]:
    """The chunks of a part, whatever its format. What is gone or closed to us is `unread`.

    Raises StorageError where the storage itself fails.
    """
    for attempt in range(_RETRIES):
        try:
            file = open_file(part.url)
            break
        except OSError as error:
            if error.errno in _GONE or isinstance(error, FileNotFoundError | PermissionError):
                yield _all_of(part, error.strerror or str(error))
                return
            if attempt == _RETRIES - 1 or stopping():
                raise StorageError(f"{part.url}: {error.strerror or error}") from error
            time.sleep(min(8.0, 0.5 * 2**attempt))
    try:
        with file:
            head = file.read(HEAD_BYTES)
            if not head:
                if part.size:
                    yield _all_of(part, "it is empty now")
                return
            form = tell(head, part.url)
            if form is None:
                yield _all_of(part, "no format that is known: it begins with " + _shown(head))
                return
            yield from form.read(file, part, base, place)
    except OSError as error:
        raise StorageError(f"{part.url}: {error.strerror or error}") from error


def _all_of(part: Part, why: str) -> Chunk:
    unread = Unread(part.url, part.start, length(part) if part.size else -1, why)
    return Chunk([], None, part.start + length(part), (unread,))


def _shown(head: bytes) -> str:
    return head[:8].hex(" ")


class _Piece(NamedTuple):
    """A batch on its way out of a lane."""

    batch: Batch
    bytes: int


class _Row:
    """A lane that is being read: its parts one after another, cut in batches."""

    def __init__(
        self,
        parts: Iterable[tuple[int, Part]],
        at: Origin,
        start: int,
        place: str = "",
        only: str | None = None,
        unread: Callable[[int, Sequence[Unread]], None] = lambda part, what: None,
        progress: Progress | None = None,
        span_ms: int = _DAY_MS,
    ) -> None:
        self.following = start
        self._parts = parts
        self._origin = at
        self._place = place
        self._only = only
        self._unread = unread
        self._progress = progress or Progress()
        self._span_ms = span_ms
        self._pieces = self._cut()

    def take(self) -> _Piece | None:
        """The next batch; None at the end of the row. Raises StorageError."""
        piece = next(self._pieces, None)
        if piece is not None:
            self.following = piece.batch.last + 1
        return piece

    def _cut(self) -> Iterator[_Piece]:
        """Cut by what is in a batch alone, and not by where parts end, or reading began. No batch
        is of two spans of time: what was seen is filed, and found again, by when its batch was."""
        gathered: list[Record] = []
        size = 0
        place = ""
        first = self.following
        begin_ms = end_ms = 0
        for records, where in self._chunks():
            for record in records:
                if gathered and not begin_ms <= record.enqueued_ms < end_ms:
                    last = gathered[-1].sequence
                    yield _Piece(self._batch(first, last, gathered, place), size)
                    gathered, size, first = [], 0, last + 1
                if not gathered:
                    begin_ms = record.enqueued_ms // self._span_ms * self._span_ms
                    end_ms = begin_ms + self._span_ms
                gathered.append(record)
                size += len(record.body)
                place = where
                if len(gathered) >= _BATCH_EVENTS or size >= _BATCH_BYTES:
                    last = record.sequence
                    yield _Piece(self._batch(first, last, gathered, place), size)
                    gathered, size, first = [], 0, last + 1
        if gathered:
            last = gathered[-1].sequence
            yield _Piece(self._batch(first, last, gathered, place), size)

    def _batch(self, first: int, last: int, records: list[Record], place: str) -> Batch:
        return Batch(self._origin, first, last, self._only, records, None, place)

    def _chunks(self) -> Iterator[tuple[list[Record], str]]:
        start = self.following
        place = _placed(self._place)
        progress = self._progress
        for number, part in self._parts:
            progress.part = part
            base = address(number, 0)
            done = 0
            stopping = lambda: progress.draining  # noqa: E731
            for chunk in read_part(part, base, place, stopping):
                if chunk.unread:
                    self._unread(number, chunk.unread)
                    progress.unread += len(chunk.unread)
                read = min(length(part), max(done, chunk.offset - part.start))
                progress.bytes += read - done
                done = read
                records = chunk.records
                if records and records[0].sequence < start:
                    records = [record for record in records if record.sequence >= start]
                if records:
                    where = f"{chunk.place.offset}:{chunk.place.number}" if chunk.place else ""
                    yield records, where
            progress.bytes += length(part) - done
            place = None


def _placed(text: str) -> Place | None:
    offset, _, number = text.partition(":")
    return Place(int(offset), int(number)) if number else None


def batches(
    parts: Iterable[tuple[int, Part]],
    at: Origin,
    unread: Callable[[int, Sequence[Unread]], None] = lambda part, what: None,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """All records of these numbered parts, in batches. Raises StorageError."""
    row = _Row(parts, at, 0, unread=unread, progress=progress)
    while piece := row.take():
        if progress is not None:
            progress.records += len(piece.batch.records)
        yield piece.batch


class _Reading:
    """What a run's reader keeps in this process from one bundle to the next."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.rows: dict[int, _Row] = {}  # by lane
        self.owed: dict[tuple[int, str], Iterator[Batch]] = {}  # by lane and sink
        self.due = 0.0  # monotonic: when the rate allows the next batch
        self.fed: dict[tuple[int, str], float] = {}  # monotonic: when it last took anything


_readings: dict[str, _Reading] = {}
_lock = threading.Lock()


def reading(run: str) -> Progress:
    """Where the run's reading in this process stands."""
    return _reading(run).progress


def _reading(run: str) -> _Reading:
    with _lock:
        return _readings.setdefault(run, _Reading())


def close_reading(run: str) -> None:
    """Let go of the run's files."""
    with _lock:
        _readings.pop(run, None)


class _Tracker(OffsetRestrictionTracker):
    """Addresses; splits only at the current position: a lane has one reader."""

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None


class _ReadLane(beam.DoFn, beam.transforms.core.RestrictionProvider):
    def __init__(self, run: str, store: StateStore, span_ms: int) -> None:
        self._run = run
        self._store = store
        self._span_ms = span_ms

    def initial_restriction(self, element: Lane | Owing) -> OffsetRange:
        if isinstance(element, Owing):
            return OffsetRange(0, END)  # of batches
        warm = -len(element.before)  # addresses below 0: parts that are only marked
        return OffsetRange(warm if warm else element.start, max(element.start, element.stop))

    def create_tracker(self, restriction: OffsetRange) -> _Tracker:
        return _Tracker(restriction)

    def restriction_size(self, element: Lane | Owing, restriction: OffsetRange) -> int:
        return int(restriction.size())

    def start_bundle(self) -> None:
        heartbeat.progress(self._run, bundles=1)

    @beam.DoFn.unbounded_per_element()
    def process(  # type: ignore[no-untyped-def]
        self,
        element: Lane | Owing,
        tracker=beam.DoFn.RestrictionParam(),
        watermark=beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[TimestampedValue]:
        del watermark  # nothing here waits for one: digests are not told again
        if isinstance(element, Owing):
            yield from self._owed(element, tracker)
        else:
            yield from self._lane(element, tracker)

    def _lane(self, element: Lane, tracker: Any) -> Iterator[TimestampedValue]:
        kept = _reading(self._run)
        progress = kept.progress
        at = tracker.current_restriction().start
        plan = Plan.load(self._store, element.name)
        assert plan is not None, "a plan is written before it is read"
        began = time.monotonic()
        progress.warming = at < 0
        while at < 0 and not progress.draining:
            # Addresses below 0 are those of parts that are only marked.
            yield from self._before(element, plan, at)
            at = element.start if at == -1 else at + 1
            if not tracker.try_claim(at - 1):
                return
            if at < element.start and time.monotonic() > began + _BUNDLE_SECONDS:
                tracker.defer_remainder()
                return
        row = kept.rows.get(element.lane)
        if row is None or row.following != at:
            number = at // RECORDS
            parts = plan.row(element.lane, number)
            place = element.place if at == element.start and at % RECORDS else ""
            row = kept.rows[element.lane] = _Row(
                parts, origin(element.name, element.lane), at, place,
                unread=lambda part, what: write_unread(
                    self._store, element.name, element.lane, part, what
                ),
                progress=progress, span_ms=self._span_ms,
            )  # fmt: skip
        bytes_left = _BUNDLE_BYTES
        while not (progress.draining or _held(self._run, progress) or self._early(kept)):
            piece = row.take()
            if piece is None:
                last = element.stop - 1
                if at <= last and tracker.try_claim(last):
                    batch = Batch(origin(element.name, element.lane), at, last, None, [])
                    yield TimestampedValue(batch, Timestamp.of(time.time()))
                tracker.try_claim(element.stop)
                return
            batch = piece.batch
            if not tracker.try_claim(batch.last):
                return
            yield _timed(batch)
            at = batch.last + 1
            progress.records += len(batch.records)
            bytes_left -= piece.bytes
            now = time.monotonic()
            if element.rate:
                kept.due = max(kept.due, now) + len(batch.records) / element.rate
            if bytes_left <= 0 or now > began + _BUNDLE_SECONDS:
                break
        if progress.draining:
            tracker.try_claim(element.stop)  # the rest is the next shift's
            return
        tracker.defer_remainder()

    def _early(self, kept: _Reading) -> bool:
        """Whether the rate forbids to read on in this bundle; waits for its time, if that is
        near."""
        early = kept.due - time.monotonic()
        if early > 0:
            heartbeat.progress(self._run)
            time.sleep(min(early, _BUNDLE_SECONDS / 2))
        return early > _BUNDLE_SECONDS / 2

    def _before(self, element: Lane, plan: Plan, at: int) -> Iterator[TimestampedValue]:
        """One part before the start, for nobody but the deduplication."""
        lane, number = element.before[at]
        start = element.start if lane == element.lane else plan.end(lane)
        parts = [(number, plan.part(lane, number))]
        row = _Row(
            parts, origin(element.name, lane), address(number, 0), only=NOBODY,
            span_ms=self._span_ms,
        )  # fmt: skip
        while piece := row.take():
            piece.batch.records = [r for r in piece.batch.records if r.sequence < start]
            if piece.batch.records:
                yield _timed(piece.batch)

    def _owed(self, element: Owing, tracker: Any) -> Iterator[TimestampedValue]:
        """What a sink is owed, read again as fast as the sink takes it."""
        kept = _reading(self._run)
        key = element.lane, element.sink
        if key not in kept.owed:
            plan = Plan.load(self._store, element.name)
            assert plan is not None, "a plan is written before it is read"
            kept.owed[key] = _again(plan, element)
        now = time.monotonic()
        engine = next((e for e in engines(self._run) if e.sink.name == element.sink), None)
        welcome = _FIRST if engine is None else engine.appetite()
        if welcome:
            kept.fed[key] = now
        elif now > kept.fed.setdefault(key, now) + element.patience:
            tracker.try_claim(END)  # it takes nothing: the rest stays owed
            return
        else:
            heartbeat.progress(self._run)
            time.sleep(_HOLD_SECONDS)
        number = tracker.current_restriction().start
        left = min(welcome, _OWED_RECORDS)
        while left > 0:
            batch = None if kept.progress.draining else next(kept.owed[key], None)
            if batch is None:
                tracker.try_claim(END)
                return
            if not tracker.try_claim(number):
                return
            number += 1
            yield _timed(batch)
            left -= len(batch.records)
        tracker.defer_remainder()


def _held(run: str, progress: Progress) -> bool:
    """Whether every sink is shut: what is read now would only become owed."""
    found = [engine.status() for engine in engines(run)]
    shut = [status for status in found if status.circuit == "open"]
    if not found or len(shut) < len(found):
        progress.held = ""
        return False
    progress.held = shut[0].reason
    heartbeat.progress(run)
    time.sleep(_HOLD_SECONDS)
    return True


def _again(plan: Plan, element: Owing) -> Iterator[Batch]:
    """The records that a sink is owed of a lane, each part read once."""
    at = origin(element.name, element.lane)
    for number in sorted({n for run in element.owed for n in _parts(run)}):
        base = address(number, 0)
        wanted = clip(element.owed, base, base + _OF_A_PART)
        ranges = union(Run(run.first, run.last, 0) for run in wanted)
        meant: list[Record] = []
        for chunk in read_part(plan.part(element.lane, number), base):
            meant += _within(chunk.records, ranges)
            while len(meant) >= _OWED_EVENTS:
                yield _addressed(at, element.sink, meant[:_OWED_EVENTS], wanted)
                del meant[:_OWED_EVENTS]
            if chunk.records and chunk.records[-1].sequence >= ranges[-1].last:
                break
        if meant:
            yield _addressed(at, element.sink, meant, wanted)


def _parts(run: Run) -> range:
    return range(run.first // RECORDS, run.last // RECORDS + 1)


def _within(records: list[Record], ranges: list[Run]) -> list[Record]:
    """Those in one of these ranges, which are in order."""
    if not records:
        return []
    ranges = clip(ranges, records[0].sequence, records[-1].sequence)
    found: list[Record] = []
    for run in ranges:
        first = bisect_left(records, run.first, key=_sequence)
        found += records[first : bisect_right(records, run.last, key=_sequence)]
    return found


def _addressed(at: Origin, sink: str, records: list[Record], wanted: Sequence[Run]) -> Batch:
    first, last = records[0].sequence, records[-1].sequence
    return Batch(at, first, last, sink, records, clip(wanted, first, last))


def _timed(batch: Batch) -> TimestampedValue:
    return TimestampedValue(batch, Timestamp(micros=batch.records[-1].enqueued_ms * 1000))


class ReadHistory(beam.PTransform):
    """`PBegin → PCollection[Batch]`, timestamped by enqueued time.

    run: names what this process keeps for the run; see `reading`. store: where the plan lies.
    span_ms: of time, no two of which are in a batch: the deduplication's horizon.
    """

    def __init__(
        self,
        run: str,
        elements: Sequence[Lane | Owing],
        store: StateStore,
        span_ms: int = _DAY_MS,
    ) -> None:
        super().__init__()
        self._read = _ReadLane(run, store, span_ms)
        self._elements = [*elements]

    def expand(self, begin: Any) -> Any:
        return (
            begin
            | "Lanes" >> beam.Create(self._elements, reshuffle=False)
            | "Read" >> beam.ParDo(self._read).with_output_types(Batch)
        )


def admit(store: StateStore, name: str, job: str) -> None:
    """Have readers of this job's shares read, and those of any other end, wherever they work."""
    store.put(_job(name), job.encode())


def dismiss(store: StateStore, name: str) -> None:
    """Have all of them end: what they have read is sent."""
    store.delete(_job(name))


def admitted(store: StateStore, name: str, job: str) -> bool:
    return store.get(_job(name)) == job.encode()


def _job(name: str) -> str:
    return f"{folder(name)}/job"


def stretches(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """A round's parts in pieces that a reader takes at once: lane, first part, and that behind the
    last one. The same for any number of readers, so that what some have done is known to others."""
    first = [plan.round(lane) for lane in range(plan.lanes)]
    every = sum(length(part) for lane, at in enumerate(first) for _, part in plan.row(lane, at))
    most = min(_STRETCH_BYTES, every // _STRETCHES)
    for lane, begin in enumerate(first):
        size = 0
        for number, part in plan.row(lane, begin):
            size += length(part)
            if size >= most:
                yield lane, begin, number + 1
                begin, size = number + 1, 0
        if begin < plan.parts(lane):
            yield lane, begin, plan.parts(lane)


class _ReadShare(beam.DoFn):
    """sinks: what all of them have settled is not read again. None: everything is read, only to be
    looked at."""

    def __init__(
        self, run: str, store: StateStore, span_ms: int, sinks: tuple[str, ...] | None
    ) -> None:
        self._run = run
        self._store = store
        self._span_ms = span_ms
        self._sinks = sinks

    def process(self, element: tuple[int, Iterable[Share]]) -> Iterator[TimestampedValue]:
        for share in element[1]:
            plan = Plan.load(self._store, share.name)
            assert plan is not None, "a plan is written before it is read"
            sinks = self._sinks
            done = None if sinks is None else Done(self._store, share.name, sinks)
            self._progress = Progress()
            self._due = self._look = time.monotonic()
            for number, stretch in enumerate(stretches(plan)):
                if number % share.of == share.number:
                    yield from self._stretch(plan, share, done, *stretch)
                if self._progress.draining:
                    return

    def _stretch(
        self, plan: Plan, share: Share, done: Done | None, lane: int, begin: int, end: int
    ) -> Iterator[TimestampedValue]:
        first, last = address(begin, 0), address(end, 0) - 1
        upto, place = done.upto(lane, first, last) if done else (first - 1, "")
        if upto >= last:
            return
        at = upto + 1
        row = _Row(
            ((number, plan.part(lane, number)) for number in range(at // RECORDS, end)),
            origin(share.name, lane), at, place if at % RECORDS else "",
            unread=lambda part, what: (
                write_unread(self._store, share.name, lane, part, what) if done else None
            ),
            progress=self._progress, span_ms=self._span_ms,
        )  # fmt: skip
        while self._goes_on(share) and (piece := row.take()):
            yield _timed(piece.batch)
            if share.rate and done:
                now = time.monotonic()
                self._due = max(self._due, now) + len(piece.batch.records) / share.rate
        if not self._progress.draining and row.following <= last:
            batch = Batch(origin(share.name, lane), row.following, last, None, [])
            yield TimestampedValue(batch, Timestamp.of(time.time()))

    def _goes_on(self, share: Share) -> bool:
        """Whether to read on, once the rate and the sinks allow it. Raises SinksShutError."""
        held_since = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= self._look:
                self._look = now + _LOOK_SECONDS
                self._progress.draining = not admitted(self._store, share.name, share.job)
            if self._progress.draining:
                return False
            if self._sinks is not None and _held(self._run, self._progress):
                if now > held_since + share.patience:
                    raise SinksShutError(
                        f"no sink took anything for {share.patience:.0f} s "
                        f"({self._progress.held}); the same command goes on"
                    )
            elif now >= self._due:
                return True
            else:
                time.sleep(min(self._due - now, _LOOK_SECONDS))


class ReadShares(beam.PTransform):
    """`PBegin → PCollection[Batch]` of a replay's last round, for bounded runners: readers side by
    side, none of which defers.

    sinks, span_ms: see `_ReadShare`, `ReadHistory`.
    """

    def __init__(
        self,
        run: str,
        shares: Sequence[Share],
        store: StateStore,
        span_ms: int,
        sinks: tuple[str, ...] | None,
    ) -> None:
        super().__init__()
        self._shares = [*enumerate(shares)]
        self._read = _ReadShare(run, store, span_ms, sinks)

    def expand(self, begin: Any) -> Any:
        return (
            begin
            | "Shares" >> beam.Create(self._shares, reshuffle=False)
            # By number: keys that differ by one lie in different partitions of Spark's.
            | "One each" >> beam.GroupByKey().with_input_types(tuple[int, Share])
            | "Read" >> beam.ParDo(self._read).with_output_types(Batch)
        )


coders.register()
