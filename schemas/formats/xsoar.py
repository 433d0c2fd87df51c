"""Palo Alto Networks Cortex XSOAR: an incident, as its API takes one, version 6 and 8.

Source: "Create single incident" (Cortex XSOAR 6 API) and "Create or update an incident" (Cortex
XSOAR 8 API), docs-cortex.paloaltonetworks.com. The numbers of severities: Elastic's and Palo Alto's
own integrations.

    name        title, else its type            occurred   the event's time, RFC 3339
    severity    0 unknown, 0.5 informational, 1 low, 2 medium, 3 high, 4 critical
    details     description, and what else is known, one fact a line; its last lines are what it is
                about (`Id`) and this version's id (`Event`)
    labels      the same facts, one a label, for mappers and playbooks; the label `alertbeam` tells
                which version this is: its id, its time and when it was enqueued (epoch
                milliseconds)
    rawJSON     the record, as it came: what classifiers and mappers read

Nothing is dropped. No lengths are documented: ours are 250 bytes of a name, 10,000 of the details.
"""

from __future__ import annotations

import msgspec

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._records import rfc3339
from schemas.formats._summary import facts, line, summary
from schemas.kinds import details

__all__ = ["FORMATS", "VERSION", "xsoar"]

VERSION = "alertbeam"
"""The type of the label that tells which version of an alert an incident shows."""

_NAME, _DETAILS = 250, 10_000  # bytes
_SEVERITIES = {"informational": 0.5, "low": 1, "medium": 2, "high": 3, "critical": 4}
_encode = msgspec.json.Encoder().encode


class _Label(msgspec.Struct):
    type: str
    value: str


class _Incident(msgspec.Struct, omit_defaults=True):
    name: str
    severity: float
    details: str
    labels: list[_Label]
    rawJSON: str
    occurred: str = ""


def xsoar(alert: Alert) -> bytes:
    """The alert as one JSON object."""
    known = facts(alert, details(alert))
    text = summary(known, _DETAILS)
    known.pop("Description", None)
    version = f"{alert.event_id} {alert.event_ms} {alert.enqueued_ms}"
    return _encode(
        _Incident(
            name=line(alert.title, _NAME) or line(alert.alert_type, _NAME) or alert.kind,
            severity=_SEVERITIES.get(alert.severity, 0),
            details=text,
            labels=[_Label(*pair) for pair in (known | {VERSION: version}).items()],
            rawJSON=alert.raw.decode("utf-8", "replace"),
            occurred=rfc3339(alert.event_ms),
        )
    )


FORMATS = (
    Format(
        "xsoar",
        xsoar,
        media_type="application/json",
        standard="Palo Alto Networks: Cortex XSOAR 8 API, Create or update an incident",
        drops="nothing: the record is in rawJSON as it came",
        shortens="name, details and labels are cut; the record never",
    ),
)
