"""One made-up record a kind: keys, order and types as real ones, every value invented.

An example is a file of the kind's name, found by being in this folder. It defines

    record(**overrides)  a new record; rich: every field that the kind reads is in it
    IDENTITY             paths of what names the entity: another value, another entity
    VERSION              paths of what tells the entity's updates apart
    RESOLVED             changes that make the record say that its entity is resolved; or None

A path is a key, or keys joined by dots: `properties.status.code`.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import msgspec

__all__ = ["EXAMPLES", "changed", "encoded", "without"]

EXAMPLES: dict[str, ModuleType] = {
    info.name: importlib.import_module(f"{__name__}.{info.name}")
    for info in pkgutil.iter_modules(__path__)
    if not info.name.startswith("_")
}


def encoded(record: Any) -> bytes:
    """JSON as Azure writes it: no blanks between tokens."""
    return msgspec.json.encode(record)


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The record with another value at a path (made where it is missing)."""
    result = copy.deepcopy(record)
    *parents, last = path.split(".")
    place = result
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return result


def without(record: dict[str, Any], path: str) -> dict[str, Any]:
    """The record without what is at a path."""
    result = copy.deepcopy(record)
    *parents, last = path.split(".")
    place = result
    for name in parents:
        place = place[name]
    del place[last]
    return result
