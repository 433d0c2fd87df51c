from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Record
from transforms.capture import row, write_capture
from transforms.read import listing
from transforms.read.files.base import Part
from transforms.read.filesystems import Found, HistoryError, find
from transforms.read.listing import Between, Done, lanes, new_since, parts_of
from transforms.read.plan import length

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = 1_772_625_600_000  # 2026-03-04T12:00:00Z
CAPTURED = "/x/space/hub/0/2026/03/04/12/00/00.avro"
EXPORTED = "/x/WorkspaceResourceId=/w/y=2026/m=03/d=04/h=12/m=00/PT05M.json"
HOURLY = "/x/resourceId=/r/y=2026/m=03/d=04/h=12/m=00/PT1H.json"
UNPLACED = "/x/alerts.json"
OTHER_TIME = "their paths say another time"
OLDER = "they were last changed before that time"

ANY = Between()


def file(url: str, modified_ms: int = NOON + DAY, size: int = 100) -> Found:
    return Found(url, size, modified_ms)


def urls(*found: Found, between: Between = ANY) -> list[str]:
    return [part.url for part in parts_of(found, between).parts]


# ---------------------------------------------------------------------- what is left closed


@pytest.mark.parametrize("url", [CAPTURED, EXPORTED, HOURLY])
@pytest.mark.parametrize("by", ["event", "enqueued"])
def test_a_file_of_the_time_that_is_wanted_is_read(url, by):
    assert urls(file(url), between=Between(NOON, NOON + 1, by)) == [url]


@pytest.mark.parametrize(
    ("url", "by", "reaches"),
    [  # how long after noon something in it may be
        (CAPTURED, "event", 75 * MINUTE), (CAPTURED, "enqueued", 75 * MINUTE),
        (HOURLY, "event", 2 * HOUR), (EXPORTED, "event", 65 * MINUTE),
        (EXPORTED, "enqueued", 10 * MINUTE),
    ],
)  # fmt: skip
def test_a_file_from_before_the_start_is_left_closed(url, by, reaches):
    assert urls(file(url), between=Between(NOON + reaches, None, by)) == [url]
    listed = parts_of([file(url)], Between(NOON + reaches + 1, None, by))
    assert (listed.parts, listed.left) == ([], {OTHER_TIME: 1})


@pytest.mark.parametrize(
    ("url", "by", "late"),
    [  # how long before noon something in it may be from
        (CAPTURED, "event", DAY), (CAPTURED, "enqueued", DAY), (HOURLY, "event", DAY),
        (EXPORTED, "event", DAY), (EXPORTED, "enqueued", 5 * MINUTE),
    ],
)  # fmt: skip
def test_a_file_from_after_the_stop_may_hold_what_came_late(url, by, late):
    assert urls(file(url), between=Between(None, NOON - late, by)) == [url]
    listed = parts_of([file(url)], Between(None, NOON - late - 1, by))
    assert (listed.parts, listed.left) == ([], {OTHER_TIME: 1})


def test_how_late_is_for_the_caller_to_say():
    assert urls(file(CAPTURED), between=Between(None, NOON - 1, late_ms=0)) == []
    assert urls(file(CAPTURED), between=Between(None, NOON - 9 * DAY, late_ms=9 * DAY)) == [
        CAPTURED
    ]


def test_a_file_whose_path_says_nothing_is_left_closed_only_for_its_age():
    assert urls(file(UNPLACED), between=Between(None, 0)) == [UNPLACED]
    old = file(UNPLACED, NOON - DAY)
    assert urls(old, between=Between(NOON)) == [UNPLACED]
    listed = parts_of([old], Between(NOON + 1))
    assert (listed.parts, listed.left) == ([], {OLDER: 1})


@pytest.mark.parametrize("modified_ms", [0, 1, 315_532_800_000])  # not known, 1970, a zip's 1980
def test_an_age_that_nobody_set_is_not_believed(modified_ms):
    assert urls(file(UNPLACED, modified_ms), between=Between(NOON)) == [UNPLACED]


def test_an_age_that_the_path_refutes_is_not_believed():
    assert urls(file(CAPTURED, NOON - 9 * DAY), between=Between(NOON)) == [CAPTURED]


