"""AMQP 1.0 transfer frames, decoded just as far as a reader of events needs.

The SDK decodes every field of every message in Python (21-32 µs an event); a reader needs the
body and a few annotations. Everything else is skipped by its width, which AMQP's type codes tell
(OASIS AMQP 1.0, part 1, section 1.2: the high nibble of a code is its size category).

All functions read `data` in place, from position `at`; only bodies are copied.
"""

from __future__ import annotations

import struct

import msgspec

__all__ = ["Event", "FrameError", "decode_message", "decode_transfer"]

_FIXED_WIDTH = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_U32 = struct.Struct(">I").unpack_from
_I64 = struct.Struct(">q").unpack_from

_DELIVERY_ANNOTATIONS, _MESSAGE_ANNOTATIONS = 0x71, 0x72
_DATA, _SEQUENCE, _VALUE = 0x75, 0x76, 0x77
_OFFSET = b"x-opt-offset"


class FrameError(ValueError):
    """Bytes that are not the AMQP they should be."""


class Event(msgspec.Struct, gc=False):
    """One hub event. Times in milliseconds since the epoch; the last two are None where the hub
    does not tell (the runtime metric, in the delivery annotations)."""

    sequence: int
    enqueued_ms: int
    body: bytes
    last_sequence: int | None
    last_enqueued_ms: int | None
    offset_utf8: bytes = b""  # as it came: most are never looked at

    @property
    def offset(self) -> str:
        """The hub's own position of the event: any text; "" where it does not tell."""
        return self.offset_utf8.decode("utf-8", "replace")


def _end(data: bytes, at: int) -> int:
    """The position after the value that starts at `at`."""
    missing = 1
    while missing:
        code = data[at]
        if code == 0:  # described: a descriptor and a value, each of which may be described too
            at += 1
            missing += 1
            continue
        kind = code >> 4
        if kind in _FIXED_WIDTH:
            at += 1 + _FIXED_WIDTH[kind]
        elif kind in (0xA, 0xC, 0xE):
            at += 2 + data[at + 1]
        elif kind in (0xB, 0xD, 0xF):
            at += 5 + int(_U32(data, at + 1)[0])
        else:
            raise FrameError(f"AMQP type 0x{code:02x} does not exist")
        missing -= 1
    return at


def _number(data: bytes, at: int) -> int | None:
    """A whole number or a time; None for anything else."""
    code = data[at]
    if code in (0x81, 0x83):  # long, timestamp
        return int(_I64(data, at + 1)[0])
    if code in (0x54, 0x55, 0x71):  # smallint, smalllong, int
        return int.from_bytes(data[at + 1 : _end(data, at)], "big", signed=True)
    if code in (0x43, 0x44, 0x50, 0x52, 0x53, 0x60, 0x70, 0x80):  # unsigned
        return int.from_bytes(data[at + 1 : _end(data, at)], "big")
    return None


def _text(data: bytes, at: int) -> bytes | None:
    """The bytes of a string, symbol or binary; none for null, None for anything else."""
    code = data[at]
    if code in (0xA0, 0xA1, 0xA3):
        return data[at + 2 : at + 2 + data[at + 1]]
    if code in (0xB0, 0xB1, 0xB3):
        return data[at + 5 : at + 5 + int(_U32(data, at + 1)[0])]
    return b"" if code == 0x40 else None


def _items(data: bytes, at: int) -> tuple[int, int]:
    """Count of items, and position of the first, of the list or map at `at`."""
    code = data[at]
    if code in (0xC0, 0xC1):
        return data[at + 2], at + 3
    if code in (0xD0, 0xD1):
        return int(_U32(data, at + 5)[0]), at + 9
    if code == 0x45:
        return 0, at + 1
    raise FrameError(f"AMQP type 0x{code:02x} stands where a list or map should")


def decode_transfer(data: bytes, at: int) -> tuple[int, bool, int]:
    """The handle, whether more frames follow, and where the payload starts, of the transfer
    performative (`00 53 14 <list>`) at `at`. Raises FrameError."""
    try:
        payload = _end(data, at + 3)
        count, at = _items(data, at + 3)
        handle = _number(data, at) or 0 if count else 0
        more = False
        if count > 5:
            for _ in range(5):  # delivery-id, -tag, message-format and settled lie before `more`
                at = _end(data, at)
            more = data[at] == 0x41 or (data[at] == 0x56 and data[at + 1] == 1)
    except (IndexError, struct.error) as error:
        raise FrameError(f"a transfer frame is cut short: {error}") from error
    return handle, more, payload


def _annotations(data: bytes, at: int, end: int, found: dict[bytes, int]) -> bytes:
    """Put a map's numbers with short symbols as keys into `found`; its offset, or none. Most
    values are longs, timestamps and short strings: those are told here, without a call."""
    offset = b""
    count, at = _items(data, at)
    for _ in range(count // 2):
        if data[at] != 0xA3:
            at = _end(data, _end(data, at))
            continue
        start = at + 2
        at = start + data[at + 1]
        key = data[start:at]
        code = data[at]
        if code in (0x81, 0x83):
            found[key] = _I64(data, at + 1)[0]
            at += 9
        elif code == 0xA1:
            start = at + 2
            at = start + data[at + 1]
            if key == _OFFSET:
                offset = data[start:at]
        else:
            value = _number(data, at)
            if value is not None:
                found[key] = value
            elif key == _OFFSET:
                offset = _text(data, at) or b""
            at = _end(data, at)
    if at > end:
        raise FrameError("a map is longer than its section")
    return offset


def decode_message(data: bytes, at: int, end: int) -> Event:
    """The event in the message's sections between `at` and `end`. A body of several data
    sections is joined; a string or binary value is its bytes. Raises FrameError."""
    found: dict[bytes, int] = {}
    body: bytes | None = None
    offset = b""
    try:
        while at < end:
            if data[at] != 0 or data[at + 1] != 0x53:
                raise FrameError("a message section does not start with its descriptor")
            section = data[at + 2]
            at += 3
            after = _end(data, at)
            if after > end:
                raise FrameError("a message section is longer than its message")
            if section in (_DELIVERY_ANNOTATIONS, _MESSAGE_ANNOTATIONS):
                offset = _annotations(data, at, after, found) or offset
            elif section in (_DATA, _SEQUENCE, _VALUE):
                part = _text(data, at)
                part = data[at:after] if part is None else part
                body = part if body is None else body + part
            at = after
    except (IndexError, struct.error) as error:
        raise FrameError(f"a message is cut short: {error}") from error
    sequence = found.get(b"x-opt-sequence-number")
    if sequence is None:
        raise FrameError("a message has no x-opt-sequence-number: this is not an event hub")
    return Event(
        sequence,
        found.get(b"x-opt-enqueued-time", 0),
        body or b"",
        found.get(b"last_enqueued_sequence_number"),
        found.get(b"last_enqueued_time_utc"),
        offset,
    )
