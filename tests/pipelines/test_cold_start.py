"""After a crash nothing is lost by what was seen, and no count is: against every row of reading,
settling, failing, crashing and handing over that hypothesis finds."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipelines import cold_start as module
from pipelines.cold_start import ColdStart, clean_end, cold_start, firing
from schemas.batch import NOBODY, TO_DIGESTS, AlertBatch, Origin
from schemas.ledger import Span
from schemas.receipt import Outcome, Outcomes
from tests.stubs import alert
from tests.transforms.test_deduplicate import Cells
from transforms.account import Settled
from transforms.deduplicate import _Deduplicate, forget
from transforms.hand_over import HandedOver, high_water, load, save
from transforms.owed import account_path
from transforms.read.event_hubs import Partition
from transforms.state_store import StateStore

SOURCE = "ns/hub/group"
PARTITIONS = ("0", "1", "2")
SINKS = ("a", "b")
HORIZON_MS = 10**9
runs = itertools.count()


def key(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


class Crashes(RuleBasedStateMachine):
    """Three partitions, on which copies of few alerts come; two sinks, which settle at their own
    pace; a process that ends at any moment. Sinks are out of the settings for a while, or what was
    seen is damaged: together, counts may be told twice."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.store = StateStore(self._folder.name)
        self.log: dict[str, list[int]] = {p: [] for p in PARTITIONS}
        self.arrived: dict[str, Counter[int]] = {s: Counter() for s in SINKS}
        self.told: Counter[int] = Counter()  # by panes of shifts that ended
        self.disturbed = False  # by a crash, or a sink that was away
        self.shift = 0
        self.run = ""
        # What the hub keeps is not the question here.
        self._kept = mock.patch.object(module, "_kept", lambda partitions: partitions)
        self._kept.start()
        for sink in SINKS:
            for partition in PARTITIONS:
                self._settle_to(sink, partition, -1)

    def teardown(self) -> None:
        self.finish()
        self._kept.stop()
        self._folder.cleanup()

    def _settle_to(self, sink: str, partition: str, position: int) -> None:
        spans = [Span(0, position, 0, Outcomes(), 1, position + 1)] if position >= 0 else []
        entry = Settled(position, 0, 0, Outcomes(), 0, "", spans)
        self.store.put(account_path(sink, SOURCE, partition), msgspec.json.encode(entry))

    def _position(self, sink: str, partition: str) -> int:
        data = self.store.get(account_path(sink, SOURCE, partition))
        return msgspec.json.decode(data or b"", type=Settled).position

    # ------------------------------------------------------------------ one shift of a process

    @initialize(leave=st.booleans())
    def begin(self, leave: bool) -> None:
        self.leave = leave
        self._start(SINKS)

    def _start(self, sinks: tuple[str, ...]) -> None:
        self.sinks = sinks
        if not self.run:
            self.run = f"crashes {next(runs)}"
        self.shift += 1
        at = {p: min(self._position(sink, p) for sink in sinks) + 1 for p in PARTITIONS}
        access: Any = None
        partitions = [Partition(SOURCE, p, access, at[p]) for p in PARTITIONS]
        self.started = cold_start(self.store, sinks, partitions, HORIZON_MS)
        self.next = {each.partition: each for each in self.started.partitions}
        self.head = {p: each.start for p, each in self.next.items()}
        self.after = {(s, p): self._position(s, p) for s in sinks for p in PARTITIONS}
        self.seen = _Deduplicate(HORIZON_MS, 1, self.run, self.store, self.started.left)
        self.seen.setup()
        self.cells = Cells()
        self.pending: dict[tuple[str, str], list[tuple[int, int | None]]] = {}
        self.counted: Counter[int] = Counter()  # by this shift, and not told yet

    @rule(partition=st.sampled_from(PARTITIONS), numbers=st.lists(st.integers(0, 4), max_size=4))
    def publish(self, partition: str, numbers: list[int]) -> None:
        self.log[partition] += numbers

    @rule(partition=st.sampled_from(PARTITIONS), events=st.integers(1, 4))
    def read(self, partition: str, events: int) -> None:
        first, each = self.head[partition], self.next[partition]
        only, limit = None, len(self.log[partition])
        if first < each.counted:
            only, limit = NOBODY, each.counted
        elif first < each.live:
            only, limit = TO_DIGESTS, each.live
        elif any(self.head[p] < self.next[p].live for p in PARTITIONS):
            return
        last = min(first + events, limit) - 1
        if last < first:
            return
        origin = Origin(SOURCE, partition)
        if only is None:
            high_water(self.run, self.store).cover(origin, last)
        numbers = dict(enumerate(self.log[partition]))
        made = [alert(s, key=key(numbers[s]), enqueued_ms=1) for s in range(first, last + 1)]
        batch = AlertBatch(origin, first, last, only, len(made), made, [])
        cells = self.cells
        (out,) = self.seen.process((0, batch), cells.even, cells.odd, cells.stamp)
        self.head[partition] = last + 1
        for one in out.alerts:
            if only != NOBODY and not one.counted:
                self.counted[numbers[one.sequence]] += 1
        if only is not None:
            return
        repeats = {d.sequence for d in out.dropped if d.outcome is Outcome.REPEAT}
        for sink in self.sinks:
            for sequence in range(first, last + 1):
                if sequence > self.after[sink, partition]:
                    sent = None if sequence in repeats else numbers[sequence]
                    self.pending.setdefault((sink, partition), []).append((sequence, sent))

    @rule(
        sink=st.sampled_from(SINKS),
        partition=st.sampled_from(PARTITIONS),
        records=st.integers(1, 4),
    )
    def settle(self, sink: str, partition: str, records: int) -> None:
        """Delivered, or owed: that is paid some day."""
        waiting = self.pending.get((sink, partition), [])
        for sequence, number in waiting[:records]:
            if number is not None:
                self.arrived[sink][number] += 1
            self._settle_to(sink, partition, sequence)
        del waiting[:records]

    @rule(sinks=st.sampled_from([SINKS, SINKS, ("a",), ("b",)]))
    def hand_over(self, sinks: tuple[str, ...]) -> None:
        """The shift drains; the next one begins in the same process."""
        for sink, partition in list(self.pending):
            self.settle(sink, partition, 10**6)
        heads = {Origin(SOURCE, p): head - 1 for p, head in self.head.items()}
        assert clean_end(
            self.run, self.store, self.sinks, self.started, heads, self.shift, HORIZON_MS
        )
        self.told += self.counted
        if not self.leave:
            sinks = SINKS
        if sinks != self.sinks:
            self.run = ""  # other settings: another process
            self.disturbed = True
        self._start(sinks)

    @rule(
        sinks=st.sampled_from([SINKS, SINKS, ("a",), ("b",)]),
        spoilt=st.booleans(),
        data=st.data(),
    )
    def crash(self, sinks: tuple[str, ...], spoilt: bool, data: st.DataObject) -> None:
        """Of what is on its way, anything may have arrived; what was seen may be damaged."""
        self.disturbed = True
        if not self.leave:
            sinks = SINKS
        for (sink, _), waiting in self.pending.items():
            for _, number in waiting:
                if number is not None and data.draw(st.booleans()):
                    self.arrived[sink][number] += 1
        for path in list(self.store.list("seen")) if spoilt and not self.leave else []:
            self.store.put(path, b"spoilt")
        forget(self.run)
        self.run = ""
        self._start(sinks)

    # -------------------------------------------------------------------------------- the judge

    @invariant()
    def undisturbed_nothing_comes_twice(self) -> None:
        if not self.disturbed:
            assert all(n == 1 for found in self.arrived.values() for n in found.values())

    def finish(self) -> None:
        if not self.run:
            return
        if self.sinks != SINKS:
            self.hand_over(SINKS)
        for _ in range(200):
            for partition in PARTITIONS:
                self.read(partition, 50)
            if all(self.head[p] >= max(len(self.log[p]), self.next[p].live) for p in PARTITIONS):
                break
        self.hand_over(SINKS)
        published = {number for log in self.log.values() for number in log}
        for sink in SINKS:
            assert set(self.arrived[sink]) == published, f"{sink} lacks alerts"
        assert self.told == Counter(published), "a digest lost a count, or counted twice"


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_crash_just_after_a_clean_end_does_not_hide_that_the_next_shift_told(
    tmp_path: Path,
) -> None:
    """The note that panes fire is left behind, and is an older shift's."""
    store = StateStore(str(tmp_path))
    firing(store, 4)
    save(store, HandedOver(4, HORIZON_MS, {}), {}, ())
    assert cold_start(store, SINKS, [], HORIZON_MS).recounts is None
    firing(store, 5)
    assert cold_start(store, SINKS, [], HORIZON_MS).recounts == 5
    firing(store, 6)
    assert cold_start(store, SINKS, [], HORIZON_MS).recounts == 5, "the first that may be counted"


