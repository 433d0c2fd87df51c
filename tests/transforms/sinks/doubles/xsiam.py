"""A double of an HTTP log collector of Cortex XSIAM, written from its documentation.

"Set up an HTTP log collector to receive logs" (docs-cortex.paloaltonetworks.com): records separated
by line feeds, 5 MB each and 10 MB together at most, gzipped or not as the collector was set up,
application/json or text/plain by its log format; 200, 401, 404, 413, 429, and 500 for what is not
of the collector's compression or format. The documentation's editions differ in what 200 says.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipelines.local.receivers import Answer, HttpReceiver, Reply, Request
from tests.transforms.sinks.doubles.base import (
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = ["Collector", "Saying", "Xsiam"]

_MOST, _MOST_RECORD = 10 * 1024 * 1024, 5_000_000


@dataclasses.dataclass(frozen=True)
class Saying:
    """Answer this: having taken the request, or as something else that stands there."""

    body: Any
    status: int = 200
    taken: bool = True


class Collector(HttpReceiver):
    """One collector: its token, its Compression, its Log Format."""

    def __init__(
        self,
        key: str,
        *,
        gzip: bool = True,
        form: Literal["JSON", "CEF", "Raw"] = "JSON",
        key_id: str = "",
        **options: Any,
    ) -> None:
        super().__init__(max_bytes=_MOST, **options)
        self.key, self.gzip, self.form, self.key_id = key, gzip, form, key_id

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if not isinstance(fault, Saying):
            return super().failed(request, fault)
        if fault.taken:
            reply = self.respond(request)
            if reply.status != 200:
                return reply
        return Reply(fault.status, fault.body)

    def respond(self, request: Request) -> Reply:
        if (request.method, request.path) != ("POST", "/logs/v1/event"):
            return Reply(404, b"404 page not found")
        shown = request.headers.get("authorization", "")
        if not hmac.compare_digest(shown.encode(), self.key.encode()):
            return Reply(401)
        if request.headers.get("x-xdr-auth-id", "") != self.key_id:
            return Reply(401)
        media = "application/json" if self.form == "JSON" else "text/plain"
        if request.headers.get("content-type") != media:
            return _unprocessed()
        if (request.headers.get("content-encoding") == "gzip") != self.gzip:
            return _unprocessed()
        records = request.body.split(b"\n")
        if not all(map(self._is_record, records)):
            return _unprocessed()
        if max(map(len, records)) > _MOST_RECORD:
            return Reply(413)
        self.keep(request.body + b"\n", len(records))
        return Reply(200, {"error": "false"})

    def records(self) -> list[Any]:
        """What it holds: objects, or lines of another format."""
        return [json.loads(line) if self.form == "JSON" else line.decode() for line in self.lines()]

    def _is_record(self, line: bytes) -> bool:
        if self.form == "CEF":
            return line.startswith(b"CEF:0|") and b"\r" not in line
        if self.form == "Raw":
            return bool(line.strip())
        try:
            return isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            return False


def _unprocessed() -> Reply:
    said = "error processing request, error: failed to process the request"
    return Reply(500, {"error": said})


_PORTAL = Saying(b"<html>Sign in</html>", taken=False)


class Xsiam(ReceiverDouble):
    kind = "xsiam"
    system = (
        "a double of an HTTP log collector of Cortex XSIAM, written from “Set up an HTTP log "
        "collector to receive logs”"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(429, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"{SECRET} may not send"),
    }
    table: ClassVar[Sequence[Says]] = [
        Says("200 ok, of other editions", Saying({"ok": "true"}), "delivered"),
        Says("200 with an error", Saying({"error": "true"}, taken=False), "stopped"),
        Says("200 of a portal", _PORTAL, "stopped"),
        Says("204 of something else", Saying(b"", 204, taken=False), "stopped"),
        *(
            Says(f"{status}", Answer(status), "stopped")
            for status in (302, 400, 401, 403, 404, 405, 422)
        ),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(Says(f"{status}", Answer(status), "retried") for status in (429, 500, 502, 503, 504)),
        Says("500", Answer(500), "owed"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "an answer is about the request as a whole",
        "unnamed rejection": "it refuses no record for what it says: 400 is about headers, 500 "
        "about the collector's compression and format",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Collector(SECRET).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "key": "env:SECRET"}

    def ids(self) -> list[str]:
        return [record["id"] for record in self.receiver.records()]

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.key = secret

    def up(self) -> None:
        self.receiver.max_bytes = _MOST
        super().up()
