"""Frames are read as the SDK reads them, and bytes of any kind are refused in one way only."""

from __future__ import annotations

import struct
import time
import uuid
from typing import Any

import pytest
from azure.eventhub._pyamqp._decode import decode_frame, decode_payload
from azure.eventhub._pyamqp._encode import encode_frame, encode_payload
from azure.eventhub._pyamqp.message import Header, Message, Properties
from azure.eventhub._pyamqp.performatives import TransferFrame
from azure.eventhub._pyamqp.types import TYPE, VALUE, AMQPTypes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transforms.read.frames import Event, FrameError, decode_message, decode_transfer


def typed(kind: str, value: Any) -> dict[str, Any]:
    return {TYPE: getattr(AMQPTypes, kind), VALUE: value}


def annotations(
    sequence: int = 7, enqueued_ms: int = 1_772_619_194_987, offset: str = "4711", **more: Any
) -> Any:
    return {
        b"x-opt-sequence-number": typed("long", sequence),
        b"x-opt-offset": typed("string", offset),
        b"x-opt-enqueued-time": typed("timestamp", enqueued_ms),
        **{key.replace("_", "-").encode(): value for key, value in more.items()},
    }


def encoded(**sections: Any) -> bytes:
    """A message as the SDK writes it; the delivery annotations come last there."""
    sections.setdefault("message_annotations", annotations())
    output = bytearray()
    encode_payload(output, Message(**sections))
    return bytes(output)


def decoded(message: bytes) -> Event:
    return decode_message(message, 0, len(message))


# ------------------------------------------------------------------------------------- messages


def test_an_event_is_its_body_its_place_and_its_time() -> None:
    assert decoded(encoded(data=[b'{"a":1}'])) == Event(
        7, 1_772_619_194_987, b'{"a":1}', None, None, b"4711"
    )


@pytest.mark.parametrize("offset", ["", "0", "27487790694", "149:2:81", "Ünï" * 30, "9" * 300])
def test_an_offset_is_any_text(offset: str) -> None:
    """A number of bytes; where a hub is replicated over regions, something else."""
    given = encoded(message_annotations=annotations(offset=offset), data=[b"{}"])
    assert decoded(given).offset == offset
    elsewhere = {b"last_enqueued_offset": typed("string", "99")}
    for message in (
        encoded(message_annotations=annotations(offset=offset), delivery_annotations=elsewhere),
        encoded(delivery_annotations=elsewhere, message_annotations=None) + given,
    ):
        assert decoded(message).offset == offset


@pytest.mark.parametrize(
    "value", [typed("null", None), typed("long", 4711), typed("boolean", True)]
)
def test_an_offset_that_is_no_text_is_none(value: Any) -> None:
    given = annotations() | {b"x-opt-offset": value}
    assert decoded(encoded(message_annotations=given)).offset == ""
    del given[b"x-opt-offset"]
    assert decoded(encoded(message_annotations=given)).offset == ""


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 1 << 20])
def test_bodies_of_any_size(size: int) -> None:
    assert decoded(encoded(data=[b"x" * size])).body == b"x" * size


def test_data_sections_are_joined_in_order() -> None:
    assert decoded(encoded(data=[b"{", b"", b'"a":', b"1}"])).body == b'{"a":1}'


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"\xff\0", b"\xff\0"),
        (b"x" * 300, b"x" * 300),
        ("Ünï", "Ünï".encode()),
        ("x" * 300, b"x" * 300),
    ],
)
def test_a_value_that_is_text_or_bytes_is_its_bytes(value: Any, body: bytes) -> None:
    assert decoded(encoded(value=value)).body == body


def test_a_value_that_is_a_symbol_is_its_bytes() -> None:
    assert decoded(encoded() + b"\x00\x53\x77\xa3\x03sym").body == b"sym"


def test_a_value_that_is_neither_is_kept_as_it_was_encoded() -> None:
    """It becomes a dead letter, whose bytes say all that there was."""
    assert decoded(encoded(value={"a": 1})).body[:1] in (b"\xc1", b"\xd1")
    assert decoded(encoded(sequence=[["a"], ["b"]])).body.count(b"\xa1\x01") == 2


def test_no_body_at_all_is_an_empty_one() -> None:
    assert decoded(encoded()).body == b""
    assert decoded(encoded() + b"\x00\x53\x77\x40").body == b"", "amqp-value: null"


def test_where_the_partition_ends_is_read_from_the_delivery_annotations() -> None:
    where = {
        b"last_enqueued_sequence_number": typed("long", 99),
        b"last_enqueued_offset": typed("string", "123456"),
        b"last_enqueued_time_utc": typed("timestamp", 1_772_619_999_999),
        b"runtime_info_retrieval_time_utc": typed("timestamp", 1_772_620_000_000),
    }
    for message in (
        encoded(data=[b"{}"], delivery_annotations=where),
        encoded(delivery_annotations=where, message_annotations=None) + encoded(data=[b"{}"]),
    ):
        assert decoded(message) == Event(
            7, 1_772_619_194_987, b"{}", 99, 1_772_619_999_999, b"4711"
        )


