from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.repairs import Repaired, repaired, text_line
from schemas.wrappers import Refusal, unwrap

BOM = b"\xef\xbb\xbf"
GOOD = b'{"time":"t1","text":"a"}'
LINE = b"Mar  4 10:11:12 shop-vm-1 sshd[42]: Invalid user mallory from 203.0.113.7"
EVENT = b'<Event xmlns="x"><System><EventID>4625</EventID></System></Event>'


@pytest.mark.parametrize(
    ("name", "broken", "body"),
    [
        ("single_quotes", b"{'time':'t2','a':None}", {"time": "t2", "a": None}),
        (
            "unescaped_quotes",
            b'{"time":"t2","text":"he said "hi" to {me}"}',
            {"time": "t2", "text": 'he said "hi" to {me}'},
        ),
        ("control_character", b'{"time":"t2","a":"line\nbreak\t\x07"}', {"a": "line\nbreak\t\x07"}),
        ("lone_surrogate", rb'{"time":"t2","a":"\ud800 \\ud800"}', {"a": "\ufffd \\ud800"}),
        ("sloppy_json", b'{"time":"t2",}', {"time": "t2"}),
        ("sloppy_json", b'{"time":"t2","a":NaN}', {"a": None}),
    ],
)
@pytest.mark.parametrize(
    "wrapper",
    [b"%b", b'{"records":[%b,%b]}', b"[%b, %b]", b'{"count":2,"value":[%b,%b]}'],
)
def test_a_repair_is_named_and_keeps_what_came(
    name: str, broken: bytes, body: dict[str, object], wrapper: bytes
) -> None:
    found = unwrap(wrapper % ((broken,) if wrapper == b"%b" else (broken, GOOD)))
    assert isinstance(found[0], Repaired)
    assert found[0].repairs == (name,)
    assert found[0].original == broken
    assert json.loads(found[0].body) == {"time": "t2"} | body
    assert found[1:] in ([], [GOOD])


def test_a_byte_order_mark_is_taken_away() -> None:
    assert unwrap(BOM + GOOD) == [Repaired(GOOD, BOM + GOOD, ("byte_order_mark",))]
    assert [
        p.repairs for p in unwrap(BOM + b"%b\n%b" % (GOOD, GOOD)) if isinstance(p, Repaired)
    ] == [*(("byte_order_mark",), ("byte_order_mark",))]
    assert isinstance(unwrap(BOM * 100_000 + GOOD)[0], Refusal)


@pytest.mark.parametrize("blank", [b"", b" ", b"\r\n  "])
def test_concatenated_objects_are_told_apart(blank: bytes) -> None:
    objects = [b'{\n"a": 1\n}', b'{"b":{"c":"}{"}}', '{"d":"é"}'.encode()]
    found = unwrap(blank.join(objects))
    assert [p if isinstance(p, bytes) else p.body for p in found if not isinstance(p, Refusal)] == (
        objects
    )
    assert all(isinstance(p, Repaired) and p.repairs == ("concatenated_objects",) for p in found)


def test_what_follows_concatenated_objects_is_not_lost() -> None:
    found = unwrap(GOOD + GOOD + b"x")
    assert found[2] == Refusal(b"x", "not JSON: it follows the end of an object")


def test_an_object_in_a_string_is_taken_out() -> None:
    assert unwrap(json.dumps(GOOD.decode()).encode()) == [
        Repaired(GOOD, json.dumps(GOOD.decode()).encode(), ("json_in_string",))
    ]


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        b"<34>" + LINE,
        b"<189>date=2026-03-04 time=10:11:12 devname=fw-1",
        b"<34>1 2026-03-04T10:11:12Z shop-vm-1 sshd 42 - - Invalid user",
        b"2026-03-04T10:11:12.123456+01:00 shop-vm-1 sshd[42]: Invalid user",
        EVENT,
    ],
)
def test_a_line_of_text_becomes_a_message(line: bytes) -> None:
    message = Repaired(
        json.dumps({"message": line.decode()}, separators=(",", ":")).encode(), line, ("text_line",)
    )
    assert unwrap(line) == [message]
    assert unwrap(line + b"\r\n" + line) == [
        text_line(line + b"\r") or text_line(line),
        message,
    ] or unwrap(line + b"\n" + line) == [message, message]


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n  "])
def test_windows_events_may_hold_line_breaks(between: bytes) -> None:
    events = [EVENT.replace(b"4625", b"46%02d\r\n\t" % n) for n in range(3)]
    found = unwrap(between.join(events))
    assert [piece.original for piece in found if isinstance(piece, Repaired)] == events
    found = unwrap(between.join([EVENT, b"rest</Event>"]))
    assert found[1] == Refusal(b"rest</Event>", "not XML: it follows a Windows event")


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"Marvin 10:11:12",
        b"2026-03-04 rubbish",
        b"<html>",
        b'{"time":"t2","a":{"b":1}',  # cut off: no whole record
        b'{"time":"t2"',
        b"{'time':'t2'",
        b'{"a":NaN',
        b'{"time":"t2"}}',
        b'{"a":"\xff"}',
    ],
)
def test_what_no_repair_reads_is_refused(body: bytes) -> None:
    found = unwrap(body)
    assert all(isinstance(piece, Refusal) for piece in found) or (
        found[0] == Repaired(b'{"time":"t2"}', b'{"time":"t2"}', ("concatenated_objects",))
    )
    assert isinstance(found[-1], Refusal)


@given(st.text(max_size=200))
def test_a_repair_is_one_valid_object_or_none(text: str) -> None:
    for piece in (text.encode("utf-8", "replace"), b'{"a":"%b"}' % text.encode("utf-8", "replace")):
        found = repaired(piece)
        if found is not None:
            assert isinstance(json.loads(found.body), dict)
            assert found.original == piece
            assert found.repairs


@pytest.mark.parametrize(
    "body",
    [
        b"{'a':" * 200_000,
        b'{"a":"' + b'" ' * 500_000,
        b'{"a":1}' * 150_000,
        b"{'" + b"a" * 1_000_000,
        b"<1>" * 300_000,
        b'"' + b"{" * 1_000_000 + b'"',
    ],
)
def test_a_hostile_megabyte_takes_no_time(body: bytes) -> None:
    begun = time.perf_counter()
    assert unwrap(body)
    assert time.perf_counter() - begun < 5
