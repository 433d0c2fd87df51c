"""Delimited text with a header: each row becomes a JSON object with the header's names.

So write Defender for Cloud's portal, PowerShell's `Export-Csv`, and the portal's "Export to CSV" of
a query's result. The last has times as the browser's language writes them, under names that say
their zone: `TimeGenerated [UTC]` with `3/4/2026, 5:06:07.089 PM` or `04/03/2026, 17:06:07.089`.
They are written as the table has them: its name, RFC 3339. Whether the day or the month stands
first is told by the file's first rows; where no date tells, by how the clock is read. Times under
`[Local Time]` are refused, as nobody can say whose; `[UTC+02:00]` in its place is understood.

An empty cell is no value, as in Azure Monitor's data export. JSON inside a cell stays text.

By RFC 4180; the delimiter may also be `;` or a tab. A row that the header does not fit is a record
of its own bytes.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import BinaryIO, NamedTuple

import msgspec

from transforms.read.files.base import Chunk, FileFormat, Part, Place
from transforms.read.files.json_documents import Broken, Item, chunks
from transforms.read.files.json_lines import BOM, LONGEST

__all__ = ["CUT_OFF", "FORMAT"]

CUT_OFF = "the file ends in the middle of a row"

_HEAD = 64 * 1024  # bytes in which the header ends
_SAMPLE = 200  # rows that tell how a date is written
_DELIMITERS = ",;\t"

# What Excel and Windows PowerShell write before the header.
_PREFACE = re.compile(rb"(?:sep=.|#TYPE [^\r\n]*)\r?\n")
_NAME = re.compile(r"[A-Za-z_@$#][\w .\-/()@$#+%&?]{0,127}")
_ZONE = re.compile(r" \[(?:UTC(?P<offset>[+-]\d\d:\d\d)?|(?P<local>Local(?: Time)?))\]\Z")
_TIMELY = re.compile(r"(?:time|date|timegenerated|timestamp)(?:utc)?\Z", re.IGNORECASE)
_TIME = re.compile(
    r"(?P<first>\d{1,4})(?P<mark>[/.-])(?P<second>\d{1,2})(?P=mark)(?P<third>\d{1,4})"
    r"(?P<comma>,?)[T\s]\s*(?P<hour>\d{1,2}):(?P<minute>\d\d)"
    r"(?::(?P<seconds>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?(?:\s?(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_encode = msgspec.json.encode

csv.field_size_limit(LONGEST)  # of a cell; the module's own limit is 128 KiB


class _Header(NamedTuple):
    """names: without their zones. zones: of the columns that may hold times, by their place.
    end: where the first row begins. local: a column whose zone is not told; empty: none."""

    names: list[str]
    zones: dict[int, timezone]
    delimiter: str
    end: int
    local: str


class _TooLong(Exception):
    """A row is longer than a record may be."""


class _Lines:
    """A file's lines from a byte on as text, and the bytes of the current row."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self.ended = False
        self.begin(offset)
        file.seek(offset)

    def begin(self, offset: int) -> None:
        """A row, there."""
        self.offset = offset  # of what comes next
        self.row: list[bytes] = []
        self._left = LONGEST

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.row.append(line)
        self.offset += len(line)
        self._left -= len(line)
        if self._left < 0:
            raise _TooLong
        return line.decode(errors="surrogateescape")

    def pass_over(self, begin: int) -> None:
        """The first line of the row that begins there."""
        self.offset = begin + len(self.row[0])
        self._file.seek(self.offset)
        while not self.row[-1].endswith(b"\n") and len(self.row) == 1:
            line = self._file.readline(LONGEST)
            self.offset += len(line)
            if not line or line.endswith(b"\n"):
                break


def _header(head: bytes) -> _Header | None:
    """Of a file that begins so; None: it has none."""
    begin = len(BOM) if head.startswith(BOM) else 0
    if preface := _PREFACE.match(head, begin):
        begin = preface.end()
    found: _Header | None = None
    for delimiter in _DELIMITERS:
        lines = _Lines(io.BytesIO(head), begin)
        try:
            cells = [cell.strip() for cell in next(csv.reader(lines, delimiter=delimiter), [])]
        except csv.Error:
            continue
        if lines.ended or (lines.offset == _HEAD and not lines.row[-1].endswith(b"\n")):
            continue  # it goes on
        if len(cells) > max(1, len(found.names) if found else 0):
            found = _columns(cells, delimiter, lines.offset) or found
    return found


def _columns(cells: list[str], delimiter: str, end: int) -> _Header | None:
    names = []
    zones = {}
    local = ""
    for place, cell in enumerate(cells):
        told = _ZONE.search(cell)
        name = cell[: told.start()] if told else cell
        if not _NAME.fullmatch(name):
            return None
        names.append(name)
        if told or _TIMELY.search(name):
            zones[place] = _zone(told["offset"] if told else None)
        if told and told["local"]:
            local = cell
    return _Header(names, zones, delimiter, end, local) if len({*names}) == len(names) else None


