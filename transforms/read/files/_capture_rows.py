"""How a block's records of Event Hubs Capture become ours: schemas, field orders, times.

Source: Microsoft's "Event Hubs Capture" documentation.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.batch import Record
from schemas.kinds._base import millis, moment
from transforms.read.files._avro_values import (
    PRIMITIVES,
    SHORT,
    Refused,
    Skip,
    Take,
    kind_of,
    pattern,
    read_bytes,
    read_count,
    read_long,
    read_nothing,
    skip_long,
    skipper,
    taker,
)

__all__ = ["Layout", "enqueued", "layout_of"]

_TIME = "EnqueuedTimeUtc"
_TIME_SAID = b"x-opt-enqueued-time"
_LONG = 250_000  # bytes of a pattern
_DECODING = (IndexError, KeyError, ValueError, RecursionError, OverflowError)


def _scaled(divisor: int) -> Take:
    def take(data: bytes, at: int) -> tuple[int, int]:
        value, at = read_long(data, at)
        return value // divisor, at

    return take


_TEXTS: dict[str, Take] = {"bytes": read_bytes, "string": read_bytes}
_TIMES: dict[str, Take] = {
    "string": read_bytes,
    "long": read_long,
    "long millis": read_long,
    "long micros": _scaled(1_000),
    "long nanos": _scaled(1_000_000),
}
_INTEGERS: dict[str, Take] = {"long": read_long, "int": read_long}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MILLI = datetime.timedelta(milliseconds=1)
_NEVER = 253_370_764_800_000  # the year 9999

# Times are told by their minute, which is understood once: by all of its text but the seconds.
_MINUTES: dict[bytes, int] = {}
_SECONDS = {b"%02d" % number: number * 1000 for number in range(60)}
_MILLIS = {b"Z": 0, **{b".%03d" % number: number for number in range(1000)}}
_ISO = re.compile(rb"(.{16}:)\d\d(?:\.\d+)?Z")  # 2020-06-12T18:32:34.123Z
# 6/12/2020 6:32:34 PM, as Capture itself writes it
_OWN = re.compile(rb"(\d\d?)/(\d\d?)/(\d{4}) (0?[1-9]|1[0-2]):(\d\d):\d\d ([AP])M")


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
    try:
        if own := _OWN.fullmatch(value):
            minute, minute_ms = value[:-5] + value[-3:], _own_minute(own)
            found = minute_ms + _SECONDS[value[-5:-3]]
        else:
            found = millis(moment(value.decode()))
            iso = _ISO.fullmatch(value) if found else None
            minute, minute_ms = iso[1] if iso else b"", found // 60_000 * 60_000
    except (KeyError, ValueError, OverflowError):
        return 0
    if minute and found > 0:
        if len(_MINUTES) > 10_000:
            _MINUTES.clear()
        _MINUTES[minute] = minute_ms
    return max(0, found)


def _own_minute(own: re.Match[bytes]) -> int:
    """In ms of the epoch. Raises ValueError: there is none. A tenth of what strptime takes."""
    month, day, year, hour, minute = map(int, own.groups()[:5])
    hour = hour % 12 + 12 * (own[6] == b"P")
    at = datetime.datetime(year, month, day, hour, minute, tzinfo=datetime.timezone.utc)
    return (at - _EPOCH) // _MILLI


def _before(fields: Sequence[tuple[str, Any]], body: Any) -> re.Pattern[bytes] | None:
    """What matches a record up to its body's length, and captures its time. None: nothing does."""
    try:
        parts = [(name, pattern(kind)) for name, kind in fields]
    except (KeyError, TypeError):
        return None
    if isinstance(body, list):
        given = [n for n, branch in enumerate(body[:SHORT]) if kind_of(branch) != "null"]
        parts.append(("", b"[%s]" % b"".join(b"\\x%02x" % (2 * n) for n in given)))
    whole = b"".join(b"(%s)" % one if name == _TIME else one for name, one in parts)
    if _TIME not in dict(parts):
        whole += b"()"
    return re.compile(whole, re.DOTALL) if len(whole) < _LONG else None


class Layout:
    """Where in a record of this schema lies what is read of it.

    Raises Refused for what is not of Event Hubs Capture.
    """

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise Refused("not Event Hubs Capture: the schema is no record's")
        types = {field["name"]: field["type"] for field in schema["fields"]}
        if "Body" not in types:
            has = ", ".join(str(name)[:40] for name in [*types][:10]) or "no fields"
            raise Refused(f"not Event Hubs Capture: the schema has {has}, no Body")
        body = taker(types["Body"], _TEXTS)
        if body is None:
            raise Refused("not Event Hubs Capture: the Body is neither bytes nor text")
        self._body = body
        names: dict[str, Skip] = {}
        space = str(schema.get("namespace") or str(schema["name"]).rpartition(".")[0])
        self._skips = {f["name"]: skipper(f["type"], names, space) for f in schema["fields"]}
        self._time = taker(types.get(_TIME), _TIMES)
        self._texts = kind_of(types.get(_TIME)) == "string"
        *before, final = types.items()
        self._before = _before(before, types["Body"]) if final[0] == "Body" else None

        said = types.get("SystemProperties")
        of = said["values"] if isinstance(said, dict) and said["type"] == "map" else None
        others = dict.fromkeys(PRIMITIVES, read_nothing)
        self._said = taker(of, {**others, **_TIMES})
        self._skip_said = skipper(of, names, space) if self._said else skip_long
        self._sequence = taker(types.get("SequenceNumber"), _INTEGERS)
        self._offset = taker(types.get("Offset"), _TEXTS)

    @property
    def numbered(self) -> bool:
        return self._sequence is not None

    def records(
        self, data: bytes, end: int, count: int, number: int, at_ms: int, hub: bool
    ) -> tuple[list[Record], str]:
        """Of a block that ends there, and the hub's offset of the last, if hub. Raises Refused.

        number: of the first. at_ms: the time of those that say none. hub: they have the hub's own
        numbers instead.
        """
        try:
            found, starts = self._found(data, end, count, number, at_ms)
            if not hub:
                return found, ""
            numbers, offset = self._numbers(data, starts)
        except _DECODING as error:
            raise Refused("the records of a block cannot be decoded") from error
        for record, own in zip(found, numbers, strict=True):
            record.sequence = own
        return found, offset

    def _found(
        self, data: bytes, end: int, count: int, number: int, at_ms: int
    ) -> tuple[list[Record], list[int]]:
        """And where each begins. Raises what a Skip does, and ValueError if the last does not end
        where the block does."""
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
                    body, at = read_bytes(data, at)
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
            count, at = read_count(data, at)
            for _ in range(count):
                key, at = read_bytes(data, at)
                if key == _TIME_SAID:
                    return enqueued(self._said(data, at)[0])
                at = self._skip_said(data, at)
        return 0

    def _numbers(self, data: bytes, starts: list[int]) -> tuple[list[int], str]:
        """The hub's own of records that begin there, and the hub's offset of the last."""
        assert self._sequence is not None
        take = self._sequence
        found = [take(data, self._field("SequenceNumber", data, at))[0] for at in starts]
        if not starts or self._offset is None:
            return found, ""
        offset: bytes | None = self._offset(data, self._field("Offset", data, starts[-1]))[0]
        return found, (offset or b"").decode("ascii", "replace")


@functools.lru_cache(64)
def layout_of(schema: bytes) -> Layout:
    try:
        return Layout(msgspec.json.decode(schema))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Refused(f"its schema cannot be read: {error}") from error
