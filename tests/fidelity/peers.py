"""What the peers read: their files as values under their fields, told apart by group."""

from __future__ import annotations

import csv
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    *("FIELDS", "GROUPS", "Field", "Reading", "field_of", "leaves", "ocsf", "readings", "table"),
]

GROUPS = (
    *("time", "severity", "ids", "hosts", "users", "ips", "resource_ids", "hashes", "urls"),
    *("pids", "creation"),  # ids of processes; when processes, files and certificates came to be
)
_HERE = Path(__file__).parent
_INDEX_LINK = re.compile(r"expected/([^|]+?)\s*\|\s*$")


class Field(NamedTuple):
    """A line of fields.tsv, whose first fitting line decides about a peer's field.

    peer: the peer, or the beginning of its files' paths: `sekoia/azure-mysql`.
    group: one of `GROUPS`; `-` where the fields are left out.
    fields: patterns, separated by blanks; `*` stands for anything.
    why: why they are left out; else of what they are.
    """

    peer: str
    group: str
    fields: str
    why: str


class Reading(NamedTuple):
    """What a peer made of one record of a sample, or (`record` None) of the whole file."""

    file: str  # as in INDEX.md: `folder/name`
    expected: str  # `peer/…`
    record: int | None
    values: list[tuple[str, str]]  # field, value

    @property
    def peer(self) -> str:
        return self.expected.partition("/")[0]


def table(path: Path) -> list[list[str]]:
    """A file of tab-separated cells, without its comments; as many cells a line as its header."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [row for row in rows if row and not row[0].startswith("#")]
    wrong = [row for row in rows if len(row) != len(rows[0])]
    assert not wrong, f"{path.name}: {wrong[0]}"
    return rows[1:]


FIELDS = [Field(*row) for row in table(_HERE / "fields.tsv")]
_PATTERNS = [
    (it, re.compile("|".join(re.escape(each).replace(r"\*", ".*") for each in it.fields.split())))
    for it in FIELDS
]


@functools.cache
def field_of(expected: str, name: str) -> Field | None:
    """The line of fields.tsv for a field of a peer's file; None if nobody has decided about it."""
    return next(
        (it for it, fits in _PATTERNS if expected.startswith(it.peer) and fits.fullmatch(name)),
        None,
    )


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a peer's event with its dotted field: `user.name`, `objects[User].Id`.

    What is in a list counts singly; an item's own `type` stands in brackets. Text that holds an
    object or a list is opened. Nulls are left out.
    """
    if isinstance(value, str) and value[:1] in "{[" and value:
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for item in value:
            kind = (item.get("Type") or item.get("type")) if isinstance(item, dict) else None
            yield from leaves(item, f"{name}[{kind}]" if kind else name)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value)


def readings(shared: Path) -> Iterator[Reading]:
    """What every peer made of every sample, paired by samples/INDEX.md."""
    for file, expected in pairs(shared):
        events = _READERS[expected.partition("/")[0]](shared / "expected" / expected)
        for record, event in events:
            yield Reading(file, expected, record, list(leaves(event)))


def pairs(shared: Path) -> Iterator[tuple[str, str]]:
    """A sample's file (`folder/name`) and its peer's (`peer/…`), by samples/INDEX.md."""
    for line in (shared / "samples/INDEX.md").read_text(encoding="utf-8").splitlines():
        link = _INDEX_LINK.search(line)
        if link:
            yield line.split("|")[1].strip(), link[1]


Event = dict[str, Any]


def _ecs(path: Path) -> Iterable[tuple[int | None, Event]]:
    event = json.loads(path.read_text(encoding="utf-8"))["expected"]
    return [(None, {key: value for key, value in event.items() if key != "message"})]


def _keyfields(path: Path) -> Iterable[tuple[int | None, Event]]:
    return enumerate(json.loads(path.read_text(encoding="utf-8"))["expected"])


def _rules(path: Path) -> Iterable[tuple[int | None, Event]]:
    return enumerate(map(json.loads, path.read_text(encoding="utf-8").splitlines()))


def _tenzir(path: Path) -> Iterable[tuple[int | None, Event]]:
    return enumerate(ocsf(path.read_text(encoding="utf-8")))


_READERS = {"sekoia": _ecs, "elastic": _keyfields, "tenzir_ocsf": _tenzir, "panther": _rules}
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[{}\[\],]|[^\s"{}\[\],]+:(?=\s)|[^\s"{}\[\],]+|:)')


def ocsf(text: str) -> list[Event]:
    """The events of a text in TQL notation: JSON but for bare keys, times and addresses, and a
    comma after a last item. Bare values stay text."""
    tokens = [match[1] for match in _TOKEN.finditer(text)]
    place = 0

    def value() -> Any:
        nonlocal place
        token = tokens[place]
        place += 1
        if token == "{":
            found: Event = {}
            while tokens[place] != "}":
                key = tokens[place]
                place += 1
                if key.startswith('"'):
                    key = json.loads(key)
                    place += 1  # the colon
                found[key.rstrip(":")] = value()
                place += tokens[place] == ","
            place += 1
            return found
        if token == "[":
            items = []
            while tokens[place] != "]":
                items.append(value())
                place += tokens[place] == ","
            place += 1
            return items
        if token.startswith('"'):
            return json.loads(token)
        return {"null": None, "true": True, "false": False}.get(token, token)

    events = []
    while place < len(tokens):
        events.append(value())
    return events