@pytest.mark.parametrize("key", ["", "k", "key " * 60, "k" * 300, "Ünï", None])
def test_a_partition_key_of_any_kind_is_passed_over(key: str | None) -> None:
    value = typed("null", None) if key is None else typed("string", key)
    message = encoded(message_annotations=annotations(x_opt_partition_key=value), data=[b"{}"])
    assert decoded(message).sequence == 7


def test_annotations_may_stand_in_any_order_and_have_any_type() -> None:
    odd = {
        f"x-opt-odd-{n}".encode(): value
        for n, value in enumerate(
            [
                typed("null", None),
                typed("boolean", True),
                typed("ubyte", 3),
                typed("int", -70_000),
                typed("ulong", 2**63),
                typed("double", 1.5),
                typed("uuid", uuid.UUID(int=5)),
                typed("binary", b"\0" * 300),
                typed("list", [1, [2, "x"]]),
                typed("map", {"a": {"b": 1}}),
                typed("symbol", b"s"),
            ]
        )
    }
    for mixed in (odd | annotations(), annotations() | odd):
        assert decoded(encoded(message_annotations=mixed, data=[b"{}"])).sequence == 7


def test_a_map_of_many_entries_is_read_whole() -> None:
    """More than 255 bytes or entries: the wide form of a map."""
    many = {f"x-opt-{n}".encode(): typed("string", "v" * 20) for n in range(400)}
    assert decoded(encoded(message_annotations=many | annotations(2**40), data=[b""])) == (
        Event(2**40, 1_772_619_194_987, b"", None, None, b"4711")
    )


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**31, 2**62, 2**63 - 1, -1])
def test_sequence_numbers_of_any_width(number: int) -> None:
    for kind in ("long", "ulong") if number >= 0 else ("long",):
        given = annotations() | {b"x-opt-sequence-number": typed(kind, number)}
        assert decoded(encoded(message_annotations=given)).sequence == number


@pytest.mark.parametrize(
    "number",
    [typed("string", "7"), typed("binary", b"7"), typed("symbol", b"s" * 300), typed("null", None)],
)
def test_without_a_number_it_is_no_event(number: Any) -> None:
    given = annotations() | {b"x-opt-sequence-number": number}
    with pytest.raises(FrameError, match="not an event hub"):
        decoded(encoded(message_annotations=given, data=[b"{}"]))
    with pytest.raises(FrameError, match="not an event hub"):
        decoded(b"")


def test_a_time_that_is_none_is_no_time() -> None:
    given = annotations() | {b"x-opt-enqueued-time": typed("string", "soon")}
    assert decoded(encoded(message_annotations=given)).enqueued_ms == 0


def test_a_message_is_read_between_its_bounds_only() -> None:
    message = encoded(data=[b"{}"])
    other = encoded(message_annotations=annotations(8), data=[b"[]"])
    around = other + message + other
    at = len(other)
    assert decode_message(around, at, at + len(message)) == decoded(message)
    for end in range(at + 1, at + len(message)):
        try:
            found = decode_message(around, at, end)
        except FrameError:
            continue
        assert found.body == b"", "a section that is cut off was read from the next message"


# ------------------------------------------------------------------- as the SDK reads messages

simple = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(allow_nan=False, width=32),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.uuids(),
)
keys = st.text(min_size=1, max_size=40).map(lambda key: ("x-" + key).encode())
maps = st.dictionaries(keys, simple, max_size=8)
bodies = st.one_of(
    st.fixed_dictionaries({"data": st.lists(st.binary(max_size=600), min_size=1, max_size=4)}),
    st.fixed_dictionaries({"value": st.text(min_size=1, max_size=600)}),
    st.fixed_dictionaries({"value": st.binary(min_size=1, max_size=600)}),
    st.just({}),
)
messages = st.builds(
    lambda sequence, enqueued_ms, offset, extra, body, **more: encoded(
        message_annotations=extra | annotations(sequence, enqueued_ms, offset), **body, **more
    ),
    st.integers(0, 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=300),
    maps,
    bodies,
    header=st.none()
    | st.builds(
        Header,
        st.booleans(),
        st.integers(0, 9),
        st.none() | st.integers(0, 2**32 - 1),
        st.none() | st.booleans(),
        st.none() | st.integers(0, 300),
    ),
    properties=st.none()
    | st.builds(
        Properties,
        message_id=st.none() | st.text(max_size=9) | st.uuids(),
        content_type=st.none() | st.text(max_size=9),
        user_id=st.none() | st.binary(max_size=9),
    ),
    application_properties=st.none() | st.dictionaries(st.text(max_size=9), simple, max_size=4),
    delivery_annotations=st.none() | maps,
    footer=st.none() | maps,
)


