"""Power BI: a row of a push dataset's table.

Sources: "Push semantic model limitations" and "Datasets PostRowsInGroup" (learn.microsoft.com,
power-bi/developer/embedded/push-datasets-limitations; rest/api/power-bi/push-datasets). A row is
flat, of at most 75 columns, a string of at most 4,000 characters (counted as .NET does: in UTF-16).

The columns of `COLUMNS` are our own, made to be counted and sliced by:

    Time            when it happened                EnqueuedTime  when the hub got it
    EventId         this version of the alert       EntityId      the alert, through all its updates
    SeverityRank    0 unknown … 5 critical: to sort by, and to average
    Closed          whether it is resolved or dismissed
    DelaySeconds    from Time to EnqueuedTime
    Tactics, Users, Hosts, …   lists, as text with commas between

What is empty is left out of a row: a blank in Power BI.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.alert import SEVERITIES, Alert
from schemas.formats._base import Format
from schemas.formats._records import nature, rfc3339, username
from schemas.formats._text import HARMLESS
from schemas.kinds import details

__all__ = ["COLUMNS", "FORMATS", "power_bi"]

_LONGEST = 4000  # UTF-16 code units of a string
_LINES = {**HARMLESS, ord("\n"): "\n"}
_encode = msgspec.json.Encoder().encode

COLUMNS = {
    "Time": "DateTime",
    "EnqueuedTime": "DateTime",
    "StartTime": "DateTime",
    "EndTime": "DateTime",
    "DelaySeconds": "Double",
    "EventId": "String",
    "Kind": "String",
    "Nature": "String",
    "EntityId": "String",
    "Version": "String",
    "Title": "String",
    "Description": "String",
    "AlertType": "String",
    "Severity": "String",
    "SeverityRank": "Int64",
    "SeverityOriginal": "String",
    "Status": "String",
    "StatusOriginal": "String",
    "Closed": "Boolean",
    "Vendor": "String",
    "Product": "String",
    "Link": "String",
    "Tactics": "String",
    "Techniques": "String",
    "SubscriptionId": "String",
    "SubscriptionName": "String",
    "SubscriptionOwner": "String",
    "SubscriptionEnvironment": "String",
    "ManagementGroup": "String",
    "SubscriptionTags": "String",
    "Resource": "String",
    "ResourceIds": "String",
    "Hosts": "String",
    "Users": "String",
    "IpAddresses": "String",
    "Urls": "String",
    "Hashes": "String",
    "Action": "String",
    "Outcome": "String",
}
"""The columns of a row by their types, as a dataset is made with them."""


def power_bi(alert: Alert, *, longest: int = _LONGEST) -> bytes:
    """The alert as one JSON object. longest: characters of a string, 4,000 at most."""
    found = details(alert)
    known = alert.subscription
    delay = (alert.enqueued_ms - alert.event_ms) / 1000
    row: dict[str, Any] = {
        "Time": rfc3339(alert.event_ms),
        "EnqueuedTime": rfc3339(alert.enqueued_ms),
        "StartTime": rfc3339(alert.start_ms),
        "EndTime": rfc3339(alert.end_ms),
        "DelaySeconds": delay if alert.enqueued_ms and alert.event_ms else None,
        "EventId": alert.event_id,
        "Kind": alert.kind,
        "Nature": nature(alert, found),
        "EntityId": alert.entity,
        "Version": alert.version,
        "Title": alert.title,
        "Description": alert.description,
        "AlertType": alert.alert_type,
        "Severity": alert.severity,
        "SeverityRank": SEVERITIES.index(alert.severity),
        "SeverityOriginal": alert.severity_original,
        "Status": alert.status,
        "StatusOriginal": alert.status_original,
        "Closed": alert.status in ("resolved", "dismissed"),
        "Vendor": alert.vendor,
        "Product": alert.product,
        "Link": alert.link,
        "Tactics": _listed(alert.tactics),
        "Techniques": _listed(alert.techniques),
        "SubscriptionId": alert.subscription_id,
        "Resource": alert.resource,
        "ResourceIds": _listed(alert.resource_ids),
        "Hosts": _listed(found.hosts),
        "Users": _listed(username(it) for it in found.of("user", "mailbox")),
        "IpAddresses": _listed(found.ips),
        "Urls": _listed(found.urls),
        "Hashes": _listed(found.hashes),
        "Action": found.action,
        "Outcome": found.outcome,
    }
    if known:
        row |= {
            "SubscriptionName": known.name,
            "SubscriptionOwner": known.owner,
            "SubscriptionEnvironment": known.environment,
            "ManagementGroup": known.management_group,
            "SubscriptionTags": _listed(f"{name}={text}" for name, text in known.tags.items()),
        }
    most = min(longest, _LONGEST)
    return _encode(
        {
            name: _text(value, most) if isinstance(value, str) else value
            for name, value in row.items()
            if value not in ("", None)
        }
    )


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, texts)))


def _text(text: str, most: int) -> str:
    text = text.translate(_LINES)
    if len(text) * 2 <= most:
        return text
    return text.encode("utf-16-le", "replace")[: 2 * most].decode("utf-16-le", "ignore")


FORMATS = (
    Format(
        "power_bi",
        power_bi,
        media_type="application/json",
        standard="Power BI: Push semantic model limitations; the columns are our own",
        drops="the record itself and what else only it holds; entities but for their names",
        shortens="a string is cut to 4,000 characters",
        max_bytes=500_000,
    ),
)
