"""Receipts move out of the account, and grow coarser, and never say anything else by it."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ledger import Span
from schemas.receipt import Outcomes
from schemas.runs import Run
from tests.stubs import ORIGIN
from tests.transforms.test_account import Here, Keeper, Killed, receipt
from transforms import account
from transforms import receipts as module
from transforms.account import Settled, begin, receipts
from transforms.owed import account_path
from transforms.receipts import row, segments, spill
from transforms.state_store import StateStore

PLACE = ("siem", ORIGIN.source, ORIGIN.partition)
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def span(first: int, last: int, at_ms: int = 0, **outcomes: int) -> Span:
    ended = Outcomes(**outcomes) if outcomes else Outcomes(delivered=last - first + 1)
    return Span(first, last, ended.total, ended, at_ms, at_ms)


def minutes(count: int, first: int = 0, every_ms: int = MINUTE, at_ms: int = MINUTE) -> list[Span]:
    """Successive spans of ten events, a minute apart."""
    return [
        span(first + n * 10, first + n * 10 + 9, at_ms + n * every_ms, delivered=8, dead=2)
        for n in range(count)
    ]


def tiles(spans: list[Span]) -> bool:
    return all(b.first == a.last + 1 for a, b in itertools.pairwise(spans))


def total(spans: list[Span]) -> Outcomes:
    return sum((each.outcomes for each in spans), Outcomes())


def raw(store: StateStore) -> list[Span]:
    """What lies in the segments, whatever a reader would leave out."""
    found = [store.get(path) or b"" for path in store.list("receipts")]
    return [each for data in found for each in msgspec.json.decode(data, type=list[Span])]


def objects(store: StateStore) -> list[str]:
    return [path.rpartition("/")[2] for path in store.list("receipts")]


# --------------------------------------------------------------------------- where they lie


def test_few_stay_in_the_account(store: StateStore) -> None:
    spans = minutes(64)
    assert spill(store, *PLACE, spans) == spans
    assert objects(store) == []


def test_of_many_the_older_ones_move_and_the_last_which_still_grows_stays(
    store: StateStore,
) -> None:
    spans = minutes(65)
    left = spill(store, *PLACE, spans)
    assert left == spans[-8:]
    assert segments(store, *PLACE) == spans[:-8]
    assert objects(store) == [f"{0:020d}.json"]


def test_a_segment_takes_2000_spans_then_the_next_begins(store: StateStore) -> None:
    spans = minutes(5_000)
    left: list[Span] = []
    for at in range(0, 5_000, 50):
        left = spill(store, *PLACE, [*left, *spans[at : at + 50]])
        assert len(left) <= 64
    assert row(segments(store, *PLACE) or [], left) == spans
    assert objects(store) == [f"{first:020d}.json" for first in (0, 20_000, 40_000)]


def test_more_than_a_segment_at_once_is_cut(store: StateStore) -> None:
    spans = minutes(5_000)
    left = spill(store, *PLACE, spans)
    assert row(segments(store, *PLACE) or [], left) == spans
    assert len(objects(store)) == 3


def test_what_a_crash_left_in_both_moves_and_counts_once(store: StateStore) -> None:
    spans = minutes(65)
    spill(store, *PLACE, spans)  # and then the process died, before the account forgot them
    assert row(segments(store, *PLACE) or [], spans) == spans
    spill(store, *PLACE, [*spans, *minutes(30, 650, at_ms=66 * MINUTE)])
    assert raw(store) == [*spans, *minutes(22, 650, at_ms=66 * MINUTE)]


def test_sinks_and_partitions_have_rows_of_their_own(store: StateStore) -> None:
    spill(store, *PLACE, minutes(65))
    assert segments(store, "splunk", ORIGIN.source, ORIGIN.partition) == []
    assert segments(store, "siem", ORIGIN.source, "31") == []
    assert segments(store, "siem", f"{ORIGIN.source}/{ORIGIN.partition}", "x") == []


def test_holes_and_what_only_overlaps_stay_to_be_found() -> None:
    wrong = [span(0, 9), span(20, 29), span(25, 39)]
    assert row([], wrong) == wrong
    assert row(wrong[:1], wrong[1:]) == wrong


# --------------------------------------------------------------------------- growing coarser


def grown(store: StateStore, spans: list[Span]) -> list[Span]:
    """After a life of moving them as they come."""
    left: list[Span] = []
    for at in range(0, len(spans), 40):
        left = spill(store, *PLACE, [*left, *spans[at : at + 40]])
    return row(segments(store, *PLACE) or [], left)


def test_after_a_week_they_are_kept_by_hours_after_a_quarter_by_days(store: StateStore) -> None:
    spans = minutes(120 * 24 * 6, every_ms=10 * MINUTE)  # 120 days, one each ten minutes
    kept = grown(store, spans)
    assert tiles(kept) and (kept[0].first, kept[-1].last) == (0, spans[-1].last)
    assert total(kept) == total(spans)
    now = spans[-1].until_ms
    lengths = [(now - each.until_ms, each.until_ms - each.since_ms) for each in kept]
    assert max(length for age, length in lengths if age < 7 * DAY) == 0
    assert max(length for age, length in lengths if age < 91 * DAY) < HOUR
    assert max(length for _, length in lengths) < DAY
    # It was looked at last when the youngest segment began; an hour may be cut between two.
    by_hours = [length for age, length in lengths if 22 * DAY < age < 90 * DAY]
    assert sum(length < HOUR / 2 for length in by_hours) <= 2 < len(by_hours)
    assert len(kept) < 7 * 24 * 6 + 2_000 + 84 * 24 + 40
    assert len(objects(store)) <= 4


def test_a_crash_while_they_grow_coarser_leaves_nothing_twice_for_long(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = minutes(9_000, every_ms=HOUR)
    deleted = []
    monkeypatch.setattr(store, "delete", lambda path: deleted.append(path))  # it dies before
    left = spill(store, *PLACE, spans[:4_100])
    left = spill(store, *PLACE, [*left, *spans[4_100:6_100]])
    assert deleted, "segments became one"
    assert len(raw(store)) > len(segments(store, *PLACE) or [])
    monkeypatch.undo()
    left = spill(store, *PLACE, [*left, *spans[6_100:]])
    assert raw(store) == segments(store, *PLACE)
    assert total([*raw(store), *left]) == total(spans)
    assert tiles([*raw(store), *left])


def test_spans_across_a_hole_are_not_joined(store: StateStore) -> None:
    spans = minutes(300) + minutes(20_000, first=1_000_000, at_ms=301 * MINUTE)
    kept = grown(store, spans)
    assert total(kept) == total(spans)
    assert [b.first for a, b in itertools.pairwise(kept) if b.first != a.last + 1] == [1_000_000]


def test_a_segment_that_went_while_it_was_read_is_noticed(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill(store, *PLACE, minutes(3_000))
    gone = [*store.list("receipts")][1]
    get = store.get
    monkeypatch.setattr(store, "get", lambda path: None if path == gone else get(path))
    assert segments(store, *PLACE) is None


# ---------------------------------------------------------------------- with the account


@contextmanager
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        patched.setattr(account, "_WRITER", Here())
        patched.setattr(account, "_FLUSH_SECONDS", 0.0)
        patched.setattr(module, "_MOST_SPANS", 4)
        patched.setattr(module, "_LEFT", 1)
        patched.setattr(module, "_SEGMENT", 5)
        yield


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_a_reader_beside_the_run_sees_one_moment(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However the account moves on between the reads of one look."""
    with small():
        begin(store, ["siem"], ORIGIN, -1)
        keeper = Keeper(store)
        following = 0

        def settle() -> None:
            nonlocal following
            keeper.bundle(receipt(following, following + 9, enqueued_ms=following * MINUTE + 1))
            following += 10

        for _ in range(4):
            settle()
        get, moves = store.get, 10
        inside = False

        def moving(path: str) -> bytes | None:
            nonlocal moves, inside
            data = get(path)
            if moves and not inside:
                moves, inside = moves - 1, True
                for _ in range(at_once):
                    settle()
                inside = False
            return data

        monkeypatch.setattr(store, "get", moving)
        seen = receipts(store, "siem", ORIGIN)
        assert seen is not None
        stored, spans = seen
        assert tiles(spans) and (spans[0].first, spans[-1].last) == (0, stored.position)
        assert total(spans) == stored.outcomes
        assert stored.position > 39


