"""JSON documents, of any length: arrays of records, wrappers, bare records, one behind the other.

A wrapper is `{"value": […]}` (pages of Microsoft Graph, lists of Azure Resource Manager),
`{"records": […]}`, or a query's result, `{"tables": [{"name", "columns", "rows"}]}`, also as the
older Kusto API writes it (`Tables`, `Columns`, `ColumnName`, `Rows`). What is one is told as in
`schemas.wrappers`, but by what stands before its array, as no page is held as a whole.

Records are exact slices of the file, but for rows, which become objects. They are told apart by
quotes and brackets alone: one that is no JSON inside is left to Parse.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from schemas.batch import Record
from schemas.wrappers import BLANKS, TELLING
from transforms.read.files.base import Chunk, FileFormat, Part, Place, Unread
from transforms.read.files.json_lines import BOM, LONGEST, TOO_LONG, is_lines

__all__ = ["CUT_OFF", "FORMAT", "Broken", "Item", "chunks"]

CUT_OFF = "the document ends too early"

_PIECE = 1024 * 1024  # bytes read at once
_WINDOW = 16 * 1024  # bytes that a pattern sees at once: each repetition takes memory
_MOST_BYTES = 1024 * 1024  # of a chunk's records, or one record more
_TRIES = 16  # to find where a value ends
_INDENT = 200  # bytes before a value, at most
_MOST = 1000  # records of a chunk

_BLANKS = re.compile(rb"[ \t\r\n]*")
_BETWEEN = re.compile(rb"[ \t\r\n,\x1e]*")  # documents; RFC 7464 puts a record separator there
_OUTSIDE = re.compile(rb'(?:[^][{}"]+|"[^"\\]*(?:\\.[^"\\]*)*")*', re.DOTALL)  # up to a bracket
_INSIDE = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # a string, up to its end
_SCALAR = re.compile(rb'[^][{}",:\s]*')
_QUOTE = ord('"')
_CLOSES = {ord("}"): ord("{"), ord("]"): ord("[")}
_BEGINS = re.compile(rb'\{\s*"[^"\\]{0,99}"|\[')  # a record, a row
_PAGING = re.compile(r"@|nextlink\Z|count\Z|value\Z")  # what an empty page may have

_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_columns = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class Item(NamedTuple):
    """A record of a file, from byte `begin` to `end`. body None: it is too long."""

    begin: int
    end: int
    body: bytes | None


class Broken(Exception):
    """The file cannot be read on. offset: where the record begins that cannot be read."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset
        self.why = why


def chunks(
    items: Iterator[Item], file: BinaryIO, part: Part, base: int, number: int, skipped: int = 0
) -> Iterator[Chunk]:
    """Items in chunks. number: of the first that is given; skipped: how many are left out before
    it."""
    records: list[Record] = []
    unread: list[Unread] = []
    place: Place | None = None
    size = offset = 0
    try:
        for begin, offset, body in items:
            if body is None:
                if not skipped:
                    unread.append(Unread(part.url, begin, offset - begin, TOO_LONG, 1))
                continue
            if skipped:
                skipped -= 1
                continue
            place = place or Place(begin, number)
            records.append(Record(base + number, 0, part.at_ms, body))
            number += 1
            size += len(body)
            if size >= _MOST_BYTES or len(records) >= _MOST:
                yield Chunk(records, place, offset, tuple(unread))
                records, unread, place, size = [], [], None, 0
    except Broken as error:
        offset = file.tell()
        left = -1 if file.read(1) else offset - error.offset
        unread.append(Unread(part.url, error.offset, left, error.why))
    if records or unread:
        yield Chunk(records, place, offset, tuple(unread))


