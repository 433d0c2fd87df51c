"""LogRhythm: one flat JSON object, whose keys are the fields of LogRhythm's schema.

Source: "LogRhythm Schema Dictionary and Guide" (docs.logrhythm.com/lrsiem): what a field means,
1,000 characters a field. `whsdp`, `fullyqualifiedbeatname`, `timestamp.iso8601` and
`original_message`: what the Open Collector's Webhook Beat takes as parsed already, as
`Send-LrSdpWebhook` of github.com/LogRhythm-Tools/LogRhythm.Tools writes it.

    session      the event id: 32 hex digits, stable for this version of the alert
    threatid     the alert's id through all its updates
    vmid         alert type, else the kind          severity, status    as the source says them
    subject      title                              vendorinfo          description
    sip, dip     addresses      sport, dport        smac, dmac
    sname, dname machines and devices               login, account      who acts, whom it concerns
    process, command, hash, url, action, result, protname               what with, and how it went
    object       resource id                        objectname          resource, or a file's path
    tag1 kind  tag2 product  tag3 tactics  tag4 techniques  tag5 subscription id
    tag6 subscription name  tag7 link  tag8 the replay, of a replayed alert

What is empty is left out; control characters and line breaks go. Where it is too long
`original_message`, the record, goes first, then the description is cut; then fields go, the least
important first.
"""

from __future__ import annotations

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._base import Format
from schemas.formats._records import rfc3339
from schemas.formats._sides import address, first, longest_hash, mac_address, number, sides
from schemas.formats._text import HARMLESS
from schemas.kinds import details

__all__ = ["FORMATS", "logrhythm"]

_encode = msgspec.json.Encoder().encode
_NUMBERS = frozenset({"sport", "dport"})


def logrhythm(
    alert: Alert,
    *,
    max_bytes: int = 8000,
    entities: bool = True,
    beat: str = "webhookbeat_alertbeam",
) -> bytes:
    """The alert as one JSON object on one line, at most `max_bytes` long, without a newline.

    entities: say what the record mentions; without, it is not decoded. beat: the log source's name.
    Raises ValueError where not even its id fits.
    """
    said = b'{"whsdp":true' + _field("fullyqualifiedbeatname", beat)
    said += _field("session", alert.event_id) + _field("timestamp.iso8601", rfc3339(alert.event_ms))
    room = max_bytes - len(said) - 1
    if room < 0:
        raise ValueError(f"LogRhythm's JSON needs {max_bytes - room} bytes, not {max_bytes}")
    fields = {  # the most important first
        "threatid": alert.entity,
        "vmid": alert.alert_type or alert.kind,
        "severity": alert.severity_original or alert.severity,
        "subject": alert.title,
        "status": alert.status_original or alert.status,
        "tag8": alert.replay,
        **_mentioned(alert.resource, details(alert) if entities else Details()),
        "object": alert.resource_ids[0] if alert.resource_ids else "",
        "tag1": alert.kind,
        "tag2": alert.product,
        "tag5": alert.subscription_id,
        "tag6": alert.subscription.name if alert.subscription else "",
        "tag3": ", ".join(alert.tactics),
        "tag4": ", ".join(alert.techniques),
        "tag7": alert.link,
    }
    for key, text in fields.items():
        if text and len(field := _field(key, text[:1000])) <= room:
            said, room = said + field, room - len(field)
    field = _cut(_field("vendorinfo", alert.description[:1000]), room)
    said, room = said + field, room - len(field)
    if len(alert.raw) <= room:
        field = _field("original_message", alert.raw.decode("utf-8", "replace"))
        said += field if len(field) <= room else b""
    return said + b"}"


def _mentioned(resource: str, known: Details) -> dict[str, str]:
    """Both sides, what the one did to the other, and with what."""
    source, target = sides(known)
    sip, dip = first(source, "ip"), first(target, "ip")
    actor, concerned = first(source, "user", "mailbox"), first(target, "user", "mailbox")
    attacker, attacked = first(source, "host", "device"), first(target, "host", "device")
    process, file = first(known.entities, "process"), first(known.entities, "file")
    return {
        "sip": address(sip.name)[1],
        "dip": address(dip.name)[1] or address(resource)[1],
        "sname": attacker.full_name,
        "dname": attacked.full_name,
        "login": actor.full_name,
        "account": concerned.full_name,
        "objectname": resource or file.full_name,
        "action": known.action,
        "result": known.outcome,
        "process": process.full_name,
        "command": process.command_line,
        "hash": longest_hash(file) or longest_hash(process),
        "url": first(known.entities, "url").name,
        "sport": number(sip.port, 65535),
        "dport": number(dip.port, 65535),
        "smac": mac_address(attacker),
        "dmac": mac_address(attacked),
        "protname": known.attributes.get("protocol", ""),
    }


def _field(key: str, text: str) -> bytes:
    """`,"key":"text"`, as it stands in an object; empty where nothing is left of the text."""
    if not (text.isascii() and text.isprintable()):
        text = text.translate(HARMLESS).encode("utf-8", "replace").decode()
    value = text.encode() if key in _NUMBERS else _encode(text)
    return b',"%b":%b' % (key.encode(), value) if text else b""


def _cut(field: bytes, room: int) -> bytes:
    """As much of it as fits, in whole code points and escapes; empty where no text does."""
    if len(field) <= room:
        return field
    kept = field[: max(room - 1, 0)].decode("utf-8", "ignore")
    if (len(kept) - len(kept.rstrip("\\"))) % 2:  # the only escapes that are left are \" and \\
        kept = kept[:-1]
    begun = kept.count('"') >= 3 and not kept.endswith(':"')
    return kept.encode() + b'"' if begun else b""


FORMATS = (
    Format(
        "logrhythm",
        logrhythm,
        media_type="application/json",
        standard="LogRhythm Schema Dictionary and Guide, 7.15; Open Collector: Webhook Beat",
        drops="of a record that does not fit what only it holds; all but the first resource, "
        "address, machine, account, process and file",
        shortens="fields are cut to 1,000 characters; then the record goes, then the description "
        "is cut, then fields go, the least important first",
        max_bytes=8000,
    ),
)
