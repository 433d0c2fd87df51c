"""Files inside others: gzip (RFC 1952, of any number of members) and zip, of any format that there
is; and text in UTF-16 or UTF-32, as Windows PowerShell writes it, which becomes UTF-8.

What is packed is unpacked while it is read, and kept nowhere: a reader that goes back far, as those
of Parquet and of a zip in a zip do, gets a temporary copy. An archive may hold archives, these no
more. How much may come of a file is bounded.

A zip's files are read in order of their names. Its folders are none, nor is what macOS adds
(`__MACOSX/`). Where something inside cannot be read, the offset is that in the unpacked file, which
the reason names.
"""

from __future__ import annotations

import codecs
import errno
import functools
import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import msgspec

from transforms.delivery.line import printable
from transforms.read.files import HEAD_BYTES, tell
from transforms.read.files.base import Chunk, FileFormat, Part, Place, Unread

__all__ = ["FORMAT", "MOST_COPIED", "MOST_RATIO", "MOST_UNPACKED"]

MOST_RATIO = 1000  # of unpacked bytes to those of the file; deflate reaches 1,032
MOST_UNPACKED = 64 * 1024**3  # bytes that may come of a file
MOST_COPIED = 4 * 1024**3  # bytes of a temporary copy

_SMALL = 1024 * 1024  # bytes that any file may unpack to
_BACK = 8 * 1024 * 1024  # bytes that are rather unpacked again than copied
_PIECE = 1024 * 1024  # bytes unpacked at once
_FED = 16 * 1024  # bytes fed at once: zlib copies what follows a member

_GZIP = b"\x1f\x8b\x08"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_CHECKED = ("incorrect data check", "incorrect length check")
_MOST_DEPTH = 2  # archives in each other
_TOO_MUCH = "it unpacks to more than is allowed"
_WRONG_SUM = "the checksum is wrong: what was read may not be what was packed"

Source = Callable[[], Iterator[bytes]]


class _Break(Exception):
    """It cannot be unpacked on. offset, size: of what is packed."""

    def __init__(self, offset: int, size: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset
        self.size = size
        self.why = why


class _Budget:
    """What a file may unpack to."""

    def __init__(self, stored: int) -> None:
        self._most = min(max(stored * MOST_RATIO, _SMALL), MOST_UNPACKED)
        self.spent = 0

    @property
    def exceeded(self) -> bool:
        return self.spent > self._most

    def spend(self, size: int) -> None:
        self.spent += size
        if self.exceeded:
            raise _Break(0, -1, _TOO_MUCH)


class _Unpacked(io.RawIOBase):
    """What a source unpacks, as a file. broken: why it ended too early."""

    def __init__(self, source: Source, budget: _Budget) -> None:
        self._source = source
        self._budget = budget
        self._copy: BinaryIO | None = None
        self.broken: _Break | None = None
        self._begin()

    def _begin(self) -> None:
        self._pieces = self._source()
        self._left = memoryview(b"")
        self._at = 0
        self._spent = 0

    def _again(self) -> None:
        self._budget.spent -= self._spent
        self._begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._copy.tell() if self._copy else self._at

    def readinto(self, buffer: Any) -> int:
        if self._copy:
            data: bytes | memoryview = self._copy.read(len(buffer))
        else:
            data = self._next()[: len(buffer)]
            self._left = self._left[len(data) :]
            self._at += len(data)
        buffer[: len(data)] = data
        return len(data)

    def _next(self) -> memoryview:
        """What is unpacked and not read yet; nothing at the end."""
        while not self._left:
            try:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._spent += len(piece)
                self._budget.spend(len(piece))
            except _Break as error:
                self.broken = error
                self._pieces = iter(())
                break
            self._left = memoryview(piece)
        return self._left

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = offset + self.tell(), io.SEEK_SET
        if not self._copy and (whence == io.SEEK_END or offset < self._at):
            self._go_back(copying=whence == io.SEEK_END or self._at > _BACK)
        if self._copy:
            return self._copy.seek(offset, whence)
        while self._at < offset and (piece := self._next()[: offset - self._at]):
            self._left = self._left[len(piece) :]
            self._at += len(piece)
        return self._at

    def _go_back(self, copying: bool) -> None:
        self._again()
        if not copying:
            return
        copy = cast("BinaryIO", tempfile.TemporaryFile(prefix="alertbeam-"))  # noqa: SIM115
        while piece := self._next():
            if copy.tell() + len(piece) > MOST_COPIED:
                self.broken = _Break(0, -1, "it is too large for a temporary copy")
                break
            copy.write(piece)
            self._left = memoryview(b"")
        self._copy = copy

    def close(self) -> None:
        if self._copy:
            self._copy.close()
        super().close()


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    at = 0  # where in the file `data` begins
    data = file.read(_FED)
    while data:
        unpack = zlib.decompressobj(wbits=31)
        while not unpack.eof:
            try:
                piece = unpack.decompress(data, _PIECE)
            except zlib.error as error:
                wrong = any(word in str(error) for word in _CHECKED)
                raise _Break(at, -1, _WRONG_SUM if wrong else "it is damaged") from None
            left = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
            at += len(data) - len(left)
            data = left
            if piece:
                yield piece
            elif not (data or unpack.eof or (data := file.read(_FED))):
                raise _Break(at, -1, "it ends too early")
        while not (left := data.lstrip(b"\0")):  # padding
            at += len(data)
            if not (data := file.read(_FED)):
                return
        at += len(data) - len(left)
        data = left
        if not _GZIP.startswith(data[:3]):
            raise _Break(at, -1, "what follows is no gzip")


def _in_utf8(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    while piece := file.read(_PIECE):
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", True).encode()


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    why = ""
    if info.flag_bits & _ENCRYPTED:
        why = "it is encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        why = f"it is packed by method {info.compress_type}: only deflate is read"
    if why:
        raise _Break(info.header_offset, info.compress_size, why)
    try:
        with archive.open(info) as file:
            while piece := file.read(_PIECE):
                yield piece
    except _BAD_ZIP as error:
        _unless_bad(error)
        why = _WRONG_SUM if "CRC" in str(error) else "it is damaged"
        raise _Break(info.header_offset, info.compress_size, why) from None


_BAD_ZIP = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError),
    *(RuntimeError, ValueError, OverflowError, OSError),
)


