"""What is read here of the same records, and the comparison."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from schemas.alert import Alert
from schemas.batch import Batch, Origin, Record
from schemas.entities import Details, Entity
from schemas.kinds import _base, details
from tests.fidelity.peers import GROUPS, Reading, field_of, readings
from transforms.parse import parse_batch

__all__ = ["Found", "counts", "measured", "ours", "parsed", "theirs"]


class Found(NamedTuple):
    """A peer's value, and whether it is read here."""

    file: str
    kinds: str  # of the file's records here
    peer: str
    group: str
    field: str  # the first of the peer's fields that has the value
    value: str
    found: bool
    ours: frozenset[str]  # what is read here in that group


def measured(shared: Path, wanted: Callable[[str], bool] = lambda file: True) -> Iterator[Found]:
    """Every value of every peer for the samples that are wanted. One for each record and group."""
    for reading in readings(shared):
        if not wanted(reading.file):
            continue
        alerts = _alerts(shared / "samples" / reading.file)
        kinds = " ".join(sorted({alert.kind for alert in alerts}))
        if reading.record is not None:
            alerts = alerts[reading.record : reading.record + 1]
        have = ours(alerts)
        for (group, value), (field, written) in theirs(reading).items():
            found = _is_found(group, value, have[group])
            yield Found(
                *(reading.file, kinds, reading.peer, group),
                *(field, written, found, frozenset(have[group])),
            )


def parsed(body: bytes) -> tuple[list[Alert], int]:
    """A hub event's alerts, whose `event_ms` is 0 if they name no time; and how many are dead."""
    batch, dead = parse_batch(Batch(Origin("file", "0"), 0, 0, None, [Record(0, 0, 0, body)]))
    return batch.alerts, len(dead)


@functools.lru_cache(1)
def _alerts(file: Path) -> list[Alert]:
    return parsed(file.read_bytes())[0]


# The peers' side

_NOTHING = {"", "-", "n/a", "null", "none", "[]", "{}", "s-1-0-0"}
"""Values that say that there is none; S-1-0-0 is Windows's nobody."""


def theirs(reading: Reading) -> dict[tuple[str, str], tuple[str, str]]:
    """A peer's values, each once a group: (group, as compared) → (first field, as written)."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    websites = {value.lower() for name, value in reading.values if name == "url.domain"}
    for name, written in reading.values:
        field = field_of(reading.expected, name)
        if field is None or field.group == "-" or written.lower() in _NOTHING:
            continue
        group = field.group
        if name == "related.hosts" and written.lower() in websites:
            group = "urls"
        for value in _comparable(group, written):
            found.setdefault((group, value), (name, written))
    return found


def _comparable(group: str, written: str) -> Iterable[str]:
    """A value as it is compared: case-blind, times in milliseconds, addresses in short form."""
    value = written.strip().lower()
    if group in ("time", "creation"):
        return [str(_base.millis(_base.moment(written)))]
    if group == "ips":
        return [_address(value)]
    if group == "hashes":
        return re.findall(r"\b[0-9a-f]{32,128}\b", value) or [value]
    if group == "resource_ids":
        return [value.rstrip("/")]
    if group == "ids":
        return [_number(value.strip("{}"))]
    if group == "pids":
        return [] if value == "0" else [_number(value)]  # 0: not known
    return [value]


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value


def _number(value: str) -> str:
    """Windows writes process and logon ids as hexadecimal numbers, peers as either."""
    return str(int(value, 16)) if re.fullmatch(r"0x[0-9a-f]{1,16}", value) else value


# Our side


def ours(alerts: Iterable[Alert]) -> dict[str, set[str]]:
    """What these alerts and their details say, by group, as it is compared."""
    have: dict[str, set[str]] = {group: set() for group in GROUPS}
    for alert in alerts:
        for group, values in _ours(alert, details(alert)).items():
            for value in filter(None, values):
                have[group].update(_comparable(group, value))
    return have


def _ours(alert: Alert, more: Details) -> dict[str, Iterable[str]]:
    facts = more.attributes
    times = (f"{ms:013}" for ms in (alert.event_ms, alert.start_ms, alert.end_ms) if ms)
    inner = [value for it in more.entities for value in it.attributes.values()]
    identity = f"{alert.entity} {alert.version}"
    urls = (*more.urls, alert.link)
    return {
        "time": (*times, *filter(_is_time, (*alert.version.split(), *facts.values()))),
        "creation": filter(_is_time, (*facts.values(), *inner)),
        "severity": (alert.severity, alert.severity_original, facts.get("level", "")),
        "ids": (
            *(alert.entity, alert.version, *re.split(r"[\s|;,/]+", identity)),
            *(alert.subscription_id, alert.resource, more.action, *more.related, *facts.values()),
            *(text for it in more.entities for text in (it.id, it.name)),
            *inner,
        ),
        "hosts": _said(more.of("host", "device", "domain")),
        "users": (
            *_said(more.of("user", "group", "mailbox", "application")),
            *_halves(facts.get("owner", "")),  # who works on it: nobody that the event is about
        ),
        "ips": more.ips,
        "resource_ids": (*alert.resource_ids, *(it.id for it in more.of("resource"))),
        "hashes": more.hashes,
        "urls": (*urls, *(part for url in urls for part in _parts(url))),
        "pids": (
            *(pid for it in more.entities for pid in (it.pid, it.parent_pid)),
            *(value for name, value in facts.items() if name.endswith(("pid", "process_id"))),
        ),
    }


def _is_time(written: str) -> bool:
    return _base.millis(_base.moment(written)) > 0


def _said(things: Iterable[Entity]) -> Iterator[str]:
    """Every way in which things are called."""
    for it in things:
        yield from (it.name, it.full_name, it.id, it.domain, *it.attributes.values())
        if it.name and it.domain:
            yield from (f"{it.domain}\\{it.name}", f"{it.name}@{it.domain}")
        yield from _halves(it.name)


def _halves(principal: str) -> list[str]:
    """`name@domain` or `DOMAIN\\name` whole, and both its halves."""
    return [principal, *re.split(r"[@\\]", principal)]


def _parts(url: str) -> Iterator[str]:
    """A URL's host, with and without port, and what follows it."""
    try:
        split = urlsplit(url)
        yield from (split.hostname or "", split.netloc, split.path, f"{split.path}?{split.query}")
    except ValueError:
        pass


def _is_found(group: str, value: str, have: set[str]) -> bool:
    if group in ("time", "creation"):
        return any(str(int(value) + shift) in have for shift in (0, -1, 1))
    return value in have


def counts(found: Iterable[Found], by: Callable[[Found], str]) -> dict[str, Counter[str]]:
    """`{name: {group: values, group + "+": found}}`, names as `by` gives them."""
    result: dict[str, Counter[str]] = {}
    for it in found:
        count = result.setdefault(by(it), Counter())
        count[it.group] += 1
        count[it.group + "+"] += it.found
    return result
