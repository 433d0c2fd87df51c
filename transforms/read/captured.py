"""What Event Hubs Capture has written, as a bounded Beam source at the hub's own addresses.

A partition's files are a *row*. Its events come out once each, in the order of their sequence
numbers, whatever the files are called and however often an event is in them: what follows in the
hub follows without gap or overlap. Numbers that the row lacks are a gap, written down before
anything behind it is handed on; but what the hub still has is left to it, and the row ends there.

As with a hub (`event_hubs.py`), the restriction is a range of sequence numbers, and `process` gives
a bundle's worth and defers the rest. Partitions are kept abreast in enqueued time, so that the
deduplication's horizon is the same for all. For the local runner: the rows are this process's.

Source: Microsoft's "Capture events through Azure Event Hubs": a file holds events of one partition,
in order; one that is empty is written where none came.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from schemas.batch import NOBODY, TO_DIGESTS, Batch, Origin, Record
from transforms import coders, heartbeat
from transforms.delivery.engines import engines
from transforms.delivery.line import printable
from transforms.gaps import Gap, record_gap
from transforms.hand_over import high_water
from transforms.read.event_hubs import Partition
from transforms.read.files.base import Part, Unread
from transforms.read.files.capture import HubChunk, hub_records
from transforms.read.filesystems import open_file
from transforms.read.history import StorageError
from transforms.read.reader import PartitionStatus
from transforms.state_store import StateStore

__all__ = [
    "Cursor",
    "First",
    "NotThisHub",
    "ReadCaptured",
    "Reading",
    "Row",
    "close_reading",
    "reading",
]

_BATCH_EVENTS = 200
_BATCH_BYTES = 1024 * 1024
_BUNDLE_SECONDS = 1.0
_BUNDLE_BYTES = 16 * 1024 * 1024
_ABREAST_MS = 600_000  # of enqueued time that a partition may be ahead of another
_CLOCKS_MS = 300_000  # that clocks of the service may differ
_SAME_MS = 2_000  # two tellings of one time: Capture's is to the second
_BEFORE = 1  # files that are read before the one to begin with: two may overlap
_FEW = 2_000  # files
_LOOKERS = 16  # files that are opened side by side
_ATTEMPTS = 5
_HOLD_SECONDS = 0.05
_MOST_UNREAD = 1_000  # that are told one by one
_GONE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR)
_LACKS = "neither Capture's files nor the hub have them"
_sequence = attrgetter("sequence")


class NotThisHub(Exception):
    """Files are of another hub, or of an older one of this name; the message says how it shows."""


class First(NamedTuple):
    """An event by which a file, or a hub, can be told."""

    sequence: int
    enqueued_ms: int


# ----------------------------------------------------------------------------------- a row


class Row:
    """The files of one partition, in the order of their events: that is looked up in each where
    they are few, or where numbers lack; else in few of them, as their paths say it too.

    known: an older row of the partition, which has looked some up. looked: called for each file.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        known: Row | None = None,
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        self.parts = sorted(parts, key=lambda part: (part.at_ms, part.url, part.start))
        self.ordered = False  # for sure
        self._firsts: dict[Part, First | None] = known._firsts if known else {}
        self._looked = looked

    def first(self, index: int) -> First | None:
        """The file's first event; None if it has none. Raises StorageError."""
        part = self.parts[index]
        if part not in self._firsts:
            self._looked()
            with contextlib.closing(_chunks(part)) as chunks:
                events = (chunk.records[0] for chunk in chunks if chunk.records)
                event = next(events, None)
            self._firsts[part] = First(event.sequence, event.enqueued_ms) if event else None
        return self._firsts[part]

    def begins(self) -> First | None:
        """The first event of all; None if there is none. Raises StorageError."""
        if len(self.parts) <= _FEW:
            self.order()
        found = (self.first(index) for index in range(len(self.parts)))
        return next((first for first in found if first), None)

    def find(self, sequence: int) -> int:
        """The last file that begins at or before this event, or else the first."""
        if len(self.parts) <= _FEW:
            self.order()
        low, high = 0, len(self.parts)
        while low < high:
            middle = at = (low + high) // 2
            while at < high and (first := self.first(at)) is None:
                at += 1
            if at < high and first is not None and first.sequence <= sequence:
                low = at + 1
            else:
                high = middle
        return max(0, low - 1)

    def order(self) -> None:
        """Look every file up, and put them in the order of their events."""
        if self.ordered:
            return
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="look up") as pool:
            firsts = [*pool.map(self.first, range(len(self.parts)))]
        before, keys = -1, {}
        for part, first in zip(self.parts, firsts, strict=True):
            before = keys[part] = first.sequence if first else before
        self.parts.sort(key=keys.__getitem__)
        self.ordered = True

    def chunks(self, index: int) -> Generator[HubChunk, None, None]:
        """Raises StorageError."""
        self._looked()
        return _chunks(self.parts[index])


