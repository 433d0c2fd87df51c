"""Tells the service manager how the run is. Source: sd_notify(3), systemd."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify"]


def notify(*lines: str) -> None:
    """Send `READY=1`, `STATUS=…`, …; nothing where no service manager asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.setblocking(False)  # it may be asked in a signal handler
        sock.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        sock.send("\n".join(lines).encode("utf-8", "replace"))
