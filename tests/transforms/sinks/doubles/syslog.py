"""A syslog server, as far as sinks see: it takes, and says nothing.

`Strict` reads every message, for systems that want more of one than a header.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import SyslogReceiver, certificate
from tests.transforms.sinks.doubles.base import ReceiverDouble

__all__ = ["CefOverTls", "LeefInLines", "Rfc3164", "Strict", "Syslog", "identified"]

_SILENT = "syslog has no answers: a server takes what comes, or breaks the connection"


class Syslog(ReceiverDouble):
    kind = "syslog"
    system = "a double of a syslog server, written from RFC 5424 and RFC 6587"
    answers = False
    faults: ClassVar[Mapping[str, Any]] = {
        name: ReceiverDouble.faults[name]
        for name in ("timeout", "reset mid-body", "reset after taking", "half-closed")
    }
    lacks: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            (
                "status codes",
                "slow drip",
                "partial rejection",
                "unnamed rejection",
                "Retry-After in seconds",
                "Retry-After as a date",
                "quoted secret",
            ),
            _SILENT,
        ),
        "too large": "a message is shortened to `max_bytes` before it is sent; none is refused",
        "credentials renewed": "syslog has none but TLS certificates",
    }
    # Without an acknowledgement, what was sent last is sent again whenever a connection breaks.
    may_repeat = ReceiverDouble.may_repeat | {"timeout", "reset mid-body", "half-closed", "outage"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = SyslogReceiver().start()

    def settings(self) -> dict[str, Any]:
        return {"address": self.receiver.address}

    def ids(self) -> list[str]:
        received = self.receiver.received
        found: list[str] = self.receiver.ids()
        assert len(found) >= received, f"a forged one: {self.receiver.messages()}"
        return found


class CefOverTls(Syslog):
    name = "syslog_cef"
    system = f"{Syslog.system}, over TLS (RFC 5425), with CEF"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver.stop()
        self.tls = certificate(folder)
        self.receiver = SyslogReceiver(tls=self.tls).start()

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "format": "cef", "tls": {"ca": f"file:{self.tls[0]}"}}


class LeefInLines(Syslog):
    name = "syslog_leef"
    system = f"{Syslog.system}, framed by newlines, with LEEF"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "format": "leef", "framing": "lf"}


def identified(read: Callable[[bytes], str], message: bytes) -> str:
    """The id of what arrived; why there is none, where it cannot be read."""
    try:
        return read(message)
    except (ValueError, KeyError) as error:
        return f"unparsed, {error!r}: {message[:300]!r}"


class _Reader(SyslogReceiver):
    def __init__(self, read: Callable[[bytes], str], **options: Any) -> None:
        super().__init__(**options)
        self._read = read

    def ids(self) -> list[str]:
        return [identified(self._read, message) for message in self.lines()]


class Strict(Syslog, abc.ABC):
    """A listener for TLS."""

    def __init__(self, folder: Path) -> None:
        ReceiverDouble.__init__(self, folder)
        self.tls = certificate(folder)
        self.receiver = _Reader(self.read, tls=self.tls).start()

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "tls": {"ca": f"file:{self.tls[0]}"}}

    @staticmethod
    @abc.abstractmethod
    def read(message: bytes) -> str:
        """The id of the alert that a message is of. Raises ValueError where it cannot be read."""


_RFC3164 = re.compile(
    rb"<(?:\d|[1-9]\d|1[0-8]\d|19[01])>"
    rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?: [1-9]|[12]\d|3[01]) "
    rb"\d\d:\d\d:\d\d [!-~]+ [A-Za-z0-9]{1,32}: "
    rb'event_id="([0-9a-f]{32})" [^\x00-\x1f\x7f]*'
)


class Rfc3164(Strict):
    name = "syslog_rfc3164"
    system = "a double of a syslog server, written from RFC 3164, framed by newlines, over TLS"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "format": "rfc3164", "framing": "lf"}

    @staticmethod
    def read(message: bytes) -> str:
        found = _RFC3164.fullmatch(message)
        if found is None or len(message) > 1024:
            raise ValueError("not a packet of RFC 3164")
        return found[1].decode()
