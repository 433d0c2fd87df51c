"""Power BI's push datasets, as strict as their documentation.

Written from "Push Datasets" of the Power BI REST API (rest/api/power-bi/push-datasets: PostDataset-
InGroup, GetDatasetsInGroup, PostRowsInGroup), "Push semantic model limitations", and error bodies
that people have published. What the service says of a row that does not fit its table is nowhere
written down: those sentences are this double's. Tokens are given by a double of Entra.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import azure.identity  # noqa: F401 - slow to import, and then within somebody's patience

from pipelines.local.receivers import Answer, HttpReceiver, Poison, Reply, Request
from tests.transforms.entra import EntraReceiver
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)
from transforms.sinks import power_bi
from transforms.sinks.base import Limits, Rate, Sink

__all__ = ["SCOPE", "WORKSPACE", "PowerBi", "Service"]

WORKSPACE = "f089354e-8366-4e18-aea3-4cb4a3a50b48"
SCOPE = "https://analysis.windows.net/powerbi/api/.default"

_LARGEST = 1_048_576  # bytes of a request: ours, none is documented
_COLUMNS, _ROWS, _CHARACTERS = 75, 10_000, 4_000
_PENDING = 5
_FIFO = 200_000
_TYPES = {"int64", "double", "bool", "boolean", "datetime", "string", "decimal"}
_CODES = {
    400: "InvalidRequest",
    401: "PowerBINotAuthorizedException",
    403: "PowerBINotAuthorizedException",
    404: "ItemNotFound",
    413: "RequestTooLarge",
    429: "TooManyRequests",
}


@dataclasses.dataclass(frozen=True)
class _Error:
    """An error by its code; without one, it quotes the token."""

    status: int
    code: str = ""


class Service(HttpReceiver):
    """The API, with one workspace.

    a_minute, an_hour: requests with rows a minute, and rows an hour, that a dataset takes.
    """

    def __init__(self, entra: EntraReceiver) -> None:
        super().__init__(max_bytes=_LARGEST)
        self.entra = entra
        self.datasets: dict[str, dict[str, Any]] = {}  # by their ids
        self.rows: deque[dict[str, Any]] = deque(maxlen=_FIFO)
        self.a_minute, self.an_hour = 1_000_000, 1_000_000_000
        self.paths: list[str] = []
        self._since = time.monotonic()
        self._asked = self._added = self._pending = 0
        self._adding = threading.Lock()

    def faulty(self, request: Request) -> bool:
        return request.method == "POST" and request.path.endswith("/rows")

    def refused(self, fault: Answer) -> Reply:
        code = _CODES.get(fault.status, "InternalServerError")
        return _no(fault.status, code, fault.text or "It failed", dict(fault.headers))

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Error):
            told = "" if fault.code else request.headers["authorization"]
            return _no(fault.status, fault.code or "Forbidden", f"It failed {told}")
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        self.paths.append(f"{request.method} {request.path}")
        authorization = request.headers.get("authorization")
        if authorization is None:
            return Reply(401)  # nothing else is said
        if not self.entra.knows(authorization, SCOPE):
            text = "Access token has expired, resubmit with a new access token"
            return _no(403, "TokenExpired", text)
        root, _, rest = request.path.partition(f"/groups/{WORKSPACE}/")
        if root != "/v1.0/myorg" or not rest:
            return _no(404, "PowerBIEntityNotFound", "")
        match [request.method, *rest.split("/")]:
            case ["GET", "datasets"]:
                listed = [self._shown(identity) for identity in self.datasets]
                return Reply(200, {"@odata.context": f"{self.url}/$metadata", "value": listed})
            case ["POST", "datasets"]:
                return self._create(request)
            case ["GET", "datasets", identity] if identity in self.datasets:
                return Reply(200, self._shown(identity))
            case ["POST", "datasets", identity, "tables", name, "rows"]:
                return self._add(request, identity, name)
        return _no(404, "ItemNotFound", "It is not found")

    def add(self, name: str, columns: Sequence[Mapping[str, str]], table: str = "Alerts") -> str:
        """Make a dataset; its id."""
        identity = str(uuid.uuid4())
        tables = [{"name": table, "columns": [*columns]}]
        self.datasets[identity] = {"name": name, "tables": tables, "addRowsAPIEnabled": True}
        return identity

    def _shown(self, identity: str) -> dict[str, Any]:
        known = self.datasets[identity]
        shown = {name: known[name] for name in ("name", "addRowsAPIEnabled")}
        return {"id": identity, **shown, "isRefreshable": False, "configuredBy": "alertbeam"}

    def _create(self, request: Request) -> Reply:
        if request.query.get("defaultRetentionPolicy", "None") not in ("None", "basicFIFO"):
            return _no(400, "InvalidRequest", "The retention policy is not one")
        try:
            asked = _body(request, {"name", "tables", "defaultMode"})
            names = {table["name"] for table in asked["tables"]}
            if not (asked["name"] and 0 < len(names) <= 75):
                raise ValueError("a dataset has a name and 1 to 75 tables")
            for table in asked["tables"]:
                columns = table["columns"]
                if not 0 < len({column["name"] for column in columns}) == len(columns) <= _COLUMNS:
                    raise ValueError("a table has 1 to 75 columns, each with a name of its own")
                for column in columns:
                    if column["dataType"].lower() not in _TYPES or len(column) > 2:
                        raise ValueError(f"column {column['name']} has no type that there is")
        except (ValueError, KeyError, TypeError) as error:
            return _no(400, "InvalidRequest", f"{error}")
        (table,) = asked["tables"]
        identity = self.add(asked["name"], table["columns"], table["name"])
        context = f"{self.url}/v1.0/myorg/groups/{WORKSPACE}/$metadata#datasets/$entity"
        made = {"@odata.context": context, "id": identity, "name": asked["name"]}
        return Reply(201, made | {"defaultRetentionPolicy": "basicFIFO"})

    def _add(self, request: Request, identity: str, name: str) -> Reply:
        if identity not in self.datasets:
            text = (
                f"Dataset {identity} is not found! please verify datasetId is correct and user "
                "have sufficient permissions."
            )
            return _no(404, "ItemNotFound", text)
        tables = {table["name"]: table for table in self.datasets[identity]["tables"]}
        if name not in tables:
            return _no(404, "ItemNotFound", f"Table {name} is not found")
        with self._adding:
            self._pending += 1
            busy = self._pending > _PENDING
        try:
            if busy:
                return _no(429, "TooManyRequests", "More than 5 requests are pending")
            rows = _body(request, {"rows"})["rows"]
            if not 0 < len(rows) <= _ROWS:
                raise ValueError(f"1 to {_ROWS} rows are taken in a request")
            types = {it["name"]: it["dataType"].lower() for it in tables[name]["columns"]}
            for row in rows:
                for column, value in row.items():
                    _check(column, value, types)
            return self._throttled(len(rows)) or self._stored(rows)
        except (ValueError, TypeError, AttributeError) as error:
            return _no(400, "InvalidRequest", f"{error}")
        finally:
            with self._adding:
                self._pending -= 1

    def _throttled(self, count: int) -> Reply | None:
        with self._adding:
            self._asked += 1
            passed = time.monotonic() - self._since
            if self._asked > self.a_minute:
                text = "You have exceeded the amount of requests allowed in the current time frame"
                bare = {"message": f"{text} and further requests will fail."}
                return Reply(429, bare, {"Retry-After": f"{60 - passed:.0f}"})
            if self._added + count > self.an_hour:
                text = "You are over your rows per hour limit for this dataset. To push more rows "
                text += "per hour, upgrade your account to Power BI Pro or retry your push later."
                return _no(429, "TooManyRequests", text, {"Retry-After": f"{3600 - passed:.0f}"})
        return None

    def _stored(self, rows: list[dict[str, Any]]) -> Reply:
        with self._adding:
            self._added += len(rows)
            self.received += len(rows)
            self.rows.extend(rows)
        return Reply(200)


def _no(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Reply:
    error = {"code": code, "message": text} if text else {"code": code}
    return Reply(status, {"error": error}, headers or {})


def _body(request: Request, known: set[str]) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ValueError("application/json is wanted")
    body = json.loads(request.body)
    if not isinstance(body, dict) or not body.keys() <= known:
        raise ValueError(f"an object of {sorted(known)} is wanted")
    return body


def _check(column: str, value: Any, types: Mapping[str, str]) -> None:
    kind = types.get(column)
    if kind is None:
        raise ValueError(f"The column '{column}' is not found in the table")
    right: bool
    if value is None:
        right = True
    elif kind == "string":
        right = isinstance(value, str) and len(value.encode("utf-16-le")) <= 2 * _CHARACTERS
    elif kind == "datetime":
        right = isinstance(value, str) and value.endswith("Z")
        datetime.datetime.fromisoformat(value.removesuffix("Z"))
    elif kind == "int64":
        right = type(value) is int and abs(value) < 2**63
    elif kind in ("double", "decimal"):
        right = type(value) in (int, float)
    else:
        right = type(value) is bool
    if not right:
        raise ValueError(f"a value is no {kind} that a row may hold")


class _Unhurried(power_bi.PowerBi):
    """The sink without the service's rate, at which the suite would take an hour."""

    @property
    def limits(self) -> Limits:
        limits = super().limits
        return Limits(limits.max_bytes, limits.max_records, limits.max_record_bytes, Rate())


