"""A Sumo Logic HTTP source that is as strict as its documentation, and a little stricter.

Written from "HTTP Logs and Metrics Source", "Upload Logs to an HTTP Source", "Troubleshooting HTTP
Sources" (codes, the words of a 429), "Generate a New URL for an HTTP Source with an Auth Header",
"Sumo Logic Fields" (help.sumologic.com); the bodies of other errors as Sumo Logic's exporter for
OpenTelemetry reads them. Where the documentation only recommends (1 MB), this refuses. Nothing of
the sink's own code is used.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import Answer, HttpReceiver, Reply, Request
from tests.transforms.sinks.doubles.base import (
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = ["ByToken", "ByUrl", "HttpSource"]

_PATH = "/receiver/v1/http"
_MOST = 1_048_576
_CODES = {
    401: ("unauthorized", "The credential could not be verified."),
    408: ("timeout", "The request timed out."),
    413: ("request.too.large", "The request is too large."),
    503: ("service.unavailable", "The service is unavailable."),
    504: ("gateway.timeout", "The gateway timed out."),
}
_THROTTLED = "You have temporarily exceeded your Sumo Logic quota. Please try again at a later time"


@dataclasses.dataclass(frozen=True)
class _Takes:
    """Take everything, and answer so."""

    status: int
    body: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _TakesHalf:
    """A 408: what came before the time was up is taken."""


class HttpSource(HttpReceiver):
    """Takes lines at /receiver/v1/http/CODE, or at /receiver/v1/http with a token."""

    _suffix = ".ndjson"

    def __init__(self, *, code: str = "", token: str = "", **options: Any) -> None:
        super().__init__(max_bytes=_MOST, **options)
        self.code, self.token = code, token
        self.metadata: list[dict[str, str]] = []  # of each request with logs
        self._ids = 0
        self._numbering = threading.Lock()

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Takes):
            reply = self.respond(request)
            return Reply(fault.status, dict(fault.body) or b"") if reply.status == 200 else reply
        if isinstance(fault, _TakesHalf):
            lines = request.body.splitlines(keepends=True)
            self.keep(b"".join(lines[: len(lines) // 2]))
            return self.refused(Answer(408))
        return super().failed(request, fault)

    def refused(self, fault: Answer) -> Reply:
        headers = dict(fault.headers)
        if fault.status == 429:
            return Reply(429, (fault.text or _THROTTLED).encode(), headers)
        if fault.status < 400:
            return Reply(fault.status, b"", headers)
        with self._numbering:
            self._ids += 1
        code, message = _CODES.get(fault.status, ("bad.request", "The request is not valid."))
        body = {"status": fault.status, "id": f"0000-{self._ids:05}", "code": code}
        return Reply(fault.status, {**body, "message": fault.text or message}, headers)

    def respond(self, request: Request) -> Reply:
        path = f"{_PATH}/{self.code}" if self.code else _PATH
        if not request.path.startswith(_PATH):
            return self.refused(Answer(404))
        if request.path != path or request.headers.get("x-sumo-token", "") != self.token:
            return self.refused(Answer(401))
        if request.method != "POST":
            return self.refused(Answer(405))
        if "vnd.sumologic" in request.headers.get("content-type", ""):
            return self.refused(Answer(400, text="these would be metrics"))
        wrong = _wrong_metadata(request.headers)
        if wrong:
            return self.refused(Answer(400, text=wrong))
        try:
            request.body.decode("utf-8")
        except UnicodeDecodeError:
            return self.refused(Answer(400, text="UTF-8 is wanted"))
        if request.body and not request.body.endswith(b"\n"):
            return self.refused(Answer(400, text="the last line has no end"))
        if request.body:
            self.metadata.append(
                {name: text for name, text in request.headers.items() if name.startswith("x-sumo-")}
            )
            self.keep(request.body, request.body.count(b"\n"))
        return Reply(200)

    def ids(self) -> list[str]:
        return [log["alertbeam_id"] for log in self.logs()]

    def logs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


def _wrong_metadata(headers: Mapping[str, str]) -> str:
    for name in ("category", "name", "host"):
        if len(headers.get(f"x-sumo-{name}", "")) > 1024:
            return f"X-Sumo-{name} is too long"
    said = headers.get("x-sumo-fields")
    if said is None:
        return ""
    fields = said.split(",")
    if len(fields) > 30:
        return "more than 30 fields"
    for field in fields:
        if not re.fullmatch(r"[^=,]{1,255}=[^=,]{1,200}", field):
            return "X-Sumo-Fields is no list of key=value"
    return ""


class ByUrl(ReceiverDouble):
    kind = "sumo_logic"
    system = (
        "a double of a Sumo Logic HTTP source, written from “Upload Logs to an HTTP Source” and "
        "“Troubleshooting HTTP Sources”"
    )
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"{_PATH}/{SECRET} is not yours"),
    }
    table: ClassVar[Sequence[Says]] = [
        *(Says(f"{status}", _Takes(status), "delivered") for status in (200, 204)),
        Says(
            "200 with a remark", _Takes(200, {"code": "fields", "message": "dropped"}), "delivered"
        ),
        Says("408", Answer(408), "retried"),
        Says("408 in part", _TakesHalf(), "retried"),
        *(Says(f"{status}", Answer(status), "retried") for status in (429, 500, 502, 503, 504)),
        *(Says(f"{status}", Answer(status), "owed") for status in (429, 503)),
        *(Says(f"{status}", Answer(status), "stopped") for status in (400, 401, 403, 404, 405)),
        *(Says(f"{status} of a portal", Answer(status), "stopped") for status in (302, 307)),
        Says("201 of something else", _Takes(201), "stopped"),
        Says("413", lambda double: double.limit(4_000), "split"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "any line of text is a log: none is refused",
        "unnamed rejection": "any line of text is a log: none is refused",
        "credentials renewed": "what is renewed is the whole URL: held in test_sumo_logic.py, and "
        "for its token by sumo_logic_token",
    }
    may_repeat = ReceiverDouble.may_repeat | {"status codes"}  # 408: a part of it was taken

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = HttpSource(code=SECRET).start()
        self._url = folder / "url"
        folder.mkdir(parents=True, exist_ok=True)
        self._url.write_text(f"{self.receiver.url}{_PATH}/{SECRET}\n", encoding="utf-8")

    def settings(self) -> dict[str, Any]:
        return {"url": f"file:{self._url}"}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def up(self) -> None:
        self.receiver.max_bytes = _MOST
        super().up()


class ByToken(ByUrl):
    name = "sumo_logic_token"
    system = (
        "a double of a Sumo Logic HTTP source, written from “Generate a New URL for an HTTP Source "
        "with an Auth Header” (a beta)"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ByUrl.faults,
        "quoted secret": Answer(403, text=f"the token {SECRET} is not known"),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        name: why for name, why in ByUrl.lacks.items() if name != "credentials renewed"
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver.code, self.receiver.token = "", SECRET
        self._url.write_text(f"{self.receiver.url}{_PATH}\n", encoding="utf-8")

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "token": "env:SECRET"}

    def renew(self, secret: str) -> None:
        self.receiver.token = secret
