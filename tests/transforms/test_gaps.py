"""Events that were never read are written down once, and for whom they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stubs import ORIGIN
from transforms.gaps import GONE, Gap, forget_gaps, gaps, record_gap
from transforms.state_store import StateStore


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def gap(first: int, last: int, *sinks: str) -> Gap:
    return Gap(first, last, 1, GONE, sinks)


def said(store: StateStore, *found: Gap) -> list[Gap]:
    for each in found:
        record_gap(store, ORIGIN, each)
    return gaps(store, ORIGIN)


def test_one_that_is_said_again_is_the_same(store: StateStore) -> None:
    again = Gap(5, 9, 2, "found by another reader")
    assert said(store, gap(5, 9), again) == [gap(5, 9)]


def test_one_that_lies_inside_another_is_not_told_twice(store: StateStore) -> None:
    assert said(store, gap(5, 9), gap(5, 20), gap(30, 31), gap(6, 7)) == [gap(5, 20), gap(30, 31)]


def test_what_one_sink_misses_hides_nothing_that_others_miss_too(store: StateStore) -> None:
    both = [gap(0, 50, "siem"), gap(10, 20)]
    assert said(store, *both) == both
    assert said(store, gap(0, 60)) == [gap(0, 60)]
    assert said(store, gap(0, 60, "siem")) == [gap(0, 60)]


def test_one_range_that_several_sinks_miss_names_them_all(store: StateStore) -> None:
    assert said(store, gap(0, 5, "siem"), gap(0, 5, "splunk")) == [gap(0, 5, "siem", "splunk")]
    assert said(store, gap(0, 5)) == [gap(0, 5)]


def test_behind_a_position_none_is_left_and_the_rest_stays(store: StateStore) -> None:
    said(store, gap(0, 5), gap(10, 20, "siem"), gap(30, 40))
    forget_gaps(store, ORIGIN, 14)
    assert gaps(store, ORIGIN) == [gap(0, 5), gap(10, 14, "siem")]
    forget_gaps(store, ORIGIN, 14)
    assert gaps(store, ORIGIN) == [gap(0, 5), gap(10, 14, "siem")]
