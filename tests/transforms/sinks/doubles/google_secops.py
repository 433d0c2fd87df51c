"""The Chronicle API's `logs:import`, and the token endpoint that Google's accounts are given.

Written from "Method: logs.import", "Log", "Chronicle API ingestion methods" (what is refused, and
that a batch with what another one held is not taken again) and "Supported default parsers" in
Google's reference; 4 MB and the order of a log's times also from Fluent Bit's documentation; errors
from AIP-193, worded as Google's front ends do it; the token endpoint from "Using OAuth 2.0 for
Server to Server Applications" (RFC 7523). As Google's JSON does, it takes a field's name in either
case, and refuses names that it does not know. Nothing of the sink's own code is used.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipelines.local.receivers import Answer, HttpReceiver, Poison, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = ["INSTANCE", "PROJECT", "Chronicle", "Import"]

PROJECT, INSTANCE = "contoso-secops", "00000000-1111-4222-8333-444444444444"
_PARENT = f"/v1/projects/{PROJECT}/locations/us/instances/{INSTANCE}"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_MOST = 4_000_000
_LOG_TYPES = {
    "AZURE_ACTIVITY",
    "AZURE_AD",
    "MICROSOFT_DEFENDER_CLOUD_ALERTS",
    "MICROSOFT_GRAPH_ALERT",
    "MICROSOFT_SENTINEL",
    "OFFICE_365",
    "WINEVTLOG",
}
_STATUSES = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "Permission 'chronicle.logs.import' denied on resource."),
    404: ("NOT_FOUND", "Requested entity was not found."),
    429: ("RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Ingestion bytes'."),
    500: ("INTERNAL", "Internal error encountered."),
    503: ("UNAVAILABLE", "The service is currently unavailable."),
    504: ("DEADLINE_EXCEEDED", "Deadline exceeded."),
}
_LOG = {"data", "logEntryTime", "collectionTime", "environmentNamespace", "labels"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


class Chronicle(HttpReceiver):
    """One instance, whose one service account may import logs and see nothing.

    tokens: that are good now. may_see: whether it may get the instance, too.
    """

    _suffix = ".ndjson"
    server = "ESF"

    def __init__(self, **options: Any) -> None:
        super().__init__(max_bytes=_MOST, **options)
        self.key = _key(1)
        self.may_see = False
        self.tokens: set[str] = set()
        self.grants = 0
        self.no_tokens: Answer | None = None
        self.batches: list[tuple[str, list[dict[str, Any]]]] = []  # by log type
        self._known: set[bytes] = set()
        self._taking = threading.Lock()

    def account(self, key: rsa.RSAPrivateKey | None = None) -> str:
        """The JSON key of its service account, as the console lets one download it."""
        pem = (key or self.key).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": "0123456789abcdef",
                "private_key": pem.decode(),
                "client_email": f"alertbeam@{PROJECT}.iam.gserviceaccount.com",
                "client_id": "100000000000000000000",
                "token_uri": f"{self.url}/token",
                "universe_domain": "googleapis.com",
            }
        )

    def faulty(self, request: Request) -> bool:
        return request.path.endswith("logs:import")

    def refused(self, fault: Answer) -> Reply:
        if fault.status not in _STATUSES and fault.status != 413:
            return Reply(fault.status, fault.text.encode(), dict(fault.headers))
        status, message = _STATUSES.get(fault.status, ("", ""))
        error: dict[str, Any] = {"code": fault.status, "message": fault.text or message}
        return Reply(fault.status, {"error": {**error, "status": status}}, dict(fault.headers))

    def unreadable(self, answer: Answer) -> Reply:
        if answer.status != 413:
            return self.refused(Answer(400, text=answer.text))
        text = f"Request payload size exceeds the limit: {self.max_bytes} bytes."
        return self.refused(Answer(400, text=text))

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if not isinstance(fault, Poison):
            return super().failed(request, fault)
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        logs = json.loads(request.body)["inlineSource"]["logs"]
        bad = [n for n, log in enumerate(logs) if fault.marker in base64.b64decode(log["data"])]
        if not bad:
            return None
        return _invalid(f"logs[{bad[0]}].data", "not wanted") if fault.numbered else _bare()

    def respond(self, request: Request) -> Reply:
        if request.path == "/token":
            return self._grant(request)
        if request.path == _PARENT and request.method == "GET":
            known = self._authorized(request)
            return known or (Reply(200, {"name": _PARENT[4:]}) if self.may_see else _denied())
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError):
            return self.refused(Answer(400, text="Invalid JSON payload received."))
        reply, logs = _read(body)
        return reply or self._once(request.path.split("/")[-2], logs)

    def _refusal(self, request: Request) -> Reply | None:
        """What is wrong with a request whatever it holds."""
        found = re.fullmatch(rf"{re.escape(_PARENT)}/logTypes/(\w+)/logs:import", request.path)
        if request.method != "POST" or not found:
            return self.refused(Answer(404))
        unknown = self._authorized(request)
        if unknown is not None:
            return unknown
        if request.headers.get("content-type") != "application/json":
            return self.refused(Answer(400, text="Invalid content type"))
        if found[1] not in _LOG_TYPES:
            return self.refused(Answer(400, text=f"log type {found[1]} is not supported"))
        return None

    def _authorized(self, request: Request) -> Reply | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return None if kind == "Bearer" and token in self.tokens else self.refused(Answer(401))

    def _grant(self, request: Request) -> Reply:
        """A token for an assertion of the service account."""
        if self.no_tokens is not None:
            return Reply(self.no_tokens.status, self.no_tokens.text.encode())
        form = dict(parse_qsl(request.body.decode("ascii")))
        if request.method != "POST" or form.get("grant_type") != _GRANT:
            return Reply(400, {"error": "unsupported_grant_type"})
        try:
            claims = jwt.decode(
                form.get("assertion", ""),
                self.key.public_key(),
                algorithms=["RS256"],
                audience="https://oauth2.googleapis.com/token",
                issuer=f"alertbeam@{PROJECT}.iam.gserviceaccount.com",
                options={"require": ["iss", "aud", "iat", "exp", "scope"]},
            )
        except jwt.InvalidTokenError:
            wrong = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return Reply(400, wrong)
        if claims["exp"] - claims["iat"] > 3600 or _SCOPE not in claims["scope"].split():
            return Reply(400, {"error": "invalid_scope"})
        self.grants += 1
        token = f"ya29.{SECRET}-{self.grants}"
        self.tokens.add(token)
        return Reply(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _once(self, log_type: str, logs: list[dict[str, Any]]) -> Reply:
        digest = hashlib.sha256(b"\0".join(log["data"].encode() for log in logs)).digest()
        with self._taking:
            if digest not in self._known:
                self._known.add(digest)
                self.batches.append((log_type, logs))
                self.received += len(logs)
        return Reply(200, {})

    def ids(self) -> list[str]:
        return [record["alertbeam_id"] for record in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """What the logs hold, in the order that they came in."""
        with self._taking:
            batches = self.batches.copy()
        return [json.loads(base64.b64decode(log["data"])) for _, logs in batches for log in logs]


def _read(body: Any) -> tuple[Reply | None, list[dict[str, Any]]]:
    """The logs of a request, or what is wrong with them."""
    source = body.get("inlineSource") if isinstance(body, dict) else None
    if not isinstance(source, dict):
        return _bare(), []
    for unknown in (*(body.keys() - {"inlineSource", "hint"}), *(source.keys() - _SOURCE)):
        return _unknown(unknown, "inline_source"), []
    if "forwarder" in source and not re.fullmatch(
        rf"{_PARENT[4:]}/forwarders/[\w-]+", source["forwarder"]
    ):
        return _invalid("forwarder", "no such forwarder"), []
    logs = source.get("logs")
    if not isinstance(logs, list) or not logs:
        return _invalid("logs", "logs are wanted"), []
    for number, log in enumerate(logs):
        wrong = _wrong(log)
        if wrong:
            field, text = wrong
            return _invalid(f"logs[{number}].{field}", text), []
    return None, logs


_SOURCE = {"logs", "forwarder", "sourceFilename"}


def _wrong(log: Any) -> tuple[str, str] | None:
    if not isinstance(log, dict) or log.keys() - _LOG:
        return "", "Cannot find field."
    try:
        data = base64.b64decode(log.get("data", ""), validate=True)
        data.decode("utf-8")
    except (binascii.Error, TypeError, ValueError):
        return "data", "Base64 decoding failed"
    if not 0 < len(data) <= 1_048_576:
        return "data", "a log has a megabyte at most"
    times = [log.get("logEntryTime", ""), log.get("collectionTime", "")]
    if not all(_TIME.fullmatch(time) for time in times):
        return "logEntryTime", "no timestamp"
    entered, collected = (datetime.fromisoformat(time[:-1]) for time in times)
    if collected <= entered:
        return "collectionTime", "must be after the log entry time"
    labels = log.get("labels", {})
    if not all(isinstance(each, dict) and "value" in each for each in labels.values()):
        return "labels", "no LogLabel"
    return None


def _invalid(field: str, text: str) -> Reply:
    """An error that names a field of the inline source."""
    violation = {"field": f"inline_source.{field}", "description": text}
    details = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
    status, message = _STATUSES[400]
    return Reply(
        400, {"error": {"code": 400, "message": message, "status": status, "details": [details]}}
    )


def _bare() -> Reply:
    status, message = _STATUSES[400]
    return Reply(400, {"error": {"code": 400, "message": message, "status": status}})


def _unknown(name: str, where: str) -> Reply:
    text = (
        f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
    )
    return Reply(400, {"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}})


def _denied() -> Reply:
    text = "Permission 'chronicle.instances.get' denied on resource."
    return Reply(403, {"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}})


@functools.cache
def _key(number: int) -> rsa.RSAPrivateKey:
    """A key for all of a process: each takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Import(ReceiverDouble):
    kind = "google_secops"
    system = (
        "a double of the Chronicle API, written from “Method: logs.import” and “Chronicle API "
        "ingestion methods”"
    )
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "partial rejection": Poison(MARKER.encode(), numbered=True),
        "unnamed rejection": Poison(MARKER.encode()),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"ya29.{SECRET}-1 has no access"),
    }
    table: ClassVar[Sequence[Says]] = [
        Says("400 that names a log", Poison(MARKER.encode(), numbered=True), "dead"),
        Says("400 that names nothing", Poison(MARKER.encode()), "dead"),
        Says("400 to everything", Answer(400), "stopped"),
        Says("400 about the log type", Answer(400, text="log type X is not supported"), "stopped"),
        Says("400 about the size", lambda double: double.limit(4_000), "split"),
        *(Says(f"{status}", Answer(status), "stopped") for status in (302, 403, 404)),
        Says("401 to everything", Answer(401), "stopped"),
        *(Says(f"{status}", Answer(status), "retried") for status in (408, 429)),
        *(Says(f"{status}", Answer(status), "retried") for status in (500, 502, 503, 504)),
        Says("503", Answer(503), "owed"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "credentials renewed": "what is renewed is a key, in a file of its own form: held in "
        "test_google_secops.py"
    }
    # What is sent again as it was is known; packed anew it is not.
    may_repeat: ClassVar[frozenset[str]] = frozenset({"nothing lost"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Chronicle().start()
        self._key = folder / "key.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._key.write_text(self.receiver.account(), encoding="utf-8")

    def settings(self) -> dict[str, Any]:
        return {
            "url": self.receiver.url,
            "project": PROJECT,
            "instance": INSTANCE,
            "credentials": f"file:{self._key}",
        }

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def up(self) -> None:
        self.receiver.max_bytes = _MOST
        super().up()