def test_of_what_a_sink_never_had_there_are_none(store: StateStore) -> None:
    assert receipts(store, "siem", ORIGIN) is None


def live(store: StateStore, rng: random.Random, die_at: int | None, until: int) -> None:
    """One process: reads on from the position in batches of its own, and dies at that write."""
    writes = 0
    put, delete = store.put, store.delete

    def counted(how: Any) -> Any:
        def write(*arguments: Any, **more: Any) -> None:
            nonlocal writes
            if writes == die_at:
                raise Killed
            writes += 1
            how(*arguments, **more)

        return write

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "put", counted(put))
        patched.setattr(store, "delete", counted(delete))
        try:
            keeper = Keeper(store, sinks=("siem",))
            found = receipts(store, "siem", ORIGIN)
            assert found is not None
            first = found[0].position + 1
            while first < until:
                some = []
                for _ in range(rng.randint(1, 6)):
                    last = first + rng.randint(0, 4)
                    # Mostly minutes go by; sometimes weeks, or nothing was an alert.
                    at_ms = rng.choice([0, first * MINUTE, first * MINUTE, first * 2 * DAY])
                    left = [Run(first, first, 0)] if rng.random() < 0.3 else []
                    some.append(receipt(first, last, owed=left, enqueued_ms=at_ms))
                    first = last + 1
                keeper.bundle(*rng.sample(some, len(some)))
        except Killed:
            pass


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 60), max_size=5))
def test_wherever_a_process_dies_its_receipts_tile_what_is_settled_and_add_up_to_it(
    seed: int, deaths: list[int]
) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, small():
        store = StateStore(folder)
        begin(store, ["siem"], ORIGIN, 6)
        for until, die_at in enumerate((*deaths, None), 1):
            live(store, rng, die_at, until * 100)
            found = receipts(store, "siem", ORIGIN)
            assert found is not None
            stored, spans = found
            assert stored.began == 7
            assert tiles(spans)
            assert [spans[0].first, spans[-1].last] == [7, stored.position] if spans else True
            assert (total(spans), sum(each.records for each in spans)) == (
                stored.outcomes,
                stored.records,
            )
            assert all(each.records == each.outcomes.total for each in spans)
            held = msgspec.json.decode(store.get(account_path(*PLACE)) or b"", type=Settled).spans
            assert len(held) <= 4 + 6
