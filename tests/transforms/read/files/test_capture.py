"""Event Hubs Capture's files: read whole, in parts, damaged, and as others write them."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import Record
from tests.transforms.read.files.apache.writers import (
    JAVA_ROWS,
    PYTHON_CODECS,
    java_body,
    write_java,
    write_python,
)
from transforms.capture import CAPTURE_SCHEMA, row, write_capture
from transforms.read.files import _avro, _avro_codecs, formats, tell
from transforms.read.files.base import Chunk, Part, Unread, address
from transforms.read.files.capture import (
    FORMAT,
    TRUNCATED,
    enqueued,
    first_sequence,
    hub_records,
)

EPOCH = datetime(1970, 1, 1)
AT = 1_591_986_754_000  # 2020-06-12T18:32:34Z
SYNC = bytes(range(200, 216))
URL = "file:///history/0.avro"
WHOLE = Part(URL)
MAP = {"type": "map", "values": ["long", "double", "string", "bytes"]}


def _snappy(data: bytes) -> bytes:
    packed: bytes = pa.Codec("snappy").compress(data, asbytes=True)
    return packed + zlib.crc32(data).to_bytes(4, "big")


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK = {
    "null": bytes,
    "deflate": _deflate,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": zstandard.ZstdCompressor(write_checksum=True).compress,
    "snappy": _snappy,
}
CHECKED = ("bzip2", "xz", "zstandard", "snappy")  # that hold a checksum


def long(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def header(schema: Any = CAPTURE_SCHEMA, codec: str = "null", **more: bytes) -> bytes:
    meta = {"avro.codec": codec.encode(), "avro.schema": json.dumps(schema).encode(), **more}
    entries = [long(len(k)) + k.encode() + long(len(v)) + v for k, v in meta.items()]
    return b"Obj\x01" + long(len(entries)) + b"".join(entries) + b"\0" + SYNC


def encoded(rows: Iterable[Mapping[str, Any]], schema: Any = CAPTURE_SCHEMA) -> bytes:
    parsed = fastavro.parse_schema(schema)
    buffer = io.BytesIO()
    for each in rows:
        fastavro.schemaless_writer(buffer, parsed, each)
    return buffer.getvalue()


def block(data: bytes, count: int, codec: str = "null") -> bytes:
    packed = PACK[codec](data)
    return long(count) + long(len(packed)) + packed + SYNC


def avro(
    blocks: Sequence[Sequence[Mapping[str, Any]]],
    schema: Any = CAPTURE_SCHEMA,
    codec: str = "null",
) -> bytes:
    parts = [block(encoded(rows, schema), len(rows), codec) for rows in blocks]
    return header(schema, codec) + b"".join(parts)


def event(body: bytes | None, number: int = 7, **more: Any) -> dict[str, Any]:
    return {
        "SequenceNumber": number,
        "Offset": str(64 * number),
        "EnqueuedTimeUtc": "6/12/2020 6:32:34 PM",
        "SystemProperties": {},
        "Properties": {},
        "Body": body,
        **more,
    }


def events(*bodies: bytes) -> list[dict[str, Any]]:
    return [event(body, number) for number, body in enumerate(bodies)]


def read(data: bytes, part: Part = WHOLE, number: int = 0, **more: Any) -> list[Chunk]:
    return [*FORMAT.read(io.BytesIO(data), part, address(number, 0), **more)]


def records(chunks: Iterable[Chunk]) -> list[Record]:
    return [record for chunk in chunks for record in chunk.records]


def bodies(chunks: Iterable[Chunk]) -> list[bytes]:
    return [record.body for record in records(chunks)]


def unread(chunks: Iterable[Chunk]) -> list[Unread]:
    return [each for chunk in chunks for each in chunk.unread]


def whole(data: bytes) -> list[bytes]:
    """The bodies of a file in which nothing is wrong."""
    chunks = read(data)
    assert unread(chunks) == []
    return bodies(chunks)


# What is in the file


def test_it_is_told_by_its_bytes() -> None:
    assert tell(avro([[event(b"{}")]])[:64], "file:///whatever.json") is FORMAT
    assert FORMAT in formats()
    assert not FORMAT.tells(b"Obj", "0.avro")


def test_records_come_in_order_with_their_addresses_and_times() -> None:
    found = records(read(avro([events(b"a", b"b"), events(b"c")]), number=3))
    assert found == [
        Record(address(3, 0), 0, AT, b"a"),
        Record(address(3, 1), 0, AT, b"b"),
        Record(address(3, 2), 0, AT, b"c"),
    ]


def test_what_alertbeam_set_aside_is_read() -> None:
    at = [1_700_000_000_123, 1_700_000_059_999]
    rows = [row(Record(n, 0, ms, b"%d" % n), {"sink": "siem"}) for n, ms in enumerate(at)]
    found = records(read(write_capture(rows)))
    assert [(each.enqueued_ms, each.body) for each in found] == [(at[0], b"0"), (at[1], b"1")]


@pytest.mark.parametrize("data", [b"", header(), header() + block(b"", 0)])
def test_an_empty_file_is_no_error(data: bytes) -> None:
    assert whole(data) == []
    assert first_sequence(io.BytesIO(data)) is None


def test_an_event_without_a_body_does_not_vanish() -> None:
    assert whole(avro([[event(None), event(b"x"), event(b"")]])) == [b"", b"x", b""]


def test_a_large_block_is_several_chunks_from_which_reading_goes_on() -> None:
    data = avro([events(b"first"), events(*[b"%d" % n for n in range(1_000)])])
    chunks = read(data)
    assert max(len(chunk.records) for chunk in chunks) <= 200
    assert len(bodies(chunks)) == 1_001
    for chunk in chunks:
        again = records(read(data, place=chunk.place))
        assert again == records(chunks)[chunk.place.number :] if chunk.place else False
        assert chunk.records[0] in again


def test_small_blocks_are_gathered() -> None:
    data = avro([events(b"%d" % n) for n in range(250)])
    assert len(read(data)) <= 5


# Schemas


VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=80),
    st.binary(max_size=80),
)
PROPERTIES = st.dictionaries(st.text(max_size=70), VALUES, max_size=9)
NESTED = {
    "type": "record",
    "name": "Nested",
    "fields": [
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 3}},
        {"name": "flag", "type": "boolean"},
        {"name": "ratio", "type": "float"},
        {"name": "inner", "type": ["null", "Nested"]},
        {"name": "ids", "type": {"type": "array", "items": "Id"}},
    ],
}


def nested(inner: Any) -> dict[str, Any]:
    return {"kind": "B", "id": b"abc", "flag": True, "ratio": 0.5, "inner": inner, "ids": [b"xyz"]}


FIELDS: dict[str, tuple[Any, Any]] = {
    "SequenceNumber": ("long", st.integers(-(2**63), 2**63 - 1)),
    "Offset": ("string", st.text(max_size=70)),
    "SystemProperties": (MAP, PROPERTIES),
    "Properties": (MAP, PROPERTIES),
    "Nested": (NESTED, st.sampled_from([nested(None), nested(nested(None))])),
    "Tags": ({"type": "map", "values": MAP}, st.dictionaries(st.text(max_size=3), PROPERTIES)),
    "Nothing": ("null", st.none()),
}
BODIES = {
    "bytes": st.binary(max_size=300),
    "string": st.text(max_size=150),
    "nullable": st.none() | st.binary(max_size=300),
    "turned": st.none() | st.binary(max_size=300),
}
BODY_TYPES: dict[str, Any] = {
    "bytes": "bytes",
    "string": {"type": "string"},
    "nullable": ["null", "bytes"],
    "turned": ["bytes", "null"],
}
TIMES: list[tuple[Any, Any]] = [
    ("string", "6/12/2020 6:32:34 PM"),
    ("string", "2020-06-12T18:32:34.0000000Z"),
    (["null", "string"], "2020-06-12T18:32:34Z"),
    ("long", AT),
    ({"type": "long", "logicalType": "timestamp-millis"}, AT),
    ({"type": "long", "logicalType": "timestamp-micros"}, AT * 1000),
]


@st.composite
def variants(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]], list[bytes]]:
    """A schema with a Body, rows, and their bodies."""
    names = draw(st.lists(st.sampled_from([*FIELDS]), unique=True))
    kind = draw(st.sampled_from([*BODIES]))
    time, at = draw(st.sampled_from(TIMES))
    order = draw(st.permutations([*names, "Body", "EnqueuedTimeUtc"]))
    types = {name: FIELDS[name][0] for name in names}
    types |= {"Body": BODY_TYPES[kind], "EnqueuedTimeUtc": time}
    fields = [{"name": name, "type": types[name]} for name in order]
    schema = {"type": "record", "name": "Any", "fields": fields}
    if draw(st.booleans()):
        schema["namespace"] = "Other.Names"
    made, expected = [], []
    for _ in range(draw(st.integers(1, 4))):
        body = draw(BODIES[kind])
        made.append(
            {"Body": body, "EnqueuedTimeUtc": at} | {name: draw(FIELDS[name][1]) for name in names}
        )
        expected.append(body.encode() if isinstance(body, str) else body or b"")
    return schema, made, expected


@given(variants())
@settings(max_examples=150, deadline=None)
def test_fields_come_in_any_order_and_may_lack_or_be_more(
    drawn: tuple[Any, list[dict[str, Any]], list[bytes]],
) -> None:
    schema, rows, expected = drawn
    chunks = read(avro([rows], schema))
    assert unread(chunks) == []
    assert [(each.enqueued_ms, each.body) for each in records(chunks)] == [
        (AT, body) for body in expected
    ]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("6/12/2020 6:32:34 PM", AT),
        ("12/6/2020 12:00:00 AM", 1_607_212_800_000),
        ("2020-06-12T18:32:34Z", AT),
        ("2020-06-12T18:32:34.5Z", AT + 500),
        ("2020-06-12T18:32:34.1234567Z", AT + 123),
        ("2020-06-12T18:32:34.123", AT + 123),
        ("2020-06-12T20:32:34.123+02:00", AT + 123),
        ("2020-06-12 18:32:34.123Z", AT + 123),
        ("06/12/2020 18:32:34", AT),
        ("6/12/2020 6:32 PM", AT - 34_000),
        ("2020-06-12T18:32:61Z", 0),
        ("6/12/2020 6:32:61 PM", 0),
        ("1/1/0001 12:00:00 AM", 0),
        ("Z", 0),
        ("M", 0),
        ("", 0),
        ("yesterday", 0),
        ("\xff", 0),
    ],
)
def test_times_are_read_as_they_are_written(text: str, ms: int) -> None:
    for _ in range(2):  # as a minute that is new, and as one that is known
        assert enqueued(text.encode("latin-1")) == ms


@given(st.datetimes(EPOCH.replace(year=1971), EPOCH.replace(year=9990)), st.integers(0, 7))
def test_a_time_is_the_same_whether_its_minute_is_known_or_not(at: datetime, digits: int) -> None:
    fraction = b"%06d0" % at.microsecond
    own = f"{at.month}/{at.day}/{at.year} {at.hour % 12 or 12}:{at:%M:%S} ".encode()
    own += b"PM" if at.hour > 11 else b"AM"
    iso = f"{at:%Y-%m-%dT%H:%M:%S}".encode() + (b"." + fraction[:digits] if digits else b"") + b"Z"
    second = (at.replace(microsecond=0) - EPOCH) // timedelta(milliseconds=1)
    for _ in range(2):
        assert enqueued(own) == second
        assert enqueued(iso) == second + int((fraction[:digits] + b"000")[:3])


def test_a_time_that_cannot_be_read_is_that_of_the_system_properties() -> None:
    said = {"x": 1.5, "y": "z", "x-opt-enqueued-time": AT}
    rows = [
        event(b"a", EnqueuedTimeUtc="?", SystemProperties=said),
        event(b"b", EnqueuedTimeUtc="?", SystemProperties={**said, "x-opt-enqueued-time": AT + 1}),
        event(b"c", EnqueuedTimeUtc="?", SystemProperties={"x-opt-enqueued-time": "6/12/2020"}),
        event(b"d", EnqueuedTimeUtc="?", SystemProperties={"x-opt-enqueued-time": 1.5}),
        event(b"e", EnqueuedTimeUtc="?"),
        event(b"f"),
    ]
    found = records(read(avro([rows]), Part(URL, at_ms=5)))
    midnight = AT // 86_400_000 * 86_400_000
    assert [each.enqueued_ms for each in found] == [AT, AT + 1, midnight, 5, 5, AT]


def test_without_any_time_it_is_the_files() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "Body", "type": "bytes"}]}
    found = records(read(avro([[{"Body": b"x"}]], schema), Part(URL, at_ms=77)))
    assert found == [Record(0, 0, 77, b"x")]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("bytes", "the schema is no record's"),
        ({"type": "record", "name": "R", "fields": []}, "the schema has no fields, no Body"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "a\nb", "type": "long"}]},
            "the schema has a b, no Body",
        ),
        (
            {"type": "record", "name": "R", "fields": [{"name": "Body", "type": "long"}]},
            "the Body is neither bytes nor text",
        ),
        ({"type": "record", "name": "R"}, "its schema cannot be read"),
        (
            {
                "type": "record",
                "name": "R",
                "fields": [{"name": "Body", "type": "bytes"}, {"name": "x", "type": "Unknown"}],
            },
            "its schema cannot be read",
        ),
    ],
)
def test_a_file_of_something_else_is_unread_and_says_so(schema: Any, why: str) -> None:
    data = header(schema) + block(b"\2\2", 1)
    [lost] = unread(read(data))
    assert (lost.url, lost.offset, lost.size) == (URL, 0, len(data))
    assert why in lost.why
    assert lost.why.isprintable()


def test_schemas_made_to_take_for_ever_do_not() -> None:
    kind: Any = "long"
    for _ in range(20):
        kind = {"type": "map", "values": kind}
    many = {"name": "many", "type": {"type": "array", "items": "null"}}
    fields = [{"name": "deep", "type": kind}, {"name": "Body", "type": "bytes"}, many]
    data = b"\0" + long(1) + b"x" + long(2**60) + b"\0"
    schema = {"type": "record", "name": "R", "fields": fields}
    assert whole(header(schema) + block(data, 1)) == [b"x"]
    nested = b"[" * 900 + b"]" * 900
    meta = header({}).replace(long(2) + b"{}", long(len(nested)) + nested)
    assert unread(read(meta + block(b"", 1)))


# Parts


ROWS = st.lists(
    st.lists(st.binary(max_size=12) | st.just(b"x" * 90), max_size=5).map(lambda all: events(*all)),
    max_size=8,
)


@given(ROWS, st.sampled_from([*PACK]), st.lists(st.integers(0, 3_000), max_size=6))
@settings(max_examples=200, deadline=None)
def test_parts_tile_a_file_however_it_is_cut(
    rows: list[list[dict[str, Any]]], codec: str, cuts: list[int]
) -> None:
    data = avro(rows, codec=codec)
    bounds = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    found = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        part = Part(URL, start, stop, size=len(data))
        chunks = read(data, part, number)
        assert unread(chunks) == []
        mine = records(chunks)
        assert [each.sequence for each in mine] == [address(number, n) for n in range(len(mine))]
        for chunk in chunks:
            assert chunk.place is not None and start <= chunk.place.offset < stop
            again = records(read(data, part, number, place=chunk.place))
            assert again == mine[chunk.place.number :]
            assert chunk.records == [] or chunk.records[0] in again
        found += mine
    assert [each.body for each in found] == [each["Body"] for some in rows for each in some]


def test_a_part_that_begins_anywhere_in_a_block_begins_with_the_next() -> None:
    first, second = block(encoded(events(b"a")), 1), block(encoded(events(b"b")), 1)
    head = len(header())
    data = header() + first + second
    for start in range(len(data) + 1):
        expected = [b"a", b"b"] if start <= head else [b"b"] if start <= head + len(first) else []
        assert bodies(read(data, Part(URL, start))) == expected
        assert (
            bodies(read(data, Part(URL, 0, start)))
            == [b"a", b"b"][: (start > head) + (start > head + len(first))]
        )


def test_a_file_that_became_shorter_says_what_is_lost() -> None:
    data = avro([events(b"a")])
    part = Part(URL, 0, len(data) + 50)
    chunks = read(data, part)
    assert bodies(chunks) == [b"a"]
    assert unread(chunks) == [Unread(URL, len(data), 50, "the file is shorter than it was")]
    behind = Part(URL, len(data) + 10, len(data) + 50)
    assert [(each.offset, each.size) for each in unread(read(data, behind))] == [
        (len(data) + 10, 40)
    ]


# Damage


def test_a_corrupt_block_is_named_and_what_is_behind_it_read() -> None:
    good, bad = block(encoded(events(b"a")), 1), bytearray(block(encoded(events(b"b", b"c")), 2))
    bad[3] = 0xFF  # in the first record
    data = header() + good + bad + good
    chunks = read(data)
    assert bodies(chunks) == [b"a", b"a"]
    at = len(header() + good)
    why = "the records of a block cannot be decoded"
    assert unread(chunks) == [Unread(URL, at, len(bad), why, 2)]
    assert [each.sequence for each in records(chunks)] == [0, 1]


def test_of_a_truncated_file_all_before_the_break_is_read() -> None:
    head = header() + block(encoded(events(b"a")), 1)
    last = block(encoded(events(b"b", b"c", b"d")), 3)
    for size in range(1, len(last)):
        chunks = read(head + last[:size])
        assert bodies(chunks) == [b"a"]
        assert unread(chunks)[0] == Unread(URL, len(head), size, TRUNCATED, 3 if size > 2 else -1)


def test_a_block_that_holds_more_or_fewer_records_than_it_says_is_named() -> None:
    some = encoded(events(b"a", b"b"))
    for count in (0, 1, 3):
        chunks = read(header() + block(some, count) + block(encoded(events(b"c")), 1))
        assert bodies(chunks) == [b"c"]
        assert unread(chunks)[0].why == "the records of a block cannot be decoded"


def test_a_size_that_leads_behind_the_end_costs_its_block_alone() -> None:
    some = encoded(events(b"a"))
    bad = long(1) + long(1_000_000) + some + SYNC
    chunks = read(header() + bad + block(some, 1))
    assert bodies(chunks) == [b"a"]
    why = "no sync marker where a block should end"
    assert unread(chunks) == [Unread(URL, len(header()), len(bad), why)]


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz"])
def test_packed_bytes_that_do_not_end_or_go_on_are_named(codec: str) -> None:
    some = encoded(events(b"a"))
    for packed in (PACK[codec](some)[:-1], PACK[codec](some) + b"12345"):
        bad = long(1) + long(len(packed)) + packed + SYNC
        chunks = read(header(codec=codec) + bad + block(some, 1, codec))
        assert bodies(chunks) == [b"a"]
        assert unread(chunks)[0].why.startswith("a block cannot be unpacked: ")
    unfinished = zlib.compressobj(wbits=-15)
    packed = unfinished.compress(some) + unfinished.flush(zlib.Z_SYNC_FLUSH)
    [lost] = unread(read(header(codec="deflate") + long(1) + long(len(packed)) + packed + SYNC))
    assert lost.why == "a block cannot be unpacked: it ends in the middle"


@pytest.mark.parametrize(
    "record",
    [
        b"\1\2x\0",  # the length of a key
        b"\2\2a\2x\1",  # of a value
        b"\0\1",  # of the body
        b"\0\x81\1",
        b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1",
    ],
)
def test_a_length_below_nothing_is_none(record: bytes) -> None:
    tags = {"name": "Tags", "type": {"type": "map", "values": ["string"]}}
    for values in (["string"], ["string", {"type": "fixed", "name": "F", "size": 1}]):
        fields = [{**tags, "type": {"type": "map", "values": values}}]
        fields.append({"name": "Body", "type": "bytes"})
        schema = {"type": "record", "name": "R", "fields": fields}
        chunks = read(header(schema) + block(record, 1) + block(b"\0\2x", 1))
        assert bodies(chunks) == [b"x"]
        assert len(unread(chunks)) == 1


def test_maps_that_say_how_long_they_are_are_read() -> None:
    entries = b"\2a\4\2x" + b"\2b\4\2y"
    tags = long(-2) + long(len(entries)) + entries + b"\2\2c\4\2z" + b"\0"
    start = b"\0" + b"\2" + b"1" + b"\2" + b"?"
    time = long(-1) + long(30) + long(19) + b"x-opt-enqueued-time" + b"\0" + long(AT) + b"\0"
    data = start + time + tags + b"\2" + b"\2x"
    [found] = records(read(header() + block(data, 1)))
    assert (found.body, found.enqueued_ms) == (b"x", AT)


def test_what_is_unread_is_said_once_though_many_records_follow() -> None:
    bad = block(b"?", 1)
    data = header() + bad + block(encoded(events(*[b"%d" % n for n in range(500)])), 500)
    chunks = read(data)
    assert len(bodies(chunks)) == 500
    assert [each.size for each in unread(chunks)] == [len(bad)]
    assert chunks[0].place is not None
    assert unread(read(data, place=chunks[0].place)) == unread(chunks)


@pytest.mark.parametrize("codec", [*PACK])
def test_a_marker_that_is_another_costs_its_block_and_the_next(codec: str) -> None:
    parts = [block(encoded(events(b"%d" % n)), 1, codec) for n in range(4)]
    parts[1] = parts[1][:-1] + b"?"
    data = header(codec=codec) + b"".join(parts)
    chunks = read(data)
    assert bodies(chunks) == [b"0", b"3"]
    at = len(header(codec=codec) + parts[0])
    why = "no sync marker where a block should end"
    assert unread(chunks) == [Unread(URL, at, len(parts[1] + parts[2]), why)]


@pytest.mark.parametrize("codec", [*PACK])
def test_a_block_that_unpacks_to_too_much_is_refused(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = events(b"x" * 50_000)
    data = avro([events(b"a"), rows, events(b"b")], codec=codec)
    assert len(whole(data)) == 3
    for module in (_avro, _avro_codecs):
        monkeypatch.setattr(module, "BLOCK_BYTES", 40_000)
    chunks = read(data)
    assert bodies(chunks) == [b"a", b"b"]
    assert [(each.why, each.records) for each in unread(chunks)] == [
        ("a block of more than 64 MiB", 1)
    ]


def test_deflate_is_read_without_isal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_avro_codecs, "_deflate", zlib)
    data = avro([events(b"a" * 99), events(b"b")], codec="deflate")
    assert whole(data) == [b"a" * 99, b"b"]
    wrong = bytearray(data)
    wrong[len(header(codec="deflate")) + 2] = 0xFF  # no kind of deflate's blocks
    assert bodies(read(bytes(wrong))) == [b"b"]


def test_a_bomb_is_not_unpacked_further_than_a_block_may_be() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(80)) + packer.flush()
    bomb = long(1) + long(len(packed)) + packed + SYNC
    chunks = read(header(codec="deflate") + bomb + block(encoded(events(b"a")), 1, "deflate"))
    assert bodies(chunks) == [b"a"]
    assert unread(chunks)[0].why == "a block of more than 64 MiB"


def test_a_block_of_too_many_records_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_avro, "_BLOCK_RECORDS", 2)
    chunks = read(avro([events(b"a"), events(b"b", b"c", b"d")]))
    assert bodies(chunks) == [b"a"]
    assert unread(chunks)[0].records == 3


def test_a_codec_that_is_not_known_is_named() -> None:
    [lost] = unread(read(header(codec="lz\n4") + block(b"x", 1)))
    assert lost.why == "its codec is not known: lz 4"


def test_a_codec_whose_package_lacks_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    [lost] = unread(read(avro([events(b"a")], codec="zstandard")))
    assert lost.why == "its codec needs the package zstandard"


def test_a_header_that_cannot_be_read_is_the_whole_part() -> None:
    data = avro([events(b"a")])
    for size in range(1, len(header())):
        [lost] = unread(read(data[:size]))
        assert (lost.offset, lost.size) == (0, size)
    [lost] = unread(read(b"Obj\x02" + data[4:], Part(URL, 100, 200)))
    assert (lost.offset, lost.size) == (100, 100)


class Spoilt(io.BytesIO):
    """A file whose storage fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the storage is away")


