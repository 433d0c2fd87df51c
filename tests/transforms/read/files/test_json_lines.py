"""JSON lines: every line once, however the file is cut and however it grows."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Record
from schemas.formats.ndjson import ndjson
from schemas.kinds import understand
from transforms.read.files import json_lines, tell
from transforms.read.files.base import Part, Place, Unread, address
from transforms.read.files.json_documents import FORMAT as DOCUMENTS
from transforms.read.files.json_lines import FORMAT, SHORTER, TOO_LONG, UNFINISHED, is_lines

URL = "file:///exports/PT05M.json"
AT_MS = 1_772_600_000_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "PIECE", 7)
    monkeypatch.setattr(json_lines, "_CHUNK", 5)


def read(
    data: bytes, start: int = 0, stop: int = -1, place: Place | None = None, base: int = 0
) -> tuple[list[Record], list[Unread], list[Place]]:
    records: list[Record] = []
    unread: list[Unread] = []
    places: list[Place] = []
    part = Part(URL, start, stop, AT_MS)
    for chunk in FORMAT.read(io.BytesIO(data), part, base, place):
        assert chunk.place is not None
        assert len(chunk.records) == 0 or chunk.records[0].sequence == base + chunk.place.number
        records += chunk.records
        unread += chunk.unread
        places.append(chunk.place)
    return records, unread, places


def bodies(data: bytes, start: int = 0, stop: int = -1) -> list[bytes]:
    return [record.body for record in read(data, start, stop)[0]]


any_lines = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r")),
        st.sampled_from([b"", b"  ", b'{"a":1}', b"\xef\xbb\xbf{}"]),
    ),
    max_size=12,
)
ends = st.sampled_from([b"\n", b"\r\n"])
objects = st.dictionaries(st.sampled_from("abc"), st.text(max_size=6), max_size=2)


def not_blank(lines: list[bytes]) -> list[bytes]:
    """As records: without the mark that the file may begin with."""
    lines = [lines[0].removeprefix(b"\xef\xbb\xbf"), *lines[1:]] if lines else []
    return [line for line in lines if line.strip()]


def cuts(draw: st.DrawFn, size: int) -> Iterator[tuple[int, int]]:
    inside = draw(st.lists(st.integers(0, size), max_size=6))
    points = sorted({0, *inside, size})
    return itertools.pairwise(points)


@given(any_lines, ends, st.data())
def test_parts_have_every_line_once_wherever_the_file_is_cut(
    lines: list[bytes], end: bytes, data: st.DataObject
) -> None:
    text = b"".join(line + end for line in lines)
    found = [bodies(text, *part) for part in cuts(data.draw, len(text))]
    assert [body for part in found for body in part] == not_blank(lines)


@given(any_lines, st.data())
def test_reading_again_from_any_place_gives_the_same_addresses(
    lines: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(line + b"\n" for line in lines)
    for number, (start, stop) in enumerate(cuts(data.draw, len(text))):
        base = address(number, 0)
        records, _, places = read(text, start, stop, base=base)
        assert [record.sequence for record in records] == [base + n for n in range(len(records))]
        for place in places:
            again, _, _ = read(text, start, stop, place, base)
            assert again == records[place.number :]


@given(st.lists(objects, min_size=1, max_size=8), st.data())
def test_a_file_that_grows_between_and_while_it_is_read_has_every_line_once(
    rows: list[dict[str, str]], data: st.DataObject
) -> None:
    lines = [msgspec.json.encode(row) for row in rows]
    text = b"\n".join(lines) + b"\n" * data.draw(st.booleans())
    found: list[bytes] = []
    start = 0
    for _, listed in cuts(data.draw, len(text)):
        grown = data.draw(st.integers(listed, len(text)))
        records, unread, _ = read(text[:grown], start, listed)
        found += [record.body for record in records]
        assert {each.why for each in unread} <= {UNFINISHED}
        start = unread[0].offset if unread else listed
    assert found == lines


def test_an_unfinished_line_is_named_and_read_when_it_has_its_end() -> None:
    text = b'{"a":1}\n{"b":'
    records, unread, _ = read(text, 0, len(text))
    assert [record.body for record in records] == [b'{"a":1}']
    assert unread == [Unread(URL, 8, 5, UNFINISHED, 1)]
    grown = text + b"2}\n"
    assert bodies(grown, unread[0].offset, len(grown)) == [b'{"b":2}']


def test_a_last_line_without_its_newline_is_a_record_once() -> None:
    text = b'{"a":1}\n{"b":2}'
    assert bodies(text, 0, len(text)) == [b'{"a":1}', b'{"b":2}']
    grown = text + b'\n{"c":3}\n'
    assert bodies(grown, len(text), len(grown)) == [b'{"c":3}']


def test_a_line_that_grew_beyond_the_part_is_read_to_its_end() -> None:
    text = b'{"a":1}\n{"b":2}\n{"c":3}\n'
    assert bodies(text, 0, 10) == [b'{"a":1}', b'{"b":2}']
    assert bodies(text, 10, len(text)) == [b'{"c":3}']


@pytest.mark.parametrize("start", [0, 9, 30])
def test_a_file_that_has_become_shorter_is_told(start: int) -> None:
    _, unread, _ = read(b'{"a":1}\n', start, 40)
    begin = max(start, 8)
    assert unread == [Unread(URL, begin, 40 - begin, SHORTER)]


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_that_is_too_long_is_unread_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(json_lines, "LONGEST", 40)
    long = b"[" + b"1," * 40 + b"2]\n"
    records, unread, places = read(b'{"a":1}\n' + long + b'{"b":2}' + end)
    assert [record.body for record in records] == [b'{"a":1}', b'{"b":2}']
    assert unread == [Unread(URL, 8, len(long), TOO_LONG, 1)]
    assert places[-1] == Place(8 + len(long), 1)
    assert read(b'{"a":1}\n' + long + b'{"b":2}' + end, place=places[-1])[0] == records[-1:]


def test_a_last_line_that_is_too_long_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LONGEST", 40)
    assert read(b"x" * 50)[1] == [Unread(URL, 0, 50, TOO_LONG, 1)]


def test_records_are_as_old_as_the_file_says() -> None:
    assert read(b"{}\n")[0] == [Record(0, 0, AT_MS, b"{}")]


def test_of_our_own_lines_the_record_inside_is_read() -> None:
    raw = b'{"SystemAlertId":"s","AlertDisplayName":"x","kind":"y"}'
    alert = understand(raw)
    alert.enqueued_ms = AT_MS + 1
    line = ndjson(alert, source="s", partition="3")
    strange = line.replace(b'"enqueued":', b'"unqueued":')
    other = b'{"id":"0","kind":"x","raw":{}}'
    records, _, _ = read(line + b"\r\n" + other + b"\n" + strange + b"\n" + line)
    assert [record.body for record in records] == [raw, other, strange, raw]
    assert [record.enqueued_ms - AT_MS for record in records] == [1, 0, 0, 1]


SYSLOG = b"<34>1 2026-03-04T05:06:07Z host app - - - text\n"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b'{"a":1}\n{"b":2}\n',
        b'\xef\xbb\xbf{"a":1}\r\n{"b":2}\r\n',
        b'{"a":1}',
        b'{"a":1}\n',
        b'{"a":"' + b"x" * 70_000,
        b'{"records":[{"a":1}]}\n{"records":[{"a":2}]}\n',
        b'[{"a":1}]\n[{"a":2}]\n',
        b'"broken":1}\n{"a":1}\n',
        b'{"broken":"\n{"a":1}\n',
        SYSLOG,
        b"Mar  4 05:06:07 host sshd[1]: a, b\n",
        b'<Event xmlns="x"><System/></Event>\n',
        b"\xff\xff\n" + SYSLOG,
    ],
)
def test_lines_are_told_by_their_head(head: bytes) -> None:
    assert is_lines(head)
    assert tell(head, URL) is FORMAT


@pytest.mark.parametrize(
    "head",
    [
        b'{\n  "a": 1\n}\n',
        b'{"a": {\n    "b": 1}}\n{"a": {\n    "b": 1}}\n',
        b'[\n{"a":1},\n{"b":2}\n]\n',
        b'[{"a":1},{"b":2}]',
        b'[{"a":"' + b"x" * 70_000,
        b'{"value":[{"a":1}]}',
        b'{"value":[{"a":1}]}\n',
        b'{"value": [\n{"a":1},\n{"b":2}\n]}',
        b'{"tables":[{"name":"PrimaryResult","columns":[' + b"x" * 70_000,
        b'{"@odata.context":"x","@odata.count":3,"value":[{"a":1}',
        b'{"data":[\n{"a":1},\n{"b":2}\n]}',
        b'{"a":1}{"b":2}',
        b'{"a":1} {"b":',
    ],
)
def test_documents_are_told_from_lines(head: bytes) -> None:
    assert not is_lines(head)
    assert tell(head, URL) is DOCUMENTS


@pytest.mark.parametrize("head", [b"\0\1\2\3", b"plain text\nof no format\n", b"<html>\n"])
def test_what_is_nothing_of_it_is_not_taken(head: bytes) -> None:
    assert tell(head, URL) is None


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(-1, 200))
def test_no_bytes_raise_and_none_are_passed_over_in_silence(
    data: bytes, start: int, stop: int
) -> None:
    is_lines(data)
    records, unread, _ = read(data, start, stop)
    if start == 0 and stop in (-1, len(data)):
        said = b"".join(data.removeprefix(b"\xef\xbb\xbf").split())
        named = b"".join(data[u.offset :].removeprefix(b"\xef\xbb\xbf") for u in unread)
        kept = b"".join(record.body for record in records) + named
        assert b"".join(kept.split()) == said
