"""What is done to runs is what is done to sets of addresses; and it takes one pass."""

from __future__ import annotations

import itertools
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.runs import Run, addresses, clip, count, intersect, runs, subtract, union

Address = tuple[int, int]

some = st.sets(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60)


@st.composite
def cut_up(draw: st.DrawFn) -> list[Run]:
    """A set as it comes from several receipts: in any order, cut anywhere."""
    found = [
        Run(first, last, run.index)
        for run in runs(draw(some))
        for first, last in (
            [(run.first, run.last)]
            if len(run) == 1 or draw(st.booleans())
            else [(run.first, run.first), (run.first + 1, run.last)]
        )
    ]
    return draw(st.permutations(found))


def unfold(found: list[Run]) -> list[Address]:
    return [(sequence, r.index) for r in found for sequence in range(r.first, r.last + 1)]


def canonical(found: list[Run]) -> bool:
    """In order of (index, first), and no two overlap or touch."""
    return all(
        (a.index, a.last + 1) < (b.index, b.first) for a, b in itertools.pairwise(found)
    ) and all(run.first <= run.last for run in found)


@given(some)
def test_runs_hold_exactly_the_addresses_and_there_is_one_way_to_say_them(
    given: set[Address],
) -> None:
    found = runs(given)
    assert sorted(unfold(found)) == sorted(given)
    assert canonical(found)
    assert count(found) == len(given)


def test_an_address_that_is_given_twice_counts_once() -> None:
    assert runs([(5, 0), (5, 0), (4, 0)]) == [Run(4, 5, 0)]


def test_records_of_one_event_are_runs_of_their_own() -> None:
    assert runs([(7, 0), (7, 1), (8, 0)]) == [Run(7, 8, 0), Run(7, 7, 1)]


@given(cut_up(), cut_up())
def test_union_subtract_and_intersect_are_those_of_sets(a: list[Run], b: list[Run]) -> None:
    one, other = set(unfold(a)), set(unfold(b))
    assert union(a, b) == runs(one | other)
    assert union(a) == runs(one)
    assert subtract(union(a), b) == runs(one - other)
    assert intersect(union(a), b) == runs(one & other)


@given(st.lists(st.builds(Run, st.integers(0, 9), st.integers(10, 20), st.integers(0, 2))), some)
def test_what_is_subtracted_may_overlap_itself(b: list[Run], given: set[Address]) -> None:
    assert subtract(runs(given), b) == runs(given - set(unfold(b)))
    assert union(b) == runs(unfold(b))


@given(cut_up(), st.integers(0, 30), st.integers(0, 30))
def test_clip_keeps_the_events_between(a: list[Run], first: int, last: int) -> None:
    kept = [address for address in unfold(a) if first <= address[0] <= last]
    assert clip(union(a), first, last) == runs(kept)


@given(cut_up())
def test_addresses_come_in_order_of_the_sequence(a: list[Run]) -> None:
    assert [*addresses(a)] == sorted(unfold(a))


def test_nothing_is_nothing() -> None:
    assert runs([]) == union([], []) == subtract([], [Run(0, 9, 0)]) == clip([], 0, 9) == []
    assert intersect([], [Run(0, 9, 0)]) == [*addresses([])] == []


def test_a_run_is_three_numbers_in_its_byte_form() -> None:
    assert msgspec.json.encode([Run(5, 70, 1)]) == b"[[5,70,1]]"
    assert msgspec.json.decode(b"[[5,70,1]]", type=list[Run]) == [Run(5, 70, 1)]


@pytest.mark.parametrize(
    "work",
    [
        lambda a, b: subtract(a, b),
        lambda a, b: union(a, b),
        lambda a, b: intersect(a, b),
        lambda a, b: subtract(a, [Run(0, 10**9, 0)]),
        lambda a, b: subtract([Run(0, 10**9, 0)], b),
        lambda a, b: clip(a, 1_000, 300_000),
    ],
    ids=["subtract", "union", "intersect", "all at once", "from one", "clip"],
)  # fmt: skip
def test_a_hundred_thousand_runs_take_a_moment(work) -> None:  # type: ignore[no-untyped-def]
    """0.02 to 0.2 s; with a pass for each run it would be an hour."""
    a = [Run(n, n + 2, 0) for n in range(0, 400_000, 4)]
    b = [Run(n + 1, n + 1, 0) for n in range(0, 400_000, 4)]
    began = time.process_time()
    work(a, b)
    assert time.process_time() - began < 2
