"""Watches the shapes of what is read: `schemas.drift`, with what was learnt in the state store.

Known is what comes with alertbeam (`shapes.json`, made by `python -m tests.shapes`) and what
earlier runs of this pipeline saw. One record in 32 is looked at, and the first of each kind.
"""

from __future__ import annotations

import importlib.resources
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable

import msgspec

from schemas.alert import Alert
from schemas.drift import LEARNT, Change, Shapes, changes, load, merge
from schemas.kinds import unknown
from transforms.state_store import StateStore, place

__all__ = ["Seen", "Watch", "close", "drift_of", "known", "shipped", "watch"]

_LOGGER = logging.getLogger(__name__)

ONE_IN = 32
"""So many records are passed for each that is looked at."""

_FOLDER = "shapes"
_SAVE_SECONDS = 10.0
_MOST_FILES = 16
_MOST_CHANGES = 1000


class Seen(msgspec.Struct):
    """How often a change was seen (in records that were looked at), and when, in epoch ms."""

    change: Change
    records: int = 0
    first_ms: int = 0
    last_ms: int = 0


class _Learnt(msgspec.Struct):
    shapes: Shapes = {}
    changes: list[Seen] = []


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(_Learnt).decode


def shipped() -> Shapes:
    """What alertbeam knows from the start."""
    data = importlib.resources.files("transforms").joinpath("shapes.json").read_bytes()
    return load(data)


def known(store: StateStore | None) -> Shapes:
    """What is known before a run: shipped, and learnt by earlier runs with this state."""
    before = _learnt(store).values() if store else ()
    return merge(shipped(), *[each.shapes for each in before])


class Watch:
    """One run's, shared by its threads."""

    def __init__(self, run: str, store: StateStore) -> None:
        self._path = place(_FOLDER, f"{run}.json")
        self._store = store
        self._lock = threading.Lock()
        self.known = known(store)
        _compact(store)
        self._seen: Shapes = {}
        self._kinds: Counter[str] = Counter()
        self._changes: dict[Change, Seen] = {}
        self._saved = time.monotonic()

    def look(self, alerts: Iterable[Alert]) -> None:
        """At some of them; saves what was learnt, now and then."""
        chosen = []
        for alert in alerts:
            begun = self._kinds[alert.kind]
            if (begun < LEARNT or not alert.sequence % ONE_IN) and alert.kind != unknown.NAME:
                self._kinds[alert.kind] = begun + 1
                chosen.append(alert)
        if not chosen:
            return
        now_ms = int(time.time() * 1000)
        with self._lock:
            for alert in chosen:
                for change in self._changes_of(alert):
                    if len(self._changes) < _MOST_CHANGES or change in self._changes:
                        seen = self._changes.setdefault(change, Seen(change, first_ms=now_ms))
                        seen.records += 1
                        seen.last_ms = now_ms
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self._save()

    def _changes_of(self, alert: Alert) -> list[Change]:
        try:
            return changes(self.known, self._seen, alert.kind, alert.raw)
        except Exception:  # to watch must never cost a record
            _LOGGER.exception("the shape of a record of kind %s was not looked at", alert.kind)
            return []

    def save(self) -> None:
        with self._lock:
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._seen:
            learnt = _Learnt(self._seen, list(self._changes.values()))
            self._store.put(self._path, _encode(learnt), sync=False)


_watches: dict[tuple[str, str], Watch] = {}
_lock = threading.Lock()


def watch(run: str, store: StateStore) -> Watch:
    """The run's, through all its shifts: what a shift saw first stays a change until the end."""
    key = run, str(store.folder)
    with _lock:
        if key not in _watches:
            _watches[key] = Watch(run, store)
        return _watches[key]


def close(run: str, store: StateStore) -> None:
    """The run has ended: what it learnt is saved."""
    with _lock:
        ended = _watches.pop((run, str(store.folder)), None)
    if ended is not None:
        ended.save()


def drift_of(store: StateStore) -> list[Seen]:
    """All changes that runs with this state saw, the most recent first."""
    total: dict[Change, Seen] = {}
    for learnt in _learnt(store).values():
        for seen in learnt.changes:
            into = total.setdefault(seen.change, Seen(seen.change, 0, seen.first_ms, 0))
            into.records += seen.records
            into.first_ms = min(into.first_ms, seen.first_ms)
            into.last_ms = max(into.last_ms, seen.last_ms)
    return sorted(total.values(), key=lambda seen: (-seen.last_ms, seen.change))


def _learnt(store: StateStore) -> dict[str, _Learnt]:
    found = {}
    for path in store.list(_FOLDER):
        try:
            found[path] = _decode(store.get(path) or b"{}")
        except msgspec.DecodeError:
            continue  # another version's
    return found


def _compact(store: StateStore) -> None:
    """Many runs' files into one. Should another process do so too, some is counted twice, which
    changes no share."""
    before = _learnt(store)
    if len(before) <= _MOST_FILES:
        return
    merged = merge(*[each.shapes for each in before.values()])
    kept = drift_of(store)[:_MOST_CHANGES]
    store.put(place(_FOLDER, "earlier.json"), _encode(_Learnt(merged, kept)))
    for path in before:
        if path != place(_FOLDER, "earlier.json"):
            store.delete(path)
