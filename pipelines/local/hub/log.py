"""One partition's events on disk: appended, found by position, dropped as retention says.

A partition's folder holds `<first sequence>-<first offset>.log`, a row of records (length,
CRC-32, enqueued time in ms, then the message as it is sent to readers). Folders are made with
mode 0700, files with 0600. Nothing is fsynced: a killed process loses nothing that was
acknowledged, a machine that loses power may.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import re
import struct
import threading
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.local.hub import amqp
from pipelines.local.hub.amqp import AmqpError
from pipelines.local.hub.messages import Message

__all__ = ["CHUNK", "RECORD", "PartitionInfo", "PartitionLog", "Retention", "Waiter"]

_logger = logging.getLogger(__name__)

CHUNK = 1 << 17  # bytes of events read and sent in one go
RECORD = struct.Struct(">IIq")  # message length, CRC-32 of the message, enqueued time (ms)
_ANNOTATIONS = struct.Struct(">4sII24sq15sB")
_KEY_SEQUENCE = amqp.symbol("x-opt-sequence-number") + b"\x81"
_KEY_OFFSET = amqp.symbol("x-opt-offset") + b"\xa1"
_KEY_TIME = amqp.symbol("x-opt-enqueued-time") + b"\x83"
_SELECTOR = re.compile(
    r"amqp\.annotation\.x-opt-(sequence-number|offset|enqueued-time)\s*(>=?)\s*"
    r"'(@latest|-?\d{1,19})'"
)
_YEAR_ONE_MS = -62135596800000  # 0001-01-01, "never" for .NET and so for the service

Waiter = Callable[[], None]
"""Called, in the server's thread, once there are events that a reader waits for."""


class Retention(NamedTuple):
    """What a partition keeps; beyond any of the limits the oldest events are dropped."""

    seconds: float | None = None
    """Age since the event was enqueued; looked at when events arrive or are asked for."""
    events: int | None = None
    bytes: int | None = None


class PartitionInfo(NamedTuple):
    """The state of a partition as the service reports it."""

    partition: str
    begin_sequence_number: int
    """Of the oldest event kept, or of the next one if all were dropped; -1 if there was none."""
    last_sequence_number: int
    last_offset: str
    last_enqueued_ms: int
    is_empty: bool


class _Segment(NamedTuple):
    first: int  # sequence number
    start: int  # offset
    fd: int
    path: Path


