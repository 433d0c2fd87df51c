"""An embedded Event Hubs: the AMQP 1.0 service that Azure's own clients talk to, on loopback.

`EmbeddedHub` serves unmodified azure-eventhub producers and consumers from a thread of its own,
keeps the events in append-only files, and fails on demand. Where the service's answers are known
from logs in public issues, conditions and sentences are the service's own; what is a guess is
marked "assumed". Plain TCP on 127.0.0.1 only: it is a tool for development and tests.

Data on disk: `<folder>/<hub>/<partition>/<first sequence>-<first offset>.log`, a row of records
(length, CRC-32, enqueued time in ms, then the message as it is sent to readers). Folders are
made with mode 0700, files with 0600. Nothing is fsynced: a killed process loses nothing that was
acknowledged, a machine that loses power may.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import fcntl
import hashlib
import hmac
import logging
import mmap
import os
import re
import socket
import struct
import threading
import time
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote_plus

from pipelines.local import amqp
from pipelines.local.amqp import NULL, AmqpError

__all__ = ["EmbeddedHub", "PartitionInfo", "PortInUseError", "Published", "Retention"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_MAX_FRAME = 65536  # what the service announces, in bytes
_CHUNK = 1 << 17  # bytes of events read and sent in one go
_CREDIT = 1000  # messages a producer may have under way
_WINDOW = 0x7FFFFFFF  # transfers we let a client send: memory is bounded by _MAX_FRAME instead
_READERS = 5  # readers of a partition and consumer group without an epoch
_RUNTIME_METRIC = "com.microsoft:enable-receiver-runtime-metric"
_BUSY = "com.microsoft:server-busy"
_YEAR_ONE_MS = -62135596800000  # 0001-01-01, "never" for .NET and so for the service


class PortInUseError(OSError):
    """The port asked for is taken."""

    def __init__(self, port: int) -> None:
        text = f"port {port} on 127.0.0.1 is in use; choose another with --port"
        super().__init__(errno.EADDRINUSE, text)


class Retention(NamedTuple):
    """What a partition keeps; beyond any of the limits the oldest events are dropped."""

    seconds: float | None = None
    """Age since the event was enqueued; looked at when events arrive or are asked for."""
    events: int | None = None
    bytes: int | None = None


class Published(NamedTuple):
    """Where events went: the partition and the first and last sequence number."""

    partition: str
    first: int
    last: int


class PartitionInfo(NamedTuple):
    """The state of a partition as the service reports it."""

    partition: str
    begin_sequence_number: int
    """Of the oldest event kept, or of the next one if all were dropped; -1 if there was none."""
    last_sequence_number: int
    last_offset: str
    last_enqueued_ms: int
    is_empty: bool


class _Denied(Exception):
    """A request to $cbs or $management refused: status code and description."""


# ----------------------------------------------------------------------------------- storage

_RECORD = struct.Struct(">IIq")  # message length, CRC-32 of the message, enqueued time (ms)
_ANNOTATIONS = struct.Struct(">4sII24sq15sB")
_KEY_SEQUENCE = amqp.symbol("x-opt-sequence-number") + b"\x81"
_KEY_OFFSET = amqp.symbol("x-opt-offset") + b"\xa1"
_KEY_TIME = amqp.symbol("x-opt-enqueued-time") + b"\x83"
_SET_BY_US = ("x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time")
_SELECTOR = re.compile(
    r"amqp\.annotation\.x-opt-(sequence-number|offset|enqueued-time)\s*(>=?)\s*'([^']*)'"
)


class _Message(NamedTuple):
    """An event on its way in: its own annotations and the sections from its properties on."""

    annotations: Sequence[bytes]
    sections: bytes


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
        self, folder: Path, retention: Retention, clock: Callable[[], int], segment_bytes: int
    ) -> None:
        self.folder, self._retention, self._clock = folder, retention, clock
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._base = 0  # sequence number of the first event indexed; trails `first`
        self._offsets = array("q", [0])  # of every indexed event, and of the next one
        self._times = array("q")  # enqueued, ms; never decreasing
        self._segments: list[_Segment] = []
        self._waiting: set[_Reader] = set()
        self.wake: Callable[[set[_Reader]], None] = lambda readers: None
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
            while pos + _RECORD.size <= size:
                length, crc, enqueued = _RECORD.unpack_from(data, pos)
                end = pos + _RECORD.size + length
                if not length or end > size:
                    break
                if last and zlib.crc32(data[pos + _RECORD.size : end]) != crc:
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

    def append(self, messages: Iterable[_Message]) -> tuple[int, int]:
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
                chunks += (_RECORD.pack(len(message), zlib.crc32(message), now), message)
                offset += _RECORD.size + len(message)
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
            self.wake(waiting)
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
        self, reader: _Reader, sequence: int, count: int
    ) -> tuple[int, bytes, Sequence[int]] | None:
        """Up to `count` events from `sequence` on, or from the oldest kept if that is later.

        Returns:
            The sequence number of the first, its bytes and those of the following records, and
            the offset of each record with the end of the last. None if there is none yet: then
            `wake` is called with the reader once there is.
        """
        with self._lock:
            sequence = max(sequence, self.first)
            index = sequence - self._base
            available = min(count, len(self._times) - index)
            if available <= 0 or not self._segments:
                self._waiting.add(reader)
                return None
            at = bisect_right(self._segments, self._offsets[index], key=lambda s: s.start)
            segment = self._segments[at - 1]
            limit = self._offsets[index] + _CHUNK
            if at < len(self._segments):
                limit = min(limit, self._segments[at].start)
            stop = bisect_right(self._offsets, limit, index + 2, index + available + 1)
            bounds = self._offsets[index:stop]
            data = os.pread(segment.fd, bounds[-1] - bounds[0], bounds[0] - segment.start)
        return sequence, data, bounds

    def forget(self, reader: _Reader) -> None:
        with self._lock:
            self._waiting.discard(reader)

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
            try:
                value = int(text)
            except ValueError:
                raise AmqpError(
                    "amqp:invalid-field", f"The value {text!r} is not a number."
                ) from None
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
        return b"\0\x53\x71" + amqp.mapping(values, key=amqp.symbol)


def _incoming(message: bytes) -> tuple[_Message, str | None]:
    """A published message as it is stored, and its partition key.

    The header and delivery annotations end here, and so do annotations that only we may set.
    """
    own: list[bytes] = []
    kept: list[bytes] = []
    key = None
    for code, start, value, end in amqp.sections(message):
        if code == 0x72:
            for name, raw, content in amqp.map_pairs(message, value):
                if name not in _SET_BY_US:
                    own.append(raw)
                if name == "x-opt-partition-key" and content is not None:
                    key = content if isinstance(content, str) else str(content)
        elif code not in (0x70, 0x71):
            kept.append(message[start:end])
    return _Message(own, b"".join(kept)), key


_PATH = re.compile(
    r"([^/]+)(?:/consumergroups/([^/]+)(?=/partitions/))?(?:/partitions/([^/]+))?", re.IGNORECASE
)


def _split(path: str) -> tuple[str, str | None, str | None]:
    """The hub, consumer group and partition that a link's address names."""
    match = _PATH.fullmatch(path)
    hub, group, partition = match.groups() if match else (path, None, None)
    return hub.lower(), group and group.lower(), partition


