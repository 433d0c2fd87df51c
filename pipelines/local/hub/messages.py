"""Events on their way in: what of a published message is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.local.hub import amqp

__all__ = ["Message", "new", "received"]

_PARTITION_KEY = "x-opt-partition-key"
_SET_BY_US = ("x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time")


class Message(NamedTuple):
    """An event's own annotations, each encoded, and its sections from the properties on."""

    annotations: Sequence[bytes]
    sections: bytes


def new(body: bytes, partition_key: str | None) -> Message:
    own: Sequence[bytes] = ()
    if partition_key is not None:
        own = (amqp.symbol(_PARTITION_KEY) + amqp.string(partition_key),)
    return Message(own, amqp.section(amqp.DATA, amqp.binary(body)))


def received(message: bytes, message_format: int) -> tuple[list[Message], str | None]:
    """The events that a client published in one message, and their partition key."""
    event, key = _stored(message)
    if message_format != amqp.BATCH_FORMAT:
        return [event], key
    parts = (value for code, _, value, _ in amqp.sections(message) if code == amqp.DATA)
    return [_stored(amqp.decode(message, part)[0])[0] for part in parts], key


def _stored(message: bytes) -> tuple[Message, str | None]:
    """The header and delivery annotations end here, as do annotations that only we may set."""
    own: list[bytes] = []
    kept: list[bytes] = []
    key = None
    for code, start, value, end in amqp.sections(message):
        if code == amqp.MESSAGE_ANNOTATIONS:
            for name, raw, content in amqp.map_pairs(message, value):
                if name not in _SET_BY_US:
                    own.append(raw)
                if name == _PARTITION_KEY and content is not None:
                    key = str(content)
        elif code not in (amqp.HEADER, amqp.DELIVERY_ANNOTATIONS):
            kept.append(message[start:end])
    return Message(own, b"".join(kept)), key
