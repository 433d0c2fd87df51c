"""ServiceNow: an event of Event Management, or a record of the incident tables.

Sources: "Event field format for event collection" (ServiceNow docs, it-operations-management/
event-management), "Incident Management" and "Security Incident Response" (it-service-management,
security-management), "Table API". Lengths are the fields' own, in characters.

`servicenow_event` is one record of `{"records": […]}` for /api/global/em/jsonv2:

    source          product                      event_class   tenant, else subscription
    node            the machine, else the resource
    resource        a process or file on it, else the resource's type
    type            the kind                     metric_name   alert type, else title
    message_key     what it is about, through all its updates: one alert in ServiceNow
    severity        1 critical, 2 high, 3 medium, 4 low, 5 informational; unknown is 4 of alerts and
                    posture, 5 of logs; 0 (clear) of what is resolved or dismissed
    resolution_state  New, or Closing of what is resolved or dismissed
    time_of_event   yyyy-MM-dd HH:mm:ss, GMT     description   title and description
    additional_info everything else, as a string of JSON, all values of it strings as it wants

`servicenow_incident` is a record of the table `incident`, `servicenow_security_incident` one of
`sn_si_incident`:

    correlation_id  what it is about, through all its updates: find the record by it, then create
                    or change it               correlation_display   product
    short_description   title                  description   what is known, one fact a line
    impact, urgency, severity   by severity: critical 1 1 1, high 1 2 1, medium 2 2 2, low 2 3 3,
                    else 3 3 3                 category      security
    state           1 new, 2 in progress, 6 resolved, with the close code and notes that the
                    default data policy demands (their choices differ by instance)

The states of a security incident are those of its process, which people walk it through: there is
no `state` (nor category) in its record, and `work_notes` say what became of it.

A key that is too long for its field ends in a hash of the whole, and so does a correlation_id of
characters that a query would not take as they are (`^` and `,` separate there, `javascript:` is
run). Dropped: the record itself. Every record becomes one: route here what somebody shall act on.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._base import Format
from schemas.formats._ocsf_objects import Object, resource, without_blanks
from schemas.formats._records import nature, preferred
from schemas.formats._summary import gmt, known_facts
from schemas.formats._text import HARMLESS, cut
from schemas.kinds import details

__all__ = ["FORMATS", "servicenow_event", "servicenow_incident"]

Table = Literal["incident", "sn_si_incident"]

_EVENT_SEVERITIES = {
    "critical": "1",
    "high": "2",
    "medium": "3",
    "low": "4",
    "informational": "5",
}
_PRIORITIES = {  # impact, urgency, severity
    "critical": ("1", "1", "1"),
    "high": ("1", "2", "1"),
    "medium": ("2", "2", "2"),
    "low": ("2", "3", "3"),
}
_STATES = {"new": "1", "in_progress": "2", "resolved": "6", "dismissed": "6"}
_CLOSE_CODES = {"resolved": "Solution provided", "dismissed": "No resolution provided"}
_CLOSED = ("resolved", "dismissed")
_UNSAFE = re.compile(r"[^A-Za-z0-9_./-]")  # in an encoded query, or its URL
_LINES = {**HARMLESS, ord("\n"): "\n"}
_NAME, _KEY, _TITLE, _TEXT = 100, 1024, 160, 4000  # characters
_INFO = 16_000  # bytes of additional_info
_VALUE = 2_000  # bytes of one value in it, or of one fact of a description
_NAMES = {"Replay": "AlertbeamReplay"}  # in it, where attributes stand, none of which has that name
_encode = msgspec.json.Encoder().encode


def servicenow_event(alert: Alert) -> bytes:
    """The alert as one JSON object."""
    found = details(alert)
    seen = found.attributes.get
    known = alert.subscription
    node = _node(alert, found)
    closed = alert.status in _CLOSED
    severity = _EVENT_SEVERITIES.get(alert.severity)
    if severity is None:
        severity = "5" if nature(alert, found) == "event" else "4"
    tenant = seen("tenant_id") or seen("workspace_id", "")
    made = without_blanks(
        source=_line(alert.product) or alert.kind,
        event_class=_line(tenant or (known.name if known else "") or alert.subscription_id),
        node=_line(node),
        resource=_line(_part(alert, found, node)),
        type=_line(alert.kind),
        metric_name=_line(alert.alert_type) or _line(alert.title),
        message_key=_key(alert.entity or alert.event_id, _KEY),
        time_of_event=gmt(alert.event_ms),
        description=_text(_joined(alert.title, alert.description)),
        additional_info=_info(alert, found),
        severity="0" if closed else severity,
        resolution_state="Closing" if closed else "New",
    )
    return _encode(made)


def servicenow_incident(alert: Alert, *, table: Table = "incident") -> bytes:
    """The alert as one JSON object, with the fields of this table."""
    found = details(alert)
    facts = {name: text for name, text in known_facts(alert, found).items() if text}
    impact, urgency, severity = _PRIORITIES.get(alert.severity, ("3", "3", "3"))
    made: Object = without_blanks(
        short_description=_line(alert.title, _TITLE) or _line(alert.alert_type) or alert.kind,
        description=_text("\n".join(map(_fact, facts, facts.values()))),
        correlation_id=_reference(alert.entity or alert.event_id),
        correlation_display=_line(alert.product) or alert.kind,
        impact=impact,
        urgency=urgency,
        severity=severity,
    )
    status = alert.status_original or alert.status
    time = gmt(alert.event_ms)
    note = _line(f"{alert.product or alert.kind}: {status}" + (f", {time} GMT" if time else ""))
    if table == "sn_si_incident":
        return _encode(made | {"work_notes": note})
    made["category"] = "security"
    if alert.status in _STATES:
        made["state"] = _STATES[alert.status]
    if alert.status in _CLOSED:
        made |= {"close_code": _CLOSE_CODES[alert.status], "close_notes": note}
    return _encode(made)


# What.


def _node(alert: Alert, found: Details) -> str:
    entity = preferred(found, ("host", "device"), "target", "", "actor", "source")
    return (entity and (entity.full_name or entity.id)) or alert.resource


def _part(alert: Alert, found: Details, node: str) -> str:
    """What of the node it is about."""
    entity = preferred(found, ("process",), "target", "actor", "source", "") or preferred(
        found, ("file",), "target", "", "source", "actor"
    )
    if entity and entity.name:
        return entity.name
    if alert.resource and alert.resource != node:
        return alert.resource
    it = resource("", alert.resource_ids[0]) if alert.resource_ids else None
    return str(it.get("type", "")) if it else ""


def _info(alert: Alert, found: Details) -> str:
    """The most telling first; what does not fit is left out, but for the event's id."""
    facts = {"event": alert.event_id}
    facts |= {_NAMES.get(name, name.lower()): it for name, it in known_facts(alert, found).items()}
    facts = facts | {"action": found.action, "outcome": found.outcome}
    facts |= {name: text for name, text in found.attributes.items() if name not in facts}
    del facts["description"], facts["time"]
    kept: dict[str, str] = {}
    room = _INFO - 2
    for name, text in facts.items():
        if not text:
            continue
        value = cut(text, _VALUE)
        room -= len(_encode(name)) + len(_encode(value)) + 2
        if room < 0:
            break
        kept[name] = value
    return _encode(kept).decode()


