"""Flat rows, as tables hold them: columns found by name, and the things that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from schemas.entities import Entity, EntityType, Role
from schemas.kinds import _entities
from schemas.kinds._monitor import address
from schemas.kinds._strings import loads_loosely

__all__ = [
    "Columns",
    "account",
    "endpoint",
    "hashes",
    "hostname",
    "listed",
    "objects",
    "opened",
    "read",
    "snake",
    "things",
]

_NOTHING = frozenset({"", "-", "--", "n/a", "null", "(null)", "none", "not available"})
# Kusto's, of columns that several types share in a result; and Log Analytics' of custom columns.
_TYPED = re.compile(
    r"(?i)(?<=.)_(?:string|dynamic|long|int|real|double|bool|datetime|guid|[sdgbt])\Z"
)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_MOST_ITEMS = 1000  # of a list; a mail has no more recipients
_MOST = 96  # facts that nobody asked for by name


class Columns:
    """A row's columns. Names match case-blind, and without the type that some end in.

    What says nothing (null, blank, `-`, `N/A`) is as if it were not there.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        self._found: dict[str, tuple[str, Any]] = {}
        self._taken: set[str] = set()
        typed: list[tuple[str, tuple[str, Any]]] = []
        for name, value in row.items():
            if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
                continue
            self._found.setdefault(name.lower(), (name, value))
            if (stem := _TYPED.sub("", name)) != name:
                typed.append((stem.lower(), (name, value)))
        for stem, column in typed:
            self._found.setdefault(stem, column)

    def text(self, *names: str) -> str:
        """The first of these columns that holds a text, number or truth value; else empty."""
        for name in names:
            if said := _entities.scalar(self._take(name)):
                return said
        return ""

    def says(self, *names: str) -> bool:
        """Whether any of these columns holds anything; it does not count as asking for them."""
        return any(name.lower() in self._found for name in names)

    def omit(self, *names: str) -> None:
        """Counts these as asked for."""
        for name in names:
            self._take(name)

    def value(self, name: str) -> Any:
        """What a column holds; of a text that is JSON, what it says."""
        return opened(self._take(name))

    def rest(self, prefix: str = "") -> dict[str, str]:
        """Plain columns that nobody asked for until now, without the prefix of their names."""
        found: dict[str, str] = {}
        for folded, (name, value) in self._found.items():
            if folded.startswith(prefix.lower()) and name.lower() not in self._taken:
                text = _entities.scalar(value)
                if text and len(found) < _MOST:
                    found[name[len(prefix) :] or name] = text
                self._taken.add(name.lower())
        return found

    def _take(self, name: str) -> Any:
        folded = name.lower()
        if folded not in self._found:
            return None
        written, value = self._found[folded]
        self._taken.update((folded, written.lower()))
        return value


def read(raw: bytes) -> Columns:
    """A record's columns; none where it is nested too deeply to be looked into."""
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        row = None
    return Columns(row if isinstance(row, dict) else {})


def things(found: Iterable[Entity]) -> tuple[Entity, ...]:
    """Each once, and none by which nothing could be found. A person who is called by a display
    name and, with the same id, by an account's name, is one."""
    listed = _entities.merged(
        it for it in found if it.name or it.id or it.path or it.hashes or it.command_line
    )
    accounts = {it.id.lower(): it for it in listed if it.type == "user" and it.id and it.domain}
    called = {
        it.id.lower(): it
        for it in listed
        if it.type == "user" and not it.domain and it.id.lower() in accounts
    }
    if not called:
        return listed
    return tuple(
        _called(it, called[it.id.lower()]) if it is accounts.get(it.id.lower()) else it
        for it in listed
        if it is not called.get(it.id.lower())
    )


def _called(one: Entity, other: Entity) -> Entity:
    names = {"DisplayName": other.name} if other.name else {}
    attributes = other.attributes | names | one.attributes
    return msgspec.structs.replace(one, role=one.role or other.role, attributes=attributes)


def opened(value: Any) -> Any:
    """An object or list that may stand in a text, itself; anything else as it is."""
    if isinstance(value, str):
        found, _ = loads_loosely(value)
        return value if found is None else found
    return value


def listed(value: Any) -> list[Any]:
    """A list's items, or the one that stands alone, no more than a thousand; either may stand in
    a text."""
    found = opened(value)
    return found[:_MOST_ITEMS] if isinstance(found, list) else [] if found is None else [found]


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects among them."""
    return [item for item in listed(value) if isinstance(item, dict)]


def snake(name: str) -> str:
    """`LogonType` as `logon_type`."""
    return _WORD.sub("_", name).strip("_").lower()


def hashes(*said: str) -> tuple[str, ...]:
    """Those that are hashes."""
    return tuple(text for text in dict.fromkeys(said) if _entities.is_hash(text))


def endpoint(written: str, port: str, role: Role = "") -> Iterator[Entity]:
    """An address, and the port that another column tells."""
    for found in address(written, role) if written else ():
        yield msgspec.structs.replace(found, port=found.port or port)


def hostname(
    name: str, domain: str = "", role: Role = "", id: str = "", **more: str
) -> Iterator[Entity]:
    """A machine, or the address of one that is called by it."""
    addresses = list(address(name, role)) if name else []
    yield from addresses
    if not addresses and (name or id):
        attributes = {key: text for key, text in more.items() if text}
        domain = domain if name else ""
        yield _entities.host(name, domain, role=role, id=id, attributes=attributes)


def account(
    columns: Columns, prefix: str = "", role: Role = "", type: EntityType = "user"
) -> Entity:
    """An account of the columns `…AccountUpn`, `…AccountName`, …: by its principal name, else by
    its name and domain. What else they say are its attributes. Nameless if they say nothing."""
    said = {
        name: columns.text(f"{prefix}Account{name}")
        for name in ("Upn", "Name", "Domain", "ObjectId", "Sid", "Id", "DisplayName")
    }
    upn, name, display = said["Upn"], said["Name"], said["DisplayName"]
    id = said["ObjectId"] or said["Sid"] or said["Id"]
    if not (upn or name or display or id):
        return Entity(type=type)
    found = _entities.user(
        upn or name or display, "" if upn or not name else said["Domain"], id=id, role=role
    )
    known = {text.lower() for text in (found.name, found.domain, found.id, found.full_name)}
    attributes = {f"Account{key}": v for key, v in said.items() if v and v.lower() not in known}
    if type != "user":
        return Entity(type=type, name=found.full_name, id=id, role=role, attributes=attributes)
    return msgspec.structs.replace(found, attributes=attributes)
