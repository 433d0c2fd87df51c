"""What a format of history files is: a module of this folder with one `FORMAT`.

A file is read in *parts*, ranges of its bytes; a part in *chunks*, records that lie together. A
record's address is its part's number and its place among the part's records, so that the same
file, read again from anywhere, gives the same addresses.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import BinaryIO, ClassVar, NamedTuple

import msgspec

from schemas.batch import Record

__all__ = ["RECORDS", "Chunk", "FileFormat", "Part", "Place", "Unread", "address"]

RECORDS = 2**32
"""More records than a part may hold: `address(part, n)` is `part * RECORDS + n`."""


def address(part: int, number: int) -> int:
    """The sequence number of a part's record, both counted from 0."""
    return part * RECORDS + number


class Part(msgspec.Struct, array_like=True, frozen=True):
    """A range of a file's bytes that is read from its beginning to its end by one reader.

    start, stop: in bytes; a record belongs to the part in which it begins (in Avro: its block).
        stop -1: to the file's end, wherever that is. What a format does not cut is one part.
    at_ms: when its records happened, about: what the file's path says, else when it was changed;
        the enqueued time of records that have none of their own.
    size: the file's, in bytes, when it was listed. modified_ms: as the filesystem says; 0: it
        does not.
    """

    url: str
    start: int = 0
    stop: int = -1
    at_ms: int = 0
    size: int = 0
    modified_ms: int = 0


class Unread(msgspec.Struct, array_like=True, frozen=True):
    """Bytes of a file that could not be read: nothing of them was delivered.

    size: bytes; -1: not known, to the file's end or the next place from which it could be read.
    records: how many were in it; -1: not known.
    """

    url: str
    offset: int
    size: int
    why: str
    records: int = -1


class Place(NamedTuple):
    """Where reading a part can begin again: at a byte, which is that of its record `number`."""

    offset: int
    number: int


class Chunk(NamedTuple):
    """Records that lie together in a part, in order; their sequence numbers are
    `base + number` onwards.

    place: where reading can begin again to get this chunk first; None: only at the part's start.
    offset: up to where the file has been read, in bytes of the file as it is stored (progress).
    """

    records: list[Record]
    place: Place | None
    offset: int
    unread: tuple[Unread, ...] = ()


class FileFormat(abc.ABC):
    """How records lie in a file. Stateless."""

    name: ClassVar[str]  # for people: "Event Hubs Capture (Avro)"
    general: ClassVar[int] = 0  # asked after those that have less
    cuts: ClassVar[bool] = False  # whether a part can begin inside a file

    @abc.abstractmethod
    def tells(self, head: bytes, url: str) -> bool:
        """Whether a file that begins with `head` (up to 64 KiB, as stored) is of this format. By
        its bytes, whatever it is called."""

    @abc.abstractmethod
    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        """The part's records from `place` (None: its start) on, in chunks of a bounded size.

        file: seekable, of any filesystem, positioned anywhere; `file.name` may lack.
        base: the sequence number of the part's first record, `address(n, 0)`.

        Never raises for what is in the file: what cannot be read is `unread` of the chunk where
        it lies (with no records, if nothing follows). A record that can be told from the next one
        but not understood is a record: Parse makes it a dead letter. Raises OSError where the
        filesystem does.
        """
