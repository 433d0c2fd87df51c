"""A syslog server, as far as sinks see: it takes, and says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import SyslogReceiver, certificate
from tests.transforms.sinks.doubles.base import ReceiverDouble

__all__ = ["CefOverTls", "LeefInLines", "Syslog"]

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
