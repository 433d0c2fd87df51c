"""LogRhythm: flat JSON to a webhook (Open Collector, Axon), or JSON or CEF by syslog.

Contract: the Open Collector's Webhook Beat takes POSTs of one JSON object (`/webhook` on port 8085,
`application/json`, 429 when it is busy), as `Send-LrSdpWebhook` of LogRhythm.Tools sends them;
Axon's Webhook collector ("Configure the Webhook Collector in Axon", docs.logrhythm.com/axon) wants
a user's password or a token besides. The fields: `schemas.formats.logrhythm`. Syslog: the listener
of a System Monitor agent, or what stands in front of an Open Collector.
"""

from __future__ import annotations

import base64
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from schemas.alert import Alert
from schemas.formats.cef import cef
from schemas.formats.logrhythm import logrhythm
from schemas.formats.rfc5424 import header
from transforms.delivery.posts import Posts, SyslogOrPostSettings, SyslogOrPostSink
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import Limits

__all__ = ["Logrhythm", "LogrhythmSettings"]


class LogrhythmSettings(SyslogOrPostSettings):
    """LogRhythm SIEM (Open Collector, System Monitor agent) and LogRhythm Axon."""

    address: str = Field("", description="host:port of a syslog listener.")
    url: str = Field(
        "",
        description="Instead of `address`: that of the webhook; of an Open Collector "
        "https://host:8085/webhook.",
    )
    credentials: SecretRef | None = Field(
        None, description="`user:password`, where the webhook wants Basic authentication."
    )
    token: SecretRef | None = Field(None, description="The token, where it wants one.")
    token_header: str = Field(
        "Authorization",
        pattern=r"^[A-Za-z][A-Za-z0-9-]*$",
        description="The header that bears the token: in `Authorization` as `Bearer TOKEN`, in any "
        "other as it is.",
    )
    format: Literal["json", "cef"] = Field(
        "json", description="With `address`: flat JSON, or CEF. A webhook takes JSON alone."
    )
    beat: str = Field(
        "webhookbeat_alertbeam",
        min_length=1,
        max_length=60,
        description="The log source's name in the JSON: `fullyqualifiedbeatname`.",
    )
    max_bytes: int = Field(
        8000,
        ge=480,
        le=1_000_000,
        description="The longest event; longer ones are shortened: first the record itself goes. "
        "With `address` 65,000 at most.",
    )

    @model_validator(mode="after")
    def _fit(self) -> LogrhythmSettings:
        if self.credentials and self.token:
            raise ValueError("give either `credentials` or `token`")
        if self.url and self.format != "json":
            raise ValueError("a webhook takes JSON alone")
        if self.address and self.max_bytes > 65_000:
            raise ValueError("a syslog message has 65,000 bytes at most")
        return self

    @property
    def posted(self) -> tuple[str, ...]:
        return (*super().posted, "credentials", "token", "token_header")


class Logrhythm(SyslogOrPostSink[LogrhythmSettings]):
    """One collector."""

    kind = "logrhythm"
    Settings = LogrhythmSettings
    example: ClassVar = {"url": "https://opencollector.example.com:8085/webhook"}

    @property
    def limits(self) -> Limits:
        if self.settings.url:
            return Limits(max(256 * 1024, self.settings.max_bytes + 1), 1)
        return super().limits

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings = self.settings
        if settings.url:
            return self._json(alert, settings.max_bytes)
        head = header(alert, **self.names, msgid=alert.kind)
        most = settings.max_bytes - len(head)
        if settings.format == "cef":
            return head + cef(alert, max_bytes=most, entities=settings.entities)
        return head + self._json(alert, most)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if self.settings.address or most >= self.settings.max_bytes:
            return None
        try:
            return self._json(alert, most)
        except ValueError:
            return None

    def post(self) -> Posts:
        settings = self.settings
        headers = {"Content-Type": "application/json"}
        secrets: list[str] = []
        if settings.credentials:
            said = _printable(settings.credentials)
            user, colon, password = said.partition(":")
            if not (user and colon):
                raise SecretError(f"{settings.credentials}: user:password is needed")
            basic = base64.b64encode(said.encode()).decode()
            headers["Authorization"] = f"Basic {basic}"
            secrets = [said, password, basic]
        if settings.token:
            token = _printable(settings.token)
            bearer = settings.token_header.lower() == "authorization"
            headers[settings.token_header] = f"Bearer {token}" if bearer else token
            secrets = [token]
        return Posts(settings.url, settings, headers, secrets)

    def find(self, event_id: str) -> str:
        if self.settings.format == "cef":
            return f"search for externalId={event_id} in the log message"
        return f"search for Session = {event_id}"

    def _json(self, alert: Alert, most: int) -> bytes:
        settings = self.settings
        return logrhythm(alert, max_bytes=most, entities=settings.entities, beat=settings.beat)


def _printable(reference: SecretRef) -> str:
    said = reference.resolve().reveal()
    if not (said.isascii() and said.isprintable()):
        raise SecretError(f"{reference}: it is one line of printable ASCII characters")
    return said