def test_what_the_storage_raises_is_raised() -> None:
    with pytest.raises(OSError, match="the storage is away"):
        [*FORMAT.read(Spoilt(avro([events(b"a")])), Part(URL), 0)]


JSON = st.dictionaries(st.text("abcdef", max_size=5), st.integers() | st.text(max_size=20)).map(
    lambda found: json.dumps(found).encode()
)
FILES = st.lists(st.lists(JSON, min_size=1, max_size=4), min_size=1, max_size=5)


def layout(
    made: Sequence[Sequence[bytes]], codec: str
) -> tuple[bytes, list[tuple[int, int, Sequence[bytes]]]]:
    """A file, and where its blocks lie."""
    data, found = header(codec=codec), []
    for some in made:
        rows = [event(body, n, Properties={"a": "b"}) for n, body in enumerate(some)]
        packed = block(encoded(rows), len(some), codec)
        found.append((len(data), len(data) + len(packed), some))
        data += packed
    return data, found


def blocks_of(
    chunks: Sequence[Chunk], blocks: Sequence[tuple[int, int, Sequence[bytes]]]
) -> Iterator[tuple[int, int, Sequence[bytes]]]:
    """The blocks whose bodies were delivered, and no others: whole, and in order."""
    rest = bodies(chunks)
    lost = [(each.offset, each.offset + each.size) for each in unread(chunks)]
    for start, end, some in blocks:
        if not any(first <= start < last for first, last in lost):
            assert rest[: len(some)] == some
            rest = rest[len(some) :]
            yield start, end, some
    assert rest == []


