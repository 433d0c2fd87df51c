"""What all receivers share: listening, connections, faults, and a place to keep what arrives."""

from __future__ import annotations

import abc
import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.local.receivers.faults import Fault, Pace

__all__ = ["LOOPBACK", "Receiver", "break_off"]

LOOPBACK = "127.0.0.1"


class Receiver(abc.ABC):
    """A listener on 127.0.0.1 with a thread a connection.

    folder: what arrives is appended to a file there (mode 0600); without one, it is kept in
        memory.
    port: 0: any that is free.
    tls: certificate and key, PEM files. client_ca: of whom clients must show a certificate.
    """

    _suffix = ".log"

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
    ) -> None:
        self.port = port
        self.connections = 0  # accepted so far
        self.received = 0  # records
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
            if client_ca is not None:
                self._context.verify_mode = ssl.CERT_REQUIRED
                self._context.load_verify_locations(client_ca)
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
        self._paced = 0  # of what was received
        self._free_at = 0.0  # when that is done with, in monotonic seconds

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
        return f"{LOOPBACK}:{self.port}"

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
            break_off(sock)

    def fail(self, fault: Fault, times: int | None = None) -> None:
        """Do this with the next requests (`times` of them; None: until healed)."""
        with self._lock:
            self._healed.clear()
            self._fault, self._times = fault, times
            self._paced, self._free_at = self.received, time.monotonic()

    def heal(self) -> None:
        """Be well again, at once: also for those that a fault keeps waiting."""
        with self._lock:
            self._fault = None
            self._healed.set()

    def keep(self, data: bytes, records: int = 0) -> None:
        """Keep this: whole lines, which hold so many records that were not counted yet."""
        with self._lock:
            if self._file is not None:
                self._file.write(data)
            else:
                self._kept.append(data)
            self.received += records

    def lines(self) -> Iterator[bytes]:
        """What was kept so far, without the newlines."""
        if self.path is None:
            with self._lock:
                kept = self._kept.copy()
            for data in kept:
                yield from data.split(b"\n")[:-1]
        elif self.path.exists():
            with self.path.open("rb") as file:
                yield from (line[:-1] for line in file)

    def _next_fault(self) -> Fault | None:
        with self._lock:
            fault = self._fault
            if fault is not None and self._times is not None:
                self._times -= 1
                if self._times <= 0:
                    self._fault = None
            return fault

    def _keep_pace(self, fault: Pace) -> None:
        """Wait until all that was received, over all connections, could have been taken."""
        with self._lock:
            now = time.monotonic()
            fresh, self._paced = self.received - self._paced, self.received
            # A little of what was missed is made up for, else every delay here would slow it more.
            self._free_at = max(now - 0.1, self._free_at) + fresh / fault.records_per_second
            wait = self._free_at - now
        if wait > 0:
            self._healed.wait(wait)

    def _listen(self) -> socket.socket:
        return socket.create_server((LOOPBACK, self.port), backlog=128)

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
                break_off(sock)
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


def break_off(sock: socket.socket) -> None:
    """Close with RST: the peer loses what is on its way, as when a host crashes."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # close() while another thread reads would keep the connection; this ends its reading.
        socket.socket.shutdown(sock, socket.SHUT_RD)
