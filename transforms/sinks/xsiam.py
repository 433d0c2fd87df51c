"""Palo Alto Networks Cortex XSIAM (and XDR): records, to an HTTP log collector.

Contract: "Set up an HTTP log collector to receive logs" (docs-cortex.paloaltonetworks.com). A
request holds records, one a line, gzipped or not as the collector was set up; its answer is about
the request as a whole, and no record is ever refused: so what is refused is about the settings,
and nothing is dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats._shortened import shortened
from transforms.delivery.cortex import Cortex, decoded
from transforms.delivery.http import HttpSettings, check_url, judge
from transforms.secrets import SecretRef
from transforms.sinks.base import (
    Connection,
    FormatName,
    Limits,
    Rate,
    Sink,
    Split,
    Stop,
    Verdict,
    say,
)

__all__ = ["Xsiam", "XsiamSettings"]

_JSON = "application/json"
_MOST_RECORD = 5_000_000  # bytes; documented
_REQUESTS = 400  # a second, of a customer; documented
_ADVICE = {
    401: "the key is wrong, or the collector is disabled or deleted",
    404: "there is no collector at this address",
    500: "if it stays: Compression and Log Format of the collector must be what `gzip` and "
    "`format` say",
}


class XsiamSettings(HttpSettings):
    """Palo Alto Networks Cortex XSIAM or XDR, as records, through an HTTP log collector."""

    url: str = Field(
        description="The collector's address, as XSIAM shows it: https://api-TENANT.xdr.REGION."
        "paloaltonetworks.com/logs/v1/event. Without a path, /logs/v1/event is meant."
    )
    key: SecretRef = Field(description="The collector's token: env:NAME or file:/path.")
    key_id: str = Field(
        "",
        description="An id to send along as `x-xdr-auth-id`. XSIAM's documentation knows none for "
        "collectors; some that stand before one may.",
        pattern=r"^[0-9]*$",
    )
    gzip: bool = Field(
        True,
        description="Whether the collector's Compression is gzip. It takes nothing else than what "
        "it was set to.",
    )
    format: FormatName = Field(
        "ndjson",
        description="How a record is written: a format of JSON, where the collector's Log Format "
        "is JSON; `cef` or `leef` where it is that; any where it is Raw. `ndjson`: what alertbeam "
        "understood, and the record itself under `raw`.",
    )
    dataset: str = Field(
        "microsoft_alertbeam_raw",
        description="The dataset that the collector fills: VENDOR_PRODUCT_raw, by its Vendor and "
        "Product. Only named to people.",
        pattern=r"^[A-Za-z0-9_]+$",
    )
    max_bytes: int = Field(
        1_000_000,
        ge=1_000,
        le=10_000_000,
        description="Bytes of records in one request, before compression. XSIAM takes 10 MB, and "
        "recommends 1.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url, path="/logs/v1/event")


class Xsiam(Sink[XsiamSettings]):
    """One collector."""

    kind = "xsiam"
    Settings = XsiamSettings
    example: ClassVar = {
        "url": "https://api-contoso.xdr.eu.paloaltonetworks.com",
        "key": "env:XSIAM_COLLECTOR_KEY",
    }

    @property
    def limits(self) -> Limits:
        return Limits(
            self.settings.max_bytes,
            max_record_bytes=_MOST_RECORD,
            rate=Rate.model_validate({"requests": _REQUESTS}),
        )

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        # A raw record may have line breaks, between its tokens.
        return say(self.settings.format, alert, source, partition).translate(None, b"\r\n")

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if FORMATS[self.settings.format].media_type != _JSON:
            return None
        try:
            return shortened(alert, most)
        except ValueError:
            return None

    def connect(self) -> Connection:
        return _Collector(self.settings)

    def probe(self, timeout: float) -> None:
        """Only that it can be reached: whatever more it was asked, it could take for a record."""
        _Collector(self.settings).reach(timeout)

    def check(self, timeout: float) -> str:
        self.probe(timeout)
        return (
            "it can be reached; whether address and credentials are right it tells only of what "
            f"it is sent: alertbeam sinks test {self.name}"
        )

    @property
    def target(self) -> str:
        return f"{super().target}, dataset {self.settings.dataset}"

    def find(self, event_id: str) -> str:
        if self.settings.format == "raw":
            return "look for the record's own id: the format `raw` does not bear alertbeam's"
        where = f'id = "{event_id}"'
        if self.settings.format != "ndjson":
            where = f'_raw_log contains "{event_id}"'
        return f"dataset = {self.settings.dataset} | filter {where}"


class _Collector(Connection):
    def __init__(self, settings: XsiamSettings) -> None:
        parts = urlsplit(settings.url)
        self._path = parts.path
        self._content = FORMATS[settings.format].media_type
        root = f"{parts.scheme}://{parts.netloc}"
        self._cortex = Cortex(root, settings, settings.key, settings.key_id)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body = b"\n".join(payloads)
        response = self._cortex.ask("POST", self._path, body, timeout, content=self._content)
        said = self._cortex.say(response, _ADVICE.get(response.status, ""))
        if 200 <= response.status < 300 and not _is_taken(decoded(response)):
            return Stop(f"{said}: this is no answer of a collector")
        verdict = judge(response, said)
        return Stop(said) if isinstance(verdict, Split) else verdict

    def reach(self, timeout: float) -> None:
        self._cortex.reach(timeout)

    def close(self) -> None:
        self._cortex.close()


def _is_taken(answer: Any) -> bool:
    """`{"error": "false"}`, or `{"ok": "true"}`: editions of the documentation differ."""
    if not isinstance(answer, Mapping) or not answer.keys() & {"error", "ok"}:
        return False
    error, ok = answer.get("error", "false"), answer.get("ok", "true")
    return str(error).lower() == "false" and str(ok).lower() == "true"
