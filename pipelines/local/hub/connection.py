"""A client's connection: the handshake, frames, sessions, and which link an attach asks for."""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pipelines.local.hub import amqp
from pipelines.local.hub.access import allowed
from pipelines.local.hub.amqp import NULL, AmqpError
from pipelines.local.hub.links import FRAME_HEAD, WINDOW, Link, Reader, Receiver, Session, Writer
from pipelines.local.hub.log import CHUNK
from pipelines.local.hub.requests import NODES, Replies, Requests

if TYPE_CHECKING:
    from pipelines.local.hub.server import EmbeddedHub

__all__ = ["Connection"]

_logger = logging.getLogger(__name__)

_MAX_FRAME = 65536  # what the service announces, in bytes
_HANDLES = 255  # the highest
_RUNTIME_METRIC = "com.microsoft:enable-receiver-runtime-metric"
_PATH = re.compile(
    r"([^/]+)(?:/consumergroups/([^/]+)(?=/partitions/))?(?:/partitions/([^/]+))?", re.IGNORECASE
)


class Connection(asyncio.Protocol):
    """From the first byte to the last; links hang on its sessions."""

    def __init__(self, server: EmbeddedHub) -> None:
        self.server = server
        self.granted: dict[str, float] = {}  # path to the time until which it may be used
        self.room = 512 - FRAME_HEAD  # payload bytes that a frame holds
        self.blocked = False  # the socket takes no more, or must not be given more
        self._closing = False
        self._buffer = bytearray()
        self._reading = self._dialogue()
        self._sessions: dict[int, Session] = {}
        self._opened = False
        self._beat: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peer = "{}:{}".format(*transport.get_extra_info("peername"))
        transport.set_write_buffer_limits(high=4 * CHUNK)
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
            text = "closing the connection from %s: %s"
            _logger.warning(text, self._peer, failure, exc_info=surprise)
            if self._opened:
                condition = getattr(failure, "condition", "amqp:decode-error")
                self.tell(amqp.CLOSE, amqp.error(condition, str(failure)))
            self.close()

    # writing

    def send(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)

    def tell(self, code: int, *fields: bytes, channel: int = 0, kind: int = 0) -> None:
        self.send(amqp.frame(channel, amqp.composite(code, *fields), kind))

    def close(self) -> None:
        """Send what was written, then close."""
        self._closing = self.blocked = True
        self._transport.close()

    def abort(self) -> None:
        self._closing = self.blocked = True
        self._transport.abort()

    def links(self) -> list[Link]:
        return [link for session in self._sessions.values() for link in session.links.values()]

    # reading

    def _dialogue(self) -> Generator[None, None, None]:
        """What the client says, in order; yields where the rest of it has not come yet."""
        yield from self._header(amqp.SASL_HEADER)
        self.tell(amqp.SASL_MECHANISMS, amqp.array(0xB3, b"ANONYMOUS"), kind=1)
        _, body = yield from self._frame(kind=1)
        code, fields, _, _ = amqp.read_performative(body)
        accepted = (code, fields[0]) == (amqp.SASL_INIT, "ANONYMOUS")
        self.tell(amqp.SASL_OUTCOME, amqp.ubyte(0 if accepted else 1), NULL, kind=1)
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
        if code == amqp.OPEN:
            self._open(fields)
        elif not self._opened:
            raise AmqpError("amqp:not-allowed", "the first frame must be an open")
        elif code == amqp.BEGIN:
            self._begin(channel, fields)
        elif code == amqp.CLOSE:
            self.tell(amqp.CLOSE, NULL)
            self.close()
        elif channel in self._sessions:  # the SDK detaches its links after ending their session
            self._in_session(self._sessions[channel], performative)

    def _open(self, fields: list[Any]) -> None:
        if self._opened:
            raise AmqpError("amqp:not-allowed", "a second open")
        self._opened = True
        self.room = max(512, min(fields[2] or _MAX_FRAME, 1 << 24)) - FRAME_HEAD
        name, limit, channels = (
            amqp.string("embedded-hub"), amqp.uint(_MAX_FRAME), amqp.ushort(0xFFFF)
        )  # fmt: skip
        self.tell(amqp.OPEN, name, NULL, limit, channels, *(NULL,) * 6)
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
        session = Session(self, channel, window=fields[2], next_incoming=fields[1])
        self._sessions[channel] = session
        session.tell(
            amqp.BEGIN, amqp.ushort(channel), amqp.uint(0), amqp.uint(WINDOW), amqp.uint(WINDOW),
            amqp.uint(_HANDLES), *(NULL,) * 3,
        )  # fmt: skip

    def _in_session(self, session: Session, performative: amqp.Performative) -> None:
        code, fields, raw, _ = performative
        if code == amqp.ATTACH:
            self._attach(session, fields, raw)
        elif code == amqp.FLOW:
            session.window = (fields[0] or 0) + fields[1] - session.next_outgoing
            if fields[4] is None:
                for link in list(session.links.values()):
                    link.pump()
            elif fields[4] in session.links and fields[6] is not None:
                count = fields[5] or 0
                session.links[fields[4]].flow(count, fields[6], bool(fields[8]), bool(fields[9]))
        elif code == amqp.TRANSFER:
            session.next_incoming += 1
            if fields[0] in session.links:  # else it was under way when we detached
                session.links[fields[0]].transfer(performative)
        elif code == amqp.DETACH:
            ended = session.links.pop(fields[0], None)
            if ended:  # else this answers a detach of ours
                ended.closed()
                session.tell(amqp.DETACH, amqp.uint(fields[0]), amqp.TRUE, NULL)
        elif code == amqp.END:
            for link in session.links.values():
                link.closed()
            del self._sessions[session.channel]
            session.tell(amqp.END, NULL)
        elif code != amqp.DISPOSITION:
            raise AmqpError("amqp:decode-error", f"no performative has the code {code}")

    # attaching

    def _attach(self, session: Session, fields: list[Any], raw: list[bytes]) -> None:
        handle, reads = fields[1], bool(fields[2])
        if handle in session.links or handle > _HANDLES:
            raise AmqpError("amqp:session:handle-in-use", f"the handle {handle} is not free")
        ends, refusal = raw[5:7], None
        try:
            session.links[handle] = link = self._link(session, fields)
        except AmqpError as failure:
            # As the service does it: an attach without source and target, then a detach.
            link, ends, refusal = Link(session, handle), [NULL, NULL], failure
        session.tell(
            amqp.ATTACH, raw[0], raw[1], amqp.FALSE if reads else amqp.TRUE,
            amqp.ubyte(int(reads)), amqp.ubyte(0), *ends, NULL, NULL,
            amqp.uint(0) if reads else NULL, amqp.ulong(self.server.max_message_size),
            *(NULL,) * 3,
        )  # fmt: skip
        if refusal:
            link.detach(refusal.condition, refusal.description)
        elif isinstance(link, Receiver):
            link.grant()

    def _link(self, session: Session, fields: list[Any]) -> Link:
        """The link that an attach asks for; AmqpError says why there is none."""
        handle, reads, server = fields[1], bool(fields[2]), self.server
        end = fields[5] if reads else fields[6]
        if not isinstance(end, amqp.Described) or not end.value:
            raise AmqpError("amqp:invalid-field", "The link has no address.")
        path = re.sub(r"^\w+://[^/]*", "", str(end.value[0])).strip("/")
        node = path.rpartition("/")[2].lower()
        if node in NODES:
            return (Replies if reads else Requests)(session, handle, node=node)
        match = _PATH.fullmatch(path)
        name, group, partition = match.groups() if match else (path, None, None)
        name, group = name.lower(), group and group.lower()
        server.faults.check_attach(name)
        hub = server.hubs.get(name)
        log = hub.get(partition) if hub and partition else None
        groups = server.consumer_groups
        if not hub or (partition and not log) or (group and groups and group not in groups):
            raise AmqpError(
                "amqp:not-found",
                f"The messaging entity 'sb://127.0.0.1/{path}' could not be found.",
            )
        if server.key is not None and not allowed(path, self.granted):
            raise AmqpError(
                "amqp:unauthorized-access",
                "Unauthorized access. 'Listen' or 'Send' claim(s) are required.",
            )
        place = (name, log.folder.name if log else None)
        if not reads:
            return Writer(session, handle, place, hub=hub, log=log)
        if not group or not log:
            raise AmqpError("amqp:not-allowed", "Events are read from a partition of a group.")
        selector = "amqp.annotation.x-opt-offset > '-1'"
        filters = end.value[7] if len(end.value) > 7 else None
        for content in (filters or {}).values():
            selector = str(content.value if isinstance(content, amqp.Described) else content)
        properties = fields[13] or {}
        reader = Reader(
            session, handle, place, log=log, next=log.find(selector),
            rivals=server.readers[name, group, log.folder.name],
            epoch=properties.get("com.microsoft:epoch"),
            name=str(properties.get("com.microsoft:receiver-name") or "nil"),
            metrics=_RUNTIME_METRIC in (fields[12] or ()),
        )  # fmt: skip
        reader.claim()
        return reader
