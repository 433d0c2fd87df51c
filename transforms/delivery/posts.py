"""Systems that listen for syslog, or else take the same events by HTTP: one POST, one event.

Contract of the POST: RFC 9110. What its codes mean is `transforms.delivery.http.judge`'s.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
)
from transforms.delivery.network import Tls
from transforms.delivery.syslog import ListenerSettings, SyslogSink
from transforms.sinks.base import Connection, Limits, Verdict, shown

__all__ = ["Posts", "SyslogOrPostSettings", "SyslogOrPostSink"]

_QUOTED = 200  # characters of an answer's body that are repeated
_SYSLOG = ("protocol", "framing", "facility", "hostname")
_HTTP = ("gzip", "proxy", "proxy_credentials")


class SyslogOrPostSettings(ListenerSettings, HttpSettings):
    """What the settings of such systems share."""

    address: str = Field("", description="host:port that it listens on for syslog.")
    url: str = Field("", description="Instead of `address`: where it takes events by HTTP.")
    tls: Tls = Field(Tls(), description="How the connection is secured.")
    gzip: bool = Field(
        False,
        description="Compress requests: only where something in front of it unpacks them.",
    )

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        return super()._check_address(address) if address else ""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url, path="/") if url else ""

    @model_validator(mode="after")
    def _one_way(self) -> SyslogOrPostSettings:
        if bool(self.address) == bool(self.url):
            raise ValueError("give either `address` or `url`")
        way = "url" if self.url else "address"
        if wrong := self.given(*(_SYSLOG if self.url else self.posted)):
            raise ValueError(f"`{wrong[0]}` means nothing with `{way}`")
        return self

    @property
    def posted(self) -> tuple[str, ...]:
        """Settings that are about HTTP alone."""
        return _HTTP


P = TypeVar("P", bound=SyslogOrPostSettings)


class SyslogOrPostSink(SyslogSink[P]):
    """A sink that speaks syslog to an `address`, and HTTP to a `url`."""

    @property
    def limits(self) -> Limits:
        return Limits(256 * 1024, 1) if self.settings.url else super().limits

    @abc.abstractmethod
    def post(self) -> Posts:
        """A connection to `url`. Secrets are resolved here."""

    def connect(self) -> Connection:
        return self.post() if self.settings.url else super().connect()

    def probe(self, timeout: float) -> None:
        """Only that it can be reached: whatever more it was asked, it would take for an event."""
        if self.settings.url:
            self.post().reach(timeout)
        else:
            super().probe(timeout)

    def check(self, timeout: float) -> str:
        if not self.settings.url:
            return super().check(timeout)
        posts = self.post()
        posts.reach(timeout)
        verified = "; its certificate is verified" if posts.verified else ""
        return (
            f"it can be reached{verified}; whether address and credentials are right it tells "
            f"only of what it is sent: alertbeam sinks test {self.name}"
        )

    @property
    def target(self) -> str:
        return self.settings.address or shown(self.settings.url)


class Posts(Connection):
    """POSTs to one URL; several events, where it takes several, one on each line.

    secrets: what an answer may quote, and is not repeated.
    """

    def __init__(
        self,
        url: str,
        how: HttpSettings,
        headers: Mapping[str, str],
        secrets: Sequence[str] = (),
    ) -> None:
        parts = urlsplit(url)
        self.verified = parts.scheme == "https" and how.tls.verify
        self._path = parts.path
        self._gzip = how.gzip
        self._http = HttpConnection(url, how, headers)
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body = b"\n".join(payloads)
        headers: dict[str, str] = {}
        if self._gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        response = self._http.request("POST", self._path, body, headers, timeout)
        return judge(response, self._say(response))

    def reach(self, timeout: float) -> None:
        """Connect, and say nothing. Raises OSError."""
        self._http.reach(timeout)

    def close(self) -> None:
        self._http.close()

    def _say(self, response: Response) -> str:
        """The answer in a line, without our secrets."""
        text = f"{response.reason}: {response.body.decode('utf-8', 'replace')}"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        shown = "".join(c if c.isprintable() else " " for c in text[: 4 * _QUOTED])
        return f"HTTP {response.status} {' '.join(shown.split())[:_QUOTED].rstrip(': ')}"
