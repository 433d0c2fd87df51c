"""The azure-eventhub SDK's private parts, all of them, behind one file.

The SDK opens, authenticates and attaches; from then on its socket is read here, many frames a
system call, and transfers are decoded by `frames.py` (the SDK's own receive path waits a socket
timeout before it hands anything over and costs 2-3 times the CPU: docs/adr/0002). Everything that
is not an event (flow, detach, close, the renewal of tokens) goes to the SDK's own code.

`tests/transforms/read/test_sdk.py` fails loudly when a new SDK no longer has these parts.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from azure.eventhub import EventHubConsumerClient
from azure.eventhub._consumer import EventHubConsumer
from azure.eventhub._pyamqp._decode import decode_empty_frame, decode_frame
from azure.eventhub._pyamqp.constants import ConnectionState, LinkState
from azure.eventhub._pyamqp.error import ErrorCondition

from transforms.read.access import EventHubsAccess
from transforms.read.frames import Event, FrameError, decode_message, decode_transfer
from transforms.secrets import SecretError

__all__ = [
    "HubError",
    "HubProperties",
    "PartitionLink",
    "hub_properties",
    "kept_sequences",
    "partition_ids",
]

_RECEIVE_BYTES = 256 * 1024
_TRANSFER = b"\x00\x53\x14"
_HEADER = struct.Struct(">IBBH").unpack_from
_TOKEN_CHECK_SECONDS = 5.0
_ASK_SECONDS = 30.0
_ASKERS = 8  # threads a hub that may wait for an answer, or hang without one
_OPENED = ConnectionState.OPENED
_RECEIVER_NAME = b"com.microsoft:receiver-name"
_NAME_CHARACTERS = 64  # what .NET's client allows
_RIVAL = re.compile(r"[Rr]eceiver '([^']*)'")


class HubError(Exception):
    """The hub cannot be read now.

    stolen: another reader, with an epoch, has the partition. rival: what it calls itself, where
    it does and the hub told.
    """

    def __init__(self, reason: str, stolen: bool = False, rival: str = "") -> None:
        super().__init__(reason)
        self.stolen = stolen
        self.rival = rival


class HubProperties(NamedTuple):
    """A hub's partitions, and when it was made: one that was made anew has another time."""

    partitions: list[str]
    created_ms: int


def hub_properties(access: EventHubsAccess) -> HubProperties:
    """What the hub is now, in one question of about half a second. Raises HubError."""
    found = _ask(access, lambda client: client.get_eventhub_properties())
    created_ms = round(found["created_at"].timestamp() * 1000)
    return HubProperties(list(found["partition_ids"]), created_ms)


def partition_ids(access: EventHubsAccess) -> list[str]:
    """The hub's partitions now. Takes about half a second. Raises HubError."""
    return hub_properties(access).partitions


def kept_sequences(access: EventHubsAccess, partition: str) -> range:
    """The sequence numbers of the events that the partition holds; `stop` is the next event's,
    also where it holds none. Takes about half a second. Raises HubError."""
    properties = _ask(access, lambda client: client.get_partition_properties(partition))
    following = int(properties["last_enqueued_sequence_number"]) + 1
    if properties["is_empty"]:
        return range(following, following)
    return range(int(properties["beginning_sequence_number"]), following)


_askers: defaultdict[EventHubsAccess, threading.BoundedSemaphore] = defaultdict(
    lambda: threading.BoundedSemaphore(_ASKERS)
)


