from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.repairs import Repaired
from schemas.wrappers import Refusal, unwrap


def split(body: bytes) -> tuple[list[Any], list[Refusal]]:
    """The records, decoded, and the refusals."""
    found = unwrap(body)
    records = [json.loads(_body(piece)) for piece in found if not isinstance(piece, Refusal)]
    return records, [piece for piece in found if isinstance(piece, Refusal)]


def _body(piece: bytes | Repaired) -> bytes:
    return piece if isinstance(piece, bytes) else piece.body


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{"a":1}', [b'{"a":1}']),
        (b' \r\n{"a" : 1}\t', [b'{"a" : 1}']),
        (b'{"records":[{"a":1},{"a": 2}]}', [b'{"a":1}', b'{"a": 2}']),
        (b'{ "records" : [ {"a":1} ] }', [b'{"a":1}']),
        (b'{"count":1,"records":[{"a":1}]}', [b'{"a":1}']),
        (b'[{"a":1}, {"b":[2]}]', [b'{"a":1}', b'{"b":[2]}']),
        (b'{"value":[{"a":1}]}', [b'{"a":1}']),
        (b'{"@odata.context":"c","value":[{"a":1}],"@odata.nextLink":"n"}', [b'{"a":1}']),
        (b'{"a":1}\n{"b":2}\r\n\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"records":[{"a":1}]}\n{"records":[{"b":2}]}', [b'{"a":1}', b'{"b":2}']),
        (
            b'{"tables":[{"name":"T","columns":[{"name":"a","type":"int"},{"name":"b"}],'
            b'"rows":[[1,"x"],[2.50,null]]}]}',
            [b'{"a":1,"b":"x"}', b'{"a":2.50,"b":null}'],
        ),
    ],
)
def test_records_come_out_of_their_wrapper_as_they_are(body: bytes, records: list[bytes]) -> None:
    assert unwrap(body) == records


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"x","value":[{"a":1}]}',
        b'{"Type":"T","records":[{"a":1}]}',
        b'{"value":[1,2]}',
        b'{"value":[{"a":1},2]}',
        b'{"value":[],"unit":"ms"}',
        b'{"value":"x"}',
        b'{"records":{"a":1}}',
        b'{"records":null}',
        b'{"tables":["a"]}',
        b'{"tables":[{"rows":[]}]}',
        b'{"inner":{"records":[{"a":1}]}}',
    ],
)
def test_what_only_looks_like_a_wrapper_is_one_record(body: bytes) -> None:
    assert unwrap(body) == [body]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b" \r\n\t", "empty body"),
        (b'{"records":[]}', "the wrapper holds no record"),
        (b'{"value":[]}', "the wrapper holds no record"),
        (b"[]", "the wrapper holds no record"),
        (b"42", "a record is a JSON object, not a number"),
        (b"hello", "not JSON: it begins with neither an object nor an array"),
        (b'"text"', "a record is a JSON object, not a string"),
        (b'{"a":1', "not JSON: it ends too early"),
        (b'{"a":1}\x00', "not JSON: trailing characters (byte 8)"),
        (b'{"a":"\xff"}', "not UTF-8: byte 0xff at 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8: byte 0xed at 6"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8: it looks like UTF-16 or UTF-32"),
        ('{"a":1}'.encode("utf-16-be"), "not UTF-8: it looks like UTF-16 or UTF-32"),
        ('{"a":1}'.encode("utf-32"), "not UTF-8: it looks like UTF-16 or UTF-32"),
        ("\u4e2d\u6587".encode("utf-16"), "not UTF-8: it looks like UTF-16"),
        (b"\x1f\x8b\x08rest", "not UTF-8: it looks like gzip"),
    ],
)
def test_a_body_without_a_record_is_refused_whole(body: bytes, reason: str) -> None:
    assert unwrap(body) == [Refusal(body, reason)]


