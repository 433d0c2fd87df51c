"""Elasticsearch and OpenSearch, through the bulk API that both share.

Contract: "Bulk API" and "Data streams" (elastic.co/docs, docs.opensearch.org). A request holds an
action and a document a line each; the answer says of every document what became of it, also where
the request as a whole succeeded. The action is `create`, the only one that data streams take, and
a document's `_id` is the alert's event id: one that is there already is answered with 409, so that
a repeat makes no second document. (Of a data stream each backing index looks for itself: what is
repeated after a rollover is there twice.)

With `updates: same_document` it is `index`, with an `_id` of what the alert is about, and when its
hub took it as the document's version ("Index API", `external_gte`): times in the alert itself may
be those of the first version. What comes late, after a newer version, is answered with 409 too.

Documents are refused one by one, so a request that is refused as a whole is about the settings:
nothing in it is dead.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

import msgspec
from pydantic import Field, field_validator, model_validator

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats._records import rfc3339
from schemas.formats._shortened import shortened
from schemas.formats._text import cut
from schemas.kinds._base import key
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
    retry_after,
)
from transforms.delivery.line import printable
from transforms.delivery.network import Deadline
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    RejectItems,
    Retry,
    Sink,
    Split,
    Stop,
    Verdict,
    say,
)

__all__ = ["Elasticsearch", "ElasticsearchSettings"]

_FORMATS = [name for name, form in FORMATS.items() if form.media_type == "application/json"]
_NOT_IN_NAMES = frozenset('\\/*?"<>| ,#:')
_ANSWER = "errors,items.*.status,items.*.error.type,items.*.error.reason"
_MOST_ANSWER = 8 * 1024 * 1024  # bytes; of 2,000 documents that are all refused it is 1 MB
_REASON = 200  # characters

_OF_PROXIES = {401, 408, 413, 425, 429}  # which speak for themselves

# Of single documents. These are refused alike whatever they say: …
_SETTINGS = {"index_closed_exception", "invalid_index_name_exception", "validation_exception"}
_SETTINGS_REASONS = (
    "pipeline with id [",
    "no write index is defined for alias [",
    "only write ops with an op_type of create are allowed in data streams",
)
# … and these again and again, although as 500.
_OF_DOCUMENTS = {"fail_processor_exception", "ingest_processor_exception"}
# What differs from document to document, or quotes it.
_PARTICULAR = re.compile(
    r"^\[\d+:\d+\] | in document with id '.*?'|\. Preview of field's value: .*", re.DOTALL
)

_DATA_STREAM = re.compile("(logs|metrics|synthetics|traces)-.+-.+")  # by Elasticsearch's templates


class ElasticsearchSettings(HttpSettings):
    """Elasticsearch or OpenSearch, through the bulk API."""

    url: str = Field(description="Where the cluster is: https://host:9200.")
    index: str = Field(
        "logs-alertbeam.alerts-default",
        description="The data stream, alias or index. The default follows the naming scheme "
        "type-dataset-namespace, by which Elasticsearch makes a data stream of it by itself, with "
        "the mappings of ECS; OpenSearch makes an index, unless a template says data stream.",
    )
    format: str = Field(
        "ecs",
        description="What a document is: `ecs`, the Elastic Common Schema; or any format of JSON "
        "that `alertbeam explain --as` knows, in an index of its own. One without `@timestamp` is "
        "given it.",
        json_schema_extra={"enum": [*_FORMATS]},
    )
    updates: Literal["new_document", "same_document"] = Field(
        "new_document",
        description="What a later version of an alert, an incident or a finding becomes: a "
        "document beside the earlier ones; or the same one, changed, and never back. That takes "
        "an `index` that is no data stream.",
    )
    api_key: SecretRef | None = Field(
        None,
        description="An API key, encoded or as `id:key`: env:NAME or file:/path. It needs the "
        "privileges `create_doc` (for `updates: same_document`, `index`) and `auto_configure` on "
        "the index.",
    )
    username: str = Field("", description="The user, where there is no API key.")
    password: SecretRef | None = Field(
        None, description="The user's password: env:NAME or file:/path."
    )
    pipeline: str = Field("", description="The ingest pipeline; without it, the index's own.")
    max_bytes: int = Field(
        5_000_000, ge=1_000, description="Bytes of documents in one request, before compression."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url, path="")

    @field_validator("index")
    @classmethod
    def _check_index(cls, name: str) -> str:
        if not name or name in (".", "..") or len(name.encode("utf-8", "replace")) > 255:
            raise ValueError("an index has a name of at most 255 bytes")
        if name != name.lower() or not name.isprintable() or _NOT_IN_NAMES & set(name):
            raise ValueError("an index's name is lower case, with no blank, none of \\/*?\"<>|,#:")
        if name[0] in "-_+":
            raise ValueError("an index's name does not begin with - _ or +")
        return name

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        if name not in _FORMATS:
            raise ValueError(f"no such format of JSON; there are {', '.join(_FORMATS)}")
        return name

    @model_validator(mode="after")
    def _check_credentials(self) -> ElasticsearchSettings:
        if bool(self.username) != bool(self.password):
            raise ValueError("`username` and `password` are given together")
        if self.api_key and self.username:
            raise ValueError("either `api_key` or `username` and `password`")
        if ":" in self.username:
            raise ValueError("a user's name has no colon in it")
        return self

    @model_validator(mode="after")
    def _check_updates(self) -> ElasticsearchSettings:
        if self.updates == "same_document" and _DATA_STREAM.fullmatch(self.index):
            raise ValueError(
                f"{self.index} is the name of a data stream, whose documents never change: with "
                "`updates: same_document` give an `index` such as alertbeam-alerts"
            )
        return self


class Elasticsearch(Sink[ElasticsearchSettings]):
    """One index, alias or data stream."""

    kind = "elasticsearch"
    Settings = ElasticsearchSettings
    example: ClassVar = {
        "url": "https://elastic.example.com:9200",
        "api_key": "env:ELASTIC_API_KEY",
    }

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.max_bytes, max_records=2_000)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        form = self.settings.format
        document = say(form, alert, source, partition)
        if b"\n" in document or b"\r" in document:  # of a raw record, between its tokens
            document = document.translate(None, b"\r\n")
        if not _has_time(form, document):
            time = rfc3339(alert.event_ms or alert.enqueued_ms or 1)  # of 0 it says nothing
            rest = document[1:].lstrip()
            comma = b"" if rest.startswith(b"}") else b","
            document = b'{"@timestamp":"%b"%b%b' % (time.encode(), comma, rest)
        identity = alert.event_id.encode()
        if self.settings.updates == "new_document":
            return b'{"create":{"_id":"%b"}}\n%b' % (identity, document)
        if alert.entity and _changes(alert):
            identity = key(alert.kind, alert.entity, "").hex().encode()
        version = alert.enqueued_ms or alert.event_ms
        return b'{"index":{"_id":"%b","version":%d,"version_type":"external_gte"}}\n%b' % (
            identity,
            version,
            document,
        )

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        room = most
        while room > 0:
            try:
                small = msgspec.structs.replace(
                    alert,
                    title=cut(alert.title, room // 8),
                    description=cut(alert.description, room // 4),
                    raw=shortened(alert, room // 4),
                )
            except ValueError:
                break
            said = self.encode(small, source, partition)
            if len(said) <= most:
                return said
            room //= 2
        return None

    def connect(self) -> Connection:
        return _Cluster(self.settings)

    def probe(self, timeout: float) -> None:
        cluster = _Cluster(self.settings)
        try:
            cluster.check_bulk(timeout)
        finally:
            cluster.close()

    def check(self, timeout: float) -> str:
        deadline = Deadline(timeout)
        cluster = _Cluster(self.settings)
        try:
            cluster.check_bulk(deadline.left())
            found = [ask(deadline.left()) for ask in (cluster.product, cluster.user, cluster.index)]
        finally:
            cluster.close()
        return "; ".join(found)

    @property
    def target(self) -> str:
        return f"{super().target}, index {self.settings.index}"

    def find(self, event_id: str) -> str:
        index = self.settings.index
        if self.settings.updates == "same_document":  # whose id is another
            return f'"{event_id}" in Discover; GET /{index}/_search?q={event_id}'
        # Of a data stream no document can be got by its id, only searched.
        return f'_id:"{event_id}" in Discover; GET /{index}/_search?q=_id:{event_id}'


class _Error(msgspec.Struct):
    type: str = ""
    reason: str | None = None


class _Item(msgspec.Struct):
    status: int
    error: _Error | None = None


class _Answer(msgspec.Struct):
    errors: bool
    items: list[dict[str, _Item]]


class _Refusal(msgspec.Struct):
    error: _Error | str


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


class _Cluster(Connection):
    def __init__(self, settings: ElasticsearchSettings) -> None:
        self._settings = settings
        authorization, self._secrets = _credentials(settings)
        headers = {"Authorization": authorization} if authorization else {}
        self._http = HttpConnection(settings.url, settings, headers)
        self._root = urlsplit(settings.url).path.rstrip("/")
        self._name = quote(settings.index, safe="")
        pipeline = f"&pipeline={quote(settings.pipeline, safe='')}" if settings.pipeline else ""
        self._bulk = f"{self._root}/{self._name}/_bulk?filter_path={_ANSWER}{pipeline}"

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body = b"\n".join([*payloads, b""])
        headers = {"Content-Type": "application/x-ndjson"}
        if self._settings.gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        # It answers in time what it could not do in time.
        path = f"{self._bulk}&timeout={timeout * 800:.0f}ms"
        response = self._http.request("POST", path, body, headers, timeout, _MOST_ANSWER)
        if response.status != 200:
            verdict = judge(response, self._say(response))
            return Stop(verdict.reason) if isinstance(verdict, Split) else verdict
        try:
            answer = _decode_answer(response.body)
        except msgspec.DecodeError:
            return Stop(f"HTTP 200: this is no answer of {_PRODUCTS}")
        items = [item for action in answer.items for item in action.values()]
        if len(items) != len(payloads):
            return Retry(f"it answers for {len(items)} of {len(payloads)} documents")
        return self._judge(items, response)

    def check_bulk(self, timeout: float) -> None:
        """Raises OSError unless a request without documents is refused for nothing but that."""
        headers = {"Content-Type": "application/x-ndjson"}
        response = self._http.request("POST", self._bulk, b"", headers, timeout)
        if response.status != 400 or _refusal(response).type != "parse_exception":
            raise ConnectionError(self._say(response))

    def product(self, timeout: float) -> str:
        """Its name and version."""
        version = self._ask("GET", "/", timeout).get("version")
        if not isinstance(version, dict):
            return "it takes documents"  # its version takes a privilege of its own
        name = "OpenSearch" if version.get("distribution") == "opensearch" else "Elasticsearch"
        return f"{name} {printable(str(version.get('number')), 20)}"

    def user(self, timeout: float) -> str:
        """Who may write. Raises OSError where the credentials may not."""
        privilege = "index" if self._settings.updates == "same_document" else "create_doc"
        wanted = {"index": [{"names": [self._settings.index], "privileges": [privilege]}]}
        told = self._ask("POST", "/_security/user/_has_privileges", timeout, wanted)
        if "has_all_requested" not in told:
            return "it does not tell what the credentials may do"
        name = printable(str(told.get("username")), 60)
        if not told["has_all_requested"]:
            raise ConnectionError(
                f"{name} may not write to {self._settings.index}: it takes the privilege "
                f"`{privilege}`, and `auto_configure` where it is to be made"
            )
        return f"{name} may write"

    def index(self, timeout: float) -> str:
        """What is there under the name. Raises OSError where it is not what it must be."""
        told = self._ask("GET", f"/_resolve/index/{self._name}", timeout)
        name = self._settings.index
        if told.get("data_streams") and self._settings.updates == "same_document":
            raise ConnectionError(
                f"{name} is a data stream, whose documents never change: `updates: same_document` "
                "takes another `index`"
            )
        for kind, what in (("data_streams", "a data stream"), ("aliases", "an alias")):
            if told.get(kind):
                return f"{name} is {what}"
        if told.get("indices"):
            return f"{name} is an index"
        if "indices" not in told:
            return f"whether there is {name} it does not tell"
        return f"{name} is not there yet: the first alert makes it"

    def close(self) -> None:
        self._http.close()

    def _judge(self, items: list[_Item], response: Response) -> Verdict:
        reasons: dict[int, str] = {}
        again: dict[int, str] = {}
        there = 0
        for at, item in enumerate(items):
            if item.status < 300:
                continue
            if item.status == 409:
                there += 1
                continue
            error = item.error or _Error()
            why = self._why(item.status, error)
            if item.status in (401, 403, 404) or _is_about_settings(error):
                return Stop(why)  # what was taken is answered with 409 when it comes again
            if item.status == 429 or (item.status >= 500 and error.type not in _OF_DOCUMENTS):
                again[at] = why
            else:
                reasons[at] = why
        if len(again) == len(items):
            return Retry(again[0], after=retry_after(response.headers))
        if reasons or again:
            return RejectItems(reasons, taken=True, again=tuple(again))
        return Accepted(said="HTTP 200: " + ("it was there already" if there else "created"))

    def _say(self, response: Response) -> str:
        """An answer that is no success, in a line."""
        error = _refusal(response)
        if not error.type and not error.reason:
            error.reason = response.reason
            if response.status < 500 and response.status not in _OF_PROXIES:
                error.reason += f": this is no answer of {_PRODUCTS}"
        return self._why(response.status, error)

    def _why(self, status: int, error: _Error) -> str:
        said = _PARTICULAR.sub("", error.reason or "")
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return printable(f"HTTP {status}: {': '.join(filter(None, (error.type, said)))}", _REASON)

    def _ask(self, method: str, path: str, timeout: float, body: Any = None) -> dict[str, Any]:
        """What is answered to a question; empty where it is refused."""
        headers = {"Content-Type": "application/json"} if body else {}
        said = msgspec.json.encode(body) if body else b""
        response = self._http.request(method, self._root + path, said, headers, timeout)
        try:
            answer = msgspec.json.decode(response.body)
        except msgspec.DecodeError:
            return {}
        return answer if response.status == 200 and isinstance(answer, dict) else {}


_PRODUCTS = "Elasticsearch or OpenSearch"


def _changes(alert: Alert) -> bool:
    """Whether it is told of again when it changes; lines of a log may share an id, and do not."""
    return alert.status != "unknown" or "alert" in alert.kind or "incident" in alert.kind


def _has_time(form: str, document: bytes) -> bool:
    if form == "ecs":
        return b'"@timestamp":"' in document
    return b'"@timestamp"' in document and "@timestamp" in msgspec.json.decode(document)


def _is_about_settings(error: _Error) -> bool:
    return error.type in _SETTINGS or (error.reason or "").startswith(_SETTINGS_REASONS)


def _refusal(response: Response) -> _Error:
    """What is wrong, as both products say it; empty where something else speaks."""
    try:
        error = _decode_refusal(response.body).error
    except msgspec.DecodeError:
        return _Error()
    return _Error(reason=error) if isinstance(error, str) else error


def _credentials(settings: ElasticsearchSettings) -> tuple[str, list[str]]:
    """What `Authorization` says, and what of it must not be repeated. Raises SecretError."""
    if settings.api_key:
        key = settings.api_key.resolve().reveal()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise SecretError(f"{settings.api_key}: an API key is letters, digits and signs")
        encoded = _base64(key) if ":" in key else key
        return f"ApiKey {encoded}", [encoded, key, key.partition(":")[2] or key]
    if settings.password:
        password = settings.password.resolve().reveal()
        encoded = _base64(f"{settings.username}:{password}")
        return f"Basic {encoded}", [encoded, password]
    return "", []


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