def _chunks(part: Part) -> Generator[HubChunk, None, None]:
    for attempt in range(_ATTEMPTS):
        try:
            file = open_file(part.url)
            break
        except OSError as error:
            if error.errno in _GONE or isinstance(error, FileNotFoundError | PermissionError):
                why = error.strerror or str(error)
                yield HubChunk([], "", part.start, (Unread(part.url, part.start, -1, why),))
                return
            if attempt == _ATTEMPTS - 1:
                raise StorageError(f"{part.url}: {error.strerror or error}") from error
            time.sleep(min(8.0, 0.5 * 2**attempt))
    try:
        with file:
            yield from hub_records(file, part)
    except OSError as error:
        raise StorageError(f"{part.url}: {error.strerror or error}") from error


class Cursor:
    """Reads a row from an event on: each event once, in order. Numbers may lack.

    known: an event that the hub itself has; files that contradict it are not of it.
    next: the number of the event that is taken next, if there is one. why: what could not be read
        near what lacks before the event that comes next; "": nothing.
    """

    def __init__(
        self,
        row: Row,
        start: int,
        known: First | None = None,
        unread: Callable[[Unread], None] = lambda what: None,
    ) -> None:
        self.next = start
        self.why = ""
        self._row = row
        self._known = known
        self._unread = unread
        self._expected = start
        self._newest_ms = 0
        self._trouble = 0, ""  # in which file, what
        self._records: list[Record] = []  # without a gap
        self._at = 0
        self._offset = ""
        self._pieces = self._read()

    def peek(self) -> Record | None:
        """The next event; None at the row's end. Raises StorageError, NotThisHub."""
        if self._at >= len(self._records):
            self._records, self._offset, self.why = next(self._pieces, ([], "", ""))
            self._at = 0
        return self._records[self._at] if self._records else None

    def take(self, stop: int, events: int, size: int) -> tuple[list[Record], str]:
        """Events without a gap, below `stop`, up to so many or about so many bytes; and the hub's
        own position of the last one, "" where it is not known. There is one, as `peek` says."""
        records, at = self._records, self._at
        end = min(len(records), at + events, at + stop - records[at].sequence)
        taken = records[at:end]
        for count, record in enumerate(taken, 1):
            size -= len(record.body)
            if size <= 0:
                taken, end = taken[:count], at + count
                break
        self._at = end
        self.next = taken[-1].sequence + 1
        return taken, self._offset if end == len(records) else ""

    def _read(self) -> Iterator[tuple[list[Record], str, str]]:
        """The events from `next` on: pieces without a gap, the hub's own position of the last of
        each, and what was unread near it."""
        row = self._row
        index = row.find(self._expected) - _BEFORE
        while index < len(row.parts):
            for chunk in row.chunks(index) if index >= 0 else ():
                for unread in chunk.unread:
                    self._unread(unread)
                    self._trouble = index, f"{unread.url}, byte {unread.offset}: {unread.why}"
                records = self._fresh(chunk.records, row.parts[index])
                lacks = records and records[-1].sequence - self._expected >= len(records)
                if lacks and not row.ordered:
                    row.order()  # perhaps another file has it
                    index = row.find(self._expected) - _BEFORE - 1
                    break
                last = records[-1].sequence if records else -1
                where, trouble = self._trouble
                why = trouble if index - where <= 1 else ""
                for piece in _pieces(records):
                    self._expected = piece[-1].sequence + 1
                    self._newest_ms = max(self._newest_ms, piece[-1].enqueued_ms)
                    yield piece, chunk.offset if self._expected > last else "", why
            index += 1

    def _fresh(self, records: list[Record], part: Part) -> list[Record]:
        """Those that did not come yet, in order."""
        if not records:
            return records
        first = records[0].sequence
        if [*map(_sequence, records)] != [*range(first, first + len(records))]:
            known = {record.sequence: record for record in reversed(records)}
            records = [known[number] for number in sorted(known)]
        came = bisect_left(records, self._expected, key=_sequence)
        self._check(records[:came], records[came:], part)
        return records[came:]

    def _check(self, again: list[Record], records: list[Record], part: Part) -> None:
        """Numbers and times rise together in a partition, so what does not is of another one."""
        newest_ms = self._newest_ms
        if again and newest_ms and again[-1].enqueued_ms > newest_ms + _CLOCKS_MS:
            raise self._wrong(part, again[-1], "its numbers begin again")
        if records and records[0].enqueued_ms < newest_ms - _CLOCKS_MS:
            raise self._wrong(part, records[0], "its numbers go on, its times go back")
        if self._known is None or not records:
            return
        sequence, at_ms = self._known
        index = bisect_left(records, sequence, key=_sequence)
        same = records[index : index + 1]
        at_once = same and same[0].sequence == sequence
        if at_once and abs(same[0].enqueued_ms - at_ms) > _SAME_MS:
            raise self._wrong(part, same[0], "the hub has that event of another time")
        early, late = records[:1], records[-1:]
        if late[0].sequence < sequence and late[0].enqueued_ms > at_ms + _CLOCKS_MS:
            raise self._wrong(part, late[0], "the hub has a later event of an earlier time")
        if early[0].sequence > sequence and early[0].enqueued_ms < at_ms - _CLOCKS_MS:
            raise self._wrong(part, early[0], "the hub has an earlier event of a later time")

    @staticmethod
    def _wrong(part: Part, record: Record, how: str) -> NotThisHub:
        return NotThisHub(
            f"{printable(part.url, 300)} is of another hub, or of an older one of this name: {how} "
            f"(event {record.sequence:,}): give only files of the hub as it is now"
        )


