"""Inbound: what arrives, one file a kind, found by being in this folder.

A kind's module defines `KIND` (see `_base.Kind`): how it is told, its identity, its times and its
mapping to `Alert`. What no kind claims is `unknown`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import unknown
from schemas.kinds._base import Fields, Kind, lenient

__all__ = ["KINDS", "details", "recognise", "understand"]

_found: list[Kind[Any]] = [
    importlib.import_module(f"{__name__}.{info.name}").KIND
    for info in pkgutil.iter_modules(__path__)
    if not info.name.startswith("_")
]
KINDS: dict[str, Kind[Any]] = {
    kind.name: kind for kind in sorted(_found, key=lambda kind: kind.general)
}
"""Every kind by its name; those that are general after all others."""

# A serializer writes a kind's keys in one order, so a record's first bytes nearly always name its
# kind, or one of a few. Only a hint: the kind's strict row must accept the record.
_hints: dict[bytes, list[Kind[Any]]] = {}
_HINT_BYTES = 12
_MOST_HINTS = 512


def recognise(raw: bytes) -> Alert | None:
    """The alert in a record of a kind like those seen before; None if it needs a closer look.

    raw: one JSON object without blanks around it, or anything else (then None).
    """
    kinds = _hints.get(raw[:_HINT_BYTES])
    if kinds is None:
        return None
    if not raw.isascii():
        try:
            raw.decode()  # nothing else looks at the fields that a row skips
        except UnicodeDecodeError:
            return None
    for kind in kinds:
        try:
            row = kind.strict(raw)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            continue
        if kind is not kinds[0]:
            _remember(raw, kind)  # the one that came last comes next, most often
        read: Alert = kind.read(row, raw)
        return read
    return None


def understand(raw: bytes) -> Alert:
    """The alert in a record: one valid JSON object without blanks around it, as from `unwrap`."""
    alert = recognise(raw)
    if alert is not None:
        return alert
    fields = Fields(raw)
    kind = next((kind for kind in KINDS.values() if kind.tells(fields)), None)
    if kind is None:
        return unknown.read(lenient(unknown.Row, fields), raw)
    try:
        row = kind.strict(raw)
    except msgspec.DecodeError:
        row = lenient(kind.row, fields)
    else:
        if not kind.general:  # its row would take records of the kinds that are asked before it
            _remember(raw, kind)
    read: Alert = kind.read(row, raw)
    return read


def _remember(raw: bytes, kind: Kind[Any]) -> None:
    if len(_hints) >= _MOST_HINTS:
        _hints.clear()
    start = raw[:_HINT_BYTES]
    others = [each for each in _hints.get(start, ()) if each is not kind]
    _hints[start] = [kind, *others]  # a new list: other threads may go through the old one


def details(alert: Alert) -> Details:
    """What an alert's record mentions: decoded now, so ask only where it is needed."""
    kind = KINDS.get(alert.kind)
    return Details() if kind is None else kind.details(alert.raw)