class _Hub:
    """A hub's partitions, and what routes to them."""

    def __init__(self, name: str, created_ms: int) -> None:
        self.name, self.created_ms = name, created_ms
        self.partitions: list[PartitionLog] = []
        self._turn = 0

    def choose(self, key: str | None) -> PartitionLog:
        """The partition of a key (stable while none is added), or the next one in turn."""
        if key is not None:
            return self.partitions[zlib.crc32(key.encode()) % len(self.partitions)]
        self._turn += 1
        return self.partitions[(self._turn - 1) % len(self.partitions)]

    def get(self, partition: str) -> PartitionLog | None:
        known = partition.isdecimal() and int(partition) < len(self.partitions)
        return self.partitions[int(partition)] if known else None


# ------------------------------------------------------------------------------- connections


@dataclass(eq=False)
class _Session:
    connection: _Connection
    channel: int
    window: int  # transfers the client still takes
    next_outgoing: int = 0  # transfers sent
    next_delivery: int = 0
    next_incoming: int = 0
    links: dict[int, _Link] = field(default_factory=dict)

    def send(self, body: bytes) -> None:
        self.connection.send(amqp.frame(self.channel, body))

    def flow(self, *link: bytes) -> None:
        self.send(
            amqp.composite(
                0x13,
                amqp.uint(self.next_incoming), amqp.uint(_WINDOW),
                amqp.uint(self.next_outgoing), amqp.uint(_WINDOW),
                *(link or (NULL,) * 3), *(NULL,) * 4,
            )
        )  # fmt: skip


@dataclass(eq=False)
class _Link:
    """One end of a link, with the client's handle as ours too (the two are separate spaces)."""

    session: _Session
    handle: int

    def matches(self, hub: str, partition: str | None) -> bool:
        return False

    def detach(self, condition: str, description: str) -> None:
        self.session.links.pop(self.handle, None)
        self.closed()
        failure = amqp.error(condition, description)
        self.session.send(amqp.composite(0x16, amqp.uint(self.handle), amqp.TRUE, failure))

    def transfer(self, performative: amqp.Performative) -> None:
        raise AmqpError("amqp:not-allowed", "a transfer on a link that we send on")

    def flow(self, delivery_count: int, credit: int, drain: bool, echo: bool) -> None:
        """The client granted credit; only links that we send on care."""

    def pump(self) -> None:
        """Send what there is, as far as credit, the session's window and the socket allow."""

    def closed(self) -> None:
        """The link has ended, whoever ended it."""


@dataclass(eq=False)
class _Sender(_Link):
    """A link on which we send: credit, and what a transfer looks like on the wire."""

    credit: int = 0
    delivery_count: int = 0

    def __post_init__(self) -> None:
        handle = struct.pack(">I", self.handle)
        self._middle = (
            b"\x02\x00" + struct.pack(">H", self.session.channel)
            + b"\x00\x53\x14\xc0\x19\x0b" + b"\x70" + handle + b"\x70"
        )  # fmt: skip

    def flow(self, delivery_count: int, credit: int, drain: bool, echo: bool) -> None:
        self.credit = delivery_count + credit - self.delivery_count
        self.pump()
        if drain:
            self.delivery_count += self.credit
            self.credit = 0
        if drain or echo:
            session, count, left = self.session, self.delivery_count, self.credit
            session.flow(amqp.uint(self.handle), amqp.uint(count), amqp.uint(left))

    def split(self, delivery: int, message: bytes, room: int) -> list[bytes]:
        """The frames of a message, at most `room` bytes of it in each."""
        frames = []
        for start in range(0, len(message), room):
            part = message[start : start + room]
            last = _LAST if start + room >= len(message) else _MORE
            size = _TRANSFER.size + len(part)
            head = _TRANSFER.pack(size, self._middle, delivery, b"\xa0\x04", delivery, last)
            frames.append(head + part)
        return frames


# A settled transfer up to its payload; the delivery tag is the delivery id, each in 4 bytes.
_TRANSFER = struct.Struct(">I16sI2sI8s")
_LAST = b"\x43\x41\x42" + 5 * NULL
_MORE = b"\x43\x41\x41" + 5 * NULL