def test_without_a_range_everything_is_read():
    assert sorted(urls(*map(file, (CAPTURED, EXPORTED, HOURLY, UNPLACED)))) == sorted(
        (CAPTURED, EXPORTED, HOURLY, UNPLACED)
    )


def test_empty_files_and_those_found_twice_are_counted():
    found = [file(CAPTURED), file(UNPLACED, size=0), file(CAPTURED)]
    listed = parts_of(found)
    assert listed[1:] == (1, 100, {"they are empty": 1, "they were found before": 1})
    assert [part.url for part in listed.parts] == [CAPTURED]
    assert listed.says == [
        "files not read, as they are empty: 1",
        "files not read, as they were found before: 1",
    ]


@given(st.lists(st.integers(-3 * DAY, 3 * DAY)), st.integers(-DAY, DAY), st.integers(0, DAY))
def test_nothing_in_the_range_is_left_closed(offsets, start, span):
    """Whatever Capture's window is, and however late, within a day, a record came."""
    between = Between(NOON + start, NOON + start + span)
    for ms in (NOON + offset for offset in offsets):  # when an event was
        for late, window in ((0, 0), (0, 15 * MINUTE), (DAY, 0), (12 * HOUR, 5 * MINUTE)):
            begin = (ms + late - window) // 1000 * 1000
            if between.start_ms <= ms < between.stop_ms:  # type: ignore[operator]
                at = listing.Placed(begin, 15 * MINUTE)
                assert not between.lacks(Found("", 1, ms + late), at)


# ------------------------------------------------------------------------ parts, in order


def test_parts_are_in_order_of_time_and_then_of_their_paths():
    found = [
        file(UNPLACED, NOON + 1), file("/x/space/hub/1/2026/03/04/12/00/00.avro"), file(CAPTURED),
        file("/x/space/hub/0/2026/03/04/11/55/00.avro"), file("/a.json", NOON + 1),
    ]  # fmt: skip
    parts = parts_of(found).parts
    assert [(part.at_ms - NOON, part.url) for part in parts] == [
        (-5 * MINUTE, "/x/space/hub/0/2026/03/04/11/55/00.avro"), (0, CAPTURED),
        (0, "/x/space/hub/1/2026/03/04/12/00/00.avro"), (1, "/a.json"), (1, UNPLACED),
    ]  # fmt: skip
    assert parts[1] == Part(CAPTURED, 0, 100, NOON, 100, NOON + DAY)


def test_a_template_places_files_and_one_of_no_use_is_told():
    template = "{Namespace}_{EventHub}/{Year}-{Month}-{Day}/{PartitionId}-{Hour}{Minute}{Second}"
    url = "/x/space_hub/2026-03-04/0-120000.avro"
    assert parts_of([file(url)], template=template).parts[0].at_ms == NOON
    with pytest.raises(HistoryError, match=re.escape("the template lacks {Year}")):
        parts_of([], template="{Hour}")


def captured(path: Path, events: int, size: int) -> int:
    rows = (row(Record(n, 0, NOON, os.urandom(size))) for n in range(events))
    return path.write_bytes(write_capture(rows))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PART_BYTES", 10_000)


@pytest.mark.usefixtures("small_parts")
def test_a_big_file_is_cut_where_its_format_can_be(tmp_path):
    captured(tmp_path / "a.avro", 100, 1000)
    (tmp_path / "b.json").write_bytes(b'{"a":1}\n' * 12_000)
    (tmp_path / "c.json").write_bytes(b'{"value":[' + b"1," * 20_000 + b"1]}")
    (tmp_path / "d.avro").write_bytes(b"\0" * 50_000)
    (tmp_path / "e.json").write_bytes(b'{"a":1}\n' * 1_800)
    parts = parts_of(find([str(tmp_path)])).parts
    by_name = {n: [p for p in parts if p.url.endswith(n)] for n in os.listdir(tmp_path)}  # noqa: PTH208
    assert {n: len(found) for n, found in by_name.items()} == {
        "a.avro": 10, "b.json": 10, "c.json": 1, "d.avro": 1, "e.json": 1
    }  # fmt: skip
    for name, found in by_name.items():
        found.sort(key=lambda part: part.start)
        size = (tmp_path / name).stat().st_size
        assert [part.start for part in found] == [0, *(part.stop for part in found[:-1])]
        assert found[-1].stop == size and {part.size for part in found} == {size}
        assert len(found) == 1 or max(map(length, found)) < 15_000


