"""The store never says more than is true, and after a crash nothing is missing from it."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.report import accounts_of
from schemas.batch import Origin
from schemas.ledger import Owing, Span
from schemas.receipt import Outcome, Outcomes, Receipt
from schemas.runs import Run, addresses, runs, union
from tests.stubs import ORIGIN
from transforms import account, owed
from transforms.account import Account, Settled, begin, checkpoint, settled
from transforms.owed import debts, sums
from transforms.state_store import StateStore

SINKS = ("siem", "splunk")


class Here:
    """Flushes where it is called."""

    def submit(self, do: Any, *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(do(*arguments))
        return done


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "through_the_runner" not in request.node.name:
        monkeypatch.setattr(account, "_WRITER", Here())


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


class Cell:
    """The runner's state of one key, as long as the runner lives."""

    def __init__(self) -> None:
        self.value: bytes | None = None

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value


def receipt(
    first: int, last: int, sink: str = "siem", owed: list[Run] | None = None, **fields: Any
) -> Receipt:
    """All of one record an event is delivered, but for what is owed."""
    size = last - first + 1
    left = sum(len(run) for run in owed or ())
    fields = {"outcomes": Outcomes(delivered=size - left, owed=left), **fields}
    origin = fields.pop("origin", ORIGIN)
    return Receipt(
        origin.source, origin.partition, sink, first, last, size, owed=owed or [], **fields
    )


class Keeper:
    """The DoFn behind one sink in one process, with the state of one run."""

    def __init__(self, store: StateStore, sink: str = "siem", sinks: Any = SINKS) -> None:
        self.do_fn = account._Account(sink, sinks, store)
        self.do_fn.setup()
        self.cells: dict[str, Cell] = {}

    def bundle(self, *receipts: Receipt) -> None:
        for one in receipts:
            key = f"{one.source}/{one.partition}"
            self.do_fn.process((key, one), self.cells.setdefault(key, Cell()))
        self.do_fn.finish_bundle()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bundle's end writes to the store."""
    monkeypatch.setattr(account, "_FLUSH_SECONDS", 0.0)


def unpaid(store: StateStore, sink: str = "siem") -> list[Run]:
    return union(run for debt in debts(store, sink) for run in debt.iou.owed)


def position(store: StateStore, sink: str = "siem", origin: Origin = ORIGIN) -> int:
    return settled(store, sink)[origin].position


# ---------------------------------------------------------------------- positions and sums


@pytest.mark.usefixtures("at_once")
def test_positions_and_sums_are_kept_by_partition(store: StateStore) -> None:
    other = Origin("ns.servicebus.windows.net/hub/$Default", "10")
    keeper = Keeper(store)
    keeper.bundle(
        receipt(0, 9, enqueued_ms=77),
        receipt(10, 19, owed=[Run(12, 13, 0)]),
        receipt(5, 5, origin=other),
    )
    whole, one = Outcomes(delivered=18, owed=2), Outcomes(delivered=1)
    assert settled(store, "siem") == {
        ORIGIN: Settled(19, 20, 77, whole, 0, spans=[Span(0, 19, 20, whole, 77, 77)]),
        other: Settled(5, 1, 0, one, 5, spans=[Span(5, 5, 1, one)]),
    }


@pytest.mark.usefixtures("at_once")
def test_a_part_that_is_missing_holds_the_position(store: StateStore) -> None:
    keeper = Keeper(store)
    keeper.bundle(receipt(0, 9), receipt(10, 19, outcomes=Outcomes(delivered=4)), receipt(20, 29))
    assert position(store) == 9
    keeper.bundle(receipt(10, 19, outcomes=Outcomes(repeat=6)))
    assert position(store) == 29


@pytest.mark.usefixtures("at_once")
def test_the_checkpoint_is_the_least_position_of_the_sinks(store: StateStore) -> None:
    Keeper(store, "siem").bundle(receipt(0, 29))
    Keeper(store, "splunk").bundle(receipt(0, 9, "splunk"))
    assert checkpoint(store, SINKS, ORIGIN) == 9
    path = "checkpoints/ns.servicebus.windows.net/hub/$Default/checkpoint/3"
    assert msgspec.json.decode(store.get(path) or b"") == {"sequencenumber": "9"}