def _zone(offset: str | None) -> timezone:
    if not offset:
        return timezone.utc
    hours, minutes = int(offset[1:3]), int(offset[4:])
    ahead = timedelta(hours=hours % 24, minutes=minutes)
    return timezone(ahead if offset[0] == "+" else -ahead)


def _rows(file: BinaryIO, offset: int | None) -> Iterator[Item]:
    """From a byte on, at which one begins; None: the first."""
    file.seek(0)
    header = _header(file.read(_HEAD))
    if header is None:
        raise Broken(0, "no header")
    if header.local:
        raise Broken(0, f"nobody can say of which zone `{header.local}` is: write `[UTC+02:00]`")
    day_first = _day_first(file, header)
    lines = _Lines(file, header.end if offset is None else offset)
    reader = csv.reader(lines, delimiter=header.delimiter)
    while True:
        begin = lines.offset
        lines.begin(begin)
        try:
            cells = next(reader, None)
        except csv.Error:
            cells = []
        except _TooLong:
            lines.pass_over(begin)
            yield Item(begin, lines.offset, None)
            continue
        if cells is None:
            return
        whole = b"".join(lines.row)
        cut = not whole.endswith(b"\n") and len(cells) < len(header.names)
        if lines.ended or cut:
            raise Broken(begin, CUT_OFF)
        if body := _body(cells, whole, header, day_first):
            yield Item(begin, lines.offset, body)


def _body(cells: list[str], whole: bytes, header: _Header, day_first: bool) -> bytes:
    """A row's; nothing where there is nothing in it."""
    if len(cells) == len(header.names):
        for place, zone in header.zones.items():
            cells[place] = _time(cells[place], zone, day_first)
        named = {name: cell for name, cell in zip(header.names, cells, strict=True) if cell}
        try:
            return _encode(named) if named else b""
        except UnicodeEncodeError:  # it was not UTF-8
            pass
    return whole.strip()


def _day_first(file: BinaryIO, header: _Header) -> bool:
    """Whether `3/4/2026` is in April."""
    reader = csv.reader(_Lines(file, header.end), delimiter=header.delimiter)
    likely: bool | None = None
    try:
        for cells in itertools.islice(reader, _SAMPLE):
            for place in header.zones:
                time = _TIME.fullmatch(cells[place].strip()) if place < len(cells) else None
                if time is None or len(time["first"]) == 4:
                    continue
                if int(time["first"]) > 12 or int(time["second"]) > 12:
                    return int(time["first"]) > 12
                if likely is None:
                    likely = _likely(time)
    except (csv.Error, _TooLong):
        pass
    return bool(likely)


def _likely(time: re.Match[str]) -> bool:
    """Only American English has the month first: with AM and PM, in capitals. What has no comma
    did not come from the portal: kinds take the month to be first."""
    if time["mark"] != "/":
        return True
    if half := time["half"]:
        return half.islower()
    return bool(time["comma"])


def _time(cell: str, zone: timezone, day_first: bool) -> str:
    """As RFC 3339, in UTC; as it is where it is no such time."""
    time = _TIME.fullmatch(cell.strip())
    if time is None:
        return cell
    first, second, third = (int(time[name]) for name in ("first", "second", "third"))
    if len(time["first"]) == 4:
        year, month, day = first, second, third
    elif len(time["third"]) == 4:
        month, day = (second, first) if day_first else (first, second)
        year = third
        if month > 12:
            month, day = day, month
    else:
        return cell
    hour = int(time["hour"])
    if half := time["half"]:
        hour = hour % 12 + 12 * (half in "pP")
    try:
        at = datetime(
            year, month, day, hour, int(time["minute"]), int(time["seconds"] or 0), tzinfo=zone
        ).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return cell
    fraction = f".{time['fraction']}" if time["fraction"] else ""
    return f"{at.replace(tzinfo=None).isoformat()}{fraction}Z"


class Delimited(FileFormat):
    name = "delimited text (CSV)"
    general = 2

    def tells(self, head: bytes, url: str) -> bool:
        header = _header(head)
        if header is None:
            return False
        reader = csv.reader(_Lines(io.BytesIO(head), header.end), delimiter=header.delimiter)
        try:
            rows = [len(row) for row in itertools.islice(reader, 5) if row]
        except (csv.Error, _TooLong):
            return False
        return not rows or len(header.names) in rows

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        rows = _rows(file, place.offset if place else None)
        yield from chunks(rows, file, part, base, place.number if place else 0)


FORMAT = Delimited()
