"""Receipts wait in the store until they follow, and what is spooled is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.receipt import Outcomes, Receipt
from transforms import spool
from transforms.account import begin
from transforms.read.plan import origin
from transforms.spool import Done, Spool
from transforms.state_store import StateStore

AT = origin("month", 0)
OTHER = origin("month", 1)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    found = StateStore(str(tmp_path / "state"))
    found.prepare()
    return found


def receipt(first: int, last: int, sink: str = "one", lane: int = 0) -> Receipt:
    size = last - first + 1
    at = origin("month", lane)
    return Receipt(
        at.source, at.partition, sink, first, last, size, Outcomes(delivered=size), [],
        offset=f"{last}:0",
    )  # fmt: skip


class Passed:
    """Stands for `Known`: what it was passed over for is given once."""

    def __init__(self) -> None:
        self.found = {"one": {"live/0": (3, 9)}}

    def rests(self) -> dict[str, dict[str, tuple[int, int]]]:
        found, self.found = self.found, {}
        return found


def put(store: StateStore, *receipts: Receipt, known: Passed | None = None) -> None:
    do_fn = spool._Spool("month", store, known)  # type: ignore[arg-type]
    do_fn.start_bundle()
    for each in receipts:
        do_fn.process(each)
    do_fn.finish_bundle()


def loaded(store: StateStore) -> Spool:
    found = Spool(store, "month")
    found.load()
    return found


def following(found: Spool, position: int = -1) -> list[tuple[int, int]]:
    return [(each.first, each.last) for each in found.following("one", AT, position)]


def test_receipts_follow_as_far_as_none_is_missing(store: StateStore) -> None:
    found = Spool(store, "month")
    put(store, receipt(20, 29), receipt(0, 9))
    put(store, receipt(40, 49))
    found.load()
    assert following(found) == [(0, 9)]
    put(store, receipt(10, 19), receipt(0, 9, lane=1))
    found.load()
    assert following(found) == [(0, 9), (10, 19), (20, 29)]
    assert following(found, 19) == [(20, 29)]
    assert [r.last for r in found.following("one", OTHER, -1)] == [9]


def test_what_was_done_twice_counts_once(store: StateStore) -> None:
    put(store, receipt(0, 9), receipt(10, 19))
    put(store, receipt(0, 9), receipt(10, 19), receipt(20, 29))
    found = loaded(store)
    assert following(found) == [(0, 9), (10, 19), (20, 29)]
    assert found.entered == 30


def test_files_go_once_the_account_has_all_of_them(store: StateStore) -> None:
    put(store, receipt(0, 9), receipt(20, 29))
    put(store, receipt(10, 19))
    found = loaded(store)
    found.drop("one", AT, 19)
    assert following(loaded(store), 19) == [(20, 29)]
    assert following(loaded(store)) == [(0, 9)]  # its file has what is still to be entered
    found.drop("one", AT, 29)
    assert not [*store.list("replays")]


def test_why_a_sink_was_passed_over_outlasts_the_receipts(store: StateStore) -> None:
    put(store, receipt(0, 9), known=Passed())
    found = loaded(store)
    assert found.rests == {"one": {"live/0": (3, 9)}}
    found.drop("one", AT, 9)
    assert Spool(store, "month").rests == {"one": {"live/0": (3, 9)}}
    found.clear()
    assert Spool(store, "month").rests == {}
    assert not [*store.list("replays")]


def test_reading_goes_on_behind_what_every_sink_has_done(store: StateStore) -> None:
    put(store, receipt(0, 9), receipt(10, 19), receipt(20, 29))
    put(store, receipt(0, 9, "two"), receipt(10, 19, "two"), receipt(40, 49, "two"))
    done = Done(store, "month", ("one", "two"))
    assert done.upto(0, 0, 99) == (19, "19:0")
    assert done.upto(0, 50, 99) == (49, "")
    assert done.upto(1, 0, 99) == (-1, "")
    assert Done(store, "month", ("one",)).upto(0, 0, 29) == (29, "29:0")


def test_reading_goes_on_behind_the_account_where_the_spool_is_entered(store: StateStore) -> None:
    begin(store, ("one",), AT, 49)
    put(store, receipt(50, 59))
    done = Done(store, "month", ("one",))
    assert done.upto(0, 0, 99)[0] == 59
    assert done.upto(0, 0, 39)[0] >= 39
