"""ArcSight Common Event Format, version 0, as SmartConnectors and most SIEMs read it.

Source: "Implementing ArcSight Common Event Format", revision 25: its keys and their lengths.
Severity: informational 1, low 3, medium 6, high 8, critical 10; unknown counts as low.

    externalId      the event id: 32 hex digits, stable for this version of the alert
    rt, start, end  epoch milliseconds
    cat             tactics               msg      description
    request         link                  dhost    resource (duser for a principal name)
    cs1 AzureResourceId   cs2 AlertId   cs3 SubscriptionName   cs4 SubscriptionOwner
    cs5 SubscriptionEnvironment   cs6 SubscriptionId
    flexString1 MitreTechniques   flexString2 Status

And what the record mentions, on the side of the source (s…) and of the destination (d…): the
first of each type that it names there (`schemas.formats._sides`).

    src, dst        addresses (IPv6: c6a2, c6a3)      spt, dpt      their ports
    shost, dhost    machines and devices              smac, dmac    their MAC addresses
    suser, duser    accounts                          suid, duid    their ids
    sproc, dproc    processes: path and name, else the command line; spid, dpid
    fname, filePath, fileHash   a file; the longest of its hashes
    act, outcome    what was done, and how it went
    proto, app      the transport protocol, any other one     deviceExternalId   OT: the sensor

A replayed alert has a user-defined extension, AlertbeamReplay: the replay's name.

Dropped: `raw` and what else only it holds (further entities, URLs, remediation), all but the
first resource id, the management group and tags. Values are cut to the dictionary's lengths; the
whole to `max_bytes`: optional fields go first, the least important before the others, then the
description is cut.

`cef_iot` says alerts of Defender for IoT as its sensors do, for rules that were made for those.
Source: "Forward on-premises OT alert information" (learn.microsoft.com, azure/defender-for-iot/
organizations/how-to-forward-alert-information-to-partners). Severity: 1 Warning, 4 Minor, 8 Major,
10 Critical. Keys: msg, protocol, severity, type (the engine), UUID, start, src_ip, src_mac, dst_ip,
dst_mac, cat; and externalId, which is ours, since every version of an alert has the same UUID.
Dropped: all else. Other alerts are said as `cef` says them.
"""

from __future__ import annotations

import functools
import re

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats._base import Format
from schemas.formats._sides import address, first, longest_hash, mac_address, number, sides
from schemas.formats._text import HARMLESS, OF_TEN, fitted
from schemas.kinds import details

__all__ = ["FORMATS", "cef", "cef_iot"]

_HEADER = str.maketrans({**HARMLESS, ord("\\"): r"\\", ord("|"): r"\|"})
_VALUE = str.maketrans(
    {**HARMLESS, ord("\\"): r"\\", ord("="): r"\=", ord("\n"): r"\n", ord("\r"): r"\r"}
)
_LABELS = {
    "c6a2": "Source IPv6 Address",
    "c6a3": "Destination IPv6 Address",
    "cs1": "AzureResourceId",
    "cs2": "AlertId",
    "cs3": "SubscriptionName",
    "cs4": "SubscriptionOwner",
    "cs5": "SubscriptionEnvironment",
    "cs6": "SubscriptionId",
    "flexString1": "MitreTechniques",
    "flexString2": "Status",
}
_LENGTHS = {  # characters
    **dict.fromkeys(("cs1", "cs2", "cs3", "cs4", "cs5", "cs6"), 4000),
    **dict.fromkeys(("deviceExternalId", "fileHash"), 255),
    **dict.fromkeys(("act", "outcome"), 63),
    **dict.fromkeys(("app", "proto"), 31),
}
_SPECIAL = {
    key: (_LENGTHS.get(key, 1023), f" {key}Label={_LABELS[key]}" if key in _LABELS else "")
    for key in (*_LABELS, *_LENGTHS)
}
_USUAL = (1023, "")
_NO_SUBSCRIPTION = Subscription("")
_PRINCIPAL = re.compile(r"[^@\s]+@[^@\s]+")
_TRANSPORTS = frozenset({"tcp", "udp", "icmp", "icmpv6", "sctp"})
_ADDRESSES = {4: ("src", "dst"), 6: ("c6a2", "c6a3")}
_IOT_SEVERITIES = {"medium": (4, "Minor"), "high": (8, "Major"), "critical": (10, "Critical")}


def cef(alert: Alert, *, max_bytes: int = 8192, entities: bool = True) -> bytes:
    """The alert as one line of CEF, at most `max_bytes` long, without a newline.

    entities: say what the record mentions; without, it is not decoded.
    Raises ValueError where not even the required fields fit.
    """
    class_id = alert.alert_type or alert.kind
    head = _head(
        alert.vendor[:63],
        (alert.product or alert.kind)[:63],
        "1.0",
        class_id[:1023],
        (alert.title or class_id)[:512],
        OF_TEN.get(alert.severity, 3),
    )
    subscription = alert.subscription or _NO_SUBSCRIPTION
    fields = {  # the most important first
        "cs2": alert.entity,
        "cat": ", ".join(alert.tactics),
        **_mentioned(alert.resource, details(alert) if entities else None),
        "cs1": alert.resource_ids[0] if alert.resource_ids else "",
        "cs6": alert.subscription_id,
        "cs3": subscription.name,
        "cs4": subscription.owner,
        "cs5": subscription.environment,
        "start": str(alert.start_ms or ""),
        "end": str(alert.end_ms or ""),
        "request": alert.link,
        "flexString2": alert.status_original,
        "flexString1": ", ".join(alert.techniques),
    }
    required = [f"externalId={alert.event_id}", f"rt={alert.event_ms}"]
    return _line(head, required, fields, alert, max_bytes)


