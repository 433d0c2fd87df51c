"""ArcSight: CEF to the syslog listener of a SmartConnector.

Contract: "Implementing ArcSight Common Event Format", revision 25: the prefix, which is the header
of RFC 3164 without a tag; escapes, keys and their lengths: `schemas.formats.cef`. How it travels:
`transforms.delivery.syslog`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.alert import Alert
from schemas.formats import rfc3164, rfc5424
from schemas.formats.cef import cef, cef_iot
from transforms.delivery.syslog import ListenerSettings, SyslogSink

__all__ = ["Arcsight", "ArcsightSettings"]

_PROFILES = {"dictionary": cef, "iot_compat": cef_iot}


class ArcsightSettings(ListenerSettings):
    """ArcSight, by CEF to a SmartConnector."""

    address: str = Field(description="host:port that the SmartConnector listens on.")
    profile: Literal["dictionary", "iot_compat"] = Field(
        "dictionary",
        description="`dictionary`: the keys of ArcSight's own dictionary; `iot_compat`: alerts of "
        "Defender for IoT as its sensors write them, for rules that were made for those, all "
        "others as with `dictionary`.",
    )
    header: Literal["rfc3164", "rfc5424"] = Field(
        "rfc3164",
        description="What stands in front of CEF: `rfc3164` is what CEF's document says; `rfc5424` "
        "bears year and time zone, and is for the Syslog NG connector.",
    )
    max_bytes: int = Field(
        8000,
        ge=1000,
        le=65_000,
        description="The longest message; longer ones are shortened: optional keys go, then the "
        "description is cut.",
    )


class Arcsight(SyslogSink[ArcsightSettings]):
    """One SmartConnector."""

    kind = "arcsight"
    Settings = ArcsightSettings
    example: ClassVar = {"address": "smartconnector.example.com:6514"}

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings = self.settings
        names: dict[str, Any] = self.names
        if settings.header == "rfc3164":
            head = rfc3164.header(alert, **names)
        else:
            head = rfc5424.header(alert, **names, msgid=alert.kind)
        say = _PROFILES[settings.profile]
        return head + say(
            alert, max_bytes=settings.max_bytes - len(head), entities=settings.entities
        )

    def find(self, event_id: str) -> str:
        return f"in an active channel, filter by External ID = {event_id}; in Logger: {event_id}"