@dataclass(eq=False)
class _Replies(_Sender):
    """Where the answers of $cbs or $management go."""

    node: str = ""
    waiting: deque[bytes] = field(default_factory=deque)

    def pump(self) -> None:
        session = self.session
        while self.waiting and self.credit > 0:
            room = session.connection.room
            for part in self.split(session.next_delivery, self.waiting.popleft(), room):
                session.connection.send(part)
                session.next_outgoing += 1
                session.window -= 1
            session.next_delivery += 1
            self.delivery_count += 1
            self.credit -= 1


@dataclass(eq=False)
class _Reader(_Sender):
    """A consumer's link to a partition."""

    hub: str = ""
    group: str = ""
    log: PartitionLog = None  # type: ignore[assignment]
    next: int = 0
    epoch: int | None = None
    metrics: bool = False
    timer: asyncio.TimerHandle | None = None

    def matches(self, hub: str, partition: str | None) -> bool:
        return self.hub == hub and partition in (None, self.log.folder.name)

    @property
    def rivals(self) -> list[_Reader]:
        key = (self.hub, self.group, self.log.folder.name)
        return self.session.connection.server.readers[key]

    def claim(self) -> None:
        """Take a place among the readers of the partition and group, or raise AmqpError.

        One with an epoch drives out all others but those of a higher epoch.
        """
        highest = max((r.epoch for r in self.rivals if r.epoch is not None), default=None)
        if highest is not None and self.epoch is None:
            raise AmqpError(
                "amqp:link:stolen",
                f"At least one receiver for the endpoint is created with epoch of '{highest}', "
                "and so non-epoch receiver is not allowed. Either reconnect with a higher epoch, "
                "or make sure all epoch receivers are closed or disconnected.",
            )
        if highest is not None and self.epoch is not None and highest > self.epoch:
            raise AmqpError(
                "amqp:link:stolen",
                f"Receiver 'nil' with a higher epoch '{highest}' already exists. "
                f"Receiver 'nil' with epoch {self.epoch} cannot be created.",
            )
        if self.epoch is None and len(self.rivals) >= _READERS:
            raise AmqpError(
                "amqp:resource-limit-exceeded",
                "Exceeded the maximum number of allowed receivers per partition in a consumer "
                f"group which is {_READERS}.",
            )
        for rival in list(self.rivals) if self.epoch is not None else ():
            rival.detach(
                "amqp:link:stolen",
                f"New receiver 'nil' with higher epoch of '{self.epoch}' is created hence current "
                f"receiver 'nil' with epoch '{rival.epoch or 0}' is getting disconnected.",
            )
        self.rivals.append(self)

    def closed(self) -> None:
        self.log.forget(self)
        self.credit = 0
        if self.timer:
            self.timer.cancel()
        if self in self.rivals:
            self.rivals.remove(self)

    def pump(self) -> None:
        session, connection = self.session, self.session.connection
        faults = connection.server.faults
        while self.credit > 0 and session.window > 0 and not connection.blocked:
            if self.timer or any(self.matches(*where) for where in faults.stalled):
                return
            count = 1 if faults.delay or faults.cut else min(self.credit, session.window)
            chunk = self.log.read(self, self.next, count)
            if chunk is None:
                return
            sequence, data, bounds = chunk
            count = len(bounds) - 1
            output, frames = self._transfers(data, bounds)
            if faults.cut and any(self.matches(*where) for where in faults.cut):
                faults.cut = frozenset()
                connection.send(output[: len(output) // 2])
                connection.close()
                return
            session.next_outgoing += frames
            session.next_delivery += count
            # One message may overdraw a window that its frames do not fit; clients count on.
            session.window -= frames
            self.delivery_count += count
            self.credit -= count
            self.next = sequence + count
            connection.send(output)
            if faults.delay:
                self.timer = asyncio.get_running_loop().call_later(faults.delay, self._resume)

    def _resume(self) -> None:
        self.timer = None
        self.pump()

    def _transfers(self, data: bytes, bounds: Sequence[int]) -> tuple[bytes, int]:
        """The frames of a row of stored records, and how many they are."""
        before = self.log.metrics() if self.metrics else b""
        pack, middle, skip = _TRANSFER.pack, self._middle, _RECORD.size
        fixed, room = _TRANSFER.size + len(before), self.session.connection.room
        delivery, frames = self.session.next_delivery, 0
        output: list[bytes] = []
        start = bounds[0]
        pos = 0
        for bound in bounds[1:]:
            end = bound - start
            size = end - pos - skip
            if fixed + size <= room + _TRANSFER.size:
                head = pack(fixed + size, middle, delivery, b"\xa0\x04", delivery, _LAST)
                output += (head, before, data[pos + skip : end])
                frames += 1
            else:
                parts = self.split(delivery, before + data[pos + skip : end], room)
                output += parts
                frames += len(parts)
            delivery += 1
            pos = end
        return b"".join(output), frames


@dataclass(eq=False)
class _Receiver(_Link):
    """A link on which the client sends: the parts of a message that has not ended yet."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    delivery: int = 0
    form: int = 0
    settled: bool = False
    received: int = 0

    def __post_init__(self) -> None:
        self.limit = self.session.connection.server.max_message_size

    def grant(self) -> None:
        count, credit = amqp.uint(self.received), amqp.uint(_CREDIT)
        self.session.flow(amqp.uint(self.handle), count, credit)

    def transfer(self, performative: amqp.Performative) -> None:
        fields = performative.fields
        if fields[1] is not None:
            self.delivery, self.form = fields[1], fields[3] or 0
        self.settled = self.settled or bool(fields[4])
        self.size += len(performative.payload)
        if self.size <= self.limit:
            self.parts.append(performative.payload)
        else:
            self.parts.clear()
        if fields[5]:
            return
        if not fields[9]:  # aborted
            outcome = self._outcome(b"".join(self.parts))
            if not self.settled:
                first = amqp.uint(self.delivery)
                self.session.send(
                    amqp.composite(0x15, amqp.TRUE, first, NULL, amqp.TRUE, outcome, NULL)
                )
        self.parts, self.size, self.settled = [], 0, False
        self.received += 1
        if self.received % (_CREDIT // 2) == 0:
            self.grant()

    def _outcome(self, message: bytes) -> bytes:
        try:
            if self.size > self.limit:
                raise AmqpError(
                    "amqp:link:message-size-exceeded",
                    f"The received message (delivery-id:{self.delivery}, size:{self.size} bytes) "
                    f"exceeds the limit ({self.limit} bytes) currently allowed on the link.",
                )
            self.accept(message)
        except AmqpError as refusal:
            failure = amqp.error(refusal.condition, refusal.description)
        except OSError as refusal:
            failure = amqp.error("amqp:internal-error", str(refusal))
        except amqp.DECODE_ERRORS as refusal:
            failure = amqp.error("amqp:decode-error", str(refusal))
        else:
            return amqp.composite(0x24)
        return amqp.composite(0x25, failure)

    def accept(self, message: bytes) -> None:
        """Take a whole message; AmqpError and OSError refuse it."""


@dataclass(eq=False)
class _Writer(_Receiver):
    """A producer's link to a hub, or to one partition."""

    hub: _Hub = None  # type: ignore[assignment]
    log: PartitionLog | None = None

    def matches(self, hub: str, partition: str | None) -> bool:
        mine = self.log and self.log.folder.name
        return self.hub.name.lower() == hub and partition in (None, mine)

    def accept(self, message: bytes) -> None:
        event, key = _incoming(message)
        events = [event]
        if self.form == amqp.BATCH_FORMAT:
            events = []
            for code, _, value, _ in amqp.sections(message):
                if code == 0x75:
                    events.append(_incoming(amqp.decode(message, value)[0])[0])
        if events:
            (self.log or self.hub.choose(key)).append(events)


@dataclass(eq=False)
class _Requests(_Receiver):
    """Where the requests to $cbs or $management come from."""

    node: str = ""

    def accept(self, message: bytes) -> None:
        ident, properties, value = NULL, {}, None
        for code, start, at, _ in amqp.sections(message):
            if code == 0x73:
                ident = amqp.read_performative(message[start:]).raw[0]
            elif code == 0x74:
                properties = amqp.decode(message, at)[0]
            elif code == 0x77:
                value = amqp.decode(message, at)[0]
        status, description, answer = 200, "OK", NULL
        try:
            if self.node == "$cbs":
                self.session.connection.put_token(value)
                status, description = 202, "Accepted"
            else:
                answer = self.session.connection.server.manage(properties)
        except _Denied as denied:
            status, description = denied.args
        outcome = {
            "status-code": amqp.integer(status),
            "status-description": amqp.string(description),
        }
        reply = amqp.composite(0x73, *(NULL,) * 5, ident, *(NULL,) * 7)
        reply += b"\0\x53\x74" + amqp.mapping(outcome) + b"\0\x53\x77" + answer
        for link in self.session.links.values():
            if isinstance(link, _Replies) and link.node == self.node:
                link.waiting.append(reply)
                link.pump()
                return


class _Connection(asyncio.Protocol):
    """A client's connection: framing, sessions and links."""

    def __init__(self, server: EmbeddedHub) -> None:
        self.server = server
        self.room = 512 - _TRANSFER.size  # payload bytes that a frame holds
        self.blocked = False  # the socket takes no more, or must not be given more
        self._closing = False
        self._buffer = bytearray()
        self._reading = self._dialogue()
        self._sessions: dict[int, _Session] = {}
        self._opened = False
        self._granted: dict[str, float] = {}  # path to the time until which it may be used
        self._beat: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peer = "{}:{}".format(*transport.get_extra_info("peername"))
        transport.set_write_buffer_limits(high=4 * _CHUNK)
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self.blocked = True
        self.server.connections.discard(self)
        if self._beat:
            self._beat.cancel()
        for link in self.links():
            link.closed()
        self._sessions.clear()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = self._closing
        for link in self.links():
            link.pump()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._buffer += data
        try:
            next(self._reading)
        except Exception as failure:
            surprise = not isinstance(failure, amqp.DECODE_ERRORS)
            _logger.warning(
                "closing the connection from %s: %s", self._peer, failure, exc_info=surprise
            )
            if self._opened:
                condition = getattr(failure, "condition", "amqp:decode-error")
                self.send(amqp.frame(0, amqp.composite(0x18, amqp.error(condition, str(failure)))))
            self.close()

    # writing

    def send(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._closing = self.blocked = True
        self._transport.close()

    def abort(self) -> None:
        self._closing = self.blocked = True
        self._transport.abort()

    def links(self) -> list[_Link]:
        return [link for session in self._sessions.values() for link in session.links.values()]

    # reading

    def _dialogue(self) -> Generator[None, None, None]:
        """What the client says, in order; yields where the rest of it has not come yet."""
        yield from self._header(amqp.SASL_HEADER)
        self.send(amqp.frame(0, amqp.composite(0x40, amqp.array(0xB3, b"ANONYMOUS")), kind=1))
        _, body = yield from self._frame(kind=1)
        code, fields, _, _ = amqp.read_performative(body)
        accepted = (code, fields[0]) == (0x41, "ANONYMOUS")
        outcome = amqp.composite(0x44, amqp.ubyte(0 if accepted else 1), NULL)
        self.send(amqp.frame(0, outcome, kind=1))
        if not accepted:
            raise AmqpError("amqp:unauthorized-access", "SASL ANONYMOUS is all that is offered")
        yield from self._header(amqp.AMQP_HEADER)
        while True:
            channel, body = yield from self._frame()
            if body:  # else it is a heartbeat
                self._performative(channel, amqp.read_performative(body))

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _header(self, expected: bytes) -> Generator[None, None, None]:
        got = yield from self._take(8)
        self.send(expected)
        if got != expected:
            raise AmqpError("amqp:connection:framing-error", f"expected {expected!r}, got {got!r}")

    def _frame(self, kind: int = 0) -> Generator[None, None, tuple[int, bytes]]:
        """The next frame's channel and body."""
        header = yield from self._take(8)
        size, doff, got, channel = struct.unpack(">IBBH", header)
        if not 8 <= 4 * doff <= size <= _MAX_FRAME or got != kind:
            raise AmqpError(
                "amqp:connection:framing-error",
                f"a frame of type {got}, {size} bytes, its body at {4 * doff}",
            )
        rest = yield from self._take(size - 8)
        return channel, rest[4 * doff - 8 :]

    def _performative(self, channel: int, performative: amqp.Performative) -> None:
        code, fields, _, _ = performative
        if code == 0x10:
            self._open(fields)
        elif not self._opened:
            raise AmqpError("amqp:not-allowed", "the first frame must be an open")
        elif code == 0x11:
            self._begin(channel, fields)
        elif code == 0x18:
            self.send(amqp.frame(0, amqp.composite(0x18, NULL)))
            self.close()
        elif channel in self._sessions:  # the SDK detaches its links after ending their session
            self._in_session(self._sessions[channel], performative)

    def _open(self, fields: list[Any]) -> None:
        if self._opened:
            raise AmqpError("amqp:not-allowed", "a second open")
        self._opened = True
        self.room = max(512, min(fields[2] or _MAX_FRAME, 1 << 24)) - _TRANSFER.size
        self.send(
            amqp.frame(
                0,
                amqp.composite(
                    0x10, amqp.string("embedded-hub"), NULL, amqp.uint(_MAX_FRAME),
                    b"\x60\xff\xff", *(NULL,) * 6,
                ),
            )
        )  # fmt: skip
        if fields[4]:
            self._heartbeat(fields[4] / 2000)

    def _heartbeat(self, seconds: float) -> None:
        if self._beat:
            self.send(amqp.EMPTY_FRAME)
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(max(seconds, 0.05), self._heartbeat, seconds)

    def _begin(self, channel: int, fields: list[Any]) -> None:
        if channel in self._sessions:
            raise AmqpError("amqp:not-allowed", f"a second begin on channel {channel}")
        session = _Session(self, channel, window=fields[2], next_incoming=fields[1])
        self._sessions[channel] = session
        session.send(
            amqp.composite(
                0x11, b"\x60" + struct.pack(">H", channel), amqp.uint(0), amqp.uint(_WINDOW),
                amqp.uint(_WINDOW), amqp.uint(255), *(NULL,) * 3,
            )
        )  # fmt: skip

    def _in_session(self, session: _Session, performative: amqp.Performative) -> None:
        code, fields, raw, _ = performative
        if code == 0x12:
            self._attach(session, fields, raw)
        elif code == 0x13:
            session.window = (fields[0] or 0) + fields[1] - session.next_outgoing
            if fields[4] is None:
                for link in list(session.links.values()):
                    link.pump()
            elif fields[4] in session.links and fields[6] is not None:
                count = fields[5] or 0
                session.links[fields[4]].flow(count, fields[6], bool(fields[8]), bool(fields[9]))
        elif code == 0x14:
            session.next_incoming += 1
            if fields[0] in session.links:  # else it was under way when we detached
                session.links[fields[0]].transfer(performative)
        elif code == 0x16:
            ended = session.links.pop(fields[0], None)
            if ended:  # else this answers a detach of ours
                ended.closed()
                session.send(amqp.composite(0x16, amqp.uint(fields[0]), amqp.TRUE, NULL))
        elif code == 0x17:
            for link in session.links.values():
                link.closed()
            del self._sessions[session.channel]
            session.send(amqp.composite(0x17, NULL))
        elif code != 0x15:
            raise AmqpError("amqp:decode-error", f"no performative has the code {code}")

    def _attach(self, session: _Session, fields: list[Any], raw: list[bytes]) -> None:
        handle, reads = fields[1], bool(fields[2])
        if handle in session.links or handle > 255:
            raise AmqpError("amqp:session:handle-in-use", f"the handle {handle} is not free")
        ends, refusal = raw[5:7], None
        try:
            session.links[handle] = link = self._link(session, fields)
        except AmqpError as failure:
            # As the service does it: an attach without source and target, then a detach.
            link, ends, refusal = _Link(session, handle), [NULL, NULL], failure
        session.send(
            amqp.composite(
                0x12, raw[0], raw[1], amqp.FALSE if reads else amqp.TRUE, amqp.ubyte(int(reads)),
                amqp.ubyte(0), *ends, NULL, NULL, amqp.uint(0) if reads else NULL,
                amqp.ulong(self.server.max_message_size), NULL, NULL, NULL,
            )
        )  # fmt: skip
        if refusal:
            link.detach(refusal.condition, refusal.description)
        elif isinstance(link, _Receiver):
            link.grant()

    def _link(self, session: _Session, fields: list[Any]) -> _Link:
        """The link that an attach asks for; AmqpError says why there is none."""
        handle, reads, server = fields[1], bool(fields[2]), self.server
        end = fields[5] if reads else fields[6]
        if not isinstance(end, amqp.Described) or not end.value:
            raise AmqpError("amqp:invalid-field", "The link has no address.")
        path = re.sub(r"^\w+://[^/]*", "", str(end.value[0])).strip("/")
        node = path.rpartition("/")[2].lower()
        if node in ("$cbs", "$management"):
            return (_Replies if reads else _Requests)(session, handle, node=node)
        name, group, partition = _split(path)
        server.faults.check_attach(name)
        hub = server.hubs.get(name)
        log = hub.get(partition) if hub and partition else None
        groups = server.consumer_groups
        if not hub or (partition and not log) or (group and groups and group not in groups):
            raise AmqpError(
                "amqp:not-found",
                f"The messaging entity 'sb://127.0.0.1/{path}' could not be found.",
            )
        self._authorize(path)
        if not reads:
            return _Writer(session, handle, hub=hub, log=log)
        if not group or not log:
            raise AmqpError("amqp:not-allowed", "Events are read from a partition of a group.")
        selector = "amqp.annotation.x-opt-offset > '-1'"
        filters = end.value[7] if len(end.value) > 7 else None
        for content in (filters or {}).values():
            selector = str(content.value if isinstance(content, amqp.Described) else content)
        reader = _Reader(
            session, handle, hub=name, group=group, log=log, next=log.find(selector),
            epoch=(fields[13] or {}).get("com.microsoft:epoch"),
            metrics=_RUNTIME_METRIC in (fields[12] or ()),
        )  # fmt: skip
        reader.claim()
        return reader

    # access

    def put_token(self, token: Any) -> None:
        """Note what a token grants."""
        path, until = self.server.check_token(token)
        self._granted[path] = until

    def _authorize(self, path: str) -> None:
        if self.server.key is None:
            return
        path, now = path.lower() + "/", time.time()
        granted = [p for p, until in self._granted.items() if now < until]
        if not any(not p or path.startswith(p + "/") for p in granted):  # "" is the namespace
            raise AmqpError(
                "amqp:unauthorized-access",
                "Unauthorized access. 'Listen' or 'Send' claim(s) are required.",
            )


# ------------------------------------------------------------------------------------ faults


@dataclass
class _Faults:
    """What is to go wrong. Places are (hub, partition or None for all)."""

    # Sets are replaced, never changed: any thread sets a fault, and the server's iterates.
    delay: float = 0.0
    stalled: frozenset[tuple[str, str | None]] = frozenset()
    cut: frozenset[tuple[str, str | None]] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)  # hub to condition
    attaches: tuple[int, str] = (0, _BUSY)

    def check_attach(self, hub: str) -> None:
        left, condition = self.attaches
        if hub not in self.refused and left <= 0:
            return
        if hub not in self.refused:
            self.attaches = (left - 1, condition)
        raise AmqpError(
            self.refused.get(hub, condition),
            "The service is unable to process the request; please retry the operation.",
        )


class EmbeddedHub:
    """Event Hubs on 127.0.0.1, for development and tests.

    ```python
    with EmbeddedHub(folder, {"defender": 4}) as hub:
        hub.publish("defender", [b"{}"])
        client = EventHubConsumerClient.from_connection_string(
            hub.connection_string("defender"), "$Default")
    ```

    Names of hubs and consumer groups are compared without case. Every method may be called from
    any thread. A stopped hub stays stopped; a new one on the same folder goes on where it ended.

    Args:
        folder: Where the events are kept. One process at a time may use it.
        hubs: Name to number of partitions. Hubs and partitions found in the folder are served too.
        port: 0 chooses a free one at `start`, then found in `port`.
        key: The shared access key that clients must have signed their tokens with, under any
            policy name; None lets everybody in.
        retention: What a partition keeps; everything if not given.
        consumer_groups: Those that exist ($Default always does); None: any name will do.
        max_message_size: Bytes of one publication, a batch being one.
        clock: Milliseconds since 1970, for the enqueued time and retention by age.
        segment_bytes: Size from which a partition's file is followed by a new one; retention
            gives disk space back by whole files.

    Raises:
        BlockingIOError: Another process uses the folder.
        ValueError: A hub's name is not one that Event Hubs allows.
    """

    def __init__(
        self,
        folder: Path | str,
        hubs: Mapping[str, int] | None = None,
        *,
        port: int = 0,
        key: str | None = None,
        retention: Retention | None = None,
        consumer_groups: Iterable[str] | None = None,
        max_message_size: int = 1 << 20,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        segment_bytes: int = 64 << 20,
    ) -> None:
        self.folder, self.port, self.key = Path(folder), port, key
        self.max_message_size = max_message_size
        groups = None if consumer_groups is None else {g.lower() for g in consumer_groups}
        self.consumer_groups = None if groups is None else groups | {"$default"}
        self.hubs: dict[str, _Hub] = {}
        self.connections: set[_Connection] = set()
        self.readers: defaultdict[tuple[str, str, str], list[_Reader]] = defaultdict(list)
        self.faults = _Faults()
        self._log_options = (retention or Retention(), clock, segment_bytes)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._stopped: asyncio.Event | None = None
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = [stamp.parent.name for stamp in self.folder.glob("*/created")]
            counts = {name.lower(): count for name, count in (hubs or {}).items()}
            for name in {name.lower(): name for name in (*(hubs or {}), *found)}.values():
                self._open_hub(name, counts.get(name.lower(), 1))
        except BaseException as failure:
            self.stop()
            if isinstance(failure, BlockingIOError):
                text = "the folder is in use by another hub"
                raise BlockingIOError(failure.errno, text, str(folder)) from None
            raise

    def _open_hub(self, name: str, partitions: int) -> None:
        if not re.fullmatch(r"[A-Za-z0-9](?:[\w.-]{0,254}[A-Za-z0-9])?", name, re.ASCII):
            raise ValueError(
                f"{name!r} cannot name a hub: letters, digits, '.', '-' and '_', at most 256, "
                "the first and last a letter or digit"
            )
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        stamp = folder / "created"
        if not stamp.exists():
            fd = os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(fd, b"%d" % self._clock())
            os.close(fd)
        found = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        hub = self.hubs[name.lower()] = _Hub(name, int(stamp.read_text() or 0))
        self._grow(hub, max(partitions, 1, *(number + 1 for number in found)))

    def _grow(self, hub: _Hub, total: int) -> None:
        for number in range(len(hub.partitions), total):
            log = PartitionLog(self.folder / hub.name / str(number), *self._log_options)
            log.wake = self._wake
            hub.partitions.append(log)

    def _hub(self, name: str) -> _Hub:
        try:
            return self.hubs[name.lower()]
        except KeyError:
            raise KeyError(f"no hub is named {name!r}; there are {sorted(self.hubs)}") from None

    def _log(self, hub: str, partition: str | int) -> PartitionLog:
        log = self._hub(hub).get(str(partition))
        if log is None:
            raise KeyError(f"the hub {hub!r} has no partition {partition!r}")
        return log

    # running

    def start(self) -> EmbeddedHub:
        """Serve from a thread of our own until `stop`.

        Raises:
            PortInUseError: The port is taken.
        """
        self._bind()
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self.serve(ready)), name="embedded-hub", daemon=True
        )
        self._thread.start()
        ready.result()
        return self

    async def serve(self, ready: Future[None] | None = None) -> None:
        """Serve in the running loop until `stop` is called; `ready` is set once clients may come.

        Raises:
            PortInUseError: The port is taken.
        """
        try:
            self._bind()
            assert self._socket is not None
            self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
            self._loop_thread = threading.get_ident()
            server = await self._loop.create_server(lambda: _Connection(self), sock=self._socket)
        except BaseException as failure:
            if ready:
                ready.set_exception(failure)
            raise
        if ready:
            ready.set_result(None)
        try:
            await self._stopped.wait()
        finally:
            server.close()
            farewell = amqp.composite(0x18, amqp.error("amqp:connection:forced", "shutting down"))
            for connection in list(self.connections):
                connection.send(amqp.frame(0, farewell))
                connection.close()
            await asyncio.sleep(0)  # lets what is written go out
            for connection in list(self.connections):
                connection.abort()
            await asyncio.sleep(0)
            self._loop = None
            self._close()

    def _bind(self) -> None:
        if self._socket is not None:
            return
        # asyncio turns Nagle's delay (40 ms) off only where the protocol is given.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(128)
        except OSError as failure:
            listener.close()
            self._close()  # nobody else would: no `with` block is entered
            if failure.errno == errno.EADDRINUSE:
                raise PortInUseError(self.port) from None
            raise
        self._socket, self.port = listener, listener.getsockname()[1]

    def stop(self) -> None:
        """Close every connection and file; called again, it does nothing."""
        loop, stopped = self._loop, self._stopped
        if loop is not None and stopped is not None:
            loop.call_soon_threadsafe(stopped.set)
        if self._thread is not None:
            self._thread.join(10)
        if loop is None:
            self._close()

    def _close(self) -> None:
        for hub in self.hubs.values():
            for log in hub.partitions:
                log.close()
        if self._socket is not None:
            self._socket.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> EmbeddedHub:
        return self.start()

    def __exit__(self, *args: object) -> None:
        self.stop()

    def _in_loop(self, action: Callable[[], _T]) -> _T:
        """Run in the server's thread, and wait for it."""
        loop = self._loop
        if loop is None or threading.get_ident() == self._loop_thread:
            return action()

        async def run() -> _T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(10)

    def _wake(self, readers: set[_Reader]) -> None:
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._pump, readers)

    @staticmethod
    def _pump(links: Iterable[_Link]) -> None:
        for link in links:
            link.pump()

    def _links(self) -> Iterator[_Link]:
        for connection in list(self.connections):
            yield from connection.links()

    # using it from the inside

    def connection_string(self, hub: str, key_name: str = "alertbeam") -> str:
        """What azure-eventhub's `from_connection_string` takes; needs no `eventhub_name`."""
        return (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName={key_name};"
            f"SharedAccessKey={self.key or 'any'};UseDevelopmentEmulator=true;"
            f"EntityPath={self._hub(hub).name}"
        )

    def publish(
        self,
        hub: str,
        bodies: Iterable[bytes | str],
        partition: str | int | None = None,
        partition_key: str | None = None,
    ) -> Published:
        """Append events without a client, as one batch: all to one partition.

        That is `partition`, or the key's, or the next one in turn.

        Raises:
            KeyError: There is no such hub or partition.
            OSError: The events could not be written; none is stored.
            ValueError: A body is larger than `max_message_size`, or there is none.
        """
        own: list[bytes] = []
        if partition_key is not None:
            own.append(amqp.symbol("x-opt-partition-key") + amqp.string(partition_key))
        messages = []
        for body in bodies:
            data = body.encode() if isinstance(body, str) else body
            if len(data) > self.max_message_size:
                raise ValueError(f"an event of {len(data)} bytes; {self.max_message_size} may be")
            messages.append(_Message(own, b"\0\x53\x75" + amqp.binary(data)))
        place = self._hub(hub)
        log = place.choose(partition_key) if partition is None else self._log(hub, partition)
        return Published(log.folder.name, *log.append(messages))

    def add_partitions(self, hub: str, total: int) -> None:
        """Grow a running hub to `total` partitions.

        Raises:
            ValueError: It has more already; the service cannot take partitions away either.
        """
        place = self._hub(hub)
        if total < len(place.partitions):
            raise ValueError(f"{hub!r} has {len(place.partitions)} partitions already")
        self._grow(place, total)

    def partition_info(self, hub: str, partition: str | int) -> PartitionInfo:
        return self._log(hub, partition).info()

    # faults on demand

    def drop_connections(self) -> int:
        """Reset every connection; how many there were."""

        def act() -> int:
            connections = list(self.connections)
            for connection in connections:
                connection.abort()
            return len(connections)

        return self._in_loop(act)

    def detach_links(
        self,
        hub: str,
        partition: str | int | None = None,
        condition: str = "amqp:link:detach-forced",
        description: str = "The link was detached on demand.",
    ) -> int:
        """Detach the producers and consumers of a hub, or of one partition; how many."""
        where = self._where(hub, partition)

        def act() -> int:
            links = [link for link in self._links() if link.matches(*where)]
            for link in links:
                link.detach(condition, description)
            return len(links)

        return self._in_loop(act)

    def refuse_attaches(self, count: int, condition: str = _BUSY) -> None:
        """Refuse the next `count` producers and consumers that attach."""
        self.faults.attaches = (count, condition)

    def refuse_hub(self, hub: str, condition: str = _BUSY) -> None:
        """Detach all clients of a hub and refuse every attach and management request to it."""
        self.faults.refused = {**self.faults.refused, self._where(hub)[0]: condition}
        self.detach_links(hub, None, condition, "The hub is refused on demand.")

    def accept_hub(self, hub: str) -> None:
        """End `refuse_hub`."""
        name = self._where(hub)[0]
        self.faults.refused = {k: v for k, v in self.faults.refused.items() if k != name}

    def slow_down(self, seconds: float) -> None:
        """Send one event at a time to each reader, with a pause after it; 0 ends it."""
        self.faults.delay = seconds

    def cut_frame(self, hub: str, partition: str | int | None = None) -> None:
        """Send only half of the next event to a reader, then close its connection; once."""
        self.faults.cut |= {self._where(hub, partition)}

    def stall(self, hub: str, partition: str | int | None = None) -> None:
        """Silently send no more events to readers, their connections staying up."""
        self.faults.stalled |= {self._where(hub, partition)}

    def heal(self) -> None:
        """End every fault, and send what was held back."""
        self.faults = _Faults()
        self._in_loop(lambda: self._pump(self._links()))

    def _where(self, hub: str, partition: str | int | None = None) -> tuple[str, str | None]:
        if partition is not None:
            self._log(hub, partition)
        return self._hub(hub).name.lower(), None if partition is None else str(partition)

    # what connections ask

    def check_token(self, token: Any) -> tuple[str, float]:
        """The path that a token grants, and until when (seconds since 1970)."""
        if self.key is None:
            return "", float("inf")
        scheme, _, rest = str(token).partition(" ")
        parts = dict(part.partition("=")[::2] for part in rest.split("&"))
        if scheme != "SharedAccessSignature" or not {"sr", "sig", "se"} <= parts.keys():
            raise _Denied(401, "MalformedToken: The token is not a shared access signature.")
        # Signed is the text as the token gives it: clients quote in upper or lower case.
        signed = f"{parts['sr']}\n{parts['se']}".encode()
        digest = hmac.new(self.key.encode(), signed, hashlib.sha256).digest()
        given = unquote_plus(parts["sig"]).encode()
        if not hmac.compare_digest(base64.b64encode(digest), given):
            raise _Denied(401, "InvalidSignature: The token has an invalid signature.")
        until = float(parts["se"])
        if until <= time.time():
            when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(until))
            raise _Denied(401, f"ExpiredToken: The token is expired. Expiration time: '{when}'")
        resource = unquote_plus(parts["sr"]).lower()
        return resource.partition("://")[2].partition("/")[2].strip("/"), until

    def manage(self, request: Mapping[str, Any]) -> bytes:
        """Answer a management request with an encoded map."""
        name, what = (
            str(request.get("name")).lower(),
            (request.get("operation"), request.get("type")),
        )
        path, _ = self.check_token(request.get("security_token"))
        if path and path != name:
            raise _Denied(401, "Unauthorized access. 'Manage' claim is required.")
        if name in self.faults.refused:
            raise _Denied(503, "The hub is refused on demand.")
        hub = self.hubs.get(name)
        log = hub.get(str(request.get("partition"))) if hub else None
        if hub and what == ("READ", "com.microsoft:eventhub"):
            ids = [log.folder.name.encode() for log in hub.partitions]
            return amqp.mapping(
                {
                    "name": amqp.string(hub.name),
                    "created_at": amqp.timestamp(hub.created_ms),
                    "partition_count": amqp.integer(len(ids)),
                    "partition_ids": amqp.array(0xB1, *ids),
                    "georeplication_factor": amqp.integer(1),  # the Go client wants it
                }
            )
        if hub and log and what == ("READ", "com.microsoft:partition"):
            info = log.info()
            return amqp.mapping(
                {
                    "name": amqp.string(hub.name),
                    "partition": amqp.string(info.partition),
                    "begin_sequence_number": amqp.long(info.begin_sequence_number),
                    "last_enqueued_sequence_number": amqp.long(info.last_sequence_number),
                    "last_enqueued_offset": amqp.string(info.last_offset),
                    "last_enqueued_time_utc": amqp.timestamp(info.last_enqueued_ms),
                    "is_partition_empty": amqp.TRUE if info.is_empty else amqp.FALSE,
                }
            )
        raise _Denied(404, f"The messaging entity 'sb://127.0.0.1/{name}' could not be found.")
