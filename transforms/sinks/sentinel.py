"""Microsoft Sentinel: a table of its workspace, through the Logs Ingestion API.

Contract: "Logs Ingestion API in Azure Monitor", "Azure Monitor service limits" and the OpenAPI
description 2023-01-01 (MicrosoftDocs/azure-monitor-docs, Azure/azure-rest-api-specs): a JSON array,
at most 1 MB before and after compression, to a stream of a data collection rule; 204: taken. What
else is known of its answers is in the tests and troubleshooting guides of Microsoft's own clients.

A 204 comes before the rule has looked at the rows: what does not fit the stream is dropped later,
unseen. So a row has the stream's columns and no others (`deploy/azure/`), and no field that would
be truncated. There are no idempotent requests: one whose answer got lost comes again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, field_validator

from schemas.alert import Alert
from schemas.formats._shortened import shortened
from schemas.formats._text import cut
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
)
from transforms.delivery.network import Deadline
from transforms.entra import Bearer, Credential
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Rate,
    Refresh,
    Sink,
    Stop,
    Verdict,
    say,
)

__all__ = ["Sentinel", "SentinelSettings"]

_VERSION = "2023-01-01"
_MOST = 1_000_000  # bytes of a request; the service itself counts to 1,048,576
_RATE = Rate(records=None, requests=12_000 / 60, bytes=2e9 / 60)  # of a rule
_TABLES = {"sentinel_row": "AlertBeam_CL", "asim": "ASimAlertEventLogs"}
_SETTINGS = {"InvalidStream", "InvalidDcrImmutableId", "NotFound"}  # codes, of 400 too
_ADVICE = {
    403: "the role Monitoring Metrics Publisher on the rule is missing; a new one takes up to half "
    "an hour to hold",
    404: "is `endpoint` that of `rule`, and `stream` declared there?",
}
# Which tokens the clouds want, by the end of their endpoints.
_AUDIENCES = {"us": "https://monitor.azure.us", "cn": "https://monitor.azure.cn"}


class SentinelSettings(HttpSettings):
    """Microsoft Sentinel, through the Logs Ingestion API."""

    endpoint: str = Field(
        description="The rule's own logs ingestion endpoint, or that of a data collection "
        "endpoint: https://NAME.REGION-1.ingest.monitor.azure.com."
    )
    rule: str = Field(description="The data collection rule's immutable id: dcr-….")
    format: Literal["sentinel_row", "asim"] = Field(
        "sentinel_row",
        description="`sentinel_row`: all that alertbeam understood and the record itself, for the "
        "table AlertBeam_CL; `asim`: a row of the normalized table ASimAlertEventLogs.",
    )
    stream: str = Field(
        "",
        description="The stream that the rule declares; without it Custom-AlertBeam_CL or "
        "Custom-ASimAlertEventLogs, as in deploy/azure.",
    )
    credential: Credential = Field(
        "default",
        description="`default`: what azure-identity finds, a managed identity or the environment; "
        "or an application's client_secret.",
    )

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str) -> str:
        if urlsplit(url := check_url(endpoint, path="")).path.strip("/"):
            raise ValueError("the endpoint is given without a path: https://….ingest.monitor…")
        return url

    @field_validator("rule")
    @classmethod
    def _check_rule(cls, rule: str) -> str:
        if not re.fullmatch("dcr-[0-9a-fA-F]{32}", rule):
            raise ValueError(
                "the rule's immutable id is needed, dcr- and 32 hexadecimal digits: not its name"
            )
        return rule

    @field_validator("stream")
    @classmethod
    def _check_stream(cls, stream: str) -> str:
        if stream and not re.fullmatch("(Custom|Microsoft)-[A-Za-z0-9_-]{1,100}", stream):
            raise ValueError("a stream is named Custom-…, as the rule declares it")
        return stream


class Sentinel(Sink[SentinelSettings]):
    """One stream of a rule."""

    kind = "sentinel"
    Settings = SentinelSettings
    example: ClassVar = {
        "endpoint": "https://alertbeam-x1y2.westeurope-1.ingest.monitor.azure.com",
        "rule": "dcr-000a00a000a00000a000000aa000a0aa",
    }

    @property
    def limits(self) -> Limits:
        return Limits(_MOST - 1, max_record_bytes=_MOST - 1, rate=_RATE)  # an array has one bracket

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return say(self.settings.format, alert, source, partition)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if len(self.encode(alert, source, partition)) <= most:
            return None  # its fields were cut already, and it is no shorter with fewer
        eighth = most // 8
        texts = {"title": cut(alert.title, eighth), "description": cut(alert.description, eighth)}
        room = most // 2
        while room > 100:
            try:
                small = msgspec.structs.replace(alert, raw=shortened(alert, room), **texts)
            except ValueError:
                return None
            row: dict[str, Any] = msgspec.json.decode(self.encode(small, source, partition))
            if "RawEventBytes" in row:  # how long it was before it was cut
                row["RawEventBytes"] = len(alert.raw)
            said = msgspec.json.encode(row)
            if len(said) <= most:
                return said
            room //= 2
        return None

    def connect(self) -> Connection:
        return _Rule(self.settings)

    def probe(self, timeout: float) -> None:
        self._ask(timeout)

    def check(self, timeout: float) -> str:
        said = self._ask(timeout)
        return f"Entra gives a token; the answer to a request without a record is {said}"

    @property
    def target(self) -> str:
        return f"{super().target}, {_stream(self.settings)}"

    def find(self, event_id: str) -> str:
        if self.settings.format == "asim":
            return f'{_TABLES["asim"]} | where AdditionalFields has "{event_id}"'
        table = _stream(self.settings).partition("-")[2].removesuffix("_CL")
        return f'{table}_CL | where EventId == "{event_id}"'

    def _ask(self, timeout: float) -> str:
        rule = _Rule(self.settings)
        try:
            return rule.ask(timeout)
        finally:
            rule.close()


def _stream(settings: SentinelSettings) -> str:
    return settings.stream or f"Custom-{_TABLES[settings.format]}"


class _Rule(Connection):
    def __init__(self, settings: SentinelSettings) -> None:
        host = urlsplit(settings.endpoint).hostname or ""
        audience = _AUDIENCES.get(host.rpartition(".")[2], "https://monitor.azure.com")
        self._gzip = settings.gzip
        self._path = (
            f"/dataCollectionRules/{settings.rule}/streams/{_stream(settings)}"
            f"?api-version={_VERSION}"
        )
        headers = {"Content-Type": "application/json"}
        self._http = HttpConnection(settings.endpoint, settings, headers)
        self._bearer = Bearer(settings.credential, f"{audience}/.default", settings.timeout)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        try:
            response = self._post(b"[%b]" % b",".join(payloads), timeout)
        except SecretError as error:
            return Refresh(str(error))
        said, code = self._say(response)
        if 200 <= response.status < 300:
            if response.body:
                return Stop(f"{said}: this is no answer of the Logs Ingestion API")
            return Accepted(said=said)
        if response.status == 400 and code in _SETTINGS:
            return Stop(said)
        return judge(response, said)

    def ask(self, timeout: float) -> str:
        """What is said to a request without a record. Raises SecretError, or OSError unless the
        token was taken, and the rule and the stream were found."""
        response = self._post(b"[]", timeout)
        said, code = self._say(response)
        # 500 is what it says to an empty body, and may say to an empty array.
        if response.status not in (204, 400, 500) or code in _SETTINGS:
            raise ConnectionError(said)
        return said

    def close(self) -> None:
        self._http.close()
        self._bearer.close()

    def _post(self, body: bytes, timeout: float) -> Response:
        deadline = Deadline(timeout)
        headers = {"Authorization": self._bearer.header()}
        if self._gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        return self._http.request("POST", self._path, body, headers, deadline.left())

    def _say(self, response: Response) -> tuple[str, str]:
        """The answer in a line, without the token; and its code."""
        error = _error(response.body)
        code = str(error.get("code") or response.headers.get("x-ms-error-code") or "")
        text = self._bearer.hide(str(error.get("message") or response.reason))
        advice = _ADVICE.get(404 if code in _SETTINGS else response.status, "")
        parts = [f"HTTP {response.status}", self._bearer.hide(code), text[:200], advice]
        return ": ".join(filter(None, parts)), code


def _error(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
