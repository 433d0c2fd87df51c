"""Palo Alto Networks Cortex XSIAM and Cortex XDR: an alert of another source, ready parsed.

Source: "Insert Parsed Alerts" (docs-cortex.paloaltonetworks.com, Cortex XDR REST API), whose older
edition (docs.paloaltonetworks.com) tells the fields' types and values. What is not known is said
as Palo Alto's own client says it (pan.dev, "Third-Party alert ingestion into XDR"): an address as
an empty text, a port as 0; no address is made up.

    product, vendor     of the alert            alert_name   title, else its type
    event_timestamp     epoch milliseconds      action_status   Reported
    severity            Informational, Low, Medium, High, Unknown; critical is High: there is no
                        more
    local_ip, local_port     the first address of the source's side, and its port
    remote_ip, remote_port   that of the destination's (`schemas.formats._sides`)
    local_ip_v6, remote_ip_v6   where it is one of IPv6
    alert_description   description, and what else is known, one fact a line; its last lines are
                        what it is about (`Id`) and this version's id (`Event`)

Dropped: the record itself and what else only it holds. No lengths are documented: ours are 500
bytes of a name, and 24,000 of the description.
"""

from __future__ import annotations

import msgspec

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._sides import address, first, number, sides
from schemas.formats._summary import facts, line, summary
from schemas.kinds import details

__all__ = ["FORMATS", "xsiam_alert"]

_NAME, _SHORT, _DESCRIPTION = 500, 100, 24_000  # bytes
_SEVERITIES = {
    "informational": "Informational",
    "low": "Low",
    "medium": "Medium",
    "high": "High",
    "critical": "High",
}
_encode = msgspec.json.Encoder().encode


class _Parsed(msgspec.Struct, omit_defaults=True):
    product: str
    vendor: str
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    event_timestamp: int
    severity: str
    alert_name: str
    alert_description: str
    action_status: str
    local_ip_v6: str = ""
    remote_ip_v6: str = ""


def xsiam_alert(alert: Alert, *, unknown: str = "", most: int = _DESCRIPTION) -> bytes:
    """The alert as one JSON object.

    unknown: what is said for an address that the record does not name. most: bytes of the
    description.
    """
    found = details(alert)
    ends = []
    for side, also in zip(sides(found), ("", alert.resource), strict=True):
        entity = first(side, "ip")
        version, text = address(entity.name or also)
        port = int(number(entity.port, 65535) or 0)
        ends.append((text if version == 4 else unknown, port, text if version == 6 else ""))
    (local_ip, local_port, local_ip_v6), (remote_ip, remote_port, remote_ip_v6) = ends
    return _encode(
        _Parsed(
            product=line(alert.product, _SHORT) or alert.kind,
            vendor=line(alert.vendor, _SHORT) or "Microsoft",
            local_ip=local_ip,
            local_port=local_port,
            remote_ip=remote_ip,
            remote_port=remote_port,
            event_timestamp=alert.event_ms or alert.enqueued_ms,
            severity=_SEVERITIES.get(alert.severity, "Unknown"),
            alert_name=line(alert.title, _NAME) or line(alert.alert_type, _NAME) or alert.kind,
            alert_description=summary(facts(alert, found), most),
            action_status="Reported",
            local_ip_v6=local_ip_v6,
            remote_ip_v6=remote_ip_v6,
        )
    )


FORMATS = (
    Format(
        "xsiam_alert",
        xsiam_alert,
        media_type="application/json",
        standard="Palo Alto Networks: Cortex XDR REST API, Insert Parsed Alerts",
        drops="the record itself and what else only it holds; all but the first address of each "
        "side; that an alert is critical and not high, but in its description",
        shortens="name and description are cut, its last lines never",
        max_bytes=60_000,
    ),
)
