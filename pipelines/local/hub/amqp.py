"""AMQP 1.0 as far as Event Hubs clients speak it: types, performatives, frames, messages.

Encoders return finished bytes, so that a composite is the concatenation of its parts; decoders
take a buffer and a position and return the value with the position behind it. Every decoder
raises `AmqpError` (or one of `DECODE_ERRORS`) on bytes that are not AMQP; none reads past the end.

Source: OASIS AMQP 1.0, parts 1 (types), 2 (transport), 3 (messaging) and 5 (security).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"
BATCH_FORMAT = 0x80013700
"""Message format of an Event Hubs batch: each data section is one complete encoded message."""
NULL, TRUE, FALSE = b"\x40", b"\x41", b"\x42"

# Codes of performatives, of a delivery's outcomes, of SASL's frames and of a message's sections.
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
ERROR, ACCEPTED, REJECTED = 0x1D, 0x24, 0x25
SASL_MECHANISMS, SASL_INIT, SASL_OUTCOME = 0x40, 0x41, 0x44
HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES = range(0x70, 0x74)
APPLICATION_PROPERTIES, DATA, VALUE = 0x74, 0x75, 0x77


class AmqpError(Exception):
    """What the peer did wrong, as an AMQP error condition and a sentence."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition, self.description = condition, description


DECODE_ERRORS = (AmqpError, struct.error, IndexError, TypeError, ValueError, RecursionError)
"""What decoding hostile bytes may raise: TypeError is a map with an unhashable key, ValueError
text that is not UTF-8, RecursionError descriptors nested in descriptors."""


class Described(NamedTuple):
    """A value with a descriptor: a composite's code (int) or a symbolic name (str)."""

    descriptor: Any
    value: Any


# ---------------------------------------------------------------------------------- encoding


def ubyte(value: int) -> bytes:
    return bytes((0x50, value))


def ushort(value: int) -> bytes:
    return struct.pack(">BH", 0x60, value)


def uint(value: int) -> bytes:
    if value < 256:
        return bytes((0x52, value)) if value else b"\x43"
    return struct.pack(">BI", 0x70, value & 0xFFFFFFFF)


def ulong(value: int) -> bytes:
    return struct.pack(">BQ", 0x80, value)


def integer(value: int) -> bytes:
    """An AMQP int (signed, 32 bits)."""
    return struct.pack(">Bi", 0x71, value)


def long(value: int) -> bytes:
    return struct.pack(">Bq", 0x81, value)


def timestamp(milliseconds: int) -> bytes:
    """Milliseconds since 1970-01-01 UTC, negative before."""
    return struct.pack(">Bq", 0x83, milliseconds)


def _sized(short: int, wide: int, data: bytes) -> bytes:
    if len(data) < 256:
        return bytes((short, len(data))) + data
    return struct.pack(">BI", wide, len(data)) + data


def binary(value: bytes) -> bytes:
    return _sized(0xA0, 0xB0, value)


def string(value: str) -> bytes:
    return _sized(0xA1, 0xB1, value.encode())


def symbol(value: str) -> bytes:
    return _sized(0xA3, 0xB3, value.encode("ascii", "replace"))


def _compound(short: int, wide: int, count: int, body: bytes) -> bytes:
    if len(body) < 255 and count < 256:
        return bytes((short, len(body) + 1, count)) + body
    return struct.pack(">BII", wide, len(body) + 4, count) + body


def mapping(entries: Mapping[str, bytes], key: Callable[[str], bytes] = string) -> bytes:
    """A map of names, encoded by `key`, to encoded values."""
    body = b"".join(key(name) + value for name, value in entries.items())
    return _compound(0xC1, 0xD1, 2 * len(entries), body)


def array(constructor: int, *values: bytes) -> bytes:
    """An array of values of one wide variable-width type (0xB1 string, 0xB3 symbol)."""
    body = b"".join(struct.pack(">I", len(value)) + value for value in values)
    return struct.pack(">BIIB", 0xF0, len(body) + 5, len(values), constructor) + body


def section(code: int, value: bytes) -> bytes:
    """A value described by a code, as sections and performatives are."""
    return bytes((0, 0x53, code)) + value


def composite(code: int, *fields: bytes) -> bytes:
    """A described list. Give every field: the SDK's decoder finds fields by their position."""
    return section(code, _compound(0xC0, 0xD0, len(fields), b"".join(fields)))


def error(condition: str, description: str) -> bytes:
    return composite(ERROR, symbol(condition), string(description), NULL)


def frame(channel: int, body: bytes, kind: int = 0) -> bytes:
    """A frame of `kind` 0 (AMQP) or 1 (SASL)."""
    return struct.pack(">IBBH", len(body) + 8, 2, kind, channel) + body


# ---------------------------------------------------------------------------------- decoding

_FIXED = {
    0x50: ">B", 0x51: ">b", 0x52: ">B", 0x53: ">B", 0x54: ">b", 0x55: ">b", 0x56: ">?",
    0x60: ">H", 0x61: ">h", 0x70: ">I", 0x71: ">i", 0x72: ">f", 0x80: ">Q", 0x81: ">q",
    0x82: ">d", 0x83: ">q",
}  # fmt: skip
_CONSTANT: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_WIDTH = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}


