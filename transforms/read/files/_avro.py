"""Avro's object container: its header, its blocks, and reading on behind what is damaged.

A block is delivered whole or not at all: a record's address is the same on every reading. After
what cannot be read, reading goes on behind the next sync marker, whoever reads and from wherever.

Source: Apache Avro 1.12's specification, "Object Container Files".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from schemas.batch import Record
from transforms.delivery.line import printable
from transforms.read.files._avro_codecs import BLOCK_BYTES, CODECS, LARGE, unpacked
from transforms.read.files._avro_values import Refused, read_bytes, read_count, read_long
from transforms.read.files._capture_rows import Layout, layout_of
from transforms.read.files.base import Part, Place, Unread

__all__ = ["MAGIC", "TRUNCATED", "Block", "Container"]

MAGIC = b"Obj\x01"
TRUNCATED = "the file ends in the middle of a block"

_UNMARKED = "no sync marker where a block should end"
_SYNC = 16
_BLOCK_RECORDS = 1_000_000
_HEADER_BYTES = 1024 * 1024
_LONGS = 20  # two of Avro's longs
_WINDOW = 1024 * 1024


class _Header(NamedTuple):
    end: int
    sync: bytes
    layout: Layout
    unpack: Callable[[memoryview], bytes] | None


def _header(file: BinaryIO, hub: bool) -> _Header:
    """Raises Refused. hub: the schema must have the hub's own numbers."""
    for size in (64 * 1024, _HEADER_BYTES):
        file.seek(0)
        data = file.read(size)
        try:
            meta, at = _meta(data)
            sync = data[at : at + _SYNC]
            if len(sync) == _SYNC:
                break
        except IndexError:
            pass
        except ValueError as error:
            raise Refused(f"its header cannot be read: {error}") from error
        if len(data) < size:
            raise Refused("the file ends in its header")
    else:
        raise Refused("its header is longer than 1 MiB")
    codec = meta.get(b"avro.codec") or b"null"
    if codec not in CODECS:
        raise Refused(f"its codec is not known: {codec[:40].decode('ascii', 'replace')}")
    layout = layout_of(meta.get(b"avro.schema", b""))
    if hub and not layout.numbered:
        raise Refused("not Event Hubs Capture: the schema has no SequenceNumber")
    return _Header(at + _SYNC, sync, layout, CODECS[codec])


def _meta(data: bytes) -> tuple[dict[bytes, bytes], int]:
    if not data.startswith(MAGIC):
        raise ValueError("not an Avro file")
    found: dict[bytes, bytes] = {}
    at = len(MAGIC)
    while data[at]:
        count, at = read_count(data, at)
        for _ in range(count):
            key, at = read_bytes(data, at)
            found[key], at = read_bytes(data, at)
            if at > len(data):
                raise IndexError
    return found, at + 1


class Block(NamedTuple):
    """The records between `at` and `end`; or the two places between which none could be read."""

    at: int
    end: int
    number: int  # of its first record, in the part
    records: list[Record]
    bytes: int = 0  # unpacked
    offset: str = ""  # the hub's own, of the last
    unread: Unread | None = None


class Container:
    """A file's blocks that begin in a part. hub: their records have the hub's own numbers."""

    def __init__(self, file: BinaryIO, part: Part, base: int = 0, hub: bool = False) -> None:
        self._file = file
        self._part = part
        self._base = base
        self._hub = hub
        file.seek(0, os.SEEK_END)
        self._size = file.tell()
        self._stop = self._size if part.stop < 0 else min(part.stop, self._size)

    def blocks(self, place: Place | None = None) -> Iterator[Block]:
        start, number = place or (self._part.start, 0)
        if start < self._stop:
            try:
                header = _header(self._file, self._hub)
            except Refused as why:
                yield self._unread(start, self._stop, 0, str(why))
            else:
                at = start if place else self._first(header)
                while at < self._stop:
                    block = self._block(header, at, number)
                    yield block
                    at, number = block.end, number + len(block.records)
        if self._size < self._part.stop:
            lost = max(start, self._size)
            yield self._unread(lost, self._part.stop, number, "the file is shorter than it was")

    def _first(self, header: _Header) -> int:
        """Where the first block begins; behind the part: none does."""
        start = self._part.start
        if start <= header.end:
            return header.end
        found = self._behind_sync(header.sync, start - _SYNC, self._stop)
        return self._stop if found is None else found

    def _behind_sync(self, sync: bytes, at: int, stop: int) -> int | None:
        """Behind the next sync marker that ends by `stop`."""
        while at + _SYNC <= stop:
            self._file.seek(at)
            data = self._file.read(min(_WINDOW, stop - at))
            if (found := data.find(sync)) >= 0:
                return at + found + _SYNC
            if len(data) < _SYNC:
                break
            at += len(data) - _SYNC + 1
        return None

    def _block(self, header: _Header, at: int, number: int) -> Block:
        count = -1
        try:
            count, start, size = self._frame(at)
            data = self._packed(header, at + start, size)
            end = at + start + size + _SYNC
            if count > _BLOCK_RECORDS:
                raise Refused(f"a block of more than {_BLOCK_RECORDS:,} records")
            if header.unpack is not None:
                data = unpacked(header.unpack, memoryview(data)[:size])
                size = len(data)
            first, at_ms = self._base + number, self._part.at_ms
            records, offset = header.layout.records(data, size, count, first, at_ms, self._hub)
            return Block(at, end, number, records, size, offset)
        except Refused as refused:
            why = str(refused)
        following = self._behind_sync(header.sync, at, self._size)
        if why == TRUNCATED and following is not None:
            why = _UNMARKED
        end = self._size if following is None else following
        believed = why != _UNMARKED and 0 <= count <= end - at
        return self._unread(at, end, number, why, count if believed else -1)

    def _frame(self, at: int) -> tuple[int, int, int]:
        """How many records a block has, how far behind its own beginning they begin, and how many
        bytes they are. Raises Refused."""
        self._file.seek(at)
        head = self._file.read(_LONGS)
        try:
            count, start = read_long(head, 0)
            size, start = read_long(head, start)
        except IndexError:
            raise Refused(TRUNCATED) from None
        except ValueError:
            raise Refused(_UNMARKED) from None
        if count < 0 or size < 0:
            raise Refused(_UNMARKED)
        return count, start, size

    def _packed(self, header: _Header, at: int, size: int) -> bytes:
        """A block's bytes, and the marker behind them. Raises Refused."""
        end = at + size + _SYNC
        if end > self._size:
            raise Refused(TRUNCATED)
        fits = size <= BLOCK_BYTES
        self._file.seek(at if fits else end - _SYNC)
        data = self._file.read(size + _SYNC if fits else _SYNC)
        if not data.endswith(header.sync):
            raise Refused(_UNMARKED)
        if not fits:
            raise Refused(LARGE)
        return data

    def _unread(self, at: int, end: int, number: int, why: str, count: int = -1) -> Block:
        unread = Unread(self._part.url, at, end - at, printable(why), count)
        return Block(at, end, number, [], unread=unread)