@given(FILES, st.sampled_from([*PACK]), st.data())
@settings(max_examples=150, deadline=None)
def test_of_a_file_that_is_cut_the_blocks_before_are_read(
    made: list[list[bytes]], codec: str, data: st.DataObject
) -> None:
    file, blocks = layout(made, codec)
    size = data.draw(st.integers(0, len(file)))
    chunks = read(file[:size])
    there = [each for each in blocks if each[1] <= size]
    assert bodies(chunks) == [body for _, _, some in there for body in some]
    edge = there[-1][1] if there else len(header(codec=codec))
    if 0 < size != edge:
        [lost] = unread(chunks)
        assert (lost.offset, lost.size) == (
            edge if size > edge else 0,
            size - (edge if size > edge else 0),
        )
    else:
        assert unread(chunks) == []


@given(FILES, st.sampled_from([*CHECKED, "null"]), st.data())
@settings(max_examples=300, deadline=None)
def test_of_a_file_with_a_wrong_byte_nothing_else_is_read_and_all_that_is_not_is_named(
    made: list[list[bytes]], codec: str, data: st.DataObject
) -> None:
    file, blocks = layout(made, codec)
    at = data.draw(st.integers(0, len(file) - 1))
    wrong = bytearray(file)
    wrong[at] ^= data.draw(st.integers(1, 255))
    chunks = read(bytes(wrong))
    hit = next((some for start, end, some in blocks if start <= at < end), [])
    if codec == "null" and len(bodies(chunks)) == sum(len(some) for _, _, some in blocks):
        # In a body: no codec tells. Nothing but that one differs.
        expected = [body for _, _, some in blocks for body in some]
        pairs = zip(bodies(chunks), expected, strict=True)
        different = [(got, meant) for got, meant in pairs if got != meant]
        assert len(different) <= 1
        assert all(meant in hit and len(got) == len(meant) for got, meant in different)
        return
    kept = [*blocks_of(chunks, blocks)]
    first = len(header(codec=codec))
    if at >= first:
        behind = [each for each in blocks if each[0] > at]
        assert kept[len(kept) - len(behind[1:]) :] == behind[1:]
        assert kept[: len(blocks) - len(behind) - 1] == blocks[: len(blocks) - len(behind) - 1]


