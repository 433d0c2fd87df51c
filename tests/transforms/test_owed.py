"""What is owed lies in the store exactly, until it is paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.receipt import Run
from transforms.owed import debts, forget_beyond, owe, pay
from transforms.state_store import StateStore

SOURCE = "ns.servicebus.windows.net/hub/$Default"


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def open_runs(store: StateStore, sink: str = "siem") -> list[Run]:
    return [run for debt in debts(store, sink) for run in debt.iou.owed]


def test_a_debt_is_found_with_everything_that_names_it(store: StateStore) -> None:
    owe(store, "siem", SOURCE, "3", 5, 20, [Run(7, 9, 0), Run(12, 12, 4)])
    (debt,) = debts(store)
    assert (debt.sink, debt.source, debt.partition) == ("siem", SOURCE, "3")
    assert (debt.first, debt.last) == (5, 20)
    assert debt.iou.owed == [Run(7, 9, 0), Run(12, 12, 4)]
    assert debt.iou.count == 4


@pytest.mark.parametrize("name", ["a-b", "..", "a/b", "", "x" * 300, "警"])
def test_names_of_any_kind_lead_back_to_their_debts(store: StateStore, name: str) -> None:
    owe(store, name, f"{SOURCE}/{name}", name, 1, 1, [Run(1, 1, 0)])
    (debt,) = debts(store)
    assert (debt.sink, debt.source, debt.partition) == (name, f"{SOURCE}/{name}", name)
    assert list(debts(store, name, f"{SOURCE}/{name}", name)) == [debt]


def test_debts_are_told_apart_by_sink_and_partition_and_come_oldest_first(
    store: StateStore,
) -> None:
    for sink in ("siem", "splunk"):
        for partition in ("0", "1"):
            for first in (100, 5, 90_000_000_000):
                owe(store, sink, SOURCE, partition, first, first + 1, [Run(first, first, 0)])
    assert len(list(debts(store))) == 12
    assert len(list(debts(store, "siem"))) == 6
    assert [debt.first for debt in debts(store, "siem", SOURCE, "1")] == [5, 100, 90_000_000_000]
    assert list(debts(store, "file")) == []


def test_paying_strikes_out_exactly_what_ended(store: StateStore) -> None:
    owe(store, "siem", SOURCE, "3", 0, 9, [Run(0, 9, 0)])
    owe(store, "siem", SOURCE, "3", 10, 19, [Run(10, 19, 0)])
    owe(store, "siem", SOURCE, "1", 0, 19, [Run(0, 19, 0)])
    pay(store, "siem", SOURCE, "3", [Run(8, 11, 0)], [Run(12, 12, 0)])
    assert [
        (debt.partition, debt.iou.owed, debt.iou.delivered, debt.iou.dead)
        for debt in debts(store, "siem")
    ] == [
        ("1", [Run(0, 19, 0)], 0, 0),
        ("3", [Run(0, 7, 0)], 2, 0),
        ("3", [Run(13, 19, 0)], 2, 1),
    ]


def test_a_debt_that_is_paid_stays_known_and_cannot_be_paid_again(store: StateStore) -> None:
    owe(store, "siem", SOURCE, "3", 0, 9, [Run(0, 9, 0)])
    for _ in range(2):
        pay(store, "siem", SOURCE, "3", [Run(0, 9, 0)], [Run(0, 0, 0)])
    (debt,) = debts(store, "siem")
    assert (debt.iou.owed, debt.iou.delivered, debt.iou.dead) == ([], 10, 0)


def test_paying_reads_only_the_debts_that_it_may_concern(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage leaves thousands; each batch that is paid would read them all."""
    for first in range(0, 100, 10):
        owe(store, "siem", SOURCE, "3", first, first + 9, [Run(first, first + 9, 0)])
    read = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda path: (read.append(path), get(path))[1])
    pay(store, "siem", SOURCE, "3", [Run(35, 42, 0)], [])
    assert len(read) == 2
    assert sum(debt.iou.count for debt in debts(store)) == 92


def test_nothing_paid_touches_nothing(store: StateStore) -> None:
    owe(store, "siem", SOURCE, "3", 0, 9, [Run(0, 9, 0)])
    pay(store, "siem", SOURCE, "3", [], [])
    pay(store, "siem", SOURCE, "3", [Run(50, 60, 0)], [])
    pay(store, "splunk", SOURCE, "3", [Run(0, 9, 0)], [])
    assert open_runs(store) == [Run(0, 9, 0)]


def test_debts_beyond_the_position_are_void_and_others_stay(store: StateStore) -> None:
    for partition in ("3", "4"):
        for first in (0, 10, 20):
            owe(store, "siem", SOURCE, partition, first, first + 9, [Run(first, first, 0)])
    forget_beyond(store, "siem", SOURCE, "3", 19)
    assert [debt.last for debt in debts(store, "siem", SOURCE, "3")] == [9, 19]
    assert len(list(debts(store, "siem", SOURCE, "4"))) == 3


def test_a_debt_that_is_deleted_while_they_are_listed_is_passed_over(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(store, "siem", SOURCE, "3", 0, 9, [Run(0, 9, 0)])
    monkeypatch.setattr(store, "get", lambda path: None)
    assert list(debts(store)) == []