class PowerBi(ReceiverDouble):
    kind = "power_bi"
    system = (
        "a double of Power BI, written from “Push Datasets” of its REST API and “Push semantic "
        "model limitations”, with a double of Entra; its rates (120 requests a minute, 1,000,000 "
        "rows an hour) apart from the suite"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": Poison(MARKER.encode()),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(429, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": _Error(403),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "a request is taken or refused as a whole, and no row is named",
    }
    table: ClassVar[Sequence[Says]] = [
        Says("400", Poison(MARKER.encode()), "dead"),
        Says("400 about a column", Answer(400, text="The column 'X' is not found"), "stopped"),
        Says("401", Answer(401), "stopped"),
        Says("403 PowerBINotAuthorizedException", Answer(403), "stopped"),
        Says("403 TokenExpired", _Error(403, "TokenExpired"), "retried"),
        Says("403 TokenExpired", _Error(403, "TokenExpired"), "stopped"),
        Says("404 ItemNotFound", Answer(404), "stopped"),
        *(Says(f"{status}", Answer(status), "stopped") for status in (204, 302, 405)),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(
            Says(f"{status}", Answer(status), "retried")
            for status in (408, 429, 500, 502, 503, 504)
        ),
        Says("503", Answer(503), "owed"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entra = EntraReceiver(secret=SECRET, scopes={SCOPE}).start()
        self.receiver = Service(self.entra).start()

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        return _Unhurried(name, super().sink(name, **options).settings)

    def settings(self) -> dict[str, Any]:
        return {
            "url": self.receiver.url,
            "workspace": WORKSPACE,
            "credential": self.entra.credential("env:SECRET"),
        }

    def ids(self) -> list[str]:
        return [row["EventId"] for row in [*self.receiver.rows]]

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.entra.secret = secret
        self.entra.revoke()

    def up(self) -> None:
        self.receiver.max_bytes = _LARGEST
        super().up()

    def stop(self) -> None:
        super().stop()
        self.entra.stop()
