r"""IBM QRadar: LEEF 2.0 to a syslog listener, or to its HTTP Receiver.

Contract (ibm.com/docs/en/dsm): "LEEF event components": the header in front of LEEF is a syslog
header's first three fields, and its host the log source's identifier; "TLS Syslog" and "HTTP
Receiver protocol configuration options": a POST is one event, unless the log source has a Message
Pattern that says where events begin. The one for `batch: lines` is `LEEF:2\.0\|[^\t\n]*\tdevTime=`:
no text of an alert can match it, since a value holds no tab, and `devTime` is never behind another.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from schemas.alert import Alert
from schemas.formats.leef import leef
from schemas.formats.rfc5424 import header
from transforms.delivery.posts import Posts, SyslogOrPostSettings, SyslogOrPostSink
from transforms.sinks.base import Limits

__all__ = ["Qradar", "QradarSettings"]


class QradarSettings(SyslogOrPostSettings):
    """IBM QRadar, by TLS syslog or its HTTP Receiver."""

    address: str = Field(
        "", description="host:port of a syslog listener; that of TLS Syslog is commonly 6514."
    )
    url: str = Field(
        "", description="Instead of `address`: https://host:12469 of an HTTP Receiver."
    )
    batch: Literal["one", "lines"] = Field(
        "one",
        description="With `url`, what a POST holds. `one`: an event; `lines`: one on each line, "
        r"for a log source whose Message Pattern is `LEEF:2\.0\|[^\t\n]*\tdevTime=`.",
    )
    max_records: int = Field(100, ge=1, description="Events in one POST, with `batch: lines`.")
    max_bytes: int = Field(
        4096,
        ge=480,
        le=32_767,
        description="The longest event; longer ones are shortened. QRadar takes this much of a "
        "TCP payload unless told otherwise, and splits what is longer into several events.",
    )
    hostname: str = Field(
        "",
        description="The host in the header, by which QRadar finds the log source; without it, "
        "this machine's.",
    )

    @property
    def posted(self) -> tuple[str, ...]:
        return (*super().posted, "batch", "max_records")


class Qradar(SyslogOrPostSink[QradarSettings]):
    """One listener, or one receiver."""

    kind = "qradar"
    Settings = QradarSettings
    example: ClassVar = {"address": "qradar.example.com:6514", "hostname": "alertbeam"}

    @property
    def limits(self) -> Limits:
        if self.settings.url and self.settings.batch == "lines":
            return Limits(256 * 1024, self.settings.max_records)
        return super().limits

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings, head = self.settings, b""
        if settings.address:
            head = b" ".join(header(alert, **self.names).split(b" ")[:3]) + b" "
        most = settings.max_bytes - len(head)
        return head + leef(alert, max_bytes=most, entities=settings.entities)

    def post(self) -> Posts:
        return Posts(self.settings.url, self.settings, {"Content-Type": "text/plain"})

    def find(self, event_id: str) -> str:
        where = f"UTF8(payload) ILIKE '%externalId={event_id}%'"
        return f"run in Advanced Search: SELECT * FROM events WHERE {where} LAST 24 HOURS"  # noqa: S608 - a user's to type