def _pieces(records: list[Record]) -> Iterator[list[Record]]:
    """Cut where numbers lack."""
    if records and records[-1].sequence - records[0].sequence == len(records) - 1:
        yield records
        return
    begin = 0
    for at in range(1, len(records) + 1):
        if at == len(records) or records[at].sequence != records[at - 1].sequence + 1:
            yield records[begin:at]
            begin = at


# ------------------------------------------------------------------------- of one process


class Reading:
    """What a run reads of Capture in this process, and where it stands.

    gone: of each partition, the first event that the hub has; what lacks before it is a gap.
    known: an event of each that the hub has.
    """

    def __init__(self) -> None:
        self.draining = False  # a shift ends: nothing more is to be read
        self.held = ""  # why nothing is read now
        self.ended: set[Origin] = set()  # of this round
        self.refused = ""  # why nothing may be read on
        self.warming: set[Origin] = set()
        self.status: dict[Origin, PartitionStatus] = {}
        self.unread: deque[Unread] = deque(maxlen=_MOST_UNREAD)  # and was not told yet
        self.rows: dict[Origin, Row] = {}
        self.gone: Mapping[Origin, int] = {}
        self._noted: set[Unread] = set()
        self._known: Mapping[Origin, First] = {}
        self._cursors: dict[Origin, Cursor] = {}
        self._times: dict[Origin, int] = {}  # of what comes next, where a partition is not through

    def begin(
        self, rows: dict[Origin, Row], gone: Mapping[Origin, int], known: Mapping[Origin, First]
    ) -> None:
        """Another round: these files, and a hub that has forgotten more."""
        self.forget()
        self.ended.clear()
        self.rows, self.gone, self._known = rows, gone, known

    def forget(self) -> None:
        """Where reading stands: a shift failed."""
        self._cursors.clear()
        self._times.clear()

    def cursor(self, origin: Origin, start: int) -> Cursor:
        found = self._cursors.get(origin)
        if found is None or found.next != start:
            row, known = self.rows[origin], self._known.get(origin)
            found = self._cursors[origin] = Cursor(row, start, known, self._note)
        status = self.status.setdefault(origin, PartitionStatus(*origin_of(origin), start))
        status.next, status.connected = start, True
        return found

    def _note(self, unread: Unread) -> None:
        if unread not in self._noted:
            self._noted.add(unread)
            self.unread.append(unread)

    def abreast(self, origin: Origin, enqueued_ms: int) -> bool:
        """Whether the partition may go on with an event of this time."""
        self._times[origin] = enqueued_ms
        return enqueued_ms <= min(self._times.values()) + _ABREAST_MS

    def sharers(self) -> int:
        """How many partitions share a bundle."""
        until = min(self._times.values(), default=0) + _ABREAST_MS
        return max(1, sum(at <= until for at in self._times.values()))

    def through(self, origin: Origin) -> None:
        """There is nothing more of a partition."""
        self.ended.add(origin)
        self._times.pop(origin, None)
        self.warming.discard(origin)


