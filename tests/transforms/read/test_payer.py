"""Paying: exactly what is owed is read again, once, the oldest first, for one sink at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from pipelines.local.hub import EmbeddedHub, Retention
from schemas.batch import Batch, Origin, Record
from schemas.dead_letter import DeadLetter
from schemas.digest import to_json
from schemas.ledger import Owing
from schemas.runs import Run, addresses, clip, runs, subtract
from tests.stubs import TAKEN, StubSink
from tests.transforms.read.conftest import HUB, until
from tests.transforms.test_digests_owed import digest
from transforms import account, owed
from transforms.capture import row, write_capture
from transforms.dead_letters import read_dead_letters
from transforms.delivery.engines import close_all
from transforms.orders import Drop
from transforms.read import payer as module
from transforms.read.access import EventHubsAccess
from transforms.read.payer import Debts, Payer, close_payer, payer
from transforms.read.reader import close_session, session
from transforms.read.sdk import HubError
from transforms.state_store import StateStore, place

SOURCE = "localhost/defender/$Default"
RUN = "run"

Make = Callable[..., Payer]


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    found = StateStore(str(tmp_path / "state"))
    found.prepare()
    return found


@pytest.fixture
def paying(
    store: StateStore, hub: EmbeddedHub, access: Callable[..., EventHubsAccess]
) -> Iterator[Make]:
    def make(*sinks: str, **fields: Any) -> Payer:
        until_paid, digests = fields.pop("until_paid", False), fields.pop("digests", ())
        reached = {SOURCE: access(fields.pop("to", hub), **fields)}
        made = payer(RUN, Debts(store, sinks or ("siem",), reached, until_paid, digests))
        assert made is not None
        return made

    yield make
    close_payer(RUN)
    close_session(RUN)


def owe(
    store: StateStore, partition: str, *runs_: Run, sink: str = "siem", since_ms: int = 0
) -> None:
    """Let a sink be owed these records, whose position lies behind them."""
    since_ms = since_ms or int(time.time() * 1000)
    last = max(run.last for run in runs_)
    account.begin(store, [sink], Origin(SOURCE, partition), last)
    with owed.alone:
        owed.write(store, sink, SOURCE, partition, [Owing(last, sorted(runs_), since_ms)])
    owed.changed(store, sink)


def open_of(store: StateStore, sink: str = "siem") -> set[tuple[str, int, int]]:
    """What the store says is owed: partition, sequence number, index."""
    return {
        (debt.partition, *each)
        for debt in owed.debts(store, sink)
        for each in addresses(debt.iou.owed)
    }


def taken(paying: Payer, records: int) -> list[Batch]:
    """What it hands on, once that is so many records."""
    found: list[Batch] = []

    def enough() -> bool:
        while batch := paying.take():
            found.append(batch)
        return sum(len(batch.records) for batch in found) >= records

    until(enough)
    return found


def sequences(batches: list[Batch]) -> list[int]:
    return [record.sequence for batch in batches for record in batch.records]


def publish(hub: EmbeddedHub, partition: str, count: int) -> None:
    hub.publish(HUB, [b'{"n":%d}' % n for n in range(count)], partition)


def test_exactly_what_is_owed_is_read_again_in_order_for_that_sink(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
) -> None:
    publish(hub, partition, 300)
    owe(store, partition, Run(10, 12, 0), Run(40, 40, 0), Run(250, 299, 0))
    batches = taken(paying(), 54)
    assert sequences(batches) == [10, 11, 12, 40, *range(250, 300)]
    assert {batch.only for batch in batches} == {"siem"}
    assert {batch.origin for batch in batches} == {Origin(SOURCE, partition)}
    assert batches[0].records[0].body == b'{"n":10}'
    assert [run for batch in batches for run in batch.wanted or []][:2] == [
        Run(10, 12, 0),
        Run(40, 40, 0),
    ]


def test_of_an_event_with_several_records_it_says_which_are_owed(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
) -> None:
    publish(hub, partition, 5)
    owe(store, partition, Run(2, 2, 1), Run(2, 3, 7))
    (batch,) = taken(paying(), 2)
    assert sequences([batch]) == [2, 3]
    assert batch.wanted == [Run(2, 2, 1), Run(2, 3, 7)]


def test_what_is_in_hand_is_not_read_twice_and_what_ended_never_again(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    publish(hub, partition, 20)
    owe(store, partition, Run(0, 19, 0))
    one = paying()
    (batch,) = taken(one, 20)
    assert not one.idle
    time.sleep(0.1)
    assert one.take() is None
    one.done("siem", batch.origin, [Run(0, 14, 0)], [Run(15, 19, 0)])
    assert sequences(taken(one, 5)) == [15, 16, 17, 18, 19]
    one.done("siem", batch.origin, [Run(15, 19, 0)], [])
    assert one.idle
    time.sleep(0.1)
    assert one.take() is None, "although the store still says that it is owed"


def test_what_waits_when_the_pipeline_drains_and_what_a_failed_shift_had_is_read_again(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
) -> None:
    publish(hub, partition, 9)
    owe(store, partition, Run(0, 8, 0))
    one = paying()
    until(lambda: one.waiting)
    one.put_back()
    assert one.idle
    assert sequences(taken(one, 9)) == list(range(9))
    one.forget()
    assert one.idle
    assert sequences(taken(one, 9)) == list(range(9))


def test_what_ended_in_a_shift_that_failed_is_read_again_where_the_store_says_it_is_owed(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make, monkeypatch
) -> None:
    """The store could not be written, say: nobody but this thread knows that it was paid."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    publish(hub, partition, 9)
    owe(store, partition, Run(0, 8, 0))
    one = paying()
    (batch,) = taken(one, 9)
    one.done("siem", batch.origin, [Run(0, 5, 0)], [])
    one.forget()
    assert sequences(taken(one, 9)) == list(range(9))


