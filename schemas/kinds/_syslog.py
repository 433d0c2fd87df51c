"""Syslog, however it comes: a line's parts, and what is the same for a line and for a row.

Sources: RFC 5424 (also the numbers of facilities and severities), RFC 3164, and the templates of
rsyslog: `RSYSLOG_FileFormat` (what omazureeventhubs writes if nobody says otherwise: an RFC 3339
time, host, tag, message), `RSYSLOG_ForwardFormat`, `RSYSLOG_TraditionalFileFormat`,
`RSYSLOG_SyslogProtocol23Format`.
"""

from __future__ import annotations

import re

import msgspec

from schemas.entities import Details, Entity
from schemas.kinds import _entities, _unix
from schemas.kinds._things import numeric

__all__ = ["BEGINS", "SEVERITIES", "Line", "details", "parse", "severity", "title"]

BEGINS = (
    r"^(?:<\d{1,3}>|[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S{0,16} \S{1,255} [^\s:]{1,64}(?: \d\S{0,16})?:)"
)
"""How a line of syslog begins: with a priority, a time of RFC 3164, or an RFC 3339 time before a
host and a tag."""


class Line(msgspec.Struct, kw_only=True, frozen=True):
    """priority: -1 where there is none. time: as it stands there."""

    priority: int = -1
    facility: str = ""
    time: str = ""
    host: str = ""
    address: str = ""
    program: str = ""
    pid: str = ""
    message_id: str = ""
    data: str = ""
    message: str = ""


_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "audit", "alert", "clock"),
    *(f"local{number}" for number in range(8)),
)
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

_MOST_OF_HEAD = 1 << 15
_PRIORITY = re.compile(r"<(\d{1,3})>")
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_NEW = re.compile(
    rf"1 (-|{_TIME}) (\S{{1,255}}) (\S{{1,48}}) (\S{{1,128}}) (\S{{1,32}})"
    r' (-|(?:\[(?:[^\]"\\]|\\.|"(?:[^"\\]|\\.)*")*\])+)(?: (?:\ufeff)?|$)'
)
_OLD = re.compile(
    rf"({_TIME}|[A-Z][a-z]{{2}} [ \d]\d (?:\d{{4}} )?\d\d:\d\d:\d\d(?:\.\d{{1,9}})?):? "
    r"(?:(\S{0,254}[^\s:])(?: |$))?"
)
_TAG = re.compile(r"(?:-- )?([^\s:\[\]]{1,64})(?: \d[\w.]{0,16})?(?:\[([\w.-]{1,20})\])?:(?: |$)")


def parse(line: str) -> Line:
    """The parts of a line; of one that follows no format, what is there. Linear, never raises."""
    found = _PRIORITY.match(line)
    priority = int(found[1]) if found and int(found[1]) < 192 else -1
    text = line[found.end() :] if found else line
    facility = _FACILITIES[priority >> 3] if priority >= 0 else ""
    if found and (new := _NEW.match(text, 0, _MOST_OF_HEAD)):
        time, host, program, pid, message_id, data = ("" if p == "-" else p for p in new.groups())
        return Line(
            priority=priority,
            facility=facility,
            time=time,
            host=host,
            program=program,
            pid=pid,
            message_id=message_id,
            data=data,
            message=text[new.end() :],
        )
    time = host = ""
    if old := _OLD.match(text):
        time, host = old[1], old[2] or ""
        text = text[old.end() :]
    tag = _TAG.match(text)
    return Line(
        priority=priority,
        facility=facility,
        time=time,
        host=host,
        program=tag[1] if tag else "",
        pid=(tag[2] or "") if tag else "",
        message=text[tag.end() :] if tag else text,
    )


_ON_OUR_SCALE = {
    **dict.fromkeys(("emerg", "panic", "alert", "crit", "critical"), "critical"),
    **dict.fromkeys(("err", "error"), "high"),
    **dict.fromkeys(("warning", "warn"), "medium"),
    "notice": "low",
    **dict.fromkeys(("info", "informational", "debug"), "informational"),
}


def severity(word: str | None) -> str:
    """On our scale: the inverse of what `schemas.formats.rfc5424` writes."""
    return _ON_OUR_SCALE.get(word.lower(), "unknown") if word else "unknown"


def title(program: str, message: str) -> str:
    """`sshd: Failed password for root …`, shortened."""
    first = " ".join(message[:200].split())
    return f"{program}: {first}" if program and first else program or first


def details(line: Line, *others: Entity) -> Details:
    """What a message mentions; other entities that the record names go before it."""
    said = _unix.understand(line.program, line.message)
    facts = {
        "facility": line.facility,
        "message_id": line.message_id,
        "structured_data": line.data,
    }
    return Details(
        entities=_entities.merged(
            (
                *others,
                _entities.host(line.host),
                Entity(type="ip", name=numeric(line.address)),
                Entity(type="process", name=line.program.partition("(")[0], pid=line.pid),
                *said.entities,
            )
        ),
        action=said.action,
        outcome=said.outcome,
        attributes={name: text for name, text in facts.items() if text} | said.attributes,
    )