def test_a_shift_that_left_something_unsettled_hands_nothing_over(tmp_path: Path) -> None:
    """It counts as a crash: what it had seen is not settled."""
    store = StateStore(str(tmp_path))
    at = Settled(3, 0, 0, Outcomes(), 0)
    store.put(account_path("a", SOURCE, "0"), msgspec.json.encode(at))
    access: Any = None
    started = ColdStart([Partition(SOURCE, "0", access, 0)], {})
    run, origin = f"crashes {next(runs)}", Origin(SOURCE, "0")
    assert not clean_end(run, store, ["a"], started, {origin: 4}, 1, HORIZON_MS)
    assert load(store) is None
    assert clean_end(run, store, ["a"], started, {origin: 3}, 1, HORIZON_MS)
    assert load(store) is not None


# ---------------------------------------------------- what chance finds seldom, each in a few steps


class _NothingArrived:
    def draw(self, strategy: Any) -> bool:
        return False


@pytest.fixture
def site() -> Iterator[Crashes]:
    """Ends with everything read and settled, and the judge's word on it."""
    found = Crashes()
    found.begin(leave=False)
    yield found
    found.teardown()


def crash(site: Crashes) -> None:
    site.crash(data=_NothingArrived(), sinks=SINKS, spoilt=False)  # type: ignore[arg-type]


