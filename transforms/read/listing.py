"""From the files that were found to the parts that are read: what cannot hold anything that is
wanted is left closed, by its path or its age; the rest is put in order of time, and cut.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Literal, NamedTuple

from transforms.read.files import HEAD_BYTES, json_lines, tell
from transforms.read.files.base import FileFormat, Part
from transforms.read.filesystems import Found, HistoryError, open_file
from transforms.read.paths import Placed, Template, placed
from transforms.read.plan import length

__all__ = ["Between", "Done", "Listing", "lanes", "new_since", "parts_of"]

PART_BYTES = 128 * 1024 * 1024
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_AHEAD_MS = _HOUR_MS  # a clock that runs ahead of the one that named the folder
_BELIEVED_MS = calendar.timegm((2010, 1, 1, 0, 0, 0)) * 1000  # before: archives' stand-ins

_OTHER_TIME = "their paths say another time"
_OLDER = "they were last changed before that time"
_EMPTY = "they are empty"
_TWICE = "they were found before"


class Between(NamedTuple):
    """The records that are wanted: of `start_ms` until before `stop_ms`, either None: any.

    by: the time that counts, when the event was or when it was enqueued. late_ms: how long after
    an event its record may have come.
    """

    start_ms: int | None = None
    stop_ms: int | None = None
    by: Literal["event", "enqueued"] = "event"
    late_ms: int = _DAY_MS

    def lacks(self, found: Found, at: Placed | None) -> str:
        """Why a file cannot hold any of them; "": it may.

        A folder that is named for when events were enqueued or received holds what was before
        that, too: by `late_ms`, and as Capture makes up for a storage that was away. One that is
        named for `TimeGenerated` likewise, where a kind's time is another column's; but what is in
        it is taken to be enqueued then.
        """
        if at is not None and at.begin_ms is not None:
            first, last = at.begin_ms - self.late_ms, at.begin_ms + at.length_ms + _AHEAD_MS
            if at.exact and self.by == "enqueued":
                first, last = at.begin_ms - at.length_ms, at.begin_ms + 2 * at.length_ms
            if self.start_ms is not None and last < self.start_ms:
                return _OTHER_TIME
            if self.stop_ms is not None and first > self.stop_ms:
                return _OTHER_TIME
            if found.modified_ms < at.begin_ms:
                return ""  # a copy's, or a clock that is wrong
        if self.start_ms is not None and found.modified_ms >= _BELIEVED_MS:
            return _OLDER if found.modified_ms + _DAY_MS < self.start_ms else ""
        return ""


_ANY = Between()


class Done(NamedTuple):
    """A file that was read: its size and age then, and up to where it was (-1: its end)."""

    size: int
    modified_ms: int
    upto: int = -1


class Listing(NamedTuple):
    """parts: in order of time, then of their paths. files, bytes: of what they are parts of.
    left: how many files are not to be read, by why."""

    parts: list[Part]
    files: int
    bytes: int
    left: dict[str, int]

    @property
    def says(self) -> list[str]:
        """Each reason for which files are not read, in a line."""
        return [f"files not read, as {why}: {count:,}" for why, count in self.left.items()]


def parts_of(
    found: Iterable[Found], between: Between = _ANY, template: str | None = None
) -> Listing:
    """The parts to read of what was found. A million take about 0.4 GB.

    template: how the paths were made, if not in a way that is known (`paths.Template`). Raises
    HistoryError for one that cannot be understood.
    """
    try:
        made = Template(template) if template else None
    except ValueError as error:
        raise HistoryError(str(error)) from error
    left: Counter[str] = Counter()
    parts: list[Part] = []
    for file in found:
        at = placed(file.url, made)
        if file.size <= file.start:
            left[_EMPTY] += 1
        elif why := between.lacks(file, at):
            left[why] += 1
        else:
            begin = at.begin_ms if at else None
            parts += _cut(file, file.modified_ms if begin is None else begin)
    parts.sort(key=attrgetter("start"))  # the order that counts least first: no keys to keep
    parts.sort(key=attrgetter("url"))
    parts.sort(key=attrgetter("at_ms"))
    once = [next(same) for _, same in groupby(parts, key=attrgetter("at_ms", "url", "start"))]
    files = len({part.url for part in once})
    if again := len(parts) - len(once):
        left[_TWICE] += again
    return Listing(once, files, sum(map(length, once)), dict(left))


def _cut(file: Found, at_ms: int) -> list[Part]:
    size, pieces = file.size - file.start, 1
    if size > PART_BYTES * 3 // 2:
        form = _format(file.url)
        if form is not None and form.cuts:
            pieces = round(size / PART_BYTES)
    edges = [file.start + size * n // pieces for n in range(pieces + 1)]
    return [
        Part(file.url, start, stop, at_ms, file.size, file.modified_ms)
        for start, stop in pairwise(edges)
    ]


def _format(url: str) -> FileFormat | None:
    """By the file's head; None: not known, or it cannot be read, which its reader will say."""
    try:
        with open_file(url) as file:
            return tell(file.read(HEAD_BYTES), url)
    except OSError:
        return None


def new_since(found: Iterable[Found], done: Mapping[str, Done]) -> Iterator[Found]:
    """What of it is new since: files that were not there, also late ones; what was added to a file
    of lines; others that changed, whole. What vanished is no matter.
    """
    for file in found:
        before = done.get(file.url)
        if before is None:
            yield file
        elif (file.size, file.modified_ms) != before[:2]:
            grew = file.size > before.size and _format(file.url) is json_lines.FORMAT
            start = before.size if before.upto < 0 else before.upto
            yield file._replace(start=start if grew else 0)


def lanes(parts: Sequence[Part], most: int) -> list[list[Part]]:
    """The row cut into as many rows, or fewer, each of about the same bytes."""
    every = sum(map(length, parts))
    found: list[list[Part]] = [[] for _ in range(most)]
    before = 0
    for part in parts:
        middle = before + length(part) // 2
        found[min(most - 1, middle * most // max(1, every))].append(part)
        before += length(part)
    return [row for row in found if row]
