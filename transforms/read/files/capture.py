"""Event Hubs Capture, as it writes Avro object container files; and whatever has a `Body` like it.

A block is delivered whole or not at all: a record's address is the same on every reading. After
what cannot be read, reading goes on behind the next sync marker, whoever reads and from wherever.

Sources: Microsoft's "Event Hubs Capture" documentation; Apache Avro 1.12's specification, "Binary
Encoding" and "Object Container Files".
"""

from __future__ import annotations

import bz2
import functools
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple

import msgspec

from schemas.batch import Record
from schemas.kinds._base import millis, moment
from transforms.delivery.line import printable
from transforms.read.files.base import Chunk, FileFormat, Part, Place, Unread

__all__ = ["FORMAT", "TRUNCATED", "HubChunk", "enqueued", "first_sequence", "hub_records"]

TRUNCATED = "the file ends in the middle of a block"
_UNMARKED = "no sync marker where a block should end"
_LARGE = "a block of more than 64 MiB"

_MAGIC = b"Obj\x01"
_SYNC = 16
_BLOCK_BYTES = 64 * 1024 * 1024  # unpacked
_BLOCK_RECORDS = 1_000_000
_DICTIONARY = 128 * 1024 * 1024  # what unpacking may keep at hand
_HEADER_BYTES = 1024 * 1024
_LONGS = 20  # two of Avro's longs
_CHUNK_RECORDS = 100
_CHUNK_BYTES = 1024 * 1024
_CHUNK_BLOCKS = 100
_WINDOW = 1024 * 1024
_TIME = "EnqueuedTimeUtc"
_TIME_SAID = b"x-opt-enqueued-time"

_Skip = Callable[[bytes, int], int]
"""Where a value that begins there ends. Raises IndexError, KeyError or ValueError for what is
none; that it runs over the end of its block is told by where the block's last record ends."""


class _Refused(Exception):
    """Why a file, or a block, is not read."""


# Avro's binary encoding


