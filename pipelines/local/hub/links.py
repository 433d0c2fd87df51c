"""Sessions and their links: a consumer's to a partition, a producer's to a hub."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.local.hub import amqp, messages
from pipelines.local.hub.amqp import NULL, AmqpError
from pipelines.local.hub.faults import Place, Refusal
from pipelines.local.hub.hubs import Hub
from pipelines.local.hub.log import RECORD, PartitionLog

if TYPE_CHECKING:
    from pipelines.local.hub.connection import Connection

__all__ = ["FRAME_HEAD", "WINDOW", "Link", "Reader", "Receiver", "Sender", "Session", "Writer"]

WINDOW = 0x7FFFFFFF  # transfers we let a client send: the size of a frame bounds memory
CREDIT = 1000  # messages a producer may have under way
_READERS = 5  # readers of a partition and consumer group without an epoch

# A settled transfer up to its payload; the delivery tag is the delivery id, each in 4 bytes.
_TRANSFER = struct.Struct(">I16sI2sI8s")
_LAST = b"\x43\x41\x42" + 5 * NULL
_MORE = b"\x43\x41\x41" + 5 * NULL
FRAME_HEAD = _TRANSFER.size
"""Bytes of a transfer's frame before the payload."""


@dataclass(eq=False)
class Session:
    connection: Connection
    channel: int
    window: int  # transfers the client still takes
    next_incoming: int
    next_outgoing: int = 0  # transfers sent
    next_delivery: int = 0
    links: dict[int, Link] = field(default_factory=dict)

    def tell(self, code: int, *fields: bytes) -> None:
        self.connection.tell(code, *fields, channel=self.channel)


@dataclass(eq=False)
class Link:
    """One end of a link, with the client's handle as ours too (the two are separate spaces)."""

    session: Session
    handle: int
    place: Place = ("", None)
    """What it reads or writes, for faults to find it."""

    def among(self, places: Iterable[Place]) -> bool:
        mine, partition = self.place
        return any(hub == mine and part in (None, partition) for hub, part in places)

    def detach(self, condition: str, description: str) -> None:
        self.session.links.pop(self.handle, None)
        self.closed()
        failure = amqp.error(condition, description)
        self.session.tell(amqp.DETACH, amqp.uint(self.handle), amqp.TRUE, failure)

    def tell_flow(self, delivery_count: int, credit: int) -> None:
        session = self.session
        session.tell(
            amqp.FLOW, amqp.uint(session.next_incoming), amqp.uint(WINDOW),
            amqp.uint(session.next_outgoing), amqp.uint(WINDOW),
            amqp.uint(self.handle), amqp.uint(delivery_count), amqp.uint(credit), *(NULL,) * 4,
        )  # fmt: skip

    def transfer(self, performative: amqp.Performative) -> None:
        raise AmqpError("amqp:not-allowed", "a transfer on a link that we send on")

    def flow(self, delivery_count: int, credit: int, drain: bool, echo: bool) -> None:
        """The client granted credit; only links that we send on care."""

    def pump(self) -> None:
        """Send what there is, as far as credit, the session's window and the socket allow."""

    def closed(self) -> None:
        """The link has ended, whoever ended it."""


@dataclass(eq=False)
class Sender(Link):
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
            self.tell_flow(self.delivery_count, self.credit)

    def send(self, frames: bytes, count: int, deliveries: int) -> None:
        """Send whole deliveries, in `count` frames, and take note of them."""
        session = self.session
        session.next_outgoing += count
        session.next_delivery += deliveries
        # One message may overdraw a window that its frames do not fit; clients count on.
        session.window -= count
        self.delivery_count += deliveries
        self.credit -= deliveries
        session.connection.send(frames)

    def split(self, delivery: int, message: bytes) -> list[bytes]:
        """The frames of a message, each as large as the client takes them."""
        frames, room = [], self.session.connection.room
        for start in range(0, len(message), room):
            part = message[start : start + room]
            last = _LAST if start + room >= len(message) else _MORE
            size = _TRANSFER.size + len(part)
            head = _TRANSFER.pack(size, self._middle, delivery, b"\xa0\x04", delivery, last)
            frames.append(head + part)
        return frames


