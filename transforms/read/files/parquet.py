"""Parquet: a file with a `Body` as Event Hubs Capture's Avro has it; of any other, each row as a
JSON object.

Event Hubs Capture itself writes Avro only. What Azure calls capture in Parquet is done by Stream
Analytics, which writes an event's fields as columns and adds `EventEnqueuedUtcTime`.

Sources: Microsoft's "Stream data as input into Stream Analytics"; Apache Parquet's "File Format".
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from typing import Any, BinaryIO

import msgspec

from schemas.batch import Record
from schemas.kinds._base import millis
from transforms.delivery.line import printable
from transforms.read.files.base import RECORDS, Chunk, FileFormat, Part, Place, Unread
from transforms.read.files.capture import enqueued

__all__ = ["FORMAT"]

_PLAIN, _ENCRYPTED = b"PAR1", b"PARE"
_ROWS = 200  # of a chunk
_BUFFER = 1024 * 1024  # of a column
_TIMES = ("EnqueuedTimeUtc", "EventEnqueuedUtcTime")

_encode = msgspec.json.Encoder(decimal_format="number").encode


class _File(io.RawIOBase):
    """A file as Arrow reads it; keeps what the filesystem raises, which Arrow makes its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.failed = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            self._file.seek(offset, whence)
            return self._file.tell()
        except OSError as error:
            self.failed = error
            raise

    def tell(self) -> int:
        return self._file.tell()


class Parquet(FileFormat):
    """A record's number is its row's: what cannot be read changes no address behind it. A file is
    not cut: where a row group lies only Arrow's metadata says, which ends the process if damaged
    ("Definition level histogram size mismatch", Arrow 25)."""

    name = "Parquet"

    def tells(self, head: bytes, url: str) -> bool:
        return head[:4] in (_PLAIN, _ENCRYPTED)

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        source = _File(file)
        for chunk in _chunks(source, part, base, place.number if place else 0):
            if source.failed is not None:
                raise source.failed
            yield chunk


def _chunks(source: _File, part: Part, base: int, first: int) -> Iterator[Chunk]:
    """The file's records from that number on."""
    size = source.seek(0, io.SEEK_END)
    if not size:
        return

    def unread(error: Exception, where: str = "", records: int = -1) -> Chunk:
        why = printable(f"{where}not to be read as Parquet: {error}")
        return Chunk([], None, size, (Unread(part.url, 0, size, why, records),))

    try:
        table = import_module("pyarrow.parquet").ParquetFile(
            source, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
        )
        groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
        total = sum(groups)
        if min(groups, default=0) < 0 or total >= RECORDS:
            raise ValueError("its rows cannot be so many")
        body = _has_body(table.schema_arrow)
    except Exception as error:  # noqa: BLE001 - whatever Arrow finds wrong with what is there
        yield unread(error)
        return
    end = 0
    for index, rows in enumerate(groups):
        done, end = end, end + rows
        if end <= first:
            continue
        problem: Exception | None = None
        try:
            for batch in _batches(table, index, body):
                found = [
                    Record(base + number, 0, ms or part.at_ms, text)
                    for number, (text, ms) in enumerate(_records(batch, body), done)
                    if first <= number < end
                ]
                if found:
                    place = Place(0, found[0].sequence - base)
                    yield Chunk(found, place, size * end // total)
                done += batch.num_rows
            if done != end:
                problem = ValueError("it has other rows than it says")
        except Exception as error:  # noqa: BLE001 - as above
            problem = error
        if problem is not None:
            yield unread(problem, f"row group {index}: ", max(0, end - done))


def _has_body(schema: Any) -> bool:
    """Whether a row is an event as Event Hubs Capture has it."""
    types = import_module("pyarrow").types
    if schema.names.count("Body") != 1:
        return False
    kind = schema.field("Body").type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return kind in _texts()


def _texts() -> tuple[Any, ...]:
    arrow = import_module("pyarrow")
    return arrow.binary(), arrow.large_binary(), arrow.string(), arrow.large_string()


def _batches(table: Any, index: int, body: bool) -> Iterator[Any]:
    wanted = [name for name in ("Body", *_TIMES) if name in table.schema_arrow.names]
    yield from table.iter_batches(
        _ROWS, row_groups=[index], columns=wanted if body else None, use_threads=False
    )


def _records(batch: Any, body: bool) -> Iterator[tuple[bytes, int]]:
    """The bodies of a batch's rows, and when they were enqueued; 0: they do not say."""
    schema = import_module("pyarrow").schema
    batch = batch.cast(schema([field.with_type(_utc(field.type)) for field in batch.schema]), False)
    times = [0] * batch.num_rows
    if name := next((name for name in _TIMES if batch.schema.names.count(name) == 1), ""):
        times = [_ms(value) for value in batch.column(name).to_pylist()]
    if body:
        texts = [_text(value) for value in batch.column("Body").to_pylist()]
    else:
        texts = [_encode(_plain(row)) for row in batch.to_pylist(maps_as_pydicts="lossy")]
    return zip(texts, times, strict=True)


def _utc(kind: Any) -> Any:
    """The type with its times as Python has them: in microseconds, of UTC."""
    arrow = import_module("pyarrow")
    types = arrow.types
    if types.is_timestamp(kind):
        return arrow.timestamp("us", "UTC")
    if types.is_list(kind) or types.is_large_list(kind):
        return arrow.list_(_utc(kind.value_type))
    if types.is_struct(kind):
        return arrow.struct([field.with_type(_utc(field.type)) for field in kind])
    if types.is_map(kind):
        return arrow.map_(kind.key_type, _utc(kind.item_type))
    return kind


def _ms(value: Any) -> int:
    if isinstance(value, datetime):
        return millis(value)
    if isinstance(value, str):
        return enqueued(value.encode())
    return enqueued(value) if isinstance(value, int | bytes) else 0


def _text(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _plain(value: Any) -> Any:
    """Bytes as text, where they are."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


FORMAT = Parquet()