class _Text:
    """A file's text, gone through once from its start; no more of it is held than one record."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = file
        self._data = file.read(_PIECE)
        self._base = 0  # where in the file `_data` begins
        self._at = len(BOM) if self._data.startswith(BOM) else 0
        self._doubtful = 0  # up to there in the file values are taken one by one
        self.unwrapped = False  # what is in the object that is gone through
        self._kept = -1  # from where in the file on nothing is let go of; -1: it may be

    @property
    def offset(self) -> int:
        return self._base + self._at

    def peek(self, between: re.Pattern[bytes] = _BLANKS) -> bytes:
        """The next byte behind blanks; none at the end."""
        while True:
            self._match(between, len(self._data))
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def skip(self) -> None:
        """To behind the next byte."""
        self._at += 1

    def keep(self) -> None:
        """What follows, until `release`."""
        self._kept = self.offset

    def release(self) -> None:
        self._kept = -1

    def unwrap(self) -> None:
        """The object that was kept is a wrapper."""
        self.unwrapped = True
        self.release()

    def since(self, begin: int) -> Item:
        """What was kept from there on."""
        held = begin >= self._base and self.offset - begin <= LONGEST
        body = self._data[begin - self._base : self._at] if held else None
        return Item(begin, self.offset, body)

    def value(self) -> Item:
        """The value that comes next. Raises Broken."""
        mark = self.peek()
        begin = self.offset
        alone = self._kept < 0
        if alone:
            self.keep()
        try:
            if mark in (b"{", b"["):
                self.skip()
                self.close(mark)
            elif mark == b'"':
                self.skip()
                self._string()
            else:
                self._scalar()
            return self.since(begin)
        except Broken as error:
            raise Broken(begin, error.why) from None
        finally:
            if alone:
                self.release()

    def values(self) -> Iterator[Item]:
        """The next values of an array: one at least, and all that is behind it and read already,
        if it is valid and begins as that one does."""
        found = self._valid()
        if not found:
            yield self.value()
            return
        for value in found:
            body = bytes(value)
            begin = self._data.index(body, self._at)
            self._at = begin + len(body)
            yield Item(self._base + begin, self.offset, body)

    def _valid(self) -> list[msgspec.Raw]:
        """Up to where another one ends, and one begins: if it is valid, that is no other's inside.
        The decoder is ten times as fast as the patterns."""
        begins = _BEGINS.match(self._data, self._at)
        if begins is None or self.offset < self._doubtful:
            return []
        cut = min(len(self._data), self._at + LONGEST)
        for _ in range(_TRIES):
            cut = self._data.rfind(begins[0], self._at + 1, cut)
            if cut < 0:
                break
            before = self._data[max(self._at, cut - _INDENT) : cut].rstrip(BLANKS)
            if before.endswith(b","):
                values = self._data[self._at : cut].rstrip(BLANKS)[:-1]
                try:
                    return _values(b"[%b]" % values)
                except (ValueError, RecursionError):
                    pass
        self._doubtful = self._base + len(self._data)
        return []

    def close(self, bracket: bytes) -> None:
        """To behind the end of what that bracket opened. Raises Broken."""
        nest = bytearray(bracket)
        while nest:
            self._match(_OUTSIDE, _WINDOW)
            if self._at == len(self._data):
                self._need()
                continue
            mark = self._data[self._at]
            if mark == _QUOTE:
                self.skip()
                self._string()
            elif mark in b"{[":
                self.skip()
                nest.append(mark)
            elif mark in b"}]":
                self.skip()
                if nest.pop() != _CLOSES[mark]:
                    raise Broken(self.offset, "not JSON: a bracket closes another one")

    def _string(self) -> None:
        """To behind the end of the string that has begun."""
        while True:
            self._match(_INSIDE, _WINDOW)
            left = len(self._data) - self._at
            if left and self._data[self._at] == _QUOTE:
                self.skip()
                return
            if left < 2:  # nothing, or half an escape
                self._need()

    def _scalar(self) -> None:
        begin = self.offset
        while True:
            before = self._at
            self._match(_SCALAR, _WINDOW)
            if self._at == len(self._data):
                self._need()
            elif self._at == before:
                break
        if self.offset == begin:
            raise Broken(begin, "not JSON: a value is missing")

    def _match(self, pattern: re.Pattern[bytes], most: int) -> None:
        found = pattern.match(self._data, self._at, self._at + most)
        self._at = found.end() if found else self._at

    def _need(self) -> None:
        if not self._more():
            raise Broken(self.offset, CUT_OFF)

    def _more(self) -> bool:
        piece = self._file.read(_PIECE)
        if not piece:
            return False
        if 0 <= self._kept < self.offset - LONGEST:
            self.release()  # it is too long already
        gone = self._at if self._kept < 0 else self._kept - self._base
        self._data = self._data[gone:] + piece
        self._base += gone
        self._at -= gone
        return True


def _documents(text: _Text) -> Iterator[Item]:
    while mark := text.peek(_BETWEEN):
        if mark == b"{":
            yield from _document(text)
        elif mark == b"[":
            text.skip()
            yield from _values_in(text)
        else:
            raise Broken(text.offset, "not JSON: neither an object nor an array")


def _document(text: _Text) -> Iterator[Item]:
    """An object: a wrapper's records, or itself."""
    begin = text.offset
    text.keep()
    text.unwrapped = empty = False
    paging = True
    try:
        for key in _members(text):
            paging = paging and _PAGING.match(key) is not None
            if not text.unwrapped and key in TELLING:
                text.close(b"{")
                break
            if key not in ("records", "value", "tables") or text.peek() != b"[":
                text.value()
                continue
            text.skip()
            first = text.peek()
            if key == "tables" and first == b"{":
                yield from _tables(text)
            elif key == "records" or first == b"{":
                text.unwrap()
                yield from _values_in(text)
            else:
                empty = empty or first == b"]"
                text.close(b"[")
    except Broken as error:
        raise error if text.unwrapped else Broken(begin, error.why) from None
    if not text.unwrapped and not (empty and paging):
        yield text.since(begin)
    text.release()


