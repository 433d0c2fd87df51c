"""What is owed lies in the store exactly, in few objects, until it is paid."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter
from schemas.ledger import Owing, Payment
from schemas.receipt import Outcomes
from schemas.runs import Run, clip, count, runs, subtract, union
from transforms import owed
from transforms.account import Settled
from transforms.dead_letters import read_dead_letters, write_dead_letters
from transforms.owed import (
    Sums,
    account_path,
    aside_of,
    changed,
    debts,
    drop_aside,
    put_aside,
    sums,
    trim,
    try_again,
    write,
    write_off,
)
from transforms.state_store import StateStore

SOURCE = "ns.servicebus.windows.net/hub/$Default"


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


class Killed(BaseException):
    """The process is gone in the middle of a write to the store."""


def settle(
    store: StateStore, position: int, sink: str = "siem", partition: str = "3", source: str = SOURCE
) -> None:
    stored = Settled(position, 0, 0, Outcomes())
    store.put(account_path(sink, source, partition), msgspec.json.encode(stored))


def owe(
    store: StateStore, *owing: Owing, sink: str = "siem", partition: str = "3", source: str = SOURCE
) -> None:
    """As an account does: first what is owed, then the position, then it is told."""
    write(store, sink, source, partition, owing)
    settle(store, owing[-1].last, sink, partition, source)
    changed(store, sink)


def pay(store: StateStore, delivered: list[Run], dead: list[Run] | None = None) -> None:
    last = max(run.last for run in (*delivered, *(dead or ())))
    write(store, "siem", SOURCE, "3", (), Payment(delivered, dead or [], last))
    changed(store, "siem")


def batch(first: int, last: int, since_ms: int = 0) -> Owing:
    """One of which everything is owed."""
    return Owing(last, [Run(first, last, 0)], since_ms)


def scattered(first: int, last: int) -> Owing:
    """One of which every second record is owed: no two share a run."""
    return Owing(last, [Run(n, n, 0) for n in range(first, last + 1, 2)], 0)


def open_runs(store: StateStore, sink: str = "siem") -> list[Run]:
    return union(run for debt in debts(store, sink) for run in debt.iou.owed)


def objects(store: StateStore, folder: str) -> int:
    return len([*store.list(folder)])


# ---------------------------------------------------------------------------------- segments


def test_a_debt_is_found_with_everything_that_names_it(store: StateStore) -> None:
    owe(store, Owing(20, [Run(7, 9, 0), Run(12, 12, 4)], 1_700))
    (debt,) = debts(store, "siem")
    assert (debt.sink, debt.source, debt.partition) == ("siem", SOURCE, "3")
    assert (debt.first, debt.iou.last, debt.iou.since_ms) == (7, 20, 1_700)
    assert debt.path == f"owed/siem/{SOURCE}/3/{7:020d}.json"
    assert debt.iou.owed == [Run(7, 9, 0), Run(12, 12, 4)]
    assert debt.iou.count == 4


@pytest.mark.parametrize("name", ["a-b", "..", "a/b", "", "x" * 300, "警", "a.json"])
def test_names_of_any_kind_lead_back_to_their_debts(store: StateStore, name: str) -> None:
    source = f"{SOURCE}/{name}"
    owe(store, batch(1, 2), sink=name, partition=name, source=source)
    (debt,) = debts(store, name)
    assert (debt.sink, debt.source, debt.partition) == (name, source, name)
    for paid in (Run(1, 1, 0), Run(2, 2, 0)):
        write(store, name, source, name, (), Payment([paid]))
        changed(store, name)
        assert sums(store, name).delivered == paid.last
    assert debts(store, name) == []


def test_debts_are_told_apart_by_sink_and_partition_and_come_oldest_first(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_RUNS", 1)
    for sink, partition in itertools.product(("siem", "splunk"), "01"):
        for first in (5, 100, 90_000_000_000):
            owe(store, batch(first, first + 1), sink=sink, partition=partition)
    found = [(debt.partition, debt.first) for debt in debts(store, "siem")]
    assert found == [*itertools.product("01", (5, 100, 90_000_000_000))]
    assert {debt.sink for debt in debts(store, "splunk")} == {"splunk"}
    assert debts(store, "file") == []


def test_an_outage_is_one_object_however_long_it_lasts(store: StateStore) -> None:
    for first in range(0, 100_000, 1_000):
        owe(store, *(batch(n, n + 199) for n in range(first, first + 1_000, 200)))
    (debt,) = debts(store, "siem")
    assert debt.iou.owed == [Run(0, 99_999, 0)]
    assert len(store.get(debt.path) or b"") < 100


def test_what_is_scattered_fills_one_segment_after_the_other(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_RUNS", 50)
    for first in range(0, 1_000, 100):
        owe(store, *(scattered(n, n + 19) for n in range(first, first + 100, 20)))
    found = debts(store, "siem")
    assert [(debt.first, debt.iou.last, len(debt.iou.owed)) for debt in found] == [
        (first, first + 99, 50) for first in range(0, 1_000, 100)
    ]
    assert open_runs(store) == runs((n, 0) for n in range(0, 1_000, 2))


def test_what_is_written_again_is_owed_once(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that fails at the position is made again, with what came since."""
    monkeypatch.setattr(owed, "_MOST_RUNS", 10)
    all_of_it = [scattered(n, n + 9) for n in range(0, 60, 10)]
    write(store, "siem", SOURCE, "3", all_of_it[:5])
    owe(store, *all_of_it)
    found = [debt.iou.owed for debt in debts(store, "siem")]
    assert sum(map(count, found)) == 30
    assert union(itertools.chain(*found)) == runs((n, 0) for n in range(0, 60, 2))


