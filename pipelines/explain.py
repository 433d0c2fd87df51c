"""What becomes of an event, and why: for `alertbeam explain`.

The same parse, enrichment, routing and encoding as a run's, on a file's events, with nothing sent
and nothing stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import fastavro

from pipelines.settings import Settings
from schemas.alert import Alert, Subscription
from schemas.batch import Batch, Origin, Record
from schemas.dead_letter import DeadLetter
from schemas.drift import Change, Shapes, changes
from schemas.entities import Details
from schemas.kinds import KINDS, details
from transforms.dead_letters import read_dead_letters
from transforms.drift import known
from transforms.enrich import enrich_batch, load_subscriptions
from transforms.parse import parse_batch
from transforms.route import why_not
from transforms.sinks.base import Sink
from transforms.state_store import StateStore

__all__ = ["Explained", "Explainer", "Fate", "as_json", "bodies_in", "rfc3339"]


@dataclasses.dataclass(frozen=True)
class Fate:
    """What one sink makes of a record: `payload` is what it is sent; else `why` says why not."""

    sink: str
    kind: str
    payload: bytes = b""
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Explained:
    """One record. `alert` is None where it is a dead letter, for `reason`.

    raw: as it came. told_by: why it is of its kind. repeat_of: the number of an earlier record
    that it repeats. died: where the state store holds it as a dead letter, step and reason.
    """

    number: int
    raw: bytes
    alert: Alert | None = None
    reason: str = ""
    details: Details = dataclasses.field(default_factory=Details)
    told_by: str = ""
    repeat_of: int = 0
    changes: tuple[Change, ...] = ()
    died: tuple[str, ...] = ()
    fates: tuple[Fate, ...] = ()


def bodies_in(data: bytes) -> Iterator[bytes]:
    """The bodies in a file: an Avro file of Event Hubs Capture holds many, any other one."""
    if data[:4] == b"Obj\x01":
        for row in fastavro.reader(io.BytesIO(data)):
            assert isinstance(row, dict)
            yield row.get("Body") or b""
    else:
        yield data


class Explainer:
    """Explains one record after the other; with settings also what each sink makes of it.

    drift: how many records of a shape differ from what was known of it, by change.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._masking = settings.mask if settings else True
        self._subscriptions: Mapping[str, Subscription] | None = None
        if settings and settings.subscriptions:
            self._subscriptions = load_subscriptions(settings.subscriptions.file)
        store = StateStore(str(settings.state)) if settings else None
        self._known: Shapes = known(store)
        self._seen: Shapes = {}
        self._died: dict[bytes, list[str]] = {}
        for letter in read_dead_letters(store) if store else ():
            said = f"{letter.step}: {letter.reason}"
            self._died.setdefault(_sha(letter.body), []).append(said)
        self._keys: dict[bytes, int] = {}
        self._sinks: list[tuple[Any, Sink[Any]]] = []
        if settings:
            self._sinks = [(entry, entry.build()) for entry in settings.sinks]
        self._number = 0
        self.drift: Counter[Change] = Counter()

    def explain(self, body: bytes) -> Iterator[Explained]:
        """Every record in an event's body, in order; at least one."""
        origin = Origin(self._source, "0")
        parsed, letters = parse_batch(
            Batch(origin, 0, 0, None, [Record(0, 0, 0, body)]), self._masking
        )
        if self._subscriptions is not None:
            parsed = enrich_batch(parsed, self._subscriptions, lambda count: None)
        found: list[Alert | DeadLetter] = [*parsed.alerts, *letters]
        for item in sorted(found, key=lambda item: item.index):
            self._number += 1
            if isinstance(item, DeadLetter):
                yield Explained(self._number, item.body, reason=item.reason)
            else:
                yield self._explained(item)

    @property
    def _source(self) -> str:
        return self._settings.sources[0].name if self._settings else "file"

    def _explained(self, alert: Alert) -> Explained:
        differences = changes(self._known, self._seen, alert.kind, alert.raw)
        self.drift.update(differences)
        came = alert.original or alert.raw
        first = self._keys.setdefault(alert.key, self._number)
        return Explained(
            self._number,
            came,
            alert,
            details=details(alert),
            told_by=KINDS[alert.kind].told_by,
            repeat_of=first if first != self._number else 0,
            changes=tuple(differences),
            died=tuple(self._died.get(_sha(came), ())),
            fates=tuple(self._fate(entry, sink, alert) for entry, sink in self._sinks),
        )

    def _fate(self, entry: Any, sink: Sink[Any], alert: Alert) -> Fate:
        if entry.send == "digests":
            return Fate(
                entry.name, entry.kind, why="it gets digests, and this record counts in them"
            )
        if why := why_not(entry.where, alert):
            return Fate(entry.name, entry.kind, why=why)
        try:
            return Fate(entry.name, entry.kind, sink.encode(alert, self._source, "0"))
        except ValueError as error:
            return Fate(entry.name, entry.kind, why=f"it becomes a dead letter: {error}")


def _sha(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def as_json(it: Explained) -> dict[str, Any]:
    """The stable fields, for machines. Times are RFC 3339 in UTC; null where there is none."""
    alert = it.alert
    if alert is None:
        return {"kind": "dead_letter", "reason": it.reason, "raw_sha256": _sha(it.raw).hex()}
    found = it.details
    return {
        "kind": alert.kind,
        "identity": alert.entity,
        "version": alert.version,
        "time": rfc3339(alert.event_ms),
        "severity": alert.severity,
        "status": alert.status,
        "title": alert.title,
        "subscription_id": alert.subscription_id,
        "resource_ids": alert.resource_ids,
        "hosts": found.hosts,
        "users": found.users,
        "ips": found.ips,
        "urls": found.urls,
        "hashes": found.hashes,
        "tactics": alert.tactics,
        "techniques": alert.techniques,
        "product": alert.product,
        "link": alert.link,
        "raw_sha256": _sha(it.raw).hex(),
        # Beside the stable fields: what happened on the way.
        "event_id": alert.event_id,
        "repairs": alert.repairs,
        "masked": alert.masked,
        "repeat_of": it.repeat_of or None,
        "changes": [str(change) for change in it.changes],
        "sinks": {fate.sink: fate.why or "gets it" for fate in it.fates},
    }


def rfc3339(ms: int) -> str | None:
    """`2026-03-04T10:13:14.987Z`; None for 0, which stands for no time."""
    if not ms:
        return None
    at = datetime.fromtimestamp(ms / 1000, tz=timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
