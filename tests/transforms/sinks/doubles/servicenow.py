"""ServiceNow: an instance with Event Management, incidents, and an import set for them.

Written from ServiceNow's product documentation (releases Xanadu to Brazil): “Table API”, “Batch
API”, “Import Set API”, “Pushing events to the instance using web service API”, “Configure the alert
active interval” (an open alert takes every event, a closed one is opened again), “Inbound REST API
rate limiting”, “Client credentials grant workflow”, KB0747638 (too large), KB0783632 (401). As the
documentation has it, an invalid part of a query is left out, fields that a table lacks are ignored,
and what is too long is cut: whoever relies on it is told by `surprises`. The import set's transform
map has the script of docs/sinks/servicenow.md. The status of a request that is too large is not
documented: 400 here. Nothing of the sink's own code is used.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, urlsplit

from pipelines.local.receivers import Answer, HttpReceiver, Poison, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = ["Events", "Imported", "Incidents", "Instance", "Items", "Page", "SecurityIncidents"]

_TASK = {
    "short_description": 160,
    "description": 4000,
    "work_notes": 4000,
    "correlation_id": 100,
    "correlation_display": 100,
    "impact": 40,
    "urgency": 40,
    "assignment_group": 32,
}
_TABLES = {
    "incident": {
        **_TASK,
        **dict.fromkeys(("severity", "state", "category", "close_code"), 40),
        "close_notes": 4000,
        "caller_id": 32,
    },
    "sn_si_incident": {**_TASK, "severity": 40},
}
_EVENT = {
    **dict.fromkeys(("source", "event_class", "node", "resource", "type", "metric_name"), 100),
    "message_key": 1024,
    "severity": 40,
    "time_of_event": 40,
    "resolution_state": 100,
    "description": 4000,
    "additional_info": 1_000_000,
}
_CHOICES = {
    "impact": "123",
    "urgency": "123",
    "severity": "123",
    "state": "123678",
    "close_code": {"Solution provided", "No resolution provided", "Resolved by caller"},
}
_ROLES = {"incident": "itil", "sn_si_incident": "sn_si.analyst", "em_event": "evt_mgmt_integration"}
_STAGING = "u_alertbeam"
_SYSTEM = ("sys_id", "active", "sys_created_on")
_SAID = {
    400: ("Exception while reading request", "The payload is not valid JSON."),
    401: ("User Not Authenticated", "Required to provide Auth information"),
    403: ("Operation Failed", "ACL Exception Insert Failed due to security constraints"),
    404: ("No Record found", "Record doesn't exist or ACL restricts the record retrieval"),
    429: ("Rate limit exceeded", "Rate limit of 10 requests per hour for Table API exceeded"),
}
_HIBERNATES = b"<html><body><h1>Your instance is hibernating</h1></body></html>"


@dataclasses.dataclass(frozen=True)
class Items:
    """Refuse these requests of a batch, or all, and serve the others."""

    status: int
    message: str = ""
    detail: str = ""
    marker: str = ""


@dataclasses.dataclass(frozen=True)
class Unserved:
    """Serve the first of a batch, and no more."""

    first: int


@dataclasses.dataclass(frozen=True)
class Transformed:
    """The import set's results are these, of rows that hold the marker, or of all."""

    status: str
    told: str = ""
    marker: str = ""


@dataclasses.dataclass(frozen=True)
class Page:
    """Answer as what stands there while the instance does not."""

    status: int