# Text.


def _fact(name: str, text: str) -> str:
    """A line, or several: those after the first are indented, lest they look like facts."""
    return f"{name}: " + cut(text, _VALUE).replace("\n", "\n    ")


def _line(text: str, most: int = _NAME) -> str:
    return text.translate(HARMLESS).strip()[:most]


def _text(text: str) -> str:
    return text.translate(_LINES).strip()[:_TEXT]


def _joined(title: str, description: str) -> str:
    return title if title == description else f"{title}\n{description}".strip()


def _key(entity: str, most: int) -> str:
    if len(entity) <= most:
        return entity
    return _hashed(entity, entity, most)


def _reference(entity: str) -> str:
    safe = _UNSAFE.sub("_", entity)
    return _key(entity, _NAME) if safe == entity else _hashed(safe, entity, _NAME)


def _hashed(shown: str, entity: str, most: int) -> str:
    ending = hashlib.blake2b(entity.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{shown[: most - len(ending) - 1]}~{ending}"


_LENGTHS = "fields are cut to their length in ServiceNow, a long key ends in a hash"
FORMATS = (
    Format(
        "servicenow_event",
        servicenow_event,
        media_type="application/json",
        standard="ServiceNow: Event field format for event collection, release Brazil",
        drops="the record itself and what else only it holds",
        shortens=f"{_LENGTHS}; of additional_info the least telling is left out",
        max_bytes=72_000,
    ),
    Format(
        "servicenow_incident",
        servicenow_incident,
        media_type="application/json",
        standard="ServiceNow: Table API, table incident",
        drops="the record itself, and what else only it holds",
        shortens=_LENGTHS,
        max_bytes=20_000,
    ),
    Format(
        "servicenow_security_incident",
        lambda alert: servicenow_incident(alert, table="sn_si_incident"),
        media_type="application/json",
        standard="ServiceNow: Table API, table sn_si_incident",
        drops="the record itself, and what else only it holds",
        shortens=_LENGTHS,
        max_bytes=20_000,
    ),
)