def test_who_reads_only_the_oldest_gets_the_oldest_of_each_partition(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_RUNS", 1)
    for partition, first in itertools.product("01", (0, 10, 20)):
        owe(store, batch(first, first), partition=partition)
    found = [(debt.partition, debt.first) for debt in debts(store, "siem", 2)]
    assert found == [("0", 0), ("0", 10), ("1", 0), ("1", 10)]


# ------------------------------------------------------------------------------------ paying


def test_paying_strikes_out_exactly_what_ended(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_RUNS", 1)
    owe(store, batch(0, 9), batch(10, 19), batch(20, 29))
    owe(store, batch(0, 19), partition="1")
    pay(store, [Run(8, 11, 0)], [Run(12, 12, 0)])
    assert [
        (debt.partition, debt.iou.owed, debt.iou.delivered, debt.iou.dead)
        for debt in debts(store, "siem")
    ] == [
        ("1", [Run(0, 19, 0)], 0, 0),
        ("3", [Run(0, 7, 0)], 2, 0),
        ("3", [Run(13, 19, 0)], 2, 1),
        ("3", [Run(20, 29, 0)], 0, 0),
    ]
    assert sums(store, "siem") == Sums(4, 1, 0)


def test_what_is_paid_wholly_is_a_figure_and_cannot_be_paid_again(store: StateStore) -> None:
    owe(store, batch(0, 9))
    for _ in range(2):
        pay(store, [Run(0, 8, 0)], [Run(9, 9, 0)])
        assert debts(store, "siem") == []
        assert sums(store, "siem") == Sums(9, 1, 0)
    owe(store, batch(10, 19))
    pay(store, [Run(0, 19, 0)])
    assert sums(store, "siem") == Sums(19, 1, 0)
    assert (objects(store, "owed"), objects(store, "paid")) == (0, 1)


def test_the_store_stays_small_however_many_outages_there_were(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_CLOSED", 8)
    for first in range(0, 500, 10):
        owe(store, batch(first, first + 9))
        pay(store, [Run(first, first + 9, 0)])
    assert (objects(store, "owed"), objects(store, "paid")) == (0, 1)
    (path,) = store.list("paid")
    assert len(store.get(path) or b"") < 100
    assert sums(store, "siem").delivered == 500


def test_paying_reads_and_writes_only_the_segments_that_it_may_concern(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_RUNS", 1)
    owe(store, *(batch(first, first + 9) for first in range(0, 1_000, 10)))
    used = []
    get, put = store.get, store.put
    monkeypatch.setattr(store, "get", lambda path: (used.append(path), get(path))[1])
    monkeypatch.setattr(store, "put", lambda path, *a, **how: (used.append(path), put(path, *a)))
    pay(store, [Run(35, 42, 0)])
    assert len([path for path in used if path.startswith("owed/")]) == 4
    assert count(open_runs(store)) == 992


def test_a_payment_of_what_is_not_owed_touches_nothing(store: StateStore) -> None:
    owe(store, batch(10, 19))
    (path,) = store.list("owed")
    before = (store.folder / path).stat().st_ino
    pay(store, [Run(0, 9, 0), Run(20, 60, 0), Run(10, 19, 1)])
    write(store, "splunk", SOURCE, "3", (), Payment([Run(10, 19, 0)]))
    assert open_runs(store) == [Run(10, 19, 0)]
    assert (store.folder / path).stat().st_ino == before
    assert objects(store, "paid") == 0


def test_since_when_a_sink_is_owed_is_that_of_its_oldest(store: StateStore) -> None:
    assert sums(store, "siem").since_ms == 0
    owe(store, batch(0, 9, since_ms=500), batch(10, 19, since_ms=600))
    owe(store, batch(0, 9, since_ms=400), partition="4")
    owe(store, batch(0, 9), partition="5")  # not known
    assert sums(store, "siem").since_ms == 400
    write(store, "siem", SOURCE, "4", (), Payment([Run(0, 9, 0)]))
    write(store, "siem", SOURCE, "3", (), Payment([Run(0, 9, 0)], [], 9, 599))
    changed(store, "siem")
    assert sums(store, "siem").since_ms == 599


# ----------------------------------------------------------------------------------- crashes


def test_what_lies_beyond_the_position_is_not_given(store: StateStore) -> None:
    owe(store, batch(0, 9), batch(10, 19))
    settle(store, 14)
    changed(store, "siem")
    assert open_runs(store) == [Run(0, 14, 0)]
    (store.folder / account_path("siem", SOURCE, "3")).unlink()
    changed(store, "siem")
    assert debts(store, "siem") == []


def test_trimming_voids_what_lies_beyond_and_keeps_what_was_paid(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_RUNS", 2)
    owe(store, *(scattered(n, n + 2) for n in range(0, 30, 3)))
    pay(store, [Run(12, 12, 0)])
    trim(store, "siem", SOURCE, "3", 13)
    settle(store, 13)
    changed(store, "siem")
    assert open_runs(store) == runs((n, 0) for n in (0, 2, 3, 5, 6, 8, 9, 11))
    assert sums(store, "siem").delivered == 1
    owe(store, Owing(16, [Run(14, 14, 0)], 0))
    assert Run(14, 14, 0) in open_runs(store)


@given(
    until=st.integers(0, 60), paid=st.sets(st.integers(0, 39)), delivered=st.booleans()
)  # fmt: skip
def test_wherever_writing_dies_nothing_is_lost_or_counted_twice(
    until: int, paid: set[int], delivered: bool
) -> None:
    """Then what was to be written comes again: it is read again, or paid again."""
    records = runs((n, n % 2) for n in range(40))
    owing = [
        Owing(n + 3, [r for r in records if n <= r.first <= n + 3], 0) for n in range(0, 40, 4)
    ]
    ended = runs((n, n % 2) for n in paid)
    payment = Payment(ended, []) if delivered else Payment([], ended)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(owed, "_MOST_RUNS", 3)
        store = StateStore(folder)
        with pytest.MonkeyPatch.context() as dying:
            left = iter(range(until))

            def counted(how):  # type: ignore[no-untyped-def]
                def write_(*arguments: object, **more: object) -> None:
                    if next(left, None) is None:
                        raise Killed
                    how(*arguments, **more)

                return write_

            dying.setattr(store, "put", counted(store.put))
            dying.setattr(store, "delete", counted(store.delete))
            with contextlib.suppress(Killed):
                owe(store, *owing[:5])
                owe(store, *owing[5:])
                write(store, "siem", SOURCE, "3", (), payment)
        position = owed._position(store, "siem", SOURCE, "3")
        trim(store, "siem", SOURCE, "3", position)
        changed(store, "siem")
        before = open_runs(store)
        assert subtract(before, clip(records, 0, position)) == []
        assert subtract(subtract(clip(records, 0, position), before), ended) == []
        if again := [entry for entry in owing if entry.last > position]:
            owe(store, *again)
        write(store, "siem", SOURCE, "3", (), payment)
        changed(store, "siem")
        assert open_runs(store) == subtract(records, ended)
        found = sums(store, "siem")
        assert (found.delivered, found.dead)[:: 1 if delivered else -1] == (len(paid), 0)


def test_a_segment_that_a_crash_left_behind_its_sum_counts_once(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(store, batch(0, 9))
    pay(store, [Run(0, 3, 0)])

    def killed(path: str) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(store, "delete", killed)
        pay(store, [Run(0, 9, 0)])
    assert objects(store, "owed") == 1
    changed(store, "siem")
    assert debts(store, "siem") == []
    assert sums(store, "siem") == Sums(10, 0, 0)
    pay(store, [Run(0, 9, 0)])
    assert objects(store, "owed") == 0
    assert sums(store, "siem") == Sums(10, 0, 0)


# ----------------------------------------------------------------------------------- reading


def test_asking_again_reads_one_small_object_until_something_changes(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(store, batch(0, 9))
    used = []
    get, listed = store.get, store.list
    monkeypatch.setattr(store, "get", lambda path: (used.append(path), get(path))[1])
    monkeypatch.setattr(store, "list", lambda path: (used.append(path), listed(path))[1])
    for sink in ("siem", "nothing-owed"):
        for ask in (debts, sums):
            first = ask(store, sink)
            used.clear()
            assert ask(store, sink) == first
            assert used == [f"changed/{sink}"]
    pay(store, [Run(0, 3, 0)])
    assert open_runs(store) == [Run(4, 9, 0)]
    assert sums(store, "siem").delivered == 4
    owe(store, batch(10, 19))
    assert open_runs(store) == [Run(4, 19, 0)]


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize(("ask", "answer"), [(debts, []), (sums, Sums(10, 0, 0))])
def test_a_segment_that_goes_while_they_are_read_is_no_debt_and_counts_once(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, ask: Any, answer: Any, read_before: bool
) -> None:
    owe(store, batch(0, 9))
    pay(store, [Run(0, 3, 0)])
    (path,) = store.list("owed")
    get = store.get

    def meanwhile(asked: str) -> bytes | None:
        before = get(asked)
        if asked == path:
            monkeypatch.setattr(store, "get", get)
            write(store, "siem", SOURCE, "3", (), Payment([Run(0, 9, 0)]))
        return before if read_before else get(asked)

    monkeypatch.setattr(store, "get", meanwhile)
    assert ask(store, "siem") == answer


# ------------------------------------------------------------------------- what is set aside


def test_what_is_set_aside_is_found_by_its_range(store: StateStore) -> None:
    assert aside_of(store, SOURCE, "3") == []
    late = put_aside(store, SOURCE, "3", 900, 1_000, b"late")
    early = put_aside(store, SOURCE, "3", 20, 80, b"early")
    put_aside(store, SOURCE, "4", 0, 9, b"another's")
    assert aside_of(store, SOURCE, "3") == [(20, 80, early), (900, 1_000, late)]
    assert store.get(early) == b"early"


def test_what_is_set_aside_goes_when_no_sink_is_owed_any_of_it_nor_can_come_to_be(
    store: StateStore,
) -> None:
    path = put_aside(store, SOURCE, "3", 0, 9, b"")
    other = put_aside(store, SOURCE, "4", 0, 9, b"")
    sinks = ("siem", "splunk")
    owe(store, batch(9, 12))
    drop_aside(store, sinks, SOURCE, "3")
    assert store.get(path) == b"", "siem is owed 9"
    pay(store, [Run(9, 9, 0)])
    settle(store, 8, sink="splunk")
    drop_aside(store, sinks, SOURCE, "3")
    assert store.get(path) == b"", "splunk may still come to owe 9"
    settle(store, 9, sink="splunk")
    drop_aside(store, sinks, SOURCE, "3")
    assert store.get(path) is None
    assert store.get(other) == b""


# ------------------------------------------------------------------- what nobody will ever pay


def letter(sequence: int, **fields: Any) -> DeadLetter:
    fields = {"step": "siem", "reason": "no", "body": b"{}", **fields}
    return DeadLetter(SOURCE, "3", sequence, 0, 60_000 * sequence, **fields)


def test_what_is_written_off_is_dead_with_a_letter_each_however_often_it_is_said(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_AT_ONCE", 4)
    owe(store, batch(0, 9), Owing(12, [Run(10, 12, 2)], 0))
    for _ in range(2):
        write_off(store, "siem", SOURCE, "3", [Run(3, 8, 0), Run(11, 11, 2)], "gone", 1_000)
        assert open_runs(store) == [Run(0, 2, 0), Run(9, 9, 0), Run(10, 10, 2), Run(12, 12, 2)]
        assert sums(store, "siem").dead == 7
    found = {(one.sequence, one.index) for one in read_dead_letters(store)}
    assert found == {*((n, 0) for n in range(3, 9)), (11, 2)}
    assert {(one.step, one.reason, one.body) for one in read_dead_letters(store)} == {
        ("siem", "gone", b"")
    }


# --------------------------------------------------------------- dead letters, tried once more


def test_dead_letters_that_are_tried_again_are_owed_and_dead_less_once(store: StateStore) -> None:
    settle(store, 20)
    for _ in range(2):
        try_again(store, "siem", [letter(3), letter(9)])
        changed(store, "siem")
        assert sums(store, "siem") == Sums(0, -2, 180_000)
    (debt,) = debts(store, "siem")
    assert debt.iou.owed == runs([(3, 0), (9, 0)])
    assert owed.letters_of(store, debt.letters) == {(n, 0): letter(n) for n in (3, 9)}


def test_what_comes_to_be_owed_meanwhile_has_segments_of_its_own(store: StateStore) -> None:
    settle(store, 20)
    try_again(store, "siem", [letter(3)])
    owe(store, batch(21, 25))
    found = [(bool(debt.letters), debt.iou.owed) for debt in debts(store, "siem", 1)]
    assert found == [(False, [Run(21, 25, 0)]), (True, [Run(3, 3, 0)])]
    pay(store, [Run(3, 3, 0), Run(21, 25, 0)])
    assert sums(store, "siem") == Sums(6, -1, 0)
    assert not objects(store, "owed") and not objects(store, "tried")


def test_one_that_was_refused_before_a_crash_and_delivered_after_it_is_no_letter(
    store: StateStore,
) -> None:
    settle(store, 20)
    try_again(store, "siem", [letter(3)])
    write_dead_letters(store, [letter(3, body=b"a piece")])  # and then no account was kept of it
    pay(store, [Run(3, 3, 0)])
    assert not [*read_dead_letters(store)]
    assert sums(store, "siem") == Sums(1, -1, 0)


def test_what_the_sink_does_not_want_is_counted_as_that(store: StateStore) -> None:
    settle(store, 20)
    try_again(store, "siem", [letter(3), letter(4)])
    payment = Payment([Run(3, 3, 0)], not_routed=[Run(3, 4, 0)])
    write(store, "siem", SOURCE, "3", (), payment)
    changed(store, "siem")
    assert sums(store, "siem") == Sums(1, -2, 0, 1)


def test_cancelling_one_that_is_tried_again_leaves_the_letter_with_its_bytes(
    store: StateStore,
) -> None:
    settle(store, 20)
    try_again(store, "siem", [letter(3)])
    write_off(store, "siem", SOURCE, "3", [Run(3, 3, 0)], "cancelled", 1)
    (found,) = read_dead_letters(store)
    assert (found.body, found.reason, found.step) == (b"{}", "cancelled", "siem")
    assert sums(store, "siem") == Sums(0, 0, 0)


def test_what_is_tried_again_needs_no_file_of_the_hubs_events(store: StateStore) -> None:
    settle(store, 20)
    put_aside(store, SOURCE, "3", 0, 9, b"")
    try_again(store, "siem", [letter(3)])
    changed(store, "siem")
    drop_aside(store, ["siem"], SOURCE, "3")
    assert not aside_of(store, SOURCE, "3")


def test_letters_that_a_crash_left_of_what_is_owed_are_void_and_no_others(
    store: StateStore,
) -> None:
    owe(store, batch(0, 9))
    kept = [letter(4, step="parse"), letter(4, step="splunk"), letter(10)]
    write_dead_letters(store, [letter(4), *kept])
    owed.void_letters(store, ["siem", "splunk"])
    assert sorted(one.key for one in read_dead_letters(store)) == sorted(one.key for one in kept)
