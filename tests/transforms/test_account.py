"""The store never says more than is true, and after a crash nothing is missing from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.report import accounts_of
from schemas.batch import Origin
from schemas.receipt import Outcomes, Receipt, Run
from tests.stubs import ORIGIN
from transforms import account
from transforms.account import Account, Settled, begin, checkpoint, settled
from transforms.owed import debts, owe
from transforms.state_store import StateStore

SINKS = ("siem", "splunk")


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
    unpaid = sum(len(run) for run in owed or ())
    fields = {"outcomes": Outcomes(delivered=size - unpaid, owed=unpaid), **fields}
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
    assert settled(store, "siem") == {
        ORIGIN: Settled(19, 20, 77, Outcomes(delivered=18, owed=2)),
        other: Settled(5, 1, 0, Outcomes(delivered=1)),
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
    assert settled(store, "new")[ORIGIN] == Settled(119, 20, 0, Outcomes(delivered=20))


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
    assert [debt.iou.owed for debt in debts(store, "siem")] == [[Run(3, 3, 0)]]


def test_bundles_that_follow_close_are_written_together_and_the_last_at_the_end(
    store: StateStore,
) -> None:
    keeper = Keeper(store)
    for first in range(0, 50, 10):
        keeper.bundle(receipt(first, first + 9, owed=[Run(first, first, 0)]))
    assert position(store) < 49
    keeper.do_fn.teardown()
    assert position(store) == 49
    assert [run for debt in debts(store) for run in debt.iou.owed] == [
        Run(first, first, 0) for first in range(0, 50, 10)
    ]


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
    assert written[-3:] == ["owed", "accounts", "checkpoints"]


@pytest.mark.usefixtures("at_once")
def test_an_iou_beyond_the_position_is_void_after_a_restart(store: StateStore) -> None:
    Keeper(store).bundle(receipt(0, 9, owed=[Run(4, 4, 0)]))
    owe(store, "siem", *ORIGIN_PAIR, 10, 29, [Run(10, 29, 0)])  # and then the process died
    Keeper(store).bundle(receipt(10, 19))
    assert position(store) == 19
    assert [debt.iou.owed for debt in debts(store, "siem")] == [[Run(4, 4, 0)]]
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
    assert [run for debt in debts(store, "siem") for run in debt.iou.owed] == [Run(6, 6, 0)]
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
                unpaid = [Run(n, n, 0) for n in fresh if n % step == 0]
                outcomes = Outcomes(delivered=len(fresh) - len(unpaid), owed=len(unpaid))
                outcomes.earlier = last - first + 1 - len(fresh)
                keepers[sink].bundle(receipt(first, last, sink, owed=unpaid, outcomes=outcomes))
    except Killed:
        return False
    finally:
        del store.put
    for keeper in keepers.values():
        keeper.do_fn.teardown()
    return True


@pytest.mark.usefixtures("at_once")
def test_wherever_a_process_dies_the_next_one_makes_the_account_whole(tmp_path: Path) -> None:
    for die_at in range(1000):
        store = StateStore(str(tmp_path / str(die_at)))
        survived = live(store, die_at)
        least = checkpoint(store, SINKS, ORIGIN)
        assert live(store, None)
        assert (checkpoint(store, SINKS, ORIGIN) or 0) >= (least or 0)
        for sink, step in (("siem", 10), ("splunk", 4)):
            unpaid = [
                n for debt in debts(store, sink) for run in debt.iou.owed for n in unfold(run)
            ]
            assert unpaid == list(range(0, 60, step)), f"{sink}, died at write {die_at}"
            (found,) = accounts_of(store, [sink])
            assert found.holds
            assert found.records == 60, f"{sink}, died at write {die_at}"
            assert position(store, sink) == 59
        if survived:
            break
    assert die_at > 20


def unfold(run: Run) -> range:
    return range(run.first, run.last + 1)


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
        assert settled(store, "siem")[origin] == Settled(29, 30, 0, Outcomes(27, owed=3))
        assert checkpoint(store, ["siem"], origin) == 29
    assert sum(debt.iou.count for debt in debts(store, "siem")) == 6


def test_through_the_runner_a_debt_is_paid(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    begin(store, ["siem"], ORIGIN, 9)
    owe(store, "siem", *ORIGIN_PAIR, 0, 9, [Run(0, 9, 0)])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([receipt(0, 9, only="siem", delivered=[Run(0, 9, 0)])])
            | "Account" >> Account("siem", ["siem"], store)
        )
    assert [debt.iou.delivered for debt in debts(store, "siem")] == [10]
    assert position(store) == 9