GOOD = b'{"time":"t1","text":"a"}'
LATER = b'{"time":"t3","list":[{"time":1},{"time":2}]}'
BROKEN = {
    "number": b"42",
    "null": b"null",
    "string": b'"x"',
    "array": b'[{"time":"inner"}]',
    "word": b'{"time":"t2","a":tru}',
    "no value": b'{"time":}',
    "missing brace": b'{"time":"t2","a":{"b":1}',
    "missing bracket": b'{"time":"t2","a":[1,2}',
    "extra brace": b'{"time":"t2"}}',
    "too deep": b'{"time":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("blank", [b"", b"\n  "])
@pytest.mark.parametrize(
    "wrapper", [b'{"records":[%b]}', b"[%b]", b'{"count":4, "records": [%b] }']
)
def test_one_broken_record_does_not_take_the_others_along(
    wrapper: bytes, blank: bytes, broken: bytes
) -> None:
    found = unwrap(wrapper % (b"," + blank).join([GOOD, broken, LATER, GOOD]))
    assert found[0] == GOOD
    assert isinstance(found[1], Refusal)
    assert found[1].body == broken
    assert found[2:] == [LATER, GOOD]


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_line_does_not_take_the_others_along(broken: bytes) -> None:
    found = unwrap(b"\n".join([GOOD, broken, LATER]))
    assert (found[0], found[2]) == (GOOD, LATER) or broken == BROKEN["array"]
    assert isinstance(found[1], Refusal) or broken == BROKEN["array"]


@pytest.mark.parametrize("cut", range(len(GOOD) + 13, len(GOOD) + 13 + len(LATER)))
def test_a_truncated_wrapper_keeps_its_whole_records(cut: int) -> None:
    body = b'{"records":[%b,%b]}' % (GOOD, LATER)
    found = unwrap(body[:cut])
    assert found[0] == GOOD
    # Nothing inside the truncated record passes for a record.
    assert all(isinstance(piece, Refusal) for piece in found[1:])


def test_a_truncated_wrapper_of_lines_is_not_taken_for_json_lines() -> None:
    found = unwrap(b'{"records":[\n{"a":1},\n{"a":},\n{"a":3}')
    assert found[0::2] == [b'{"a":1}', b'{"a":3}']
    assert isinstance(found[1], Refusal)


@pytest.mark.parametrize("rest", [b"", b"]", b"]}", b']\n, "count": 3}'])
def test_the_wrapper_itself_is_no_record(rest: bytes) -> None:
    found = unwrap(b'{"records":[{"a":1},{"a":}' + rest)
    assert found[0] == b'{"a":1}'
    assert [piece.body for piece in found[1:] if isinstance(piece, Refusal)] == [b'{"a":}']


@pytest.mark.parametrize("rest", [b"x", b'{"b":2}', b', "count": }'])
def test_what_follows_the_records_is_not_lost(rest: bytes) -> None:
    assert unwrap(b'{"records":[{"a":1}]' + rest) == [
        b'{"a":1}',
        Refusal(rest, "not JSON: it follows the end of the records"),
    ]


def test_escaped_nul_and_duplicate_keys_pass() -> None:
    assert unwrap(rb'{"a":"\u0000"}') == [rb'{"a":"\u0000"}']
    assert unwrap(b'{"a":1,"a":2}') == [b'{"a":1,"a":2}']


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b"[" * 1_000_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' * 200_000,
        b'{"records":[' * 10_000 + b"]}" * 10_000,
    ],
)
def test_deep_nesting_is_refused(body: bytes) -> None:
    found = unwrap(body)
    assert found
    assert all(isinstance(piece, Refusal) for piece in found)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b'{"a":",' * 150_000,
        b"[" + b"[" * 500_000 + b"}" * 500_000,
        b'[{"a":"' + b'\\"' * 500_000,
        b'{"a":' + b"\n{" * 500_000,
        b"[" * 1_000_000,
        rb'{"a":"' + rb"\ud800" * 170_000,
        b'{"records":[' + b'{"a":1},' * 120_000,
    ],
)
def test_a_hostile_megabyte_takes_no_time(body: bytes) -> None:
    begun = time.perf_counter()
    assert unwrap(body)
    assert time.perf_counter() - begun < 5


def test_a_megabyte_is_one_record() -> None:
    body = b'{"text":"' + b"x" * 1_000_000 + b'"}'
    assert unwrap(body) == [body]
    assert unwrap(b'{"records":[' + body + b"]}") == [body]


texts = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
# A key of its own keeps a generated record from looking like a wrapper.
objects = st.dictionaries(texts, values, max_size=4).map(lambda record: {"id": 1} | record)


@given(st.lists(objects, min_size=1, max_size=5), st.booleans())
def test_any_records_come_out_of_any_wrapper(records: list[Any], ascii_only: bool) -> None:
    def dumps(value: Any, **more: Any) -> bytes:
        return json.dumps(value, ensure_ascii=ascii_only, **more).encode()

    bodies = [
        dumps({"records": records}),
        dumps({"records": records}, indent=2),
        dumps({"value": records}),
        dumps(records),
        b"\n".join(map(dumps, records)),
        dumps(records[0]),
    ]
    for body in bodies[:-1]:
        assert split(body) == (records, [])
    assert split(bodies[-1]) == (records[:1], [])


@given(st.lists(objects, min_size=2, max_size=5), st.data())
def test_a_bad_record_anywhere_costs_itself_only(records: list[Any], data: st.DataObject) -> None:
    pieces = [json.dumps(record).encode() for record in records]
    at = data.draw(st.integers(0, len(pieces)))
    bad = data.draw(st.sampled_from([b"42", b"null", b'{"id":}', b'{"id":1']))
    pieces.insert(at, bad)
    found = unwrap(b'{"records":[%b]}' % b",".join(pieces))
    assert isinstance(found[at], Refusal)
    assert found[at].body == bad
    del found[at]
    assert [json.loads(piece) for piece in found if isinstance(piece, bytes)] == records


TOKENS = rb'{ } [ ] , : " \ "a" 1 \u \ud800 null {"a":1} "records" "value"'.split()
json_like = st.lists(st.sampled_from([*TOKENS, b"\n", b" ", b"\xff", b"\x00"]), max_size=40).map(
    b"".join
)


@settings(max_examples=500)
@given(st.binary() | json_like | json_like.map(lambda tail: b'{"records":[{"a":1},' + tail))
def test_any_bytes_yield_valid_objects_or_refusals(body: bytes) -> None:
    found = unwrap(body)
    assert found
    for piece in found:
        if isinstance(piece, Refusal):
            assert piece.reason
            assert piece.body in body
        else:
            assert isinstance(json.loads(_body(piece)), dict)
            assert isinstance(piece, bytes) or piece.original in body


def test_a_row_that_does_not_fit_its_table_is_refused() -> None:
    body = b'{"tables":[{"columns":[{"name":"a"},{"name":"b"}],"rows":[[1],[1,2]]}]}'
    reason = "a row of 1 values in a table of 2 columns"
    assert unwrap(body) == [Refusal(b"[1]", reason), b'{"a":1,"b":2}']
