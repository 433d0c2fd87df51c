"""Splunk's HTTP Event Collector, as far as senders see it.

Contract: "Format events for HTTP Event Collector", "Troubleshoot HTTP Event Collector" (codes) and
"About HTTP Event Collector Indexer Acknowledgment" (help.splunk.com).
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.local.receivers.faults import Answer, Fault, InvalidEvent, Poison
from pipelines.local.receivers.http import HttpReceiver, Reply, Request

__all__ = ["HecReceiver"]

_EVENTS = {
    "/services/collector",
    "/services/collector/event",
    "/services/collector/event/1.0",
}
_ACKS = "/services/collector/ack"
_HEALTH = "/services/collector/health"
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclasses.dataclass
class _Channel:
    next_id: int = 0
    indexed: set[int] = dataclasses.field(default_factory=set)  # and not told yet


class HecReceiver(HttpReceiver):
    """An HTTP Event Collector: the answers and codes of Splunk's own.

    token: what requests must show; None: any.
    max_bytes: of a request after decompression; more is a 413.
    strict: parse every event, as Splunk does, and refuse what is none (slow: for tests).
    acknowledge: the token has indexer acknowledgement. Events are then indexed `ack_after` seconds
        after they came, in order; until then they are not in `events()` and `ids()`. It may be
        changed at any time: with infinity none is indexed, with 0 all are.
    """

    _suffix = ".ndjson"
    server = "Splunkd"

    def __init__(
        self,
        *,
        token: str | None = None,
        folder: Path | None = None,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
        max_bytes: int = 1_048_576,
        strict: bool = False,
        acknowledge: bool = False,
    ) -> None:
        super().__init__(
            folder=folder, port=port, tls=tls, client_ca=client_ca, max_bytes=max_bytes
        )
        self.token = token
        self.strict = strict
        self.acknowledge = acknowledge
        self.ack_after = 0.0
        self.healthy = True
        self._losing = 0
        self._channels: dict[str, _Channel] = {}
        self._queue: deque[tuple[float, _Channel, int, bytes]] = deque()  # when it came
        self._indexing = threading.Lock()

    def lines(self) -> Iterator[bytes]:
        """What is indexed so far."""
        self._index()
        return super().lines()

    def events(self) -> Iterator[dict[str, Any]]:
        """What arrived, in order, parsed."""
        decoder = json.JSONDecoder()
        for line in self.lines():
            text, at = line.decode("utf-8", "replace"), 0
            while at < len(text):
                event, end = decoder.raw_decode(text, at)
                yield event
                at = len(text) - len(text[end:].lstrip())

    def ids(self) -> list[str]:
        """The stable ids of alertbeam's events, in order, repeats included."""
        # `fields` come last, and an event's own text has its quotes escaped.
        mark = b'"fields":{"event_id":"'
        found = (line.rpartition(mark)[2][:32] for line in self.lines() if mark in line)
        return [identity.decode() for identity in found]

    def take(self, body: bytes) -> None:
        """Keep the events of a body."""
        self.keep(*_as_lines(body))

    def lose_next(self, requests: int) -> None:
        """With `acknowledge`: take the next requests, answer them, and lose what they hold, as an
        indexer that crashes does: it is never acknowledged."""
        self._losing = requests

    def restart(self) -> None:
        """Break all connections, forget all channels, and lose what is not indexed yet."""
        self.refuse()
        self._index()
        with self._indexing:
            self._channels.clear()
            self._queue.clear()
        self.accept()

    def faulty(self, request: Request) -> bool:
        """Requests with events."""
        return super().faulty(request) and request.path in _EVENTS

    def refused(self, fault: Answer) -> Reply:
        return _reply(fault.status, fault.code, fault.text, headers=dict(fault.headers))

    def unreadable(self, answer: Answer) -> Reply:
        return _INVALID if answer.status == 400 else self.refused(answer)

    def failed(self, request: Request, fault: Fault) -> Reply | None:
        if self._refusal(request) is not None:
            return None
        if isinstance(fault, InvalidEvent):
            events, bad = _split(request.body)
            if fault.number < len(events):
                bad = fault.number, 6, "Invalid data format"
            return self._partly(events, bad) if bad else None
        if isinstance(fault, Poison) and fault.marker in request.body:
            if not fault.numbered:
                return _INVALID
            events, _ = _split(request.body)
            at = next(i for i, event in enumerate(events) if fault.marker in event)
            return self._partly(events, (at, 6, "Invalid data format"))
        return None

    def respond(self, request: Request) -> Reply:
        if request.method == "GET" and request.path.startswith(_HEALTH):
            if self.healthy:
                return _reply(200, 17, "HEC is healthy")
            return _reply(503, 18, "HEC is unhealthy, queues are full")
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if request.path == _ACKS:
            return self._acknowledge(request)
        if not request.body.strip():
            return _reply(400, 5, "No data")
        if self.strict:
            events, bad = _split(request.body)
            if bad is not None:
                return self._partly(events, bad)
        if not self.acknowledge:
            self.take(request.body)
            return _reply(200, 0, "Success")
        return _reply(200, 0, "Success", {"ackId": self._queued(request)})

    def _refusal(self, request: Request) -> Reply | None:
        if request.method != "POST" or request.path not in (*_EVENTS, _ACKS):
            return _reply(404, 404, "The requested URL was not found on this server.")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return _reply(401, 2, "Token is required")
        if scheme != "Splunk":
            return _reply(401, 3, "Invalid authorization")
        if self.token not in (None, token):
            return _reply(403, 4, "Invalid token")
        if not self.acknowledge:
            return _reply(400, 14, "ACK is disabled") if request.path == _ACKS else None
        channel = _channel(request)
        if not channel:
            return _reply(400, 10, "Data channel is missing")
        return None if _GUID.fullmatch(channel) else _reply(400, 11, "Invalid data channel")

    def _partly(self, events: list[bytes], bad: tuple[int, int, str]) -> Reply:
        """Take the events before the bad one."""
        number, code, text = bad
        if number:
            self.take(b"\n".join(events[:number]))
        return _reply(400, code, text, {"invalid-event-number": number})

    def _queued(self, request: Request) -> int:
        """The events wait to be indexed; their acknowledgement's number."""
        lines, count = _as_lines(request.body)
        with self._indexing:
            channel = self._channels.setdefault(_channel(request), _Channel())
            number = channel.next_id
            channel.next_id += 1
            if self._losing:
                self._losing -= 1
            else:
                self._queue.append((time.monotonic(), channel, number, lines))
        self.keep(b"", count)
        return number

    def _index(self) -> None:
        with self._indexing:
            while self._queue and self._queue[0][0] + self.ack_after <= time.monotonic():
                _, channel, number, lines = self._queue.popleft()
                self.keep(lines)
                channel.indexed.add(number)

    def _acknowledge(self, request: Request) -> Reply:
        """What is indexed is told once; what waits, is lost or was never heard of is all the
        same: false."""
        try:
            asked = json.loads(request.body)["acks"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return _INVALID
        if not isinstance(asked, list) or not all(type(number) is int for number in asked):
            return _INVALID
        self._index()
        with self._indexing:
            channel = self._channels.get(_channel(request), _Channel())
            said = {str(number): number in channel.indexed for number in asked}
            channel.indexed.difference_update(asked)
        return Reply(200, {"acks": said})


def _channel(request: Request) -> str:
    return request.headers.get("X-Splunk-Request-Channel") or request.query.get("channel", "")


def _reply(
    status: int,
    code: int | None,
    text: str,
    more: dict[str, int] | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    numbered = {} if code is None else {"code": code}
    return Reply(status, {"text": text, **numbered, **(more or {})}, headers or {})


_INVALID = _reply(400, 6, "Invalid data format")


def _as_lines(body: bytes) -> tuple[bytes, int]:
    """A body's events in lines, and how many they are."""
    count = body.count(b"}\n{") + 1
    if body.count(b"\n") != count - 1:
        body = body.replace(b"}\n{", b"}\0{").replace(b"\n", b" ").replace(b"\0", b"\n")
    return body + b"\n", count


def _split(body: bytes) -> tuple[list[bytes], tuple[int, int, str] | None]:
    """The events of a body, and what Splunk finds wrong with the first bad one, if there is one."""
    decoder = json.JSONDecoder()
    text = body.decode("utf-8", "replace")
    events: list[bytes] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            event, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return events, (len(events), 6, "Invalid data format")
        if not isinstance(event, dict):
            return events, (len(events), 6, "Invalid data format")
        if "event" not in event:
            return events, (len(events), 12, "Event field is required")
        if event["event"] in ("", None):
            return events, (len(events), 13, "Event field cannot be blank")
        if any(isinstance(value, dict) for value in event.get("fields", {}).values()):
            return events, (len(events), 15, "Error in handling indexed fields")
        events.append(text[at:end].encode())
        at = end
    return events, None
