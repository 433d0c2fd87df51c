"""JSON lines: one record a line, also lines of syslog.

So write Azure Monitor's data export and diagnostic settings to storage (`PT05M.json`, `PT1H.json`,
`PT05M_1.json`: learn.microsoft.com, azure/azure-monitor/platform/logs-data-export), and our own
file sink (`schemas.formats.ndjson`: of its lines the record inside is read again).

A line is of the part in which its first byte lies, and is read to its end, which may lie behind
the part's; a part that begins inside a line leaves that to the one before. So the parts [0, n) and
[n, m) of a file that grew meanwhile have each line once, wherever n is, but for a line that was
there without its end: it is `UNFINISHED`, and the next part is to begin at its offset.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

import msgspec

from schemas.batch import Record
from schemas.repairs import text_line
from schemas.wrappers import BLANKS
from transforms.read.files.base import Chunk, FileFormat, Part, Place, Unread

__all__ = ["BOM", "FORMAT", "LONGEST", "PIECE", "SHORTER", "TOO_LONG", "UNFINISHED", "is_lines"]

BOM = b"\xef\xbb\xbf"
PIECE = 1024 * 1024  # bytes read at once
LONGEST = 32 * 1024 * 1024  # bytes of a record
TOO_LONG = "a record of more than 32 MiB"
SHORTER = "the file is shorter than when it was listed"
UNFINISHED = "the file ends in the middle of a record"
"""Why the last line was not read: the rest of it is still to be written. When the file has grown,
a part that begins at this `Unread`'s offset reads it."""

_CHUNK = 128 * 1024  # bytes of lines: memory that is freed soon is not fetched anew
_LF = 10
_LOOKED_AT = 50  # lines of a head
_OWN = b'","kind":"'  # in our own lines, behind an id of 32 digits
_OWN_AT = slice(39, 39 + len(_OWN))
_WRAPPER = re.compile(
    rb'\s*\{\s*(?:"(?:@[\w.]+|nextLink|count)"\s*:\s*(?:"[^"\\]*"|\d+|null)\s*,\s*)*'
    rb'"(?:records|value|tables)"\s*:\s*\[',
    re.IGNORECASE,
)
_validate = msgspec.json.Decoder(msgspec.Raw).decode
_scan = json.JSONDecoder().raw_decode


class _Own(msgspec.Struct):
    """What is needed of a line of `schemas.formats.ndjson`, and what only such a line has."""

    id: str
    kind: str
    entity: str
    version: str
    enqueued: datetime
    sequence: int
    raw: msgspec.Raw


_own = msgspec.json.Decoder(_Own).decode


def is_lines(head: bytes) -> bool:
    """Whether a file that begins so has a record a line: not so a JSON document, be it of many
    lines or, as an array or a wrapper, of one."""
    text = head.removeprefix(BOM).lstrip(BLANKS)
    lines = [line for line in text.split(b"\n") if line.strip(BLANKS)]
    if not lines:
        return True
    first, others = lines[0], lines[1:_LOOKED_AT]
    if text[:1] not in (b"{", b"["):
        return any(_is_whole(line, b"{") or _is_text(line) for line in lines[:_LOOKED_AT])
    if _is_whole(first, b"{", b"["):
        return bool(others) or (text[:1] == b"{" and not _WRAPPER.match(text))
    if text[:1] == b"[" or _WRAPPER.match(text):
        return False
    if not others:  # a line that is longer than this, or has not been written to its end
        return not _are_several(first)
    # Broken, if whole ones follow; else one that goes on there.
    goes_on = first.rstrip(BLANKS).endswith((b"{", b"[", b","))
    return not goes_on and any(_is_whole(line, b"{") for line in others if line[:1] == b"{")


def _is_whole(line: bytes, *marks: bytes) -> bool:
    """Whether it is a JSON value that begins with one of these."""
    if not line.lstrip(BLANKS).startswith(marks):
        return False
    try:
        _validate(line)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return False
    return True


def _is_text(line: bytes) -> bool:
    try:
        return text_line(line) is not None
    except UnicodeDecodeError:
        return False


