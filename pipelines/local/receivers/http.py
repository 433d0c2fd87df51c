"""A strict HTTP/1.1 server on this machine, that other systems' doubles are made of.

Contract: RFC 9112 (messages) and RFC 9110 (semantics). Strict means: what RFC 9112 asks a server
to refuse is refused, and so is what a careful client never sends: a body without Content-Length,
a field that may come once and comes twice, any Content-Encoding but gzip.

    class Echo(HttpReceiver):
        def respond(self, request: Request) -> Reply:
            self.keep(request.body + b"\n", records=1)
            return Reply(200, {"took": len(request.body)})
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import email.utils
import json
import re
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pipelines.local.receivers.base import Receiver, break_off
from pipelines.local.receivers.faults import (
    Answer,
    Drip,
    Fault,
    HalfClose,
    Pace,
    Poison,
    Reset,
    Silence,
    Slow,
)

__all__ = ["Headers", "HttpReceiver", "Reply", "Request"]

_HEAD_BYTES = 64 * 1024
_START = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*|https?://[!-~]+|\*) HTTP/1\.([01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_ONCE = {"host", "content-length", "content-type", "content-encoding", "authorization"}


class Headers(Mapping[str, str]):
    """Fields by name, in any case; in the order they came; one that came often, joined."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): value for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asks. `path` is decoded; `body` is decompressed."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What it is told. A dict or a list is said as JSON."""

    status: int
    body: dict[str, Any] | list[Any] | bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class HttpReceiver(Receiver):
    """A system that is spoken to in HTTP; a subclass says what it answers.

    max_bytes: of a body, before and after decompression; more is a 413.
    """

    server = "alertbeam"  # what it says it is

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
        max_bytes: int = 1_048_576,
    ) -> None:
        super().__init__(folder=folder, port=port, tls=tls, client_ca=client_ca)
        self.max_bytes = max_bytes
        self.requests = 0  # that faults are about
        self._on = ""

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://{self.address}"

    @abc.abstractmethod
    def respond(self, request: Request) -> Reply:
        """Take what the request holds (`keep`), and answer as the system does.

        Called in the thread of the connection, for several at a time.
        """

    def faulty(self, request: Request) -> bool:
        """Whether it is about this request what `fail` says; of others only Silence is.

        Its body is not there yet.
        """
        return request.method in ("POST", "PUT")

    def refused(self, fault: Answer) -> Reply:
        """How the system words an error."""
        return Reply(fault.status, {"error": fault.text}, dict(fault.headers))

    def unreadable(self, answer: Answer) -> Reply:
        """How it words a request that HTTP itself refuses: 400, 411, 413 (too large), 415."""
        return self.refused(answer)

    def failed(self, request: Request, fault: Fault) -> Reply | None:
        """What a fault of the system's own does with a request; None: it is served."""
        if isinstance(fault, Poison) and fault.marker in request.body:
            return self.refused(Answer(400))
        return None

    def fail(self, fault: Fault, times: int | None = None, *, on: str = "") -> None:
        """Do this with the next requests (`times` of them; None: until healed).

        on: it is about requests to paths that begin so, and no others.
        """
        self._on = on
        super().fail(fault, times)

    def _serve(self, sock: socket.socket) -> None:
        incoming = _Incoming(sock)
        while (head := incoming.head()) and self._open[sock]:
            if not self._exchange(sock, incoming, head):
                return

    def _exchange(self, sock: socket.socket, incoming: _Incoming, head: bytes) -> bool:
        """Whether the connection is kept for a next request."""
        try:
            request, length, kept = _parsed(head)
        except _RefusedError as error:
            self._send(sock, "GET", self.unreadable(error.answer), kept=False)
            return False
        fault = self._fault_of(request)
        if isinstance(fault, Reset) and not fault.taken:
            incoming.skip(length // 2)
            break_off(sock)
            return False
        if request.headers.get("expect", "").lower() == "100-continue":
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length > self.max_bytes:
            incoming.skip(length)
            body = None
        else:
            body = incoming.body(length)
        if isinstance(fault, Silence):
            self._healed.wait()
            return False
        if isinstance(fault, HalfClose):
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                sock.recv(1)
            return False
        reply = self._reply(request, body, fault)
        if isinstance(fault, Pace):
            self._keep_pace(fault)
        if isinstance(fault, Reset):
            break_off(sock)
            return False
        drip = fault.seconds if isinstance(fault, Drip) else 0.0
        self._send(sock, request.method, reply, kept=kept and not drip, drip=drip)
        return kept and not drip

    def _fault_of(self, request: Request) -> Fault | None:
        concerned = request.path.startswith(self._on) if self._on else self.faulty(request)
        if self.faulty(request):
            with self._lock:
                self.requests += 1
        if concerned:
            return self._next_fault()
        fault = self._fault
        return fault if isinstance(fault, Silence) and not self._on else None

    def _reply(self, request: Request, body: bytes | None, fault: Fault | None) -> Reply:
        if isinstance(fault, Answer):
            return self.refused(fault)
        try:
            request = dataclasses.replace(request, body=self._decoded(request, body))
        except _RefusedError as error:
            return self.unreadable(error.answer)
        if isinstance(fault, Slow):
            self._healed.wait(fault.seconds)
        try:
            return (fault and self.failed(request, fault)) or self.respond(request)
        except (OSError, ValueError) as error:  # else they would count as the peer's
            raise RuntimeError(f"{type(self).__name__} has no answer") from error

    def _decoded(self, request: Request, body: bytes | None) -> bytes:
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("gzip", "identity"):
            raise _RefusedError(415, "Unsupported content encoding")
        if body is not None and encoding == "gzip":
            unpacker = zlib.decompressobj(31)
            try:
                body = unpacker.decompress(body, self.max_bytes + 1)
            except zlib.error:
                raise _RefusedError(400, "Not gzip") from None
            if len(body) <= self.max_bytes and (not unpacker.eof or unpacker.unused_data):
                raise _RefusedError(400, "Not gzip")
        if body is None or len(body) > self.max_bytes:
            raise _RefusedError(413, "Request entity too large")
        return body

    def _send(
        self, sock: socket.socket, method: str, reply: Reply, *, kept: bool, drip: float = 0.0
    ) -> None:
        body = reply.body
        fields = {"Date": email.utils.formatdate(usegmt=True), "Server": self.server}
        if not isinstance(body, bytes):
            body = json.dumps(body, separators=(",", ":")).encode()
            fields["Content-Type"] = "application/json"
        if reply.status != 204:
            fields["Content-Length"] = str(len(body))
        if not kept:
            fields["Connection"] = "close"
        fields |= reply.headers
        try:
            phrase = HTTPStatus(reply.status).phrase
        except ValueError:
            phrase = "Unknown"
        said = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {reply.status} {phrase}\r\n{said}\r\n".encode("latin-1")
        if method == "HEAD" or reply.status in (204, 304):
            body = b""
        if not drip:
            sock.sendall(head + body)
            return
        at_once, slowly = (head, body) if body else (b"", head)
        sock.sendall(at_once)
        for byte in slowly:
            if self._healed.wait(drip):
                break
            sock.sendall(bytes([byte]))


class _RefusedError(Exception):
    """The request is not one that a server takes."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, text=text)


class _Incoming:
    """A connection's bytes, as heads and bodies. All raise ConnectionError when it ends early."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        # In TLS one call gives one record, at most: WAITALL is for TCP alone.
        self._whole = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_WAITALL

    def head(self) -> bytes:
        """Up to the empty line, without it; nothing when the connection ends instead."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            data = self._sock.recv(_HEAD_BYTES) if len(self._rest) <= _HEAD_BYTES else b""
            if not data:
                return b""
            self._rest += data
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        return head.lstrip(b"\r\n")

    def body(self, length: int) -> bytes:
        begun, self._rest = self._rest[:length], self._rest[length:]
        missing = length - len(begun)
        if not missing:
            return begun
        if self._whole:
            data = self._sock.recv(missing, self._whole)
            if len(data) < missing:
                raise ConnectionError
            return begun + data
        body = bytearray(length)
        body[: len(begun)] = begun
        with memoryview(body) as view:
            at = len(begun)
            while at < length:
                read = self._sock.recv_into(view[at:])
                if not read:
                    raise ConnectionError
                at += read
        return bytes(body)

    def skip(self, length: int) -> None:
        while length > 0:
            length -= len(self.body(min(length, _HEAD_BYTES)))


def _parsed(head: bytes) -> tuple[Request, int, bool]:
    """The request without its body, the body's length, and whether the connection is kept."""
    start, *lines = head.decode("latin-1").split("\r\n")
    begun = _START.fullmatch(start)
    if begun is None:
        raise _RefusedError(400, "Bad request line")
    method, target, minor = begun.groups()
    fields: dict[str, str] = {}
    for line in lines:
        matched = _FIELD.fullmatch(line)
        if matched is None:
            raise _RefusedError(400, "Bad header field")
        name, value = matched[1].lower(), matched[2]
        if name in fields and name in _ONCE:
            raise _RefusedError(400, f"More than one {name}")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if minor == "1" and not fields.get("host"):
        raise _RefusedError(400, "No host")
    if "transfer-encoding" in fields:
        raise _RefusedError(411, "Length required")
    length = fields.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise _RefusedError(400, "Bad content length")
    kept = minor == "1" and "close" not in fields.get("connection", "").lower()
    parts = urlsplit(f"//host{target}" if target.startswith("/") else target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method, unquote(parts.path), query, Headers(fields)), int(length), kept