@dataclass(eq=False, kw_only=True)
class Reader(Sender):
    """A consumer's link to a partition."""

    log: PartitionLog
    next: int
    rivals: list[Reader]
    """The readers of the same partition and group, this one included once it has a place."""
    epoch: int | None
    name: str
    """What it calls itself; "nil" if it does not."""
    metrics: bool
    timer: asyncio.TimerHandle | None = None

    def claim(self) -> None:
        """Take a place among the readers of the partition and group, or raise AmqpError.

        One with an epoch drives out all others but those of a higher epoch ("Event Hubs Receiver
        Epoch", Microsoft). Which epoch is told of one that has none is assumed.
        """
        owner = max(
            (r for r in self.rivals if r.epoch is not None),
            key=lambda r: r.epoch or 0,
            default=None,
        )
        highest = owner.epoch if owner else None
        if self.epoch is None:
            if highest is not None:
                raise AmqpError(
                    "amqp:link:stolen",
                    f"At least one receiver for the endpoint is created with epoch of '{highest}',"
                    " and so non-epoch receiver is not allowed. Either reconnect with a higher "
                    "epoch, or make sure all epoch receivers are closed or disconnected.",
                )
            if len(self.rivals) >= _READERS:
                raise AmqpError(
                    "amqp:resource-limit-exceeded",
                    "Exceeded the maximum number of allowed receivers per partition in a consumer "
                    f"group which is {_READERS}. List of connected receivers - "
                    f"{', '.join(r.name for r in self.rivals)}.",
                )
        elif owner is not None and highest is not None and highest > self.epoch:
            raise AmqpError(
                "amqp:link:stolen",
                f"Receiver '{owner.name}' with a higher epoch '{highest}' already exists. "
                f"Receiver '{self.name}' with epoch {self.epoch} cannot be created. Make sure you "
                "are creating receiver with increasing epoch value to ensure connectivity, or "
                "ensure all old epoch receivers are closed or disconnected.",
            )
        else:
            for rival in list(self.rivals):
                rival.detach(
                    "amqp:link:stolen",
                    f"New receiver '{self.name}' with higher epoch of '{self.epoch}' is created "
                    f"hence current receiver '{rival.name}' with epoch '{rival.epoch or 0}' is "
                    "getting disconnected. If you are recreating the receiver, make sure a higher "
                    "epoch is used.",
                )
        self.rivals.append(self)

    def closed(self) -> None:
        self.log.forget(self.pump)
        self.credit = 0
        if self.timer:
            self.timer.cancel()
        if self in self.rivals:
            self.rivals.remove(self)

    def pump(self) -> None:
        session, connection = self.session, self.session.connection
        faults = connection.server.faults
        while self.credit > 0 and session.window > 0 and not connection.blocked:
            if self.timer or self.among(faults.stalled):
                return
            count = 1 if faults.delay or faults.cut else min(self.credit, session.window)
            chunk = self.log.read(self.next, count, waiter=self.pump)
            if chunk is None:
                return
            sequence, data, bounds = chunk
            output, frames = self._transfers(data, bounds)
            if self.among(faults.cut):
                faults.cut = frozenset()
                connection.send(output[: len(output) // 2])
                connection.close()
                return
            self.next = sequence + len(bounds) - 1
            self.send(output, frames, len(bounds) - 1)
            if faults.delay:
                self.timer = asyncio.get_running_loop().call_later(faults.delay, self._resume)

    def _resume(self) -> None:
        self.timer = None
        self.pump()

    def _transfers(self, data: bytes, bounds: Sequence[int]) -> tuple[bytes, int]:
        """The frames of a row of stored records, and how many they are."""
        before = self.log.metrics() if self.metrics else b""
        pack, middle, skip = _TRANSFER.pack, self._middle, RECORD.size
        fixed, limit = _TRANSFER.size + len(before), _TRANSFER.size + self.session.connection.room
        frames = 0
        output: list[bytes] = []
        pos = 0
        for delivery, bound in enumerate(bounds[1:], self.session.next_delivery):
            pos, end = pos + skip, bound - bounds[0]
            size = fixed + end - pos
            if size <= limit:
                head = pack(size, middle, delivery, b"\xa0\x04", delivery, _LAST)
                output += (head, before, data[pos:end])
                frames += 1
            else:
                parts = self.split(delivery, before + data[pos:end])
                output += parts
                frames += len(parts)
            pos = end
        return b"".join(output), frames


@dataclass(eq=False)
class Receiver(Link):
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
        self.tell_flow(self.received, CREDIT)

    def transfer(self, performative: amqp.Performative) -> None:
        _, delivery, _, form, settled, more, _, _, _, aborted, *_ = performative.fields
        if delivery is not None:
            self.delivery, self.form = delivery, form or 0
        self.settled = self.settled or bool(settled)
        self.size += len(performative.payload)
        if self.size <= self.limit:
            self.parts.append(performative.payload)
        else:
            self.parts.clear()
        if more:
            return
        if not aborted:
            self.deliver(b"".join(self.parts))
        self.parts, self.size, self.settled = [], 0, False
        self.received += 1
        if self.received % (CREDIT // 2) == 0:
            self.grant()

    def deliver(self, message: bytes) -> None:
        """Take a whole message, and tell what became of it."""
        outcome = self._outcome(message)
        if not self.settled:
            first = amqp.uint(self.delivery)
            self.session.tell(amqp.DISPOSITION, amqp.TRUE, first, NULL, amqp.TRUE, outcome, NULL)

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
            said = refusal.condition, refusal.description
        except OSError as refusal:
            said = "amqp:internal-error", str(refusal)
        except amqp.DECODE_ERRORS as refusal:
            said = "amqp:decode-error", str(refusal)
        else:
            return amqp.composite(amqp.ACCEPTED)
        return amqp.composite(amqp.REJECTED, amqp.error(*said))

    def accept(self, message: bytes) -> None:
        """Take a whole message; AmqpError and OSError refuse it."""


@dataclass(eq=False, kw_only=True)
class Writer(Receiver):
    """A producer's link to a hub, or to one partition."""

    hub: Hub
    log: PartitionLog | None

    def deliver(self, message: bytes) -> None:
        server, name = self.session.connection.server, self.place[0]
        if refusal := server.faults.refusal(name, message):
            self._refuse(refusal)
            return
        broken = server.faults.breaks(name)
        if broken == "silent":
            return
        if broken == "after":
            self._outcome(message)
        if broken:
            self.session.links.clear()  # what is read already is lost too
            self.session.connection.abort()
            return
        super().deliver(message)

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.detach:
            self.detach(refusal.condition, refusal.description)
            return
        said = amqp.error(refusal.condition, refusal.description)
        rejected = amqp.composite(amqp.REJECTED, said)
        first = amqp.uint(self.delivery)
        self.session.tell(amqp.DISPOSITION, amqp.TRUE, first, NULL, amqp.TRUE, rejected, NULL)

    def accept(self, message: bytes) -> None:
        events, key = messages.received(message, self.form)
        if events:
            (self.log or self.hub.choose(key)).append(events)