def _end(buffer: bytes, pos: int) -> int:
    """The position behind the value at `pos`, found from its constructor alone."""
    if buffer[pos] == 0:
        return _end(buffer, _end(buffer, pos + 1))
    return _body(buffer, pos + 1, buffer[pos])[1]


def _body(buffer: bytes, pos: int, constructor: int) -> tuple[int, int]:
    """Where the content of a value starts and ends, its length prefix left out."""
    kind = constructor >> 4
    if kind in _WIDTH:
        start, size = pos, _WIDTH[kind]
    elif kind in (0xA, 0xC, 0xE):
        start, size = pos + 1, buffer[pos]
    elif kind in (0xB, 0xD, 0xF):
        start, size = pos + 4, struct.unpack_from(">I", buffer, pos)[0]
    else:
        raise AmqpError("amqp:decode-error", f"no type has the constructor 0x{constructor:02x}")
    if start + size > len(buffer):
        raise AmqpError("amqp:decode-error", "a value is longer than what carries it")
    return start, start + size


def decode(buffer: bytes, pos: int = 0) -> tuple[Any, int]:
    """The value at `pos`, and the position behind it.

    Symbols and strings are str, binary and 16-byte values (uuid, decimal128) bytes, lists and
    arrays list, maps dict, described values `Described`.
    """
    constructor = buffer[pos]
    if constructor == 0:
        descriptor, pos = decode(buffer, pos + 1)
        value, pos = decode(buffer, pos)
        return Described(descriptor, value), pos
    return _decode_body(buffer, pos + 1, constructor)


def _decode_body(buffer: bytes, pos: int, constructor: int) -> tuple[Any, int]:
    if constructor in _CONSTANT:
        return _CONSTANT[constructor], pos
    start, end = _body(buffer, pos, constructor)
    if constructor in _FIXED:
        return struct.unpack_from(_FIXED[constructor], buffer, start)[0], end
    kind, low = constructor >> 4, constructor & 0xF
    if constructor == 0x45:
        return [], end
    if kind in (0x9, 0xA, 0xB):
        data = bytes(buffer[start:end])
        return (data.decode() if kind != 0x9 and low in (1, 3) else data), end
    if kind < 0xC or low > 1:
        raise AmqpError("amqp:decode-error", f"no type has the constructor 0x{constructor:02x}")
    wide = kind in (0xD, 0xF)
    count = struct.unpack_from(">I", buffer, start)[0] if wide else buffer[start]
    pos = start + (4 if wide else 1)
    if count > end - start:  # every element takes a byte; else a few bytes could ask for gigabytes
        raise AmqpError("amqp:decode-error", "more elements than bytes")
    values: list[Any] = []
    if count and kind in (0xE, 0xF):
        constructor, pos = buffer[pos], pos + 1
        if constructor == 0:
            raise AmqpError("amqp:not-implemented", "an array of described values")
        for _ in range(count):
            value, pos = _decode_body(buffer, pos, constructor)
            values.append(value)
        return values, end
    for _ in range(count):
        value, pos = decode(buffer, pos)
        values.append(value)
    return (dict(zip(values[::2], values[1::2], strict=True)) if low else values), end


class Performative(NamedTuple):
    """A frame's content: decoded fields, the same fields as encoded, and what follows them.

    `fields` and `raw` are padded with nulls to 14, the length of the longest performative.
    """

    code: int
    fields: list[Any]
    raw: list[bytes]
    payload: bytes


def read_performative(body: bytes) -> Performative:
    """Decode a frame's body (without its header)."""
    if body[0] != 0:
        raise AmqpError("amqp:decode-error", "a frame must start with a described value")
    code, pos = decode(body, 1)
    constructor = body[pos]
    start, end = _body(body, pos + 1, constructor)
    if not isinstance(code, int) or constructor not in (0x45, 0xC0, 0xD0):
        raise AmqpError("amqp:decode-error", "a frame must start with a performative")
    fields: list[Any] = []
    raw: list[bytes] = []
    pos = start + {0x45: 0, 0xC0: 1, 0xD0: 4}[constructor]
    while pos < end:
        value, after = decode(body, pos)
        fields.append(value)
        raw.append(body[pos:after])
        pos = after
    missing = 14 - len(fields)
    return Performative(code, fields + [None] * missing, raw + [NULL] * missing, body[end:])


def sections(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    """A message's sections as (code, start, start of the value, end), positions in bytes."""
    pos = 0
    while pos < len(message):
        if message[pos] != 0:
            raise AmqpError("amqp:decode-error", "a message is a row of described sections")
        code, value = decode(message, pos + 1)
        end = _end(message, value)
        yield code, pos, value, end
        pos = end


def map_pairs(buffer: bytes, pos: int) -> Iterator[tuple[Any, bytes, Any]]:
    """The entries of the map at `pos`: the key, the entry as encoded, the value."""
    if buffer[pos] not in (0xC1, 0xD1):
        raise AmqpError("amqp:decode-error", "annotations must be a map")
    start, end = _body(buffer, pos + 1, buffer[pos])
    pos = start + (1 if buffer[pos] == 0xC1 else 4)
    while pos < end:
        key, middle = decode(buffer, pos)
        value, after = decode(buffer, middle)
        yield key, buffer[pos:after], value
        pos = after
