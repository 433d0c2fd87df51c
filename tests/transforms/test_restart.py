"""A partition goes on elsewhere: every sum holds, and nothing is forgotten, crash or not."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.report import accounts_of
from pipelines.report.verify import verify
from schemas.batch import Origin
from schemas.dead_letter import DeadLetter
from schemas.ledger import Owing
from schemas.receipt import Outcomes, Receipt
from schemas.runs import Run, addresses, runs
from tests.stubs import ORIGIN
from transforms import account, owed
from transforms.account import receipts, settled
from transforms.dead_letters import read_dead_letters, write_dead_letters
from transforms.gaps import GONE, Gap, gaps, record_gap
from transforms.hand_over import HandedOver, load, marks, save, seen_keys
from transforms.owed import account_path, debts, put_aside
from transforms.restart import Moved, move, pass_over, renew, resume
from transforms.state_store import StateStore, place

SINKS = ("siem", "splunk")
OTHER = Origin(ORIGIN.source, "10")
HORIZON_MS = 1_000
CHECKPOINT = "checkpoints/ns.servicebus.windows.net/hub/$Default/checkpoint/3"


class _Here:
    """Flushes where it is called."""

    def submit(self, do: Any, *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(do(*arguments))
        return done


@pytest.fixture(autouse=True)
def _written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_WRITER", _Here())
    monkeypatch.setattr(account, "_FLUSH_SECONDS", 0.0)


class Killed(BaseException):
    """The process is gone in the middle of its writes."""


class Store(StateStore):
    """A folder whose process is killed after so many writes; no disk is waited for."""

    left = -1

    def _write(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def put(self, path: str, data: bytes, *, sync: bool = True) -> None:
        self._write()
        super().put(path, data, sync=False)

    def delete(self, path: str) -> None:
        self._write()
        super().delete(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


class Cell:
    value: bytes | None = None

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value


class Keeper:
    """The account behind one sink, in one process."""

    def __init__(self, store: StateStore, sink: str) -> None:
        self._sink = sink
        self._do_fn = account._Account(sink, SINKS, store)
        self._do_fn.setup()
        self._cell = Cell()

    def settle(self, first: int, last: int, owes: set[int] = frozenset()) -> None:
        """One record an event, delivered but for what is owed."""
        size, left = last - first + 1, runs((sequence, 0) for sequence in owes)
        outcomes = Outcomes(delivered=size - len(owes), owed=len(owes))
        at_ms = 1_000 + last
        self._take(
            Receipt(*_pair(ORIGIN), self._sink, first, last, size, outcomes, left, at_ms,
                    since_ms=1_000 + first, offset=f"@{last}")
        )  # fmt: skip

    def pay(self, paid: set[int]) -> None:
        ended = runs((sequence, 0) for sequence in paid)
        self._take(
            Receipt(
                *_pair(ORIGIN), self._sink, min(paid), max(paid), len(paid),
                Outcomes(delivered=len(paid)), [], only=self._sink, delivered=ended,
            )
        )  # fmt: skip

    def _take(self, receipt: Receipt) -> None:
        self._do_fn.process(("", receipt), self._cell)
        self._do_fn.finish_bundle()


def _pair(origin: Origin) -> tuple[str, str]:
    return origin.source, origin.partition


def hand_over(store: StateStore) -> None:
    """As a shift that ended cleanly does."""
    handed = HandedOver(1, HORIZON_MS, {str(ORIGIN): 99, str(OTHER): 50}, generation=7)
    save(store, handed, {7: [b"k" * 16]}, ())
    store.put("high-water", msgspec.json.encode({str(ORIGIN): 600, str(OTHER): 550}))


def letter(origin: Origin, sequence: int) -> DeadLetter:
    return DeadLetter(*_pair(origin), sequence, 0, 1_000, "parse", "not text", b"?")


def position(store: StateStore, sink: str = "siem", origin: Origin = ORIGIN) -> int:
    return settled(store, sink)[origin].position


def owes(store: StateStore, sink: str = "siem") -> set[int]:
    return {seq for debt in debts(store, sink) for seq, _ in addresses(debt.iou.owed)}


def spans(store: StateStore, sink: str = "siem") -> list[tuple[int, int, int]]:
    found = receipts(store, sink, ORIGIN)
    assert found is not None
    return [(span.first, span.last, span.records) for span in found[1]]


def assert_holds(store: StateStore) -> None:
    """in = delivered + … + owed; what is owed is there; receipts and gaps tile the account."""
    for each in accounts_of(store, SINKS):
        assert each.holds
        assert each.outcomes.owed == len(owes(store, each.name))
        assert each.outcomes.delivered >= 0
    assert [fault for check in verify(store, SINKS) for fault in check.faults] == []


def passed_over(store: StateStore, sink: str) -> set[int]:
    return {
        sequence
        for gap in gaps(store, ORIGIN)
        if not gap.sinks or sink in gap.sinks
        for sequence in range(gap.first, gap.last + 1)
    }


@pytest.fixture
def worked(store: Store) -> Store:
    """Both sinks stand at event 99; siem was owed 10 … 49 and 90 … 95, and paid 10 … 19."""
    for sink in SINKS:
        keeper = Keeper(store, sink)
        if sink == "siem":
            keeper.settle(0, 49, {*range(10, 50)})
            keeper.settle(50, 99, {*range(90, 96)})
            keeper.pay({*range(10, 20)})
        else:
            keeper.settle(0, 99)
    return store


# ---------------------------------------------------------------------------------- forward


class TestForward:
    def test_what_is_passed_over_is_a_gap_and_what_is_owed_stays_owed(self, worked: Store) -> None:
        before = owes(worked)
        assert move(worked, SINKS, ORIGIN, 149, "--from latest") == Moved(ORIGIN, 99, 99, 149)
        (gap,) = gaps(worked, ORIGIN)
        assert (gap.first, gap.last, gap.why, gap.sinks) == (
            100, 149, "passed over: --from latest", (),
        )  # fmt: skip
        assert [position(worked, sink) for sink in SINKS] == [149, 149]
        assert owes(worked) == before == {*range(20, 50), *range(90, 96)}
        assert msgspec.json.decode(worked.get(CHECKPOINT) or b"") == {"sequencenumber": "149"}
        Keeper(worked, "siem").settle(150, 159)
        assert_holds(worked)

    def test_a_sink_that_had_settled_more_misses_less(self, worked: Store) -> None:
        Keeper(worked, "splunk").settle(100, 119)
        move(worked, SINKS, ORIGIN, 149, "over")
        assert [(gap.first, gap.last, gap.sinks) for gap in gaps(worked, ORIGIN)] == [
            (100, 119, ("siem",)),
            (120, 149, ()),
        ]
        assert_holds(worked)

    def test_what_a_crash_left_behind_the_position_is_not_owed_there(self, worked: Store) -> None:
        owed.write(worked, "siem", *_pair(ORIGIN), [Owing(110, [Run(100, 110, 0)], 5)])
        move(worked, SINKS, ORIGIN, 149, "over")
        assert max(owes(worked)) == 95
        assert_holds(worked)

    def test_retention_takes_no_sink_back(self, worked: Store) -> None:
        Keeper(worked, "splunk").settle(100, 299)
        pass_over(worked, SINKS, ORIGIN, 149)
        assert [position(worked, sink) for sink in SINKS] == [149, 299]
        (gap,) = gaps(worked, ORIGIN)
        assert (gap.first, gap.last, gap.why, gap.sinks) == (100, 149, GONE, ("siem",))
        assert_holds(worked)

    @pytest.mark.parametrize("at", [99, 50, -1])
    def test_retention_that_overtook_nobody_changes_nothing(self, worked: Store, at: int) -> None:
        before = {path: worked.get(path) for path in worked.list("")}
        assert pass_over(worked, SINKS, ORIGIN, at) is None
        assert {path: worked.get(path) for path in worked.list("")} == before

    def test_a_sink_without_an_account_begins_there(self, store: Store) -> None:
        Keeper(store, "siem").settle(0, 9)
        store.delete(account_path("splunk", *_pair(ORIGIN)))
        move(store, SINKS, ORIGIN, 20, "over")
        assert [position(store, sink) for sink in SINKS] == [20, 20]
        assert settled(store, "splunk")[ORIGIN].began == 21
        assert_holds(store)

    def test_where_nothing_was_read_yet_there_is_nothing_to_pass_over(self, store: Store) -> None:
        assert move(store, SINKS, ORIGIN, 20, "over") is None
        assert [position(store, sink) for sink in SINKS] == [20, 20]
        assert not gaps(store, ORIGIN)


# ------------------------------------------------------------------------------------- back


class TestBack:
    def test_a_new_chapter_carries_over_what_is_still_owed(self, worked: Store) -> None:
        moved = move(worked, SINKS, ORIGIN, 29, "--from 30")
        assert moved is not None and moved.history
        assert [position(worked, sink) for sink in SINKS] == [29, 29]
        assert owes(worked) == {*range(20, 30)}
        (siem, splunk) = accounts_of(worked, SINKS)
        assert (siem.records, siem.outcomes) == (10, Outcomes(owed=10))
        assert (splunk.records, splunk.outcomes) == (0, Outcomes())
        assert settled(worked, "splunk")[ORIGIN].began == 30
        assert spans(worked) == [(20, 29, 10)]
        assert msgspec.json.decode(worked.get(CHECKPOINT) or b"") == {"sequencenumber": "29"}
        assert_holds(worked)

    def test_the_old_chapter_is_kept_as_it_was(self, worked: Store) -> None:
        tops = ("accounts", "owed", "paid", "receipts")
        before = {path: worked.get(path) for top in tops for path in worked.list(top)}
        moved = move(worked, SINKS, ORIGIN, 29, "--from 30")
        assert moved is not None
        kept = {path: worked.get(f"{moved.history}/{path}") for path in before}
        assert kept == before
        record = worked.get(f"{moved.history}/moves/{'/'.join(_pair(ORIGIN))}.json")
        assert record is not None and b"--from 30" in record
        assert not [*worked.list("moves")]

    def test_what_is_read_again_is_owed_and_paid_as_ever(self, worked: Store) -> None:
        """A segment may begin at the event of one that the old chapter closed."""
        Keeper(worked, "siem").pay({*range(20, 50), *range(90, 96)})
        assert not owes(worked)
        move(worked, SINKS, ORIGIN, 4, "--from 5")
        for sink in SINKS:
            Keeper(worked, sink).settle(5, 49, {*range(10, 50)})
        assert owes(worked) == {*range(10, 50)}
        for sink in SINKS:
            Keeper(worked, sink).pay({*range(10, 50)})
        assert not owes(worked)
        assert_holds(worked)
        assert all(each.outcomes.delivered == 45 for each in accounts_of(worked, SINKS))

    def test_receipts_that_were_set_apart_end_with_their_chapter(self, worked: Store) -> None:
        folder = place("receipts", "siem", *ORIGIN.source.split("/"), ORIGIN.partition)
        stored = settled(worked, "siem")[ORIGIN]
        worked.put(f"{folder}/{0:020d}.json", msgspec.json.encode(stored.spans))
        move(worked, SINKS, ORIGIN, 29, "--from 30")
        assert spans(worked) == [(20, 29, 10)]

    def test_what_was_passed_over_before_is_no_gap_any_more(self, worked: Store) -> None:
        move(worked, SINKS, ORIGIN, 149, "--from latest")
        move(worked, SINKS, ORIGIN, 119, "--from 120")
        assert [(gap.first, gap.last) for gap in gaps(worked, ORIGIN)] == [(100, 119)]
        move(worked, SINKS, ORIGIN, 99, "--from 100")
        assert not gaps(worked, ORIGIN)
        assert_holds(worked)

    def test_one_sink_goes_back_as_another_goes_on(self, worked: Store) -> None:
        Keeper(worked, "splunk").settle(100, 199)
        moved = move(worked, SINKS, ORIGIN, 149, "--from 150")
        assert moved is not None and (moved.least, moved.most) == (99, 199)
        assert [position(worked, sink) for sink in SINKS] == [149, 149]
        assert [(gap.first, gap.last, gap.sinks) for gap in gaps(worked, ORIGIN)] == [
            (100, 149, ("siem",))
        ]
        assert_holds(worked)

    def test_what_is_wanted_again_was_not_seen_and_counts_again(self, worked: Store) -> None:
        hand_over(worked)
        move(worked, SINKS, ORIGIN, 149, "--from latest")
        handed = load(worked)
        assert handed is not None
        assert handed.positions == {str(ORIGIN): 149, str(OTHER): 50}
        assert seen_keys(worked, handed) == ({7: [b"k" * 16]}, [])
        move(worked, SINKS, ORIGIN, 29, "--from 30")
        handed = load(worked)
        assert handed is not None
        assert handed.positions == {str(ORIGIN): 29, str(OTHER): 50}
        assert not handed.files and handed.horizon_ms != HORIZON_MS
        assert marks(worked) == {str(ORIGIN): 600, str(OTHER): 550}, "what was read is no repeat"

    def test_other_partitions_stay_as_they_are(self, worked: Store) -> None:
        move(worked, SINKS, OTHER, 7, "begin")
        move(worked, SINKS, ORIGIN, 29, "--from 30")
        assert position(worked, origin=OTHER) == 7
        move(worked, SINKS, OTHER, 3, "--from 4")
        assert position(worked) == 29
        assert owes(worked) == {*range(20, 30)}


# ------------------------------------------------------------------------- a hub made anew


class TestANewHub:
    def test_nothing_of_the_old_one_counts_any_more_and_all_of_it_is_kept(
        self, worked: Store
    ) -> None:
        record_gap(worked, ORIGIN, Gap(40, 41, 1, GONE))
        put_aside(worked, *_pair(ORIGIN), 20, 30, b"payloads")
        hand_over(worked)
        other = Origin(f"{ORIGIN.source}2", ORIGIN.partition)
        write_dead_letters(worked, [letter(ORIGIN, 7), letter(other, 8)])
        moved = renew(worked, SINKS, ORIGIN, -1, "made anew")
        assert moved is not None and (moved.least, moved.most) == (99, 99)
        assert [position(worked, sink) for sink in SINKS] == [-1, -1]
        assert not owes(worked) and not gaps(worked, ORIGIN) and not [*worked.list("aside")]
        handed = load(worked)
        assert handed is not None and handed.positions == {str(ORIGIN): -1, str(OTHER): 50}
        assert not handed.files
        assert marks(worked) == {str(OTHER): 550}
        kept = {path.split("/")[2] for path in worked.list(moved.history)}
        assert kept == {"accounts", "owed", "gaps", "aside", "moves", "dead"}
        assert [each.source for each in read_dead_letters(worked)] == [other.source]
        for sink in SINKS:
            Keeper(worked, sink).settle(0, 9)
        assert_holds(worked)
        assert all(each.records == 10 for each in accounts_of(worked, SINKS))

    def test_a_sink_that_the_settings_lost_does_not_come_back_with_old_numbers(
        self, worked: Store
    ) -> None:
        renew(worked, ["splunk"], ORIGIN, 4, "made anew")
        assert settled(worked, "siem") == {}
        assert not owes(worked)
        assert position(worked, "splunk") == 4

    def test_a_partition_that_is_gone_is_history_alone(self, worked: Store) -> None:
        assert renew(worked, [], ORIGIN, -1, "made anew") is not None
        assert settled(worked, "siem") == settled(worked, "splunk") == {}
        assert worked.get(CHECKPOINT) is None

    def test_where_nothing_is_known_there_is_nothing_to_keep(self, store: Store) -> None:
        assert renew(store, [], ORIGIN, -1, "made anew") is None
        assert not [*store.list("")]


# ---------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize(
    ("act", "to", "after"),
    [
        (move, 29, [29, 29]),
        (move, 70, [70, 70]),
        (move, 120, [120, 120]),
        (pass_over, 70, [99, 70]),
        (renew, -1, [-1, -1]),
    ],
    ids=["back", "back and on", "on", "overtaken", "anew"],
)
def test_killed_at_any_write_it_was_not_begun_or_is_finished_at_the_next_start(
    tmp_path: Path, act: Any, to: int, after: list[int]
) -> None:
    """And killed once more at any write of that."""
    worked = Store(str(tmp_path / "worked"))
    siem = Keeper(worked, "siem")
    siem.settle(0, 49, {*range(10, 50)})
    siem.settle(50, 99, {90, 95})
    siem.pay({*range(10, 20)})
    Keeper(worked, "splunk").settle(0, 49)
    record_gap(worked, ORIGIN, Gap(72, 80, 1, GONE))
    put_aside(worked, *_pair(ORIGIN), 20, 30, b"payloads")
    for killed, again in ((n, m) for n in range(60) for m in sorted({0, n // 2, n})):
        store = Store(str(tmp_path / f"{killed}-{again}"))
        shutil.copytree(worked.folder, store.folder)
        store.left = killed
        with contextlib.suppress(Killed):
            act(store, SINKS, ORIGIN, to, "why")
            assert killed > 2
            return
        store.left = again
        with contextlib.suppress(Killed):
            resume(store)
        store.left = -1
        resume(store)
        stand = [position(store, sink) for sink in SINKS]
        assert stand == ([99, 49] if killed == 0 else after)
        assert_holds(store)
        assert not [*store.list("moves")]
        if act is not pass_over and killed:
            (history,) = (store.folder / "history").iterdir()
            for path in worked.list("accounts") if act is renew or to < 49 else ():
                assert (history / path).read_bytes() == worked.get(path)
    raise AssertionError("it was never done in one go")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_accounts_hold_after_any_row_of_moves_payments_and_crashes(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for sink in SINKS:
            Keeper(store, sink).settle(0, 9)
        ever = {sink: {*range(10)} for sink in SINKS}  # delivered in any chapter
        for _ in range(data.draw(st.integers(1, 12))):
            sink = data.draw(st.sampled_from(SINKS))
            at, owing = position(store, sink), owes(store, sink)
            what = data.draw(st.sampled_from(["settle", "pay", "move", "pass_over"]))
            store.left = data.draw(st.sampled_from([-1, -1, *range(25)]))
            try:
                if what == "settle":
                    last = at + data.draw(st.integers(1, 20))
                    new = data.draw(st.sets(st.integers(at + 1, last)))
                    ever[sink] |= {*range(at + 1, last + 1)} - new
                    Keeper(store, sink).settle(at + 1, last, new)
                elif what == "pay" and owing:
                    paid = data.draw(st.sets(st.sampled_from(sorted(owing)), min_size=1))
                    ever[sink] |= paid
                    Keeper(store, sink).pay(paid)
                elif what in ("move", "pass_over"):
                    to = data.draw(st.integers(-1, 60))
                    (move if what == "move" else pass_over)(store, SINKS, ORIGIN, to, "why")
            except Killed:
                owed._answers.clear()  # with the process
            store.left = -1
            resume(store)
            assert_holds(store)
            for each in SINKS:
                known = ever[each] | owes(store, each) | passed_over(store, each)
                assert {*range(position(store, each) + 1)} <= known, "silently missing"