def of_the_sdk(message: bytes) -> Event:
    found = decode_payload(memoryview(message))
    marks, where = found.message_annotations or {}, found.delivery_annotations or {}
    body = b"".join(found.data or [])
    if found.value is not None:
        body = found.value.encode() if isinstance(found.value, str) else bytes(found.value)
    return Event(
        marks[b"x-opt-sequence-number"],
        marks[b"x-opt-enqueued-time"],
        body,
        where.get(b"last_enqueued_sequence_number"),
        where.get(b"last_enqueued_time_utc"),
        marks[b"x-opt-offset"],
    )


@given(messages)
def test_any_message_is_read_as_the_sdk_reads_it(message: bytes) -> None:
    assert decoded(message) == of_the_sdk(message)


# ------------------------------------------------------------------------------------ transfers


def transfer(payload: bytes = b"", **fields: Any) -> bytes:
    fields = {
        "handle": 1,
        "delivery_id": 5,
        "delivery_tag": b"tag",
        "message_format": 0,
        "settled": True,
        "more": False,
        **fields,
    }
    _, body = encode_frame(TransferFrame(payload=payload, **fields))
    return bytes(body or b"")


@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.binary(min_size=1, max_size=32),
    st.none() | st.booleans(),
    st.binary(max_size=50),
    st.binary(max_size=9),
)
def test_a_transfer_tells_its_link_and_where_its_payload_begins(
    handle: int, more: bool, delivery: Any, tag: Any, settled: Any, payload: bytes, before: bytes
) -> None:
    frame = transfer(
        payload, handle=handle, more=more, delivery_id=delivery, delivery_tag=tag, settled=settled
    )
    data = before + frame
    found, follows, at = decode_transfer(data, len(before))
    assert (found, follows, data[at:]) == (handle, more, payload)
    _, fields = decode_frame(memoryview(frame))
    assert (fields[0], bool(fields[5]), bytes(fields[11])) == (handle, more, payload)


@pytest.mark.parametrize(
    ("performative", "expected"),
    [
        (b"\x00\x53\x14\x45", (0, False)),
        (b"\x00\x53\x14\xc0\x02\x01\x43", (0, False)),
        (b"\x00\x53\x14\xc0\x03\x01\x52\x09", (9, False)),
        (b"\x00\x53\x14\xc0\x08\x06\x43\x40\x40\x40\x40\x56\x01", (0, True)),
        (b"\x00\x53\x14\xc0\x08\x06\x43\x40\x40\x40\x40\x56\x00", (0, False)),
        (b"\x00\x53\x14\xd0\x00\x00\x00\x0a\x00\x00\x00\x06\x43\x40\x40\x40\x40\x41", (0, True)),
    ],
)
def test_short_and_wide_forms_of_a_transfer(
    performative: bytes, expected: tuple[int, bool]
) -> None:
    assert decode_transfer(performative + b"payload", 0) == (*expected, len(performative))


# ------------------------------------------------------------------------------------ any bytes


def survives(data: bytes, at: int, end: int) -> None:
    try:
        event = decode_message(data, at, end)
    except FrameError:
        return
    assert isinstance(event.sequence, int)
    assert isinstance(event.enqueued_ms, int)
    assert isinstance(event.body, bytes)
    assert isinstance(event.offset, str)
    assert isinstance(event.last_sequence, int | None)
    assert isinstance(event.last_enqueued_ms, int | None)


@settings(max_examples=300)
@given(st.binary(max_size=400))
@example(b"\x00\x53\x72\xc1\x02\x02\x40")
@example(b"\x00\x53\x72\xd1\xff\xff\xff\xff\xff\xff\xff\xff")
def test_random_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    survives(data, 0, len(data))
    for at in (0, len(data) // 2):
        try:
            decode_transfer(data, at)
        except FrameError:
            pass


@settings(max_examples=300)
@given(messages, st.data())
def test_damaged_messages_are_read_or_refused_and_nothing_else(
    message: bytes, data: st.DataObject
) -> None:
    spoilt = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(spoilt)))
    survives(bytes(spoilt), 0, end)
    survives(bytes(spoilt) + message, 0, len(spoilt))


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100_000,
        b"\x00\x53\x75" + b"\0" * 100_000,
        b"\x00\x53\x72\xd1" + struct.pack(">II", 200_000, 2**32 - 1) + b"\x40" * 200_000,
        b"\x00\x53\x72\xd1" + struct.pack(">II", 100_004, 2**32 - 1) + b"\0" * 100_000,
        b"\x00\x53\x75\xb0\xff\xff\xff\xff" + b"x" * 1000,
        (b"\x00\x53\x76" + b"\xd0\x00\x00\x00\x04\x00\x00\x00\x00") * 10_000,
    ],
)
def test_bytes_that_are_meant_to_be_slow_are_not(data: bytes) -> None:
    began = time.monotonic()
    survives(data, 0, len(data))
    try:
        decode_transfer(data, 0)
    except FrameError:
        pass
    assert time.monotonic() - began < 2