def origin_of(origin: Origin) -> tuple[str, str]:
    return origin.source, origin.partition


_readings: dict[str, Reading] = {}
_lock = threading.Lock()


def reading(run: str) -> Reading:
    """The run's, in this process."""
    with _lock:
        return _readings.setdefault(run, Reading())


def close_reading(run: str) -> None:
    """Let go of the run's files."""
    with _lock:
        _readings.pop(run, None)


# -------------------------------------------------------------------------------- the source


class _Tracker(OffsetRestrictionTracker):
    """Sequence numbers; splits only at the current position: a partition has one reader."""

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None


class _ReadCaptured(beam.DoFn, beam.transforms.core.RestrictionProvider):
    def __init__(self, run: str, store: StateStore) -> None:
        self._run = run
        self._store = store

    def initial_restriction(self, element: Partition) -> OffsetRange:
        return OffsetRange(element.start, max(element.start, element.stop))

    def create_tracker(self, restriction: OffsetRange) -> _Tracker:
        return _Tracker(restriction)

    def restriction_size(self, element: Partition, restriction: OffsetRange) -> int:
        return int(restriction.size())

    def start_bundle(self) -> None:
        heartbeat.progress(self._run, bundles=1)
        self._sharers = reading(self._run).sharers()

    @beam.DoFn.unbounded_per_element()
    def process(  # type: ignore[no-untyped-def]
        self, element: Partition, tracker=beam.DoFn.RestrictionParam()
    ) -> Iterator[TimestampedValue]:
        origin = Origin(element.source, element.partition)
        all_of_it = reading(self._run)
        try:
            ended = yield from self._batches(element, origin, tracker, all_of_it)
        except NotThisHub as error:
            all_of_it.refused = str(error)
            ended = True
        if ended:
            tracker.try_claim(element.stop)
        else:
            tracker.defer_remainder()

    def _batches(self, element: Partition, origin: Origin, tracker: Any, all_of_it: Reading) -> Any:
        """A bundle's share of a partition; whether that is the last of it."""
        first, stop = tracker.current_restriction().start, element.stop
        if first >= stop:
            all_of_it.through(origin)
            return True
        cursor = all_of_it.cursor(origin, first)
        status = all_of_it.status[origin]
        status.last_sequence = stop - 1
        deadline = time.monotonic() + _BUNDLE_SECONDS / self._sharers
        bytes_left = _BUNDLE_BYTES / self._sharers
        while bytes_left > 0 and time.monotonic() < deadline:
            if all_of_it.draining or all_of_it.refused:
                return True
            only, limit = _address(element, first)
            if only is None:
                all_of_it.warming.discard(origin)
                if all_of_it.warming or self._held(all_of_it):
                    break
            event = cursor.peek()
            following = event.sequence if event else stop
            if only is not None and following >= limit:
                tracker.try_claim(limit - 1)  # nothing is left to be marked
                first = cursor.next = limit
                continue
            if event is None or (following > first and first >= all_of_it.gone[origin]):
                all_of_it.through(origin)
                return True  # the hub has what follows
            if following >= stop:
                raise NotThisHub(_beyond(origin, following, stop))
            if only is None and not all_of_it.abreast(origin, event.enqueued_ms):
                break
            if only is None and following > first:
                end = min(following, all_of_it.gone[origin])
                self._gap(origin, first, end, cursor.why)
                if end < following:
                    if tracker.try_claim(end - 1):
                        batch = Batch(origin, first, end - 1, None, [])
                        yield TimestampedValue(batch, _at(event))
                        status.next = end
                    all_of_it.through(origin)
                    return True
            records, offset = cursor.take(limit, _BATCH_EVENTS, _BATCH_BYTES)
            last = records[-1]
            if not tracker.try_claim(last.sequence):
                return True
            if only is None:
                high_water(self._run, self._store).cover(origin, last.sequence)
            batch = Batch(origin, first, last.sequence, only, records, None, offset)
            yield TimestampedValue(batch, _at(last))
            first = status.next = last.sequence + 1
            status.read_enqueued_ms = last.enqueued_ms
            status.taken += len(records)
            bytes_left -= sum(len(record.body) for record in records)
        return False

    def _held(self, all_of_it: Reading) -> bool:
        """Whether every sink is shut: what is read now would only become owed."""
        found = [engine.status() for engine in engines(self._run)]
        if not found or any(each.circuit != "open" for each in found):
            all_of_it.held = ""
            return False
        all_of_it.held = found[0].reason
        time.sleep(_HOLD_SECONDS)
        return True

    def _gap(self, origin: Origin, first: int, following: int, why: str) -> None:
        """Write down that nobody has these events."""
        told = f"{_LACKS}: {printable(why, 300)}" if why else _LACKS
        record_gap(self._store, origin, Gap(first, following - 1, int(time.time() * 1000), told))


