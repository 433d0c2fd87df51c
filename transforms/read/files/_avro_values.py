"""Avro's binary encoding: its values read, passed over, and matched, as a schema says.

Source: Apache Avro 1.12's specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "PRIMITIVES",
    "SHORT",
    "Refused",
    "Skip",
    "Take",
    "kind_of",
    "pattern",
    "read_bytes",
    "read_count",
    "read_long",
    "read_nothing",
    "skip_long",
    "skipper",
    "taker",
]

SHORT = 64  # lengths, and numbers of a union's branches, of one byte
_FEW = 8  # entries of a map

Skip = Callable[[bytes, int], int]
"""Where a value that begins there ends. Raises IndexError, KeyError or ValueError for what is
none; that it runs over the end of its block is told by where the block's last record ends."""

Take = Callable[[bytes, int], tuple[Any, int]]
"""The value that begins there, and where it ends. Raises what a Skip does."""


class Refused(Exception):
    """Why a file, or a block, is not read."""


def read_long(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at)
    if size < 0:
        raise ValueError("a length is negative")
    return data[at : at + size], at + size


def skip_long(data: bytes, at: int) -> int:
    while data[at] > 0x7F:
        at += 1
    return at + 1


def _skip_bytes(data: bytes, at: int) -> int:
    size = data[at]
    if size & 0x81:  # it is of two bytes or more, or negative
        return read_bytes(data, at)[1]
    return at + 1 + (size >> 1)


def _fixed(size: int) -> Skip:
    return lambda data, at: at + size


PRIMITIVES: dict[str, Skip] = {
    "null": _fixed(0),
    "boolean": _fixed(1),
    "int": skip_long,
    "long": skip_long,
    "float": _fixed(4),
    "double": _fixed(8),
    "bytes": _skip_bytes,
    "string": _skip_bytes,
}


def _union(branches: list[Skip]) -> Skip:
    table = {2 * number: skip for number, skip in enumerate(branches[:SHORT])}
    return lambda data, at: table[data[at]](data, at + 1)


def _array(item: Skip) -> Skip:
    def skip(data: bytes, at: int) -> int:
        while data[at]:
            count, at = read_count(data, at)
            for _ in range(count):
                end = item(data, at)
                if end == at:
                    break  # items of no bytes
                at = end
        return at + 1

    return skip


def read_count(data: bytes, at: int) -> tuple[int, int]:
    """How many items follow; before them may be said how long they are."""
    count, at = read_long(data, at)
    return (count, at) if count >= 0 else (-count, skip_long(data, at))


def _map(value: Skip) -> Skip:
    return _array(lambda data, at: value(data, _skip_bytes(data, at)))


def _record(fields: list[Skip]) -> Skip:
    def skip(data: bytes, at: int) -> int:
        for field in fields:
            at = field(data, at)
        return at

    return skip


def skipper(schema: Any, names: dict[str, Skip], space: str = "") -> Skip:
    """Raises KeyError, TypeError or ValueError for what is no schema."""
    if isinstance(schema, list):
        return _union([skipper(branch, names, space) for branch in schema])
    if isinstance(schema, str):
        if schema in PRIMITIVES:
            return PRIMITIVES[schema]
        name = schema if "." in schema or not space else f"{space}.{schema}"
        if name not in names:
            raise ValueError(f"a type {schema} that is not there")
        return lambda data, at: names[name](data, at)
    kind = schema["type"]
    if kind in ("array", "map"):
        held = skipper(schema["items" if kind == "array" else "values"], names, space)
        return _array(held) if kind == "array" else _map(held)
    if kind not in ("record", "error", "enum", "fixed"):
        return skipper(kind, names, space)
    name = str(schema["name"])
    if "." not in name and (space := schema.get("namespace", space)):
        name = f"{space}.{name}"
    space = name.rpartition(".")[0]
    if kind == "fixed":
        names[name] = _fixed(_natural(schema["size"]))
    elif kind == "enum":
        names[name] = skip_long
    else:
        names[name] = skip_long  # until its fields are known, which may name it
        names[name] = _record([skipper(field["type"], names, space) for field in schema["fields"]])
    return names[name]


def _natural(size: Any) -> int:
    if not isinstance(size, int) or size < 0:
        raise ValueError("a size is none")
    return size


def taker(schema: Any, kinds: dict[str, Take]) -> Take | None:
    """Reads a value of one of these kinds, or null as None; no reader: it may be of another."""
    branches = schema if isinstance(schema, list) else [schema]
    readers = {"null": read_nothing, **kinds}
    found = [readers.get(kind_of(branch)) for branch in branches[:SHORT]]
    takes = {2 * number: take for number, take in enumerate(found) if take is not None}
    if len(takes) < len(branches):
        return None
    if not isinstance(schema, list):
        return takes[0]
    return lambda data, at: takes[data[at]](data, at + 1)


def read_nothing(data: bytes, at: int) -> tuple[None, int]:
    return None, at


def kind_of(schema: Any) -> str:
    """A type's name, with its unit if it is a time."""
    if not isinstance(schema, dict):
        return schema if isinstance(schema, str) else ""
    kind = schema.get("type")
    if kind == "long" and "timestamp-" in str(schema.get("logicalType", "")):
        return f"long {schema['logicalType'].rpartition('-')[2]}"
    return kind if isinstance(kind, str) else kind_of(kind)


# Most fields before a body are short, and what is short is a regular language: one match passes
# over them all. Each alternative begins with another byte, so there is one way to match, if any.

_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_STRING = b"(?:%s)" % b"|".join(b"\\x%02x.{%d}" % (2 * n, n) for n in range(SHORT))
_PATTERNS: dict[str, bytes] = {
    "null": b"",
    "boolean": b".",
    "int": _VARINT,
    "long": _VARINT,
    "float": b".{4}",
    "double": b".{8}",
    "bytes": _STRING,
    "string": _STRING,
}


def pattern(schema: Any) -> bytes:
    """What matches short values of this schema. Raises KeyError or TypeError: there is none."""
    if isinstance(schema, list):
        branches = enumerate(pattern(branch) for branch in schema[:SHORT])
        return b"(?:%s)" % b"|".join(b"\\x%02x%s" % (2 * n, one) for n, one in branches)
    if isinstance(schema, str):
        return _PATTERNS[schema]
    if schema["type"] != "map":
        return _PATTERNS[schema["type"]]
    if isinstance(schema["values"], dict):
        raise TypeError("maps of maps would be long")
    entry = _STRING + pattern(schema["values"])
    entries = (b"\\x%02x(?:%s){%d}\\x00" % (2 * n, entry, n) for n in range(1, _FEW))
    return b"(?:\\x00|%s)" % b"|".join(entries)
