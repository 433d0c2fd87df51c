"""Capture's files as a source: each event once, in order, whatever the files are like."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import NOBODY, TO_DIGESTS, Batch, Origin, Record
from transforms.capture import row as as_row
from transforms.capture import write_capture
from transforms.gaps import gaps
from transforms.hand_over import marks
from transforms.read import captured
from transforms.read.captured import (
    Cursor,
    First,
    NotThisHub,
    ReadCaptured,
    Row,
    close_reading,
    reading,
)
from transforms.read.event_hubs import Partition
from transforms.read.files.base import Part
from transforms.state_store import StateStore

SOURCE = "ns/hub/group"
BEGAN = 1_760_000_000_000
STEP = 1_000  # ms from one event to the next
ACCESS: Any = None
runs = (f"captured {n}" for n in itertools.count())


def record(sequence: int, at_ms: int | None = None) -> Record:
    at = BEGAN + sequence * STEP if at_ms is None else at_ms
    return Record(sequence, 0, at, b'{"n":%d}' % sequence)


def write(path: Path, records: Iterable[Record | int], at_ms: int | None = None) -> Part:
    """A file of Capture's, named as if it began at `at_ms`."""
    found = [record(each) if isinstance(each, int) else each for each in records]
    rows = [{**as_row(each), "Offset": str(each.sequence * 100)} for each in found]
    path.write_bytes(write_capture(rows))
    if at_ms is None:
        at_ms = found[0].enqueued_ms if found else BEGAN
    return Part(str(path), at_ms=at_ms, size=path.stat().st_size)


def taken(cursor: Cursor, stop: int = 2**62, events: int = 200) -> list[int]:
    found: list[int] = []
    while event := cursor.peek():
        records, _ = cursor.take(stop, events, 2**20)
        assert records[0] is event
        numbers = [each.sequence for each in records]
        assert numbers == [*range(event.sequence, event.sequence + len(numbers))]
        assert all(each.body == b'{"n":%d}' % each.sequence for each in records)
        found += numbers
    return found


# --------------------------------------------------------------------------------- rows


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_event_comes_once_and_in_order_however_the_files_overlap_lack_and_are_called(
    data: st.DataObject,
) -> None:
    """Files may lack numbers, share them with the one before, and have any names."""
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    lacks = data.draw(st.sets(st.integers(0, 50), max_size=5))
    shares = data.draw(st.lists(st.integers(0, 6), min_size=len(sizes), max_size=len(sizes)))
    start = data.draw(st.integers(0, 40))
    in_order = data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        parts, at, everything = [], 0, set()
        before: list[int] = []
        for number, (size, shared) in enumerate(zip(sizes, shares, strict=True)):
            own = [each for each in range(at, at + size) if each not in lacks]
            inside = before[len(before) - min(shared, len(before)) :] + own
            at += size
            before = own or before
            everything |= {*own}
            name = number if in_order else data.draw(st.integers(0, 99))
            path = Path(folder, f"{name:02d}-{number}.avro")
            parts.append(write(path, inside, BEGAN + name * 60_000))
        found = taken(Cursor(Row(parts), start), events=data.draw(st.integers(1, 5)))
    assert found == sorted(each for each in everything if each >= start)


def test_a_file_in_the_middle_of_many_is_found_without_looking_into_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "_FEW", 10)
    parts = [write(tmp_path / f"{n:03d}.avro", range(n * 10, n * 10 + 10)) for n in range(64)]
    row = Row(parts)
    cursor = Cursor(row, 405)
    event = cursor.peek()
    assert event is not None and event.sequence == 405
    assert len(row._firsts) <= 8


def test_where_numbers_lack_other_files_of_many_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "_FEW", 10)
    parts = []
    for n in range(30):
        misnamed = 25 if n == 7 else n
        at_ms = BEGAN + misnamed * 10 * STEP
        parts.append(write(tmp_path / f"{n}.avro", range(n * 10, n * 10 + 10), at_ms))
    assert taken(Cursor(Row(parts), 0)) == [*range(300)]


def test_empty_files_between_are_passed_over(tmp_path: Path) -> None:
    parts = []
    for n in range(30):
        at_ms = BEGAN + n * 10 * STEP
        events = range(n * 10, n * 10 + 10) if n in (0, 29) else ()
        parts.append(write(tmp_path / f"{n:02d}.avro", events, at_ms))
    assert taken(Cursor(Row(parts), 5)) == [*range(5, 10), *range(290, 300)]
    assert Row(parts[1:29]).begins() is None
    assert taken(Cursor(Row(parts[1:29]), 0)) == []


