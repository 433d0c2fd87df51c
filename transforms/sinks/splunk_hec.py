"""Splunk's HTTP Event Collector: Enterprise, Cloud, and whatever else speaks it.

Contract: "Format events for HTTP Event Collector", "Troubleshoot HTTP Event Collector" and "About
HTTP Event Collector Indexer Acknowledgment" (help.splunk.com). A request holds event objects one
after another; the answer is `{"text": …, "code": …}`. Of a batch with an invalid event, those
before it may already be indexed (moby/moby#35862), which no document says: all but the invalid one
are sent again, so they can arrive twice, with the same event id, but never not at all.

That answer comes before the events are indexed, and some may get lost in between. With
`acknowledge` it holds an `ackId`, counted from 0 in each channel, and `/services/collector/ack`
tells later what is indexed. What it does not tell in time is sent again, and may arrive twice.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from schemas.alert import Alert
from schemas.formats._shortened import shortened
from schemas.formats._text import cut
from schemas.formats.hec import Shape, hec, hub_source
from schemas.kinds import KINDS
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
    retry_after,
)
from transforms.delivery.network import Deadline
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Pending,
    Refresh,
    RejectItems,
    Retry,
    Sink,
    Split,
    Stop,
    Verdict,
)

__all__ = ["OfKind", "SplunkHec", "SplunkHecSettings"]

# HEC's codes: what two public catalogues agree on.
_ACCEPTED = {0, 24, 25}  # 24, 25: accepted, although a queue nears its limit
_TOKEN = {2, 3, 4}  # it may have been replaced
_SETTINGS = {1, *_TOKEN, 7, 10, 11, 14, 16, 21, 22}  # index, channel, …
_BAD_DATA = {5, 6, 12, 13, 15}
_BUSY = {8, 9, 18, 19, 20, 23, 26, 27}
_NO_DATA = 5
_UNKNOWN_CHANNEL = 11
_ADVICE = {
    1: "the token is to be enabled in Splunk",
    4: "the collector knows no such `token`",
    7: "the token is to be allowed to write to `index`",
    10: "the token asks for `acknowledge: true`",
    14: "indexer acknowledgement is to be enabled for the token, or `acknowledge` left out",
}
_CHANNEL = "X-Splunk-Request-Channel"
_MOST = 1024 * 1024  # bytes of an answer; one about acknowledgements has 20 for each
_MOST_COOKIES = 16
# Not the add-on's for `cim`: its field mapping would put its own in the place of what was sent.
_SOURCETYPES = {
    "body_wrapped": "mscs:azure:eventhub",
    "raw": "mscs:azure:eventhub",
    "cim": "alertbeam:alert",
}


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise PydanticCustomError("choice", "no such kind of event", {"choices": [*KINDS]})
    return kind


_Kind = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [*KINDS]})]


class OfKind(BaseModel):
    """Where events of one kind go, and as what; what is left out is as for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    index: str = Field("", description="The index.")
    source: str = Field("", description="The source.")
    sourcetype: str = Field("", description="The source type.")


