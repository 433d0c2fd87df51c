"""Entities by what fields and columns commonly say of them, and each of them once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from schemas.entities import Entity, Role
from schemas.kinds import _base, _entities

__all__ = [
    "address",
    "endpoint",
    "hashes",
    "hostname",
    "hosts",
    "numeric",
    "process",
    "resource",
    "things",
]

_PORT = re.compile(r"\[?([^\[\]]+?)\]?:(\d{1,5})")


def numeric(text: str) -> str:
    """An IP address in its usual form, without a zone, an IPv4 one as that; empty for anything
    else."""
    text = text.strip(" []").partition("%")[0]
    if not 2 <= len(text) <= 64:
        return ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def address(written: str, role: Role = "", **more: Any) -> Iterator[Entity]:
    """The IP addresses in a text: one, with or without a port, or several between commas."""
    for item in written.split(",")[:64]:
        text, port = item.strip(), ""
        found = _PORT.fullmatch(text)
        if found and (text[0] == "[" or ":" not in found[1]):
            text, port = found.groups()
        if name := numeric(text):
            yield Entity(type="ip", name=name, port=port, role=role, **more)


def endpoint(written: str, port: str, role: Role = "") -> Iterator[Entity]:
    """An address, and the port that another field tells."""
    for found in address(written, role):
        yield msgspec.structs.replace(found, port=found.port or port)


def hostname(
    name: str, domain: str = "", role: Role = "", id: str = "", **more: str
) -> Iterator[Entity]:
    """A machine, or the address of one that is called by it."""
    addresses = list(address(name, role))
    yield from addresses
    if not addresses and (name or id):
        attributes = {key: text for key, text in more.items() if text}
        domain = domain if name else ""
        yield _entities.host(name, domain, role=role, id=id, attributes=attributes)


def hosts(written: str, role: Role = "") -> Iterator[Entity]:
    """A machine by name or address, with or without a port."""
    addresses = list(address(written, role))
    if addresses or not written:
        yield from addresses
    else:
        name, _, port = written.rpartition(":")
        known = name if name and port.isdigit() else written
        yield _entities.host(known, role=role, port=port if known is name else "")


def process(image: str, path: str = "", **more: Any) -> Entity:
    """A process by its image, as `_entities.file` takes it."""
    return msgspec.structs.replace(_entities.file(image, path, **more), type="process")


def resource(written: str, role: Role = "") -> Iterator[Entity]:
    """An ARM resource."""
    if written[:1] == "/" and written.strip("/"):
        yield Entity(type="resource", name=_base.short_name(written), id=written, role=role)


def hashes(*said: str) -> tuple[str, ...]:
    """Those that are hashes."""
    return tuple(text for text in dict.fromkeys(said) if _entities.is_hash(text))


def things(found: Iterable[Entity]) -> tuple[Entity, ...]:
    """Each once, and none by which nothing could be found. Of two with one id, the one without a
    name is the other; so is a person who is called by a display name only."""
    listed = _entities.merged(found)
    known: dict[tuple[str, str], Entity] = {}
    for it in listed:
        if it.id and it.name:
            best = known.setdefault((it.type, it.id.lower()), it)
            if it.domain and not best.domain:
                known[it.type, it.id.lower()] = it
    others: dict[int, list[Entity]] = {}
    left: list[Entity] = []
    for it in listed:
        best = known.get((it.type, it.id.lower()), it)
        if best is not it and _is_another_name(it, best):
            others.setdefault(id(best), []).append(it)
        else:
            left.append(it)
    return tuple(_with(it, others[id(it)]) if id(it) in others else it for it in left)


def _is_another_name(one: Entity, best: Entity) -> bool:
    """Of two things with one id."""
    is_weaker = not one.name or (one.type == "user" and best.domain and not one.domain)
    return bool(is_weaker) and (one.role == best.role or not (one.role and best.role))


def _with(one: Entity, others: Iterable[Entity]) -> Entity:
    for other in others:
        is_told = other.name in ("", *one.attributes.values())
        shown = {} if is_told else {"DisplayName": other.name}
        attributes = other.attributes | shown | one.attributes
        one = msgspec.structs.replace(one, role=one.role or other.role, attributes=attributes)
    return one
