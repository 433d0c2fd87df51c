"""QRadar's listeners, as strict as its pages (ibm.com/docs/en/dsm).

"LEEF event components" and "Predefined LEEF event attributes": the header, its delimiter, types of
keys, lengths. A listener takes whatever comes, and what it cannot read it stores unparsed: here
such an event has the reason for an id. A payload that is too long is cut into several events. "HTTP
Receiver protocol configuration options": the body of any POST is an event; with a Message Pattern
events begin where it matches. Which codes the receiver answers with no page says; a proxy in front
of it may say any. Nothing of the sink's own code is used.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import Answer, HttpReceiver, Poison, Reply, Request
from tests.transforms.sinks.doubles.base import (
    MARKER,
    PAUSE,
    ReceiverDouble,
    Says,
    in_a_while,
)
from tests.transforms.sinks.doubles.syslog import Strict, identified

__all__ = ["HttpLines", "HttpOne", "Qradar", "leef_id", "payload_id"]

MOST = 4096  # bytes of a payload
PATTERN = re.compile(rb"LEEF:2\.0\|[^\t\n]*\tdevTime=")  # as the sink's page has it
_SYSLOG = re.compile(
    r"<\d{1,3}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d\d:\d\d) [!-~]{1,255} (LEEF:.*)",
    re.DOTALL,
)
_DELIMITER = re.compile(r"0?x([0-9A-Fa-f]{1,4})")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TYPES: dict[str, str] = {  # of predefined attributes
    "devTime": r"\d{1,15}",  # epoch milliseconds, since there is no devTimeFormat
    "sev": r"[1-9]|10",
    "srcPort": r"\d{1,5}",
    "dstPort": r"\d{1,5}",
    "srcMAC": r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",
    "dstMAC": r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",
    "usrName": r".{1,255}",
    "identHostName": r".{1,255}",
    "externalId": r"[0-9a-f]{32}",
}


def payload_id(payload: bytes) -> str:
    """Of an event that came by syslog. Raises ValueError where it cannot be read."""
    found = _SYSLOG.fullmatch(payload.decode("utf-8"))
    if found is None:
        raise ValueError("no header that the log source could be told by")
    if len(payload) > MOST:
        raise ValueError(f"{len(payload)} bytes are several events")
    return leef_id(found[1])


def leef_id(text: str) -> str:
    """`externalId` of an event. Raises ValueError for what is not LEEF 2.0."""
    version, *header, rest = [*text.split("|", 6)]
    if version != "LEEF:2.0" or len(header) != 5:
        raise ValueError("no header of LEEF 2.0")
    *names, delimiter = header
    if not all(0 < len(name) <= 255 for name in names):
        raise ValueError("an empty or endless field in the header")
    code = _DELIMITER.fullmatch(delimiter)
    if code is None and len(delimiter) != 1:
        raise ValueError(f"{delimiter!r} is no delimiter")
    if _CONTROL.search(text):
        raise ValueError("a control character")
    said: dict[str, str] = {}
    for attribute in rest.split(chr(int(code[1], 16)) if code else delimiter):
        key, equals, value = attribute.partition("=")
        if not (equals and value and _KEY.fullmatch(key)) or key in said:
            raise ValueError(f"{attribute[:40]!r} is no attribute, or one more of its key")
        said[key] = value
    for key, form in _TYPES.items():
        if key in said and not re.fullmatch(form, said[key]):
            raise ValueError(f"{key} is {said[key][:40]!r}")
    for key in ("src", "dst"):
        ipaddress.ip_address(said.get(key, "::1"))
    if max(int(said.get(key, 0)) for key in ("srcPort", "dstPort")) > 65535:
        raise ValueError("no such port")
    if missing := {"cat", "devTime", "sev", "externalId"} - said.keys():
        raise ValueError(f"{', '.join(sorted(missing))}: not there")
    return said["externalId"]


class Qradar(Strict):
    kind = "qradar"
    system = "a double of QRadar's TLS Syslog listener, written from IBM's pages on LEEF 2.0"
    read = staticmethod(payload_id)


@dataclasses.dataclass(frozen=True)
class _Takes:
    """Take it, and say so with this status."""

    status: int


class Receiver(HttpReceiver):
    """The HTTP Receiver. pattern: its log source has the Message Pattern."""

    def __init__(self, pattern: re.Pattern[bytes] | None = None) -> None:
        super().__init__(max_bytes=4 << 20)
        self.pattern = pattern

    def refused(self, fault: Answer) -> Reply:
        return Reply(fault.status, fault.text.encode(), dict(fault.headers))

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Takes):
            self.respond(request)
            return Reply(fault.status)
        return super().failed(request, fault)

    def respond(self, request: Request) -> Reply:
        if request.method != "POST":
            return self.refused(Answer(405))
        body = request.body
        if "content-encoding" in request.headers:
            body = b"\x1f\x8b, as it came"  # nobody unpacks it
        starts = [found.start() for found in self.pattern.finditer(body)] if self.pattern else [0]
        ends = [*starts[1:], len(body)]
        events = [body[start:end].rstrip(b"\n") for start, end in zip(starts, ends, strict=True)]
        pieces = [each[at : at + MOST] for each in events for at in range(0, len(each), MOST)]
        lines = [piece.replace(b"\n", b"\\n") + b"\n" for piece in pieces]
        self.keep(b"".join(lines), len(lines))
        return Reply(200)

    def ids(self) -> list[str]:
        return [identified(lambda line: leef_id(line.decode("utf-8")), e) for e in self.lines()]


_NO_SECRET = "it knows neither users nor tokens: who may come is told by TLS certificates"


class HttpOne(ReceiverDouble):
    kind = "qradar"
    name = "qradar_http"
    system = "a double of QRadar's HTTP Receiver, written from its page, an event a POST"
    batch: ClassVar[str] = "one"
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": Poison(MARKER.encode()),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
    }
    # It knows no repeats; one of a thousand POSTs may be answered too late, and is sent again.
    may_repeat = ReceiverDouble.may_repeat | {"outage"}
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "an answer is about the request as a whole",
        "too large": "an event is shortened to `max_bytes` before it is sent; its page names no "
        "limit of a POST",
        "credentials renewed": _NO_SECRET,
        "quoted secret": _NO_SECRET,
        "status codes": "they are said of many records, and here is one: see qradar_http_lines",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = Receiver(PATTERN if self.batch == "lines" else None).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "batch": self.batch}


class HttpLines(HttpOne):
    name = "qradar_http_lines"
    system = "a double of QRadar's HTTP Receiver with a Message Pattern, written from its page"
    batch = "lines"
    table: ClassVar[Sequence[Says]] = [
        *(Says(f"{status}", _Takes(status), "delivered") for status in (200, 202, 204)),
        *(Says(f"{status}", Answer(status), "stopped") for status in (302, 401, 403, 404, 405)),
        Says("400", Poison(MARKER.encode()), "dead"),
        *(Says(f"{status}", Answer(status), "retried") for status in (408, 429, 500, 502, 503)),
        Says("503", Answer(503), "owed"),
    ]
    lacks: ClassVar[Mapping[str, str]] = {
        held: why for held, why in HttpOne.lacks.items() if held != "status codes"
    }
