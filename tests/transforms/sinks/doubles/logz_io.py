"""A bulk listener of Logz.io, and what becomes of the lines that it takes.

Written from "HTTP" (docs.logz.io: the address, limits and every answer) and "Understanding Invalid
Log Errors" (what is taken but is no log that can be searched: too long a field, too many levels or
fields). Of a request with bad lines the good ones are taken. Nothing of the sink's own code is
used.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipelines.local.receivers import Answer, HttpReceiver, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = ["Bulk", "Listener", "Refuses"]

_MOST = 10_485_760
_LINE = 500_000
_FIELD = 32_700  # characters
_LEVELS, _FIELDS = 10, 1_000


@dataclasses.dataclass(frozen=True)
class Refuses:
    """Refuse lines that hold MARKER, as these, and take the others."""

    as_: Literal["malformed", "oversized"]


@dataclasses.dataclass(frozen=True)
class _Takes:
    """Take everything, and answer so."""

    status: int
    body: bytes = b""


class Listener(HttpReceiver):
    """Takes lines of JSON at /?token=…&type=…."""

    _suffix = ".ndjson"

    def __init__(self, token: str, **options: Any) -> None:
        super().__init__(max_bytes=_MOST, **options)
        self.token = token
        self.types: set[str] = set()
        self.answers: list[tuple[int, Any]] = []

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, Refuses) and MARKER.encode() in request.body:
            return self._take(request, refused=fault.as_)
        if isinstance(fault, _Takes):
            reply = self.respond(request)
            return Reply(fault.status, fault.body) if reply.status == 200 else reply
        return super().failed(request, fault)

    def refused(self, fault: Answer) -> Reply:
        return Reply(fault.status, fault.text.encode(), dict(fault.headers))

    def respond(self, request: Request) -> Reply:
        if request.path != "/":
            return self.refused(Answer(404, text="no such path"))
        if request.method != "POST":
            return self.refused(Answer(405, text="POST only"))
        if not request.query.get("token"):
            return self.refused(Answer(401, text="Logging token is missing"))
        if request.query["token"] != self.token:
            return self.refused(Answer(401, text="Logging token is not valid"))
        if " " in request.query.get("type", " ") or {*request.query} != {"token", "type"}:
            return self.refused(Answer(400, text="a type is wanted, without blanks"))
        return self._take(request)

    def _take(self, request: Request, refused: str = "") -> Reply:
        counts = dict.fromkeys(("malformed", "oversized", "emptyLog", "successful"), 0)
        good = []
        lines = request.body.split(b"\n")
        for line in lines[:-1] if not lines[-1] else lines:
            found = _bad(line) or (refused if MARKER.encode() in line else "") or "successful"
            counts[found] += 1
            if found == "successful":
                good.append(line + b"\n")
        if good:
            self.types.add(request.query["type"])
            self.keep(b"".join(good), len(good))
        reply = Reply(200)
        if len(good) < sum(counts.values()) or not good:
            reply = Reply(400, {f"{name}Lines": count for name, count in counts.items()})
        self.answers.append((reply.status, reply.body))
        return reply

    def ids(self) -> list[str]:
        """Of what can be searched."""
        return [log["microsoft"]["event_id"] for log in self.logs() if not why_invalid(log)]

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


def _bad(line: bytes) -> str:
    if not line.strip():
        return "emptyLog"
    if len(line) > _LINE:
        return "oversized"
    try:
        log = json.loads(line.decode("utf-8"), parse_constant=_no)
    except (ValueError, RecursionError):
        return "malformed"
    return "" if isinstance(log, dict) else "malformed"


def _no(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def why_invalid(log: dict[str, Any]) -> str:
    """Why it is stored as `logzio-invalid-log`, or under a type of its own choice."""
    if "type" in log:
        return "its `type` takes the place of the request's"
    fields, levels, longest = _measured(log)
    if longest > _FIELD:
        return "INVALID_FIELD_VALUE_LENGTH"
    if levels > _LEVELS:
        return "MAX_JSON_DEPTH"
    return "MAX_FIELDS_NUMBER" if fields > _FIELDS else ""


def _measured(value: Any) -> tuple[int, int, int]:
    """How many fields, levels, and characters of the longest field it has."""
    if isinstance(value, str):
        return 1, 0, len(value)
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, list):
        return 1, 0, 0
    below = [_measured(item) for item in items]
    fields = sum(each[0] for each in below) if isinstance(value, dict) else 1
    levels = max((each[1] for each in below), default=0) + isinstance(value, dict)
    return fields, levels, max((each[2] for each in below), default=0)


class Bulk(ReceiverDouble):
    kind = "logz_io"
    system = (
        "a double of Logz.io's bulk listener, written from “HTTP” and “Understanding Invalid Log "
        "Errors”"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "partial rejection": Refuses("oversized"),  # the marked ones are the longest
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"/?token={SECRET} is forbidden"),
    }
    table: ClassVar[Sequence[Says]] = [
        Says("200", _Takes(200), "delivered"),
        Says("400 oversized", Refuses("oversized"), "dead"),
        Says("400 that counts nothing", Answer(400, text="type is not valid"), "stopped"),
        Says("401", Answer(401, text="Logging token is not valid"), "stopped"),
        *(Says(f"{status}", Answer(status), "stopped") for status in (302, 403, 404, 405)),
        Says("204 of something else", _Takes(204), "stopped"),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(Says(f"{status}", Answer(status), "retried") for status in (408, 429)),
        *(Says(f"{status}", Answer(status), "retried") for status in (500, 502, 503, 504)),
        Says("503", Answer(503), "owed"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "unnamed rejection": "a 400 is partial and never sent again: where it does not show which "
        "lines were refused, all of the request are dead letters, as test_logz_io.py holds",
    }
    # What is taken when the answer is 204 counts as not taken.
    may_repeat = ReceiverDouble.may_repeat | {"status codes"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Listener(SECRET).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "token": "env:SECRET"}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.token = secret

    def up(self) -> None:
        self.receiver.max_bytes = _MOST
        super().up()
