"""`EmbeddedHub`: what is served and from which thread, use from the inside, faults on demand."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from pipelines.local.hub import access, amqp, messages
from pipelines.local.hub.connection import Connection
from pipelines.local.hub.faults import BUSY, Broken, Faults, Place, Refusal
from pipelines.local.hub.hubs import Hub
from pipelines.local.hub.links import Link, Reader
from pipelines.local.hub.log import PartitionInfo, PartitionLog, Retention, Waiter

__all__ = ["EmbeddedHub", "PortInUseError", "Published"]

_T = TypeVar("_T")


class PortInUseError(OSError):
    """The port asked for is taken."""

    def __init__(self, port: int) -> None:
        text = f"port {port} on 127.0.0.1 is in use; choose another with --port"
        super().__init__(errno.EADDRINUSE, text)


class Published(NamedTuple):
    """Where events went: the partition and the first and last sequence number."""

    partition: str
    first: int
    last: int


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
        self.consumer_groups = (
            None if consumer_groups is None else {"$default", *map(str.lower, consumer_groups)}
        )
        self.hubs: dict[str, Hub] = {}  # by their names in lower case
        self.connections: set[Connection] = set()
        self.readers: defaultdict[tuple[str, str, str], list[Reader]] = defaultdict(list)
        self.faults = Faults()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._stopped: asyncio.Event | None = None
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            open_log = partial(
                PartitionLog,
                retention=retention or Retention(),
                clock=clock,
                segment_bytes=segment_bytes,
                wake=self._wake,
            )
            found = [stamp.parent.name for stamp in self.folder.glob("*/created")]
            counts = {name.lower(): count for name, count in (hubs or {}).items()}
            for name in {name.lower(): name for name in (*(hubs or {}), *found)}.values():
                self.hubs[name.lower()] = Hub(self.folder, name, open_log, clock)
                self.hubs[name.lower()].open(counts.get(name.lower(), 1))
        except BaseException as failure:
            self.stop()
            if isinstance(failure, BlockingIOError):
                text = "the folder is in use by another hub"
                raise BlockingIOError(failure.errno, text, str(folder)) from None
            raise

    def _hub(self, name: str) -> Hub:
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
            server = await self._loop.create_server(lambda: Connection(self), sock=self._socket)
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
            for connection in list(self.connections):
                connection.tell(amqp.CLOSE, amqp.error("amqp:connection:forced", "shutting down"))
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

    def _wake(self, waiters: set[Waiter]) -> None:
        loop = self._loop
        if loop is not None:
            for waiter in waiters:
                loop.call_soon_threadsafe(waiter)

    def _links(self) -> list[Link]:
        return [link for connection in list(self.connections) for link in connection.links()]

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
        events = []
        for body in bodies:
            data = body.encode() if isinstance(body, str) else body
            if len(data) > self.max_message_size:
                raise ValueError(f"an event of {len(data)} bytes; {self.max_message_size} may be")
            events.append(messages.new(data, partition_key))
        place = self._hub(hub)
        log = place.choose(partition_key) if partition is None else self._log(hub, partition)
        return Published(log.folder.name, *log.append(events))

    def add_partitions(self, hub: str, total: int) -> None:
        """Grow a running hub to `total` partitions.

        Raises:
            ValueError: It has more already; the service cannot take partitions away either.
        """
        place = self._hub(hub)
        if total < len(place.partitions):
            raise ValueError(f"{hub!r} has {len(place.partitions)} partitions already")
        place.open(total)

    def partition_info(self, hub: str, partition: str | int) -> PartitionInfo:
        return self._log(hub, partition).info()

    def check_token(self, token: object) -> tuple[str, float]:
        """The path that a token grants, and until when (seconds since 1970)."""
        return access.check_token(self.key, token)

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
            links = [link for link in self._links() if link.among([where])]
            for link in links:
                link.detach(condition, description)
            return len(links)

        return self._in_loop(act)

    def refuse_attaches(self, count: int, condition: str = BUSY) -> None:
        """Refuse the next `count` producers and consumers that attach."""
        self.faults.attaches = (count, condition)

    def refuse_hub(self, hub: str, condition: str = BUSY) -> None:
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

    def refuse_events(
        self,
        hub: str,
        condition: str = BUSY,
        description: str = "The event is refused on demand.",
        *,
        marker: bytes = b"",
        detach: bool = False,
        count: int | None = None,
    ) -> None:
        """Refuse the next `count` publications (None: all) that hold the marker. With `detach`
        their link is detached, and it is not said which of them it was."""
        refusal = Refusal(condition, description, marker, detach)
        self.faults.rejected = {**self.faults.rejected, self._where(hub)[0]: (refusal, count)}

    def break_publications(self, hub: str, how: Broken, count: int | None = None) -> None:
        """Reset the connections of the next `count` publications (None: all), `before` they are
        stored or `after`; or be `silent`: store nothing, and never tell."""
        self.faults.broken = {**self.faults.broken, self._where(hub)[0]: (how, count)}

    def heal(self) -> None:
        """End every fault, and send what was held back."""
        self.faults = Faults()

        def act() -> None:
            for link in self._links():
                link.pump()

        self._in_loop(act)

    def _where(self, hub: str, partition: str | int | None = None) -> Place:
        if partition is not None:
            self._log(hub, partition)
        return self._hub(hub).name.lower(), None if partition is None else str(partition)
