"""Microsoft's Logs Ingestion API: a rule with the streams of deploy/azure, and Entra before it.

Written from "Logs Ingestion API in Azure Monitor", "Azure Monitor service limits" and the OpenAPI
description 2023-01-01; its errors are worded as in the tests and the troubleshooting guides of
Microsoft's own clients (azure-sdk-for-net, -js, -python). It is stricter than the service, which
says 204 to what is no array, drops fields that the stream does not declare and cuts long ones: here
all of that is a 400. None of the sink's own code is used.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

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

__all__ = ["RULE", "SCOPE", "Asim", "Coded", "Custom", "Quotes", "Rule", "Takes"]

RULE = "dcr-000a00a000a00000a000000aa000a0aa"
SCOPE = "https://monitor.azure.com/.default"
LARGEST = 1_048_576
FIELD = 64 * 1024
COLUMNS: dict[str, list[dict[str, str]]] = json.loads(
    (Path(__file__).parents[4] / "deploy" / "azure" / "columns.json").read_text(encoding="utf-8")
)
# Of the schema, but no columns of the table: a stream that does not declare them drops them.
_DROPPED = {"AlertBeam_CL": set(), "ASimAlertEventLogs": {"EventSchema", "Hostname", "IpAddr"}}
_CODES = {
    400: "InvalidPayload",
    401: "AuthenticationFailed",
    403: "OperationFailed",
    404: "NotFound",
    413: "ContentLengthLimitExceeded",
    429: "TooManyRequests",
}


@dataclasses.dataclass(frozen=True)
class Takes:
    """Take it, and answer this, without a body."""

    status: int


@dataclasses.dataclass(frozen=True)
class Coded:
    """Refuse every request, with this code; `bare`: in a header alone."""

    code: str
    status: int = 400
    bare: bool = False


@dataclasses.dataclass(frozen=True)
class Quotes:
    """Refuse, and repeat the token."""


class Rule(HttpReceiver):
    """Takes rows of a table's stream, from whoever bears a token of this Entra."""

    server = "Microsoft-HTTPAPI/2.0"

    def __init__(self, entra: EntraReceiver, table: str, **options: Any) -> None:
        super().__init__(max_bytes=LARGEST, **options)
        self.entra = entra
        self.stream = f"Custom-{table}"
        self.dropped: set[str] = _DROPPED[table]
        self.columns = {column["name"]: column["type"] for column in COLUMNS[table]}
        self.granted = True  # whether the application has its role
        self.seen: list[Request] = []

    def respond(self, request: Request) -> Reply:
        self.seen.append(request)
        found = re.fullmatch(r"/dataCollectionRules/([^/]+)/streams/([^/]+)", request.path)
        if found is None:
            return Reply(404)  # a malformed URI has no answer of its own
        if request.method != "POST":
            return self._no(405, "MethodNotAllowed", "The method is not allowed.")
        if request.query != {"api-version": "2023-01-01"}:
            return self._no(400, "UnsupportedApiVersion", "The api-version is not supported.")
        if not self.entra.knows(request.headers.get("authorization"), SCOPE):
            text = "The authentication token is missing, has expired, or is for something else."
            reply = self._no(401, "AuthenticationFailed", text)
            return dataclasses.replace(reply, headers={"WWW-Authenticate": "Bearer"})
        rule, stream = found.groups()
        if rule != RULE:
            text = f"Data collection rule with immutable Id '{rule}' not found."
            return self._no(404, "NotFound", text)
        if not self.granted:
            text = (
                "The authentication token provided does not have access to ingest data for the "
                f"data collection rule with immutable Id '{RULE}' PipelineAccessResult: "
                "AccessGranted: False, IsRbacPresent: False, IsDcrDceBindingValid: , DcrArmId: ."
            )
            return self._no(403, "OperationFailed", text)
        if stream != self.stream:
            return self._no(404, "InvalidStream", f"The stream {stream} was not found in the rule.")
        if request.headers.get("content-type") != "application/json":
            return self._no(415, "UnsupportedMediaType", "application/json is expected.")
        if not request.body:
            return Reply(500)
        try:
            rows = self._rows(request.body)
        except (ValueError, RecursionError) as error:
            return self._no(400, "InvalidPayload", f"Malformed JSON: {error}")
        self.keep(b"".join(json.dumps(row).encode() + b"\n" for row in rows), records=len(rows))
        return Reply(204)

    def refused(self, fault: Answer) -> Reply:
        code = _CODES.get(fault.status, "InternalServerError")
        return self._no(fault.status, code, fault.text or "A fault.", dict(fault.headers))

    def unreadable(self, answer: Answer) -> Reply:
        if answer.status == 413:
            text = f"Maximum allowed content length: {LARGEST} bytes (1 MB)."
            return self._no(413, "ContentLengthLimitExceeded", text)
        return super().unreadable(answer)

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, Takes):
            reply = self.respond(request)
            return Reply(fault.status) if reply.status == 204 else reply
        if isinstance(fault, Coded):
            reply = self._no(fault.status, fault.code, "It is not there.")
            return dataclasses.replace(reply, body=b"") if fault.bare else reply
        if isinstance(fault, Quotes):
            return self._no(403, "OperationFailed", f"Not for {request.headers['authorization']}.")
        return super().failed(request, fault)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def _rows(self, body: bytes) -> list[dict[str, Any]]:
        rows = json.loads(body.decode("utf-8"), parse_constant=_no, object_pairs_hook=_once)
        if not isinstance(rows, list):
            raise ValueError("an array is expected")
        for row in rows:
            if not isinstance(row, dict):
                raise ValueError("an array of objects is expected")
            for name, value in row.items():
                if name not in self.dropped:
                    self._check(name, value)
        return rows

    def _check(self, name: str, value: Any) -> None:
        kind = self.columns.get(name)
        if kind is None:
            raise ValueError(f"the stream does not declare {name}")
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text.encode("utf-8")) > FIELD:
            raise ValueError(f"{name} is longer than 64 KB")
        if kind == "datetime":
            if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", str(value)):
                raise ValueError(f"{name} is no datetime")
            datetime.fromisoformat(value[:19])
        elif kind != "dynamic":
            wanted = {"string": str, "int": int}[kind]
            if type(value) is not wanted:
                raise ValueError(f"{name} is no {kind}")

    def _no(
        self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None
    ) -> Reply:
        said = {"error": {"code": code, "message": text}}
        return Reply(status, said, {"x-ms-error-code": code, **(headers or {})})