def original_and_settled_repeat(site: Crashes, settles: tuple[str, ...] = SINKS) -> None:
    """The original is on its way; its copy on another partition is settled as a repeat."""
    for partition in ("0", "1"):
        site.publish(partition=partition, numbers=[0])
        site.read(partition=partition, events=1)
    for sink in settles:
        site.settle(sink=sink, partition="1", records=1)


def test_a_repeat_that_settled_before_the_crash_does_not_end_its_original(site: Crashes) -> None:
    original_and_settled_repeat(site)
    crash(site)


def test_nor_does_a_repeat_that_settled_at_one_sink_only(site: Crashes) -> None:
    """That sink skips the copy when it is read again, and has not got the original."""
    original_and_settled_repeat(site, settles=("a",))
    crash(site)
    site.read(partition="1", events=1)


def test_nor_after_a_shift_that_ended_before_the_original_was_read_again(site: Crashes) -> None:
    original_and_settled_repeat(site)
    crash(site)
    site.read(partition="1", events=1)
    site.hand_over(sinks=SINKS)
    site.hand_over(sinks=SINKS)


def test_nor_after_a_second_crash(site: Crashes) -> None:
    original_and_settled_repeat(site)
    crash(site)
    site.read(partition="1", events=1)
    site.read(partition="0", events=1)
    crash(site)


def test_what_a_crashed_shift_had_counted_and_settled_is_counted(site: Crashes) -> None:
    site.publish(partition="0", numbers=[0, 1, 0])
    site.read(partition="0", events=3)
    for sink in SINKS:
        site.settle(sink=sink, partition="0", records=3)
    crash(site)


def test_what_is_damaged_is_read_anew_even_if_that_is_cut_short(site: Crashes) -> None:
    site.publish(partition="0", numbers=[0])
    site.read(partition="0", events=1)
    site.hand_over(sinks=SINKS)
    for _ in range(2):
        site.crash(data=_NothingArrived(), sinks=SINKS, spoilt=True)  # type: ignore[arg-type]
    site.publish(partition="1", numbers=[0])


def test_a_sink_that_was_away_gets_what_it_missed(site: Crashes) -> None:
    site.leave = True
    site.hand_over(sinks=("a",))
    site.publish(partition="0", numbers=[0, 1])
    site.read(partition="0", events=2)
    site.hand_over(sinks=SINKS)