def _long(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(data, at)
    if size < 0:
        raise ValueError("a length is negative")
    return data[at : at + size], at + size


def _skip_long(data: bytes, at: int) -> int:
    while data[at] > 0x7F:
        at += 1
    return at + 1


def _skip_bytes(data: bytes, at: int) -> int:
    size = data[at]
    if size & 0x81:  # it is of two bytes or more, or negative
        return _bytes(data, at)[1]
    return at + 1 + (size >> 1)


def _fixed(size: int) -> _Skip:
    return lambda data, at: at + size


_PRIMITIVES: dict[str, _Skip] = {
    "null": _fixed(0),
    "boolean": _fixed(1),
    "int": _skip_long,
    "long": _skip_long,
    "float": _fixed(4),
    "double": _fixed(8),
    "bytes": _skip_bytes,
    "string": _skip_bytes,
}


def _union(branches: list[_Skip]) -> _Skip:
    table = {2 * number: skip for number, skip in enumerate(branches[:64])}
    return lambda data, at: table[data[at]](data, at + 1)


def _array(item: _Skip) -> _Skip:
    def skip(data: bytes, at: int) -> int:
        while data[at]:
            count, at = _count(data, at)
            for _ in range(count):
                end = item(data, at)
                if end == at:
                    break  # items of no bytes
                at = end
        return at + 1

    return skip


def _count(data: bytes, at: int) -> tuple[int, int]:
    """How many items follow; before them may be said how long they are."""
    count, at = _long(data, at)
    return (count, at) if count >= 0 else (-count, _skip_long(data, at))


def _map(value: _Skip) -> _Skip:
    return _array(lambda data, at: value(data, _skip_bytes(data, at)))


def _record(fields: list[_Skip]) -> _Skip:
    def skip(data: bytes, at: int) -> int:
        for field in fields:
            at = field(data, at)
        return at

    return skip


def _skip(schema: Any, names: dict[str, _Skip], space: str = "") -> _Skip:
    """Raises KeyError, TypeError or ValueError for what is no schema."""
    if isinstance(schema, list):
        return _union([_skip(branch, names, space) for branch in schema])
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return _PRIMITIVES[schema]
        name = schema if "." in schema or not space else f"{space}.{schema}"
        if name not in names:
            raise ValueError(f"a type {schema} that is not there")
        return lambda data, at: names[name](data, at)
    kind = schema["type"]
    if kind in ("array", "map"):
        held = _skip(schema["items" if kind == "array" else "values"], names, space)
        return _array(held) if kind == "array" else _map(held)
    if kind not in ("record", "error", "enum", "fixed"):
        return _skip(kind, names, space)
    name = str(schema["name"])
    if "." not in name and (space := schema.get("namespace", space)):
        name = f"{space}.{name}"
    space = name.rpartition(".")[0]
    if kind == "fixed":
        names[name] = _fixed(_natural(schema["size"]))
    elif kind == "enum":
        names[name] = _skip_long
    else:
        names[name] = _skip_long  # until its fields are known, which may name it
        names[name] = _record([_skip(field["type"], names, space) for field in schema["fields"]])
    return names[name]


def _natural(size: Any) -> int:
    if not isinstance(size, int) or size < 0:
        raise ValueError("a size is none")
    return size


# What of a record is read

_Take = Callable[[bytes, int], tuple[Any, int]]


def _take(schema: Any, kinds: dict[str, _Take]) -> _Take | None:
    """Reads a value of one of these kinds, or null as None; no reader: it may be of another."""
    branches = schema if isinstance(schema, list) else [schema]
    found = [{"null": _nothing, **kinds}.get(_kind(branch)) for branch in branches[:64]]
    takes = {2 * number: take for number, take in enumerate(found) if take is not None}
    if len(takes) < len(branches):
        return None
    if not isinstance(schema, list):
        return takes[0]
    return lambda data, at: takes[data[at]](data, at + 1)


def _nothing(data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _kind(schema: Any) -> str:
    """A type's name, with its unit if it is a time."""
    if not isinstance(schema, dict):
        return schema if isinstance(schema, str) else ""
    kind = schema.get("type")
    if kind == "long" and "timestamp-" in str(schema.get("logicalType", "")):
        return f"long {schema['logicalType'].rpartition('-')[2]}"
    return kind if isinstance(kind, str) else _kind(kind)


def _scaled(divisor: int) -> _Take:
    def take(data: bytes, at: int) -> tuple[int, int]:
        value, at = _long(data, at)
        return value // divisor, at

    return take


_TEXTS: dict[str, _Take] = {"bytes": _bytes, "string": _bytes}
_TIMES: dict[str, _Take] = {
    "string": _bytes,
    "long": _long,
    "long millis": _long,
    "long micros": _scaled(1_000),
    "long nanos": _scaled(1_000_000),
}
_INTEGERS: dict[str, _Take] = {"long": _long, "int": _long}
_NEVER = 253_370_764_800_000  # the year 9999


# Times are told by their minute, which is understood once: by all of its text but the seconds.
_MINUTES: dict[bytes, int] = {}
_SECONDS = {b"%02d" % number: number * 1000 for number in range(60)}
_MILLIS = {b"Z": 0, **{b".%03d" % number: number for number in range(1000)}}
_ISO = re.compile(rb"(.{16}:)\d\d(?:\.\d+)?Z")  # 2020-06-12T18:32:34.123Z
_OWN = re.compile(rb"(.{14,19}:)\d\d( [AP]M)")  # 6/12/2020 6:32:34 PM, as Capture itself writes it


def enqueued(value: bytes | int | None) -> int:
    """A time as Capture's writers put it, in milliseconds since the epoch; 0: it says none."""
    if not isinstance(value, bytes):
        return value if value and 0 < value < _NEVER else 0
    try:
        if value.endswith(b"Z"):
            return _MINUTES[value[:17]] + _SECONDS[value[17:19]] + _MILLIS[value[19:23]]
        return _MINUTES[value[:-5] + value[-3:]] + _SECONDS[value[-5:-3]]
    except KeyError:
        pass
    found = _written(value)
    if found and (form := _ISO.fullmatch(value) or _OWN.fullmatch(value)):
        if len(_MINUTES) > 10_000:
            _MINUTES.clear()
        _MINUTES[b"".join(form.groups())] = found // 60_000 * 60_000
    return found


def _written(text: bytes) -> int:
    try:
        return millis(moment(text.decode()))
    except (ValueError, OverflowError):
        return 0


# Most fields before a body are short, and what is short is a regular language: one match passes
# over them all. Each alternative begins with another byte, so there is one way to match, if any.

_SHORT = 64  # lengths of one byte
_FEW = 8  # entries of a map
_LONG = 250_000  # bytes of a pattern
_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_STRING = b"(?:%s)" % b"|".join(b"\\x%02x.{%d}" % (2 * n, n) for n in range(_SHORT))
_PATTERNS: dict[str, bytes] = {
    "null": b"",
    "boolean": b".",
    "int": _VARINT,
    "long": _VARINT,
    "float": b".{4}",
    "double": b".{8}",
    "bytes": _STRING,
    "string": _STRING,
}


def _pattern(schema: Any) -> bytes:
    """What matches short values of this schema. Raises KeyError or TypeError: there is none."""
    if isinstance(schema, list):
        branches = enumerate(_pattern(branch) for branch in schema[:_SHORT])
        return b"(?:%s)" % b"|".join(b"\\x%02x%s" % (2 * n, one) for n, one in branches)
    if isinstance(schema, str):
        return _PATTERNS[schema]
    if schema["type"] != "map":
        return _PATTERNS[schema["type"]]
    if isinstance(schema["values"], dict):
        raise TypeError("maps of maps would be long")
    entry = _STRING + _pattern(schema["values"])
    entries = (b"\\x%02x(?:%s){%d}\\x00" % (2 * n, entry, n) for n in range(1, _FEW))
    return b"(?:\\x00|%s)" % b"|".join(entries)


def _before(fields: Sequence[tuple[str, Any]], body: Any) -> re.Pattern[bytes] | None:
    """What matches a record up to its body's length, and captures its time. None: nothing does."""
    try:
        parts = [(name, _pattern(kind)) for name, kind in fields]
    except (KeyError, TypeError):
        return None
    if isinstance(body, list):
        given = [n for n, branch in enumerate(body[:_SHORT]) if _kind(branch) != "null"]
        parts.append(("", b"[%s]" % b"".join(b"\\x%02x" % (2 * n) for n in given)))
    whole = b"".join(b"(%s)" % one if name == _TIME else one for name, one in parts)
    if _TIME not in dict(parts):
        whole += b"()"
    return re.compile(whole, re.DOTALL) if len(whole) < _LONG else None


class _Layout:
    """Where in a record of this schema lies what is read of it.

    Raises _Refused for what is not of Event Hubs Capture.
    """

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise _Refused("not Event Hubs Capture: the schema is no record's")
        types = {field["name"]: field["type"] for field in schema["fields"]}
        if "Body" not in types:
            has = ", ".join(str(name)[:40] for name in [*types][:10]) or "no fields"
            raise _Refused(f"not Event Hubs Capture: the schema has {has}, no Body")
        body = _take(types["Body"], _TEXTS)
        if body is None:
            raise _Refused("not Event Hubs Capture: the Body is neither bytes nor text")
        self._body = body
        names: dict[str, _Skip] = {}
        space = str(schema.get("namespace") or str(schema["name"]).rpartition(".")[0])
        self._skips = {f["name"]: _skip(f["type"], names, space) for f in schema["fields"]}
        self._time = _take(types.get(_TIME), _TIMES)
        self._texts = _kind(types.get(_TIME)) == "string"
        *before, final = types.items()
        self._before = _before(before, types["Body"]) if final[0] == "Body" else None

        said = types.get("SystemProperties")
        of = said["values"] if isinstance(said, dict) and said["type"] == "map" else None
        others = dict.fromkeys(_PRIMITIVES, _nothing)
        self._said = _take(of, {**others, **_TIMES})
        self._skip_said = _skip(of, names, space) if self._said else _skip_long
        self._sequence = _take(types.get("SequenceNumber"), _INTEGERS)
        self._offset = _take(types.get("Offset"), _TEXTS)

    @property
    def numbered(self) -> bool:
        return self._sequence is not None

    def records(
        self, data: bytes, end: int, count: int, number: int, at_ms: int
    ) -> tuple[list[Record], list[int]]:
        """Of a block that ends there, and where each begins. Raises what a _Skip does, and
        ValueError if the last ends elsewhere.

        number: of the first. at_ms: the time of those that say none.
        """
        match = self._before.match if self._before else None
        found: list[Record] = []
        starts: list[int] = []
        last = b""
        known = at = 0
        for sequence in range(number, number + count):
            starts.append(at)
            before = match(data, at, end) if match else None
            if before is None:
                when, body, at = self._slowly(data, at)
            else:
                when = before[1]
                at = before.end()
                size = data[at]
                if size & 0x81 == 0x80 and (more := data[at + 1]) < 0x80:
                    start = at + 2  # a length of two bytes: most are
                    at = start + ((size & 0x7F | more << 7) >> 1)
                    body = data[start:at]
                else:
                    body, at = _bytes(data, at)
            if when != last:
                last, known = when, self._when(when)
            ms = known or self._time_said(data, starts[-1]) or at_ms
            found.append(Record(sequence, 0, ms, body))
        if at != end:
            raise ValueError("they do not fill their block")
        return found, starts

    def _slowly(self, data: bytes, at: int) -> tuple[bytes, bytes, int]:
        """The record that begins there: its time, its body, and where it ends."""
        when = body = b""
        for name, skip in self._skips.items():
            start, at = at, skip(data, at)
            if name == "Body":
                body = self._body(data, start)[0] or b""
            elif name == _TIME:
                when = data[start:at]
        return when, body, at

    def _when(self, encoded: bytes) -> int:
        if self._texts:
            return enqueued(encoded[1:])
        return enqueued(self._time(encoded, 0)[0]) if encoded and self._time else 0

    def _field(self, name: str, data: bytes, at: int) -> int:
        """Where it begins, of the record that begins there."""
        for field, skip in self._skips.items():
            if field == name:
                break
            at = skip(data, at)
        return at

    def _time_said(self, data: bytes, at: int) -> int:
        """By the system properties of the record that begins there; 0: they do not."""
        if self._said is None:
            return 0
        at = self._field("SystemProperties", data, at)
        while data[at]:
            count, at = _count(data, at)
            for _ in range(count):
                key, at = _bytes(data, at)
                if key == _TIME_SAID:
                    return enqueued(self._said(data, at)[0])
                at = self._skip_said(data, at)
        return 0

    def numbers(self, data: bytes, starts: list[int]) -> tuple[list[int], str]:
        """The hub's own of records that begin there, and the hub's offset of the last."""
        assert self._sequence is not None
        take = self._sequence
        found = [take(data, self._field("SequenceNumber", data, at))[0] for at in starts]
        if not starts or self._offset is None:
            return found, ""
        offset: bytes | None = self._offset(data, self._field("Offset", data, starts[-1]))[0]
        return found, (offset or b"").decode("ascii", "replace")


@functools.lru_cache(64)
def _layout(schema: bytes) -> _Layout:
    try:
        return _Layout(msgspec.json.decode(schema))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _Refused(f"its schema cannot be read: {error}") from error


# Codecs: what unpacks a block, to no more than a block may have


try:
    _deflate = import_module("isal.isal_zlib")  # the same, in less than half the time
except ImportError:
    _deflate = zlib


def _inflate(data: memoryview) -> bytes:
    unpacker = _deflate.decompressobj(-15)
    found = unpacker.decompress(data, _BLOCK_BYTES + 1)
    # Python's writers leave some of zlib's checksum behind.
    return _whole(found, unpacker.eof and len(unpacker.unused_data) <= 4)


def _bunzip2(data: memoryview) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    found = unpacker.decompress(data, _BLOCK_BYTES + 1)
    return _whole(found, unpacker.eof and not unpacker.unused_data)


def _unxz(data: memoryview) -> bytes:
    unpacker = lzma.LZMADecompressor(memlimit=_DICTIONARY)
    found = unpacker.decompress(data, _BLOCK_BYTES + 1)
    return _whole(found, unpacker.eof and not unpacker.unused_data)


def _unzstd(data: memoryview) -> bytes:
    import zstandard  # comes with Beam, too

    unpacker = zstandard.ZstdDecompressor(max_window_size=_DICTIONARY)
    try:
        with unpacker.stream_reader(data, read_across_frames=True) as stream:
            return _whole(stream.read(_BLOCK_BYTES + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _unsnap(data: memoryview) -> bytes:
    arrow = import_module("pyarrow")  # slow to import; comes with Beam
    packed, checksum = bytes(data[:-4]), data[-4:]
    size = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(packed[: _skip_long(packed, 0)]))
    if size > _BLOCK_BYTES:
        raise _Refused(_LARGE)
    found: bytes = arrow.Codec("snappy").decompress(packed, size, asbytes=True)
    if zlib.crc32(found).to_bytes(4, "big") != checksum:
        raise ValueError("its checksum is another")
    return found


def _whole(found: bytes, ended: bool = True) -> bytes:
    if len(found) > _BLOCK_BYTES:
        raise _Refused(_LARGE)
    if not ended:
        raise ValueError("it ends in the middle")
    return found


_CODECS: dict[bytes, Callable[[memoryview], bytes] | None] = {
    b"null": None,
    b"deflate": _inflate,
    b"bzip2": _bunzip2,
    b"xz": _unxz,
    b"zstandard": _unzstd,
    b"snappy": _unsnap,
}
_UNPACKING = (
    _deflate.error,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    IndexError,
    ValueError,
    MemoryError,
)
_DECODING = (IndexError, KeyError, ValueError, RecursionError, OverflowError)


def _unpacked(unpack: Callable[[memoryview], bytes], data: memoryview) -> bytes:
    """Raises _Refused."""
    try:
        return unpack(data)
    except ImportError as error:
        raise _Refused(f"its codec needs the package {error.name}") from error
    except _UNPACKING as error:
        raise _Refused(f"a block cannot be unpacked: {error}") from error


# The container


class _Header(NamedTuple):
    end: int
    sync: bytes
    layout: _Layout
    unpack: Callable[[memoryview], bytes] | None


def _header(file: BinaryIO, hub: bool) -> _Header:
    """Raises _Refused. hub: the schema must have the hub's own numbers."""
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
            raise _Refused(f"its header cannot be read: {error}") from error
        if len(data) < size:
            raise _Refused("the file ends in its header")
    else:
        raise _Refused("its header is longer than 1 MiB")
    codec = meta.get(b"avro.codec") or b"null"
    if codec not in _CODECS:
        raise _Refused(f"its codec is not known: {codec[:40].decode('ascii', 'replace')}")
    layout = _layout(meta.get(b"avro.schema", b""))
    if hub and not layout.numbered:
        raise _Refused("not Event Hubs Capture: the schema has no SequenceNumber")
    return _Header(at + _SYNC, sync, layout, _CODECS[codec])


def _meta(data: bytes) -> tuple[dict[bytes, bytes], int]:
    if not data.startswith(_MAGIC):
        raise ValueError("not an Avro file")
    found: dict[bytes, bytes] = {}
    at = len(_MAGIC)
    while data[at]:
        count, at = _count(data, at)
        for _ in range(count):
            key, at = _bytes(data, at)
            found[key], at = _bytes(data, at)
            if at > len(data):
                raise IndexError
    return found, at + 1


class _Block(NamedTuple):
    """The records between `at` and `end`; or the two places between which none could be read."""

    at: int
    end: int
    number: int  # of its first record, in the part
    records: list[Record]
    bytes: int = 0  # unpacked
    offset: str = ""  # the hub's own, of the last
    unread: Unread | None = None


class _Container:
    """A file's blocks that begin in a part. hub: their records have the hub's own numbers."""

    def __init__(self, file: BinaryIO, part: Part, base: int = 0, hub: bool = False) -> None:
        self._file = file
        self._part = part
        self._base = base
        self._hub = hub
        file.seek(0, os.SEEK_END)
        self._size = file.tell()
        self._stop = self._size if part.stop < 0 else min(part.stop, self._size)

    def blocks(self, place: Place | None = None) -> Iterator[_Block]:
        start, number = place or (self._part.start, 0)
        if start < self._stop:
            try:
                header = _header(self._file, self._hub)
            except _Refused as why:
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

    def _block(self, header: _Header, at: int, number: int) -> _Block:
        count = -1
        try:
            count, start, size = self._frame(at)
            data = self._packed(header, at + start, size)
            end = at + start + size + _SYNC
            if count > _BLOCK_RECORDS:
                raise _Refused(f"a block of more than {_BLOCK_RECORDS:,} records")
            if header.unpack is not None:
                data = _unpacked(header.unpack, memoryview(data)[:size])
                size = len(data)
            records, offset = self._records(header.layout, data, size, count, number)
            return _Block(at, end, number, records, size, offset)
        except _Refused as refused:
            why = str(refused)
        following = self._behind_sync(header.sync, at, self._size)
        if why == TRUNCATED and following is not None:
            why = _UNMARKED
        end = self._size if following is None else following
        believed = why != _UNMARKED and 0 <= count <= end - at
        return self._unread(at, end, number, why, count if believed else -1)

    def _frame(self, at: int) -> tuple[int, int, int]:
        """How many records a block has, how far behind its own beginning they begin, and how many
        bytes they are. Raises _Refused."""
        self._file.seek(at)
        head = self._file.read(_LONGS)
        try:
            count, start = _long(head, 0)
            size, start = _long(head, start)
        except IndexError:
            raise _Refused(TRUNCATED) from None
        except ValueError:
            raise _Refused(_UNMARKED) from None
        if count < 0 or size < 0:
            raise _Refused(_UNMARKED)
        return count, start, size

    def _packed(self, header: _Header, at: int, size: int) -> bytes:
        """A block's bytes, and the marker behind them. Raises _Refused."""
        end = at + size + _SYNC
        if end > self._size:
            raise _Refused(TRUNCATED)
        fits = size <= _BLOCK_BYTES
        self._file.seek(at if fits else end - _SYNC)
        data = self._file.read(size + _SYNC if fits else _SYNC)
        if not data.endswith(header.sync):
            raise _Refused(_UNMARKED)
        if not fits:
            raise _Refused(_LARGE)
        return data

    def _records(
        self, layout: _Layout, data: bytes, size: int, count: int, number: int
    ) -> tuple[list[Record], str]:
        """Raises _Refused."""
        first = self._base + number
        try:
            records, starts = layout.records(data, size, count, first, self._part.at_ms)
            if not self._hub:
                return records, ""
            numbers, offset = layout.numbers(data, starts)
        except _DECODING as error:
            raise _Refused("the records of a block cannot be decoded") from error
        for record, own in zip(records, numbers, strict=True):
            record.sequence = own
        return records, offset

    def _unread(self, at: int, end: int, number: int, why: str, count: int = -1) -> _Block:
        unread = Unread(self._part.url, at, end - at, printable(why), count)
        return _Block(at, end, number, [], unread=unread)


class _Gathered(NamedTuple):
    """Successive blocks."""

    blocks: list[_Block]

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


def _gather(blocks: Iterator[_Block]) -> Iterator[_Gathered]:
    """Blocks may be as small as one record."""
    gathered: list[_Block] = []
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
    for found in _gather(_Container(file, part, hub=True).blocks()):
        offset = next((block.offset for block in reversed(found.blocks) if block.records), "")
        yield HubChunk(found.records, offset, found.end, found.unread)


def first_sequence(file: BinaryIO) -> int | None:
    """The hub's number of the first record that can be read; None: there is none."""
    blocks = _Container(file, Part(""), hub=True).blocks()
    return next((block.records[0].sequence for block in blocks if block.records), None)


class Capture(FileFormat):
    name = "Event Hubs Capture (Avro)"
    cuts = True

    def tells(self, head: bytes, url: str) -> bool:
        return head.startswith(_MAGIC)

    def read(
        self, file: BinaryIO, part: Part, base: int, place: Place | None = None
    ) -> Iterator[Chunk]:
        for found in _gather(_Container(file, part, base).blocks(place)):
            records, unread = found.records, found.unread
            for first in range(0, len(records) or 1, _CHUNK_RECORDS):
                some = records[first : first + _CHUNK_RECORDS]
                yield Chunk(some, found.place, found.end, () if first else unread)


FORMAT = Capture()
