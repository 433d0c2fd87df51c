"""Syslog's transport, the same for every sink that speaks it.

Contract: RFC 6587 (framing in a stream), RFC 5425 (TLS), RFC 5426 (UDP).

A syslog server acknowledges nothing. A chunk counts as delivered once the peer's TCP has taken
every byte of it; and what was sent shortly before a connection broke is sent again over the next
one, so that some messages may then come twice. UDP loses messages silently: that is its contract.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from transforms.delivery.network import Deadline, Tls, dial, gone, send_all
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Retry,
    Sink,
    SinkSettings,
    Verdict,
)

__all__ = ["ListenerSettings", "SyslogSink"]

_TAIL_SECONDS = 10.0  # what a living server has surely read by now
_TAIL_BYTES = 4 * 1024 * 1024
_REFUSAL = 0.3  # seconds; in TLS 1.3 a server refuses a client's certificate after the handshake
_HOSTNAME = socket.gethostname()

Facility = Literal[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
]  # fmt: skip
_FACILITIES = get_args(Facility)  # in the order of their numbers


class ListenerSettings(SinkSettings):
    """What the settings of every sink that speaks syslog share."""

    address: str = Field(description="host:port of the listener; TLS commonly uses 6514.")
    protocol: Literal["tcp", "tls", "udp"] = Field("tls", description="How it is reached.")
    tls: Tls | None = Field(None, description="How the connection is secured.")
    framing: Literal["octet", "lf"] = Field(
        "lf", description="How messages are told apart: by their length, or by newlines."
    )
    entities: bool = Field(
        True,
        description="Whether an event says what its record mentions: addresses, accounts, "
        "processes, files. That costs about 0.2 ms an alert.",
    )
    facility: Facility = Field("local0", description="The syslog facility.")
    hostname: str = Field("", description="The host in the header; without it, this machine's.")

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        _host_and_port(address)
        return address

    @model_validator(mode="after")
    def _check_protocol(self) -> ListenerSettings:
        if self.given("tls") and self.protocol != "tls":
            raise ValueError(f"`protocol: {self.protocol}` knows no `tls`")
        return self

    def given(self, *names: str) -> list[str]:
        """Those of these settings that are not what they are by default."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].default]


L = TypeVar("L", bound=ListenerSettings)


class SyslogSink(Sink[L]):
    """A sink that speaks syslog; what a message says is its own."""

    @property
    def limits(self) -> Limits:
        return Limits(256 * 1024)

    @property
    def separator_bytes(self) -> int:
        return 6 if self.settings.framing == "octet" else 1

    @property
    def names(self) -> dict[str, Any]:
        """What headers say of the sender."""
        return {
            "facility": _FACILITIES.index(self.settings.facility),
            "hostname": self.settings.hostname or _HOSTNAME,
        }

    def connect(self) -> Connection:
        udp = self.settings.protocol == "udp"
        return _Datagrams(self.settings) if udp else _Stream(self.settings)

    def probe(self, timeout: float) -> None:
        if self.settings.protocol == "udp":
            _datagrams(self.settings).close()
        else:
            _part(_dial(self.settings, Deadline(timeout)))

    def check(self, timeout: float) -> str:
        if self.settings.protocol == "udp":
            _datagrams(self.settings).close()
            return "the address is good; more cannot be known, since syslog over UDP never answers"
        deadline = Deadline(timeout)
        sock = _dial(self.settings, deadline)
        try:
            sock.settimeout(min(_REFUSAL, deadline.left()))
            with contextlib.suppress(TimeoutError):  # silence: it waits for messages
                if not sock.recv(1):
                    raise ConnectionError("it closes the connection at once")
            if not isinstance(sock, ssl.SSLSocket):
                found = "it takes connections, unencrypted"
            elif sock.context.verify_mode is ssl.CERT_NONE:
                found = f"{sock.version()}, but its certificate is not verified (`verify: false`)"
            else:
                found = f"{sock.version()}, its certificate is verified"
            return f"{found}; more cannot be known, since syslog never answers"
        finally:
            _part(sock)


