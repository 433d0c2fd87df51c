"""A double of the API of Cortex XSIAM and XDR by which they take alerts of others.

Written from "Insert Parsed Alerts" (Cortex XDR REST API, docs-cortex.paloaltonetworks.com; types,
values and what is required from its older edition), "Make your first API call" (standard and
advanced keys) and "System Health Check"; the form of errors from Palo Alto's own client
(github.com/PaloAltoNetworks/pan-cortex-xdr-nodejs). How long an advanced key's timestamp holds is
not documented: here five minutes, and no nonce twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
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
from tests.transforms.sinks.doubles.xsiam import Saying
from transforms.sinks.base import Limits, Sink
from transforms.sinks.xsiam_alerts import XsiamAlerts

__all__ = ["Advanced", "Standard", "Tenant", "is_signed"]

_MOST = 4_000_000  # bytes; not documented
_PATH, _HEALTH = "/public_api/v1/alerts/insert_parsed_alerts", "/public_api/v1/healthcheck"
_SEVERITIES = {"Informational", "Low", "Medium", "High", "Unknown"}
_REQUIRED: dict[str, type] = {
    **dict.fromkeys(("product", "vendor", "local_ip", "remote_ip", "alert_name"), str),
    **dict.fromkeys(("local_port", "remote_port", "event_timestamp"), int),
}
_OPTIONAL = dict.fromkeys(
    ("severity", "alert_description", "action_status", "local_ip_v6", "remote_ip_v6"), str
)


def is_signed(headers: Mapping[str, str], key: str, nonces: set[str]) -> bool:
    """Whether an advanced key signed it, just now, and not as before."""
    nonce, stamp = headers.get("x-xdr-nonce", ""), headers.get("x-xdr-timestamp", "")
    if not re.fullmatch(r"[A-Za-z0-9]{64}", nonce) or not re.fullmatch(r"[0-9]{13}", stamp):
        return False
    if nonce in nonces or abs(time.time() - int(stamp) / 1000) > 300:
        return False
    nonces.add(nonce)
    right = hashlib.sha256((key + nonce + stamp).encode()).hexdigest()
    return headers.get("authorization") == right


@dataclasses.dataclass(frozen=True)
class _Refuses:
    """Refuse the request that holds MARKER, with this status."""

    status: int


class Tenant(HttpReceiver):
    """per_minute: alerts that it takes; None: any number."""

    def __init__(
        self,
        key: str,
        *,
        key_id: str = "7",
        key_type: Literal["standard", "advanced"] = "standard",
        per_minute: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(max_bytes=_MOST, **options)
        self.key, self.key_id, self.key_type, self.per_minute = key, key_id, key_type, per_minute
        self._nonces: set[str] = set()
        self._taken_at: deque[float] = deque()
        self._counting = threading.Lock()

    def refused(self, fault: Answer) -> Reply:
        reply = {"err_code": fault.status, "err_msg": fault.text, "err_extra": ""}
        return Reply(fault.status, {"reply": reply}, dict(fault.headers))

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Refuses) and MARKER.encode() in request.body:
            return self.refused(Answer(fault.status, text="Bad Request. Got an invalid JSON"))
        if isinstance(fault, Saying):
            if fault.taken:
                reply = self.respond(request)
                if reply.status != 200:
                    return reply
            return Reply(fault.status, fault.body)
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        if not self._is_known(request):
            return self.refused(Answer(401, text="Public API request unauthorized"))
        asked = (request.method, request.path.rstrip("/"))
        if asked == ("GET", _HEALTH):
            return Reply(200, {"status": "available"})
        if asked != ("POST", _PATH):
            return self.refused(Answer(404, text="Not found"))
        if request.headers.get("content-type") != "application/json":
            return self.refused(Answer(400, text="Bad Request. Got an invalid JSON"))
        if "content-encoding" in request.headers:
            return self.refused(Answer(400, text="Bad Request. Got an invalid JSON"))
        try:
            alerts = _alerts(json.loads(request.body, parse_constant=_no))
        except (ValueError, RecursionError) as error:
            return self.refused(Answer(400, text=f"Bad Request. {error}"))
        if not self._has_room(len(alerts)):
            return self.refused(Answer(429, text="Too many alerts"))
        lines = b"".join(json.dumps(alert).encode() + b"\n" for alert in alerts)
        self.keep(lines, len(alerts))
        return Reply(200, {"reply": True})

    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def ids(self) -> list[str]:
        last = (alert["alert_description"].rpartition("\n")[2] for alert in self.alerts())
        return [line.removeprefix("Event: ") for line in last]

    def _is_known(self, request: Request) -> bool:
        if request.headers.get("x-xdr-auth-id") != self.key_id:
            return False
        if self.key_type == "advanced":
            return is_signed(request.headers, self.key, self._nonces)
        return request.headers.get("authorization") == self.key

    def _has_room(self, count: int) -> bool:
        if self.per_minute is None:
            return True
        now = time.monotonic()
        with self._counting:
            while self._taken_at and self._taken_at[0] < now - 60:
                self._taken_at.popleft()
            if len(self._taken_at) + count > self.per_minute:
                return False
            self._taken_at.extend([now] * count)
            return True


def _no(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _alerts(body: Any) -> list[dict[str, Any]]:
    """A request's alerts. Raises ValueError for what the API does not take."""
    if not isinstance(body, dict) or body.keys() != {"request_data"}:
        raise ValueError("request_data is missing")
    data = body["request_data"]
    if not isinstance(data, dict) or data.keys() != {"alerts"}:
        raise ValueError("alerts are missing")
    alerts = data["alerts"]
    if not isinstance(alerts, list) or not 1 <= len(alerts) <= 60:
        raise ValueError("1 to 60 alerts are taken")
    for alert in alerts:
        _check(alert)
    return alerts