def _ask(access: EventHubsAccess, question: Callable[[EventHubConsumerClient], Any]) -> Any:
    """In a thread of its own: the SDK waits for a server's first frames without any limit."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slots = _askers[access]

    def work() -> None:
        try:
            with access.client() as client:
                answers.put(question(client))
        except SecretError as error:
            answers.put(HubError(str(error)))
        except Exception as error:  # noqa: BLE001 - raised below, in the right thread
            answers.put(HubError(_plain(error)))
        finally:
            slots.release()

    try:
        if not slots.acquire(timeout=_ASK_SECONDS):
            raise queue.Empty
        threading.Thread(target=work, name=f"ask {access.hub}", daemon=True).start()
        answer = answers.get(timeout=_ASK_SECONDS)
    except queue.Empty:
        raise HubError(f"the hub did not answer within {_ASK_SECONDS:g} s") from None
    if isinstance(answer, HubError):
        raise answer
    return answer


class PartitionLink:
    """One open link to one partition, from a position on. Used by one thread at a time.

    next: the least sequence number wanted; -1 reads from the first that the hub still has.
    prefetch: link credit at most, in events; with 0 none comes.
    role: what the hub tells others of it, with this machine's name and the process's number.
    epoch: to have the partition alone, against all readers of a lower one or none.
    """

    def __init__(
        self,
        client: EventHubConsumerClient,
        consumer_group: str,
        partition: str,
        next_sequence: int,
        prefetch: int,
        role: str = "alertbeam",
        epoch: int | None = None,
    ) -> None:
        self._prefetch = prefetch
        self._tail = b""
        self._parts: list[bytes] = []  # of a message whose frames are not all here
        self._token_checked = time.monotonic()
        address = client._address
        self._consumer = EventHubConsumer(
            client,
            f"amqps://{address.hostname}{address.path}/ConsumerGroups/{consumer_group}"
            f"/Partitions/{partition}",
            # After the one before, not "from" this one: a number that is still to come is refused.
            event_position="-1" if next_sequence <= 0 else next_sequence - 1,
            event_position_inclusive=False,
            prefetch=prefetch,
            owner_level=epoch,
            keep_alive=None,
            idle_timeout=None,
            track_last_enqueued_event_properties=True,
            on_event_received=None,
            amqp_transport=client._amqp_transport,
        )
        name = f"{role} {socket.gethostname()}/{os.getpid()}"
        self._consumer._link_properties[_RECEIVER_NAME] = name[:_NAME_CHARACTERS]

    def open(self, timeout: float, credit: int | None = None) -> None:
        """Connect, authenticate, attach, and let the hub send so many events, or `prefetch`.
        Raises HubError."""
        deadline = time.monotonic() + timeout
        watchdog = threading.Timer(timeout, self._hang_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            while not self._consumer._open():
                if time.monotonic() > deadline:
                    raise TimeoutError
            handler = self._consumer._handler
            self._link = handler._link
            self._session = handler._session
            self._connection = handler._connection
            self._transport = self._connection._transport
            self._cbs = handler._cbs_authenticator
            self.sock: socket.socket = self._transport.sock
            # What the SDK had begun to read when its socket timed out.
            self._tail = self._transport._read_buffer.read()
            self._link.flow(link_credit=self._prefetch if credit is None else credit)
        except Exception as error:
            self.close()
            if time.monotonic() > deadline:
                raise HubError(f"the hub did not answer within {timeout:g} s") from error
            raise self._named(error) from error
        finally:
            watchdog.cancel()

    def _hang_up(self) -> None:
        """End what `open` waits for: the SDK waits for a server's first frames without limit."""
        handler = self._consumer._handler
        transport = getattr(getattr(handler, "_connection", None), "_transport", None)
        sock = getattr(transport, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def read(self) -> list[Event]:
        """Everything that lies on the socket now, which a selector called readable. Grant credit
        afterwards.

        Raises HubError when the link or the connection ended.
        """
        events: list[Event] = []
        try:
            while True:
                try:
                    data = self.sock.recv(_RECEIVE_BYTES)
                except (TimeoutError, BlockingIOError):
                    break
                if not data:
                    raise HubError("the hub closed the connection")
                self._feed(data, events)
                if not self.held():
                    break
            self._check()
            self._renew()
        except HubError:
            raise
        except Exception as error:
            raise self._named(error) from error
        return events

    def grant(self, events: int | None = None) -> int:
        """Once half of that is used up, let the hub send so many events, or `prefetch`, so that
        it never waits. How many it may send now: what was granted is not taken back. Raises
        HubError."""
        most = self._prefetch if events is None else min(events, self._prefetch)
        try:
            if most and self._link.current_link_credit <= most // 2:
                self._link.flow(link_credit=most)
        except Exception as error:
            raise self._named(error) from error
        return int(self._link.current_link_credit)

    def held(self) -> bool:
        """Whether something waits that no selector shows: TLS has decrypted it already."""
        pending = getattr(self.sock, "pending", None)
        return pending is not None and pending() > 0

    def tick(self) -> None:
        """Heartbeats and tokens; call it every second or so, also when idle. Raises HubError."""
        try:
            # No frame is read (batch=0): this only looks at the timeouts, and sends if due.
            self._connection.listen(batch=0)
            now = time.monotonic()
            if self._cbs is not None and now - self._token_checked > _TOKEN_CHECK_SECONDS:
                self._token_checked = now
                self._cbs.handle_token()
            self._check()
        except HubError:
            raise
        except Exception as error:
            raise self._named(error) from error

    def close(self) -> None:
        """Let go of the connection; never raises, never waits for the hub."""
        try:
            self._consumer.close()
        except Exception:  # noqa: BLE001, S110 - it is being thrown away
            pass
        sock = getattr(self, "sock", None)
        if sock is not None:
            sock.close()

    def _feed(self, data: bytes, events: list[Event]) -> None:
        """Split into frames; decode events here, hand everything else to the SDK."""
        had = len(events)
        if self._tail:
            data = self._tail + data
        at, end = 0, len(data)
        transfers = 0
        link = self._link
        while end - at >= 8:
            size, offset, kind, channel = _HEADER(data, at)
            if size < 8 or offset < 2:
                raise FrameError(f"a frame of {size} bytes is impossible")
            following = at + size
            if following > end:
                break
            body = at + offset * 4
            if kind == 0 and data.startswith(_TRANSFER, body, following):
                handle, more, payload = decode_transfer(data, body)
                if handle == link.remote_handle:
                    transfers += 1
                    if more:
                        self._parts.append(data[payload:following])
                    elif self._parts:
                        whole = b"".join((*self._parts, data[payload:following]))
                        self._parts = []
                        events.append(decode_message(whole, 0, len(whole)))
                    else:
                        events.append(decode_message(data, payload, following))
                    at = following
                    continue
            view = memoryview(data)
            frame = (
                decode_frame(view[body:following])
                if body < following
                else decode_empty_frame(view[at : at + 8])
            )
            self._connection._process_incoming_frame(channel, frame)
            at = following
        self._tail = data[at:]
        link.current_link_credit -= len(events) - had
        link.delivery_count += len(events) - had
        session = self._session
        session.next_incoming_id += transfers
        session.remote_outgoing_window -= transfers
        session.incoming_window -= transfers
        self._connection._last_frame_received_time = time.time()

    def _renew(self) -> None:
        """Widen the session's window when half of it is used up, so that the hub never waits."""
        session = self._session
        if session.incoming_window < session.target_incoming_window // 2:
            session.incoming_window = session.target_incoming_window
            session._outgoing_flow()

    def _check(self) -> None:
        if self._connection._error is not None:
            raise self._connection._error
        if self._link.get_state() != LinkState.ATTACHED:  # raises the link's own error
            raise HubError("the hub detached the link")
        if self._connection.state != _OPENED:
            raise HubError("the hub closed the connection")

    def _named(self, error: Exception) -> HubError:
        if getattr(error, "condition", None) != ErrorCondition.LinkStolen:
            return HubError(_plain(error))
        rival = _RIVAL.search(_text(getattr(error, "description", None) or ""))
        name = rival[1] if rival and rival[1] != "nil" else ""
        return HubError(_plain(error), stolen=True, rival=name)


def _plain(error: Exception) -> str:
    """The SDK's error in one short line, without the advice and trailers it appends."""
    condition = getattr(error, "condition", None)
    text = getattr(error, "description", None) or getattr(error, "message", None) or error
    name = getattr(condition, "value", condition) or type(error).__name__
    line = " ".join(_text(text).split()).partition(" Error condition:")[0]
    once, _, again = line.partition(" Error: ")  # "…", a condition, and "…" once more
    return f"{_text(name)}: {once if again.endswith(once) else line}"[:300]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
