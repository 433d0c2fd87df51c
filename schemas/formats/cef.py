"""ArcSight Common Event Format, version 0, as SmartConnectors and most SIEMs read it.

Source: "Implementing ArcSight Common Event Format", revision 25: its keys and their lengths.
Severity: informational 1, low 3, medium 6, high 8, critical 10; unknown counts as low.

Dropped: `raw` and what only it holds (entities, remediation), all but the first resource id, the
management group and tags. Values are cut to the dictionary's lengths; the whole to `max_bytes`:
optional fields go first, the least important before the others, then the description is cut.

    externalId      the event id: 32 hex digits, stable for this version of the alert
    rt, start, end  epoch milliseconds
    cat             tactics               msg      description
    request         link                  dhost    resource (dst for IPv4, c6a3 for IPv6)
    cs1 AzureResourceId   cs2 AlertId   cs3 SubscriptionName   cs4 SubscriptionOwner
    cs5 SubscriptionEnvironment   cs6 SubscriptionId
    flexString1 MitreTechniques   flexString2 Status
"""

from __future__ import annotations

import functools
import ipaddress

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._text import HARMLESS, cut

__all__ = ["FORMATS", "cef"]

_SEVERITIES = {
    "unknown": 3,
    "informational": 1,
    "low": 3,
    "medium": 6,
    "high": 8,
    "critical": 10,
}
_HEADER = str.maketrans({**HARMLESS, ord("\\"): r"\\", ord("|"): r"\|"})
_VALUE = str.maketrans(
    {**HARMLESS, ord("\\"): r"\\", ord("="): r"\=", ord("\n"): r"\n", ord("\r"): r"\r"}
)


def cef(alert: Alert, *, max_bytes: int = 8192) -> bytes:
    """The alert as one line of CEF, at most `max_bytes` long, without a newline.

    Raises ValueError where not even the required fields fit.
    """
    class_id = alert.alert_type or alert.kind
    head = _head(
        alert.vendor[:63],
        (alert.product or alert.kind)[:63],
        class_id[:1023],
        (alert.title or class_id)[:512],
        alert.severity,
    )
    required = f"externalId={alert.event_id} rt={alert.event_ms}"
    # From here on the most important first.
    optional = [f"cs2={_value(alert.entity, 4000)} cs2Label=AlertId"]
    if alert.tactics:
        optional.append(f"cat={_value(', '.join(alert.tactics), 1023)}")
    if alert.resource:
        optional.append(_resource(alert.resource[:1023]))
    if alert.resource_ids:
        optional.append(f"cs1={_value(alert.resource_ids[0], 4000)} cs1Label=AzureResourceId")
    if alert.subscription_id:
        optional.append(f"cs6={_value(alert.subscription_id, 4000)} cs6Label=SubscriptionId")
    if known := alert.subscription:
        optional += _subscription(known.name, known.owner, known.environment)
    if alert.start_ms:
        optional.append(f"start={alert.start_ms}")
    if alert.end_ms:
        optional.append(f"end={alert.end_ms}")
    if alert.link:
        optional.append(f"request={_value(alert.link, 1023)}")
    if alert.status_original:
        status = _value(alert.status_original, 1023)
        optional.append(f"flexString2={status} flexString2Label=Status")
    if alert.techniques:
        techniques = _value(", ".join(alert.techniques), 1023)
        optional.append(f"flexString1={techniques} flexString1Label=MitreTechniques")
    message = f"msg={_value(alert.description, 1023)}" if alert.description else ""
    line = _line(head, required, optional, message)
    if len(line) > max_bytes:
        return _shortened(head, required, optional, message, max_bytes)
    return line


def _line(head: str, required: str, optional: list[str], message: str) -> bytes:
    parts = [required, *optional, message] if message else [required, *optional]
    return (head + " ".join(parts)).encode("utf-8", "replace")


def _shortened(
    head: str, required: str, optional: list[str], message: str, max_bytes: int
) -> bytes:
    while optional and len(_line(head, required, optional, message)) > max_bytes:
        optional.pop()
    room = max_bytes - len(_line(head, required, optional, ""))
    if room < 0:
        raise ValueError(f"CEF needs {max_bytes - room} bytes for this alert, not {max_bytes}")
    kept = cut(message, room - 1)
    if (len(kept) - len(kept.rstrip("\\"))) % 2:
        kept = kept[:-1]  # half an escape
    return _line(head, required, optional, kept if len(kept) > len("msg=") else "")


@functools.lru_cache(4096)
def _head(vendor: str, product: str, class_id: str, name: str, severity: str) -> str:
    fields = (vendor, product, "1.0", class_id, name)
    escaped = [text.translate(_HEADER).strip() or "unknown" for text in fields]
    return "|".join(["CEF:0", *escaped, str(_SEVERITIES.get(severity, 3)), ""])


@functools.lru_cache(4096)
def _resource(name: str) -> str:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return f"dhost={_value(name, 1023)}"
    if address.version == 4:
        return f"dst={address}"
    return f"c6a3={address.compressed.partition('%')[0]} c6a3Label=Destination IPv6 Address"


@functools.lru_cache(4096)
def _subscription(name: str, owner: str, environment: str) -> tuple[str, ...]:
    labelled = (
        (3, name, "SubscriptionName"),
        (4, owner, "SubscriptionOwner"),
        (5, environment, "SubscriptionEnvironment"),
    )
    return tuple(
        f"cs{place}={_value(text, 4000)} cs{place}Label={label}"
        for place, text, label in labelled
        if text
    )


def _value(text: str, most: int) -> str:
    """An extension's value: cut to the dictionary's length, then escaped."""
    text = text[:most]
    if text.isprintable() and "=" not in text and "\\" not in text:
        return text
    return text.translate(_VALUE)


FORMATS = (
    Format(
        "cef",
        cef,
        media_type="text/plain",
        standard="ArcSight Common Event Format, revision 25",
        drops="the record itself and what only it holds, all but the first resource, tags",
        shortens="optional keys go, the least important first; then the message is cut",
        max_bytes=8192,
    ),
)