def cef_iot(alert: Alert, *, max_bytes: int = 8192, entities: bool = True) -> bytes:
    """An alert of Defender for IoT as its sensors say it, any other as `cef` does.

    At most `max_bytes` long, without a newline. Raises ValueError where not even the required
    fields fit.
    """
    if alert.kind != "iot_alert":
        return cef(alert, max_bytes=max_bytes, entities=entities)
    known = details(alert)
    said = known.attributes.get
    level, word = _IOT_SEVERITIES.get(alert.severity, (1, "Warning"))
    head = _head(
        "Microsoft Defender for IoT/CyberX",
        said("sensor", "")[:63],
        "",  # its version is not told
        "Microsoft Defender for IoT Alert",
        (alert.title or alert.alert_type)[:512],
        level,
    )
    source, target = sides(known)
    fields = {  # the most important first
        "type": said("component", "").replace("_", " ").title(),
        "src_ip": address(said("source_ip", ""))[1] or address(first(source, "ip").name)[1],
        "dst_ip": address(said("destination_ip", ""))[1] or address(first(target, "ip").name)[1],
        "protocol": said("protocol", ""),
        "cat": said("category", "") or ", ".join(alert.tactics),
        "src_mac": said("source_mac", "") or mac_address(first(source, "device")),
        "dst_mac": said("destination_mac", "") or mac_address(first(target, "device")),
    }
    start = alert.start_ms or alert.event_ms
    required = [
        f"externalId={alert.event_id}",
        f"severity={word}",
        _field("UUID", alert.entity),
        f"start={start}",
    ]
    return _line(head, required, fields, alert, max_bytes)


@functools.lru_cache(4096)
def _head(vendor: str, product: str, version: str, class_id: str, name: str, severity: int) -> str:
    fields = (vendor, product, version, class_id, name)
    escaped = [text.translate(_HEADER).strip() or "unknown" for text in fields]
    return "|".join(["CEF:0", *escaped, str(severity), ""])


def _mentioned(resource: str, known: Details | None) -> dict[str, str]:
    """Both sides, what the one did to the other, and with what."""
    said: dict[str, str] = {}
    if resource:
        version, text = address(resource)
        name = "duser" if "@" in resource and _PRINCIPAL.fullmatch(resource) else "dhost"
        said[_ADDRESSES[version][1] if version else name] = text or resource
    if known is None:
        return said
    for side, entities in enumerate(sides(known)):
        for entity in entities:
            _add(said, side, entity)
    said["act"] = known.action
    said["outcome"] = known.outcome
    file = next((it for it in known.of("file") if it.name), None) or next(
        (it for it in known.of("file", "process") if it.hashes), None
    )
    if file:
        said["fname"] = file.name
        said["filePath"] = file.full_name if file.path else ""
        said["fileHash"] = longest_hash(file)
    protocol = known.attributes.get("protocol", "")
    said["proto" if protocol.lower() in _TRANSPORTS else "app"] = protocol
    said["deviceExternalId"] = known.attributes.get("sensor", "")
    return said


def _add(said: dict[str, str], side: int, entity: Entity) -> None:
    """Add an entity's fields, unless another one of its type has them.

    side: 0 for the source's, 1 for the target's.
    """
    letter = "sd"[side]
    if entity.type == "ip":
        version, text = address(entity.name)
        key = _ADDRESSES[version][side] if version else ""
        also, more = "pt", number(entity.port, 65535)
    elif entity.type in ("host", "device"):
        key, text = f"{letter}host", entity.full_name
        also, more = "mac", mac_address(entity)
    elif entity.type in ("user", "mailbox"):
        key, text = f"{letter}user", entity.full_name
        also, more = "uid", entity.id
    elif entity.type == "process":
        key, text = f"{letter}proc", entity.full_name or entity.command_line
        also, more = "pid", number(entity.pid, 2**31 - 1)
    else:
        return
    if text and said.setdefault(key, text) == text and more:
        said.setdefault(letter + also, more)


def _line(
    head: str, required: list[str], fields: dict[str, str], alert: Alert, max_bytes: int
) -> bytes:
    optional = [_field(key, text) for key, text in fields.items() if text]
    if alert.replay:
        optional.insert(0, _field("AlertbeamReplay", alert.replay))
    message = _field("msg", alert.description) if alert.description else ""
    return fitted(head, " ", required, optional, message, max_bytes)


def _field(key: str, text: str) -> str:
    """`key=value`, with its label; empty where nothing is left of the value.

    A value is cut to the dictionary's length, then escaped. Blanks around it, which readers take
    for what stands between fields, go.
    """
    most, label = _SPECIAL.get(key, _USUAL)
    if len(text) > most:
        text = text[:most]
    if "=" in text or "\\" in text or not text.isprintable():
        text = text.translate(_VALUE)
    text = text.strip(" ")
    return f"{key}={text}{label}" if text else ""


FORMATS = (
    Format(
        "cef",
        cef,
        media_type="text/plain",
        standard="ArcSight Common Event Format, revision 25",
        drops="the record itself and what else only it holds; all but the first resource, address, "
        "machine, account, process and file of each side; URLs; tags",
        shortens="values are cut to the dictionary's lengths; then optional keys go, the least "
        "important first; then the message is cut",
        max_bytes=8192,
    ),
    Format(
        "cef_iot",
        cef_iot,
        media_type="text/plain",
        standard="Microsoft Defender for IoT: Forward alert information, syslog CEF output",
        drops="of an alert of Defender for IoT all but what its sensors send; of others as `cef`",
        shortens="as `cef`",
        max_bytes=8192,
    ),
)
