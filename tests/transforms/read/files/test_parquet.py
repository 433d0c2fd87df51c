"""Parquet: events with a Body, rows of anything else, parts, and damage."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import Record
from transforms.read.files import tell
from transforms.read.files.base import Chunk, Part, Unread, address
from transforms.read.files.parquet import FORMAT

URL = "file:///history/0.parquet"
WHOLE = Part(URL)
AT = 1_591_986_754_000  # 2020-06-12T18:32:34Z
WHEN = datetime(2020, 6, 12, 18, 32, 34, tzinfo=timezone.utc)


def parquet(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    made = table if isinstance(table, pa.Table) else pa.table(table)
    buffer = io.BytesIO()
    pq.write_table(made, buffer, **options)
    return buffer.getvalue()


def read(data: bytes, part: Part = WHOLE, number: int = 0, **more: Any) -> list[Chunk]:
    return [*FORMAT.read(io.BytesIO(data), part, address(number, 0), **more)]


def records(chunks: Iterable[Chunk]) -> list[Record]:
    return [record for chunk in chunks for record in chunk.records]


def bodies(chunks: Iterable[Chunk]) -> list[bytes]:
    return [record.body for record in records(chunks)]


def unread(chunks: Iterable[Chunk]) -> list[Unread]:
    return [each for chunk in chunks for each in chunk.unread]


def rows(data: bytes) -> list[dict[str, Any]]:
    chunks = read(data)
    assert unread(chunks) == []
    return [json.loads(body) for body in bodies(chunks)]


def test_it_is_told_by_its_bytes() -> None:
    assert tell(parquet({"a": [1]}), "file:///whatever.json") is FORMAT


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_a_body_is_the_event_whatever_stands_beside_it(kind: pa.DataType) -> None:
    column = pa.array(["{}", None, "é"], kind.value_type if pa.types.is_dictionary(kind) else kind)
    table = pa.table({"SequenceNumber": [1, 2, 3], "Body": column.cast(kind), "Body2": [0, 0, 0]})
    found = records(read(parquet(table), Part(URL, at_ms=5), 2))
    assert found == [
        Record(address(2, 0), 0, 5, b"{}"),
        Record(address(2, 1), 0, 5, b""),
        Record(address(2, 2), 0, 5, "é".encode()),
    ]


def test_bytes_of_a_body_need_not_be_text() -> None:
    assert bodies(read(parquet({"Body": [b"\xff\x00"]}))) == [b"\xff\x00"]


@pytest.mark.parametrize("name", ["EnqueuedTimeUtc", "EventEnqueuedUtcTime"])
@pytest.mark.parametrize(
    "at",
    [
        pa.array(["6/12/2020 6:32:34 PM"]),
        pa.array(["2020-06-12T18:32:34.0000000Z"]),
        pa.array([AT]),
        pa.array([WHEN], pa.timestamp("ms")),
        pa.array([WHEN], pa.timestamp("us", "UTC")),
        pa.array([AT * 1_000_000 + 1], pa.int64()).cast(pa.timestamp("ns", "Europe/Berlin")),
    ],
)
def test_it_was_enqueued_when_the_file_says(name: str, at: pa.Array) -> None:
    for table in ({"Body": [b"x"], name: at}, {"x": [1], name: at}):
        assert [each.enqueued_ms for each in records(read(parquet(table)))] == [AT]


def test_rows_of_anything_else_are_json_objects() -> None:
    inner = pa.struct([("at", pa.timestamp("ns")), ("tags", pa.list_(pa.binary()))])
    table = pa.table(
        {
            "text": ["é\n"],
            "number": [2**62],
            "ratio": [0.5],
            "flag": [True],
            "nothing": pa.nulls(1),
            "price": [Decimal("1.50")],
            "day": [date(2020, 6, 12)],
            "at": pa.array([WHEN], pa.timestamp("ms")),
            "nano": pa.array([AT * 1_000_000 + 123_456_789]).cast(pa.timestamp("ns", "UTC")),
            "bytes": [b"abc"],
            "other": [b"\xff"],
            "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            "inner": pa.array([{"at": WHEN, "tags": [b"x", None]}], inner),
            "Body": pa.array([{"a": 1}]),
        }
    )
    assert rows(parquet(table)) == [
        {
            "text": "é\n",
            "number": 2**62,
            "ratio": 0.5,
            "flag": True,
            "nothing": None,
            "price": 1.5,
            "day": "2020-06-12",
            "at": "2020-06-12T18:32:34Z",
            "nano": "2020-06-12T18:32:34.123456Z",
            "bytes": "abc",
            "other": "/w==",
            "map": {"a": 1},
            "inner": {"at": "2020-06-12T18:32:34Z", "tags": ["x", None]},
            "Body": {"a": 1},
        }
    ]


@pytest.mark.parametrize("size", [0, 1, 201])
def test_chunks_are_bounded_and_a_file_may_be_empty(size: int) -> None:
    chunks = read(parquet({"Body": pa.array([b"%d" % n for n in range(size)], pa.binary())}))
    assert bodies(chunks) == [b"%d" % n for n in range(size)]
    assert all(len(chunk.records) <= 200 for chunk in chunks)
    assert unread(chunks) == []


@given(
    st.lists(st.binary(max_size=9), max_size=900),
    st.sampled_from([1, 7, 250, 1_000]),
    st.sampled_from(["none", "snappy", "gzip", "zstd"]),
)
@settings(max_examples=40, deadline=None)
def test_reading_goes_on_from_every_chunk_at_the_same_addresses(
    some: list[bytes], group: int, codec: str
) -> None:
    group = max(group, len(some) // 50)
    table = {"Body": pa.array(some, pa.binary())}
    data = parquet(table, row_group_size=group, compression=codec)
    chunks = read(data, number=3)
    whole = records(chunks)
    assert bodies(chunks) == some
    assert unread(chunks) == []
    assert [each.sequence for each in whole] == [address(3, n) for n in range(len(some))]
    for chunk in chunks[:2] + chunks[-2:]:
        assert chunk.place is not None
        assert records(read(data, number=3, place=chunk.place)) == whole[chunk.place.number :]
        assert whole[chunk.place.number] == chunk.records[0]


def groups(sizes: Sequence[int]) -> tuple[bytes, list[int]]:
    """A file of row groups, and where each begins."""
    buffer = io.BytesIO()
    schema = pa.schema([("Body", pa.binary())])
    number = 0
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    with pq.ParquetWriter(buffer, schema, **options) as writer:
        for size in sizes:
            some = [b"body %d" % n for n in range(number, number + size)]
            writer.write_table(pa.table({"Body": pa.array(some, pa.binary())}, schema))
            number += size
    data = buffer.getvalue()
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    columns = [metadata.row_group(n).column(0) for n in range(len(sizes))]
    return data, [column.data_page_offset for column in columns]


def test_a_corrupt_row_group_is_named_and_the_others_read_at_their_own_addresses() -> None:
    data, starts = groups([10, 20, 30])
    wrong = bytearray(data)
    wrong[starts[1] + 100] ^= 0xFF
    chunks = read(bytes(wrong))
    assert [each.sequence for each in records(chunks)] == [*range(10), *range(30, 60)]
    assert bodies(chunks)[10] == b"body 30"
    [lost] = unread(chunks)
    assert (lost.offset, lost.size, lost.records) == (0, len(data), 20)
    assert lost.why.startswith("row group 1: not to be read as Parquet: ")
    assert lost.why.isprintable()


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1" + b"x" * 50 + b"PAR1", b"PARE" + bytes(99)])
def test_without_a_footer_the_file_is_unread(data: bytes) -> None:
    [lost] = unread(read(data))
    assert (lost.url, lost.offset, lost.size, lost.records) == (URL, 0, len(data), -1)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_of_a_damaged_file_nothing_else_is_read_and_nothing_is_silent(data: st.DataObject) -> None:
    file, _ = groups([5, 5])
    footer = len(file) - 8 - int.from_bytes(file[-8:-4], "little")  # it has no checksum
    wrong = bytearray(file)
    at = data.draw(st.integers(0, len(file) - 1))
    if cut := data.draw(st.booleans()):
        del wrong[at:]
    else:
        wrong[at] ^= data.draw(st.integers(1, 255))
    chunks = read(bytes(wrong))
    found = {each.sequence: each.body for each in records(chunks)}
    if wrong and len(found) < 10:
        assert unread(chunks)
    if cut or at < footer:
        assert found.items() <= {n: b"body %d" % n for n in range(10)}.items()


class Spoilt(io.BytesIO):
    """A file whose storage fails after its first read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 3:
            raise OSError("the storage is away")
        return super().read(size)


def test_what_the_storage_raises_is_raised() -> None:
    data, _ = groups([500, 500, 500])
    for reads in range(4):
        file = Spoilt(data)
        file.reads = reads
        with pytest.raises(OSError, match="the storage is away"):
            [*FORMAT.read(file, WHOLE, 0)]
