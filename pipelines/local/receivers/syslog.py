"""A syslog server: RFC 6587 (framing in a stream), RFC 5425 (TLS), RFC 5426 (UDP)."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipelines.local.receivers.base import LOOPBACK, Receiver, break_off
from pipelines.local.receivers.faults import HalfClose, Pace, Reset, Silence, Slow

__all__ = ["SyslogReceiver"]

# Where the sinks put an alert's id: nothing that an alert says can stand in front of it unescaped.
_ID = re.compile(
    rb'<\d+>1 \S+ \S+ \S+ \S+ \S+ (?:\[alert@\d+ event_id="|'
    rb"- CEF:0(?:\|(?:[^|\\]|\\.)*){6}\|externalId=|"
    rb"- LEEF:2\.0(?:\|[^|]*){4}\|0x09\|cat=[^\t]*\tdevTime=\d+\tsev=\d+\texternalId=)"
    rb"([0-9a-f]{32})"
)
_TLS_RECORD = 16 * 1024  # the most that one read gives
_READ_BYTES = 256 * 1024
_PACED_BYTES = 64 * 1024  # with less, loopback's large segments make TCP stall


class SyslogReceiver(Receiver):
    """A syslog server for TCP, TLS or UDP; framing by octet count or newline, found out as
    rsyslog does it. A newline inside a message is kept as `#012`, so that a line is a message.

    UDP knows no faults.
    """

    def __init__(
        self,
        *,
        protocol: Literal["tcp", "udp"] = "tcp",
        folder: Path | None = None,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
    ) -> None:
        super().__init__(folder=folder, port=port, tls=tls, client_ca=client_ca)
        self.protocol = protocol

    def messages(self) -> list[bytes]:
        """What arrived, in order; newlines as `#012`."""
        return list(self.lines())

    def ids(self) -> list[str]:
        """The messages' stable ids, in order, repeats included."""
        found = (_ID.match(message) for message in self.lines())
        return [match[1].decode() for match in found if match]

    def take(self, messages: Sequence[bytes]) -> None:
        """Keep messages."""
        if messages:
            lines = b"".join([m.replace(b"\n", b"#012") + b"\n" for m in messages])
            self.keep(lines, len(messages))

    def _listen(self) -> socket.socket:
        if self.protocol == "tcp":
            return super()._listen()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((LOOPBACK, self.port))
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
        most = _TLS_RECORD if isinstance(sock, ssl.SSLSocket) else _READ_BYTES
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
            elif isinstance(fault, Pace):
                # Buffers of megabytes would hide for long how slow it is.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PACED_BYTES)
            if not self._open[sock]:
                return  # what it had not read goes with it
            data = sock.recv(most)
            if not data:
                return
            if isinstance(fault, Reset) and not fault.taken:
                break_off(sock)
                return
            messages, rest = _frames(rest + data)
            self.take(messages)
            if isinstance(fault, Pace):
                self._keep_pace(fault)
            elif isinstance(fault, Reset):
                break_off(sock)
                return
            elif isinstance(fault, HalfClose):
                socket.socket.shutdown(sock, socket.SHUT_WR)  # an SSLSocket's own ends its TLS


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
