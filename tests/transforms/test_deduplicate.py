"""Exact repeats end, status updates pass, and memory of both lasts one to two horizons."""

from __future__ import annotations

import copy
import hashlib
import itertools
import tempfile
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from schemas.alert import Alert
from schemas.batch import NOBODY, AlertBatch, Dropped
from schemas.receipt import Outcome
from tests.stubs import alert, alerts
from transforms.deduplicate import (
    Deduplicate,
    Seen,
    _Deduplicate,
    deduplicate_batch,
    forget,
    hand_over,
    shard_batch,
)
from transforms.deduplicate import leave as leave_keys
from transforms.hand_over import HandedOver
from transforms.state_store import StateStore

HORIZON = 100  # ms
runs = itertools.count()


def key(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


def keyed(*numbers: int, at: int = 0, only: str | None = None) -> AlertBatch:
    """A batch of alerts with these identities, all enqueued at `at` ms."""
    made = [alert(n, key=key(number), enqueued_ms=at) for n, number in enumerate(numbers)]
    return alerts(0, max(0, len(numbers) - 1), made=made, only=only)


def leave(run: str, store: StateStore, unsettled: dict[str, int] | None = None) -> None:
    """A shift's clean end."""
    hand_over(run, store, HandedOver(next(runs), HORIZON, {}, {}, unsettled or {}))


def left(batch: AlertBatch) -> list[bytes]:
    return [one.key for one in batch.alerts]


def repeats(batch: AlertBatch) -> list[int]:
    return sorted(one.sequence for one in batch.dropped if one.outcome is Outcome.REPEAT)


class Bag:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self.parts.append(part)

    def clear(self) -> None:
        self.parts = []

    def read(self) -> list[bytes]:
        return self.parts


class Cell:
    def __init__(self) -> None:
        self.value: bytes | None = None

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value


class Cells:
    """What a runner keeps for one shard, through bundles that it may take back."""

    def __init__(self) -> None:
        self.even, self.odd, self.stamp = Bag(), Bag(), Cell()


class Worker:
    """One instance of the DoFn, in a run of its own unless it shares another's."""

    def __init__(self, store: StateStore, shards: int = 1, run: str | None = None) -> None:
        self.run = run or f"test {next(runs)}"
        self.shards = shards
        self._do_fn = _Deduplicate(HORIZON, shards, self.run, store)
        self._do_fn.setup()

    def process(self, batch: AlertBatch, cells: dict[int, Cells]) -> AlertBatch:
        """All parts, put together again."""
        passed: list[Alert] = []
        dropped: list[Dropped] = []
        for shard, part in shard_batch(batch, self.shards):
            c = cells.setdefault(shard, Cells())
            (out,) = self._do_fn.process((shard, part), c.even, c.odd, c.stamp)
            passed += out.alerts
            dropped += out.dropped
        return AlertBatch(
            batch.origin, batch.first, batch.last, batch.only, batch.size, passed, dropped
        )


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


# ----------------------------------------------------------------------------- plain functions


def test_an_exact_repeat_is_dropped_and_counted_in_its_place() -> None:
    batch = keyed(1, 2, 1, 1)
    batch.dropped.append(Dropped(9, 0, Outcome.DEAD))
    batch.size += 1
    passed, new = deduplicate_batch(batch, Seen(HORIZON))
    assert left(passed) == new == [key(1), key(2)]
    assert passed.dropped == [
        Dropped(9, 0, Outcome.DEAD),
        Dropped(2, 0, Outcome.REPEAT),
        Dropped(3, 0, Outcome.REPEAT),
    ]
    assert len(passed.alerts) + len(passed.dropped) == passed.size == batch.size
    assert len(batch.alerts) == 4, "the batch that came is left as it was"


def test_a_status_update_passes() -> None:
    """It has the entity of the alert, and a key of its own."""
    made = [alert(0, entity="a", status="new"), alert(1, entity="a", status="resolved")]
    passed, _ = deduplicate_batch(alerts(0, 1, made=made), Seen(HORIZON))
    assert passed.alerts == made


def test_what_a_sink_is_owed_passes_and_marks_nothing() -> None:
    seen = Seen(HORIZON)
    deduplicate_batch(keyed(1), seen)
    passed, new = deduplicate_batch(keyed(1, 2, only="siem"), seen)
    assert (left(passed), new) == ([key(1), key(2)], [])
    assert left(deduplicate_batch(keyed(2), seen)[0]) == [key(2)]


def test_what_is_addressed_to_nobody_marks() -> None:
    seen = Seen(HORIZON)
    _, new = deduplicate_batch(keyed(1, only=NOBODY), seen)
    assert new == [key(1)]
    assert repeats(deduplicate_batch(keyed(1), seen)[0]) == [0]


@pytest.mark.parametrize(
    ("first", "again", "known"),
    [
        (0, 99, True),
        (0, 100, True),
        (0, 199, True),
        (99, 199, True),  # a whole horizon, at the least
        (0, 200, False),  # two, at the most
        (99, 200, False),
        (0, 10**13, False),
    ],
)
def test_a_key_is_remembered_for_one_horizon_and_forgotten_after_two(
    first: int, again: int, known: bool
) -> None:
    seen = Seen(HORIZON)
    seen.turn(first)
    assert seen.add(key(1))
    seen.turn(again)
    assert seen.add(key(1)) is not known


def test_time_that_goes_back_forgets_nothing() -> None:
    seen = Seen(HORIZON)
    seen.turn(500)
    seen.add(key(1))
    assert not seen.turn(10)
    assert not seen.add(key(1))


@given(
    st.lists(st.integers(0, 40), max_size=30),
    st.integers(1, 64),
    st.lists(st.integers(0, 9), max_size=3),
)
def test_the_parts_of_a_batch_add_up_to_it(
    numbers: list[int], shards: int, gone: list[int]
) -> None:
    batch = keyed(*numbers)
    batch.dropped.extend(Dropped(n, 1, Outcome.DEAD) for n in gone)
    batch.size += len(gone)
    parts = list(shard_batch(batch, shards))
    assert parts, "even an empty batch has a receipt to give"
    assert sorted(one.sequence for _, part in parts for one in part.alerts) == [
        one.sequence for one in batch.alerts
    ]
    assert [one for _, part in parts for one in part.dropped] == batch.dropped
    assert all((part.first, part.last) == (batch.first, batch.last) for _, part in parts)
    assert {part.size for _, part in parts} == {batch.size}
    assert len({shard for shard, _ in parts}) == len(parts)
    where = {one.key: shard for shard, part in parts for one in part.alerts}
    for shard, part in parts:
        assert 0 <= shard < shards
        assert all(where[one.key] == shard for one in part.alerts), "a key has one shard"


# ------------------------------------------------------------------------------- runner state


def test_a_new_instance_knows_what_the_bags_hold(store: StateStore) -> None:
    cells: dict[int, Cells] = {}
    Worker(store).process(keyed(1, 2, at=50), cells)
    assert repeats(Worker(store).process(keyed(1, 3, 2, at=150), cells)) == [0, 2]
    assert repeats(Worker(store).process(keyed(1, 3, at=250), cells)) == [1]


def test_a_bundle_that_was_taken_back_leaves_no_mark(store: StateStore) -> None:
    cells: dict[int, Cells] = {}
    worker = Worker(store)
    worker.process(keyed(1), cells)
    before = copy.deepcopy(cells)
    worker.process(keyed(2), cells)
    assert left(worker.process(keyed(2, 1), before)) == [key(2)]


def test_a_memo_does_not_pass_for_another_instances_state(store: StateStore) -> None:
    """Both count one change from the same state on; what they have seen differs."""
    cells: dict[int, Cells] = {}
    here, there = Worker(store), Worker(store)
    here.process(keyed(1), cells)
    taken_back = copy.deepcopy(cells)
    here.process(keyed(2), taken_back)
    there.process(keyed(3), cells)
    assert left(here.process(keyed(2, 3), cells)) == [key(2)]


def test_a_pause_of_several_horizons_empties_both_bags(store: StateStore) -> None:
    cells: dict[int, Cells] = {}
    worker = Worker(store)
    worker.process(keyed(1, at=250), cells)
    worker.process(keyed(2, at=350), cells)
    worker.process(keyed(3, at=550), cells)
    held = b"".join((*cells[0].even.read(), *cells[0].odd.read()))
    assert held == key(3)
    assert left(Worker(store).process(keyed(1, 2, at=550), cells)) == [key(1), key(2)]


def test_marks_that_nobody_gets_outlast_the_first_batch_that_follows(store: StateStore) -> None:
    """Read again after a cold start: they turn the generations as what they were read for does."""
    cells: dict[int, Cells] = {}
    worker = Worker(store)
    worker.process(keyed(1, at=1_000_050, only=NOBODY), cells)
    worker.process(keyed(2, at=1_000_150, only=NOBODY), cells)
    assert left(worker.process(keyed(1, 2, 3, at=1_000_160), cells)) == [key(3)]


def test_paying_a_debt_of_long_ago_turns_nothing(store: StateStore) -> None:
    cells: dict[int, Cells] = {}
    worker = Worker(store)
    worker.process(keyed(1, at=50), cells)
    worker.process(keyed(7, at=10_000, only="siem"), cells)
    assert repeats(worker.process(keyed(1, 7, at=60), cells)) == [0]


# ----------------------------------------------------------------------------------- snapshots


@pytest.mark.parametrize("after", [1, 2, 5])
@pytest.mark.parametrize("before", [1, 2, 5])
def test_what_was_seen_is_handed_over_whatever_the_number_of_shards(
    store: StateStore, before: int, after: int
) -> None:
    worker = Worker(store, before)
    cells: dict[int, Cells] = {}
    worker.process(keyed(*range(20), at=50), cells)
    worker.process(keyed(*range(20, 40), at=150), cells)
    leave(worker.run, store)
    heir = Worker(store, after)
    cells = {}
    assert repeats(heir.process(keyed(*range(50), at=160), cells)) == list(range(40))
    assert repeats(heir.process(keyed(*range(40), at=260), cells)) == list(range(20, 40))


def test_a_shard_that_saw_nothing_in_a_shift_is_handed_over_too(store: StateStore) -> None:
    worker = Worker(store, 4)
    worker.process(keyed(*range(40)), {})
    leave(worker.run, store)
    quiet = Worker(store, 4)
    quiet.process(keyed(0), {})
    leave(quiet.run, store)
    assert left(Worker(store, 4).process(keyed(*range(40)), {})) == []


def test_a_shift_that_saw_nothing_leaves_the_snapshot(store: StateStore) -> None:
    worker = Worker(store)
    worker.process(keyed(1), {})
    leave(worker.run, store)
    leave(Worker(store).run, store)
    assert left(Worker(store).process(keyed(1), {})) == []


def test_what_a_failed_shift_has_seen_is_not_handed_over(store: StateStore) -> None:
    """Some of it is not settled: it will be read again, and must not pass for a repeat."""
    failed = Worker(store)
    failed.process(keyed(1), {})
    forget(failed.run)
    next_one = Worker(store, run=failed.run)
    leave(next_one.run, store)
    assert left(next_one.process(keyed(1), {})) == [key(1)]


def test_a_replay_leaves_what_it_delivered_and_not_what_it_only_marked(store: StateStore) -> None:
    """What was marked may be another lane's, which has still to deliver it."""
    worker = Worker(store)
    cells: dict[int, Cells] = {}
    worker.process(keyed(1, 2, only=NOBODY), cells)
    worker.process(keyed(2, 3), cells)
    assert [each for keys in leave_keys(worker.run).values() for each in keys] == [key(3)]
    assert not leave_keys(worker.run)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:40] + b"\0" + data[41:],
        lambda data: b"not a snapshot at all, but long enough to be one",
    ],
)
def test_a_damaged_snapshot_is_as_good_as_none(store: StateStore, spoil: Any) -> None:
    worker = Worker(store)
    worker.process(keyed(1, 2), {})
    leave(worker.run, store)
    (path,) = store.list("seen")
    store.put(path, spoil(store.get(path)))
    assert left(Worker(store).process(keyed(1), {})) == [key(1)]


