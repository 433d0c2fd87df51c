"""LogRhythm's collectors, as strict as what is known of them.

The Open Collector's Webhook Beat, as `Send-LrSdpWebhook` (github.com/LogRhythm-Tools) talks to it:
a POST of one flat JSON object with `whsdp`, fields by the names of LogRhythm's schema, 429 when it
is busy. The token: "Configure the Webhook Collector in Axon" (docs.logrhythm.com/axon). "LogRhythm
Schema Dictionary and Guide": names, types, 1,000 characters a field. Which other codes they answer
with no page says. A syslog listener takes whatever comes: what it cannot read has the reason for an
id here. Nothing of the sink's own code is used.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import Answer, HttpReceiver, Poison, Reply, Request
from tests.transforms.sinks.doubles.arcsight import rfc5424_id
from tests.transforms.sinks.doubles.base import MARKER, PAUSE, SECRET, ReceiverDouble, in_a_while
from tests.transforms.sinks.doubles.syslog import Strict, identified

__all__ = ["Cef", "Json", "Webhook", "WebhookBeat", "json_id"]

MOST = 8192  # bytes of a syslog message
_SCHEMA = """
account action amount command cve dinterface dip dmac dname dnatip dnatport domainimpacted
domainorigin dport group hash kilobytes kilobytesin kilobytesout login milliseconds minutes object
objectname objecttype packetsin packetsout parentprocessid parentprocessname parentprocesspath
policy process processid protname protnum quantity rate reason recipient responsecode result
seconds sender serialnumber session sessiontype severity sinterface sip size smac sname snatip
snatport sport status subject tag1 tag2 tag3 tag4 tag5 tag6 tag7 tag8 tag9 tag10 threatid
threatname timestamp.iso8601 timestamp.epoch url useragent vendorinfo version vmid
fullyqualifiedbeatname original_message whsdp
"""  # of what `Send-LrSdpWebhook` knows
_NUMBERS = {"sport", "dport"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_HEADER = re.compile(
    rb"<\d{1,3}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:[!-~]{1,255} ){4}- (\{.*\})"
)


def json_id(data: bytes) -> str:
    """`session` of an event. Raises ValueError for what is not flat, or not of the schema."""
    said = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    if not isinstance(said, dict) or said.get("whsdp") is not True:
        raise ValueError("no object that is parsed already")
    if unknown := said.keys() - {*_SCHEMA.split()}:
        raise ValueError(f"{sorted(unknown)}: unknown")
    for key, value in said.items():
        if key == "whsdp":
            continue
        if not isinstance(value, int if key in _NUMBERS else str):
            raise ValueError(f"{key} has the wrong type")
        if isinstance(value, str) and key != "original_message" and not 0 < len(value) <= 1000:
            raise ValueError(f"{key} is empty, or too long")
    for key in ("sip", "dip"):
        ipaddress.ip_address(said.get(key, "::1"))
    if not _TIME.fullmatch(said.get("timestamp.iso8601", "1970-01-01T00:00:00.000Z")):
        raise ValueError("no time")
    if not said["fullyqualifiedbeatname"].startswith("webhookbeat"):
        raise ValueError("no log source is told by that name")
    if not re.fullmatch("[0-9a-f]{32}", said["session"]):
        raise ValueError("no id")
    found: str = said["session"]
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


class WebhookBeat(HttpReceiver):
    """authorization: what an Axon collector wants to read there; None: an Open Collector."""

    def __init__(self, authorization: str | None = None) -> None:
        super().__init__()
        self.authorization = authorization

    def respond(self, request: Request) -> Reply:
        if request.path != "/webhook":
            return self.refused(Answer(404, text="no such collector"))
        if request.method != "POST":
            return self.refused(Answer(405, text="POST only"))
        given = request.headers.get("authorization", "")
        if self.authorization and not hmac.compare_digest(given, self.authorization):
            return self.refused(Answer(401, text="the credentials are wrong"))
        if request.headers.get("content-type") != "application/json":
            return self.refused(Answer(415, text="application/json is wanted"))
        try:
            if "content-encoding" in request.headers:
                raise ValueError("nobody unpacks it")
            json_id(request.body)
        except (ValueError, KeyError, RecursionError) as error:
            return self.refused(Answer(400, text=f"not what is wanted: {error!r}"))
        self.keep(request.body.replace(b"\n", b" ") + b"\n", 1)
        return Reply(200, {"status": "ok"})

    def ids(self) -> list[str]:
        return [identified(json_id, line) for line in self.lines()]


class Webhook(ReceiverDouble):
    kind = "logrhythm"
    system = (
        "a double of LogRhythm's webhooks, written from LogRhythm.Tools, the Schema Dictionary and "
        "Axon's guide"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        **ReceiverDouble.faults,
        "unnamed rejection": Poison(MARKER.encode()),
        "Retry-After in seconds": Answer(429, headers=(("Retry-After", str(PAUSE)),)),
        "Retry-After as a date": lambda _: Answer(503, headers=(("Retry-After", in_a_while()),)),
        "quoted secret": Answer(403, text=f"Bearer {SECRET} is not welcome"),
    }
    # It knows no repeats; one of a thousand POSTs may be answered too late, and is sent again.
    may_repeat = ReceiverDouble.may_repeat | {"outage"}
    lacks: ClassVar[Mapping[str, str]] = {
        "partial rejection": "a request holds one event",
        "status codes": "they are said of many records, and here is one: see test_logrhythm.py",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = WebhookBeat(f"Bearer {SECRET}").start()

    def settings(self) -> dict[str, Any]:
        url = f"{self.receiver.url}/webhook"
        return {"url": url, "token": "env:SECRET", "max_bytes": 1_000_000}

    def limit(self, most: int) -> None:
        self.receiver.max_bytes = most

    def renew(self, secret: str) -> None:
        self.receiver.authorization = f"Bearer {secret}"

    def up(self) -> None:
        self.receiver.max_bytes = 1_048_576
        super().up()


def _message_id(message: bytes) -> str:
    found = _HEADER.fullmatch(message)
    if found is None or len(message) > MOST:
        raise ValueError("no header of syslog, or too long")
    return json_id(found[1])


class Json(Strict):
    kind = "logrhythm"
    name = "logrhythm_syslog"
    system = "a double of LogRhythm's syslog listener, written from RFC 5424 and the same, JSON"
    read = staticmethod(_message_id)


class Cef(Strict):
    kind = "logrhythm"
    name = "logrhythm_cef"
    system = "a double of LogRhythm's syslog listener, written from RFC 5424 and CEF's document"
    read = staticmethod(rfc5424_id)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "format": "cef"}
