"""Event Hubs Capture, as it writes Avro object container files; and whatever has a `Body` like it.

Source: Microsoft's "Event Hubs Capture" documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from schemas.batch import Record
from transforms.read.files._avro import MAGIC, TRUNCATED, Block, Container
from transforms.read.files._capture_rows import enqueued
from transforms.read.files.base import Chunk, FileFormat, Part, Place, Unread

__all__ = ["FORMAT", "TRUNCATED", "HubChunk", "enqueued", "first_sequence", "hub_records"]

_CHUNK_RECORDS = 100
_CHUNK_BYTES = 1024 * 1024
_CHUNK_BLOCKS = 100


class _Gathered(NamedTuple):
    """Successive blocks."""

    blocks: list[Block]

    @property
    def place(self) -> Place:
        return Place(self.blocks[0].at, self.blocks[0].number)

    @property
    def end(self) -> int:
        return self.blocks[-1].end

    @property
    def records(self) -> list[Record]:
        return [record for block in self.blocks for record in block.records]

    @property
    def unread(self) -> tuple[Unread, ...]:
        return tuple(block.unread for block in self.blocks if block.unread is not None)


def _gather(blocks: Iterator[Block]) -> Iterator[_Gathered]:
    """Blocks may be as small as one record."""
    gathered: list[Block] = []
    records = size = 0
    for block in blocks:
        gathered.append(block)
        records += len(block.records)
        size += block.bytes
        if records >= _CHUNK_RECORDS or size >= _CHUNK_BYTES or len(gathered) >= _CHUNK_BLOCKS:
            yield _Gathered(gathered)
            gathered, records, size = [], 0, 0
    if gathered:
        yield _Gathered(gathered)


class HubChunk(NamedTuple):
    """Records of a file with the hub's own sequence numbers, in order.

    offset: the hub's own of the last; "": not known. read: up to where the file has been read.
    """

    records: list[Record]
    offset: str
    read: int
    unread: tuple[Unread, ...] = ()


def hub_records(file: BinaryIO, part: Part) -> Iterator[HubChunk]:
    """A part's records as the hub numbered them. What is in the file, raises nothing."""
    for found in _gather(Container(file, part, hub=True).blocks()):
        offset = next((block.offset for block in reversed(found.blocks) if block.records), "")
        yield HubChunk(found.records, offset, found.end, found.unread)


def first_sequence(file: BinaryIO) -> int | None:
    """The hub's number of the first record that can be read; None: there is none."""
    blocks = Container(file, Part(""), hub=True).blocks()
    return next((block.records[0].sequence for block in blocks if block.records), None)


class Capture(FileFormat):
    name = "Event Hubs Capture (Avro)"
    cuts = True

    def tells(self, head: bytes, url: str) -> bool:
        return head.startswith(MAGIC)

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        for found in _gather(Container(file, part, base).blocks(place)):
            records, unread = found.records, found.unread
            for first in range(0, len(records) or 1, _CHUNK_RECORDS):
                some = records[first : first + _CHUNK_RECORDS]
                yield Chunk(some, found.place, found.end, () if first else unread)


FORMAT = Capture()
