"""Elasticsearch and OpenSearch: a receiver that takes and refuses documents as the "Bulk API"
reference says, and of versions what the "Index API" reference does.

Its answers were compared with those of a real OpenSearch (test_elasticsearch_server.py), and are
worded as Elasticsearch 8 and 9 word them.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import Answer, HttpReceiver, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = [
    "Elasticsearch",
    "ElasticsearchReceiver",
    "Items",
    "OpenSearch",
    "OpenSearchReceiver",
    "Page",
    "SameDocument",
]

_ACTION_KEYS = {
    *("_index", "_id", "routing", "pipeline", "require_alias", "dynamic_templates"),
    *("version", "version_type"),
}
_VERSION_TYPES = {"internal", "external", "external_gt", "external_gte"}
_PARAMETERS = {"filter_path", "pipeline", "timeout", "refresh", "routing", "require_alias"}
_MEDIA_TYPES = {"application/x-ndjson", "application/json"}
_DEPTH = 20  # index.mapping.depth.limit
_ID_BYTES = 512
_PARSING, _ILLEGAL = "document_parsing_exception", "illegal_argument_exception"
_TYPES = {
    401: "security_exception",
    403: "security_exception",
    404: "index_not_found_exception",
    429: "es_rejected_execution_exception",
    503: "cluster_block_exception",
}


@dataclasses.dataclass(frozen=True)
class _Action:
    """What is to become of a document. version: None: the index counts by itself."""

    name: str
    index: str
    id: str
    version: int | None = None
    equal: bool = False  # whether the version that is there may be sent again


@dataclasses.dataclass(frozen=True)
class Items:
    """Refuse these documents of a request, and take the others: the `first` of them, or those that
    hold the marker, or all. The reason quotes the marker, as Elasticsearch previews a value."""

    status: int
    type: str
    reason: str = "for a test"
    marker: str = ""
    first: int | None = None


@dataclasses.dataclass(frozen=True)
class Page:
    """Take nothing, and answer as something that stands in the way does, or stands there instead:
    a proxy, a portal."""

    status: int
    body: bytes = b"<html><title>Bad Gateway</title></html>"


class ElasticsearchReceiver(HttpReceiver):
    """A cluster.

    authorization: what requests must show; empty: security is disabled.
    data_streams: names whose documents need a `@timestamp`. longs: fields that are mapped as such.
    pipelines: those that there are. max_bytes: http.max_content_length.
    may_write: whether who is authorized has the privilege. keeps: documents, not ids alone.
    """

    server = "Elasticsearch"
    version: ClassVar[dict[str, str]] = {"number": "9.2.0"}
    tells_privileges = True

    def __init__(self, *, authorization: str = "", max_bytes: int = 104_857_600) -> None:
        super().__init__(max_bytes=max_bytes)
        self.authorization = authorization
        self.may_write = True
        self.keeps = True
        self.data_streams = {"logs-alertbeam.alerts-default"}
        self.longs: set[str] = set()
        self.pipelines: set[str] = set()
        # By index and id; the version, and the document as it came.
        self._documents: dict[str, dict[str, tuple[int, bytes]]] = {}
        self._writing = threading.Lock()

    def documents(self, index: str = "logs-alertbeam.alerts-default") -> dict[str, dict[str, Any]]:
        """What an index holds, by id, in the order in which it came."""
        with self._writing:
            held = dict(self._documents.get(index, {}))
        return {identity: json.loads(document) for identity, (_, document) in held.items()}

    def ids(self) -> list[str]:
        """The ids of all documents."""
        with self._writing:
            return [identity for held in self._documents.values() for identity in held]

    def faulty(self, request: Request) -> bool:
        """Requests with documents."""
        return super().faulty(request) and request.path.endswith("/_bulk")

    def refused(self, fault: Answer) -> Reply:
        kind = _TYPES.get(fault.status, _ILLEGAL)
        return _refusal(fault.status, kind, fault.text or "for a test", dict(fault.headers))

    def unreadable(self, answer: Answer) -> Reply:
        return Reply(413) if answer.status == 413 else self.refused(answer)

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, Page):
            return Reply(fault.status, fault.body, {"Content-Type": "text/html"})
        if isinstance(fault, Items):
            return self._unauthorized(request) or self._bulk(request, fault)
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        if refusal := self._unauthorized(request):
            return refusal
        match request.method, *request.path.split("/")[1:]:
            case ("POST" | "PUT", _, "_bulk") | ("POST" | "PUT", "_bulk"):
                return self._bulk(request, None)
            case ("GET", ""):
                return Reply(200, {"name": "double", "version": self.version})
            case ("POST", "_security", "user", "_has_privileges") if (
                self.authorization and self.tells_privileges
            ):
                return Reply(200, {"username": "beam", "has_all_requested": self.may_write})
            case ("GET", "_resolve", "index", name):
                found = [{"name": name}] if self.documents(name) else []
                kind = "data_streams" if name in self.data_streams else "indices"
                nothing: dict[str, Any] = {"indices": [], "aliases": [], "data_streams": []}
                return Reply(200, {**nothing, kind: found})
        text = f"no handler found for uri [{request.path}] and method [{request.method}]"
        return Reply(400, {"error": text, "status": 400})

    def _unauthorized(self, request: Request) -> Reply | None:
        if request.headers.get("Authorization", "") == self.authorization:
            return None
        reason = f"unable to authenticate for REST request [{request.path}]"
        return _refusal(401, "security_exception", reason, {"WWW-Authenticate": "ApiKey"})

    def _bulk(self, request: Request, fault: Items | None) -> Reply:
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type not in _MEDIA_TYPES:
            text = f"Content-Type header [{media_type}] is not supported"
            return Reply(406, {"error": text, "status": 406})
        for name in request.query.keys() - _PARAMETERS:
            reason = f"request [{request.path}] contains unrecognized parameter: [{name}]"
            return _refusal(400, _ILLEGAL, reason)
        if not request.body:
            return _refusal(400, "parse_exception", "request body is required")
        if not request.body.endswith(b"\n"):
            reason = "The bulk request must be terminated by a newline [\\n]"
            return _refusal(400, _ILLEGAL, reason)
        lines = [line for line in request.body.split(b"\n") if line]
        default = request.path.split("/")[1].removesuffix("_bulk")
        actions: list[_Action] = []
        for number, line in enumerate(lines[::2], 1):
            found = _action(line, 2 * number - 1, default)
            if isinstance(found, Reply):
                return found
            actions.append(found)
        if not lines or len(lines) % 2:
            reason = "Validation Failed: 1: no requests added;"
            return _refusal(400, "action_request_validation_exception", reason)
        pipeline = request.query.get("pipeline", "")
        with self._writing:
            items = []
            for at, (action, document) in enumerate(zip(actions, lines[1::2], strict=True)):
                why = self._why_not(action, document, pipeline, fault, at)
                held = self._documents.setdefault(action.index, {})
                said: dict[str, Any] = {"_index": action.index, "_id": action.id}
                if why is None:
                    there = held.get(action.id)
                    version = action.version or (there[0] + 1 if there else 1)
                    held[action.id] = version, document if self.keeps else b"{}"
                    self.received += 1
                    said |= {"_version": version, "status": 200 if there else 201}
                else:
                    status, kind, reason = why
                    error = {"type": kind, "reason": reason, "index": action.index}
                    said |= {"status": status, "error": error}
                items.append({action.name: said})
        errors = any("error" in said for item in items for said in item.values())
        answer = {"took": 1, "errors": errors, "items": items}
        return Reply(200, _filtered(answer, request.query.get("filter_path", "")))

    def _why_not(
        self, action: _Action, document: bytes, pipeline: str, fault: Items | None, at: int
    ) -> tuple[int, str, str] | None:
        """Status, type and reason of a document that is refused."""
        index, identity = action.index, action.id
        if index != index.lower() or index[0] in "-_+" or set(index) & set('\\/*?"<>| ,#:'):
            return 400, "invalid_index_name_exception", f"Invalid index name [{index}]"
        if pipeline and pipeline not in self.pipelines:
            return 400, _ILLEGAL, f"pipeline with id [{pipeline}] does not exist"
        if not self.may_write:
            reason = "action [indices:data/write/bulk[s]] is unauthorized for user [beam]"
            return 403, "security_exception", reason
        if fault and fault.marker.encode() in document and at < (fault.first or at + 1):
            quoted = f". Preview of field's value: '{fault.marker}'" if fault.marker else ""
            of = f" in document with id '{identity}'" if fault.marker else ""
            return fault.status, fault.type, f"{fault.reason}{of}{quoted}"
        if index in self.data_streams and action.name != "create":
            reason = "only write ops with an op_type of create are allowed in data streams"
            return 400, _ILLEGAL, reason
        source = _parsed(document)
        if source is None or _depth(source) > _DEPTH:
            return 400, _PARSING, "[1:2] failed to parse"
        for name in self.longs & source.keys():
            if not re.fullmatch(r"-?\d+", str(source[name])):
                reason = (
                    f"[1:9] failed to parse field [{name}] of type [long] in document with id "
                    f"'{identity}'. Preview of field's value: '{source[name]}'"
                )
                return 400, _PARSING, reason
        if index in self.data_streams and not isinstance(source.get("@timestamp"), str):
            return 400, _PARSING, "[1:2] failed to parse: data stream timestamp field is missing"
        held, _ = self._documents.get(index, {}).get(identity, (None, b""))
        if held is None:
            return None
        conflict = f"[{identity}]: version conflict"
        if action.name == "create":
            reason = f"{conflict}, document already exists (current version [{held}])"
            return 409, "version_conflict_engine_exception", reason
        sent = action.version
        if sent is not None and (sent < held or (sent == held and not action.equal)):
            than = "higher" if action.equal else "higher or equal"
            reason = f"{conflict}, current version [{held}] is {than} than the one provided"
            return 409, "version_conflict_engine_exception", f"{reason} [{sent}]"
        return None


def _refusal(
    status: int, kind: str, reason: str, headers: Mapping[str, str] | None = None
) -> Reply:
    error = {"type": kind, "reason": reason}
    body = {"error": {"root_cause": [error], **error}, "status": status}
    return Reply(status, body, headers or {})


def _action(line: bytes, number: int, default: str) -> _Action | Reply:
    """What an action line asks for; what is said of a line that is none."""
    try:
        action = json.loads(line)
    except ValueError:
        return _refusal(400, "x_content_parse_exception", f"[{number}:1] unexpected character")
    malformed = f"Malformed action/metadata line [{number}]"
    if not isinstance(action, dict) or len(action) != 1:
        return _refusal(400, _ILLEGAL, f"{malformed}, expected one action")
    (name, said) = next(iter(action.items()))
    if name not in ("create", "index"):
        return _refusal(400, _ILLEGAL, f"{malformed}: this double knows no {name}")
    if not isinstance(said, dict) or said.keys() - _ACTION_KEYS:
        return _refusal(400, _ILLEGAL, f"{malformed} contains an unknown parameter")
    index, identity = said.get("_index", default), said.get("_id")
    if not index:
        return _refusal(400, "action_request_validation_exception", "1: index is missing;")
    if not isinstance(identity, str) or not identity:
        return _refusal(400, _ILLEGAL, "this double wants an _id")
    if len(identity.encode()) > _ID_BYTES:
        reason = f"id [{identity}] is too long, must be no longer than {_ID_BYTES} bytes"
        return _refusal(400, "action_request_validation_exception", reason)
    version, counted = said.get("version"), said.get("version_type", "internal")
    if counted not in _VERSION_TYPES:
        return _refusal(400, _ILLEGAL, f"No version type match [{counted}]")
    invalid = ""
    if counted == "internal" and version is not None:
        invalid = "internal versioning can not be used for optimistic concurrency control"
    elif name == "create" and counted != "internal":
        invalid = "create operations only support internal versioning. use index instead"
    elif counted != "internal" and (type(version) is not int or not 0 <= version < 1 << 63):
        invalid = f"illegal version value [{version}] for version type [{counted.upper()}]"
    if invalid:
        reason = f"Validation Failed: 1: {invalid};"
        return _refusal(400, "action_request_validation_exception", reason)
    return _Action(name, index, identity, version, counted == "external_gte")


def _parsed(document: bytes) -> dict[str, Any] | None:
    """A document as strictly as Elasticsearch takes it: no name twice, no empty name, no NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs) or any(not name for name, _ in pairs):
            raise ValueError
        return dict(pairs)

    def never(constant: str) -> Any:
        raise ValueError(constant)

    try:
        found = json.loads(document.decode(), object_pairs_hook=once, parse_constant=never)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _filtered(answer: dict[str, Any], paths: str) -> dict[str, Any]:
    """What `filter_path` leaves: of lists every element counts, `*` is any name."""

    def kept(value: Any, wanted: list[list[str]]) -> Any:
        if isinstance(value, list):
            return [it for it in (kept(each, wanted) for each in value) if it not in ({}, None)]
        if not isinstance(value, dict):
            return value if [] in wanted else None
        found = {}
        for name, part in value.items():
            rest = [path[1:] for path in wanted if path and path[0] in ("*", name)]
            inner = part if [] in rest else kept(part, rest) if rest else None
            if inner not in ({}, [], None):
                found[name] = inner
        return found

    wanted = [path.split(".") for path in paths.split(",") if path]
    return dict(kept(answer, wanted)) if wanted else answer


