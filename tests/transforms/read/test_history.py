"""A lane is the same row of records whenever, and from wherever, it is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.runners import choose
from schemas.batch import NOBODY, Batch, Record
from schemas.runs import Run
from transforms.capture import row, write_capture
from transforms.read import history
from transforms.read.files.base import RECORDS, Part, address
from transforms.read.history import Lane, Owing, ReadHistory, StorageError, batches, read_part
from transforms.read.plan import Plan, origin, unread_of
from transforms.state_store import StateStore

SEEN: list[Batch] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


def see(batch: Batch) -> None:
    SEEN.append(batch)


def lines(folder: Path, name: str, count: int) -> Part:
    path = folder / name
    path.write_bytes(b"".join(b'{"file":"%b","n":%d}\n' % (name.encode(), n) for n in range(count)))
    return Part(str(path), at_ms=1_000, size=path.stat().st_size)


def avro(folder: Path, name: str, count: int) -> Part:
    path = folder / name
    rows = [
        row(Record(n, 0, 5_000, b'{"file":"%b","n":%d}' % (name.encode(), n))) for n in range(count)
    ]
    path.write_bytes(write_capture(rows))
    return Part(str(path), at_ms=1_000, size=path.stat().st_size)


def planned(folder: Path, *parts: Part, lanes: int = 1) -> tuple[StateStore, Plan]:
    store = StateStore(str(folder / "state"))
    store.prepare()
    plan = Plan.begin(store, "month", {})
    plan.add([parts[at::lanes] for at in range(lanes)])
    return store, plan


def read(store: StateStore, *elements: Lane | Owing) -> list[Batch]:
    run = f"run {time.monotonic_ns()}"
    pipeline = beam.Pipeline(runner=choose("DirectRunner").runner)
    _ = pipeline | ReadHistory(run, elements, store) | beam.Map(see)
    try:
        pipeline.run().wait_until_finish()
    finally:
        history.close_reading(run)
    found = [*SEEN]
    SEEN.clear()
    return found


def records(found: list[Batch]) -> list[Record]:
    return [record for batch in found for record in batch.records]


def test_batches_tile_the_lane_to_its_end_also_over_empty_files(tmp_path: Path) -> None:
    parts = [avro(tmp_path, "a", 450), lines(tmp_path, "b", 0), lines(tmp_path, "c", 30)]
    store, plan = planned(tmp_path, *parts)
    found = read(store, Lane("month", 0, 0, plan.end(0)))
    assert found[0].first == 0
    assert found[-1].last == plan.end(0) - 1
    assert all(b.first == a.last + 1 for a, b in pairwise(found))
    assert [r.sequence for r in records(found)] == [
        *range(450), *(address(2, n) for n in range(30))
    ]  # fmt: skip
    assert {batch.origin for batch in found} == {origin("month", 0)}


@given(at=st.integers(0, 479))
def test_reading_goes_on_behind_any_record_with_the_same_addresses(
    at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("history")
    parts = [avro(folder, "a", 250), lines(folder, "b", 230)]
    row_of = [*enumerate(parts)]
    whole = [*batches(row_of, origin("month", 0))]
    every = records(whole)
    position = every[at].sequence
    place = next(b.offset for b in whole if b.last >= position)
    # What a batch's offset says holds for its last record; from there on nothing is missing.
    last = next(b.last for b in whole if b.last >= position)
    number = (last + 1) // RECORDS
    going = history._Row(row_of[number:], origin("month", 0), last + 1, place)
    left = []
    while piece := going.take():
        left += piece.batch.records
    assert left == [r for r in every if r.sequence > last]


def test_what_came_before_is_read_for_nobody_and_only_up_to_the_start(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, lines(tmp_path, "a", 10), lines(tmp_path, "b", 10))
    start = address(1, 4)
    found = read(store, Lane("month", 0, start, plan.end(0), "", ((0, 0), (0, 1))))
    marked = [b for b in found if b.only == NOBODY]
    live = [b for b in found if b.only is None]
    assert [r.sequence for r in records(marked)] == [
        *range(10), *(address(1, n) for n in range(4))
    ]  # fmt: skip
    assert [r.sequence for r in records(live)] == [address(1, n) for n in range(4, 10)]
    assert live[0].first == start


def test_what_a_sink_is_owed_is_read_again_for_it_alone(tmp_path: Path) -> None:
    store, _ = planned(tmp_path, avro(tmp_path, "a", 500), lines(tmp_path, "b", 20))
    owed = (Run(3, 5, 0), Run(400, 499, 0), Run(address(1, 7), address(1, 7), 0))
    found = read(store, Owing("month", 0, "siem", owed, 5.0))
    assert {batch.only for batch in found} == {"siem"}
    assert [r.sequence for r in records(found)] == [3, 4, 5, *range(400, 500), address(1, 7)]
    assert {run for batch in found for run in batch.wanted or ()} >= {Run(3, 5, 0)}


def test_a_file_that_is_gone_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    parts = [lines(tmp_path, "a", 5), lines(tmp_path, "b", 5)]
    store, plan = planned(tmp_path, *parts)
    Path(parts[0].url).unlink()
    found = read(store, Lane("month", 0, 0, plan.end(0)))
    assert [r.sequence for r in records(found)] == [address(1, n) for n in range(5)]
    (unread,) = unread_of(store, "month")
    assert (unread.url, unread.offset, unread.size) == (parts[0].url, 0, parts[0].size)
    assert "No such file" in unread.why


def test_storage_that_fails_stops_the_replay_instead_of_passing_files_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(url: str) -> None:
        raise TimeoutError(110, "timed out")

    monkeypatch.setattr(history, "open_file", fails)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(StorageError, match="timed out"):
        next(read_part(lines(tmp_path, "a", 5), 0))


def test_the_rate_is_kept(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, lines(tmp_path, "a", 1200))
    began = time.monotonic()
    read(store, Lane("month", 0, 0, plan.end(0), rate=1000.0))
    assert time.monotonic() - began >= 1.0


def test_a_plan_is_the_same_whoever_loads_it_and_grows_by_rounds(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, *(Part(f"file-{n}", size=10) for n in range(9_001)), lanes=2)
    plan.add([[Part("late", size=5)]])
    again = Plan.load(store, "month")
    assert again is not None
    assert (again.lanes, again.rounds, again.bytes) == (2, 2, 90_015)
    assert [again.parts(lane) for lane in range(2)] == [4_502, 4_500]
    assert (again.round(0), again.round(1)) == (4_501, 4_500)
    assert [part.url for _, part in again.row(0, 4_499)] == ["file-8998", "file-9000", "late"]
    with pytest.raises(IndexError):
        again.part(1, 4_500)