def test_what_comes_to_be_owed_later_is_paid_too(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
) -> None:
    publish(hub, partition, 9)
    owe(store, partition, Run(0, 2, 0))
    one = paying()
    assert sequences(taken(one, 3)) == [0, 1, 2]
    account_at = Origin(SOURCE, partition)
    store.delete(owed.account_path("siem", SOURCE, partition))
    account.begin(store, ["siem"], account_at, 8)
    with owed.alone:
        owed.write(store, "siem", SOURCE, partition, [Owing(8, [Run(5, 8, 0)], 1)])
    owed.changed(store, "siem")
    assert sequences(taken(one, 4)) == [5, 6, 7, 8]


def test_the_oldest_partition_comes_first(
    store: StateStore, hub: EmbeddedHub, paying: Make, partition: str, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_TURN_MS", 0)
    other = str(int(partition) + 16)
    publish(hub, other, 3)
    time.sleep(0.02)
    publish(hub, partition, 3)
    now = int(time.time() * 1000)
    owe(store, partition, Run(0, 2, 0), since_ms=now - 1_000)
    owe(store, other, Run(0, 2, 0), since_ms=now - 9_000)
    batches = taken(paying(), 6)
    assert batches[0].origin.partition == other


def test_what_the_hub_has_forgotten_is_written_off_told_and_keeps_nothing_up(
    store: StateStore, separate_hub: Callable[..., EmbeddedHub], paying: Make, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.1)
    now = [1_700_000_000_000]
    hub = separate_hub(retention=Retention(seconds=60), clock=lambda: now[0])
    publish(hub, "0", 5)
    publish(hub, "1", 5)
    now[0] += 50_000
    publish(hub, "0", 5)
    now[0] += 20_000
    far = int(time.time() * 1000)
    owe(store, "0", Run(2, 8, 0), since_ms=far)
    owe(store, "1", Run(1, 3, 0), since_ms=far)
    one = paying(to=hub)
    assert sequences(taken(one, 4)) == [5, 6, 7, 8]
    until(lambda: one.written_off == {"siem": 6})
    one.done("siem", Origin(SOURCE, "0"), [Run(5, 8, 0)], [])
    until(lambda: one.idle)
    assert "3 records that sink siem was owed, of events 2 to 4, are gone from" in caplog.text
    assert open_of(store) == {("0", n, 0) for n in range(5, 9)}
    assert owed.sums(store, "siem").dead == 6
    letters = [*read_dead_letters(store)]
    assert {(each.partition, each.sequence, each.index) for each in letters} == {
        *((str(0), n, 0) for n in (2, 3, 4)), *((str(1), n, 0) for n in (1, 2, 3))
    }  # fmt: skip
    assert {(each.step, each.body) for each in letters} == {("siem", b"")}
    assert all("gone from the hub before it could be paid" in each.reason for each in letters)


def test_several_records_of_an_event_that_is_gone_are_written_off_each(
    store: StateStore, separate_hub: Callable[..., EmbeddedHub], paying: Make, monkeypatch
) -> None:
    now = [1_700_000_000_000]
    hub = separate_hub(retention=Retention(seconds=60), clock=lambda: now[0])
    publish(hub, "0", 5)
    now[0] += 70_000
    publish(hub, "0", 1)
    owe(store, "0", Run(2, 2, 0), Run(2, 3, 4))
    one = paying(to=hub)
    until(lambda: one.written_off == {"siem": 3})
    found = {(each.sequence, each.index) for each in read_dead_letters(store)}
    assert found == {(2, 0), (2, 4), (3, 4)}
    assert not open_of(store)


def test_what_a_hub_that_fails_does_not_say_is_not_written_off(
    store: StateStore, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.05)
    asked = []

    def kept(access: EventHubsAccess, partition: str) -> range:
        asked.append(partition)
        if len(asked) < 4:
            raise HubError("it is busy")
        return range(5, 6)

    monkeypatch.setattr(module, "kept_sequences", kept)
    course = module._Course("siem", {SOURCE: None}, store)  # type: ignore[dict-item]
    course.owes({ORIGIN: ([Run(2, 9, 0)], 1)})
    course._batch(ORIGIN, [Run(2, 4, 0)], [], 4)
    for _ in range(3):
        assert course.lost() is None
        assert (course.missing, course.owed) == (3, 5)
        assert course.problem.endswith("it is busy")
        time.sleep(0.06)
    found = course.lost()
    assert found is not None and found[:2] == (ORIGIN, [Run(2, 4, 0)])
    assert course.in_hand == 3


def test_what_the_hub_says_it_has_is_read_again_some_times_before_it_is_lost(
    store: StateStore, monkeypatch
) -> None:
    monkeypatch.setattr(module, "kept_sequences", lambda access, partition: range(100))
    course = module._Course("siem", {SOURCE: None}, store)  # type: ignore[dict-item]
    course.owes({ORIGIN: ([Run(2, 4, 0)], 1)})
    for _ in range(module._MISSES - 1):
        course._batch(ORIGIN, [Run(2, 4, 0)], [], 4)
        assert course.lost() is None
        assert (course.missing, course.owed) == (0, 3)
    course._batch(ORIGIN, [Run(2, 4, 0)], [], 4)
    found = course.lost()
    assert found is not None and found[1] == [Run(2, 4, 0)]
    assert found[2].endswith("it has 0 to 99 now, but not this")


def test_what_lies_beyond_the_hubs_last_event_stays_owed_and_is_told(
    store: StateStore, monkeypatch, caplog
) -> None:
    """The hub was made anew, perhaps by mistake: that is for a person to decide."""
    monkeypatch.setattr(module, "kept_sequences", lambda access, partition: range(3))
    course = module._Course("siem", {SOURCE: None}, store)  # type: ignore[dict-item]
    course.owes({ORIGIN: ([Run(5, 9, 0)], 1)})
    course._batch(ORIGIN, [Run(5, 9, 0)], [], 9)
    assert course.lost() is None
    assert (course.missing, course.owed, course.beyond, course.in_hand) == (0, 0, 5, 0)
    assert "5 records that sink siem is owed lie beyond the hub's last event, 2" in caplog.text


def test_what_is_set_aside_is_paid_although_all_around_it_is_gone_from_the_hub(
    store: StateStore, separate_hub: Callable[..., EmbeddedHub], paying: Make, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.1)
    now = [1_700_000_000_000]
    hub = separate_hub(retention=Retention(seconds=60), clock=lambda: now[0])
    publish(hub, "0", 30)
    now[0] += 70_000
    publish(hub, "0", 1)
    kept = [row(Record(n, 0, 1, b'{"n":%d}' % n)) for n in (10, 11, 14, 20)]
    owed.put_aside(store, SOURCE, "0", 10, 20, write_capture(kept))
    owe(store, "0", Run(5, 20, 0), since_ms=int(time.time() * 1000))
    one = paying(to=hub)
    batches = taken(one, 4)
    assert sequences(batches) == [10, 11, 14, 20]
    until(lambda: one.written_off == {"siem": 12})
    assert {each.sequence for each in read_dead_letters(store)} == {*range(5, 21)} - {
        10, 11, 14, 20
    }  # fmt: skip


def test_a_store_that_fails_while_it_is_written_off_leaves_it_owed_until_it_works(
    store: StateStore, separate_hub: Callable[..., EmbeddedHub], paying: Make, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    now = [1_700_000_000_000]
    hub = separate_hub(retention=Retention(seconds=60), clock=lambda: now[0])
    publish(hub, "0", 3)
    now[0] += 70_000
    publish(hub, "0", 1)
    failures = [OSError("disk"), OSError("disk")]
    well = module.write_off

    def write_off(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        well(*arguments)

    monkeypatch.setattr(module, "write_off", write_off)
    owe(store, "0", Run(0, 2, 0))
    one = paying(to=hub)
    until(lambda: one.written_off == {"siem": 3})
    assert not open_of(store) and one.idle


def test_dead_letters_are_tried_again_from_the_store_whatever_the_hub_has(
    store: StateStore, paying: Make, separate_hub: Callable[..., EmbeddedHub]
) -> None:
    account.begin(store, ["siem"], Origin(SOURCE, "0"), 99)
    letters = [
        DeadLetter(SOURCE, "0", n, index, 1_000, "siem", "no", b'{"n":%d}' % n, n)
        for n, index in ((7, 3), (7, 5), (50, 0))
    ]
    with owed.alone:
        owed.try_again(store, "siem", letters)
    owed.changed(store, "siem")
    hub = separate_hub()
    hub.refuse_hub(HUB)
    one = paying(to=hub)
    (batch,) = taken(one, 3)
    assert (batch.only, batch.retried, batch.first, batch.last) == ("siem", True, 7, 50)
    found = [(each.sequence, each.index, each.body) for each in batch.records]
    assert found == [(each.sequence, each.index, each.body) for each in letters]
    assert {*addresses(batch.wanted or [])} == {(7, 3), (7, 5), (50, 0)}
    one.done("siem", batch.origin, [Run(7, 7, 3)], [Run(7, 7, 5), Run(50, 50, 0)])
    (batch,) = taken(one, 2)
    assert [each.sequence for each in batch.records] == [7, 50]
    assert batch.retried, "and not read from the hub"


def test_an_order_is_taken_within_a_second_and_before_anything_is_paid(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
) -> None:
    publish(hub, partition, 9)
    owe(store, partition, Run(0, 8, 0))
    order = Drop("siem", "a test", partition, 2, 5)
    store.put("orders/open/1.json", msgspec.json.encode(order))
    one = paying()
    assert sequences(taken(one, 5)) == [0, 1, 6, 7, 8]
    owe_more = Drop("siem", "a test", partition)
    store.put("orders/open/2.json", msgspec.json.encode(owe_more))
    began = time.monotonic()
    until(lambda: not [*store.list("orders/open")])
    assert time.monotonic() - began < 1.5
    assert not open_of(store)


def test_digests_that_are_set_aside_are_paid_by_the_same_thread(
    store: StateStore, hub: EmbeddedHub, paying: Make
) -> None:
    sink = StubSink("counts-of-the-payer")
    made = digest(1)
    store.put(place("aside", "digests", sink.name, f"{made.id}.json"), to_json(made))
    try:
        one = paying(digests=(sink,), until_paid=True)
        until(lambda: one.finished)
        assert TAKEN[sink.name] == [to_json(made)]
        assert not [*store.list("aside")]
    finally:
        close_all(RUN)


def test_before_the_hub_forgets_it_is_set_aside_once_for_all_sinks_and_paid_from_there(
    store: StateStore, separate_hub: Callable[..., EmbeddedHub], paying: Make, monkeypatch
) -> None:
    hub = separate_hub()
    publish(hub, "0", 30)
    old = int(time.time() * 1000) - 31 * 60_000
    owe(store, "0", Run(0, 9, 0), since_ms=old)
    owe(store, "0", Run(5, 19, 0), sink="other", since_ms=old)
    owe(store, "1", Run(0, 9, 0), sink="young")
    one = paying("siem", "other", "young", to=hub, retention_hours=1)
    files = until(lambda: owed.aside_of(store, SOURCE, "0"))
    assert [(file.first, file.last) for file in files] == [(0, 19)]
    assert not owed.aside_of(store, SOURCE, "1")
    assert store.folder.joinpath(files[0].path).stat().st_mode & 0o077 == 0
    one.forget()
    close_payer(RUN)
    hub.refuse_hub(HUB)
    again = paying("siem", "other", to=hub, retention_hours=1)
    found = taken(again, 25)
    assert sequences([b for b in found if b.only == "siem"]) == list(range(10))
    assert sequences([b for b in found if b.only == "other"]) == list(range(5, 20))
    assert found[0].records[0].body == b'{"n":0}'


def test_a_hub_whose_clock_is_ahead_forgets_sooner_and_is_believed(
    store: StateStore,
    separate_hub: Callable[..., EmbeddedHub],
    paying: Make,
    access: Callable[..., EventHubsAccess],
) -> None:
    ahead_ms = 3_600_000
    hub = separate_hub(clock=lambda: int(time.time() * 1000) + ahead_ms)
    publish(hub, "0", 30)
    session(RUN).reader(SOURCE, access(hub)).seek("0", 0)  # what is live tells the hub's time
    until(lambda: session(RUN).status()[0].last_enqueued_ms)
    owe(store, "0", Run(0, 9, 0), since_ms=int(time.time() * 1000) + ahead_ms - 31 * 60_000)
    paying("siem", to=hub, retention_hours=1)
    assert until(lambda: owed.aside_of(store, SOURCE, "0"))


def test_four_sinks_are_paid_at_a_time_and_then_the_others(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make, monkeypatch
) -> None:
    """Event Hubs lets five readers read a partition."""
    monkeypatch.setattr(module, "_SLICE_SECONDS", 0.05)
    monkeypatch.setattr(module, "_UNSEEN", 2)  # none is through at once
    publish(hub, partition, 10)
    names = [f"sink-{n}" for n in range(6)]
    for name in names:
        owe(store, partition, Run(0, 9, 0), sink=name)
    one = paying(*names)
    found: dict[str, list[int]] = {name: [] for name in names}
    most = 0

    def through() -> bool:
        nonlocal most
        most = max(most, sum(course.reading for course in one._courses.values()))
        while batch := one.take():
            assert batch.only is not None
            found[batch.only] += sequences([batch])
            one.done(batch.only, batch.origin, batch.wanted or [], [])
        return all(len(each) == 10 for each in found.values())

    until(through)
    assert most <= 4
    assert all(each == list(range(10)) for each in found.values())


class TestUntilPaid:
    def test_it_is_finished_when_nothing_is_owed(self, paying: Make) -> None:
        one = paying(until_paid=True)
        until(lambda: one.finished, 2)

    def test_it_is_not_while_something_is_in_hand(
        self, store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
    ) -> None:
        publish(hub, partition, 3)
        owe(store, partition, Run(0, 2, 0))
        one = paying(until_paid=True)
        (batch,) = taken(one, 3)
        assert not one.finished
        one.done("siem", batch.origin, batch.wanted or [], [])
        until(lambda: one.finished, 2)

    def test_it_is_when_the_sink_takes_nothing(
        self, store: StateStore, hub: EmbeddedHub, partition: str, paying: Make
    ) -> None:
        publish(hub, partition, 3)
        owe(store, partition, Run(0, 2, 0))
        one = paying(until_paid=True)

        def refuse() -> bool:
            while batch := one.take():
                one.done("siem", batch.origin, [], batch.wanted or [])
            return one.finished

        until(refuse)

    def test_it_is_when_the_hub_cannot_be_read_and_says_why(
        self, store: StateStore, separate_hub, paying: Make, monkeypatch
    ) -> None:
        monkeypatch.setattr(module, "_SILENCE_SECONDS", 0.2)
        hub = separate_hub()
        publish(hub, "0", 3)
        owe(store, "0", Run(0, 2, 0))
        hub.refuse_hub(HUB)
        one = paying(to=hub, until_paid=True)
        until(lambda: one.finished, 20)
        assert one.problems["siem"].startswith(SOURCE)

    def test_it_is_when_the_settings_do_not_name_the_source(
        self, store: StateStore, partition: str, paying: Make
    ) -> None:
        account.begin(store, ["siem"], Origin("elsewhere/hub/$Default", "0"), 5)
        with owed.alone:
            owing = [Owing(5, [Run(0, 5, 0)], 1)]
            owed.write(store, "siem", "elsewhere/hub/$Default", "0", owing)
        owed.changed(store, "siem")
        one = paying(until_paid=True)
        until(lambda: one.finished, 2)


def test_a_store_that_fails_for_a_moment_ends_nothing(
    store: StateStore, hub: EmbeddedHub, partition: str, paying: Make, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    publish(hub, partition, 3)
    owe(store, partition, Run(0, 2, 0))
    failures = [OSError("disk"), OSError("disk")]
    well = module.debts

    def debts(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return well(*arguments)

    monkeypatch.setattr(module, "debts", debts)
    assert sequences(taken(paying(), 3)) == [0, 1, 2]
    assert "it is tried again" in caplog.text


ORIGIN = Origin(SOURCE, "0")
ADDRESSES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=20)


class Books(RuleBasedStateMachine):
    """A course against plain sets: whatever is put back, struck out, or owed anew, and whatever
    the store says late, a record is in hand once or not, and none is forgotten."""

    in_hand = Bundle("in_hand")

    def __init__(self) -> None:
        super().__init__()
        self.course = module._Course("siem", {}, StateStore("/nonexistent"))
        self.stored: set[tuple[int, int]] = set()  # what the store says
        self.paid: set[tuple[int, int]] = set()  # not struck out there yet
        self.hand: set[tuple[int, int]] = set()
        self.ever: set[tuple[int, int]] = set()

    @rule(more=ADDRESSES)
    def owe(self, more: list[tuple[int, int]]) -> None:
        new = {each for each in more if each not in self.ever}  # nothing is owed twice
        self.ever |= new
        self.stored |= new
        self.look()

    @rule()
    def look(self) -> None:
        found = {ORIGIN: (runs(self.stored), 1)} if self.stored else {}
        self.course.owes(found)

    @rule()
    def strike_out(self) -> None:
        self.stored -= self.paid
        self.paid.clear()

    @rule(target=in_hand, most=st.integers(1, 10))
    def read(self, most: int) -> Any:
        feed = self.course.feeds.get(ORIGIN)
        if feed is None or not feed.owed:
            return multiple()
        owed_now = feed.owed
        last = max(s for s, _ in itertools.islice(addresses(owed_now), most))
        meant = clip(owed_now, 0, last)
        records = [Record(s, 0, 1, b"") for s in sorted({s for s, _ in addresses(meant)})]
        batch = self.course._batch(ORIGIN, meant, records, last)
        assert batch is not None and batch.wanted is not None
        fresh = {*addresses(batch.wanted)}
        assert not fresh & self.hand, "it is in hand already"
        assert not fresh & self.paid and fresh <= self.stored
        self.hand |= fresh
        return batch

    @rule(batch=consumes(in_hand), share=st.integers(0, 3))
    def end(self, batch: Batch, share: int) -> None:
        wanted = batch.wanted or []
        ended = [run for at, run in enumerate(wanted) if at % 4 >= share]
        again = subtract(wanted, ended)
        self.course.done(ORIGIN, ended, again)
        self.paid |= {*addresses(ended)}
        self.hand -= {*addresses(wanted)}

    @rule(batch=consumes(in_hand))
    def put_back(self, batch: Batch) -> None:
        self.course.put_back(ORIGIN, batch.wanted or [])
        self.hand -= {*addresses(batch.wanted or [])}

    @invariant()
    def it_is_as_in_the_sets(self) -> None:
        feed = self.course.feeds.get(ORIGIN)
        assert {*addresses(feed.hand if feed else [])} == self.hand
        assert self.course.in_hand == len(self.hand)

    def teardown(self) -> None:
        self.look()
        feed = self.course.feeds.get(ORIGIN)
        left = {*addresses(feed.owed)} if feed else set()
        assert left == self.stored - self.hand - self.paid, "something was forgotten, or doubled"


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(ADDRESSES)
def test_of_what_the_hub_lacks_it_says_so_and_reads_the_rest(found: list[tuple[int, int]]) -> None:
    course = module._Course("siem", {}, StateStore("/nonexistent"))
    course.owes({ORIGIN: (runs(found), 1)})
    meant = runs(found)
    there = sorted({s for s, _ in found if s % 2})
    records = [Record(s, 0, 1, b"") for s in there]
    if not meant:
        return
    batch = course._batch(ORIGIN, meant, records, 30)
    wanted = {each for each in found if each[0] % 2}
    assert {*addresses(batch.wanted or [])} == wanted if batch else not wanted
    assert {*addresses(course.feeds[ORIGIN].missing)} == {*found} - wanted


def test_nothing_of_a_closed_payer_stays(paying: Make, store: StateStore) -> None:
    one = paying()
    close_payer(RUN)
    assert not one.is_alive()
    assert payer(RUN) is None
    assert not list(store.list(place("aside", "events")))