def test_a_snapshot_of_another_horizon_is_as_good_as_none(store: StateStore) -> None:
    worker = Worker(store)
    worker.process(keyed(1), {})
    leave(worker.run, store)
    other = _Deduplicate(HORIZON * 2, 1, "other", store)
    other.setup()
    c = Cells()
    (out,) = other.process((0, keyed(1)), c.even, c.odd, c.stamp)
    assert left(out) == [key(1)]


# ------------------------------------------------------------------------ against a naive model


class Machine(RuleBasedStateMachine):
    """Two workers on one state, bundles taken back, shifts that hand over or fail, against a
    dict."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.store = StateStore(self._folder.name)
        self.known: dict[bytes, int] = {}
        self.now: dict[int, int] = {}
        self.handed_over: tuple[dict[bytes, int], dict[int, int]] = {}, {}

    @initialize(shards=st.integers(1, 3))
    def begin(self, shards: int) -> None:
        self.shards = shards
        self.went_well = True
        run = f"machine {next(runs)}"
        self.workers = [Worker(self.store, shards, run) for _ in range(2)]
        self.cells: dict[int, Cells] = {}

    def _shard(self, one: bytes) -> int:
        return int.from_bytes(one[:4], "big") % self.shards

    @rule(
        worker=st.integers(0, 1),
        numbers=st.lists(st.integers(0, 12), max_size=6),
        at=st.integers(0, 600),
        only=st.sampled_from([None, None, None, "siem", NOBODY]),
    )
    def process(self, worker: int, numbers: list[int], at: int, only: str | None) -> None:
        batch = keyed(*numbers, at=at, only=only)
        out = self.workers[worker].process(batch, self.cells)
        expected = []
        if only != "siem":
            for one in {self._shard(a.key) for a in batch.alerts} or {0}:
                newest = at if batch.alerts else 0
                self.now[one] = max(self.now.get(one, -1), newest // HORIZON)
        for one in batch.alerts:
            now = self.now.get(self._shard(one.key), -1)
            if only == "siem" or self.known.get(one.key, -9) < now - 1:
                expected.append(one)
                if only != "siem":
                    self.known[one.key] = now
        order = sorted(out.alerts, key=lambda a: a.sequence)
        assert [a.sequence for a in order] == [a.sequence for a in expected]
        assert len(out.alerts) + len(out.dropped) == out.size

    @rule(worker=st.integers(0, 1), numbers=st.lists(st.integers(0, 12)), at=st.integers(0, 600))
    def take_back(self, worker: int, numbers: list[int], at: int) -> None:
        self.workers[worker].process(keyed(*numbers, at=at), copy.deepcopy(self.cells))
        self.went_well = False

    @precondition(lambda self: self.went_well)
    @rule(shards=st.integers(1, 3))
    def hand_over(self, shards: int) -> None:
        if self.cells:
            newest = max(self.now.values(), default=-1)
            self.known = {one: at for one, at in self.known.items() if at >= newest - 1}
            self.now = dict.fromkeys(range(3), newest)
            self.handed_over = self.known.copy(), self.now.copy()
        leave(self.workers[0].run, self.store)
        self.begin(shards)

    @rule(shards=st.integers(1, 3))
    def fail(self, shards: int) -> None:
        """The runner's state is gone with the shift; the next begins with the last snapshot."""
        forget(self.workers[0].run)
        self.known, self.now = (part.copy() for part in self.handed_over)
        self.begin(shards)

    def teardown(self) -> None:
        self._folder.cleanup()


TestAgainstANaiveModel = Machine.TestCase
TestAgainstANaiveModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


# --------------------------------------------------------------------------- through the runner


def _passed(found: list[AlertBatch]) -> None:
    ended = sorted(one.key for batch in found for one in batch.alerts)
    assert ended == sorted(map(key, range(30))), ended
    dropped = [one for batch in found for one in batch.dropped]
    assert len(dropped) == 30
    assert {one.outcome for one in dropped} == {Outcome.REPEAT}


@pytest.mark.parametrize("shards", [1, 4])
def test_through_the_runner_one_of_each_passes(tmp_path: Path, shards: int) -> None:
    store = StateStore(str(tmp_path))
    run = f"test {next(runs)}"
    batches = [keyed(*range(n, n + 10), at=50) for n in (0, 10, 20, 5, 15, 0)]
    batches[-1] = keyed(*range(5), *range(25, 30), at=60)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        out = (
            pipeline
            | beam.Create(batches).with_output_types(AlertBatch)
            | Deduplicate(HORIZON, shards, run, store)
        )
        assert_that(out, _passed)
    leave(run, store)
    assert left(Worker(store).process(keyed(*range(31), at=70), {})) == [key(30)]
