"""Syslog servers: RFC 5424 or RFC 3164, or CEF or LEEF inside RFC 5424, over TCP, TLS or UDP.

Contract: RFC 5424 and RFC 3164 (the message); how it travels: `transforms.delivery.syslog`. Tests
send to real rsyslog and syslog-ng. Octet counting is the default, since with it nothing in an alert
can begin a second message; no message holds a newline anyway.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from schemas.alert import Alert
from schemas.formats.cef import cef, cef_iot
from schemas.formats.leef import leef
from schemas.formats.rfc3164 import rfc3164
from schemas.formats.rfc5424 import header, structured
from transforms.delivery.network import Tls
from transforms.delivery.syslog import ListenerSettings, SyslogSink

__all__ = ["Syslog", "SyslogSettings"]

_LINES = {"cef": cef, "cef_iot": cef_iot, "leef": leef}
_MOST = {
    "leef": 4096,  # what QRadar takes of a TCP payload unless told otherwise
    "rfc3164": 1024,  # what the RFC allows
}


class SyslogSettings(ListenerSettings):
    """A syslog server: rsyslog, syslog-ng, or a relay on the way to any other system."""

    protocol: Literal["tcp", "tls", "udp"] = Field(
        "tcp", description="How it is reached; `tls` if the `tls` section is there."
    )
    tls: Tls | None = Field(
        None,
        description="How the connection is secured; `cert` and `key` where it wants to know us.",
    )
    format: Literal["rfc5424", "rfc3164", "cef", "cef_iot", "leef"] = Field(
        "rfc5424",
        description="`rfc5424`: the main fields as structured data, the record's JSON as the "
        "message (its title and description, where that is too long); `rfc3164`: the same for "
        'older servers, the fields as name="value"; `cef`, `cef_iot`, `leef`: for a relay in front '
        "of a system that reads them (`cef_iot`: CEF, alerts of Defender for IoT as its sensors "
        "write them).",
    )
    framing: Literal["octet", "lf"] = Field(
        "octet", description="How messages are told apart: by their length, or by newlines."
    )
    max_bytes: int = Field(
        8000,
        ge=480,
        le=65_000,
        description="The longest message; longer ones are shortened. rsyslog takes 8096 bytes "
        "unless told otherwise, and splits what is longer into several events. With `rfc3164` "
        "1024, as its RFC says; with `leef` 4096, as QRadar does.",
    )
    entities: bool = Field(
        True,
        description="Whether CEF and LEEF say what a record mentions: addresses, accounts, "
        "processes, files. That costs about 0.2 ms an alert.",
    )
    app_name: str = Field(
        "alertbeam",
        description="The sender's name in the header; with `rfc3164` its letters and digits.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_follows_from_another(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("tls") is not None:
            given = {"protocol": "tls", **given}
        if isinstance(given, dict) and given.get("format") in _MOST:
            given = {"max_bytes": _MOST[given["format"]], **given}
        return given


class Syslog(SyslogSink[SyslogSettings]):
    """One server."""

    kind = "syslog"
    Settings = SyslogSettings
    example: ClassVar = {"address": "syslog.example.com:6514", "tls": {}}

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings, most = self.settings, self.settings.max_bytes
        if settings.format == "rfc3164":
            return rfc3164(alert, max_bytes=most, tag=settings.app_name, **self.names)
        names = {**self.names, "app_name": settings.app_name, "msgid": alert.kind}
        if settings.format == "rfc5424":
            return structured(alert, max_bytes=most, **names)
        head = header(alert, **names)
        say = _LINES[settings.format]
        return head + say(alert, max_bytes=most - len(head), entities=settings.entities)

    def find(self, event_id: str) -> str:
        if self.settings.format in ("rfc5424", "rfc3164"):
            return f'search for event_id="{event_id}"'
        return f"search for externalId={event_id}"
