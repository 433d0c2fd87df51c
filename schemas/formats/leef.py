"""IBM's Log Event Extended Format, version 2.0, as QRadar reads it.

Source: "Log Event Extended Format (LEEF)" (ibm.com/docs/en/dsm): header, predefined attributes,
custom keys. The delimiter is a tab, named in the header as `0x09`, the spelling that most readers
know. QRadar maps events by EventID and `cat`: both name types, in no language, and never change.

    EventID     alert type, else the kind           cat      the kind
    devTime     epoch milliseconds, so that no devTimeFormat is needed
    sev         informational 1, low 3, medium 6, high 8, critical 10; unknown counts as low
    src, dst    addresses       srcPort, dstPort        srcMAC, dstMAC
    usrName     who acts, else whom it concerns          identHostName   the machine
    resource    the resource's short name                url             a URL

Custom keys: externalId (the event id: 32 hex digits, stable for this version of the alert),
alertId, title, severity, status, msg (the description), link, startTime, endTime (epoch
milliseconds), tactics, techniques, resourceId, subscriptionId, subscriptionName, subscriptionOwner,
subscriptionEnvironment, srcHostName, targetUsrName, action, outcome, process, commandLine,
fileName, filePath, fileHash, protocol, sensor, zone; replay (its name) of a replayed alert.

LEEF escapes nothing, so what has a meaning is replaced: a tab or line break in a value becomes a
blank, `|` and `\\` in the header become `/`; control characters go. A backslash at a value's end
gets a blank after it, since some readers take it and the tab for an escape. Of `=` the first one of
an attribute ends the key; later ones are the value's.

Dropped: the record itself and what else only it holds, all but the first entity of a type, all but
the first resource id, tags. Header fields are cut to 255 characters, other values to 1023. What is
still too long loses attributes, the least important first; then `msg` is cut. The default of 4096
bytes is what QRadar takes of a TCP payload unless told otherwise.
"""

from __future__ import annotations

import functools

from schemas.alert import Alert, Subscription
from schemas.entities import Details
from schemas.formats._base import Format
from schemas.formats._sides import address, first, longest_hash, mac_address, number, sides
from schemas.formats._text import HARMLESS, OF_TEN, fitted
from schemas.kinds import details

__all__ = ["FORMATS", "leef"]

_HEADER = str.maketrans({**HARMLESS, ord("|"): "/", ord("\\"): "/"})
_LENGTHS = {"usrName": 255, "identHostName": 255}  # characters; all others 1023


def leef(alert: Alert, *, max_bytes: int = 4096, entities: bool = True) -> bytes:
    """The alert as one line of LEEF, at most `max_bytes` long, without a newline.

    entities: say what the record mentions; without, it is not decoded.
    Raises ValueError where not even the required attributes fit.
    """
    head = _head(alert.vendor, alert.product or alert.kind, alert.alert_type or alert.kind)
    required = [
        f"cat={alert.kind}",
        f"devTime={alert.event_ms}",
        f"sev={OF_TEN.get(alert.severity, 3)}",
        f"externalId={alert.event_id}",
    ]
    subscription = alert.subscription or Subscription("")
    attributes = {  # the most important first
        "alertId": alert.entity,
        "title": alert.title,
        **_mentioned(alert.resource, details(alert) if entities else Details()),
        "severity": alert.severity_original,
        "status": alert.status_original,
        "resourceId": alert.resource_ids[0] if alert.resource_ids else "",
        "subscriptionId": alert.subscription_id,
        "subscriptionName": subscription.name,
        "subscriptionOwner": subscription.owner,
        "subscriptionEnvironment": subscription.environment,
        "tactics": ", ".join(alert.tactics),
        "techniques": ", ".join(alert.techniques),
        "startTime": str(alert.start_ms or ""),
        "endTime": str(alert.end_ms or ""),
        "link": alert.link,
    }
    if alert.replay:
        attributes = {"replay": alert.replay, **attributes}
    optional = list(filter(None, map(_attribute, attributes, attributes.values())))
    message = _attribute("msg", alert.description)
    return fitted(head, "\t", required, optional, message, max_bytes)


@functools.lru_cache(4096)
def _head(vendor: str, product: str, event_id: str) -> str:
    fields = [
        text[:255].translate(_HEADER).strip() or "unknown"
        for text in (vendor, product, "1.0", event_id)
    ]
    return "|".join(["LEEF:2.0", *fields, "0x09", ""])


def _mentioned(resource: str, known: Details) -> dict[str, str]:
    """Both sides, what the one did to the other, and with what."""
    source, target = sides(known)
    src, dst = first(source, "ip"), first(target, "ip")
    actor, concerned = first(source, "user", "mailbox"), first(target, "user", "mailbox")
    attacker, attacked = first(source, "host", "device"), first(target, "host", "device")
    process, file = first(known.entities, "process"), first(known.entities, "file")
    said = known.attributes.get
    return {
        "src": address(src.name)[1],
        "dst": address(dst.name)[1] or address(resource)[1],
        "usrName": actor.full_name or concerned.full_name,
        "identHostName": attacked.full_name,
        "resource": resource,
        "action": known.action,
        "outcome": known.outcome,
        "srcPort": number(src.port, 65535),
        "dstPort": number(dst.port, 65535),
        "srcHostName": attacker.full_name,
        "srcMAC": mac_address(attacker),
        "dstMAC": mac_address(attacked),
        "targetUsrName": concerned.full_name if actor.full_name else "",
        "url": first(known.entities, "url").name,
        "process": process.full_name,
        "commandLine": process.command_line,
        "fileName": file.name,
        "filePath": file.full_name if file.path else "",
        "fileHash": longest_hash(file),
        "protocol": said("protocol", ""),
        "sensor": said("sensor", ""),
        "zone": said("zone", ""),
    }


def _attribute(key: str, text: str) -> str:
    """`key=value`; empty where nothing is left of the value."""
    value = text[: _LENGTHS.get(key, 1023)] if text else ""
    if not value.isprintable():
        value = value.translate(HARMLESS)
    value = value.strip(" ")
    if not value:
        return ""
    return f"{key}={value} " if value.endswith("\\") else f"{key}={value}"


FORMATS = (
    Format(
        "leef",
        leef,
        media_type="text/plain",
        standard="IBM: Log Event Extended Format (LEEF) 2.0",
        drops="the record itself and what else only it holds; all but the first resource, and but "
        "the first address, machine, account, process and file; tags",
        shortens="values are cut; then optional attributes go, the least important first; then "
        "the message is cut",
        max_bytes=4096,
    ),
)