class SplunkHecSettings(HttpSettings):
    """Splunk, through its HTTP Event Collector."""

    url: str = Field(
        description="Where the collector is: https://host:8088, or "
        "https://http-inputs-<stack>.splunkcloud.com:443. Without a path, "
        "/services/collector/event is meant."
    )
    token: SecretRef = Field(description="The collector's token: env:NAME or file:/path.")
    index: str = Field("", description="The index; without it, the token's default.")
    sourcetype: str | None = Field(
        None,
        description="The source type; empty: the token's default. Without it, what Splunk's "
        "add-on for Microsoft Cloud Services writes, `mscs:azure:eventhub`, so that its searches "
        "go on working; with `event_shape: cim`, `alertbeam:alert`.",
    )
    source: str = Field(
        "",
        description="The source; without it, as the add-on writes it: `eventhub://namespace/hub;` "
        "of the hub that the alert came from.",
    )
    host: str = Field("", description="The host; without it, the collector decides.")
    kinds: dict[_Kind, OfKind] = Field(
        {},
        description="What differs for a kind of event: `{security_incident: {index: …, source: …, "
        "sourcetype: …}}`. The kinds: docs/kinds.",
    )
    event_shape: Shape = Field(
        "body_wrapped",
        description="`body_wrapped`: the alert under `body`, as the add-on writes it with system "
        "properties; `raw`: the alert itself, as it writes it without, and as its field mapping "
        "reads it; `cim`: the fields of the Common Information Model's Alerts, and the alert under "
        "`body`.",
    )
    max_bytes: int = Field(
        1_000_000, ge=1_000, description="Bytes of events in one request, before compression."
    )
    acknowledge: bool = Field(
        False,
        description="Whether a record counts as delivered only once it is indexed. The token must "
        "have indexer acknowledgement enabled, and a load balancer sticky sessions.",
    )
    acknowledge_timeout: float = Field(
        120.0,
        gt=0,
        le=3600,
        description="Seconds after which what is not acknowledged is sent again.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url, path="/services/collector/event")


class SplunkHec(Sink[SplunkHecSettings]):
    """One collector."""

    kind = "splunk_hec"
    Settings = SplunkHecSettings
    example: ClassVar = {"url": "https://splunk.example.com:8088", "token": "env:SPLUNK_HEC_TOKEN"}

    def __init__(self, name: str, settings: SplunkHecSettings) -> None:
        super().__init__(name, settings)
        sourcetype = settings.sourcetype
        if sourcetype is None:
            sourcetype = _SOURCETYPES[settings.event_shape]
        self._usual = usual = settings.index, settings.source, sourcetype
        self._of_kind = {
            kind: (it.index or usual[0], it.source or usual[1], it.sourcetype or usual[2])
            for kind, it in settings.kinds.items()
        }

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.max_bytes)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings = self.settings
        index, named, sourcetype = self._of_kind.get(alert.kind, self._usual)
        return hec(
            alert,
            shape=settings.event_shape,
            source=named or hub_source(source),
            index=index,
            sourcetype=sourcetype,
            host=settings.host,
        )

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        title = cut(alert.title, most // 8)  # `cim` says it beside the record
        small = msgspec.structs.replace(alert, title=title, description="", raw=b"{}")
        room = most - len(self.encode(small, source, partition)) + len(small.raw)
        try:
            small.raw = shortened(alert, room)
        except ValueError:
            return None
        return self.encode(small, source, partition)

    def connect(self) -> Connection:
        return _Collector(self.settings)

    def probe(self, timeout: float) -> None:
        collector = _Collector(self.settings)
        try:
            collector.check_health(timeout)
        finally:
            collector.close()

    def check(self, timeout: float) -> str:
        deadline = Deadline(timeout)
        collector = _Collector(self.settings)
        try:
            collector.check_health(deadline.left())
            collector.check_token(deadline.left())
            if not self.settings.acknowledge:
                return "HEC is healthy; the token is accepted"
            collector.check_channel(deadline.left())
            return "HEC is healthy; the token is accepted; it acknowledges what is indexed"
        finally:
            collector.close()

    @property
    def target(self) -> str:
        names = [name for name in self._indexes if name]
        return f"{super().target}{', index ' * bool(names)}{', '.join(names)}"

    def find(self, event_id: str) -> str:
        names = self._indexes
        index = "index=*" if "" in names else f"index IN ({', '.join(names)})"
        if len(names) == 1 and names[0]:
            index = f"index={names[0]}"
        # `::` asks the index itself; `=` finds nothing unless fields.conf names the field.
        return f"search {index} event_id::{event_id}"

    @property
    def _indexes(self) -> list[str]:
        """All that it writes to; empty: the token's default."""
        return list(dict.fromkeys(it[0] for it in (self._usual, *self._of_kind.values())))


class _Collector(Connection):
    """A kept connection; with acknowledgements a channel, new with each connection it dials: what
    answers there may be another collector, which counts from 0 again."""

    def __init__(self, settings: SplunkHecSettings) -> None:
        self._settings = settings
        self._token = settings.token.resolve().reveal()
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            raise SecretError(f"{settings.token}: a token is letters, digits and hyphens")
        self._path = urlsplit(settings.url).path
        self._root = self._path.partition("/services/collector")[0] + "/services/collector"
        self._channel = ""
        self._newest = -1  # the channel's last acknowledgement id
        self._awaited: dict[tuple[str, int], float] = {}  # channel and id: since, monotonic
        self._cookies: dict[str, str] = {}
        self._http = HttpConnection(
            settings.url,
            settings,
            {"Authorization": f"Splunk {self._token}", "Content-Type": "application/json"},
            self._greet if settings.acknowledge else None,
        )

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body, headers = b"\n".join(payloads), {}
        if self._settings.gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        response = self._request("POST", self._path, body, headers, timeout)
        answer = _decode(response.body)
        verdict = self._judge(response, answer, len(payloads))
        if self._settings.acknowledge and isinstance(verdict, Accepted):
            return self._await(answer.get("ackId"), verdict.said)
        return verdict

    def confirm(self, timeout: float) -> Mapping[Hashable, Verdict]:
        deadline = Deadline(timeout)
        by_channel = defaultdict(list)
        for channel, number in self._awaited:
            by_channel[channel].append(number)
        found: dict[Hashable, Verdict] = {}
        for channel, numbers in by_channel.items():
            told = self._told(channel, numbers, deadline.left())
            found |= {(channel, number): verdict for number, verdict in told.items()}
        longest = self._settings.acknowledge_timeout
        for handle, since in self._awaited.items():
            if time.monotonic() - since >= longest:
                found.setdefault(handle, Retry(f"not acknowledged within {longest:g} s"))
        self._awaited = {it: since for it, since in self._awaited.items() if it not in found}
        return found

    def check_health(self, timeout: float) -> None:
        """Raises OSError unless the collector says that it can take events."""
        response = self._request("GET", f"{self._root}/health", b"", {}, timeout)
        if response.status != 200:
            raise ConnectionError(self._say(response, _decode(response.body)))

    def check_token(self, timeout: float) -> None:
        """Raises OSError unless a request without an event is refused for nothing but that."""
        response = self._request("POST", self._path, b"", {}, timeout)
        answer = _decode(response.body)
        if answer.get("code") not in (0, _NO_DATA):
            raise ConnectionError(self._say(response, answer))

    def check_channel(self, timeout: float) -> None:
        """Raises OSError unless the collector can be asked for acknowledgements."""
        response, answer = self._ask(self._channel, [0], timeout)
        code, said = answer.get("code"), self._say(response, answer)
        if response.status != 200 and code != _UNKNOWN_CHANNEL:
            # One that knows no acknowledgements may take the question for an event.
            raise ConnectionError(said if code in _ADVICE else f"{said}: {_ADVICE[14]}")

    def close(self) -> None:
        self._http.close()

    def _greet(self, lost: bool) -> Mapping[str, str]:
        if lost and self._awaited:
            raise ConnectionError("the connection was lost, and with it its acknowledgements")
        self._channel, self._newest = str(uuid.uuid4()), -1
        return {_CHANNEL: self._channel}

    def _await(self, number: Any, said: str) -> Verdict:
        """The acknowledgement that a request was promised."""
        if type(number) is not int:
            return Stop(f"{said}, but no `ackId`: {_ADVICE[14]}")
        if number <= self._newest:
            # It would be taken for another's: whatever is awaited is sent again.
            raise ConnectionError(
                "acknowledgements of one channel repeat: the load balancer needs sticky sessions"
            )
        self._newest = number
        self._awaited[self._channel, number] = time.monotonic()
        return Pending((self._channel, number))

    def _told(self, channel: str, numbers: list[int], timeout: float) -> dict[int, Verdict]:
        """What has become of a channel's requests; those still open are left out."""
        response, answer = self._ask(channel, numbers, timeout)
        acks = answer.get("acks")
        if response.status == 200 and isinstance(acks, dict):
            return {n: Accepted(said="indexed") for n in numbers if acks.get(str(n)) is True}
        said = self._say(response, answer)
        verdict = self._judge(response, answer, 0)
        if answer.get("code") == _UNKNOWN_CHANNEL:  # it restarted, or is another one
            verdict = Retry(said)
        elif isinstance(verdict, Retry):
            return {}
        elif isinstance(verdict, Refresh):
            raise ConnectionError(said)  # the next connection reads the token anew
        else:
            verdict = Stop(said)
        return dict.fromkeys(numbers, verdict)

    def _ask(
        self, channel: str, numbers: list[int], timeout: float
    ) -> tuple[Response, dict[str, Any]]:
        path = f"{self._root}/ack?channel={channel}"
        body = msgspec.json.encode({"acks": numbers})
        response = self._request("POST", path, body, {_CHANNEL: channel}, timeout)
        return response, _decode(response.body)

    def _request(
        self, method: str, path: str, body: bytes, headers: dict[str, str], timeout: float
    ) -> Response:
        """With the cookies by which a load balancer stays with one collector."""
        if self._cookies:
            said = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
            headers = {**headers, "Cookie": said}
        response = self._http.request(method, path, body, headers, timeout, _MOST)
        if self._settings.acknowledge:
            for cookie in response.headers.get_all("Set-Cookie", []):
                name, _, value = cookie.partition(";")[0].strip().partition("=")
                if value and cookie.isascii() and cookie.isprintable():
                    self._cookies[name] = value
            while len(self._cookies) > _MOST_COOKIES:
                del self._cookies[next(iter(self._cookies))]
        return response

    def _judge(self, response: Response, answer: dict[str, Any], count: int) -> Verdict:
        status, code, said = response.status, answer.get("code"), self._say(response, answer)
        if status == 200 and code in _ACCEPTED:
            return Accepted(warning=said if code else "", said=said)
        if 200 <= status < 400:
            return Stop(said)  # nothing was taken by a collector
        if code in _TOKEN and status in (401, 403):
            return Refresh(said)
        if code in _SETTINGS:
            return Stop(said)
        if status != 413 and (code in _BAD_DATA or status in (400, 422)):
            number = answer.get("invalid-event-number")
            if type(number) is int and 0 <= number < count:
                return RejectItems({number: said}, taken=False)
            return Split(said)
        if code in _BUSY:
            return Retry(said, after=retry_after(response.headers))
        return judge(response, said)

    def _say(self, response: Response, answer: dict[str, Any]) -> str:
        text = str(answer.get("text") or response.reason)[:300]
        code = answer.get("code")
        if code is not None:
            text += f" (code {code})"
        if code in _ADVICE:
            text += f": {_ADVICE[code]}"
        if code is None and response.status < 400:  # a redirect, a portal, the wrong address
            text += ": this is no answer of an event collector"
        return f"HTTP {response.status}: {text}".replace(self._token, "***")


def _decode(body: bytes) -> dict[str, Any]:
    """A collector's answer; empty where it is none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(answer, dict) or type(answer.get("code", 0)) is not int:
        return {}
    return answer
