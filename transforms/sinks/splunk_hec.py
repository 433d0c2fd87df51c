"""Splunk's HTTP Event Collector: Enterprise, Cloud, and whatever else speaks it.

Contract: "Format events for HTTP Event Collector" and "Troubleshoot HTTP Event Collector"
(help.splunk.com). A request holds event objects one after another; the answer is
`{"text": …, "code": …}`. Of a batch with an invalid event, those before it may already be
indexed (moby/moby#35862), which no document says: all but the invalid one are sent again, so
they can arrive twice, with the same event id, but never not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from schemas.alert import Alert
from schemas.formats.hec import hec, hub_source
from transforms.delivery.http import HttpConnection, Response, check_url, compress, retry_after
from transforms.delivery.network import Tls
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    RejectItems,
    Retry,
    Sink,
    SinkSettings,
    Split,
    Stop,
    Verdict,
)

__all__ = ["SplunkHec", "SplunkHecSettings"]

# HEC's codes: what two public catalogues agree on.
_ACCEPTED = {0, 24, 25}  # 24, 25: accepted, although a queue nears its limit
_SETTINGS = {1, 2, 3, 4, 7, 10, 11, 14, 16, 21, 22}  # token, index, channel, …
_BAD_DATA = {5, 6, 12, 13, 15}
_BUSY = {8, 9, 18, 19, 20, 23, 26, 27}


class SplunkHecSettings(SinkSettings):
    """Splunk, through its HTTP Event Collector."""

    url: str = Field(
        description="Where the collector is: https://host:8088, or "
        "https://http-inputs-<stack>.splunkcloud.com:443. Without a path, "
        "/services/collector/event is meant."
    )
    token: SecretRef = Field(description="The collector's token: env:NAME or file:/path.")
    index: str = Field("", description="The index; without it, the token's default.")
    sourcetype: str = Field(
        "mscs:azure:eventhub",
        description="The source type; the default is what Splunk's add-on for Microsoft Cloud "
        "Services writes, so that its searches go on working.",
    )
    source: str = Field(
        "",
        description="The source; without it, `namespace/hub;` of the hub that the alert came from.",
    )
    host: str = Field("", description="The host; without it, the collector decides.")
    event_shape: Literal["body_wrapped", "raw", "cim"] = Field(
        "body_wrapped",
        description="`body_wrapped`: the alert under `body`, as the add-on writes it; `raw`: the "
        "alert itself; `cim`: the fields of the Common Information Model's Alerts, and the alert "
        "under `body`.",
    )
    max_bytes: int = Field(
        1_000_000, ge=1_000, description="Bytes of events in one request, before compression."
    )
    gzip: bool = Field(True, description="Compress requests.")
    tls: Tls = Field(Tls(), description="How the connection is secured.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url, path="/services/collector/event")


class SplunkHec(Sink[SplunkHecSettings]):
    """One collector."""

    kind = "splunk_hec"
    Settings = SplunkHecSettings

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.max_bytes)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings = self.settings
        return hec(
            alert,
            shape=settings.event_shape,
            source=settings.source or hub_source(source),
            index=settings.index,
            sourcetype=settings.sourcetype,
            host=settings.host,
        )

    def connect(self) -> Connection:
        return _Collector(self.settings)

    def probe(self, timeout: float) -> None:
        collector = _Collector(self.settings)
        try:
            collector.check_health(timeout)
        finally:
            collector.close()


class _Collector(Connection):
    def __init__(self, settings: SplunkHecSettings) -> None:
        self._token = settings.token.resolve().reveal()
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            raise SecretError(f"{settings.token}: a token is letters, digits and hyphens")
        self._path = urlsplit(settings.url).path
        self._gzip = settings.gzip
        headers = {"Authorization": f"Splunk {self._token}"}
        self._http = HttpConnection(settings.url, settings.tls, headers)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body = b"\n".join(payloads)
        headers = {"Content-Type": "application/json"}
        if self._gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        response = self._http.request("POST", self._path, body, headers, timeout)
        return self._judge(response, len(payloads))

    def check_health(self, timeout: float) -> None:
        """Raises OSError unless the collector says that it can take events."""
        path = self._path.partition("/services/collector")[0] + "/services/collector/health"
        response = self._http.request("GET", path, b"", {}, timeout)
        if response.status != 200:
            raise ConnectionError(self._say(response, _decode(response.body)))

    def close(self) -> None:
        self._http.close()

    def _judge(self, response: Response, count: int) -> Verdict:
        status, answer = response.status, _decode(response.body)
        code = answer.get("code")
        said = self._say(response, answer)
        if status == 200 and code in _ACCEPTED:
            return Accepted(warning=said if code else "")
        if 200 <= status < 400:
            # A redirect, a portal, or the wrong address: nothing was taken by a collector.
            return Stop(f"{said}: this is no answer of an event collector")
        if code in _SETTINGS or status in (401, 403, 404):
            return Stop(said)
        if status == 413:
            return Split(said)
        if code in _BAD_DATA or status in (400, 422):
            number = answer.get("invalid-event-number")
            if isinstance(number, int) and 0 <= number < count:
                return RejectItems({number: said}, taken=False)
            return Split(said)
        if code in _BUSY or status in (408, 425, 429) or status >= 500:
            return Retry(said, after=retry_after(response.headers))
        return Stop(said)

    def _say(self, response: Response, answer: dict[str, Any]) -> str:
        text = str(answer.get("text") or response.reason)
        if "code" in answer:
            text += f" (code {answer['code']})"
        return f"HTTP {response.status}: {text}".replace(self._token, "***")


def _decode(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
