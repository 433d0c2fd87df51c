"""Values as records hold them: plain ones, objects and lists, which may also stand in a text."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from schemas.kinds import _base
from schemas.kinds._base import Fields
from schemas.kinds._entities import scalar
from schemas.kinds._strings import loads_loosely

__all__ = [
    "NOTHING",
    "Folded",
    "attributes",
    "first",
    "folded",
    "leniently",
    "listed",
    "object_in",
    "objects",
    "opened",
    "part",
    "plain",
    "record",
    "snake",
    "struct",
    "texts",
    "unquoted",
    "value_of",
]

S = TypeVar("S", bound=msgspec.Struct)
Folded = dict[str, Any]
"""An object's members by their names in lower case."""

NOTHING = frozenset(
    {"", "-", "--", "n/a", "null", "<null>", "(null)", "none", "notset", "not available"}
)
"""Texts, in lower case, that stand for no value."""

_decode = msgspec.json.Decoder().decode
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")


# Objects and lists


def opened(value: Any) -> Any:
    """An object or list that may stand in a text, itself; anything else as it is."""
    if isinstance(value, str):
        found, _ = loads_loosely(value)
        return value if found is None else found
    return value


def value_of(raw: msgspec.Raw | None) -> Any:
    """A value's JSON, `opened`. None where there is nothing, or it is nested too deeply."""
    if not raw:
        return None
    try:
        return opened(_decode(raw))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def listed(value: Any, most: int = 1000) -> list[Any]:
    """A list's items, or the one that stands alone; either may stand in a text.

    most: how many of them; a mail has no more recipients than a thousand.
    """
    found = opened(value)
    return found[:most] if isinstance(found, list) else [] if found is None else [found]


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects among them."""
    return [item for item in listed(value) if isinstance(item, dict)]


def folded(value: Any) -> Folded:
    """An object, without nulls; empty for all else.

    value: the object, its JSON as bytes, or something like JSON in a text.
    """
    value = value_of(msgspec.Raw(value)) if isinstance(value, bytes) else opened(value)
    if not isinstance(value, dict):
        return {}
    found: Folded = {}
    for name, inner in value.items():
        if inner is not None:
            found.setdefault(name.lower(), inner)
    return found


def record(raw: bytes) -> Folded:
    """A record's fields. A row of Log Analytics says the tenant's id in `AADTenantId`, if at all;
    its `TenantId` is that of the workspace."""
    fields = folded(raw)
    if "timegenerated" in fields:
        ids = {"workspaceid": fields.pop("tenantid", None), "tenantid": fields.get("aadtenantid")}
        fields |= {name: id for name, id in ids.items() if id}
    return fields


# Plain values


def first(fields: Folded, *names: str) -> str:
    """The first plain value that is there under these names (in lower case) and says something."""
    return next(texts(fields, *names), "")


def texts(fields: Folded, *names: str) -> Iterator[str]:
    for name in names:
        if name in fields:
            text = scalar(fields[name])
            if text.lower() not in NOTHING:
                yield text


def plain(**said: Any) -> dict[str, str]:
    """What is said, as text; the items of a list with commas.

    said: plain values and lists of them, decoded or not; what is neither is left out.
    """
    found = {}
    for name, value in said.items():
        if isinstance(value, msgspec.Raw):
            value = value_of(value)
        items = value if isinstance(value, tuple) else listed(value)
        text = ", ".join(filter(None, map(scalar, items))) or scalar(value)
        if text.lower() not in NOTHING:
            found[name] = text
    return found


def attributes(fields: Folded, names: Mapping[str, str]) -> dict[str, str]:
    """Fields under other names (theirs, in lower case: ours); of several of one name, the last."""
    found: dict[str, str] = {}
    for theirs, ours in names.items():
        if theirs in fields:
            found |= plain(**{ours: fields[theirs]})
    return found


@functools.lru_cache(4096)
def snake(name: str) -> str:
    """`LogonType`, `Logon Type` as `logon_type`."""
    return _WORD.sub("_", name).strip("_").lower()


# Structs of objects


def struct(wanted: type[S], raw: bytes) -> S:
    """What is needed of an object; blank where there is none. Never raises."""
    decode: Callable[[bytes], S] = _decoder(wanted)
    try:
        return decode(raw)
    except (ValueError, RecursionError):
        return leniently(wanted, raw)


def leniently(wanted: type[S], raw: bytes) -> S:
    """The same, its keys matched case-blind."""
    try:
        return _base.lenient(wanted, Fields(raw))
    except (ValueError, RecursionError):
        return _base.lenient(wanted, Fields(b"{}"))


def part(wanted: type[S], value: msgspec.Raw) -> tuple[S, str]:
    """What is needed of an object inside a record, and the name of its repair."""
    raw, repair = object_in(value)
    return struct(wanted, raw or b"{}"), repair


def object_in(value: msgspec.Raw) -> tuple[bytes, str]:
    """The JSON of an object, also of one that stands in a string; and the name of its repair."""
    raw = bytes(value)
    if raw[:1] == b'"':
        return unquoted(_base.text(value))
    return (raw, "") if raw[:1] == b"{" else (b"", "")


def unquoted(text: str) -> tuple[bytes, str]:
    """The JSON of the object that stands in a text, and the name of its repair."""
    found, repair = loads_loosely(text)
    if not isinstance(found, dict):
        return b"", ""
    if repair == "json_in_string":
        return text.strip().encode(), repair
    try:
        return msgspec.json.encode(found), repair
    except RecursionError:
        return b"", ""


@functools.cache
def _decoder(wanted: Any) -> Any:
    return msgspec.json.Decoder(wanted).decode
