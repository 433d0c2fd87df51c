"""Sinks that encode as the real ones do and send nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transforms.sinks.base import Accepted, Connection, Sink, Verdict
from transforms.sinks.splunk_hec import SplunkHec, SplunkHecSettings
from transforms.sinks.syslog import Syslog, SyslogSettings

__all__ = ["sinks"]


class _Nowhere(Connection):
    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        return Accepted()


class _Hec(SplunkHec):
    def connect(self) -> Connection:
        return _Nowhere()


class _Syslog(Syslog):
    def connect(self) -> Connection:
        return _Nowhere()


def sinks() -> list[Sink[Any]]:
    """A collector, and a syslog server that is told CEF."""
    hec = SplunkHecSettings.model_validate(
        {"url": "https://127.0.0.1:1", "token": "env:NONE", "patience": 60}
    )
    cef = SyslogSettings.model_validate({"address": "127.0.0.1:1", "format": "cef", "patience": 60})
    return [_Hec("splunk", hec), _Syslog("siem", cef)]
