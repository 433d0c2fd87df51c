"""Logz.io, through its bulk listener.

Contract: "HTTP", "Bulk uploads over HTTP/HTTPS" (docs.logz.io). A request holds a JSON object a
line. A 400 is partial: it counts the lines that were taken, malformed, oversized and empty, and
does not say which; those that were taken would be there twice if they came again, since nothing
tells them apart. So a 400 is never sent again. Which lines were refused is found out where that can
be (the oversized ones are the longest); where it cannot, all of the request become dead letters
that say so, most of them delivered: a dead letter can be looked up, and replayed, while an alert
that only seems delivered is lost. Lines as `schemas.formats.logz_io` writes them leave the listener
nothing to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import quote, urlsplit

import msgspec
from pydantic import Field, field_validator

from schemas.alert import Alert
from schemas.formats.logz_io import LINE_BYTES, logz_io
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
)
from transforms.delivery.line import printable
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    RejectItems,
    Shrink,
    Sink,
    Stop,
    Verdict,
)

__all__ = ["LogzIo", "LogzIoSettings"]

_PORT = 8071
_QUOTED = 200  # characters of an answer that are repeated


class LogzIoSettings(HttpSettings):
    """Logz.io, through its bulk listener."""

    url: str = Field(
        description="The listener of the account's region: https://listener.logz.io:8071 in the "
        "US (East), https://listener-eu.logz.io:8071, -au, -ca, -uk, -nl, -wa elsewhere."
    )
    token: SecretRef = Field(
        description="The account's log shipping token: env:NAME or file:/path."
    )
    log_type: str = Field(
        "alertbeam",
        pattern=r"^[A-Za-z0-9_.-]{1,100}$",
        description="The `type` that logs get; Logz.io parses some types in ways of its own.",
    )
    max_bytes: int = Field(
        1_000_000,
        ge=1_000,
        le=10_485_760,
        description="Bytes of lines in one request, before compression.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(check_url(url, path=""))
        if parts.path.strip("/"):
            raise ValueError("a listener has no path: https://listener.logz.io:8071")
        return f"{parts.scheme}://{parts.netloc}" + ("" if parts.port else f":{_PORT}")


class LogzIo(Sink[LogzIoSettings]):
    """One account."""

    kind = "logz_io"
    Settings = LogzIoSettings
    example: ClassVar = {"url": "https://listener.logz.io:8071", "token": "env:LOGZ_IO_TOKEN"}

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.max_bytes, max_record_bytes=LINE_BYTES + 1)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return logz_io(alert)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        try:
            if len(logz_io(alert)) <= most:
                return None  # its length is not what is wrong with it
            return logz_io(alert, most)
        except ValueError:
            return None

    def connect(self) -> Connection:
        return _Listener(self.settings)

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        listener = _Listener(self.settings)
        try:
            listener.ask(timeout)
        finally:
            listener.close()
        return "the listener answers; it knows the token"

    def find(self, event_id: str) -> str:
        return f'search type:"{self.settings.log_type}" AND microsoft.event_id:"{event_id}"'


class _Lines(msgspec.Struct):
    """What a 400 counts."""

    successful: int = msgspec.field(name="successfulLines", default=0)
    malformed: int = msgspec.field(name="malformedLines", default=0)
    oversized: int = msgspec.field(name="oversizedLines", default=0)
    empty: int = msgspec.field(name="emptyLogLines", default=0)

    @property
    def refused(self) -> int:
        return self.malformed + self.oversized + self.empty

    def __str__(self) -> str:
        return (
            f"of {self.successful + self.refused} lines {self.successful} were taken, "
            f"{self.malformed} malformed, {self.oversized} oversized, {self.empty} empty"
        )


_counts = msgspec.json.Decoder(_Lines).decode


class _Listener(Connection):
    def __init__(self, settings: LogzIoSettings) -> None:
        self._token = settings.token.resolve().reveal()
        if not re.fullmatch(r"[!-~]+", self._token):
            raise SecretError(f"{settings.token}: a token is one word of printable ASCII")
        self._gzip = settings.gzip
        self._path = f"/?token={quote(self._token, safe='')}&type={settings.log_type}"
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        self._http = HttpConnection(settings.url, settings, headers)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        response = self._post(b"\n".join(payloads) + b"\n", timeout)
        said = self._say(response)
        if response.status == 200:
            return Accepted(said=said)
        if 200 < response.status < 300 or response.status == 422:
            return Stop(said)
        if response.status == 400:
            lines = _lines(response)
            # Without numbers it is about the request, not about lines.
            return Stop(said) if lines is None else _partial(payloads, lines, said)
        return judge(response, said)

    def ask(self, timeout: float) -> None:
        """Send an empty line, which is no log. Raises OSError unless it is what is refused."""
        response = self._post(b"\n", timeout)
        if response.status == 200 or (response.status == 400 and _lines(response)):
            return
        raise ConnectionError(self._say(response))

    def close(self) -> None:
        self._http.close()

    def _post(self, body: bytes, timeout: float) -> Response:
        headers = {}
        if self._gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        return self._http.request("POST", self._path, body, headers, timeout)

    def _say(self, response: Response) -> str:
        """The answer in a line, without the token."""
        lines = _lines(response) if response.status == 400 else None
        text = str(lines) if lines else response.body.decode("utf-8", "replace")
        text = re.sub(r"<[^>]*>", " ", text)  # of a proxy's page only the words
        for secret in (self._token, quote(self._token, safe="")):
            text = text.replace(secret, "***")
        told = " ".join(printable(text, _QUOTED).split()) or response.reason
        if response.status == 401:
            told += ": `token` is to be a log shipping token of an account in this region"
        return f"HTTP {response.status}: {told}"


def _lines(response: Response) -> _Lines | None:
    try:
        lines = _counts(response.body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return lines if lines.successful or lines.refused else None


def _partial(payloads: Sequence[bytes], lines: _Lines, said: str) -> Verdict:
    """What a 400 means of each line."""
    everything = range(len(payloads))
    if not lines.refused:
        return Accepted(warning=said, said=said)
    if not lines.successful:  # nothing was taken: nothing can be there twice
        if lines.oversized == lines.refused:
            return Shrink(said)
        return RejectItems(dict.fromkeys(everything, said), taken=True)
    longest = sorted(everything, key=lambda at: -len(payloads[at]))
    refused, taken = longest[: lines.refused], longest[lines.refused :]
    sure = lines.oversized == lines.refused and len(payloads) == lines.successful + lines.refused
    if sure and len(payloads[refused[-1]]) > len(payloads[taken[0]]):
        return RejectItems(dict.fromkeys(refused, said), taken=True)
    unknown = f"{said}; which ones it does not say: this one may have been taken"
    return RejectItems(dict.fromkeys(everything, unknown), taken=True)