def test_nothing_settled_is_no_checkpoint(store: StateStore) -> None:
    assert checkpoint(store, SINKS, ORIGIN) is None
    assert settled(store, "siem") == {}


def test_beginning_gives_a_position_only_where_there_is_none(store: StateStore) -> None:
    begin(store, ["siem"], ORIGIN, 41)
    begin(store, SINKS, ORIGIN, 99)
    assert [position(store, sink) for sink in SINKS] == [41, 99]
    assert settled(store, "siem")[ORIGIN].outcomes == Outcomes()


@pytest.mark.usefixtures("at_once")
def test_a_sink_that_is_added_begins_where_the_others_stand(store: StateStore) -> None:
    Keeper(store).bundle(receipt(0, 99))
    start = (checkpoint(store, ("siem", "new"), ORIGIN) or 0) + 1
    assert start == 100
    Keeper(store, "new", ("siem", "new")).bundle(receipt(start, 119, "new"))
    ended = Outcomes(delivered=20)
    found = settled(store, "new")[ORIGIN]
    assert found == Settled(119, 20, 0, ended, 100, spans=[Span(100, 119, 20, ended)])


@pytest.mark.usefixtures("at_once")
def test_the_position_in_the_store_never_goes_back(store: StateStore) -> None:
    """A runner may keep several of a DoFn, and let go of one that has been idle for long."""
    idle, busy = Keeper(store), Keeper(store)
    busy.cells = idle.cells
    receipts = [receipt(0, 9, owed=[Run(3, 3, 0)]), receipt(10, 19)]
    idle.do_fn.process(("k", receipts[0]), idle.cells.setdefault("k", Cell()))
    busy.do_fn.process(("k", receipts[1]), busy.cells["k"])
    busy.do_fn.finish_bundle()
    idle.do_fn.teardown()
    assert position(store) == 19
    assert unpaid(store) == [Run(3, 3, 0)]


@pytest.mark.usefixtures("at_once")
def test_what_one_of_several_has_not_written_another_writes_before_the_position(
    store: StateStore,
) -> None:
    """Or a crash between the two would lose it; and written later, it would be owed again."""
    idle, busy = Keeper(store), Keeper(store)
    busy.cells = idle.cells
    idle.bundle(receipt(0, 9, owed=[Run(3, 3, 0)]))
    (key,) = idle.cells
    idle.do_fn.process((key, receipt(10, 19, owed=[Run(13, 13, 0)])), idle.cells[key])
    busy.bundle(receipt(20, 29))
    assert (position(store), unpaid(store)) == (29, [Run(3, 3, 0), Run(13, 13, 0)])
    paid = [Run(3, 3, 0), Run(13, 13, 0)]
    Keeper(store).bundle(receipt(0, 19, only="siem", delivered=paid))
    idle.do_fn.teardown()
    assert unpaid(store) == []
    assert sums(store, "siem").delivered == 2


@pytest.mark.usefixtures("at_once")
def test_the_runner_need_not_keep_what_is_in_the_store(store: StateStore) -> None:
    keeper = Keeper(store)
    sizes = []
    for first in range(0, 1_000, 10):
        keeper.bundle(receipt(first, first + 9, owed=[Run(first, first, 0)]))
        (cell,) = keeper.cells.values()
        sizes.append(len(cell.value or b""))
    assert max(sizes) < min(sizes) + 20


def test_bundles_that_follow_close_are_written_together_and_the_last_at_the_end(
    store: StateStore,
) -> None:
    keeper = Keeper(store)
    for first in range(0, 50, 10):
        keeper.bundle(receipt(first, first + 9, owed=[Run(first, first, 0)]))
    assert position(store) < 49
    keeper.do_fn.teardown()
    assert position(store) == 49
    assert unpaid(store) == [Run(first, first, 0) for first in range(0, 50, 10)]
    assert len(debts(store, "siem")) == 1


# ------------------------------------------------------------------------------- what is owed