class _RefusedError(Exception):
    def __init__(self, status: int, message: str = "", detail: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        known = _SAID.get(status, ("", None))
        self.body = _failure(message or known[0], detail if message else known[1])


class Instance(HttpReceiver):
    """One instance and its only user.

    oauth: that user is an OAuth client, and signs in by tokens. roles: what it may do.
    """

    server = "snow_adc"

    def __init__(self, *, oauth: bool = False, max_bytes: int = 10_485_760) -> None:
        super().__init__(max_bytes=max_bytes)
        self.oauth = oauth
        self.password = SECRET
        self.roles = {*_ROLES.values(), "import_transformer"}
        self.mandatory: set[str] = set()  # of new incidents, by a data policy
        self.surprises: list[str] = []
        self.tables: dict[str, dict[str, dict[str, str]]] = {name: {} for name in _TABLES}
        self.events: list[dict[str, str]] = []
        self.alerts: dict[str, dict[str, str]] = {}  # by message key
        self.seen: list[Request] = []
        self.tokens: set[str] = set()
        self.lifetime = 1799  # seconds of a token
        self._writing = threading.RLock()

    def rows(self, table: str = "incident") -> list[dict[str, str]]:
        assert not self.surprises, self.surprises[:3]
        with self._writing:
            return [dict(row) for row in self.tables[table].values()]

    def ids(self) -> list[str]:
        """Of the version that each record shows."""
        told = [
            row["correlation_display"].split(" ")[3] for name in _TABLES for row in self.rows(name)
        ]
        with self._writing:
            return told + [alert["event"] for alert in self.alerts.values()]

    def faulty(self, request: Request) -> bool:
        return super().faulty(request) and request.path != "/oauth_token.do"

    def refused(self, fault: Answer) -> Reply:
        message, detail = _SAID.get(fault.status, ("Failure", None))
        body = _failure(fault.text or message, detail)
        return Reply(fault.status, body, dict(fault.headers))

    def unreadable(self, answer: Answer) -> Reply:
        if answer.status != 413:
            return self.refused(answer)
        detail = f"Rejected large REST payload. Max allowed: {self.max_bytes} bytes."
        return Reply(400, _failure("Exception while reading request", detail))

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, Page):
            return Reply(fault.status, _HIBERNATES, {"Content-Type": "text/html"})
        if isinstance(fault, Items | Unserved | Transformed):
            return self._reply_to(request, fault)
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        return self._reply_to(request, None)

    def _reply_to(self, request: Request, fault: Any) -> Reply:
        self.seen.append(request)
        try:
            if request.path == "/oauth_token.do":
                return self._token(request)
            self._authenticated(request)
            if request.path == "/api/now/v1/batch":
                return Reply(200, self._batch(_json(request), fault))
            status, body = self._rest(request, fault)
        except _RefusedError as error:
            return Reply(error.status, error.body)
        return Reply(status, body)

    def _authenticated(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        pair = base64.b64encode(f"alertbeam:{self.password}".encode()).decode()
        known = {f"Bearer {token}" for token in self.tokens} if self.oauth else {f"Basic {pair}"}
        if not any(hmac.compare_digest(given.encode(), it.encode()) for it in known):
            raise _RefusedError(401)

    def _token(self, request: Request) -> Reply:
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return Reply(400, {"error": "invalid_request", "error_description": "form is wanted"})
        form = {name: one for name, (one, *_) in parse_qs(request.body.decode()).items()}
        wanted = {
            "grant_type": "client_credentials",
            "client_id": "alertbeam",
            "client_secret": self.password,
        }
        if request.method != "POST" or not self.oauth or form != wanted:
            return Reply(401, {"error_description": "access_denied", "error": "server_error"})
        token = uuid.uuid4().hex
        self.tokens.add(token)
        return Reply(
            200,
            {
                "access_token": token,
                "scope": "useraccount",
                "token_type": "Bearer",
                "expires_in": self.lifetime,
            },
        )

    def _batch(self, asked: dict[str, Any], fault: Any) -> dict[str, Any]:
        if set(asked) != {"batch_request_id", "rest_requests"}:
            raise _RefusedError(400)
        served, left = [], []
        for number, item in enumerate(asked["rest_requests"]):
            if isinstance(fault, Unserved) and number >= fault.first:
                left.append(item["id"])
            else:
                served.append(self._item(item, fault))
        if len({item["id"] for item in asked["rest_requests"]}) != len(served) + len(left):
            raise _RefusedError(400)
        return {
            "batch_request_id": asked["batch_request_id"],
            "serviced_requests": served,
            "unserviced_requests": left,
        }

    def _item(self, item: dict[str, Any], fault: Any) -> dict[str, Any]:
        headers = {it["name"].lower(): it["value"] for it in item["headers"]}
        parts = urlsplit(item["url"])
        assert parts.path.startswith("/api/") and not parts.netloc
        body = base64.b64decode(item["body"], validate=True)
        query = dict(parse_qsl(parts.query))
        request = Request(item["method"], parts.path, query, headers, body)
        try:
            if isinstance(fault, Items) and fault.marker.encode() in body:
                raise _RefusedError(fault.status, fault.message, fault.detail or None)
            status, answer = self._rest(request, fault)
        except _RefusedError as error:
            status, answer = error.status, error.body
        return {
            "id": item["id"],
            "body": base64.b64encode(json.dumps(answer).encode()).decode(),
            "status_code": status,
            "status_text": "OK" if status == 200 else "Created" if status == 201 else "Error",
            "headers": [],
            "execution_time": 5,
        }

    def _rest(self, request: Request, fault: Any) -> tuple[int, dict[str, Any]]:
        if request.headers.get("accept") != "application/json":
            raise _RefusedError(406, "Not acceptable")
        match request.method, *request.path.removeprefix("/api/").split("/"):
            case ("GET", "now", "v2", "table", table):
                return 200, {"result": self._query(table, request.query)}
            case ("POST", "now", "v2", "table", table):
                self._may(table)
                row = self._insert(table, _json(request))
                return 201, {"result": _only(row, request.query)}
            case ("PATCH", "now", "v2", "table", table, sys_id):
                self._may(table)
                row = self._update(table, sys_id, _json(request))
                return 200, {"result": _only(row, request.query)}
            case ("POST", "now", "import", table):
                return self._import(table, _json(request), fault)
            case ("POST", "global", "em", "jsonv2"):
                self._may("em_event")
                count = self._take(_json(request))
                text = f"{count} events were inserted"
                return 200, {"result": {"Default Bulk Endpoint": text}}
        raise _RefusedError(400, "Requested URI does not represent any resource")

    def _may(self, table: str) -> None:
        if table not in _ROLES:
            raise _RefusedError(400, f"Invalid table {table}")
        if _ROLES[table] not in self.roles:
            raise _RefusedError(403, "User Not Authorized", "Failed API level ACL Validation")

    def _query(self, table: str, query: Mapping[str, str]) -> list[dict[str, str]]:
        if table == _STAGING:
            return []
        self._may(table)
        with self._writing:
            rows = list(self.tables.get(table, {}).values())
        for part in filter(None, query.get("sysparm_query", "").split("^")):
            known = re.fullmatch(r"([a-z_]+)(IN|=)(.*)", part, re.DOTALL)
            if part.startswith("ORDERBYDESC"):
                rows.sort(key=lambda row: row.get(part[11:], ""), reverse=True)
            elif known and known[1] in {*_SYSTEM, *_TABLES[table]} and "javascript:" not in part:
                wanted = known[3].split(",") if known[2] == "IN" else [known[3]]
                rows = [row for row in rows if row.get(known[1]) in wanted]
            else:
                self.surprises.append(f"a query is not understood: {part}")
        limit = int(query.get("sysparm_limit", 10_000))
        return [_only(row, query) for row in rows[:limit]]

    def _insert(self, table: str, given: dict[str, Any]) -> dict[str, str]:
        if missing := sorted(self.mandatory - set(given)):
            fields = ", ".join(missing)
            detail = f"Data Policy Exception: The following fields are mandatory: {fields}"
            raise _RefusedError(403, "Operation Failed", detail)
        with self._writing:
            sys_id = uuid.uuid4().hex
            row = {"sys_id": sys_id, "active": "true", "sys_created_on": f"{len(self.seen):09d}"}
            row |= {"state": "1"} if table == "incident" else {}
            row = self._stored(table, row, given)
            self.tables[table][sys_id] = row
            return row

    def _update(self, table: str, sys_id: str, given: dict[str, Any]) -> dict[str, str]:
        with self._writing:
            if sys_id not in self.tables[table]:
                raise _RefusedError(404)
            row = self.tables[table][sys_id]
            if row["active"] != "true":
                detail = "ACL Exception Update Failed due to security constraints"
                raise _RefusedError(403, "Operation Failed", detail)
            self.tables[table][sys_id] = self._stored(table, row, given)
            return self.tables[table][sys_id]

    def _stored(
        self, table: str, row: dict[str, str], given: dict[str, Any], prefix: str = ""
    ) -> dict[str, str]:
        row = dict(row)
        for name, value in given.items():
            most = _TABLES[table].get(name)
            if most is None or not isinstance(value, str) or len(value) > most:
                self.surprises.append(f"{table}.{name} is not stored as it is: {str(value)[:50]}")
            if most and value in _CHOICES.get(name, (value,)):
                row[name] = str(value)[:most]
        if row.get("state") == "6" and not (row.get("close_code") and row.get("close_notes")):
            detail = "Data Policy Exception: The following fields are mandatory: Resolution code"
            raise _RefusedError(403, "Operation Failed", detail)
        row["active"] = "false" if row.get("state") in ("7", "8") else "true"
        return row

    def _import(self, table: str, given: dict[str, Any], fault: Any) -> tuple[int, dict[str, Any]]:
        if table != _STAGING:
            raise _RefusedError(400, f"Invalid staging table {table}")
        if "import_transformer" not in self.roles:
            raise _RefusedError(403, "User Not Authorized", "Failed API level ACL Validation")
        source = {name.removeprefix("u_"): value for name, value in given.items()}
        if not all(name.startswith("u_") for name in given):
            self.surprises.append(f"{_STAGING} has no such columns: {sorted(given)}")
        told = {"transform_map": "alertbeam", "table": "incident"}
        if isinstance(fault, Transformed) and fault.marker in str(given):
            result = {**told, "status": fault.status, "error_message": fault.told}
            results = [result] if fault.status else []
        else:
            results = [told | self._transform(source)]
        return 201, {"import_set": "ISET0010001", "staging_table": table, "result": results}

    def _transform(self, source: dict[str, Any]) -> dict[str, str]:
        with self._writing:
            key = source["correlation_id"]
            rows = self.tables["incident"].values()
            target = next((row for row in rows if row["correlation_id"] == key), None)
            try:
                if target is None:
                    return {
                        "status": "inserted",
                        "sys_id": self._insert("incident", source)["sys_id"],
                    }
                if source["correlation_display"] <= target["correlation_display"]:
                    return {"status": "ignored", "sys_id": target["sys_id"]}
                if target.get("state", "") >= "6":
                    source.pop("state", None)
                self._update("incident", target["sys_id"], source)
                return {"status": "updated", "sys_id": target["sys_id"]}
            except _RefusedError as error:
                return {"status": "error", "error_message": error.body["error"]["detail"]}

    def _take(self, given: dict[str, Any]) -> int:
        records = given.get("records")
        if set(given) != {"records"} or not isinstance(records, list) or not records:
            raise _RefusedError(400, "Exception while reading request", "records are wanted")
        for record in records:
            self._check_event(record)
        with self._writing:
            for record in records:
                self.events.append(record)
                info = json.loads(record["additional_info"])
                self.alerts[record["message_key"]] = {
                    "event": info["event"],
                    "severity": record["severity"],
                    "state": "Closed" if record["severity"] == "0" else "Open",
                }
        return len(records)

    def _check_event(self, record: Any) -> None:
        for name, value in record.items():
            if not isinstance(value, str) or len(value) > _EVENT.get(name, 0):
                self.surprises.append(f"em_event.{name} is not stored as it is: {str(value)[:50]}")
        time = record.get("time_of_event", "2026-01-01 00:00:00")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", time):
            raise _RefusedError(400, "Exception while reading request", "time_of_event")
        closing = record.get("resolution_state") == "Closing"
        if record.get("severity") not in set("012345") or closing != (record["severity"] == "0"):
            raise _RefusedError(400, "Exception while reading request", "severity")
        info = json.loads(record.get("additional_info", "{}"))
        if not all(isinstance(value, str) for value in info.values()):
            self.surprises.append("additional_info holds more than texts")


def _failure(message: str, detail: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "detail": detail}, "status": "failure"}


