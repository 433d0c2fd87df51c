"""An endpoint for webhooks that is as strict as the texts that the sink names.

Standard Webhooks 1.0.0: headers, signature, a tolerance of five minutes as its libraries have.
draft-ietf-httpapi-idempotency-key-header-07, 2.6 and 2.7: a key that comes again with the same
body is answered as the first time, and nothing is taken twice; with another body it is a 422.
Nothing of the sink's own code is used.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import re
import threading
import time
from collections import deque
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

__all__ = ["Endpoint", "Lines", "OneAPost"]

_TOLERANCE = 5 * 60  # seconds
_CONTENT = {"one": "application/json", "array": "application/json", "lines": "application/x-ndjson"}


class Endpoint(HttpReceiver):
    """Takes JSON objects at `/hook`, signed with `key` (None: unsigned), bearing `headers`."""

    def __init__(
        self,
        key: bytes | None = None,
        *,
        batch: Literal["one", "array", "lines"] = "one",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.key = key
        self.batch = batch
        self.headers = headers or {}
        self.repeats = 0  # requests that had been taken before
        self.seen: deque[Request] = deque(maxlen=100)
        self._taken: dict[str, bytes] = {}  # by key: the body's hash
        self._taking = threading.Lock()

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Refuses) and MARKER.encode() in request.body:
            return self.refused(Answer(fault.status, text="it is not wanted"))
        if isinstance(fault, _Takes):
            reply = self.respond(request)
            return Reply(fault.status, reply.body) if reply.status == 200 else reply
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        self.seen.append(request)
        if request.path != "/hook":
            return self.refused(Answer(404, text="no such hook"))
        if request.method != "POST":
            return self.refused(Answer(405, text="POST only"))
        wrong = self._unauthentic(request) or self._idempotency(request)
        if wrong:
            return self.refused(wrong)
        if request.headers.get("content-type") != _CONTENT[self.batch]:
            return self.refused(Answer(415, text=f"{_CONTENT[self.batch]} is wanted"))
        try:
            records = self._records(request.body)
        except (ValueError, RecursionError) as error:
            return self.refused(Answer(400, text=f"not what is wanted: {error}"))
        return self._once(request, records)

    def ids(self) -> list[str]:
        """Of the records taken, in order."""
        return [record["id"] for record in self.records()]

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def _unauthentic(self, request: Request) -> Answer | None:
        given = request.headers
        for name, value in self.headers.items():
            if not hmac.compare_digest(given.get(name, "").encode(), value.encode()):
                return Answer(401, text=f"{name} is not what it should be")
        identity, stamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", identity):  # a full stop would be an attack
            return Answer(400, text="no webhook-id")
        if not re.fullmatch(r"[1-9]\d*", stamp) or abs(time.time() - int(stamp)) > _TOLERANCE:
            return Answer(400, text="no webhook-timestamp, or too old, or too new")
        if self.key is None:
            return None
        signed = b".".join([identity.encode(), stamp.encode(), request.body])
        right = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        for signature in given.get("webhook-signature", "").split(" "):
            version, _, value = signature.partition(",")
            if version == "v1" and hmac.compare_digest(value, right):
                return None
        return Answer(401, text="no signature matches")

    def _idempotency(self, request: Request) -> Answer | None:
        key = request.headers.get("idempotency-key", "")
        if key != f'"{request.headers["webhook-id"]}"':
            return Answer(400, text="Idempotency-Key is no string that equals the webhook-id")
        return None

    def _records(self, body: bytes) -> list[dict[str, Any]]:
        text = body.decode("utf-8")
        if self.batch == "lines":
            *lines, rest = text.split("\n")
            if rest or not lines:
                raise ValueError("the last line has no end")
            records = [json.loads(line, parse_constant=_no) for line in lines]
        else:
            parsed = json.loads(text, parse_constant=_no)
            records = parsed if self.batch == "array" else [parsed]
        if not records or not all(isinstance(record, dict) for record in records):
            raise ValueError("a record is an object")
        return records

    def _once(self, request: Request, records: list[dict[str, Any]]) -> Reply:
        key, digest = request.headers["webhook-id"], hashlib.sha256(request.body).digest()
        with self._taking:
            known = self._taken.get(key)
            if known not in (None, digest):
                return self.refused(Answer(422, text="the key was used for another body"))
            if known:
                self.repeats += 1
            else:
                self._taken[key] = digest
                self.keep(b"".join(json.dumps(record).encode() + b"\n" for record in records))
                self.received += len(records)
        return Reply(200, {"taken": len(records)})


def _no(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclasses.dataclass(frozen=True)
class _Refuses:
    """Refuse what holds MARKER, with this status."""

    status: int


@dataclasses.dataclass(frozen=True)
class _Takes:
    """Take it, and say so with this status."""

    status: int


class OneAPost(ReceiverDouble):
    kind = "webhook"
    batch: ClassVar[Literal["one", "array", "lines"]] = "one"
    system = (
        "a double of an endpoint, written from Standard Webhooks 1.0.0 and "
        "draft-ietf-httpapi-idempotency-key-header-07"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": _Refuses(422),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"{SECRET} is not welcome"),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "an answer is about the request as a whole",
        "status codes": "they are said of many records, and here is one: see webhook_lines",
    }
    may_repeat: ClassVar[frozenset[str]] = frozenset()  # what comes again bears the same key

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Endpoint(SECRET.encode(), batch=self.batch).start()

    def settings(self) -> dict[str, Any]:
        url = f"{self.receiver.url}/hook"
        return {"url": url, "secret": "env:SECRET", "batch": self.batch}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.key = secret.encode()

    def up(self) -> None:
        self.receiver.max_bytes = 1_048_576
        super().up()


class Lines(OneAPost):
    name = "webhook_lines"
    batch = "lines"
    table: ClassVar[Sequence[Says]] = [
        *(Says(f"{status}", _Takes(status), "delivered") for status in (200, 201, 202, 204)),
        *(Says(f"{status}", Answer(status), "stopped") for status in (301, 302, 303, 307, 308)),
        *(Says(f"{status}", _Refuses(status), "dead") for status in (400, 422)),
        *(Says(f"{status}", Answer(status), "stopped") for status in (401, 403, 404, 405, 410)),
        *(Says(f"{status}", Answer(status), "retried") for status in (408, 409, 425, 429)),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(Says(f"{status}", Answer(status), "retried") for status in (500, 502, 503, 504)),
        Says("503", Answer(503), "owed"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": OneAPost.lacks["partial rejection"],
    }
    may_repeat: ClassVar[frozenset[str]] = frozenset({"nothing lost"})  # it is packed anew
