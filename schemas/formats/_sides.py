"""Who does it and whom it is done to, for formats that have a source and a destination."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable

from schemas.entities import Details, Entity, EntityType

__all__ = ["address", "first", "longest_hash", "mac_address", "number", "sides"]

_NOTHING = Entity(type="other")
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2}")


def sides(known: Details) -> tuple[list[Entity], list[Entity]]:
    """The entities of the source's side and those of the target's, in the record's order.

    Behind those of which the record says so: an address is where it came from, anything else what
    it was done to.
    """
    source: list[Entity] = []
    target: list[Entity] = []
    for entity in known.entities:
        if entity.role:
            (target if entity.role == "target" else source).append(entity)
    for entity in known.entities:
        if not entity.role:
            (source if entity.type == "ip" else target).append(entity)
    return source, target


def first(entities: Iterable[Entity], *types: EntityType) -> Entity:
    """The first entity of these types; an empty one if there is none. What is called an address,
    and is none, does not count."""
    for entity in entities:
        if entity.type in types and (entity.type != "ip" or address(entity.name)[0]):
            return entity
    return _NOTHING


@functools.lru_cache(4096)
def address(text: str) -> tuple[int, str]:
    """4 or 6 and the address, without a zone; `(0, "")` for what is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return 0, ""
    return found.version, found.compressed.partition("%")[0]


def mac_address(entity: Entity) -> str:
    """Six pairs of hexadecimal digits with colons between; empty where an entity has none."""
    for name, text in entity.attributes.items():
        if name.lower() in ("mac", "macaddress") and _MAC.fullmatch(text):
            digits = text.replace(":", "").replace("-", "")
            return ":".join(digits[at : at + 2] for at in range(0, 12, 2))
    return ""


def number(text: str, most: int) -> str:
    """A whole number up to `most`, hexadecimal ones too, in decimal; empty for what is none."""
    if not (text.isascii() and text.isalnum() and len(text) <= 12):
        return ""
    try:
        found = int(text, 16 if text[:2] in ("0x", "0X") else 10)
    except ValueError:
        return ""
    return str(found) if found <= most else ""


def longest_hash(entity: Entity) -> str:
    """SHA-256 where there are several."""
    return max(entity.hashes, key=len, default="")