@pytest.mark.usefixtures("at_once")
def test_an_iou_is_written_before_the_position_moves_over_it(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    put = store.put
    monkeypatch.setattr(
        store, "put", lambda path, data, **how: (written.append(path), put(path, data, **how))
    )
    Keeper(store).bundle(receipt(0, 9, owed=[Run(1, 2, 0)]))
    written = [path.split("/")[0] for path in written]
    assert written[-4:] == ["owed", "accounts", "checkpoints", "changed"]


@pytest.mark.usefixtures("at_once")
def test_an_iou_beyond_the_position_is_void_after_a_restart(store: StateStore) -> None:
    Keeper(store).bundle(receipt(0, 9, owed=[Run(4, 4, 0)]))
    owe(store, 29, Run(10, 29, 0))  # and then the process died
    assert unpaid(store) == [Run(4, 4, 0)]
    Keeper(store).bundle(receipt(10, 19))
    assert position(store) == 19
    assert unpaid(store) == [Run(4, 4, 0)]
    (found,) = accounts_of(store, ["siem"])
    assert found.holds
    assert found.outcomes == Outcomes(delivered=19, owed=1)


@pytest.mark.usefixtures("at_once")
def test_paying_moves_from_owed_to_delivered_or_dead_and_moves_no_position(
    store: StateStore,
) -> None:
    keeper = Keeper(store)
    keeper.bundle(receipt(0, 9, owed=[Run(2, 6, 0)]), receipt(10, 19, owed=[Run(10, 10, 0)]))
    paid = receipt(
        0, 12, only="siem", delivered=[Run(2, 4, 0), Run(10, 10, 0)], dead=[Run(5, 5, 0)]
    )
    keeper.bundle(paid)
    (found,) = accounts_of(store, ["siem"])
    assert found.outcomes == Outcomes(delivered=18, dead=1, owed=1)
    assert (found.records, found.holds, position(store)) == (20, True, 19)
    assert unpaid(store) == [Run(6, 6, 0)]
    keeper.bundle(paid)
    assert accounts_of(store, ["siem"]) == [found]


@pytest.mark.usefixtures("at_once")
def test_paying_one_sink_pays_no_other(store: StateStore) -> None:
    for sink in SINKS:
        Keeper(store, sink).bundle(receipt(0, 9, sink, owed=[Run(0, 9, 0)]))
    Keeper(store).bundle(receipt(0, 9, only="siem", delivered=[Run(0, 9, 0)]))
    assert [found.outcomes.owed for found in accounts_of(store, SINKS)] == [0, 10]


# ----------------------------------------------------------------------------------- crashes


class Killed(BaseException):
    """The process is gone in the middle of a write to the store."""


def live(store: StateStore, die_at: int | None) -> bool:
    """One process: reads from the checkpoint on, in bundles; False if it died at that write.

    `splunk` owes every fourth record, `siem` every tenth. Each is told of what it had settled
    before by `earlier`, as WriteTo does.
    """
    writes = 0
    put = StateStore.put

    def counted(path: str, data: bytes, **how: bool) -> None:
        nonlocal writes
        if writes == die_at:
            raise Killed
        writes += 1
        put(store, path, data, **how)

    store.put = counted  # type: ignore[method-assign]
    nothing = Settled(-1, 0, 0, Outcomes())
    after = {sink: settled(store, sink).get(ORIGIN, nothing).position for sink in SINKS}
    keepers = {sink: Keeper(store, sink) for sink in SINKS}
    start = checkpoint(store, SINKS, ORIGIN)
    width = 7 if die_at is None else 10  # another process cuts batches elsewhere
    try:
        for first in range(0 if start is None else start + 1, 60, width):
            last = min(first + width - 1, 59)
            for sink in SINKS:
                step = 10 if sink == "siem" else 4
                fresh = [n for n in range(first, last + 1) if n > after[sink]]
                left = [Run(n, n, 0) for n in fresh if n % step == 0]
                outcomes = Outcomes(delivered=len(fresh) - len(left), owed=len(left))
                outcomes.earlier = last - first + 1 - len(fresh)
                keepers[sink].bundle(receipt(first, last, sink, owed=left, outcomes=outcomes))
    except Killed:
        return False
    finally:
        del store.put
    for keeper in keepers.values():
        keeper.do_fn.teardown()
    return True


@pytest.mark.usefixtures("at_once")
def test_wherever_a_process_dies_the_next_one_makes_the_account_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for die_at in range(1000):
        store = StateStore(str(tmp_path / str(die_at)))
        survived = live(store, die_at)
        least = checkpoint(store, SINKS, ORIGIN)
        assert live(store, None)
        assert (checkpoint(store, SINKS, ORIGIN) or 0) >= (least or 0)
        for sink, step in (("siem", 10), ("splunk", 4)):
            owing = [sequence for sequence, _ in addresses(unpaid(store, sink))]
            assert owing == list(range(0, 60, step)), f"{sink}, died at write {die_at}"
            (found,) = accounts_of(store, [sink])
            assert found.holds
            assert found.records == 60, f"{sink}, died at write {die_at}"
            assert position(store, sink) == 59
        if survived:
            break
    assert die_at > 20


class Life:
    """Processes, one after the other, that read one partition for one sink, and are paid for it;
    and what must be in the store after each. One process dies at its write number `die_at`."""

    LAST = 23
    KEYS = tuple((n, index) for n in range(24) for index in range(1 + n % 3))

    def __init__(self, store: StateStore, rng: random.Random) -> None:
        self.store = store
        self.rng = rng
        self.settled: dict[tuple[int, int], Outcome] = {}
        self.owed: set[tuple[int, int]] = set()
        self.paid: set[tuple[int, int]] = set()  # by a process that may have died
        begin(store, ["siem"], ORIGIN, -1)

    @staticmethod
    def refused(key: tuple[int, int]) -> bool:
        """Whether it is dead when it is paid, however often."""
        return sum(key) % 4 == 0

    def live(self, die_at: int | None) -> None:
        self.attempt: dict[tuple[int, int], Outcome] = {}
        self.offered: set[tuple[int, int]] = set()
        writes = 0
        put, delete = self.store.put, self.store.delete

        def counted(how: Any) -> Any:
            def write(*arguments: Any, **more: Any) -> None:
                nonlocal writes
                if writes == die_at:
                    raise Killed
                writes += 1
                how(*arguments, **more)

            return write

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(self.store, "put", counted(put))
            patched.setattr(self.store, "delete", counted(delete))
            try:
                self._work()
                died = False
            except Killed:
                died = True
        self._look(died)

    def _work(self) -> None:
        """Receipts of batches from somewhere before the position on, in any order and parts; with
        payments between, by one or another of the DoFn."""
        rng = self.rng
        after = position(self.store)
        keeper = Keeper(self.store, sinks=("siem",))
        others = [keeper]
        todo: list[Receipt] = []
        first = max(0, after + 1 - rng.randint(0, 3))
        while first <= self.LAST:
            last = min(self.LAST, first + rng.randint(0, 6))
            todo += self._receipts(first, last, after)
            first = last + 1
        todo = rng.sample(todo, len(todo))
        while todo or rng.random() < 0.5:
            if rng.randint(0, 3) == 0:
                others.append(Keeper(self.store, sinks=("siem",)))
                others[-1].cells = keeper.cells
                keeper = others[-1]
            keeper.do_fn._flush_at = rng.choice([0.0, float("inf")])
            count = rng.randint(0, 4)
            keeper.bundle(*self._payments(), *todo[:count], *self._payments())
            todo = todo[count:]
            assert position(self.store) >= after
            after = position(self.store)
        for one in rng.sample(others, len(others)):
            one.do_fn.teardown()

    def _receipts(self, first: int, last: int, after: int) -> list[Receipt]:
        rng = self.rng
        inside = [key for key in self.KEYS if first <= key[0] <= last]
        parts: list[list[tuple[int, int]]] = [[], []]
        for key in inside:
            parts[rng.randint(0, 1)].append(key)
            if key[0] > after:
                some = (Outcome.DELIVERED, Outcome.OWED, Outcome.DEAD, Outcome.OWED)
                self.attempt[key] = rng.choice(some)
        made = []
        for part in parts:
            fresh = [key for key in part if key[0] > after]
            counts = Counter(self.attempt[key] for key in fresh)
            outcomes = Outcomes(*(counts[outcome] for outcome in Outcome), len(part) - len(fresh))
            left = runs(key for key in fresh if self.attempt[key] is Outcome.OWED)
            made.append(
                Receipt(*ORIGIN_PAIR, "siem", first, last, len(inside), outcomes, left, last + 1)
            )
        return made

    def _payments(self) -> list[Receipt]:
        """Of some that the store says are owed; perhaps of others, and again."""
        rng = self.rng
        if rng.random() < 0.5:
            return []
        there = [*addresses(unpaid(self.store))]
        some = {key for key in there if rng.random() < 0.5}
        again = {key for key in sorted(self.paid) if rng.random() < 0.2}
        ended = some | again
        self.offered |= ended
        self.paid |= ended
        return [
            receipt(
                0, self.LAST, only="siem", outcomes=Outcomes(),
                delivered=runs(key for key in ended if not self.refused(key)),
                dead=runs(key for key in ended if self.refused(key)),
            )
        ]  # fmt: skip

    def _look(self, died: bool) -> None:
        reached = position(self.store)
        self.settled |= {key: o for key, o in self.attempt.items() if key[0] <= reached}
        owed_ = self.owed | {
            key for key, o in self.attempt.items() if key[0] <= reached and o is Outcome.OWED
        }
        owed.changed(self.store, "siem")  # a new process remembers nothing
        left = {*addresses(unpaid(self.store))}
        assert left <= owed_
        assert owed_ - left <= self.offered
        if not died:
            assert reached == self.LAST
            assert left == owed_ - self.offered
        self.owed = left
        (found,) = accounts_of(self.store, ["siem"])
        assert found.records == found.outcomes.total
        if reached >= 0:
            counts = Counter(self.settled.values())
            once = {key for key, o in self.settled.items() if o is Outcome.OWED} - left
            dead = sum(map(self.refused, once))
            assert found.outcomes == Outcomes(
                delivered=counts[Outcome.DELIVERED] + len(once) - dead,
                dead=counts[Outcome.DEAD] + dead,
                owed=len(left),
            )


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), max_size=3), st.integers(1, 8))
def test_whatever_comes_in_whatever_order_and_wherever_processes_die_the_account_is_exact(
    seed: int, deaths: list[int], most_runs: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        patched.setattr(owed, "_MOST_RUNS", most_runs)
        life = Life(StateStore(folder), random.Random(seed))
        for die_at in (*deaths, None, None):
            life.live(die_at)


def owe(store: StateStore, last: int, *left: Run) -> None:
    owed.write(store, "siem", *ORIGIN_PAIR, [Owing(last, [*left], 0)])


ORIGIN_PAIR = (ORIGIN.source, ORIGIN.partition)


# --------------------------------------------------------------------------- through the runner


def test_through_the_runner_everything_is_in_the_store_when_the_run_ends(
    tmp_path: Path,
) -> None:
    store = StateStore(str(tmp_path))
    other = Origin(ORIGIN.source, "4")
    receipts = [
        receipt(first, first + 9, owed=[Run(first, first, 0)], origin=origin)
        for first in (20, 0, 10)
        for origin in (ORIGIN, other)
    ]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        begin(store, ["siem"], ORIGIN, -1)
        begin(store, ["siem"], other, -1)
        _ = (
            pipeline
            | beam.Create(receipts, reshuffle=False).with_output_types(Receipt)
            | "Account" >> Account("siem", ["siem"], store)
        )
    for origin in (ORIGIN, other):
        ended = Outcomes(27, owed=3)
        found = settled(store, "siem")[origin]
        assert found == Settled(29, 30, 0, ended, 0, spans=[Span(0, 29, 30, ended)])
        assert checkpoint(store, ["siem"], origin) == 29
    assert sum(debt.iou.count for debt in debts(store, "siem")) == 6


def test_through_the_runner_a_debt_is_paid(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    begin(store, ["siem"], ORIGIN, 9)
    owe(store, 9, Run(0, 9, 0))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([receipt(0, 9, only="siem", delivered=[Run(0, 9, 0)])])
            | "Account" >> Account("siem", ["siem"], store)
        )
    assert sums(store, "siem").delivered == 10
    assert debts(store, "siem") == []
    assert position(store) == 9