def _check(alert: Any) -> None:
    if not isinstance(alert, dict):
        raise ValueError("an alert is an object")
    for name, wanted in _REQUIRED.items():
        if name not in alert:
            raise ValueError(f"{name} is missing")
        if type(alert[name]) is not wanted:
            raise ValueError(f"{name} is of another type")
    for name in alert.keys() - _REQUIRED:
        if name not in _OPTIONAL or type(alert[name]) is not _OPTIONAL[name]:
            raise ValueError("an unknown field, or of another type")
    if not alert["product"] or not alert["vendor"] or not alert["alert_name"]:
        raise ValueError("product, vendor and alert_name say something")
    for name in ("local_port", "remote_port"):
        if not 0 <= alert[name] <= 65535:
            raise ValueError(f"{name} is no port")
    for name, version in (
        *(("local_ip", 4), ("remote_ip", 4)),
        *(("local_ip_v6", 6), ("remote_ip_v6", 6)),
    ):
        text = alert.get(name, "")
        if text and ipaddress.ip_address(text).version != version:
            raise ValueError(f"{name} is of another version")
    if not 0 <= alert["event_timestamp"] < 10**13:
        raise ValueError("event_timestamp is no number of milliseconds")
    if alert.get("severity", "Low") not in _SEVERITIES:
        raise ValueError("no such severity")
    if alert.get("action_status", "Reported") not in ("Reported", "Blocked"):
        raise ValueError("no such action_status")


class _Hurried(XsiamAlerts):
    """The sink without the pace that the API asks for: the suite has no minutes to spare. That it
    keeps it is tested by itself."""

    @property
    def limits(self) -> Limits:
        mine = super().limits
        return Limits(mine.max_bytes, mine.max_records)


class Standard(ReceiverDouble):
    kind = "xsiam_alerts"
    key_type: ClassVar[Literal["standard", "advanced"]] = "standard"
    system = (
        "a double of Cortex XSIAM's and XDR's API, written from “Insert Parsed Alerts”, “Make "
        "your first API call” and “System Health Check”; without their 600 alerts a minute, which "
        "are tested apart"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": _Refuses(400),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(429, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"{SECRET}: insufficient permissions for api key"),
    }
    table: ClassVar[Sequence[Says]] = [
        Says("200 true, of another edition", Saying(True), "delivered"),
        Says("200 false", Saying({"reply": False}, taken=False), "stopped"),
        Says(
            "200 with an error",
            Saying({"reply": {"err_code": 500, "err_msg": "no"}}, taken=False),
            "stopped",
        ),
        Says("200 of a portal", Saying(b"<html>Sign in</html>", taken=False), "stopped"),
        *(Says(f"{status}", _Refuses(status), "dead") for status in (400, 422)),
        *(
            Says(f"{status}", Answer(status), "stopped")
            for status in (302, 401, 402, 403, 404, 405)
        ),
        Says("413", lambda double: double.limit(4_000), "split"),
        *(Says(f"{status}", Answer(status), "retried") for status in (429, 500, 502, 503, 504)),
        Says("500", Answer(500), "owed"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "an answer is about the request as a whole",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Tenant(SECRET, key_type=self.key_type).start()

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        return _Hurried(name, super().sink(name, **options).settings)

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "key": "env:SECRET", "key_id": "7"}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.key = secret

    def up(self) -> None:
        self.receiver.max_bytes = _MOST
        super().up()


class Advanced(Standard):
    name = "xsiam_alerts_advanced"
    key_type = "advanced"
    system = f"{Standard.system}; with an advanced key"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "key_type": "advanced"}