def test_the_hubs_own_position_is_known_of_the_last_event_that_is_taken(tmp_path: Path) -> None:
    cursor = Cursor(Row([write(tmp_path / "a.avro", range(10))]), 0)
    assert cursor.peek()
    assert cursor.take(4, 200, 2**20)[1] == ""
    assert cursor.peek()
    assert cursor.take(100, 200, 2**20)[1] == "900"
    assert cursor.next == 10


def test_what_cannot_be_read_is_told_and_is_why_numbers_lack(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{n}.avro", range(n * 10, n * 10 + 10)) for n in range(4)]
    (tmp_path / "1.avro").write_bytes((tmp_path / "1.avro").read_bytes()[:-20])
    (tmp_path / "2.avro").unlink()
    unread: list[Any] = []
    cursor = Cursor(Row(parts), 0, unread=unread.append)
    found = []
    while event := cursor.peek():
        if event.sequence == 30:
            assert "2.avro" in cursor.why
        found += [each.sequence for each in cursor.take(100, 100, 2**20)[0]]
    assert found == [*range(10), *range(30, 40)]
    assert {Path(each.url).name for each in unread} == {"1.avro", "2.avro"}


# ------------------------------------------------------------------------ of another hub


def later(sequence: int) -> Record:
    return record(sequence, BEGAN + 10_000_000 + sequence * STEP)


def test_numbers_that_begin_again_at_a_later_time_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.avro", range(100))
    again = write(tmp_path / "b.avro", [later(n) for n in range(50)])
    with pytest.raises(NotThisHub, match="begin again"):
        taken(Cursor(Row([first, again]), 0))


def test_numbers_that_go_on_at_an_earlier_time_are_refused(tmp_path: Path) -> None:
    young = write(tmp_path / "a.avro", [later(n) for n in range(50)])
    old = write(tmp_path / "b.avro", range(50, 100))
    with pytest.raises(NotThisHub, match="times go back"):
        taken(Cursor(Row([young, old]), 0))


@pytest.mark.parametrize(
    ("known", "how"),
    [
        (First(50, BEGAN + 50 * STEP + 5_000), "of another time"),
        (First(500, BEGAN - 1_000_000), "a later event of an earlier time"),
        (First(0, BEGAN + 2_000_000), "of another time"),
    ],
)
def test_what_the_hub_has_otherwise_is_refused(tmp_path: Path, known: First, how: str) -> None:
    row = Row([write(tmp_path / "a.avro", range(100))])
    with pytest.raises(NotThisHub, match=how):
        taken(Cursor(row, 0, known))
    same = First(50, BEGAN + 50 * STEP + 900)  # Capture tells whole seconds
    assert len(taken(Cursor(row, 0, same))) == 100


# ---------------------------------------------------------------------------- the source

CAME: defaultdict[str, list[Batch]] = defaultdict(list)


def keep(batch: Batch, run: str) -> None:
    CAME[run].append(batch)


@pytest.fixture
def run() -> Iterator[str]:
    name = next(runs)
    yield name
    close_reading(name)
    CAME.pop(name, None)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def origin(partition: str = "0") -> Origin:
    return Origin(SOURCE, partition)


def read(
    run: str,
    store: StateStore,
    rows: dict[str, list[Part]],
    gone: int = 2**40,
    partitions: list[Partition] | None = None,
    known: dict[Origin, First] | None = None,
) -> list[Batch]:
    all_of_it = reading(run)
    found = {origin(each): Row(parts) for each, parts in rows.items()}
    all_of_it.begin(found, dict.fromkeys(found, gone), known or {})
    if partitions is None:
        partitions = [Partition(SOURCE, each, ACCESS, 0, 2**41) for each in rows]
    all_of_it.warming = {origin(each.partition) for each in partitions if each.start < each.live}
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | ReadCaptured(run, partitions, store) | beam.Map(keep, run)
    pipeline.run().wait_until_finish()
    return CAME[run]


def of(batches: list[Batch], partition: str, only: str | None = None) -> list[Batch]:
    return [b for b in batches if b.origin.partition == partition and b.only == only]


def tiles(batches: list[Batch], start: int) -> int:
    for batch in batches:
        assert batch.first == start
        start = batch.last + 1
    return start


def numbers(batches: list[Batch]) -> list[int]:
    return [each.sequence for batch in batches for each in batch.records]


def test_batches_tile_each_partition_and_all_are_read_side_by_side(
    tmp_path: Path, run: str, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "_BUNDLE_BYTES", 2_000)
    rows = {
        p: [
            write(tmp_path / f"{p}-{n}.avro", range(n * 300, n * 300 + 300)) for n in range(3)
        ]
        for p in "012"
    }  # fmt: skip
    batches = read(run, store, rows)
    for p in "012":
        mine = of(batches, p)
        assert tiles(mine, 0) == 900
        assert numbers(mine) == [*range(900)]
        assert max(len(batch.records) for batch in mine) <= 200
    order = [batch.origin.partition for batch in batches]
    assert order != sorted(order), "one after another"
    assert reading(run).ended == {origin(p) for p in "012"}
    assert marks(store) != {}, "nothing may be read before its mark is written"
    assert all(each.next == 900 for each in reading(run).status.values())


def test_partitions_keep_abreast_in_time(
    tmp_path: Path, run: str, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "_ABREAST_MS", 100 * STEP)
    monkeypatch.setattr(captured, "_BATCH_EVENTS", 10)
    monkeypatch.setattr(captured, "_BUNDLE_BYTES", 200)
    few = [record(n, BEGAN + n * 20 * STEP) for n in range(50)]
    rows = {
        "0": [write(tmp_path / "0.avro", range(1000))],
        "1": [write(tmp_path / "1.avro", few)],
    }
    batches = read(run, store, rows)
    reached = dict.fromkeys("01", BEGAN)
    for batch in batches:
        reached[batch.origin.partition] = batch.records[-1].enqueued_ms
        assert abs(reached["0"] - reached["1"]) <= (100 + 10 * 20) * STEP
    assert len(numbers(of(batches, "0"))) == 1000 and len(numbers(of(batches, "1"))) == 50


def test_numbers_that_nobody_has_are_a_gap_and_the_batch_behind_covers_them(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    row = [write(tmp_path / "a.avro", range(10)), write(tmp_path / "b.avro", range(15, 20))]
    batches = read(run, store, {"0": row})
    assert tiles(batches, 0) == 20
    found = gaps(store, origin())
    assert [(gap.first, gap.last) for gap in found] == [(10, 14)]
    assert "neither Capture's files nor the hub" in found[0].why


def test_a_gap_of_bytes_that_could_not_be_read_says_so(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    row = [write(tmp_path / f"{n}.avro", range(n * 10, n * 10 + 10)) for n in range(3)]
    data = bytearray((tmp_path / "1.avro").read_bytes())
    data[-30] ^= 0xFF
    (tmp_path / "1.avro").write_bytes(data)
    read(run, store, {"0": row})
    (gap,) = gaps(store, origin())
    assert (gap.first, gap.last) == (10, 19)
    assert "1.avro" in gap.why
    assert [Path(each.url).name for each in reading(run).unread] == ["1.avro"]


def test_numbers_that_the_hub_has_are_left_to_it(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    row = [write(tmp_path / "a.avro", range(10)), write(tmp_path / "b.avro", range(15, 20))]
    batches = read(run, store, {"0": row}, gone=10)
    assert tiles(batches, 0) == 10
    assert not gaps(store, origin())


def test_of_numbers_that_lack_only_those_are_a_gap_that_the_hub_has_no_more(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    row = [write(tmp_path / "a.avro", range(10)), write(tmp_path / "b.avro", range(15, 20))]
    batches = read(run, store, {"0": row}, gone=12)
    assert tiles(batches, 0) == 12
    assert numbers(batches) == [*range(10)]
    assert [(gap.first, gap.last) for gap in gaps(store, origin())] == [(10, 11)]


def test_reading_goes_on_behind_a_position(tmp_path: Path, run: str, store: StateStore) -> None:
    row = [write(tmp_path / f"{n}.avro", range(n * 10, n * 10 + 10)) for n in range(5)]
    partitions = [Partition(SOURCE, "0", ACCESS, 27, 50)]
    batches = read(run, store, {"0": row}, partitions=partitions)
    assert tiles(batches, 27) == 50
    assert numbers(batches) == [*range(27, 50)]


def test_what_is_read_again_after_a_crash_is_addressed_and_nothing_is_live_before(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    rows = {p: [write(tmp_path / f"{p}.avro", [*range(5, 20), *range(25, 40)])] for p in "01"}
    partitions = [
        Partition(SOURCE, "1", ACCESS, 30, 40, live=30),
        Partition(SOURCE, "0", ACCESS, 0, 40, counted=10, live=22),
    ]
    batches = read(run, store, rows, partitions=partitions)
    assert numbers(of(batches, "0", NOBODY)) == [*range(5, 10)]
    assert numbers(of(batches, "0", TO_DIGESTS)) == [*range(10, 20)]
    live = of(batches, "0")
    assert tiles(live, 22) == 40
    assert numbers(live) == [*range(25, 40)]
    assert [(gap.first, gap.last) for gap in gaps(store, origin())] == [(22, 24)]
    first = next(n for n, batch in enumerate(batches) if batch.only is None)
    assert all(batch.only is None for batch in batches[first:])


def test_partitions_that_are_read_again_do_not_wait_for_each_other(
    tmp_path: Path, run: str, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far apart in time they are: nothing is live before all are through with it."""
    monkeypatch.setattr(captured, "_BATCH_EVENTS", 5)
    monkeypatch.setattr(captured, "_BUNDLE_BYTES", 100)
    rows = {
        "0": [write(tmp_path / "0.avro", range(40))],
        "1": [write(tmp_path / "1.avro", [later(n) for n in range(40)])],
    }
    partitions = [Partition(SOURCE, p, ACCESS, 0, 40, counted=20, live=20) for p in rows]
    batches = read(run, store, rows, partitions=partitions)
    for p in rows:
        assert numbers(of(batches, p, NOBODY)) == [*range(20)]
        assert numbers(of(batches, p)) == [*range(20, 40)]


def test_a_drain_ends_the_shift_and_the_next_goes_on_behind_it(
    tmp_path: Path, run: str, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "_BATCH_EVENTS", 10)
    row = {"0": [write(tmp_path / "a.avro", range(500))]}

    class Enough(beam.DoFn):
        def process(self, batch: Batch) -> None:
            if batch.last >= 99:
                reading(run).draining = True

    all_of_it = reading(run)
    all_of_it.begin({origin(): Row(row["0"])}, {origin(): 2**40}, {})
    for expected in (100, 500):
        start = all_of_it.status[origin()].next if CAME[run] else 0
        all_of_it.draining = False
        pipeline = beam.Pipeline(runner=FnApiRunner())
        partitions = [Partition(SOURCE, "0", ACCESS, start, 2**41)]
        came = pipeline | ReadCaptured(run, partitions, store)
        _ = came | "Keep" >> beam.Map(keep, run)
        if expected == 100:
            _ = came | "Enough" >> beam.ParDo(Enough())
        pipeline.run().wait_until_finish()
        assert tiles(CAME[run], 0) == expected
    assert reading(run).ended == {origin()}


def test_files_of_another_hub_end_the_reading_and_say_why(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    row = [
        write(tmp_path / "a.avro", range(20)),
        write(tmp_path / "b.avro", [later(n) for n in range(5)]),
    ]
    batches = read(run, store, {"0": row})
    assert tiles(batches, 0) == 20
    assert "begin again" in reading(run).refused


def test_an_event_beyond_the_hubs_last_is_of_another_hub(
    tmp_path: Path, run: str, store: StateStore
) -> None:
    row = {"0": [write(tmp_path / "a.avro", range(20))]}
    batches = read(run, store, row, partitions=[Partition(SOURCE, "0", ACCESS, 0, 15)])
    assert numbers(batches) == [*range(15)]
    assert "the hub's last one is 14" in reading(run).refused


def test_hostile_names_forge_no_line(tmp_path: Path, run: str, store: StateStore) -> None:
    folder = tmp_path / "a\nforged\x1b[31m"
    folder.mkdir()
    row = [write(folder / f"{n}.avro", range(n * 10, n * 10 + 10)) for n in range(3)]
    (folder / "1.avro").write_bytes(random.Random(1).randbytes(200))
    read(run, store, {"0": row})
    (gap,) = gaps(store, origin())
    assert "forged" in gap.why and gap.why.isprintable()
