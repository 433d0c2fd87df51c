"""YAML that remembers where everything stands, so that a mistake can be pointed at."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

__all__ = ["Located", "Path", "Place", "YamlError", "decode", "parse"]

Path = tuple[str | int, ...]
"""Keys and list positions from the top: `("sinks", 0, "name")`."""

Place = tuple[int, int]
"""Line and column, both from 1."""

_SCALARS = ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_UNSOUND = re.compile("[\0\ud800-\udfff]")
_PLAINER = {
    "found character '\\t'": "a tab; YAML is indented with spaces",
    "mapping values are not allowed": "a ':' that cannot stand here: check the indentation, "
    "or put the value in quotes",
    "expected <block end>": "this does not belong to the block above: check the indentation",
    "found another document": "a second document (---); one is expected",
    "unexpected end of stream": "this is never closed",
    "<stream end>": "this is never closed",
    "undefined alias": "an alias (*) without its anchor (&); text that begins so needs quotes",
    "cannot start any token": "a character that cannot begin a value: put the text in quotes",
    "expected ','": "a comma or a closing bracket is missing before this",
}


class YamlError(ValueError):
    """Text that cannot be read as YAML at all. The message never quotes the text."""

    def __init__(self, message: str, place: Place = (1, 1)) -> None:
        super().__init__(message)
        self.place = place


@dataclasses.dataclass
class Located:
    """Plain dicts, lists and scalars, and where each key and value begins.

    mistakes: what the data cannot show: duplicate keys (the first one counts), tags, odd keys.
    """

    data: Any = None
    keys: dict[Path, Place] = dataclasses.field(default_factory=dict)
    values: dict[Path, Place] = dataclasses.field(default_factory=dict)
    mistakes: list[tuple[Path, Place, str]] = dataclasses.field(default_factory=list)

    def key(self, path: Path) -> Place:
        """Where the key stands: a list item has none, so there it is the item."""
        return self.keys.get(path) or self.value(path)

    def value(self, path: Path) -> Place:
        """Where the value stands, or else the nearest thing around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))


def decode(data: bytes) -> str:
    """UTF-8 with or without a byte order mark. Raises YamlError that says where it is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - (before.rfind(b"\n") + 1)
        raise YamlError("not UTF-8 text", (before.count(b"\n") + 1, column + 1)) from None


def parse(text: str) -> Located:
    """The one document in `text`; `data` is None when there is nothing in it. Raises YamlError."""
    yaml = YAML(typ="safe", pure=True)
    located = Located()
    try:
        node = yaml.compose(text)
        if node is not None:
            located.data = _plain(node, (), located, yaml, set())
    except MarkedYAMLError as error:
        problem = str(error.problem or error.context)
        plainer = next((say for part, say in _PLAINER.items() if part in problem), None)
        plainer = plainer or re.sub("'.*'", "'…'", problem)
        unclosed = plainer == "this is never closed" and error.context_mark
        mark = unclosed or error.problem_mark or error.context_mark
        raise YamlError(plainer, (mark.line + 1, mark.column + 1) if mark else (1, 1)) from None
    except ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlError("a control character", place) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None
    return located


def _plain(node: Node, path: Path, located: Located, yaml: YAML, above: set[int]) -> Any:
    place = _place(node)
    located.values[path] = place
    if id(node) in above:
        raise YamlError("an alias to what it is a part of", place)
    above = above | {id(node)}
    kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
    if isinstance(node, ScalarNode):
        if not node.value:  # nothing stands there: the scanner has run on to the next thing
            located.values[path] = located.keys.get(path, place)
        if kind not in _SCALARS:
            located.mistakes.append((path, place, "a YAML tag; plain values are expected"))
        if kind in ("int", "float", "bool", "null"):
            try:
                return yaml.constructor.construct_object(node)
            except ValueError:  # a number of thousands of digits
                pass
        value = _UNSOUND.sub("", node.value)
        if value != node.value:
            message = "a character that no text can hold (NUL, or half of a surrogate pair)"
            located.mistakes.append((path, place, message))
        return value
    if kind not in ("map", "seq"):
        located.mistakes.append((path, place, "a YAML tag; plain values are expected"))
    if not isinstance(node, MappingNode):
        return [_plain(item, (*path, i), located, yaml, above) for i, item in enumerate(node.value)]
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            located.mistakes.append((path, _place(key), "a key must be plain text"))
            continue
        below = (*path, str(key.value))
        if key.value in found:
            line, _ = located.keys[below]
            located.mistakes.append((below, _place(key), f"this key stands on line {line} already"))
            continue
        located.keys[below] = _place(key)
        found[str(key.value)] = _plain(value, below, located, yaml, above)
    return found


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1
