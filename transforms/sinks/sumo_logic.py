"""Sumo Logic, through an HTTP Logs and Metrics source.

Contract: "HTTP Logs and Metrics Source", "Upload Logs to an HTTP Source", "Troubleshooting HTTP
Sources" and "Sumo Logic Fields" (help.sumologic.com); for the bodies of answers, the exporter that
Sumo Logic wrote for OpenTelemetry. Each line of a request is a log, and any text is one: no single
log is ever refused. Who knows the source's URL may write to it: the URL is the secret, or else,
for a source with an auth header, a token is.

A 408 may have taken a part of the request, which is sent again: then logs can be there twice, with
the same `alertbeam_id`. Where an ingest budget is used up Sumo Logic drops what it is sent and
answers 200 all the same: nobody can tell that from here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, StringConstraints

from schemas.alert import Alert
from schemas.formats.stamped import stamped, stamped_within
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
)
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import Accepted, Connection, Limits, Sink, Stop, Verdict

__all__ = ["SumoLogic", "SumoLogicSettings"]

_QUOTED = 200  # characters of an answer that are repeated
_TAKEN = (200, 204)

# What can stand in a header, and means itself there.
_Text = Annotated[str, StringConstraints(pattern=r"^([!-~]([ -~]*[!-~])?)?$", max_length=1024)]
_FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")]
_FieldValue = Annotated[
    str, StringConstraints(pattern=r"^[!-+\--<>-~]([ -+\--<>-~]*[!-+\--<>-~])?$", max_length=200)
]


class SumoLogicSettings(HttpSettings):
    """Sumo Logic, through an HTTP source."""

    url: SecretRef = Field(
        description="Where the source's address lies, which is a secret itself, whole as Sumo "
        "Logic shows it (https://…/receiver/v1/http/…): env:NAME or file:/path."
    )
    token: SecretRef | None = Field(
        None,
        description="The token, for a source whose address was made with *Auth Header*: env:NAME "
        "or file:/path.",
    )
    source_category: _Text = Field(
        "azure/defender",
        description="The source category; the default is what the searches of Sumo Logic's app "
        "for Defender for Cloud ask for. Empty: the source's own.",
    )
    source_name: _Text = Field("", description="The source name; without it, the source's own.")
    source_host: _Text = Field("", description="The source host; without it, the source's own.")
    fields: dict[_FieldName, _FieldValue] = Field(
        {},
        max_length=30,
        description="Fields that every log gets: {environment: production}. Sumo Logic drops those "
        "that are not in its schema of fields.",
    )
    max_bytes: int = Field(
        1_000_000,
        ge=1_000,
        le=1_048_576,
        description="Bytes of logs in one request, before compression.",
    )


class SumoLogic(Sink[SumoLogicSettings]):
    """One HTTP source."""

    kind = "sumo_logic"
    Settings = SumoLogicSettings
    example: ClassVar = {"url": "env:SUMO_LOGIC_URL"}

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.max_bytes)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return stamped(alert)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        try:
            return stamped_within(alert, most)
        except ValueError:
            return None

    def connect(self) -> Connection:
        return _Source(self.settings)

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        source = _Source(self.settings)
        try:
            source.ask(timeout)
        finally:
            source.close()
        return "the source answers; it knows its address"

    @property
    def target(self) -> str:
        category = self.settings.source_category
        return f"{self.settings.url}{f', category {category}' if category else ''}"

    def find(self, event_id: str) -> str:
        category = self.settings.source_category
        where = f"_sourceCategory={json.dumps(category) if ' ' in category else category} "
        return f'search {where if category else ""}"{event_id}"'


class _Source(Connection):
    def __init__(self, settings: SumoLogicSettings) -> None:
        url = _read(settings.url, _checked)
        parts = urlsplit(url)
        self._gzip = settings.gzip
        self._path = parts.path
        code = parts.path.rstrip("/").rpartition("/")[2]
        self._secrets = [parts.path, code, unquote(code)]
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        said = ",".join(f"{name}={value}" for name, value in settings.fields.items())
        for name, value in (
            ("X-Sumo-Category", settings.source_category),
            ("X-Sumo-Name", settings.source_name),
            ("X-Sumo-Host", settings.source_host),
            ("X-Sumo-Fields", said),
        ):
            if value:
                headers[name] = value
        if settings.token:
            headers["x-sumo-token"] = _read(settings.token, _word)
            # Without a code in it, the address is no secret, and its words are everybody's.
            self._secrets = [headers["x-sumo-token"]]
            self._secrets += [parts.path] if parts.path != _BARE else []
        self._http = HttpConnection(url, settings, headers)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        response = self._post(b"\n".join(payloads) + b"\n", timeout)
        said, told = self._say(response)
        if response.status in _TAKEN:
            return Accepted(warning=said if told else "", said=said)
        if 200 <= response.status < 300 or response.status in (400, 422):
            return Stop(said)  # it is not the logs: whatever they say, they are logs
        return judge(response, said)

    def ask(self, timeout: float) -> None:
        """Send no log. Raises OSError unless that is taken."""
        response = self._post(b"", timeout)
        if response.status not in _TAKEN:
            raise ConnectionError(self._say(response)[0])

    def close(self) -> None:
        self._http.close()

    def _post(self, body: bytes, timeout: float) -> Response:
        headers = {}
        if self._gzip and body:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        return self._http.request("POST", self._path, body, headers, timeout)

    def _say(self, response: Response) -> tuple[str, str]:
        """The answer in a line, without our secrets, and what of it are Sumo Logic's words."""
        told = _words(response.body)
        for secret in filter(None, self._secrets):
            told = told.replace(secret, "***")
        told = " ".join("".join(c if c.isprintable() else " " for c in told).split())[:_QUOTED]
        said = f"HTTP {response.status}: {told or response.reason}"
        if response.status == 401:
            said += ": the source knows no such address; `url` is to be the one it shows now"
        return said, told


_BARE = "/receiver/v1/http"


def _words(body: bytes) -> str:
    """What a body says: its code, message and errors, or the text that it is."""
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return re.sub(r"<[^>]*>", " ", text)  # of a proxy's page only the words
    if not isinstance(answer, dict):
        return text
    errors = answer.get("errors")
    found: list[Any] = [answer, *(errors if isinstance(errors, list) else ())]
    said = [
        str(each[name])
        for each in found
        if isinstance(each, dict)
        for name in ("code", "message")
        if each.get(name)
    ]
    return ": ".join(dict.fromkeys(said))


def _read(reference: SecretRef, made: Callable[[str], str]) -> str:
    """What `made` makes of a secret. Raises SecretError, whose text does not repeat it."""
    try:
        return made(reference.resolve().reveal())
    except ValueError as error:
        raise SecretError(f"{reference}: {error}") from None


def _checked(url: str) -> str:
    url = check_url(url, path="")
    if len(urlsplit(url).path) < 2:
        raise ValueError("the whole address is needed: https://…/receiver/v1/http/…")
    return url


def _word(token: str) -> str:
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("a token is one word of printable ASCII characters")
    return token