@given(FILES, st.data())
@settings(max_examples=100, deadline=None)
def test_deflate_holds_no_checksum_but_damage_stays_in_its_block(
    made: list[list[bytes]], data: st.DataObject
) -> None:
    file, blocks = layout(made, "deflate")
    at = data.draw(st.integers(blocks[0][0], len(file) - 1))
    wrong = bytearray(file)
    wrong[at] ^= data.draw(st.integers(1, 255))
    chunks = read(bytes(wrong))
    before = [body for _, end, some in blocks if end <= at for body in some]
    behind = [body for start, _, some in blocks[1:] if start > at for body in some]
    assert bodies(chunks)[: len(before)] == before
    if behind and not unread(chunks):
        assert bodies(chunks)[-len(behind) :] == behind


@given(st.binary(max_size=300), st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_raises_nothing(schema: bytes, data: bytes) -> None:
    for file in (b"Obj\x01" + data, header() + data, header() + data + SYNC + data):
        read(file)
        [*hub_records(io.BytesIO(file), Part(URL))]
        first_sequence(io.BytesIO(file))
    meta = header({}).replace(long(2) + b"{}", long(len(schema)) + schema)
    assert unread(read(meta + data))


@pytest.mark.parametrize("window", [17, 64, 1024 * 1024])
def test_damage_is_the_same_however_a_file_is_cut(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_avro, "_WINDOW", window)
    parts = [block(encoded(events(b"%d" % n, b"x" * 40)), 2) for n in range(6)]
    parts[2] = parts[2][:20] + b"\xff" * 8 + parts[2][28:]
    parts[4] = parts[4][:-3] + b"???"
    data = header() + b"".join(parts)
    expected, lost = bodies(read(data)), unread(read(data))
    assert len(lost) == 2
    for cut in range(0, len(data), 11):
        for other in (cut + 13, cut + 150):
            bounds = sorted({0, cut, min(other, len(data)), len(data)})
            chunks = [
                chunk
                for start, stop in pairwise(bounds)
                for chunk in read(data, Part(URL, start, stop))
            ]
            assert bodies(chunks) == expected
            assert unread(chunks) == lost


# Joining history to the hub


def test_records_have_the_hubs_own_numbers_and_the_last_ones_offset() -> None:
    rows = [event(b"%d" % n, 5_000 + 3 * n) for n in range(300)]
    data = avro([rows[:250], [], rows[250:]])
    chunks = [*hub_records(io.BytesIO(data), Part(URL))]
    found = [record for chunk in chunks for record in chunk.records]
    assert [(each.sequence, each.body) for each in found] == [
        (each["SequenceNumber"], each["Body"]) for each in rows
    ]
    assert chunks[-1].offset == rows[-1]["Offset"]
    assert chunks[-1].read == len(data)


def test_the_offset_may_lack_but_not_the_number() -> None:
    fields = {field["name"]: field for field in CAPTURE_SCHEMA["fields"]}  # type: ignore[index]
    older = {"type": "record", "name": "R", "fields": [fields["SequenceNumber"], fields["Body"]]}
    [chunk] = hub_records(io.BytesIO(avro([events(b"x")], older)), Part(URL))
    assert (chunk.offset, chunk.records[0].sequence) == ("", 0)
    other = {"type": "record", "name": "R", "fields": [fields["Body"]]}
    [chunk] = hub_records(io.BytesIO(avro([events(b"x")], other)), Part(URL))
    assert chunk.records == []
    assert "no SequenceNumber" in chunk.unread[0].why


class Counted(io.BytesIO):
    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.taken += len(found)
        return found


def test_the_first_number_is_read_without_the_rest() -> None:
    rows = [event(b"x" * 1_000, 42 + n) for n in range(1_000)]
    file = Counted(avro([rows[n : n + 10] for n in range(0, 1_000, 10)]))
    assert first_sequence(file) == 42
    assert file.taken < 100_000 < len(file.getvalue())


def test_the_first_number_is_that_of_the_first_block_that_can_be_read() -> None:
    data = avro([[event(b"a", 1)], [event(b"b", 2)]])
    at = len(header()) + 3
    assert first_sequence(io.BytesIO(data[:at] + b"\xff" + data[at + 1 :])) == 2
    assert first_sequence(io.BytesIO(b"{}")) is None


# Files that others wrote


@pytest.mark.parametrize("codec", PYTHON_CODECS)
@pytest.mark.parametrize("every", [1, 7, 1_000])
def test_what_apaches_python_writes_is_read(tmp_path: Path, codec: str, every: int) -> None:
    rows = [
        event(
            None if n % 5 == 4 else b"%d" % n * n,
            n,
            SystemProperties={"x-opt-enqueued-time": AT, "ratio": 0.5},
            Properties={"text": "é" * n, "bytes": b"\0" * n},
        )
        for n in range(40)
    ]
    path = tmp_path / "0.avro"
    write_python(path, CAPTURE_SCHEMA, rows, codec, every)
    found = [*hub_records(io.BytesIO(path.read_bytes()), Part(URL))]
    assert [(each.sequence, each.body) for chunk in found for each in chunk.records] == [
        (each["SequenceNumber"], each["Body"] or b"") for each in rows
    ]
    assert [each for chunk in found for each in chunk.unread] == []


def test_what_apaches_java_writes_is_read(tmp_path: Path) -> None:
    fields = {field["name"]: field for field in CAPTURE_SCHEMA["fields"]}  # type: ignore[index]
    without = [fields[name] for name in fields if name != "Offset"]
    extra = {"name": "Extra", "type": ["null", "long"]}
    schemas = {
        "capture": CAPTURE_SCHEMA,
        "older": {**CAPTURE_SCHEMA, "fields": without},
        "turned": {**CAPTURE_SCHEMA, "fields": [extra, *reversed(without)]},
    }
    paths = write_java(tmp_path, schemas)
    assert len(paths) == 3 * 13
    expected = [
        (1_000 + n, java_body(n), AT // 60_000 * 60_000 + 1_000 * n) for n in range(JAVA_ROWS)
    ]
    for path in paths:
        data = path.read_bytes()
        found = [*hub_records(io.BytesIO(data), Part(URL))]
        assert [
            (each.sequence, each.body, each.enqueued_ms)
            for chunk in found
            for each in chunk.records
        ] == expected, path.name
        cut = [
            body
            for start in range(0, len(data), 4_000)
            for body in bodies(read(data, Part(URL, start, min(start + 4_000, len(data)))))
        ]
        assert cut == [body for _, body, _ in expected], path.name
    blocking = (tmp_path / "capture.null.blocking.avro").read_bytes()
    assert len(blocking) > len((tmp_path / "capture.null.16000.avro").read_bytes())
