"""Reads all partitions of a hub side by side in one background thread, ahead of the pipeline.

Beam's local runner asks the partitions one after another; whoever waits on one holds back the
others. So one thread waits on all sockets at once and keeps what came; the pipeline takes it from
there. What may come is bounded by the credit that the hub is granted, so that every socket is
read to its end, and the end of a link is seen at once, however much waits. A `ReadSession`
outlives the shifts of a run: links stay open.

A link that another reader stole by its epoch is opened again, at the next event. Against another
alertbeam's claim the partition is defended (`claim.py`), against anybody else once: who takes it
again means it, and is waited for.
"""

from __future__ import annotations

import contextlib
import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import msgspec

from transforms.read.access import EventHubsAccess
from transforms.read.claim import alertbeam, claims, defend
from transforms.read.frames import Event
from transforms.read.sdk import HubError, PartitionLink
from transforms.secrets import SecretError

__all__ = ["PartitionStatus", "ReadSession", "close_session", "session"]

_LOGGER = logging.getLogger(__name__)

_BUFFER_BYTES = 8 * 1024 * 1024
_EVENT_BYTES = 250  # what an event takes besides its body
_TYPICAL_BYTES = 4096  # an event, until some have come
_MOST = 2  # times its bound a buffer may hold, where events suddenly are larger; then TCP waits
_OPEN_SECONDS = 30.0
_BACKOFF_SECONDS = (0.2, 30.0)
_TICK_SECONDS = 1.0
_OPENERS = 8
_TRUCE_SECONDS = 60.0  # without a theft, until a partition is defended against anybody again


class PartitionStatus(msgspec.Struct):
    """Where reading stands. Sequence numbers; times in ms; `last_*` None until the hub told;
    `taken` counts the events that the pipeline took."""

    source: str
    partition: str
    next: int
    last_sequence: int | None = None
    last_enqueued_ms: int | None = None
    read_enqueued_ms: int | None = None
    taken: int = 0
    connected: bool = False
    error: str = ""

    @property
    def lag(self) -> int | None:
        """Events enqueued and not yet handed over; None while unknown."""
        return None if self.last_sequence is None else max(0, self.last_sequence - self.next + 1)


class _Feed:
    """One partition: its link, and what came and was not taken yet."""

    def __init__(self, source: str, partition: str, head: int) -> None:
        self.status = PartitionStatus(source, partition, head)
        self.head = head  # the sequence number that the pipeline takes next
        self.fetched = head  # the one that the link brings next
        self.events: deque[Event] = deque()
        self.bytes = 0
        self.link: PartitionLink | None = None
        self.opening = False
        self.size = _TYPICAL_BYTES  # of an event, about; rather too large
        self.starved = False  # the hub has no credit left
        self.paused = False  # nor is the socket read
        self.wanted = True
        self.failures = 0
        self.retry_at = 0.0
        self.opened = 0.0  # monotonic, of the link there is
        self.heard = 0.0  # monotonic: when it was opened, or last brought something
        self.defending = False  # before the next link is opened
        self.defend_from = 0.0  # monotonic, against anybody
        self.generation = 0  # grows at every seek: a link opened for an older one is dropped
        self.link_generation = 0


