"""What is known of an alert as a text for people, one fact a line."""

from __future__ import annotations

from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._text import HARMLESS, cut
from schemas.formats.servicenow import _facts

__all__ = ["facts", "line", "summary"]

_LINES = {**HARMLESS, ord("\n"): "\n"}
_FIRST, _LAST = "Description", ("Id", "Event")
_VALUE = 1_000  # bytes of one fact, but for the description


def facts(alert: Alert, found: Details) -> dict[str, str]:
    """The most telling first; none is empty, each but the description is one line."""
    known = _facts(alert, found)
    description = known.pop(_FIRST).translate(_LINES).strip()
    lines = {name: line(text, _VALUE) for name, text in known.items()}
    return {name: text for name, text in ({_FIRST: description} | lines).items() if text}


def summary(known: dict[str, str], most: int) -> str:
    """These facts in at most `most` bytes. What it is about and this version's id stand in the
    last lines, whatever is cut before them; no text of an alert begins a line."""
    lines = {name: f"{name}: {text}" for name, text in known.items() if name != _FIRST}
    last = "\n".join(lines.pop(name) for name in _LAST if name in lines)
    end = "\n".join([*lines.values(), last])
    room = most - len(end.encode("utf-8", "replace")) - len(f"{_FIRST}: \n")
    if room < 0:  # hardly anything: the description goes, then the other facts
        room = most - len(last.encode("utf-8", "replace")) - 1
        return f"{cut(chr(10).join(lines.values()), room)}\n{last}".lstrip("\n")
    description = cut(known.get(_FIRST, "").replace("\n", "\n    "), room)
    return f"{_FIRST}: {description}\n{end}" if description else end


def line(text: str, most: int) -> str:
    """One line of at most `most` bytes."""
    return cut(text.translate(HARMLESS).strip(), most)
