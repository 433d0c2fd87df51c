"""What is known of an alert as a text for people, one fact a line."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._records import username
from schemas.formats._text import HARMLESS, cut

__all__ = ["facts", "gmt", "known_facts", "line", "summary"]

_LINES = {**HARMLESS, ord("\n"): "\n"}
_EPOCH = datetime(1970, 1, 1)
_FIRST, _LAST = "Description", ("Id", "Event")
_VALUE = 1_000  # bytes of one fact, but for the description


def known_facts(alert: Alert, found: Details) -> dict[str, str]:
    """Name → what is known, as it came; the most telling first."""
    seen = found.attributes.get
    known = alert.subscription
    owned = f" ({known.name}; {known.owner})" if known and known.known else ""
    replayed = {"Replay": alert.replay} if alert.replay else {}
    return {
        "Description": alert.description or alert.title,
        "Severity": alert.severity_original or alert.severity,
        "Status": alert.status_original or alert.status,
        **replayed,
        "Link": alert.link,
        "Time": gmt(alert.event_ms) and f"{gmt(alert.event_ms)} GMT",
        "Activity": " to ".join(filter(None, map(gmt, (alert.start_ms, alert.end_ms)))),
        "Resource": alert.resource,
        "Subscription": alert.subscription_id and alert.subscription_id + owned,
        "Tactics": _listed(alert.tactics),
        "Techniques": _listed(alert.techniques),
        "Machines": _listed(found.hosts),
        "Accounts": _listed(username(it) for it in found.of("user", "mailbox")),
        "Addresses": _listed(found.ips),
        "URLs": _listed(found.urls),
        "Hashes": _listed(found.hashes),
        "Remediation": seen("remediation", ""),
        "Resources": _listed(alert.resource_ids),
        "Type": alert.alert_type,
        "Kind": alert.kind,
        "Id": alert.entity,
        "Event": alert.event_id,
    }


def facts(alert: Alert, found: Details) -> dict[str, str]:
    """The most telling first; none is empty, each but the description is one line."""
    known = known_facts(alert, found)
    description = known.pop(_FIRST).translate(_LINES).strip()
    lines = {name: line(text, _VALUE) for name, text in known.items()}
    return {name: text for name, text in ({_FIRST: description} | lines).items() if text}


def summary(known: dict[str, str], most: int) -> str:
    """These facts in at most `most` bytes. What it is about and this version's id stand in the
    last lines, whatever is cut before them; no text of an alert begins a line."""
    lines = {name: f"{name}: {text}" for name, text in known.items() if name != _FIRST}
    last = "\n".join(lines.pop(name) for name in _LAST if name in lines)
    end = "\n".join([*lines.values(), last])
    room = most - len(end.encode("utf-8", "replace")) - len(f"{_FIRST}: \n")
    if room < 0:  # hardly anything: the description goes, then the other facts
        room = most - len(last.encode("utf-8", "replace")) - 1
        return f"{cut(chr(10).join(lines.values()), room)}\n{last}".lstrip("\n")
    description = cut(known.get(_FIRST, "").replace("\n", "\n    "), room)
    return f"{_FIRST}: {description}\n{end}" if description else end


def line(text: str, most: int) -> str:
    """One line of at most `most` bytes."""
    return cut(text.translate(HARMLESS).strip(), most)


def gmt(millis: int) -> str:
    """yyyy-MM-dd HH:mm:ss; "" where there is none."""
    if not millis:
        return ""
    return (_EPOCH + timedelta(milliseconds=millis)).strftime("%Y-%m-%d %H:%M:%S")


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, texts)))