def _no(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name comes twice")
    return made


class Custom(ReceiverDouble):
    kind = "sentinel"
    system = (
        "a double of the Logs Ingestion API, with a double of Entra, written from “Logs Ingestion "
        "API in Azure Monitor” and the OpenAPI description 2023-01-01"
    )
    secret = True
    format: ClassVar[Literal["sentinel_row", "asim"]] = "sentinel_row"
    table_name: ClassVar[str] = "AlertBeam_CL"
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": Poison(MARKER.encode()),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(429, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Quotes(),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "its answer is about the request as a whole",
    }
    table: ClassVar[Sequence[Says]] = [
        Says("200 without a body", Takes(200), "delivered"),
        *(Says(f"{status} of a portal", Answer(status), "stopped") for status in (200, 302, 307)),
        Says("400", Poison(MARKER.encode()), "dead"),
        *(
            Says(f"{fault.status} {fault.code}", fault, "stopped")
            for fault in (
                Coded("InvalidStream"),
                Coded("InvalidDcrImmutableId"),
                Coded("InvalidStream", 404),
                Coded("NotFound", 404),
            )
        ),
        *(Says(f"{status}", Answer(status), "stopped") for status in (401, 403, 404, 405, 415)),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(Says(f"{status}", Answer(status), "retried") for status in (408, 429, 500, 502, 503)),
        Says("504", Answer(504), "retried"),
        Says("503", Answer(503), "owed"),
        Says("429", Answer(429), "owed"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entra = EntraReceiver(secret=SECRET, scopes={SCOPE}).start()
        self.receiver = Rule(self.entra, self.table_name).start()

    def settings(self) -> dict[str, Any]:
        return {
            "endpoint": self.receiver.url,
            "rule": RULE,
            "format": self.format,
            "credential": self.entra.credential("env:SECRET"),
            "timeout": 0.6,  # two requests to Entra come first
        }

    def ids(self) -> list[str]:
        return [row["EventId"] for row in self.receiver.rows()]

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.entra.secret = secret
        self.entra.revoke()

    def up(self) -> None:
        self.receiver.max_bytes = LARGEST
        super().up()

    def stop(self) -> None:
        super().stop()
        self.entra.stop()


class Asim(Custom):
    name = "sentinel_asim"
    system = f"{Custom.system}; rows of ASimAlertEventLogs"
    format = "asim"
    table_name = "ASimAlertEventLogs"

    def ids(self) -> list[str]:
        return [row["AdditionalFields"]["event_id"] for row in self.receiver.rows()]
