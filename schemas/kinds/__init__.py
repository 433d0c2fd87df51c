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
from schemas.kinds._base import Fields, Kind, Memo, length_together, lenient

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
# kind, or one of a few. Only a hint: the kind's strict row must accept the record. None among them
# stands for records that no row tells: of general kinds, whose rows would take those of others, and
# those that are read leniently.
_Hint = list[Kind[Any] | None]
_hints: dict[bytes, _Hint] = {}
_HINT_BYTES = 12
_MOST_HINTS = 512
# Where several begin alike: by more bytes, but for those that times and ids are made of.
_closer_hints: dict[bytes, _Hint] = {}
_CLOSER_BYTES = 128
_VARYING = b"0123456789abcdefABCDEF"

# By a record's keys, the kinds that asked for any of them: to the others they do not matter.
_asking: Memo[tuple[str, ...], list[Kind[Any]]] = Memo(
    lambda _: list(KINDS.values()), most=256, longest=4096, size=length_together
)


def recognise(raw: bytes) -> Alert | None:
    """The alert in a record of a kind like those seen before; None if it needs a closer look.

    raw: one JSON object without blanks around it, or anything else (then None).
    """
    kinds = _hints.get(raw[:_HINT_BYTES])
    if kinds is None:
        return None
    if len(kinds) > 1:
        kinds = _closer_hints.get(_closer(raw), kinds)
    if not raw.isascii():
        try:
            raw.decode()  # nothing else looks at the fields that a row skips
        except UnicodeDecodeError:
            return None
    for kind in kinds:
        if kind is None:
            return None
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
    kind = _wanting(fields)
    if kind is None:
        _remember(raw, None)
        return unknown.read(lenient(unknown.Row, fields), raw)
    try:
        row = kind.strict(raw)
        _remember(raw, None if kind.general else kind)
    except msgspec.DecodeError:
        row = lenient(kind.row, fields)
        _remember(raw, None)
    read: Alert = kind.read(row, raw)
    return read


def _wanting(fields: Fields) -> Kind[Any] | None:
    """The first kind that wants a record."""
    kinds = _asking[fields.keys]
    asking = []
    found = None
    for at, kind in enumerate(kinds):
        fields.asked = False
        if kind.tells(fields):
            found = kind
            asking += kinds[at:]
            break
        if fields.asked:
            asking.append(kind)
    if len(asking) < len(kinds) and fields.keys in _asking:
        _asking[fields.keys] = asking  # a new list, as with the hints
    return found


def _remember(raw: bytes, kind: Kind[Any] | None) -> None:
    start = raw[:_HINT_BYTES]
    others = [each for each in _hints.get(start, ()) if each is not kind]
    if kind is None and not others:
        return  # no row is tried in vain
    kinds: _Hint = [kind, *others]  # a new list: other threads may go through the old one
    _keep(_hints, start, kinds)
    if others:
        _keep(_closer_hints, _closer(raw), kinds)


def _keep(hints: dict[bytes, _Hint], start: bytes, kinds: _Hint) -> None:
    if len(hints) >= _MOST_HINTS:
        hints.clear()
    hints[start] = kinds


def _closer(raw: bytes) -> bytes:
    return raw[:_CLOSER_BYTES].translate(None, _VARYING)


def details(alert: Alert) -> Details:
    """What an alert's record mentions: decoded now, so ask only where it is needed."""
    return _details[alert.kind, alert.raw]


# The sinks ask one after the other, each for all alerts of a batch.
_details: Memo[tuple[str, bytes], Details] = Memo(
    lambda of: KINDS[of[0]].details(of[1]) if of[0] in KINDS else Details(),
    most=256,
    longest=16 * 1024,
    size=lambda of: len(of[1]),
)
