"""Delimited text: each row as the record that its table would have exported."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert
from schemas.batch import Batch, Origin, Record
from transforms.parse import parse_batch
from transforms.read.files import delimited, json_documents, tell
from transforms.read.files.base import Part, Place, Unread
from transforms.read.files.delimited import CUT_OFF, FORMAT
from transforms.read.files.json_lines import TOO_LONG

URL = "file:///exports/query_data.csv"
AT_MS = 1_772_600_000_000
BASE = 3 * 2**32


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


def rows(data: bytes) -> list[dict[str, str]]:
    records, unread, _ = read(data)
    assert not unread
    return [json.loads(record.body) for record in records]


def alerts(data: bytes) -> list[Alert]:
    records, _, _ = read(data)
    batch = Batch(Origin("replay/x", "0"), BASE, BASE + len(records) - 1, None, records)
    parsed, dead = parse_batch(batch)
    assert not dead
    return parsed.alerts


SENTINEL = (
    'TenantId,"TimeGenerated [UTC]",DisplayName,AlertName,AlertSeverity,SystemAlertId,'
    '"StartTime [UTC]","ProcessingEndTime [UTC]",Entities,ConfidenceScore,Status,Type\r\n'
    '8ecf8077,"3/4/2026, 5:06:07.089 PM","Strange, ""very""\nstrange",rule-1,High,a-1,'
    '"3/14/2026, 12:00:00.000 AM","3/4/2026, 5:07:00.000 PM",'
    '"[{""$id"":""2"",""Address"":""203.0.113.7"",""Type"":""ip""}]",,New,SecurityAlert\r\n'
)


def test_a_query_exported_by_the_portal_is_read_as_its_table() -> None:
    (alert,) = alerts(b"\xef\xbb\xbf" + SENTINEL.encode())
    assert (alert.kind, alert.entity, alert.severity) == ("security_alert", "a-1", "high")
    assert alert.title == 'Strange, "very"\nstrange'
    assert alert.event_ms == 1_772_643_967_089
    assert json.loads(alert.raw) == {
        "TenantId": "8ecf8077",
        "TimeGenerated": "2026-03-04T17:06:07.089Z",
        "DisplayName": 'Strange, "very"\nstrange',
        "AlertName": "rule-1",
        "AlertSeverity": "High",
        "SystemAlertId": "a-1",
        "StartTime": "2026-03-14T00:00:00.000Z",
        "ProcessingEndTime": "2026-03-04T17:07:00.000Z",
        "Entities": '[{"$id":"2","Address":"203.0.113.7","Type":"ip"}]',
        "Status": "New",
        "Type": "SecurityAlert",
    }


def test_alerts_that_defender_for_cloud_exported_are_its_alerts() -> None:
    text = (
        '"SystemAlertId","AlertDisplayName","AlertType","Severity","Status","TimeGenerated"\n'
        '"b-1","Odd sign-in","VM_Odd","Medium","Active","2026-03-04T05:06:07.0890000Z"\n'
    )
    (alert,) = alerts(text.encode())
    assert (alert.kind, alert.title, alert.event_ms) == (
        "defender_alert",
        "Odd sign-in",
        1_772_600_767_089,
    )


@pytest.mark.parametrize(
    ("written", "means"),
    [
        (["3/4/2026, 5:06:07.089 PM"], "2026-03-04T17:06:07.089Z"),
        (["3/4/2026, 5:06:07.089\u202fPM"], "2026-03-04T17:06:07.089Z"),
        (["3/4/2026, 12:06:07.089 AM"], "2026-03-04T00:06:07.089Z"),
        (["3/4/2026, 12:06:07.089 PM"], "2026-03-04T12:06:07.089Z"),
        (["04/03/2026, 17:06:07.089"], "2026-03-04T17:06:07.089Z"),
        (["04/03/2026, 5:06:07.089 pm"], "2026-03-04T17:06:07.089Z"),
        (["4.3.2026, 17:06:07.089"], "2026-03-04T17:06:07.089Z"),
        (["2026/3/4 17:06:07.089"], "2026-03-04T17:06:07.089Z"),
        (["2026-03-04, 5:06:07.089 p.m."], "2026-03-04T17:06:07.089Z"),
        (["2026-03-04 17:06:07.0891234"], "2026-03-04T17:06:07.0891234Z"),
        (["2026-03-04T17:06:07.0891234Z"], "2026-03-04T17:06:07.0891234Z"),
        (["3/4/2026, 17:06:07", "3/14/2026, 17:06:07"], "2026-03-04T17:06:07Z"),
        (["4/3/2026, 5:06:07 PM", "14/3/2026, 5:06:07 PM"], "2026-03-04T17:06:07Z"),
        (["3/4/2026 17:06"], "2026-03-04T17:06:00Z"),
        (["31/31/2026, 17:06:07"], "31/31/2026, 17:06:07"),
        (["1/1/26, 17:06:07"], "1/1/26, 17:06:07"),
        (["yesterday"], "yesterday"),
    ],
)
@pytest.mark.parametrize("name", ["TimeGenerated [UTC]", "EndTimeUtc"])
def test_times_are_as_the_table_has_them(written: list[str], means: str, name: str) -> None:
    text = f'{name},x\n{written[0]},1\n"{written[-1]}",2\n'.replace(
        written[0], f'"{written[0]}"', 1
    )
    assert rows(text.encode())[0] == {name.partition(" ")[0]: means, "x": "1"}


def test_a_message_that_looks_like_a_time_stays_as_it_is() -> None:
    assert rows(b'Title,x\n"3/4/2026, 5:06:07 PM",1\n')[0]["Title"] == "3/4/2026, 5:06:07 PM"


@pytest.mark.parametrize("zone", ["Local Time", "Local"])
def test_local_times_are_refused_and_a_zone_in_the_header_helps(zone: str) -> None:
    text = f'"TimeGenerated [{zone}]",x\n"3/4/2026, 1:06:07.089 AM",1\n'
    records, (unread,), _ = read(text.encode())
    assert not records
    assert (unread.offset, unread.size) == (0, len(text))
    assert f"`TimeGenerated [{zone}]`" in unread.why
    (row,) = rows(text.replace(zone, "UTC+02:00").encode())
    assert row == {"TimeGenerated": "2026-03-03T23:06:07.089Z", "x": "1"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("preface", ["", "\ufeff", "#TYPE System.Object\r\n", "sep={}\r\n"])
def test_the_delimiter_is_told_by_the_header(delimiter: str, preface: str) -> None:
    text = preface.format(delimiter) + f'"Id"{delimiter} Name\r\n1{delimiter}"a,;\t"\r\n'
    assert tell(text.encode(), URL) is FORMAT
    assert rows(text.encode()) == [{"Id": "1", "Name": "a,;\t"}]


def test_rows_that_the_header_does_not_fit_are_records_of_their_own_bytes() -> None:
    text = b'a,b\n1,2\n1,2,3\n\n,\n"x\ny"\n\xff,2\n\0,2\n3,4\n'
    records, unread, _ = read(text)
    assert not unread
    bodies = [record.body for record in records]
    assert bodies[:4] == [b'{"a":"1","b":"2"}', b"1,2,3", b'"x\ny"', b"\xff,2"]
    assert bodies[-1] == b'{"a":"3","b":"4"}'
    parsed, dead = parse_batch(Batch(Origin("replay/x", "0"), BASE, BASE + 5, None, records))
    assert len(parsed.alerts) + len(dead) >= len(records)
    assert b"1,2,3" in [letter.body for letter in dead]


@pytest.mark.parametrize("rest", [b'3,"4', b'3,"4\n5,6\n', b"3", b'"3'])
def test_a_row_without_its_end_is_named(rest: bytes) -> None:
    text = b"a,b\n1,2\n" + rest
    records, unread, _ = read(text)
    assert [record.body for record in records] == [b'{"a":"1","b":"2"}']
    assert unread == [Unread(URL, 8, len(rest), CUT_OFF)]


def test_a_row_that_is_too_long_is_unread_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delimited, "LONGEST", 30)
    for long in (b"x" * 90 + b",1\n", b'1,"never closed\n'):
        text = b"a,b\n1,2\n" + long + b"3,4\n" * 10
        records, unread, _ = read(text)
        assert [record.body for record in records[:2]] == [
            b'{"a":"1","b":"2"}',
            b'{"a":"3","b":"4"}',
        ]
        assert len(records) == 11
        assert unread == [Unread(URL, 8, len(long), TOO_LONG, 1)]


cells = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8),
    st.sampled_from(['"', '""', ",", "\n", "\r\n", ";", "[UTC]", '{"a":1}']),
)
tables = st.lists(st.tuples(cells, cells, st.just("x")), max_size=8)


def written(table: list[tuple[str, str, str]], delimiter: str) -> bytes:
    file = io.StringIO(newline="")
    out = csv.writer(file, delimiter=delimiter)
    out.writerow(["Name", "Title", "Type"])
    out.writerows(table)
    return file.getvalue().encode()


@given(tables, st.sampled_from(",;\t"))
def test_what_a_writer_wrote_is_read(table: list[tuple[str, str, str]], delimiter: str) -> None:
    names = ("Name", "Title", "Type")
    assert rows(written(table, delimiter)) == [
        {name: cell for name, cell in zip(names, row, strict=True) if cell} for row in table
    ]


@given(tables)
def test_reading_again_from_any_place_gives_the_same_addresses(
    table: list[tuple[str, str, str]],
) -> None:
    text = written(table, ",")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_documents, "_MOST", 2)
        records, _, places = read(text)
        assert [record.sequence for record in records] == [BASE + n for n in range(len(table))]
        assert len(places) == -(-len(table) // 2)
        for place in places:
            assert read(text, place)[0] == records[place.number :]


@given(tables, st.data())
def test_of_a_file_that_is_cut_off_all_rows_before_are_read(
    table: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    text = written(table, ",")
    whole = read(text)[0]
    size = data.draw(st.integers(text.index(b"\n") + 1, len(text)))
    records, unread, _ = read(text[:size])
    if not unread and text[:size][-1:] != b"\n":
        assert len(records) - 1 <= len(whole)
        records.pop()  # its last cell may have been longer
    assert records == whole[: len(records)]


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    FORMAT.tells(data, URL)
    read(data)
    read(b"a,TimeGenerated [UTC]\n" + data)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"one column\n1\n",
        b"Hello, world\nthis is no table\n",
        b'{"a":1,"b":2}\n',
        b"Mar  4 05:06:07 host app: a, b\n",
        b"a,a\n1,2\n",
        b"a,,b\n1,2,3\n",
        b"1,2\n3,4\n",
        b"a,b" * 30_000,
    ],
)
def test_what_has_no_header_is_not_taken(head: bytes) -> None:
    assert not FORMAT.tells(head, URL)