class Elasticsearch(ReceiverDouble):
    kind = "elasticsearch"
    system = "a double of Elasticsearch, written from its “Bulk API” reference"
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "partial rejection": Items(400, _PARSING, "[1:9] failed to parse field [x]", MARKER),
        "Retry-After in seconds": Answer(429, text="busy", headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(
            429, text="busy", headers=(("Retry-After", in_a_while()),)
        ),
        "quoted secret": Answer(403, text=f"API key {SECRET} is disabled"),
    }
    table: ClassVar[Sequence[Says]] = [
        Says("400", Answer(400, text="unrecognized parameter"), "stopped"),
        Says("401", Answer(401), "stopped"),
        Says("403", Answer(403), "stopped"),
        Says("404", Answer(404), "stopped"),
        Says("406", Answer(406), "stopped"),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(Says(str(status), Answer(status), "retried") for status in (429, 500, 503)),
        Says("503", Answer(503), "owed"),
        *(
            Says(f"{status} of a proxy", Page(status), "retried")
            for status in (408, 429, 500, 502, 503, 504)
        ),
        *(
            Says(f"{status} of a portal", Page(status), "stopped")
            for status in (200, 302, 400, 403)
        ),
        *(
            Says(f"400 {kind}, of a document", Items(400, kind, marker=MARKER), "dead")
            for kind in (_PARSING, "mapper_parsing_exception", "strict_dynamic_mapping_exception")
        ),
        Says(
            "400 limit of total fields, of a document",
            Items(400, _ILLEGAL, "Limit of total fields [1000] has been exceeded", MARKER),
            "dead",
        ),
        Says(
            "500 of a pipeline's processor, of a document",
            Items(500, "fail_processor_exception", marker=MARKER),
            "dead",
        ),
        *(
            Says(f"{status} {kind}, of {of} documents", Items(status, kind, first=first), "retried")
            for status, kind in (
                (429, "es_rejected_execution_exception"),
                (429, "cluster_block_exception"),  # the disk is full
                (500, "null_pointer_exception"),
                (503, "unavailable_shards_exception"),
            )
            for first, of in ((3, "some"), (None, "all"))
        ),
        Says(
            "429 of all documents", Items(429, "es_rejected_execution_exception"), "owed"
        ),
        Says(
            "409 of some documents", Items(409, "version_conflict_engine_exception", first=3),
            "delivered",
        ),
        *(
            Says(f"{status} {kind}, of all documents", Items(status, kind, reason), "stopped")
            for status, kind, reason in (
                (400, "index_closed_exception", "closed"),
                (400, "invalid_index_name_exception", "Invalid index name [X]"),
                (400, "validation_exception", "this action would add [2] shards"),
                (400, _ILLEGAL, "pipeline with id [x] does not exist"),
                (400, _ILLEGAL, "no write index is defined for alias [x]."),
                (400, _ILLEGAL, "only write ops with an op_type of create are allowed in data "
                                "streams"),
                (403, "cluster_block_exception", "index write (api)"),
                (403, "security_exception", "is unauthorized for API key"),
                (404, "index_not_found_exception", "no such index [x]"),
            )
        ),
    ]  # fmt: skip
    lacks: ClassVar[Mapping[str, str]] = {
        "unnamed rejection": "it names every document that it refuses",
    }
    may_repeat = frozenset()  # what is there already is not taken again

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = ElasticsearchReceiver(authorization=f"ApiKey {SECRET}").start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "api_key": "env:SECRET"}

    def up(self) -> None:
        self.receiver.max_bytes = 104_857_600
        super().up()

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.authorization = f"ApiKey {secret}"


