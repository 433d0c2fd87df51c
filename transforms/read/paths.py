"""What the path of a history file says of its records: when they were, and of which partition.

Sources: Microsoft's "Capture events through Azure Event Hubs" (the default path, and that each file
is named for the time at which its window, of up to 15 minutes, began; custom templates of the same
tokens), "Log Analytics workspace data export" (folders of five minutes, by `TimeGenerated`), "Send
Azure resource logs to storage accounts" (folders of an hour, by when a log was received), and
`transforms.state_store` for dead letters and what is set aside.
"""

from __future__ import annotations

import datetime
import functools
import re
from typing import NamedTuple

from transforms.state_store import unplace

__all__ = ["CAPTURE", "Placed", "Template", "placed"]

CAPTURE = "{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"
"""Event Hubs Capture's own template."""

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_WINDOW_MS = 15 * _MINUTE_MS  # the longest that Capture can be told to have
_UNITS = {"Hour": _DAY_MS, "Minute": _HOUR_MS, "Second": _MINUTE_MS}
_EPOCH = datetime.date(1970, 1, 1).toordinal()

_TIMES = ("Year", "Month", "Day", "Hour", "Minute", "Second")
_TOKENS = ("Namespace", "EventHub", "PartitionId", *_TIMES)
_YEAR = r"(?P<Year>(?:19|20)\d\d)"

_DEFAULT = re.compile(
    rf"(?:^|/){_YEAR}/(?P<Month>\d\d)/(?P<Day>\d\d)/(?P<Hour>\d\d)/(?P<Minute>\d\d)/"
    r"(?P<Second>\d\d)(?P<ours>-[^/]*\.avro)?(?:\.\w+)*\Z"
)
_MONITOR = re.compile(
    rf"(?:^|/)y={_YEAR}/m=(?P<Month>\d\d)/d=(?P<Day>\d\d)/h=(?P<Hour>\d\d)"
    r"(?:/m=(?P<Minute>\d\d))?/(?:[^/]+/)*(?P<name>[^/]+)\Z"
)
_FIVE_MINUTES = re.compile(r"PT0?5M(?:_\d+)?\.", re.IGNORECASE)
_ASIDE = re.compile(r"(?:^|/)aside/events/(?P<source>.+)/(?P<partition>[^/]+)/\d+-\d+\.avro\Z")


class Placed(NamedTuple):
    """begin_ms, length_ms: the span of time that the file, or its folder, stands for; None: its
    path says none.

    partition, hub: of which partition of a hub its records are ("": not said), and the hub's name,
    `namespace/hub`. exact: the time is one that the records themselves have, not when they were
    enqueued or received.
    """

    begin_ms: int | None
    length_ms: int
    partition: str = ""
    hub: str = ""
    exact: bool = False


class Template:
    """A path template of Capture's: its tokens in any order, with any text around them; what
    stands before it in the path, and the file's extension, need not be in it."""

    def __init__(self, text: str) -> None:
        """Raises ValueError, with what to do about it."""
        said = re.findall(r"\{([^{}]*)\}", text)
        if unknown := [token for token in said if token not in _TOKENS]:
            raise ValueError(
                f"the template has {{{unknown[0]}}}, which is none of "
                + ", ".join(f"{{{token}}}" for token in _TOKENS)
            )
        if missing := [token for token in _TIMES[:3] if token not in said]:
            raise ValueError(f"the template lacks {{{missing[0]}}}: no time can be told by it")
        known: set[str] = set()
        pattern = ""
        for piece in re.split(r"(\{\w+\})", text.strip("/")):
            token = piece[1:-1]
            if not piece.startswith("{"):
                pattern += re.escape(piece)
            elif token in known:
                pattern += f"(?P={token})"
            else:
                known.add(token)
                pattern += _group(token)
        self.text = text
        self._pattern = re.compile(rf"(?:.*/)?{pattern}(?:\.\w+)*", re.DOTALL)
        said_to = next((unit for token, unit in _UNITS.items() if token not in known), 0)
        self._length_ms = said_to + _WINDOW_MS

    def placed(self, path: str) -> Placed | None:
        """What a path says that the template made; None: it is not of the template."""
        found = self._pattern.fullmatch(path)
        begin = _begin(found) if found else None
        if found is None or begin is None:
            return None
        said = found.groupdict()
        hub = "/".join(filter(None, (said.get("Namespace"), said.get("EventHub"))))
        return Placed(begin, self._length_ms, said.get("PartitionId") or "", hub)


def _group(name: str) -> str:
    if name == "Year":
        return _YEAR
    return rf"(?P<{name}>\d\d)" if name in _TIMES else rf"(?P<{name}>[^/]+?)"


def placed(path: str, template: Template | None = None) -> Placed | None:
    """What the path (or URL) of a file says, by the template if it is of it, else by the layouts
    that are known; None: nothing."""
    if template is not None and (found := template.placed(path)) is not None:
        return found
    if (match := _DEFAULT.search(path)) is not None:
        return _captured_by_default(match)
    if (match := _MONITOR.search(path)) is not None:
        return _monitored(match)
    if (match := _ASIDE.search(path)) is not None:
        source, partition = unplace(match["source"]), unplace(match["partition"])
        return Placed(None, 0, partition[0], "/".join(source[:2]))
    return None


def _captured_by_default(match: re.Match[str]) -> Placed | None:
    begin = _begin(match)
    if begin is None:
        return None
    before = match.string[: match.start()].rsplit("/", 3)[-3:]
    namespace, hub, partition = before if len(before) == 3 else ("", "", "")
    if match["ours"]:  # a dead letter's: by the minute, its names quoted
        return Placed(
            begin, _MINUTE_MS, unplace(partition)[0], "/".join(unplace(f"{namespace}/{hub}"))
        )
    if not (partition.isdecimal() and namespace and hub):
        return Placed(begin, _WINDOW_MS)  # other folders, that have nothing to do with Capture
    return Placed(begin, _WINDOW_MS, partition, f"{namespace}/{hub}")


def _monitored(match: re.Match[str]) -> Placed | None:
    begin = _begin(match)
    if begin is None:
        return None
    five = match["Minute"] is not None and _FIVE_MINUTES.match(match["name"]) is not None
    return Placed(begin, 5 * _MINUTE_MS if five else _HOUR_MS, exact=five)


def _begin(match: re.Match[str]) -> int | None:
    said = match.groupdict()
    hour, minute, second = (int(said.get(name) or 0) for name in _TIMES[3:])
    day = _day(said["Year"], said["Month"], said["Day"])
    if day is None or hour > 23 or minute > 59 or second > 59:
        return None
    return day + hour * _HOUR_MS + minute * _MINUTE_MS + second * 1000


@functools.lru_cache(maxsize=4096)
def _day(year: str, month: str, day: str) -> int | None:
    try:
        return (datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH) * _DAY_MS
    except ValueError:
        return None
