"""Receivers on this machine: Splunk's event collector and a syslog server, as far as sinks see.

They listen on 127.0.0.1 only, keep what they get, answer as the real ones do, and fail on demand.
They are cheap, because they share the machine with the pipeline: nothing is parsed while it
arrives, only when somebody asks what arrived.

    with HecReceiver(token="t") as splunk:
        splunk.fail(Answer(503, 9, "Server is busy"), times=2)
        ...  # a sink sends to splunk.url
        splunk.ids()
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import datetime
import ipaddress
import json
import os
import re
import select
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, BinaryIO, Literal

__all__ = [
    "Answer",
    "Drip",
    "Fault",
    "HalfClose",
    "HecReceiver",
    "InvalidEvent",
    "Poison",
    "Reset",
    "Silence",
    "Slow",
    "SyslogReceiver",
    "certificate",
]

_LOOPBACK = "127.0.0.1"
# Where the sinks put an alert's id: nothing that an alert says can stand in front of it unescaped.
_ID = re.compile(
    rb'<\d+>1 \S+ \S+ \S+ \S+ \S+ (?:\[alert@\d+ event_id="|'
    rb"- CEF:0(?:\|(?:[^|\\]|\\.)*){6}\|externalId=)([0-9a-f]{32})"
)


# ------------------------------------------------------------------------------------- faults


@dataclasses.dataclass(frozen=True)
class Answer:
    """Take nothing, answer this (HEC): 503 busy, 429 with Retry-After, 401, 403, 413, …"""

    status: int
    code: int | None = None
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class InvalidEvent:
    """Refuse the event at this position: those before it are taken, as Splunk does it (HEC)."""

    number: int


@dataclasses.dataclass(frozen=True)
class Poison:
    """Refuse every request that holds the marker; `numbered`: say which event it is (HEC)."""

    marker: bytes
    numbered: bool = False


@dataclasses.dataclass(frozen=True)
class Silence:
    """HEC: take nothing, never answer. Syslog: read nothing. Until healed."""


@dataclasses.dataclass(frozen=True)
class Slow:
    """Take everything, `seconds` late."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Drip:
    """Take everything, answer one byte every `seconds` (HEC)."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Reset:
    """Break the connection: before anything is read to its end, or after it was all `taken`."""

    taken: bool = False


@dataclasses.dataclass(frozen=True)
class HalfClose:
    """Say that nothing more will be said, without an answer; take nothing, stay connected."""


Fault = Answer | InvalidEvent | Poison | Silence | Slow | Drip | Reset | HalfClose


# ------------------------------------------------------------------------- what both share


class _Receiver(abc.ABC):
    """A listener on 127.0.0.1 with a thread a connection, faults, and a place to keep things.

    folder: what arrives is appended to a file there (mode 0600); without one, it is kept in
        memory.
    """

    _suffix = ".log"

    def __init__(self, folder: Path | None, port: int, tls: tuple[Path, Path] | None) -> None:
        self.port = port
        self.connections = 0  # accepted so far
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._kept: list[bytes] = []
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._open: dict[socket.socket, bool] = {}  # False: it is to be reset
        self._fault: Fault | None = None
        self._times: int | None = None
        self._healed = threading.Event()

    def __enter__(self) -> Any:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def path(self) -> Path | None:
        """Where what arrived lies."""
        return self._folder and self._folder / f"{type(self).__name__}-{self.port}{self._suffix}"

    @property
    def address(self) -> str:
        return f"{_LOOPBACK}:{self.port}"

    def start(self) -> Any:
        """Listen, and return itself. Raises OSError when the port is in use."""
        self._listener = self._listen()
        self.port = self._listener.getsockname()[1]
        if self.path is not None and self._file is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(fd, "ab", buffering=0)
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """Stop listening, break what is open, wait for the threads."""
        self.refuse()
        self.heal()
        for thread in self._threads:
            thread.join(timeout=5)
        self._threads.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def refuse(self) -> None:
        """From now on connections are refused, and those that were open are reset."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would leave a thread that waits in accept() listening.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.reset()

    def accept(self) -> None:
        """Listen again, on the same port."""
        if self._listener is None:
            self.start()

    def reset(self) -> None:
        """Break every open connection with a reset."""
        with self._lock:
            self._open = dict.fromkeys(self._open, False)
            sockets = list(self._open)
        for sock in sockets:
            _reset(sock)

    def fail(self, fault: Fault, times: int | None = None) -> None:
        """Do this with the next requests (`times` of them; None: until healed)."""
        with self._lock:
            self._healed.clear()
            self._fault, self._times = fault, times

    def heal(self) -> None:
        """Be well again, at once: also for those that a fault keeps waiting."""
        with self._lock:
            self._fault = None
            self._healed.set()

    def _next_fault(self) -> Fault | None:
        with self._lock:
            fault = self._fault
            if fault is not None and self._times is not None:
                self._times -= 1
                if self._times <= 0:
                    self._fault = None
            return fault

    def _keep(self, data: bytes) -> None:
        with self._lock:
            if self._file is not None:
                self._file.write(data)
            else:
                self._kept.append(data)

    def _lines(self) -> Iterator[bytes]:
        """What was kept so far, without the newlines."""
        if self.path is None:
            with self._lock:
                kept = b"".join(self._kept)
            yield from kept.split(b"\n")[:-1]
        elif self.path.exists():
            with self.path.open("rb") as file:
                yield from (line[:-1] for line in file)

    def _listen(self) -> socket.socket:
        return socket.create_server((_LOOPBACK, self.port), backlog=128)

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name=type(self).__name__)
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            self._spawn(self._connected, sock)

    def _connected(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock.settimeout(5)
                sock = self._context.wrap_socket(sock, server_side=True)
                sock.settimeout(None)
            with self._lock:
                self._open[sock] = True
            if self._listener is None:
                _reset(sock)
            self._serve(sock)
        except (OSError, ValueError):
            pass  # the peer went, or we broke it
        finally:
            with self._lock:
                self._open.pop(sock, None)
            sock.close()

    @abc.abstractmethod
    def _serve(self, sock: socket.socket) -> None:
        """Take what comes over one connection, until it ends."""


def _reset(sock: socket.socket) -> None:
    """Close with RST: the peer loses what is on its way, as when a host crashes."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # close() while another thread reads would keep the connection; this ends its reading.
        socket.socket.shutdown(sock, socket.SHUT_RD)


# -------------------------------------------------------------------- Splunk's event collector


class HecReceiver(_Receiver):
    """An HTTP Event Collector: the answers and codes of Splunk's own.

    token: what requests must show; None: any.
    max_bytes: of a request after decompression; more is a 413.
    strict: parse every event, as Splunk does, and refuse what is none (slow: for tests).
    """

    _suffix = ".ndjson"

    def __init__(
        self,
        *,
        token: str | None = None,
        folder: Path | None = None,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        max_bytes: int = 1_048_576,
        strict: bool = False,
    ) -> None:
        super().__init__(folder, port, tls)
        self.token = token
        self.max_bytes = max_bytes
        self.strict = strict
        self.healthy = True
        self.requests = 0
        self.received = 0  # events

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://{self.address}"

    def events(self) -> Iterator[dict[str, Any]]:
        """What arrived, in order, parsed."""
        decoder = json.JSONDecoder()
        for line in self._lines():
            text, at = line.decode("utf-8", "replace"), 0
            while at < len(text):
                event, end = decoder.raw_decode(text, at)
                yield event
                at = len(text) - len(text[end:].lstrip())

    def ids(self) -> list[str]:
        """The stable ids of alertbeam's events, in order, repeats included."""
        # `fields` come last, and an event's own text has its quotes escaped.
        mark = b'"fields":{"event_id":"'
        found = (line.rpartition(mark)[2][:32] for line in self._lines() if mark in line)
        return [identity.decode() for identity in found]

    def take(self, body: bytes) -> None:
        """Keep the events of a body. Between JSON values `}\\n{` is all that can look like it."""
        count = body.count(b"}\n{") + 1
        if body.count(b"\n") != count - 1:
            body = body.replace(b"}\n{", b"}\0{").replace(b"\n", b" ").replace(b"\0", b"\n")
        self._keep(body + b"\n")
        self.received += count

    def _serve(self, sock: socket.socket) -> None:
        _HecHandler(sock, self)


class _HecHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Splunkd", ""
    wbufsize = -1  # one write an answer

    def __init__(self, sock: socket.socket, receiver: HecReceiver) -> None:
        self._receiver = receiver
        super().__init__(sock, (_LOOPBACK, 0), receiver)  # type: ignore[arg-type]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: counters tell."""

    def parse_request(self) -> bool:
        """False, too, for what came after the receiver broke the connection."""
        return super().parse_request() and self._receiver._open[self.connection]

    def do_GET(self) -> None:
        fault = self._receiver._fault
        if isinstance(fault, Silence):
            self._receiver._healed.wait()
            self.close_connection = True
        elif not self.path.startswith("/services/collector/health"):
            self._answer(404, 404, "The requested URL was not found on this server.")
        elif self._receiver.healthy:
            self._answer(200, 17, "HEC is healthy")
        else:
            self._answer(503, 18, "HEC is unhealthy, queues are full")

    def do_POST(self) -> None:
        receiver = self._receiver
        receiver.requests += 1
        fault = receiver._next_fault()
        length = int(self.headers.get("Content-Length", 0))
        if isinstance(fault, Reset) and not fault.taken:
            self.rfile.read(length // 2)
            self._break()
            return
        body = self.rfile.read(length)
        refusal = self._refusal()
        if refusal:
            self._answer(*refusal)
            return
        if self.headers.get("Content-Encoding") == "gzip":
            try:
                body = zlib.decompressobj(31).decompress(body, receiver.max_bytes + 1)
            except zlib.error:
                self._answer(400, 6, "Invalid data format")
                return
        if len(body) > receiver.max_bytes:
            self._answer(413, None, "Request entity too large")
        elif not body.strip():
            self._answer(400, 5, "No data")
        else:
            self._take(body, fault)

    def _refusal(self) -> tuple[int, int, str] | None:
        path = self.path.partition("?")[0]
        if path not in (
            "/services/collector",
            "/services/collector/event",
            "/services/collector/event/1.0",
        ):
            return 404, 404, "The requested URL was not found on this server."
        given = self.headers.get("Authorization", "")
        if not given:
            return 401, 2, "Token is required"
        scheme, _, token = given.partition(" ")
        if scheme != "Splunk":
            return 401, 3, "Invalid authorization"
        if self._receiver.token not in (None, token):
            return 403, 4, "Invalid token"
        return None

    def _take(self, body: bytes, fault: Fault | None) -> None:
        receiver = self._receiver
        if isinstance(fault, Answer):
            self._answer(fault.status, fault.code, fault.text, dict(fault.headers))
            return
        if isinstance(fault, Silence):
            receiver._healed.wait()
            self.close_connection = True
            return
        if isinstance(fault, HalfClose):
            self.connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                self.connection.recv(1)
            self.close_connection = True
            return
        bad: tuple[int, int, str] | None = None  # position, code, text
        if receiver.strict or isinstance(fault, InvalidEvent | Poison):
            events, bad = _split(body)
            if isinstance(fault, InvalidEvent) and fault.number < len(events):
                bad = fault.number, 6, "Invalid data format"
            if isinstance(fault, Poison) and fault.marker in body:
                if not fault.numbered:
                    self._answer(400, 6, "Invalid data format")
                    return
                at = next(i for i, event in enumerate(events) if fault.marker in event)
                bad = at, 6, "Invalid data format"
            if bad is not None:
                if bad[0]:
                    receiver.take(b"\n".join(events[: bad[0]]))
                self._answer(400, bad[1], bad[2], number=bad[0])
                return
        if isinstance(fault, Slow):
            receiver._healed.wait(fault.seconds)
        receiver.take(body)
        if isinstance(fault, Reset):
            self._break()
            return
        self._answer(200, 0, "Success", drip=fault.seconds if isinstance(fault, Drip) else 0.0)

    def _answer(
        self,
        status: int,
        code: int | None,
        text: str,
        headers: dict[str, str] | None = None,
        *,
        number: int | None = None,
        drip: float = 0.0,
    ) -> None:
        answer: dict[str, Any] = {"text": text}
        if code is not None:
            answer["code"] = code
        if number is not None:
            answer["invalid-event-number"] = number
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if drip:
            self.wfile.flush()
            for byte in body:
                if self._receiver._healed.wait(drip):
                    break
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _break(self) -> None:
        self.close_connection = True
        _reset(self.connection)


def _split(body: bytes) -> tuple[list[bytes], tuple[int, int, str] | None]:
    """The events of a body, and what Splunk finds wrong with the first bad one, if there is one."""
    decoder = json.JSONDecoder()
    text = body.decode("utf-8", "replace")
    events: list[bytes] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            event, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return events, (len(events), 6, "Invalid data format")
        if not isinstance(event, dict):
            return events, (len(events), 6, "Invalid data format")
        if "event" not in event:
            return events, (len(events), 12, "Event field is required")
        if event["event"] in ("", None):
            return events, (len(events), 13, "Event field cannot be blank")
        if any(isinstance(value, dict) for value in event.get("fields", {}).values()):
            return events, (len(events), 15, "Error in handling indexed fields")
        events.append(text[at:end].encode())
        at = end
    return events, None


# ------------------------------------------------------------------------------------- syslog


class SyslogReceiver(_Receiver):
    """A syslog server for TCP, TLS or UDP; framing by octet count or newline, found out as
    rsyslog does it. A newline inside a message is kept as `#012`, so that a line is a message."""

    def __init__(
        self,
        *,
        protocol: Literal["tcp", "udp"] = "tcp",
        folder: Path | None = None,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
    ) -> None:
        super().__init__(folder, port, tls)
        if self._context is not None and client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)
        self.protocol = protocol
        self.received = 0  # messages

    def messages(self) -> list[bytes]:
        """What arrived, in order; newlines as `#012`."""
        return list(self._lines())

    def ids(self) -> list[str]:
        """The messages' stable ids, in order, repeats included."""
        found = (_ID.match(message) for message in self._lines())
        return [match[1].decode() for match in found if match]

    def take(self, messages: Sequence[bytes]) -> None:
        """Keep messages."""
        if messages:
            self._keep(b"".join(m.replace(b"\n", b"#012") + b"\n" for m in messages))
            self.received += len(messages)

    def _listen(self) -> socket.socket:
        if self.protocol == "tcp":
            return super()._listen()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((_LOOPBACK, self.port))
        return sock

    def _accept(self, listener: socket.socket) -> None:
        if self.protocol == "tcp":
            super()._accept(listener)
            return
        with contextlib.suppress(OSError):
            while True:
                message = listener.recv(65536)
                if self._listener is not listener:
                    return
                self.take([message])

    def _serve(self, sock: socket.socket) -> None:
        rest = b""
        readable = select.poll()
        readable.register(sock, select.POLLIN)
        while True:
            if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
                readable.poll()
            fault = self._next_fault() if self._fault else None
            if isinstance(fault, Silence):
                self._healed.wait()
            elif isinstance(fault, Slow):
                self._healed.wait(fault.seconds)
            if not self._open[sock]:
                return  # what it had not read goes with it
            data = sock.recv(1 << 18)
            if not data:
                return
            if isinstance(fault, Reset) and not fault.taken:
                _reset(sock)
                return
            messages, rest = _frames(rest + data)
            self.take(messages)
            if isinstance(fault, Reset):
                _reset(sock)
                return
            if isinstance(fault, HalfClose):
                sock.shutdown(socket.SHUT_WR)


def _frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages in a stream's bytes (RFC 6587), and what is left of them."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if data[at : at + 1].isdigit():
            space = data.find(b" ", at, at + 11)
            if space < 0:
                if len(data) - at > 10:
                    raise ValueError("not syslog: a length without end")
                break
            end = space + 1 + int(data[at:space])
            if end > len(data):
                break
            found.append(data[space + 1 : end])
            at = end
        else:
            end = data.find(b"\n", at)
            if end < 0:
                break
            found.append(data[at:end])
            at = end + 1
    return found, data[at:]


# ----------------------------------------------------------------------------- a certificate


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate for `name` and 127.0.0.1, and its key, as PEM files in `folder`.

    It is its own authority: give the first to a client as `ca`.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address(_LOOPBACK))
    usage = {
        **dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True),
        **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False),
        **dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False),
    }
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file