class SameDocument(Elasticsearch):
    name = "elasticsearch_same_document"
    system = f"{Elasticsearch.system}; with `updates: same_document`"
    updates = True

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "updates": "same_document", "index": "alertbeam-alerts"}

    def ids(self) -> list[str]:
        held = self.receiver.documents("alertbeam-alerts")
        return [document["microsoft"]["event_id"] for document in held.values()]


class OpenSearchReceiver(ElasticsearchReceiver):
    """A cluster of OpenSearch, as far as it differs; with no template for data streams."""

    server = "OpenSearch"
    version: ClassVar[dict[str, str]] = {"distribution": "opensearch", "number": "3.3.0"}
    tells_privileges = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.data_streams = set()

    def _unauthorized(self, request: Request) -> Reply | None:
        if super()._unauthorized(request) is None:
            return None
        realm = {"WWW-Authenticate": 'Basic realm="OpenSearch Security"'}
        return Reply(401, b"Unauthorized", realm)


class OpenSearch(Elasticsearch):
    kind = "opensearch"
    system = (
        "a double of OpenSearch, written from its “Bulk API” reference; what it takes and refuses "
        "of documents: the real server, in tests of its own"
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver.stop()
        self.receiver = OpenSearchReceiver(authorization=_basic(SECRET)).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "username": "beam", "password": "env:SECRET"}

    def renew(self, secret: str) -> None:
        self.receiver.authorization = _basic(secret)


def _basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'beam:{password}'.encode()).decode()}"