@pytest.mark.usefixtures("small_parts")
def test_a_big_file_that_cannot_be_opened_is_one_part():
    """Its reader says why."""
    assert len(parts_of([file("/none/a.json", size=100_000)]).parts) == 1


sizes = st.lists(st.integers(0, 1000), max_size=60)


@given(sizes, st.integers(1, 9))
def test_lanes_are_the_row_cut_in_pieces(found, most):
    parts = [Part(str(n), 0, size, size=size) for n, size in enumerate(found)]
    rows = lanes(parts, most)
    assert [part for row in rows for part in row] == parts
    assert len(rows) <= most and all(rows)
    even = sum(found) / most
    assert all(sum(map(length, row)) <= even + 1000 for row in rows)


# --------------------------------------------------------------------------------- growth


def again(folder: Path, done: dict[str, Done]) -> list[tuple[str, int]]:
    with_new = new_since(find([str(folder)]), done)
    return sorted((Path(each.url).name, each.start) for each in with_new)


def known(folder: Path) -> dict[str, Done]:
    return {each.url: Done(each.size, each.modified_ms) for each in find([str(folder)])}


def test_what_is_unchanged_is_not_new(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a":1}\n')
    assert again(tmp_path, {}) == [("a.json", 0)]
    assert again(tmp_path, known(tmp_path)) == []


def test_what_was_added_to_lines_is_new_and_what_else_changed_is_whole(tmp_path):
    (tmp_path / "lines.json").write_bytes(b'{"a":1}\n{"a":2}\n')
    (tmp_path / "shorter.json").write_bytes(b'{"a":1}\n{"a":2}\n')
    (tmp_path / "touched.json").write_bytes(b'{"a":1}\n')
    (tmp_path / "document.json").write_bytes(b'[\n{"a":1}\n]')
    (tmp_path / "vanished.json").write_bytes(b'{"a":1}\n')
    captured(tmp_path / "events.avro", 2, 10)
    done = known(tmp_path)
    with (tmp_path / "lines.json").open("ab") as lines:
        lines.write(b'{"a":3}\n')
    (tmp_path / "shorter.json").write_bytes(b'{"a":1}\n')
    os.utime(tmp_path / "touched.json", (1, 1))
    (tmp_path / "document.json").write_bytes(b'[\n{"a":1},\n{"a":2}\n]')
    (tmp_path / "vanished.json").unlink()
    (tmp_path / "late.json").write_bytes(b'{"a":1}\n')
    captured(tmp_path / "events.avro", 4, 10)
    assert again(tmp_path, done) == [
        ("document.json", 0), ("events.avro", 0), ("late.json", 0), ("lines.json", 16),
        ("shorter.json", 0), ("touched.json", 0),
    ]  # fmt: skip
    grown = [f for f in new_since(find([str(tmp_path)]), done) if f.url.endswith("/lines.json")]
    (part,) = parts_of(grown).parts
    assert (part.start, part.stop, part.size) == (16, 24, 24)


def test_lines_go_on_where_the_last_whole_one_ended(tmp_path):
    path = tmp_path / "lines.json"
    path.write_bytes(b'{"a":1}\n{"a":')
    done = {url: before._replace(upto=8) for url, before in known(tmp_path).items()}
    assert again(tmp_path, done) == []
    with path.open("ab") as lines:
        lines.write(b"2}\n")
    assert again(tmp_path, done) == [("lines.json", 8)]


def test_a_file_of_lines_that_grew_beyond_one_part_is_cut_from_where_it_ended(
    small_parts, tmp_path
):
    path = tmp_path / "lines.json"
    path.write_bytes(b'{"a":1}\n' * 100)
    done = known(tmp_path)
    with path.open("ab") as lines:
        lines.write(b'{"a":2}\n' * 5_000)
    parts = parts_of(new_since(find([str(tmp_path)]), done)).parts
    assert [parts[0].start, parts[-1].stop, len(parts)] == [800, 40_800, 4]
