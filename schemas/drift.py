"""Has what Microsoft sends changed its shape? Schemas change unannounced.

A shape is what the records of a kind (and of a table or category within it) look like: which
fields, of which JSON types, in how many records; at the top level and inside `properties`, where
Azure puts what a table or category has of its own (other objects are dictionaries: their keys are
data). What is seen is compared with what was known: a field that was never there, one that was
always there and is not, one whose type is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

__all__ = ["LEARNT", "Change", "Shape", "Shapes", "changes", "dump", "load", "merge"]

LEARNT = 100
"""Records of a shape after which it counts as known."""

_ALWAYS = 0.99  # of the records: what is in so many of them is missed where it is not
_MOST_SHAPES = 500
_MOST_FIELDS = 1000  # a level with more keys than that is a dictionary, not a schema
_MOST_NAME = 80

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TYPES = {'"': "string", "{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}
_TABLES = ("Type", "category", "Category")


class Change(msgspec.Struct, frozen=True, order=True):
    """One way in which records differ from what was known of their shape.

    field: its path: `Severity`, `properties.riskLevel`.
    now: the JSON type seen, for `new` and `type`.
    """

    shape: str
    what: Literal["new", "type", "vanished"]
    field: str
    now: str = ""

    def __str__(self) -> str:
        said = {
            "new": f"is new ({self.now})",
            "type": f"is now also {self.now}",
            "vanished": "is missing",
        }
        return f"{self.shape}: {self.field} {said[self.what]}"


class _Field(msgspec.Struct, array_like=True):
    records: int
    types: set[str]


class Shape(msgspec.Struct, array_like=True):
    """`records` were looked at; each field was in so many of them, with these types.

    given: not learnt, so known from the start; what a field's absence means is not known.
    """

    records: int
    fields: dict[str, _Field]
    given: bool = False


Shapes = dict[str, Shape]
"""Shapes by name: the kind, and behind a colon the table or category, where a record names one."""

_load = msgspec.json.Decoder(Shapes).decode


def changes(known: Shapes, seen: Shapes, kind: str, raw: bytes) -> list[Change]:
    """How a record differs from what is known; it is added to `seen`.

    Where less than `LEARNT` records of its shape are known, and it was not given, it differs in
    nothing. Bounded: of more shapes and fields, and longer names, than real ones have, the rest
    is not looked at.
    """
    fields = dict(_fields(raw))
    table = next((field for field in fields if field[0:1] == "="), "")
    fields.pop(table, None)
    name = f"{kind}:{table[1:]}" if table else kind
    shape = seen.get(name)
    if shape is None:
        if len(seen) >= _MOST_SHAPES:
            return []
        shape = seen[name] = Shape(0, {})
    before = known.get(name)
    known_well = before is not None and (before.given or before.records >= LEARNT)
    found = list(_differences(name, before, fields)) if before and known_well else []
    shape.records += 1
    for field, kind_of in fields.items():
        entry = shape.fields.get(field)
        if entry is None:
            if len(shape.fields) >= _MOST_FIELDS:
                continue
            entry = shape.fields[field] = _Field(0, set())
        entry.records += 1
        entry.types.add(kind_of)
    return found


def _fields(raw: bytes) -> Iterator[tuple[str, str]]:
    """Each field's path and JSON type; and `=Name` of the table that the record is a row of."""
    level = _decode(raw)
    for name, value in level.items():
        if len(name) > _MOST_NAME:
            continue
        kind = _type(value)
        yield name, kind
        if kind == "object" and name.lower() == "properties":
            for inner, it in _decode(value).items():
                if len(inner) <= _MOST_NAME:
                    yield f"{name}.{inner}", _type(it)
    for name in _TABLES:
        table = level.get(name)
        if table is not None and _type(table) == "string" and len(bytes(table)) < _MOST_NAME:
            yield "=" + msgspec.json.decode(table, type=str), "string"
            return


def _type(value: msgspec.Raw) -> str:
    return _TYPES.get(chr(bytes(value)[0]), "number")


def _differences(name: str, known: Shape, fields: dict[str, str]) -> Iterator[Change]:
    full = len(known.fields) >= _MOST_FIELDS
    for field, now in fields.items():
        entry = known.fields.get(field)
        above = _parent(field)
        if entry is None:
            if not full and (not above or above in known.fields):
                yield Change(name, "new", field, now)
        elif now not in entry.types and now != "null" and entry.types != {"null"}:
            yield Change(name, "type", field, now)
    for field, entry in known.fields.items() if known.records >= LEARNT else ():
        always = entry.records >= known.records * _ALWAYS
        above = _parent(field)
        if always and field not in fields and (not above or fields.get(above) == "object"):
            yield Change(name, "vanished", field)


def _parent(field: str) -> str:
    """`properties` of what is inside it; empty for a top-level field."""
    parent, dot, _ = field.partition(".")
    return parent if dot and parent.lower() == "properties" else ""


def merge(*many: Shapes) -> Shapes:
    """What was learnt apart, together."""
    total: Shapes = {}
    for shapes in many:
        for name, shape in shapes.items():
            into = total.setdefault(name, Shape(0, {}))
            into.records += shape.records
            into.given |= shape.given
            for field, entry in shape.fields.items():
                sum_ = into.fields.setdefault(field, _Field(0, set()))
                sum_.records += entry.records
                sum_.types |= entry.types
    return total


def dump(shapes: Shapes) -> bytes:
    """As JSON; the reverse of `load`."""
    return msgspec.json.encode(shapes, order="deterministic")


def load(data: bytes) -> Shapes:
    """Raises msgspec.DecodeError for anything but what `dump` wrote."""
    return _load(data)