class HubReader(threading.Thread):
    """Reads one hub. Its failures (a namespace that is down, a wrong key) are its own.

    defends: whether its partitions are this run's alone, as consumer group.
    """

    def __init__(
        self,
        source: str,
        access: EventHubsAccess,
        changed: threading.Condition,
        buffer_bytes: int | None = None,
        defends: bool = False,
    ) -> None:
        super().__init__(name=f"read {source}", daemon=True)
        self._defends = defends
        self._buffer_bytes = buffer_bytes or _BUFFER_BYTES  # a partition's, at most
        self._source = source
        self._access = access
        self._changed = changed  # also guards every feed
        self._feeds: dict[str, _Feed] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._openers = ThreadPoolExecutor(_OPENERS, thread_name_prefix="open partition")
        self._client: Any = None
        self._client_lock = threading.Lock()
        self._stopped = False

    def seek(self, partition: str, sequence: int) -> None:
        """Read `partition` from `sequence` on; keeps what is buffered if that is where it is."""
        with self._changed:
            feed = self._feeds.get(partition)
            if feed is None:
                feed = self._feeds[partition] = _Feed(self._source, partition, sequence)
            elif feed.head == sequence and feed.wanted:
                return
            else:
                feed.wanted = True
                feed.head = feed.fetched = sequence
                feed.status.next = sequence
                feed.events.clear()
                feed.bytes = 0
                feed.generation += 1
        self._wake()

    def release(self, partition: str) -> None:
        """Stop reading a partition, until it is sought again."""
        with self._changed:
            feed = self._feeds[partition]
            feed.wanted = False
            feed.events.clear()
            feed.bytes = 0
            feed.generation += 1
        self._wake()

    def take(self, partition: str, stop: int, events: int, size: int) -> list[Event]:
        """Up to `events` events or about `size` bytes, in order, below sequence number `stop`."""
        taken: list[Event] = []
        with self._changed:
            feed = self._feeds[partition]
            buffer = feed.events
            left = size
            while buffer and len(taken) < events and left > 0 and buffer[0].sequence < stop:
                event = buffer.popleft()
                left -= len(event.body)
                taken.append(event)
            if taken:
                feed.bytes -= size - left + len(taken) * _EVENT_BYTES
                feed.head = taken[-1].sequence + 1
                feed.status.next = feed.head
                feed.status.taken += len(taken)
                feed.status.read_enqueued_ms = taken[-1].enqueued_ms
            wake = (feed.starved and feed.bytes < self._buffer_bytes // 2) or feed.paused
        if wake:
            self._wake()
        return taken

    def wait(self, partition: str, stop: int, timeout: float) -> Literal["ready", "past", "late"]:
        """Until `take` below `stop` has something (ready), the partition stands at or past it
        (past: what was below is not in the hub any more), or `timeout` seconds went by (late)."""
        buffer = self._feeds[partition].events
        with self._changed:
            if not self._changed.wait_for(lambda: buffer, timeout):
                return "late"
            return "ready" if buffer[0].sequence < stop else "past"

    def at(self, partition: str) -> int | None:
        """The sequence number that is taken next; None if the partition is not read."""
        with self._changed:
            feed = self._feeds.get(partition)
            return feed.head if feed is not None and feed.wanted else None

    def waiting(self, partition: str) -> bool:
        """Whether anything of this partition waits to be taken."""
        with self._changed:
            return bool(self._feeds[partition].events)

    def quiet(self, partition: str, seconds: float) -> bool:
        """Whether the partition is read to its end, as far as the hub told, and has been silent
        for so long: nothing that was enqueued before is still to come."""
        with self._changed:
            feed = self._feeds[partition]
            last = feed.status.last_sequence
            read = not feed.events and (last is None or feed.fetched > last)
            return read and feed.status.connected and time.monotonic() - feed.heard >= seconds

    def backlog(self, partition: str) -> int:
        """The last sequence number known to be in the partition; -1 while none is."""
        with self._changed:
            feed = self._feeds.get(partition)
            last = feed.status.last_sequence if feed else None
            return -1 if last is None else last

    def status(self, partition: str) -> PartitionStatus:
        with self._changed:
            return msgspec.structs.replace(self._feeds[partition].status)

    @property
    def partitions(self) -> list[str]:
        with self._changed:
            return list(self._feeds)

    def held(self) -> int:
        """How many events wait to be taken. Called with the condition held."""
        return sum(len(feed.events) for feed in self._feeds.values())

    def ready(self) -> int:
        """How many partitions have something to take. Called with the condition held."""
        return sum(1 for feed in self._feeds.values() if feed.events)

    def stop(self) -> None:
        self._stopped = True
        self._wake()
        self.join(timeout=10)

    def run(self) -> None:
        ticked = 0.0
        while not self._stopped:
            try:
                for key, _ in self._selector.select(self._pause()):
                    if key.data is None:
                        self._drain_wake()
                    else:
                        self._read(key.data)
                now = time.monotonic()
                if now - ticked >= _TICK_SECONDS:
                    ticked = now
                    self._tick()
                self._tend(now)
            except Exception:
                # A bug: but without this thread the hub would not be read any more, in silence.
                _LOGGER.exception("%s: reading failed; all links are opened anew", self._source)
                with self._changed:
                    feeds = list(self._feeds.values())
                for feed in feeds:
                    if feed.link is not None:
                        self._drop(feed)
                        with self._changed:
                            self._failed(feed, "reading failed; see the log")
        self._openers.shutdown(wait=False, cancel_futures=True)
        for feed in self._feeds.values():
            self._drop(feed)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _pause(self) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        with self._changed:
            due = [
                feed.retry_at - now
                for feed in self._feeds.values()
                if feed.link is None and not feed.opening and feed.wanted
            ]
        return max(0.0, min([_TICK_SECONDS, *due]))

    def _room(self, feed: _Feed) -> int:
        """How many events may come, for the buffer to be full."""
        left = self._buffer_bytes - feed.bytes
        return max(1, left // feed.size) if left > 0 else 0

    def _tend(self, now: float) -> None:
        """Open what should be open, resume what was taken."""
        with self._changed:
            feeds = list(self._feeds.values())
        for feed in feeds:
            if feed.link is not None and feed.link_generation != feed.generation:
                self._drop(feed)
            if feed.link is None:
                if feed.wanted and not feed.opening and now >= feed.retry_at:
                    feed.opening = True
                    self._openers.submit(self._open, feed, feed.generation, feed.fetched)
            elif feed.paused and feed.bytes <= _MOST * self._buffer_bytes:
                feed.paused = False
                self._selector.register(feed.link.sock, selectors.EVENT_READ, feed)
                if feed.link.held():
                    self._read(feed)
            elif feed.starved and feed.bytes < self._buffer_bytes // 2:
                self._grant(feed, feed.link)

    def _open(self, feed: _Feed, generation: int, sequence: int) -> None:
        """In an opener's thread: connect, then leave the link to the reading thread."""
        link: PartitionLink | None = None
        reason = ""
        stolen: HubError | None = None
        try:
            with self._client_lock:
                client = self._client = self._client or self._access.client()
            if feed.defending:
                feed.defending = False
                defend(client, self._access, feed.status.partition)
            link = PartitionLink(
                client,
                self._access.consumer_group,
                feed.status.partition,
                sequence,
                self._access.prefetch,
            )
            room = min(self._room(feed), self._access.prefetch)
            link.open(_OPEN_SECONDS, room)
        except (HubError, SecretError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            stolen = error if isinstance(error, HubError) and error.stolen else None
        except Exception as error:  # noqa: BLE001 - what it says may quote a secret
            reason = type(error).__name__
        with self._changed:
            feed.opening = False
            if stolen is not None:
                self._lost(feed, stolen)
            elif link is None or reason:
                self._client = None  # the next one reads its secret anew
                self._failed(feed, reason)
            elif self._stopped or generation != feed.generation:
                link.close()
            else:
                feed.link, feed.link_generation = link, generation
                feed.opened = feed.heard = time.monotonic()
                feed.starved = not room
                feed.paused = True  # the reading thread registers it
                if feed.status.error:
                    _LOGGER.warning("%s/%s: read again", self._source, feed.status.partition)
                feed.status.connected, feed.status.error = True, ""
            self._changed.notify_all()
        self._wake()

    def _read(self, feed: _Feed) -> None:
        link = feed.link
        if link is None:
            return
        try:
            events = link.read()
        except HubError as error:
            self._end(feed, error)
            return
        if not events:
            return
        with self._changed:
            feed.heard = time.monotonic()
            if feed.link_generation != feed.generation:
                return
            # After a reconnect the hub may send again what came before: never step back.
            new = [event for event in events if event.sequence >= feed.fetched]
            if new:
                if new[0].sequence > feed.fetched > 0:
                    _LOGGER.warning(
                        "%s/%s: events %d to %d are gone from the hub (retention); going on at %d",
                        self._source, feed.status.partition, feed.fetched,
                        new[0].sequence - 1, new[0].sequence,
                    )  # fmt: skip
                feed.events.extend(new)
                size = sum(len(event.body) for event in new) + len(new) * _EVENT_BYTES
                feed.bytes += size
                mean = size // len(new)
                feed.size = max(mean, feed.size - (feed.size - mean) // 8)
                feed.fetched = new[-1].sequence + 1
                feed.failures = 0
            last = events[-1]
            status = feed.status
            status.last_sequence = max(last.sequence, last.last_sequence or 0)
            status.last_enqueued_ms = last.last_enqueued_ms or last.enqueued_ms
            self._changed.notify_all()
        if feed.bytes > _MOST * self._buffer_bytes and not feed.paused:
            feed.paused = True
            self._selector.unregister(link.sock)
        self._grant(feed, link)

    def _grant(self, feed: _Feed, link: PartitionLink) -> None:
        """Let the hub send what there is room for."""
        try:
            feed.starved = link.grant(self._room(feed)) == 0
        except HubError as error:
            self._end(feed, error)

    def _tick(self) -> None:
        with self._changed:
            feeds = list(self._feeds.values())
        for feed in feeds:
            if feed.link is not None:
                try:
                    feed.link.tick()
                except HubError as error:
                    self._end(feed, error)

    def _end(self, feed: _Feed, error: HubError) -> None:
        self._drop(feed)
        with self._changed:
            self._lost(feed, error)
            self._changed.notify_all()

    def _lost(self, feed: _Feed, error: HubError) -> None:
        """A link ended, or was refused: who has the partition now, and what follows from it.
        Called with the condition held."""
        if not (error.stolen and self._defends):
            self._failed(feed, str(error))
            return
        now = time.monotonic()
        other, claimed = alertbeam(error), claims(error)
        again = claimed or now >= feed.defend_from
        feed.defend_from = now + _TRUCE_SECONDS
        group = self._access.consumer_group
        if claimed:
            self._failed(feed, f"another alertbeam ({other}) wanted to read as {group}, too")
        elif other:
            self._failed(feed, f"another alertbeam ({other}) reads as {group}: alerts go out twice")
        else:
            self._failed(
                feed,
                f"another reader has this partition of consumer group {group} to itself, by an "
                "epoch; it is read on here, at the next event, when that one lets go",
            )
        if again:
            feed.defending, feed.retry_at = True, now

    def _failed(self, feed: _Feed, reason: str) -> None:
        """Remember why, and when to try again: full jitter, so that many do not come at once."""
        base, cap = _BACKOFF_SECONDS
        now = time.monotonic()
        if feed.opened and now - feed.opened > cap:
            feed.failures = 0  # it held for long: an idle partition, now and then cut off
        feed.opened = 0.0
        feed.failures += 1
        feed.retry_at = now + random.uniform(base / 2, min(cap, base * 2 ** min(feed.failures, 10)))
        if reason != feed.status.error:
            _LOGGER.warning("%s/%s: %s", self._source, feed.status.partition, reason)
        feed.status.connected, feed.status.error = False, reason

    def _drop(self, feed: _Feed) -> None:
        link, feed.link = feed.link, None
        if link is not None:
            if not feed.paused:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(link.sock)
            link.close()
        with self._changed:
            feed.paused = False
            feed.status.connected = False

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"w")
        except (BlockingIOError, OSError):
            pass  # it is awake, or gone

    def _drain_wake(self) -> None:
        try:
            while self._wake_out.recv(4096):
                pass
        except BlockingIOError:
            pass


class ReadSession:
    """All hubs that one run reads, through all its shifts.

    buffer_bytes: of events that a partition may hold before they are taken.
    defends: whether the partitions are the run's alone; those who pay read beside it.
    others: batches that wait for the pipeline besides; whoever has some sets it.
    """

    def __init__(self, buffer_bytes: int | None = None, defends: bool = False) -> None:
        self.changed = threading.Condition()
        self.others = 0
        self._nudged = False
        self._buffer_bytes = buffer_bytes
        self._defends = defends
        self._readers: dict[str, HubReader] = {}
        self._draining = False

    def reader(self, source: str, access: EventHubsAccess) -> HubReader:
        """The hub's reader, started at first use."""
        with self.changed:
            found = self._readers.get(source)
            if found is None:
                found = self._readers[source] = HubReader(
                    source, access, self.changed, self._buffer_bytes, self._defends
                )
                found.start()
            return found

    @property
    def draining(self) -> bool:
        """Whether the pipeline should stop taking and end (a shift's end, or the run's)."""
        return self._draining

    @draining.setter
    def draining(self, value: bool) -> None:
        with self.changed:
            self._draining = value
            self.changed.notify_all()

    def wait(self, timeout: float, events: int = 1) -> bool:
        """Until so many events wait in all, or anything else does where one is enough, or the
        session drains; False after `timeout` s."""

        def ready() -> bool:
            held = sum(reader.held() for reader in self._readers.values())
            news = events == 1 and (self.others > 0 or self._nudged)
            return self._draining or held >= events or news

        with self.changed:
            found = self.changed.wait_for(ready, timeout)
            self._nudged = False
            return found

    def nudge(self) -> None:
        """End the waiting for events: something else in the pipeline wants a bundle."""
        with self.changed:
            self._nudged = True
            self.changed.notify_all()

    def release(self, source: str, partition: str) -> None:
        """Stop reading a partition, until it is sought again."""
        with self.changed:
            reader = self._readers.get(source)
        if reader is not None and reader.at(partition) is not None:
            reader.release(partition)

    def ready(self) -> int:
        """How many partitions have something to take."""
        with self.changed:
            return sum(reader.ready() for reader in self._readers.values())

    def status(self) -> list[PartitionStatus]:
        """Every partition that was ever read, in order."""
        with self.changed:
            readers = list(self._readers.values())
        found = [reader.status(name) for reader in readers for name in reader.partitions]
        return sorted(found, key=lambda s: (s.source, len(s.partition), s.partition))

    def close(self) -> None:
        with self.changed:
            readers, self._readers = list(self._readers.values()), {}
        for reader in readers:
            reader.stop()


_SESSIONS: dict[str, ReadSession] = {}
_SESSIONS_LOCK = threading.Lock()


def session(run: str) -> ReadSession:
    """The session of a run in this process (a worker has its own)."""
    with _SESSIONS_LOCK:
        return _SESSIONS.setdefault(run, ReadSession(defends=True))


def close_session(run: str | None = None) -> None:
    """End the run's reading (None: every run's) and close its links."""
    with _SESSIONS_LOCK:
        ending = [_SESSIONS.pop(each) for each in [*_SESSIONS] if run in (None, each)]
    for found in ending:
        found.close()