class _Stream(Connection):
    """TCP or TLS. It outlives its sockets: what may have got lost with one goes over the next."""

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self._sock: socket.socket | None = None
        self._tail: deque[tuple[float, bytes]] = deque()  # when it was sent, and what
        self._lost = False  # the tail has to be sent again

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        if self._settings.framing == "octet":
            chunk = b"".join([b"%d %b" % (len(payload), payload) for payload in payloads])
        else:
            chunk = b"\n".join(payloads) + b"\n"
        try:
            self._deliver(chunk, Deadline(timeout))
        except OSError as error:
            if self._lost or not isinstance(error, ssl.SSLCertVerificationError):
                return Retry(str(error))  # not raised: this object holds what was lost
            raise
        return Accepted()

    def idle(self) -> float | None:
        """Find out soon, not with the next alert, that what was sent last has got lost."""
        if not self._tail:
            return None
        with contextlib.suppress(OSError):
            self._deliver(b"", Deadline(1.0))
        return 1.0

    def close(self) -> None:
        self.idle()
        sock, self._sock = self._sock, None
        if sock is not None:
            _part(sock)

    def _deliver(self, chunk: bytes, deadline: Deadline) -> None:
        """Send, and wait until the peer's TCP has all of it."""
        try:
            if self._sock is not None and gone(self._sock):
                self._sock.close()
                self._sock = None
                self._tail.clear()  # it closed in order: it had read everything
        except OSError:
            self._break()
        if self._sock is None:
            if not chunk and not self._lost:
                return
            self._sock = _dial(self._settings, deadline)
        now = time.monotonic()
        if self._lost:
            resend = b"".join(sent for _, sent in self._tail)
            self._tail = deque([(now, resend)])
        else:
            resend = b""
            self._forget(now)
        try:
            send_all(self._sock, resend + chunk, deadline)
            self._confirm(self._sock, deadline)
        except OSError:
            self._break()
            raise
        self._lost = False
        if chunk:
            self._tail.append((now, chunk))

    def _confirm(self, sock: socket.socket, deadline: Deadline) -> None:
        pause = 0.0001
        while _unacknowledged(sock):
            # Raises when it is broken, but not where the peer had closed in order just before.
            if gone(sock) and (error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise ConnectionError(error, "the peer closed the connection")
            time.sleep(min(pause, deadline.left()))
            pause = min(pause * 1.2, 0.05)  # never much longer than it has taken already
        gone(sock)

    def _break(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._lost = bool(self._tail)

    def _forget(self, now: float) -> None:
        size = sum(len(sent) for _, sent in self._tail)
        while self._tail and (now - self._tail[0][0] > _TAIL_SECONDS or size > _TAIL_BYTES):
            size -= len(self._tail.popleft()[1])


class _Datagrams(Connection):
    """UDP: a message a datagram."""

    def __init__(self, settings: ListenerSettings) -> None:
        self._sock = _datagrams(settings)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        self._sock.settimeout(timeout)
        for count, payload in enumerate(payloads, 1):
            self._sock.send(payload)
            if not count % 16:
                time.sleep(0.001)  # a burst would overflow the receiver's buffer
        # A host without a listener may have said so by now (ICMP).
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return Retry(f"[Errno {error}] nothing listens there") if error else Accepted()

    def close(self) -> None:
        self._sock.close()


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        if parts.hostname and parts.port and parts.netloc == address and "@" not in address:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise ValueError("an address is host:port, or [IPv6 address]:port")


def _dial(settings: ListenerSettings, deadline: Deadline) -> socket.socket:
    host, port = _host_and_port(settings.address)
    if settings.protocol == "tcp":
        return dial(host, port, deadline)
    tls = settings.tls or Tls()
    return dial(host, port, deadline, tls.context(), tls.server_name or "")


def _part(sock: socket.socket) -> None:
    """Close in order: with something unread in it, closing would reset the connection, and the
    peer could lose what it has not read yet."""
    with contextlib.suppress(OSError):
        sock.settimeout(1.0)
        if isinstance(sock, ssl.SSLSocket):
            sock = sock.unwrap()
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    sock.close()


def _datagrams(settings: ListenerSettings) -> socket.socket:
    host, port = _host_and_port(settings.address)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind, protocol)
    sock.connect(address)
    return sock


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes that the peer's TCP has not taken yet (SIOCOUTQ). Only Linux says."""
    if not sys.platform.startswith("linux"):
        return 0
    counted = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", counted)[0])
