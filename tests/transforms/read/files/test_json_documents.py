"""JSON documents: the records that Parse would find in them, however long they are."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.batch import Record
from schemas.repairs import Repaired
from schemas.wrappers import Refusal, unwrap
from transforms.read.files import json_documents
from transforms.read.files.base import Part, Place, Unread
from transforms.read.files.json_documents import CUT_OFF, FORMAT
from transforms.read.files.json_lines import TOO_LONG

URL = "file:///exports/page.json"
AT_MS = 1_772_600_000_000
BASE = 7 * 2**32


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_documents, "_PIECE", 5)
    monkeypatch.setattr(json_documents, "_WINDOW", 3)
    monkeypatch.setattr(json_documents, "_MOST", 3)


def read(data: bytes, place: Place | None = None) -> tuple[list[Record], list[Unread], list[Place]]:
    records: list[Record] = []
    unread: list[Unread] = []
    places: list[Place] = []
    for chunk in FORMAT.read(io.BytesIO(data), Part(URL, at_ms=AT_MS), BASE, place):
        records += chunk.records
        unread += chunk.unread
        if chunk.place:
            places.append(chunk.place)
    return records, unread, places


def bodies(data: bytes) -> list[bytes]:
    records, unread, _ = read(data)
    assert not unread
    return [record.body for record in records]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from('"\\{}[],:')
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
records_of = st.lists(st.dictionaries(st.text("abc", max_size=4), values, max_size=3), max_size=6)
indents = st.sampled_from([None, 0, 2])
wrappers: list[Callable[[list[Any]], Any]] = [
    lambda rows: rows,
    lambda rows: {"value": rows, "@odata.nextLink": "https://x/?a=[{"},
    lambda rows: {"@odata.context": "x]", "@odata.count": 3, "value": rows},
    lambda rows: {"records": rows},
    lambda rows: {"nextLink": None, "Value": rows},
]


@given(records_of, st.sampled_from(wrappers), indents)
def test_arrays_and_wrappers_give_their_records(
    rows: list[dict[str, Any]], wrap: Callable[[list[Any]], Any], indent: int | None
) -> None:
    text = json.dumps(wrap(rows), indent=indent).encode()
    assert [json.loads(body) for body in bodies(text)] == rows


@given(records_of, indents, st.sampled_from(["", "\n", " ,\r\n", "\x1e"]))
def test_documents_behind_each_other_are_all_read(
    rows: list[dict[str, Any]], indent: int | None, between: str
) -> None:
    named = [{"time": "t"} | row for row in rows]
    text = between.join(json.dumps(row, indent=indent) for row in named)
    assert [json.loads(body) for body in bodies(text.encode())] == named
    assert all(body in text.encode() for body in bodies(text.encode()))


def alive(pieces: list[Any]) -> list[bytes]:
    return [p.body if isinstance(p, Repaired | Refusal) else p for p in pieces]


@given(
    st.dictionaries(
        st.sampled_from(["value", "records", "tables", "a", "time", "@odata.x", "count"]),
        st.one_of(values, st.lists(st.dictionaries(st.just("b"), scalars, max_size=1), min_size=1)),
        max_size=3,
    )
)
def test_any_document_gives_what_parse_would_find_in_it(document: dict[str, Any]) -> None:
    wrapped = [key for key in ("records", "value", "tables") if key in document]
    assume(len(wrapped) < 2 and not (wrapped and "time" in document))  # `time` is sorted behind
    for key in wrapped:
        assume(document[key] or not isinstance(document[key], list))  # an empty page is no record
        if isinstance(document[key], list) and key != "tables":
            assume(all(isinstance(row, dict) for row in document[key]))
    text = json.dumps(document, sort_keys=True).encode()
    found = [alive(unwrap(body)) for body in bodies(text)]
    assert [piece for pieces in found for piece in pieces] == alive(unwrap(text))


def test_a_record_may_itself_have_a_list_called_value() -> None:
    for text in (
        b'{"time":"t","value":[{"a":1}]}',
        b'{"value":["a"],"b":2}',
        b'{"value":[],"b":2}',
        b'{"value":3}',
        b'{"records":3}',
    ):
        assert bodies(text) == [text]


def test_an_empty_page_holds_no_record_and_is_no_error() -> None:
    for text in (b"", b" \n", b"[]", b'{"@odata.context":"x","value":[]}', b'{"records":[]}'):
        assert bodies(text) == []


TABLES = {
    "tables": [
        {
            "name": "PrimaryResult",
            "columns": [{"name": "Type", "type": "string"}, {"name": "N", "type": "int"}],
            "rows": [["SecurityAlert", 1], ["x", None], ["too", "many", "values"], ["few"]],
        },
        {"name": "Other", "columns": [{"name": "A", "type": "dynamic"}], "rows": [['{"b":1}']]},
    ]
}


def test_rows_of_a_query_are_what_parse_makes_of_the_whole_result() -> None:
    text = json.dumps(TABLES, indent=1).encode()
    found = [piece for body in bodies(text) for piece in unwrap(body)]
    assert found == unwrap(text)
    assert found[0] == b'{"Type":"SecurityAlert","N":1}'
    assert [type(piece) for piece in found] == [bytes, bytes, Refusal, Refusal, bytes]


def test_rows_are_read_as_the_older_api_and_the_portal_write_them() -> None:
    kusto = {
        "Tables": [
            {
                "TableName": "Table_0",
                "Columns": [{"ColumnName": "A", "DataType": "String", "ColumnType": "string"}],
                "Rows": [["x"], ["y"]],
            }
        ]
    }
    assert bodies(json.dumps(kusto).encode()) == [b'{"A":"x"}', b'{"A":"y"}']
    swapped = {"tables": [{"rows": [["x"]], "columns": [{"name": "A"}]}], "statistics": {}}
    (body,) = bodies(json.dumps(swapped).encode())
    assert unwrap(body) == [b'{"A":"x"}']
    both = {"tables": [*TABLES["tables"][1:], *swapped["tables"]]}
    first, body = bodies(json.dumps(both).encode())
    assert [first, *unwrap(body)] == [b'{"A":"{\\"b\\":1}"}', b'{"A":"x"}']


def test_tables_that_are_no_result_are_a_record_with_all_that_is_in_it() -> None:
    for tables in ([{"b": 1}], [{"columns": [], "rows": []}], [{"columns": [{"name": "x"}]}, {}]):
        text = json.dumps({"tables": tables, "a": {"b": "c"}}).encode()
        assert bodies(text) == [text]
    assert bodies(b'{"tables":[{"columns":[{"name":"A"}],"rows":[]}]}') == []


def test_items_that_are_no_objects_are_records_that_parse_refuses() -> None:
    assert bodies(b'[1, "a", null, [{"b":1}], {NaN}]') == [
        b"1",
        b'"a"',
        b"null",
        b'[{"b":1}]',
        b"{NaN}",
    ]


@given(records_of, st.sampled_from(wrappers), indents, st.data())
def test_of_a_document_that_is_cut_off_all_before_is_read_and_the_rest_is_named(
    rows: list[dict[str, Any]],
    wrap: Callable[[list[Any]], Any],
    indent: int | None,
    data: st.DataObject,
) -> None:
    text = json.dumps(wrap(rows), indent=indent).encode()
    size = data.draw(st.integers(1, len(text) - 1))
    whole = read(text)[0]
    records, unread, _ = read(text[:size])
    assert records == whole[: len(records)]
    assert [each.why for each in unread] == [CUT_OFF]
    assert unread[0].offset + unread[0].size == size
    assert all(record.body in text[: unread[0].offset] for record in records)


@given(records_of, st.data())
def test_what_is_broken_ends_the_reading_and_never_raises(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    text = json.dumps({"value": rows}).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    broken = text[:at] + data.draw(st.binary(max_size=3)) + text[at + 1 :]
    records, unread, _ = read(broken)
    end = text.index(b"[") + 1
    before = []
    for whole in read(text)[0]:
        end = text.index(whole.body, end) + len(whole.body)
        if end < at:
            before.append(whole.body)
    assert [record.body for record in records][: len(before)] == before
    assert len(unread) <= 1


@pytest.mark.parametrize(
    ("text", "offset", "why"),
    [
        (b'[{"a":1},{"b":[1}]},{"c":3}]', 9, "a bracket closes another one"),
        (b'{"a":1}x{"c":3}', 7, "neither an object nor an array"),
        (b'{"value":[{"a":1}],2:3}', 19, "a key is missing"),
        (b'{"value":[{"a":1}],"b" 3}', 23, "a colon is missing"),
        (b'[{"a":1},}]', 9, "a value is missing"),
    ],
)
def test_where_and_why_a_document_is_broken_is_told(text: bytes, offset: int, why: str) -> None:
    records, unread, _ = read(text)
    assert records[0].body == b'{"a":1}'
    assert [(u.offset, u.why.removeprefix("not JSON: ")) for u in unread] == [(offset, why)]


@given(st.binary(max_size=60))
def test_no_bytes_raise(data: bytes) -> None:
    FORMAT.tells(data, URL)
    for start in (b"", b"[", b'{"value":[{', b'{"tables":[{"columns":[{"name":"a"}],"rows":['):
        read(start + data)


@given(records_of, st.sampled_from(wrappers))
def test_reading_again_from_any_place_gives_the_same_addresses(
    rows: list[dict[str, Any]], wrap: Callable[[list[Any]], Any]
) -> None:
    text = json.dumps(wrap(rows)).encode()
    records, _, places = read(text)
    assert [record.sequence for record in records] == [BASE + n for n in range(len(rows))]
    assert len(places) == -(-len(rows) // 3)
    for place in places:
        assert read(text, place)[0] == records[place.number :]


@given(
    st.lists(st.one_of(values, st.dictionaries(st.just("a"), values)), max_size=12),
    st.sampled_from(wrappers),
    indents,
    st.integers(0, 400),
    st.binary(max_size=2),
)
def test_how_much_is_read_at_once_changes_nothing(
    rows: list[Any], wrap: Callable[[list[Any]], Any], indent: int | None, at: int, other: bytes
) -> None:
    text = json.dumps(wrap(rows), indent=indent).encode()
    text = text[:at] + other + text[at + 1 :]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for size in (5, 50, 1_000_000):
            patch.setattr(json_documents, "_PIECE", size)
            records, unread, places = read(text)
            found.append((records, [(u.offset, u.why) for u in unread], places))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    "text",
    [
        b'[{"a":1},{"b":"%b"},{"c":3}]',
        b'{"value":[{"a":1},{"b":["%b"]},{"c":3}],"x":"%b"}',
        b'{"time":1}{"b":{"%b":1}}{"c":3}',
        b'{"time":1} {"time":"%b"} {"c":3}',
    ],
)
def test_a_record_that_is_too_long_is_unread_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.setattr(json_documents, "LONGEST", 50)
    text = text.replace(b"%b", b'x\\"\\\\' * 30)
    records, unread, _ = read(text)
    assert len(records) == 2
    assert records[1].body == b'{"c":3}'
    ((url, offset, size, why, count),) = [
        (u.url, u.offset, u.size, u.why, u.records) for u in unread
    ]
    assert (url, why, count) == (URL, TOO_LONG, 1)
    assert text[offset : offset + 1] == b"{"
    assert text[offset + size - 1 : offset + size] == b"}"
    assert read(text, Place(0, 1))[0] == records[1:]


def test_a_mark_at_the_beginning_is_no_error() -> None:
    assert bodies(b'\xef\xbb\xbf[{"a":1}]') == [b'{"a":1}']


class Endless(io.RawIOBase):
    """A document that is made while it is read."""

    def __init__(self, begin: bytes, middle: bytes, times: int) -> None:
        self.begin, self.middle, self.times = begin, middle, times

    def seek(self, offset: int, whence: int = 0) -> int:
        assert offset == 0
        self.left = self.times
        return 0

    def tell(self) -> int:
        return 0

    def read(self, size: int = -1) -> bytes:
        if self.left == self.times:
            self.left -= 1
            return self.begin
        self.left -= 1
        return self.middle if self.left > 0 else b""


@pytest.mark.parametrize(
    ("begin", "middle"),
    [
        (b"[", b'{"a":"%b"},' % (b"x" * 2000) * 50),
        (b'["', b'\\"' * 50_000),
        (b"[", b'{"":[' * 1000 + b"]}" * 1000 + b","),
        (b"[{", b'"":"",' * 20_000),
        (b"", b'""' * 50_000),
    ],
)
def test_memory_is_bounded_whatever_the_document_is(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, middle: bytes
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(json_documents, "LONGEST", 256 * 1024)
    monkeypatch.setattr(json_documents, "_PIECE", 64 * 1024)
    file: Any = Endless(begin, middle, 40)
    tracemalloc.start()
    try:
        for _ in FORMAT.read(file, Part(URL), 0):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 1024 * 1024
