"""What the records of Azure Monitor have in common: activity, resource and Entra logs.

Sources: "Azure activity log event schema" and "Common and service-specific schemas for Azure
resource logs" (learn.microsoft.com, azure/azure-monitor/platform).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

import msgspec

from schemas.entities import Entity, Role
from schemas.kinds import _base, _entities
from schemas.kinds._strings import loads_loosely

__all__ = [
    "Folded",
    "address",
    "attributes",
    "first",
    "folded",
    "hosts",
    "leniently",
    "level",
    "listed",
    "opened",
    "outcome",
    "part",
    "principals",
    "resource",
    "texts",
    "together",
    "word",
]

P = TypeVar("P", bound=_base.Row)
Folded = dict[str, Any]
"""An object's members by their names in lower case."""

_LEVELS = {
    "0": "informational",
    "1": "critical",
    "2": "medium",
    "3": "low",
    "4": "informational",
    "5": "informational",
    "critical": "critical",
    "error": "medium",
    "warning": "low",
    "verbose": "informational",
}
_SUCCESS = frozenset(
    ["0", "success", "succeeded", "successful", "ok", "created", "true", "allow", "allowed"]
)
_FAILURE = frozenset(
    ["failure", "failed", "error", "false", "timeout", "denied", "deny", "block", "blocked"]
)
_NOTHING = frozenset({"<null>", "null", "none", "n/a", "-", "notset"})
_PORT = re.compile(r"\[?([^\[\]]+?)\]?:(\d{1,5})")


def level(said: str | None) -> str:
    """A level's word, or number as Windows counts them, on the scale of severities.

    It tells how an operation went, not what it means for security: an error is medium.
    """
    return _LEVELS.get(said.lower()) or _base.severity(said) if said else "unknown"


def outcome(*said: str) -> Literal["", "success", "failure"]:
    """How it went, by the first word or HTTP status that says so."""
    for text in said:
        folded = text.lower()
        if folded in _SUCCESS or (len(folded) == 3 and folded.isdigit() and folded < "400"):
            return "success"
        if folded in _FAILURE or (len(folded) == 3 and folded.isdigit()):
            return "failure"
    return ""


# Values


def opened(value: msgspec.Raw) -> tuple[bytes, str]:
    """The JSON of an object, also of one that stands in a string; and the name of its repair."""
    raw = bytes(value)
    if raw[:1] != b'"':
        return (raw, "") if raw[:1] == b"{" else (b"", "")
    text = _base.text(value).strip()
    found, repair = loads_loosely(text)
    if not isinstance(found, dict):
        return b"", ""
    if repair == "json_in_string":
        return text.encode(), repair
    try:
        return msgspec.json.encode(found), repair
    except RecursionError:
        return b"", ""


def part(row: type[P], value: msgspec.Raw) -> tuple[P, str]:
    """What is needed of an object inside a record, blank where there is none; its repair's name."""
    raw, repair = opened(value)
    try:
        return _decoder(row)(raw) if raw else row(), repair
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return leniently(row, raw), repair


def leniently(row: type[P], raw: bytes) -> P:
    """As `_base.lenient`; blank where there is no object."""
    try:
        return _base.lenient(row, _base.Fields(raw))
    except (ValueError, RecursionError):
        return row()


@functools.cache
def _decoder(row: type[P]) -> Callable[[bytes], P]:
    return msgspec.json.Decoder(row).decode


def word(said: str | None) -> str:
    """A name, also where the REST API writes `{"value": name, "localizedValue": …}`."""
    if not said or said[0] != "{":
        return said or ""
    return first(folded(said), "value")


def folded(value: Any) -> Folded:
    """An object, without nulls; empty for all else.

    value: the object, its JSON as bytes or text, or something like JSON in a text.
    """
    if isinstance(value, bytes):
        try:
            value = msgspec.json.decode(value)
        except (ValueError, RecursionError):
            return {}
    value = _value(value)
    if not isinstance(value, dict):
        return {}
    found: Folded = {}
    for name, inner in value.items():
        if inner is not None:
            found.setdefault(name.lower(), inner)
    return found