def _address(element: Partition, first: int) -> tuple[str | None, int]:
    """Whom what comes next is for, and up to where."""
    if first < element.counted:
        return NOBODY, element.counted
    if first < element.live:
        return TO_DIGESTS, element.live
    return None, element.stop


def _beyond(origin: Origin, sequence: int, stop: int) -> str:
    return (
        f"{origin}: Capture's files have event {sequence:,}, but the hub's last one is "
        f"{stop - 1:,}: they are of another hub, or of an older one of this name: give only files "
        "of the hub as it is now"
    )


def _at(record: Record) -> Timestamp:
    return Timestamp(micros=record.enqueued_ms * 1000)


class ReadCaptured(beam.PTransform):
    """`PBegin → PCollection[Batch]`, timestamped by enqueued time.

    partitions: what of each is to be read; those that have a row in `reading(run)`.
    """

    def __init__(self, run: str, partitions: Iterable[Partition], store: StateStore) -> None:
        super().__init__()
        self._read = _ReadCaptured(run, store)
        self._partitions = [*partitions]

    def expand(self, begin: Any) -> Any:
        return (
            begin
            | "Partitions" >> beam.Create(self._partitions, reshuffle=False)
            | "Read" >> beam.ParDo(self._read).with_output_types(Batch)
        )


coders.register()