class PartitionLog:
    """The events of one partition, on disk, with 16 bytes an event in memory.

    Safe to use from several threads. Sequence numbers count from 0 without a gap; an event's
    offset is the position of its record in the partition's whole history, in bytes.
    """

    def __init__(
        self,
        folder: Path,
        retention: Retention,
        clock: Callable[[], int],
        segment_bytes: int,
        wake: Callable[[set[Waiter]], None],
    ) -> None:
        self.folder, self._retention, self._clock = folder, retention, clock
        self._segment_bytes, self._wake = segment_bytes, wake
        self._lock = threading.Lock()
        self._base = 0  # sequence number of the first event indexed; trails `first`
        self._offsets = array("q", [0])  # of every indexed event, and of the next one
        self._times = array("q")  # enqueued, ms; never decreasing
        self._segments: list[_Segment] = []
        self._waiting: set[Waiter] = set()
        self.first = 0  # sequence number of the oldest event kept
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = sorted(folder.glob("*.log"))
        for path in paths:
            self._load(path, last=path is paths[-1])
        if not paths:
            self._segments.append(self._segment(0, 0))
        self.first = self._base
        self._retain()

    @property
    def next(self) -> int:
        """The sequence number that the next event will get."""
        return self._base + len(self._times)

    def _segment(self, first: int, start: int) -> _Segment:
        path = self.folder / f"{first:020d}-{start:020d}.log"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return _Segment(first, start, os.open(path, flags, 0o600), path)

    def _load(self, path: Path, last: bool) -> None:
        """Index a segment; the last one may end in a torn record, which is cut off."""
        first, start = (int(part) for part in path.stem.split("-"))
        if not self._segments:
            self._base, self._offsets = first, array("q", [start])
        if (first, start) != (self.next, self._offsets[-1]):
            raise OSError(errno.EIO, "the segment does not continue the one before", str(path))
        segment = self._segment(first, start)
        self._segments.append(segment)
        size, pos = os.fstat(segment.fd).st_size, 0
        if not size:
            return
        with mmap.mmap(segment.fd, size, access=mmap.ACCESS_READ) as data:
            while pos + RECORD.size <= size:
                length, crc, enqueued = RECORD.unpack_from(data, pos)
                end = pos + RECORD.size + length
                if not length or end > size:
                    break
                if last and zlib.crc32(data[pos + RECORD.size : end]) != crc:
                    break
                self._times.append(enqueued)
                self._offsets.append(start + end)
                pos = end
        if pos < size:
            if not last:
                raise OSError(errno.EIO, f"the segment is damaged at byte {pos}", str(path))
            _logger.warning("%s: cutting off %d bytes of a torn record", path, size - pos)
            os.ftruncate(segment.fd, pos)

    def close(self) -> None:
        with self._lock:
            for segment in self._segments:
                os.close(segment.fd)
            self._segments.clear()

    def append(self, messages: Iterable[Message]) -> tuple[int, int]:
        """Store events and wake the readers that wait; the first and last sequence number.

        Raises:
            OSError: They could not be written; none of them is stored.
        """
        with self._lock:
            if not self._segments:
                raise OSError(errno.EBADF, "the hub is stopped", str(self.folder))
            now = max(self._clock(), self._times[-1] if self._times else 0)
            first = sequence = self.next
            offset = self._offsets[-1]
            if offset - self._segments[-1].start >= self._segment_bytes:
                self._segments.append(self._segment(first, offset))
            chunks: list[bytes] = []
            offsets = array("q")
            for own, rest in messages:
                text = b"%d" % offset
                extra = b"".join(own)
                size = 4 + 24 + 8 + 15 + 1 + len(text) + len(_KEY_TIME) + 8 + len(extra)
                head = _ANNOTATIONS.pack(
                    b"\0\x53\x72\xd1", size, 6 + 2 * len(own),
                    _KEY_SEQUENCE, sequence, _KEY_OFFSET, len(text),
                )  # fmt: skip
                message = b"".join((head, text, _KEY_TIME, now.to_bytes(8, "big"), extra, rest))
                chunks += (RECORD.pack(len(message), zlib.crc32(message), now), message)
                offset += RECORD.size + len(message)
                offsets.append(offset)
                sequence += 1
            if sequence == first:
                raise ValueError("nothing to publish")
            self._write(b"".join(chunks))
            self._times.extend(array("q", [now]) * (sequence - first))
            self._offsets.extend(offsets)
            self._retain()
            waiting, self._waiting = self._waiting, set()
        if waiting:
            self._wake(waiting)
        return first, sequence - 1

    def _write(self, data: bytes) -> None:
        segment = self._segments[-1]
        try:
            if os.write(segment.fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(segment.path))
        except OSError:
            os.ftruncate(segment.fd, self._offsets[-1] - segment.start)
            raise

    def _retain(self) -> None:
        """Move `first` to what retention allows, and delete the segments wholly before it."""
        keep, first = self._retention, self.first - self._base
        if keep.seconds is not None:
            oldest = self._clock() - int(keep.seconds * 1000)
            first = max(first, bisect_left(self._times, oldest))
        if keep.events is not None:
            first = max(first, len(self._times) - keep.events)
        if keep.bytes is not None:
            first = max(first, bisect_left(self._offsets, self._offsets[-1] - keep.bytes))
        self.first = self._base + first
        # The last event stays on disk, for time and numbers to go on from.
        while len(self._segments) > 1 and self._segments[1].first <= min(self.first, self.next - 1):
            segment = self._segments.pop(0)
            os.close(segment.fd)
            segment.path.unlink()
        gone = self._segments[0].first - self._base
        if gone:
            del self._times[:gone], self._offsets[:gone]
            self._base += gone

    def read(
        self, sequence: int, count: int, waiter: Waiter
    ) -> tuple[int, bytes, Sequence[int]] | None:
        """Up to `count` events from `sequence` on, or from the oldest kept if that is later.

        Returns:
            The sequence number of the first, its bytes and those of the following records, and
            the offset of each record with the end of the last. None if there is none yet: then
            `waiter` is called once there is.
        """
        with self._lock:
            sequence = max(sequence, self.first)
            index = sequence - self._base
            available = min(count, len(self._times) - index)
            if available <= 0 or not self._segments:
                self._waiting.add(waiter)
                return None
            at = bisect_right(self._segments, self._offsets[index], key=lambda s: s.start)
            segment = self._segments[at - 1]
            limit = self._offsets[index] + CHUNK
            if at < len(self._segments):
                limit = min(limit, self._segments[at].start)
            stop = bisect_right(self._offsets, limit, index + 2, index + available + 1)
            bounds = self._offsets[index:stop]
            data = os.pread(segment.fd, bounds[-1] - bounds[0], bounds[0] - segment.start)
        return sequence, data, bounds

    def forget(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiting.discard(waiter)

    def find(self, selector: str) -> int:
        """The sequence number a reader starts at.

        Raises:
            AmqpError: The selector is not understood, or names what does not exist yet. The
                service refuses even the number after the last one, inclusive or not.
        """
        match = _SELECTOR.fullmatch(selector.strip())
        if match is None:
            raise AmqpError("amqp:invalid-field", f"The filter {selector!r} is not supported.")
        what, inclusive, text = match[1], match[2] == ">=", match[3]
        bisect = bisect_left if inclusive else bisect_right
        with self._lock:
            self._retain()
            if text == "@latest":  # assumed: inclusive or not, only what comes from now on
                return self.next
            value = int(text)
            if what == "enqueued-time":
                return self._base + bisect(self._times, value)
            last = self._last_offset() if what == "offset" else self.next - 1
            if value > last:
                name = what.replace("-", " ")
                raise AmqpError(
                    "com.microsoft:argument-error",
                    f"The supplied {name} '{value}' is invalid. "
                    f"The last {name} in the system is '{last}'",
                )
            if what == "offset":
                return self._base + bisect(self._offsets, value)
            return max(value + (not inclusive), self.first)

    def _last_offset(self) -> int:
        return self._offsets[-2] if self._times else -1

    def info(self) -> PartitionInfo:
        with self._lock:
            self._retain()
            return PartitionInfo(
                self.folder.name,
                self.first if self.next else -1,
                self.next - 1,
                str(self._last_offset()),
                self._times[-1] if self._times else _YEAR_ONE_MS,
                self.first == self.next,
            )

    def metrics(self) -> bytes:
        """The delivery annotations that tell a reader where the partition ends."""
        with self._lock:
            values = {
                "last_enqueued_sequence_number": amqp.long(self.next - 1),
                "last_enqueued_offset": amqp.string(str(self._last_offset())),
                "last_enqueued_time_utc": amqp.timestamp(self._times[-1]),
                "runtime_info_retrieval_time_utc": amqp.timestamp(self._clock()),
            }
        return amqp.section(amqp.DELIVERY_ANNOTATIONS, amqp.mapping(values, key=amqp.symbol))