def _json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type") != "application/json":
        raise _RefusedError(415, "Unsupported media type")
    try:
        given = json.loads(request.body)
    except (ValueError, RecursionError):
        raise _RefusedError(400) from None
    if not isinstance(given, dict):
        raise _RefusedError(400)
    return given


def _only(row: Mapping[str, str], query: Mapping[str, str]) -> dict[str, str]:
    wanted = query.get("sysparm_fields", "").split(",")
    return {name: row.get(name, "") for name in wanted} if wanted != [""] else dict(row)


_DOCUMENTED = "written from ServiceNow's product documentation"
_POLICY = "Data Policy Exception: The following fields are mandatory: Caller"
_RULE = "Operation against file 'incident' was aborted by Business Rule 'No tests'"
_FOR_ALL: Sequence[Says] = [
    *(Says(f"{status}", Answer(status), "stopped") for status in (302, 401, 403, 404, 405, 415)),
    *(Says(f"{status}", Answer(status), "retried") for status in (408, 429, 500, 502, 503, 504)),
    Says("503", Answer(503), "owed"),
    Says("a failure that is 200", Answer(200, text="out of order"), "retried"),
    Says("too large", lambda double: double.limit(4_000), "split"),
    Says(
        "an unknown address",
        Answer(400, text="Requested URI does not represent any resource"),
        "stopped",
    ),
    Says("a hibernating instance, 200", Page(200), "stopped"),
    Says("a hibernating instance, 503", Page(503), "retried"),
]
_IN_BATCHES: Sequence[Says] = [
    Says("400", Answer(400), "stopped"),
    Says("an item's 400", Items(400, marker=MARKER), "dead"),
    *(Says(f"an item's {status}", Items(status), "stopped") for status in (401, 403, 404, 405)),
    *(Says(f"an item's {status}", Items(status), "retried") for status in (408, 429, 500, 503)),
    Says("an item's 503", Items(503), "owed"),
    Says("items that are not served", Unserved(0), "retried"),
]