def _unless_bad(error: Exception) -> None:
    """Raises what is the filesystem's, and not that of an offset that lies before the file."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


def _contents(file: BinaryIO, head: bytes) -> Iterator[tuple[str, Source]]:
    """What is packed in a file: name, where it has one, and how to unpack it. Raises _Break."""
    if head.startswith(_GZIP):
        yield "", lambda: _gunzip(file)
    elif head.startswith(_UTF32):
        yield "", lambda: _in_utf8(file, "utf-32")
    elif head.startswith(_UTF16):
        yield "", lambda: _in_utf8(file, "utf-16")
    else:
        try:
            archive = zipfile.ZipFile(file)
        except _BAD_ZIP as error:
            _unless_bad(error)
            raise _Break(0, -1, "it is no whole zip file") from None
        found = sorted(archive.infolist(), key=lambda info: (info.filename, info.header_offset))
        for info in found:
            if not info.is_dir() and not info.filename.startswith("__MACOSX/"):
                yield info.filename, functools.partial(_entry, archive, info)


def _is_archive(head: bytes) -> bool:
    return head.startswith((_GZIP, *_ZIP))


class Packed(FileFormat):
    name = "gzip, zip, UTF-16"

    def tells(self, head: bytes, url: str) -> bool:
        return _is_archive(head) or head.startswith((*_UTF32, *_UTF16))

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        # Nothing packed can be read from its middle: all is gone through again.
        budget = _Budget(file.seek(0, io.SEEK_END))
        number = left_out = 0
        offset = 0
        for chunk in self._chunks(file, part, base, budget, 0):
            offset = max(offset, file.tell())
            here = Place(chunk.place.offset if chunk.place else 0, number)
            number += len(chunk.records)
            if place and left_out < place.number:
                left_out += len(chunk.records)
                new = left_out - place.number
                if new <= 0:
                    continue
                here = Place(here.offset, place.number)
                chunk = chunk._replace(records=chunk.records[-new:])
            yield chunk._replace(place=here, offset=offset)

    def _chunks(
        self, file: BinaryIO, part: Part, base: int, budget: _Budget, depth: int
    ) -> Iterator[Chunk]:
        """What is in it. depth: of archives."""
        file.seek(0)
        head = file.read(HEAD_BYTES)
        depth += _is_archive(head)
        inside = Part(part.url, 0, -1, part.at_ms, 0, part.modified_ms)
        try:
            if depth > _MOST_DEPTH:
                raise _Break(0, -1, "it is an archive in an archive in an archive")
            for name, source in _contents(file, head):
                where = f" (unpacked, `{printable(name)}`)" if name else " (unpacked)"
                with _Unpacked(source, budget) as unpacked:
                    for chunk in self._inside(unpacked, inside, base, budget, depth):
                        unread = tuple(_named(each, where) for each in chunk.unread)
                        base += len(chunk.records)
                        yield chunk._replace(unread=unread)
                    if unpacked.broken:
                        yield _said(part, unpacked.broken, f": `{printable(name)}`" if name else "")
                if budget.exceeded:
                    return
        except _Break as error:
            yield _said(part, error, "")

    def _inside(
        self, unpacked: _Unpacked, part: Part, base: int, budget: _Budget, depth: int
    ) -> Iterator[Chunk]:
        file = cast(BinaryIO, io.BufferedReader(unpacked, _PIECE))
        head = file.read(HEAD_BYTES)
        form = tell(head, part.url)
        if isinstance(form, Packed):
            yield from self._chunks(file, part, base, budget, depth)
        elif form is not None:
            yield from form.read(file, part, base)
        elif head.strip():
            yield Chunk([], None, 0, (Unread(part.url, 0, -1, "no format that is known"),))


def _named(unread: Unread, where: str) -> Unread:
    return msgspec.structs.replace(unread, why=unread.why + where)


def _said(part: Part, broken: _Break, where: str) -> Chunk:
    unread = Unread(part.url, broken.offset, broken.size, broken.why + where)
    return Chunk([], None, 0, (unread,))


FORMAT = Packed()