def _tables(text: _Text) -> Iterator[Item]:
    """The rows of a query's results, if the first table is one. A later one whose rows stand
    before its columns is a record, which Parse unwraps."""
    for _ in _items(text):
        begin = text.offset
        if text.unwrapped:
            text.keep()
        if text.peek() == b"{":
            if (yield from _rows(text)):
                continue
        else:
            text.value()
        if not text.unwrapped:
            text.close(b"[")
            return
        table = text.since(begin)
        yield table._replace(body=table.body and b'{"tables":[%b]}' % table.body)
        text.release()


def _rows(text: _Text) -> Generator[Item, None, bool]:
    """Those of a table as objects; whether it is one."""
    names: list[str] = []
    found = False
    for key in _members(text):
        if key == "columns":
            names = _names(text.value().body)
        elif key == "rows" and names and text.peek() == b"[":
            found = True
            text.unwrap()
            text.skip()
            yield from (_row(names, item) for item in _values_in(text))
        else:
            text.value()
    return found


def _members(text: _Text) -> Iterator[str]:
    """The keys of an object, in lower case; before the next one is asked for, the value is read."""
    text.skip()
    while (mark := text.peek()) != b"}":
        if mark == b",":
            text.skip()
            continue
        if mark != b'"':
            raise Broken(text.offset, "not JSON: a key is missing" if mark else CUT_OFF)
        key = text.value().body
        if (mark := text.peek()) != b":":
            raise Broken(text.offset, "not JSON: a colon is missing" if mark else CUT_OFF)
        text.skip()
        try:
            yield _string(key or b'""').lower()
        except ValueError:  # msgspec's errors are ValueErrors; or it is not UTF-8
            yield ""
    text.skip()


def _items(text: _Text) -> Iterator[None]:
    """Each time that another item of an array is there, until its end; before the next one is
    asked for, it is read."""
    while (mark := text.peek()) != b"]":
        if mark == b",":
            text.skip()
        elif mark:
            yield
        else:
            raise Broken(text.offset, CUT_OFF)
    text.skip()


def _values_in(text: _Text) -> Iterator[Item]:
    """An array's, to its end."""
    for _ in _items(text):
        yield from text.values()


def _names(columns: bytes | None) -> list[str]:
    """As the API in use writes them, `name`, or the one before it, `ColumnName`."""
    try:
        found = _columns(columns or b"[]")
        return [_string(column.get("name") or column["ColumnName"]) for column in found]
    except (ValueError, KeyError, RecursionError):
        return []


def _row(names: list[str], item: Item) -> Item:
    """A row as an object; one of other columns as a table of its own, which Parse refuses."""
    try:
        values = _values(item.body or b"")
    except (ValueError, RecursionError):
        return item
    if len(values) == len(names):
        return item._replace(body=_encode(dict(zip(names, values, strict=True))))
    columns = [{"name": name} for name in names]
    return item._replace(body=_encode({"tables": [{"columns": columns, "rows": [values]}]}))


class JsonDocuments(FileFormat):
    name = "JSON"
    general = 1

    def tells(self, head: bytes, url: str) -> bool:
        begin = head.removeprefix(BOM).lstrip(BLANKS)[:1]
        return begin in (b"{", b"[") and not is_lines(head)

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        # What a record stands in is told by what is before it: all is gone through again.
        number = place.number if place else 0
        yield from chunks(_documents(_Text(file)), file, part, base, number, number)


FORMAT = JsonDocuments()
