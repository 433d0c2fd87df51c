"""A double of Cortex XSOAR, version 8 and 6: incidents, and the search for them.

Written from "Create or update an incident", "Search incidents by filter" (Cortex XSOAR 8 API),
"Create single incident", "Optimistic locking and versioning" (Cortex XSOAR 6 API), and what the
server was seen to answer (live.paloaltonetworks.com: an optimistic lock error; Elastic's connector:
an incident, an error of creation). What is not documented: a query by a field that there is not
finds everything here, the worst that it could.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import Answer, HttpReceiver, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    in_a_while,
)
from tests.transforms.sinks.doubles.xsiam import Saying
from tests.transforms.sinks.doubles.xsiam_alerts import is_signed

__all__ = ["FIELD", "Server", "Updating", "Version6", "Version8"]

FIELD = "alertbeamentity"
_MOST = 10_000_000  # bytes; not documented
_BUILT_IN = [{"value": "", "type": "Instance"}, {"value": "Manual", "type": "Brand"}]
_OF_INCIDENTS = {
    *("id", "version", "modified", "created", "rawname", "rawtype", "status", "owner", "closed"),
    *("name", "type", "severity", "occurred", "details", "labels", "rawjson", "customfields"),
    *("createinvestigation", "playbookid", "closenotes", "closereason", "reason", "sla"),
}


@dataclasses.dataclass(frozen=True)
class _Refuses:
    """Refuse the incident that holds MARKER."""


class Server(HttpReceiver):
    """version: 8 or 6. fields: custom fields of incidents, all of them searchable."""

    def __init__(
        self,
        key: str,
        *,
        version: int = 8,
        advanced: bool = False,
        fields: tuple[str, ...] = (FIELD,),
        root: str = "",
        **options: Any,
    ) -> None:
        super().__init__(max_bytes=_MOST, **options)
        self.key, self.version, self.advanced, self.fields = key, version, advanced, fields
        self.api = root + ("/xsoar/public/v1" if version == 8 else "")
        self.incidents: dict[str, dict[str, Any]] = {}  # in the order in which they were made
        self.searches = 0
        self.seen: list[dict[str, Any]] = []  # what was posted
        self.before_change: Any = None  # called once, before the next change is looked at
        self._found: dict[tuple[str, str], list[str]] = {}  # by field and value: ids
        self._nonces: set[str] = set()
        self._writing = threading.RLock()

    def faulty(self, request: Request) -> bool:
        """What makes or changes an incident."""
        return super().faulty(request) and request.path.endswith("/incident")

    def refused(self, fault: Answer, kind: str = "incCreateErr") -> Reply:
        title = "Failed creating incident" if kind == "incCreateErr" else kind
        body = {"id": kind, "status": fault.status, "title": title, "detail": title}
        body |= {"error": fault.text, "encrypted": False, "multires": None}
        return Reply(fault.status, body, dict(fault.headers))

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Refuses) and MARKER.encode() in request.body:
            return self.refused(Answer(400, text="not this one"))
        if isinstance(fault, Saying):
            return Reply(fault.status, fault.body)
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        if not self._is_known(request):
            return self.refused(Answer(401, text="Unauthorized"), "unauthorized")
        path = request.path.removeprefix(self.api)
        if request.method != "POST" or path not in ("/incident", "/incidents/search"):
            return self.refused(Answer(404, text="Not found"), "notFound")
        wanted = request.headers.get("content-type") == "application/json"
        if not wanted or "content-encoding" in request.headers:
            return self.refused(Answer(415, text="Unsupported media type"), "badMedia")
        try:
            body = json.loads(request.body, parse_constant=_no)
            if not isinstance(body, dict):
                raise ValueError("an object is wanted")
            with self._writing:
                return self._search(body) if path == "/incidents/search" else self._incident(body)
        except (ValueError, RecursionError) as error:
            return self.refused(Answer(400, text=str(error)), "badRequest")

    def ids(self) -> list[str]:
        """Of the versions that the incidents show."""
        with self._writing:
            return [
                label["value"].partition(" ")[0]
                for incident in self.incidents.values()
                for label in incident["labels"]
                if label["type"] == "alertbeam"
            ]

    def touch(self, identity: str, **changes: Any) -> None:
        """Somebody works on an incident."""
        with self._writing:
            incident = self.incidents[identity]
            incident.update(changes, version=incident["version"] + 1)

    def _is_known(self, request: Request) -> bool:
        if request.headers.get("x-xdr-auth-id", "") != ("7" if self.version == 8 else ""):
            return False
        if self.advanced:
            return is_signed(request.headers, self.key, self._nonces)
        return request.headers.get("authorization") == self.key

    def _search(self, body: dict[str, Any]) -> Reply:
        self.searches += 1
        asked = body.get("filter")
        if body.keys() != {"filter"} or not isinstance(asked, dict):
            raise ValueError("a filter is wanted")
        if asked.keys() - {"query", "page", "size", "sort"}:
            raise ValueError("an unknown part of a filter")
        query = re.fullmatch(r'(\w+):"([^"\\]*)"', asked.get("query", ""))
        size = asked.get("size", 0)
        if query is None or not 0 <= size <= 1000:
            raise ValueError("no such query, or more than 1000")
        if asked.get("sort") != [{"field": "created", "asc": False}]:
            raise ValueError("this double sorts by creation only, the newest first")
        field, value = query.groups()
        if field == "id":
            found = [value] if value in self.incidents else []
        elif field in self.fields:
            found = self._found.get((field, value), [])
        else:
            found = list(self.incidents)
        page = [self.incidents[identity] for identity in reversed(found)][:size]
        return Reply(200, {"total": len(found), "data": page or None})

    def _incident(self, body: dict[str, Any]) -> Reply:
        _check(body)
        self.seen.append(body)
        identity = body.get("id")
        if identity is not None:
            return self._change(identity, body)
        identity = str(len(self.incidents) + 1)
        made = {name: value for name, value in body.items() if name != "createInvestigation"}
        made |= {"id": identity, "version": 1, "status": 0, "owner": ""}
        made["type"] = body.get("type") or "Unclassified"
        made["labels"] = [*_BUILT_IN, *body.get("labels", [])]
        given = made.get("CustomFields", {})
        made["CustomFields"] = {name: given[name] for name in self.fields if name in given}
        self.incidents[identity] = made
        for pair in made["CustomFields"].items():
            self._found.setdefault(pair, []).append(identity)
        self.received += 1
        return Reply(200 if self.version == 8 else 201, made)

    def _change(self, identity: str, body: dict[str, Any]) -> Reply:
        hook, self.before_change = self.before_change, None
        if hook:
            hook()
        there = self.incidents.get(identity)
        if there is None:
            raise ValueError(f"there is no incident {identity}")
        if body.get("version") != there["version"]:
            text = f"DB Version '{there['version']}' and Insert version '{body.get('version')}' do "
            text += f"not match for id: {identity} on bucket [] [incidents] (15)"
            return self.refused(Answer(400, text=text), "errOptimisticLock")
        kept = dict.fromkeys(there)  # what is left out is wiped
        self.incidents[identity] = {**kept, **body, "version": there["version"] + 1}
        return Reply(200 if self.version == 8 else 201, self.incidents[identity])


def _no(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check(body: dict[str, Any]) -> None:
    """Raises ValueError for what is no incident."""
    unknown = {name for name in body if name.lower() not in _OF_INCIDENTS}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    if not isinstance(body.get("name"), str) or not body["name"]:
        raise ValueError("an incident has a name")
    if type(body.get("severity", 0)) not in (int, float):
        raise ValueError("a severity is a number")
    if body.get("severity", 0) not in (0, 0.5, 1, 2, 3, 4):
        raise ValueError("no such severity")
    for name in ("details", "rawJSON", "type", "occurred"):
        if not isinstance(body.get(name, ""), str):
            raise ValueError(f"{name} is a text")
    occurred = body.get("occurred")
    if occurred and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", occurred):
        raise ValueError("occurred is no time")
    if type(body.get("createInvestigation", True)) is not bool:
        raise ValueError("createInvestigation is true or false")
    for label in body.get("labels", []):
        if label.keys() != {"type", "value"} or not all(isinstance(t, str) for t in label.values()):
            raise ValueError("a label is a type and a value")
    if not isinstance(body.get("CustomFields", {}), dict):
        raise ValueError("custom fields are an object")


class Version8(ReceiverDouble):
    kind = "xsoar"
    version: ClassVar[int] = 8
    system = (
        "a double of Cortex XSOAR 8, written from “Create or update an incident” and “Search "
        "incidents by filter”"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": _Refuses(),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"{SECRET} may not create incidents"),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "a request is one incident",
        "status codes": "they are said of many records, and here is one: see test_xsoar.py",
    }

    # A thousand requests are more than the suite's impatience: what was under way comes again.
    may_repeat: ClassVar[frozenset[str]] = ReceiverDouble.may_repeat | {"outage"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Server(SECRET, version=self.version).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "key": "env:SECRET", "key_id": "7"}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.key = secret

    def up(self) -> None:
        self.receiver.max_bytes = _MOST
        super().up()


class Version6(Version8):
    name = "xsoar_6"
    version = 6
    system = (
        "a double of Cortex XSOAR 6, written from “Create single incident” and “Optimistic locking "
        "and versioning”"
    )

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "key": "env:SECRET"}


class Updating(Version8):
    name = "xsoar_updating"
    system = f"{Version8.system}; with a custom field by which incidents are found and changed"
    updates = True
    may_repeat: ClassVar[frozenset[str]] = frozenset()  # what is there already is found

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "key_field": FIELD}
