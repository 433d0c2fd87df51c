"""Palo Alto Networks Cortex XSOAR, version 8 and 6: an incident an alert.

Contract: "Create or update an incident" and "Search incidents by filter" (Cortex XSOAR 8 API),
"Create single incident" and "Optimistic locking and versioning" (Cortex XSOAR 6 API), docs-cortex.
paloaltonetworks.com. XSOAR gives incidents their ids, and knows no others; so what an alert is
about can be kept in a custom field, by which its incident is searched, and changed: what the API
gives is sent back whole, with its version (what is left out would be wiped), and refused where
somebody else was faster. In an incident that is there only the details, the labels and the record
are changed: name, type, severity, owner and status are the business of those who work on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from schemas.alert import Alert
from schemas.formats._shortened import shortened
from schemas.formats._text import cut
from schemas.formats.xsoar import VERSION, xsoar
from transforms.delivery.cortex import Cortex, CortexSettings, decoded
from transforms.delivery.http import Response, judge, retry_after
from transforms.delivery.line import printable
from transforms.delivery.network import Deadline
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Retry,
    Shrink,
    Sink,
    Split,
    Stop,
    Verdict,
)

__all__ = ["Xsoar", "XsoarSettings"]

_MOST = 5_000_000  # bytes: not documented
_MOST_ANSWER = 32 * 1024 * 1024  # bytes: an incident comes with its record, and with what it grew
_LOCKED = "errOptimisticLock"
_ADVICE = {
    401: "version 8 takes `key_id` too, version 6 none",
    403: "the key's role needs to read and write incidents",
    404: "version 8 is at https://api-…, and takes `key_id`",
}
_encode = msgspec.json.Encoder().encode


class XsoarSettings(CortexSettings):
    """Palo Alto Networks Cortex XSOAR, version 8 or 6, as incidents."""

    url: str = Field(
        description="Version 8: https://api-TENANT.crtx.REGION.paloaltonetworks.com. Version 6: "
        "the server, https://host:443, with /acc_NAME for an account of several."
    )
    key_id: str = Field(
        "",
        description="The key's id, of version 8: the number in the column ID. Without it, the API "
        "of version 6 is spoken.",
        pattern=r"^[0-9]*$",
    )
    type: str = Field(
        "", description="The incidents' type; without it, XSOAR's default, Unclassified."
    )
    investigate: bool = Field(
        True,
        description="Start an investigation of each incident, and with it the playbook of its "
        "type.",
    )
    key_field: str = Field(
        "",
        description="A custom field of incidents, by its machine name (lower case, no blanks), "
        "that holds what an alert is about; it must be searchable. With it a later version of an "
        "alert changes the incident that is there (over one connection: with more `concurrency` "
        "two may make one each); without it, each is an incident of its own.",
        pattern=r"^[a-z0-9_]*$",
    )


class Xsoar(Sink[XsoarSettings]):
    """One server or tenant."""

    kind = "xsoar"
    Settings = XsoarSettings
    example: ClassVar = {
        "url": "https://api-contoso.crtx.eu.paloaltonetworks.com",
        "key": "env:XSOAR_API_KEY",
        "key_id": "7",
    }

    @property
    def limits(self) -> Limits:
        return Limits(_MOST, max_records=1)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        settings = self.settings
        more: dict[str, Any] = {"createInvestigation": settings.investigate}
        if settings.type:
            more["type"] = settings.type
        if settings.key_field:
            more["CustomFields"] = {settings.key_field: _key(alert)}
        return b"%b,%b" % (xsoar(alert)[:-1], _encode(more)[1:])

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        room = most
        while room > 0:
            try:
                small = msgspec.structs.replace(
                    alert, description=cut(alert.description, room // 4), raw=b"{}"
                )
                small.raw = shortened(alert, room // 4)
            except ValueError:
                break
            said = self.encode(small, source, partition)
            if len(said) <= most:
                return said
            room = room * 3 // 4
        return None

    def connect(self) -> Connection:
        return _Server(self.settings)

    def probe(self, timeout: float) -> None:
        server = _Server(self.settings)
        try:
            server.check_search(timeout)
        finally:
            server.close()

    def check(self, timeout: float) -> str:
        self.probe(timeout)
        return "it answers, takes the key, and its role may read incidents"

    def find(self, event_id: str) -> str:
        return f'search the incidents for "{event_id}": it is in their details'


def _key(alert: Alert) -> str:
    """What it is about, in letters that no query takes for anything else."""
    about = (alert.entity or alert.event_id).encode("utf-8", "replace")
    return hashlib.blake2b(about, digest_size=16).hexdigest()


class _Server(Connection):
    def __init__(self, settings: XsoarSettings) -> None:
        self._field = settings.key_field
        self._api = "/xsoar/public/v1" if settings.key_id else ""
        advanced = settings.key_type == "advanced"
        self._cortex = Cortex(
            settings.url, settings, settings.key, settings.key_id, advanced=advanced
        )

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        (payload,) = payloads
        if not self._field:
            return self._post(payload, timeout)
        deadline = Deadline(timeout)
        made = msgspec.json.decode(payload)
        key = made["CustomFields"][self._field]
        there = self._search(f'{self._field}:"{key}"', deadline.left())
        if isinstance(there, Response):
            verdict = self._refused(there)  # the record was not looked at: it is not to blame
            return Stop(verdict.reason) if isinstance(verdict, Split | Shrink) else verdict
        if there is None:
            return self._post(payload, deadline.left())
        held = there.get("CustomFields")
        if not isinstance(held, dict) or held.get(self._field) != key:
            return Stop(
                f"XSOAR does not search by `{self._field}`: is there such a field, and is "
                "it searchable?"
            )
        (*shown, identity), (*said, event_id) = _version(there), _version(made)
        if identity == event_id or shown > said:
            return Accepted(said="its incident tells this already, or something newer")
        return self._post(json.dumps(_changed(there, made)).encode(), deadline.left())

    def check_search(self, timeout: float) -> None:
        """Raises OSError unless it answers, takes the key, and lets incidents be read."""
        there = self._search('id:"0"', timeout)
        if isinstance(there, Response):
            raise ConnectionError(self._say(there))

    def close(self) -> None:
        self._cortex.close()

    def _search(self, query: str, timeout: float) -> dict[str, Any] | Response | None:
        """The newest incident that is found, if there is one; the answer, if it is a refusal."""
        sort = [{"field": "created", "asc": False}]
        body = _encode({"filter": {"query": query, "page": 0, "size": 1, "sort": sort}})
        response = self._ask("/incidents/search", body, timeout)
        answer = decoded(response)
        if response.status != 200 or not isinstance(answer, dict) or "data" not in answer:
            return response
        found: list[dict[str, Any]] = answer["data"] or []
        return found[0] if found else None

    def _post(self, body: bytes, timeout: float) -> Verdict:
        response = self._ask("/incident", body, timeout)
        answer = decoded(response)
        identity = answer.get("id") if isinstance(answer, dict) else None
        if identity and 200 <= response.status < 300:
            return Accepted(said=f"HTTP {response.status}: incident {printable(str(identity), 40)}")
        if identity == _LOCKED:  # somebody changed it meanwhile
            return Retry(self._say(response), after=retry_after(response.headers))
        return self._refused(response)

    def _ask(self, path: str, body: bytes, timeout: float) -> Response:
        return self._cortex.ask("POST", self._api + path, body, timeout, most=_MOST_ANSWER)

    def _refused(self, response: Response) -> Verdict:
        said = self._say(response)
        if 200 <= response.status < 300:
            return Stop(f"{said}: this is no answer of XSOAR")
        return judge(response, said)

    def _say(self, response: Response) -> str:
        return self._cortex.say(response, _ADVICE.get(response.status, ""))


def _version(incident: dict[str, Any]) -> tuple[int, int, str]:
    """Which version of an alert an incident shows: its time, when it was enqueued, its id."""
    for label in incident.get("labels") or ():
        event_id, *times = str(label.get("value")).split(" ")
        if label.get("type") == VERSION and len(times) == 2 and all(map(str.isdecimal, times)):
            return int(times[0]), int(times[1]), event_id
    return 0, 0, ""


def _changed(there: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The incident that is there, with what is new of the alert."""
    ours = {label["type"] for label in made["labels"]}
    theirs = [label for label in there.get("labels") or () if label.get("type") not in ours]
    return {
        **there,
        "details": made["details"],
        "rawJSON": made["rawJSON"],
        "labels": [*theirs, *made["labels"]],
    }