class Incidents(ReceiverDouble):
    """Through the Table API."""

    kind = "servicenow"
    system = f"a double of ServiceNow's Table and Batch APIs, {_DOCUMENTED}"
    secret = True
    updates = True
    target: ClassVar[str] = "incident"
    oauth: ClassVar[bool] = False
    more: ClassVar[Mapping[str, Any]] = {}
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "partial rejection": Items(403, "Operation Failed", _RULE, marker=MARKER),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(429, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"{SECRET} is not welcome"),
    }
    table: ClassVar[Sequence[Says]] = [
        *_FOR_ALL,
        *_IN_BATCHES,
        Says("a data policy", Items(403, "Operation Failed", _POLICY, MARKER), "dead"),
        Says("a business rule", Items(403, "Operation Failed", _RULE, MARKER), "dead"),
        Says("an unknown table", Items(400, "Invalid table incident"), "stopped"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "unnamed rejection": "in a batch each record has an answer of its own",
    }
    may_repeat: ClassVar[frozenset[str]] = frozenset()  # what is there is found

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Instance(oauth=self.oauth).start()

    def settings(self) -> dict[str, Any]:
        names = ("client_id", "client_secret") if self.oauth else ("username", "password")
        signed = dict(zip(names, ("alertbeam", "env:SECRET"), strict=True))
        return {"url": self.receiver.url, "table": self.target, **signed, **self.more}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.password = secret
        self.receiver.tokens.clear()

    def up(self) -> None:
        self.receiver.max_bytes = 10_485_760
        super().up()


class SecurityIncidents(Incidents):
    """Through the Table API too, with OAuth."""

    name = "servicenow_security_incident"
    target = "sn_si_incident"
    oauth = True


class Imported(Incidents):
    """Through an import set."""

    name = "servicenow_import_set"
    system = f"a double of ServiceNow's Import Set and Batch APIs, {_DOCUMENTED}"
    more: ClassVar[Mapping[str, Any]] = {"import_table": _STAGING}
    faults: ClassVar[Mapping[str, Any]] = {
        **Incidents.faults,
        "partial rejection": Transformed("error", "the script threw an error", MARKER),
    }
    table: ClassVar[Sequence[Says]] = [
        *_FOR_ALL,
        *_IN_BATCHES,
        Says("a transform's error", Transformed("error", "a script's error", MARKER), "dead"),
        Says("a transform that skips", Transformed("skipped", "no key", MARKER), "dead"),
        Says("no transform map", Transformed(""), "stopped"),
        Says("no transform entry", Transformed("error", "No transform entry"), "stopped"),
    ]


class Events(Incidents):
    """Event Management."""

    name = "servicenow_event"
    system = f"a double of ServiceNow's Event Management, {_DOCUMENTED}"
    target = "event"
    faults: ClassVar[Mapping[str, Any]] = {
        **{name: it for name, it in Incidents.faults.items() if name != "partial rejection"},
        "unnamed rejection": Poison(MARKER.encode()),
    }
    table: ClassVar[Sequence[Says]] = [*_FOR_ALL, Says("400", Poison(MARKER.encode()), "dead")]
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "it takes or refuses a request as a whole",
    }