def _are_several(line: bytes) -> bool:
    """Whether an object follows another on the line."""
    text = line.decode(errors="replace")
    try:
        _, end = _scan(text)
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip().startswith("{")


class JsonLines(FileFormat):
    name = "JSON lines"
    general = 3
    cuts = True

    def tells(self, head: bytes, url: str) -> bool:
        return is_lines(head)

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        offset, number = place or (_first(file, part), 0)
        stop = _stop(part)
        file.seek(offset)
        end = offset  # of what has been read; `offset` is that of the line that comes next
        begun: list[bytes] = []  # of that line
        length = 0
        while offset < stop:
            piece = file.read(PIECE)
            if not piece:
                last = _last(part, Place(offset, number), b"".join(begun), length, base)
                if last.records or last.unread:
                    yield last
                return
            if stop - end <= len(piece):
                whole = piece.find(b"\n", max(stop - end - 1, 0)) + 1
                piece = piece[:whole] if whole else piece
            end += len(piece)
            stream = io.BytesIO(piece)
            lines = [stream.readline()]
            length += len(lines[0])
            if lines[0][-1] != _LF:
                begun.append(lines[0])
                if length > LONGEST:
                    begun.clear()
                continue
            if length > LONGEST:
                unread = Unread(part.url, offset, length, TOO_LONG, 1)
                offset += length
                yield Chunk([], Place(unread.offset, number), offset, (unread,))
                lines = []
            elif begun:
                lines = [b"".join((*begun, lines[0]))]
            begun, length = [], 0
            while lines := lines + stream.readlines(_CHUNK):
                if lines[-1][-1] != _LF:
                    begun = [lines.pop()]
                    length = len(begun[0])
                here = Place(offset, number)
                offset += sum(map(len, lines))
                records = _records(lines, base + number, part, here.offset)
                number += len(records)
                if records:
                    yield Chunk(records, here, offset)
                lines = []


def _stop(part: Part) -> int:
    return part.stop if part.stop >= 0 else sys.maxsize


def _first(file: BinaryIO, part: Part) -> int:
    """Where the part's first line begins; at its end or behind it: nowhere in it."""
    if not part.start:
        return 0
    at = part.start - 1
    file.seek(at)
    while at < _stop(part):
        piece = file.read(64 * 1024)
        if not piece:
            return max(at, part.start)
        if found := piece.find(b"\n") + 1:
            return at + found
        at += len(piece)
    return at


def _records(lines: list[bytes], sequence: int, part: Part, offset: int) -> list[Record]:
    """Those of lines that are not blank. offset: of the first."""
    if not offset and lines:
        lines[0] = lines[0].removeprefix(BOM)
    lines = [line for line in lines if not line.isspace()]
    records = []
    for number, line in enumerate(lines, sequence):
        end = -2 if line[-2:] == b"\r\n" else -1
        if line[_OWN_AT] == _OWN:
            records.append(_inner(number, line[:end], part.at_ms))
        else:
            records.append(Record(number, 0, part.at_ms, line[:end]))
    return records


def _inner(sequence: int, line: bytes, at_ms: int) -> Record:
    """The record in a line of our own."""
    try:
        own = _own(line)
    except (ValueError, RecursionError):
        return Record(sequence, 0, at_ms, line)
    return Record(sequence, 0, round(own.enqueued.timestamp() * 1000), bytes(own.raw))


def _last(part: Part, here: Place, line: bytes, length: int, base: int) -> Chunk:
    """What stands behind the last line break, at the file's end."""
    offset, number = here
    end = offset + length
    text = line if offset else line.removeprefix(BOM)
    records: list[Record] = []
    unread = []
    if length > LONGEST:
        unread.append(Unread(part.url, offset, length, TOO_LONG, 1))
    elif _is_whole(text, b"{", b"["):
        records = _records([line + b"\n"], base + number, part, offset)
    elif text.strip():
        unread.append(Unread(part.url, offset, length, UNFINISHED, 1))
    listed = part.stop if part.stop >= 0 else part.size
    if end < listed:
        unread.append(Unread(part.url, end, listed - end, SHORTER))
    return Chunk(records, here, end, tuple(unread))


FORMAT = JsonLines()
