"""A webhook: alerts POSTed to any HTTP endpoint, signed so that it can tell who sent them.

Signatures: Standard Webhooks 1.0.0 (github.com/standard-webhooks/standard-webhooks), for which
receivers find libraries in every language. What is signed is the body before compression, which
is what frameworks hand over. `Idempotency-Key`: draft-ietf-httpapi-idempotency-key-header. It and
`webhook-id` are made of the body, so that whatever is sent again, in a retry or after a restart,
bears the key that it bore.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timezone
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats._shortened import shortened
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
    retry_after,
)
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Connection,
    FormatName,
    Limits,
    Retry,
    Sink,
    Stop,
    Verdict,
    say,
    shown,
)

__all__ = [
    "Address",
    "Endpoint",
    "Form",
    "Headers",
    "SecretAddress",
    "Signing",
    "Webhook",
    "WebhookSettings",
    "sign",
]

T = TypeVar("T")

_QUOTED = 200  # characters of an answer's body that are repeated
_TOLERANCE = 240.0  # seconds that clocks may differ: the libraries of receivers allow 300
_JSON = "application/json"
_OURS = re.compile(
    "host|user-agent|connection|content-(length|type|encoding)|transfer-encoding|te|trailer|"
    "upgrade|expect|proxy-.*|idempotency-key|webhook-.*",
    re.IGNORECASE,
)


def _header(name: str) -> str:
    if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        raise ValueError("this is no name of a header")
    if _OURS.fullmatch(name):
        raise ValueError("this header is set by alertbeam itself")
    return name


def _unlike(headers: dict[str, SecretRef]) -> dict[str, SecretRef]:
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("`headers` names a header twice")
    return headers


def _public(url: str) -> str:
    if "?" in url:
        raise ValueError("a query may hold a secret: give such a URL as `secret_url`")
    return url and _checked(url)


Address = Annotated[
    str,
    AfterValidator(_public),
    Field(description="Where to: https://host/path. One that is a secret itself: `secret_url`."),
]
SecretAddress = Annotated[
    SecretRef | None,
    Field(
        description="Instead of `url`, for an address that must stay secret, with its query if "
        "it has one: env:NAME or file:/path.",
    ),
]
Signing = Annotated[
    SecretRef | None,
    Field(
        description="What requests are signed with: whsec_ and base64, or else the key as it is. "
        "Without it they are not signed.",
    ),
]
Headers = Annotated[
    dict[Annotated[str, AfterValidator(_header)], SecretRef],
    AfterValidator(_unlike),
    Field(
        description="Headers to send, each value a reference: "
        "{Authorization: env:NAME, X-Api-Key: file:/path}.",
    ),
]


class WebhookSettings(HttpSettings):
    """Any HTTP endpoint, as a webhook that is signed by Standard Webhooks."""

    url: Address = ""
    secret_url: SecretAddress = None
    secret: Signing = None
    headers: Headers = Field({})
    format: FormatName = Field(
        "ndjson",
        description="How an alert is written. `ndjson`: what alertbeam understood, and the record "
        "under `raw`, so that nothing is lost whatever the endpoint wants to know; or any format "
        "that `alertbeam explain --as` knows: graph, ocsf, ecs, raw, …",
    )
    batch: Literal["one", "array", "lines"] = Field(
        "one",
        description="What a request holds. `one`: an alert; `array`: a JSON array of them; "
        "`lines`: one on each line.",
    )
    max_records: int = Field(
        100, ge=1, description="Alerts in one request, where it may hold several."
    )
    max_bytes: int = Field(
        1_000_000, ge=1_000, description="Bytes of one request, before compression."
    )
    gzip: bool = Field(
        False, description="Compress requests; many endpoints do not take what is compressed."
    )

    @model_validator(mode="after")
    def _fit(self) -> WebhookSettings:
        if bool(self.url) == bool(self.secret_url):
            raise ValueError("give either `url` or `secret_url`")
        if self.batch == "array" and FORMATS[self.format].media_type != _JSON:
            raise ValueError(f"an array holds JSON, and {self.format} is text: use `batch: lines`")
        return self


class Webhook(Sink[WebhookSettings]):
    """One endpoint."""

    kind = "webhook"
    Settings = WebhookSettings
    example: ClassVar = {"url": "https://hooks.example.com/alerts", "secret": "env:WEBHOOK_SECRET"}

    @property
    def limits(self) -> Limits:
        settings = self.settings
        # An array has one byte more than a comma for each record.
        return Limits(
            settings.max_bytes - 1, 1 if settings.batch == "one" else settings.max_records
        )

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        said = say(self.settings.format, alert, source, partition)
        if self.settings.batch == "lines" and b"\n" in said:  # raw may have it, between its tokens
            said = said.translate(None, b"\r\n")
        return said

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if FORMATS[self.settings.format].media_type != _JSON:
            return None
        try:
            return shortened(alert, most)
        except ValueError:
            return None

    def connect(self) -> Connection:
        return Endpoint(self.settings, _form(self.settings))

    def probe(self, timeout: float) -> None:
        """Only that it can be reached: whatever more it was asked, it could take for an alert."""
        Endpoint(self.settings, _form(self.settings)).reach(timeout)

    def check(self, timeout: float) -> str:
        endpoint = Endpoint(self.settings, _form(self.settings))
        endpoint.reach(timeout)
        verified = "; its certificate is verified" if endpoint.verified else ""
        return (
            f"it can be reached{verified}; whether address and credentials are right it tells "
            f"only of what it is sent: alertbeam sinks test {self.name}"
        )

    @property
    def target(self) -> str:
        return shown(self.settings.url or self.settings.secret_url)

    def find(self, event_id: str) -> str:
        if self.settings.format == "raw":
            return "look for the record's own id: the format `raw` does not bear alertbeam's"
        return f"look for {event_id} in the bodies that the endpoint got"


class Form(NamedTuple):
    """What a body is made of: what stands before, between and after its records."""

    content: str
    before: bytes = b""
    between: bytes = b""
    after: bytes = b""


def _form(settings: WebhookSettings) -> Form:
    media = FORMATS[settings.format].media_type
    if settings.batch == "array":
        return Form(media, b"[", b",", b"]")
    if media != _JSON:
        media += "; charset=utf-8"
    elif settings.batch == "lines":
        media = "application/x-ndjson"
    return Form(media, b"", b"\n", b"\n") if settings.batch == "lines" else Form(media)


class Endpoint(Connection):
    """The way to an endpoint. Raises SecretError."""

    def __init__(self, settings: WebhookSettings, form: Form) -> None:
        self._settings = settings
        self._form = form
        headers = {name: _read(ref, _value) for name, ref in settings.headers.items()}
        self._key = _read(settings.secret, _key) if settings.secret else None
        url = _read(settings.secret_url, _checked) if settings.secret_url else settings.url
        parts = urlsplit(url)
        self.verified = parts.scheme == "https" and settings.tls.verify
        self._target = parts.path + (f"?{parts.query}" if parts.query else "")
        self._http = HttpConnection(url, settings, headers)
        secrets = [*headers.values()]
        if settings.secret_url:
            secrets.append(self._target)
        if settings.secret:
            secrets.append(_read(settings.secret, str))
        self._hide = _hiding(secrets)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        form = self._form
        body = form.before + form.between.join(payloads) + form.after
        identity = f"msg_{hashlib.blake2b(body, digest_size=16).hexdigest()}"
        now = int(time.time())
        headers = {
            "Content-Type": form.content,
            "Idempotency-Key": f'"{identity}"',  # a string of RFC 8941, as the draft wants it
            "webhook-id": identity,
            "webhook-timestamp": str(now),
        }
        if self._key is not None:
            headers["webhook-signature"] = sign(self._key, identity, now, body)
        if self._settings.gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        response = self._http.request("POST", self._target, body, headers, timeout)
        said = self._say(response)
        if 300 <= response.status < 400:
            return Stop(f"{said}: redirects are not followed; give the address that is meant")
        if response.status == 409:  # the draft: the same request is being worked on just now
            return Retry(said, after=retry_after(response.headers))
        if self._key is not None and 400 <= response.status < 500:
            off = _clock_off(response.headers)
            if abs(off) > _TOLERANCE:  # it refuses the signature's time, not the records
                return Retry(
                    f"{said}: this machine's clock is {abs(off):,.0f} s "
                    f"{'ahead of' if off > 0 else 'behind'} that of the endpoint, which refuses "
                    "signatures of another time: set it right"
                )
        return judge(response, said)

    def reach(self, timeout: float) -> None:
        """Connect, and say nothing. Raises OSError."""
        self._http.reach(timeout)

    def close(self) -> None:
        self._http.close()

    def _say(self, response: Response) -> str:
        """The answer in a line, without our secrets: some endpoints repeat what they were sent."""
        said = f"HTTP {response.status} {self._quoted(response.reason)}"
        body = self._quoted(response.body.decode("utf-8", "replace"))
        return f"{said}: {body}" if body else said

    def _quoted(self, text: str) -> str:
        shown = (c if c.isprintable() else " " for c in self._hide(text)[: 4 * _QUOTED])
        return " ".join("".join(shown).split())[:_QUOTED]


def _clock_off(headers: Message) -> float:
    """Seconds that our clock is ahead of the one that the answer tells; 0 where it tells none."""
    try:
        said = parsedate_to_datetime(str(headers["Date"]))
    except (TypeError, ValueError):
        return 0.0
    if said.tzinfo is None:
        said = said.replace(tzinfo=timezone.utc)
    return time.time() - said.timestamp()


def sign(key: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`; timestamp: epoch seconds."""
    signed = hmac.new(key, f"{identity}.{timestamp}.".encode(), "sha256")
    signed.update(body)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


def _read(reference: SecretRef, made: Callable[[str], T]) -> T:
    """What `made` makes of a secret. Raises SecretError, whose text does not repeat it."""
    try:
        return made(reference.resolve().reveal())
    except ValueError as error:
        raise SecretError(f"{reference}: {error}") from None


def _checked(url: str) -> str:
    """An address, with a path. Raises ValueError, whose text does not repeat it."""
    bare, mark, query = url.partition("?")
    if not re.fullmatch(r"[!-~]*", query) or "#" in query:
        raise ValueError("a URL's query holds printable ASCII only, and no fragment follows it")
    return check_url(bare, path="/") + mark + query


def _value(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a header's value is one line of printable ASCII characters")
    return text


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        return secret.encode()
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("after whsec_ comes the key in base64")
    return key


def _hiding(secrets: Iterable[str]) -> Callable[[str], str]:
    """What takes secrets out of a text, as a whole and each of their words that says much."""
    words = {w for s in secrets for w in (s, *re.findall(r"\w{6,}", f"{s} {unquote(s)}"))} - {"/"}
    found = re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)) or r"(?!)")
    return lambda text: found.sub("***", text)