def listed(value: Any) -> list[Any]:
    """A list's items, also where it stands in a text; one item where it is none."""
    value = _value(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _value(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return loads_loosely(value)[0]
    return value


def first(fields: Folded, *names: str) -> str:
    """The first plain value that is there under these names (in lower case) and says something."""
    return next(texts(fields, *names), "")


def texts(fields: Folded, *names: str) -> Iterator[str]:
    for name in names:
        if name in fields:
            text = _entities.scalar(fields[name])
            if text and text.lower() not in _NOTHING:
                yield text


def attributes(fields: Folded, names: dict[str, str]) -> dict[str, str]:
    """Plain values under other names."""
    return {ours: text for name, ours in names.items() if (text := first(fields, name))}


# Entities


def address(written: str, role: Role = "", **more: Any) -> Iterator[Entity]:
    """The IP addresses in a text: one, with or without a port, or several between commas."""
    for item in written.split(",")[:64]:
        text, port = item.strip(), ""
        found = _PORT.fullmatch(text)
        if found and (text[0] == "[" or ":" not in found[1]):
            text, port = found.groups()
        try:
            known = ipaddress.ip_address(text.strip("[]"))
        except ValueError:
            continue
        mapped = getattr(known, "ipv4_mapped", None)
        yield Entity(type="ip", name=str(mapped or known), port=port, role=role, **more)


def hosts(written: str, role: Role = "") -> Iterator[Entity]:
    """A machine by name or address, with or without a port."""
    addresses = list(address(written, role))
    if addresses or not written:
        yield from addresses
    else:
        name, _, port = written.rpartition(":")
        known = name if name and port.isdigit() else written
        yield _entities.host(known, role=role, port=port if known is name else "")


def resource(written: str, role: Role = "") -> Iterator[Entity]:
    """An ARM resource."""
    if written[:1] == "/" and written.strip("/"):
        yield Entity(type="resource", name=_base.short_name(written), id=written, role=role)


_CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
_NAMES = (f"{_CLAIMS}upn", "upn", "unique_name", f"{_CLAIMS}emailaddress", f"{_CLAIMS}name")
_OBJECT_IDS = ("http://schemas.microsoft.com/identity/claims/objectidentifier", "oid", "objectid")
_GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def principals(claims: Folded, caller: str = "", principal_type: str = "") -> Iterator[Entity]:
    """Who acted, by the claims of the token and by what the record itself calls the caller: a
    principal name, the object id of a user or a service principal, a resource provider."""
    name = first(claims, *_NAMES) or (caller if "@" in caller else "")
    object_id, app = first(claims, *_OBJECT_IDS), first(claims, "appid")
    is_app = principal_type.lower() == "serviceprincipal" or first(claims, "idtyp") == "app"
    if is_app and not name:
        known = {"appId": app} if app else {}
        id = object_id or caller or app
        yield Entity(type="application", id=id, role="actor", attributes=known)
    else:
        yield Entity(type="application", id=app)  # what the user used
        known = attributes(claims, {"name": "displayName"})
        yield _entities.user(name, id=object_id, role="actor", attributes=known)
        if caller.lower() not in (name.lower(), object_id.lower()):
            known_as = "id" if _GUID.fullmatch(caller) else "name"
            yield _entities.user(**{"name": "", known_as: caller}, role="actor")
    for text in texts(claims, "ipaddr"):
        yield from address(text, "source")


def together(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Each thing once, in the order of first mention: those of one name or id are one, unless
    their other names, ids or ports differ. What names nothing is left out."""
    found: list[Entity] = []
    places: dict[tuple[str, ...], int] = {}
    for entity in entities:
        name = entity.full_name or entity.path or entity.command_line
        named = [(entity.type, text.lower()) for text in (name, entity.id, *entity.hashes) if text]
        if not named:
            continue
        keys = [(entity.type, name.lower(), entity.id.lower(), entity.port), *named]
        place = next((places[key] for key in keys if key in places), -1)
        if place >= 0 and _same(found[place], entity):
            found[place] = _joined(found[place], entity)
        else:
            place = len(found)
            found.append(entity)
        for key in keys:
            places.setdefault(key, place)
    return tuple(found)


def _same(one: Entity, other: Entity) -> bool:
    pairs = (
        (one.full_name, other.full_name),
        (one.id, other.id),
        (one.path, other.path),
        (one.port, other.port),
    )
    return all(not a or not b or a.lower() == b.lower() for a, b in pairs)


def _joined(one: Entity, other: Entity) -> Entity:
    fields = Entity.__struct_fields__
    said = {name: getattr(one, name) or getattr(other, name) for name in fields}
    return Entity(**said | {"attributes": other.attributes | one.attributes})
