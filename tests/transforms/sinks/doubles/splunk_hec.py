"""Splunk's HTTP Event Collector: `HecReceiver`, which answers as Splunk's documentation has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import Answer, HecReceiver, Poison, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    SECRET,
    ReceiverDouble,
    Says,
    in_a_while,
)

__all__ = ["Acknowledged", "Hec"]


@dataclasses.dataclass(frozen=True)
class _Invalid:
    """Refuse the first event that holds MARKER; `numbered`: say where it is, having taken those
    before it."""

    code: int
    text: str
    numbered: bool = True


@dataclasses.dataclass(frozen=True)
class _Warning:
    """Take everything, and say that a queue nears its limit."""

    code: int
    text: str


class _Collector(HecReceiver):
    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Invalid) and MARKER.encode() in request.body:
            reply = super().failed(request, Poison(MARKER.encode(), fault.numbered))
            assert reply is not None and isinstance(reply.body, dict)
            said = {**reply.body, "code": fault.code, "text": fault.text}
            return dataclasses.replace(reply, body=said)
        if isinstance(fault, _Warning):
            reply = self.respond(request)
            assert isinstance(reply.body, dict) and reply.status == 200
            return Reply(200, {**reply.body, "code": fault.code, "text": fault.text})
        return super().failed(request, fault)


class Hec(ReceiverDouble):
    kind = "splunk_hec"
    system = (
        "a double of Splunk's HTTP Event Collector, written from “Troubleshoot HTTP Event "
        "Collector” and “Format events for HTTP Event Collector”"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "partial rejection": _Invalid(6, "Invalid data format"),
        "unnamed rejection": _Invalid(6, "Invalid data format", numbered=False),
        "Retry-After in seconds": Answer(429, 26, "Full", (("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(
            429, 26, "Full", (("Retry-After", in_a_while()),)
        ),
        "quoted secret": Answer(403, 1, f"Token {SECRET} is disabled"),
    }
    table: ClassVar[Sequence[Says]] = [
        Says("24 queue is approaching capacity", _Warning(24, "…"), "delivered"),
        Says("25 ack is approaching capacity", _Warning(25, "…"), "delivered"),
        *(
            Says(f"{code} {text}", Answer(status, code, text), "stopped")
            for status, code, text in (
                (403, 1, "Token disabled"),
                (401, 2, "Token is required"),
                (401, 3, "Invalid authorization"),
                (403, 4, "Invalid token"),
                (400, 7, "Incorrect index"),
                (400, 10, "Data channel is missing"),
                (400, 11, "Invalid data channel"),
                (400, 14, "ACK is disabled"),
                (400, 16, "Query string authorization is not enabled"),
                (400, 21, "Invalid token"),
                (400, 22, "Token disabled"),
            )
        ),
        *(
            Says(f"{code} {text}{'' if numbered else ', unnumbered'}", fault, "dead")
            for code, text in (
                (5, "No data"),
                (6, "Invalid data format"),
                (12, "Event field is required"),
                (13, "Event field cannot be blank"),
                (15, "Error in handling indexed fields"),
            )
            for numbered in (True, False)
            for fault in [_Invalid(code, text, numbered)]
        ),
        *(
            Says(f"{code} {text}", Answer(status, code, text), becomes)
            for status, code, text in (
                (500, 8, "Internal server error"),
                (503, 9, "Server is busy"),
                (503, 18, "HEC is unhealthy, queues are full"),
                (503, 19, "HEC is unhealthy, ack service unavailable"),
                (503, 20, "HEC is unhealthy, queues are full, ack service unavailable"),
                (503, 23, "Server is shutting down"),
                (429, 26, "Event queue is at capacity"),
                (429, 27, "Ack channel is at capacity"),
            )
            for becomes in ("retried", *(("owed",) if code == 9 else ()))
        ),
        *(
            Says(f"HTTP {status} of a proxy", Answer(status), "retried")
            for status in (408, 425, 502, 504)
        ),
        *(
            Says(f"HTTP {status} of a portal", Answer(status), "stopped")
            for status in (204, 302, 404, 405)
        ),
        Says("HTTP 413", lambda double: double.limit(4_000), "split"),
    ]
    may_repeat = ReceiverDouble.may_repeat | {"partial rejection"}  # those before it were taken

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = _Collector(token=SECRET, strict=True).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "token": "env:SECRET"}

    def ids(self) -> list[str]:
        return [event["fields"]["event_id"] for event in self.receiver.events()]

    def up(self) -> None:
        self.receiver.max_bytes = 1_048_576
        super().up()

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.token = secret


class Acknowledged(Hec):
    name = "splunk_hec_acknowledged"
    system = f"{Hec.system}, and “About HTTP Event Collector Indexer Acknowledgment”"
    # What is not acknowledged within the patience comes again.
    may_repeat = Hec.may_repeat | {"status codes", "timeout", "outage"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver.acknowledge = True

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "acknowledge": True}
