"""What a sink is owed, sinks that are slow, limits, and what is confirmed only later."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from schemas.batch import Origin
from schemas.receipt import Outcome
from tests.stubs import alert
from tests.transforms.delivery.scripted import Scripted, answers, deliver, eventually, parcels
from transforms.delivery.engine import Engine
from transforms.delivery.parcel import Parcel
from transforms.sinks.base import (
    Accepted,
    Pending,
    Rate,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Stop,
    Verdict,
)

D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED


def large() -> Parcel:
    return Parcel(1, 0, b"x" * 100, alert(1), origin=Origin("hub", "0"))


def outcomes(sent: list[Parcel]) -> list[Outcome | None]:
    return [parcel.outcome for parcel in sent]


class Gate:
    """A system that answers each request only when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = threading.Semaphore(0)

    def __call__(self, payloads: Sequence[bytes]) -> Verdict:
        self.asked.release()
        self.open.wait(5)
        return Accepted()


class TestArrears:
    def test_they_are_delivered_without_anyone_waiting_for_them(self, make):
        sink = Scripted()
        engine = make(sink)
        sent = parcels(10)
        engine.submit_arrears(sent)
        eventually(lambda: outcomes(sent) == [D] * 10)
        assert engine.status().paid == 10

    def test_what_is_live_goes_first(self, make):
        gate = Gate()
        sink = Scripted(gate, max_records=2)
        engine = make(sink, linger=0)
        engine.submit_arrears(parcels(2))
        gate.asked.acquire()
        engine.submit_arrears(parcels(4, start=10))
        live = parcels(4, start=20)
        engine.submit(live)
        gate.open.set()
        engine.settle()
        eventually(lambda: len(sink.taken) == 10)
        assert [int(each) for each in sink.taken[2:]] == [20, 21, 22, 23, 10, 11, 12, 13]

    def test_settling_for_a_moment_does_not_wait_for_them_settling_wholly_does(self, make):
        gate = Gate()
        engine = make(Scripted(gate, patience=5))
        arrears = parcels(3)
        engine.submit_arrears(arrears)
        gate.asked.acquire()
        began = time.monotonic()
        assert not engine.settle(within=2)
        assert time.monotonic() - began < 0.5
        gate.open.set()
        assert engine.settle()
        assert outcomes(arrears) == [D] * 3

    def test_an_open_circuit_takes_none(self, make):
        sink = Scripted(answers(then=Retry("down")), patience=0.05)
        sink.up.clear()
        engine = make(sink)
        deliver(engine, parcels(1))
        assert engine.appetite() == 0
        sent = parcels(5)
        engine.submit_arrears(sent)
        assert outcomes(sent) == [OWED] * 5

    def test_they_are_the_trial_of_a_half_open_circuit_where_nothing_comes_live(self, make):
        sink = Scripted(answers(Stop("down")))
        engine = make(sink)
        deliver(engine, parcels(1))
        eventually(lambda: engine.appetite() == 50)
        engine.submit_arrears(parcels(5, start=5))
        eventually(lambda: engine.status().circuit == "closed")
        assert len(sink.taken) == 5

    def test_the_appetite_follows_the_pace(self, make):
        def slowly(payloads: Sequence[bytes]) -> Verdict:
            time.sleep(len(payloads) / 200)
            return Accepted()

        engine = make(Scripted(slowly, max_records=10, patience=5))
        for start in range(0, 60, 10):
            engine.submit_arrears(parcels(10, start=start))
        engine.settle()
        assert 160 < engine.appetite() < 640, "two seconds of 200 a second"


class TestBehind:
    """A sink that is up, and slower than the stream."""

    def fall(self, make, gate: Gate) -> Engine:
        engine: Engine = make(Scripted(gate, max_records=2, patience=5), queue_bytes=40, linger=0)
        engine.submit(parcels(20), within=0.05)
        assert engine.status().behind
        return engine

    def catch_up(self, make, monkeypatch) -> Engine:
        """One that fell behind, and waits for the last of its arrears."""
        monkeypatch.setattr("transforms.delivery.engine._IN_STORE", 0.0)
        gate = Gate()
        engine = self.fall(make, gate)
        gate.open.set()
        eventually(lambda: engine.status().in_flight == 0)
        engine.nearly_paid(1)
        return engine

    def test_it_holds_up_nobody_for_longer_than_it_may(self, make, caplog):
        gate = Gate()
        engine: Engine = make(Scripted(gate, max_records=2, patience=5), queue_bytes=40, linger=0)
        sent = parcels(20)
        began = time.monotonic()
        engine.submit(sent, within=0.1)
        assert 0.05 < time.monotonic() - began < 0.4
        assert OWED in outcomes(sent)
        assert "slower than the stream" in caplog.text
        assert engine.status().circuit == "closed"
        began = time.monotonic()
        later = parcels(1000, start=100)
        engine.submit(later, within=0.1)
        engine.settle(within=0.0)
        assert set(outcomes(later)) == {OWED}
        assert time.monotonic() - began < 0.1
        gate.open.set()

    def test_small_bundles_fill_the_queue_no_further_than_large_ones(self, make):
        gate = Gate()
        engine: Engine = make(Scripted(gate, patience=5), queue_bytes=100, linger=0)
        for start in range(0, 400, 4):
            engine.submit(parcels(4, start=start), within=0)
            engine.settle(within=0)
        assert engine.status().behind
        assert engine.status().in_flight <= 14
        gate.open.set()

    def test_what_was_queued_is_delivered_and_what_came_after_is_owed(self, make):
        gate = Gate()
        engine: Engine = make(Scripted(gate, max_records=2, patience=5), queue_bytes=40, linger=0)
        sent = parcels(20)
        engine.submit(sent, within=0.05)
        gate.open.set()
        eventually(lambda: None not in outcomes(sent))
        first_owed = outcomes(sent).index(OWED)
        assert set(outcomes(sent[:first_owed])) == {D}
        assert set(outcomes(sent[first_owed:])) == {OWED}

    def test_it_is_live_again_once_little_is_owed_and_gets_the_arrears_first(
        self, make, monkeypatch
    ):
        monkeypatch.setattr("transforms.delivery.engine._IN_STORE", 0.05)
        gate = Gate()
        engine = self.fall(make, gate)
        sink = engine.sink
        gate.open.set()
        eventually(lambda: engine.status().in_flight == 0)
        engine.nearly_paid(3)
        time.sleep(0.06)
        engine.nearly_paid(100_000)
        live = parcels(1, start=90)
        engine.submit(live, within=0)
        assert outcomes(live) == [OWED], "it was little only for a moment"
        engine.nearly_paid(3)
        time.sleep(0.06)
        gate.open.clear()
        engine.nearly_paid(3)
        live = parcels(4, start=100)
        engine.submit(live, within=0.05)
        assert engine.settle(within=0.01) is False, "it waits for what it is owed"
        arrears = parcels(3, start=50)
        engine.submit_arrears(arrears)
        gate.open.set()
        eventually(lambda: outcomes(arrears) == [D] * 3)
        assert outcomes(live) == [None] * 4
        time.sleep(0.06)
        engine.nearly_paid(0)
        eventually(lambda: outcomes(live) == [D] * 4)
        assert not engine.status().behind
        taken = [int(each) for each in sink.taken]  # type: ignore[attr-defined]
        assert taken == sorted(taken)

    def test_what_comes_live_waits_for_the_arrears_only_so_long(self, make, monkeypatch):
        monkeypatch.setattr("transforms.delivery.engine._SEAM", 0.05)
        engine = self.catch_up(make, monkeypatch)
        live = parcels(4, start=100)
        engine.submit(live, within=0.01)
        time.sleep(0.06)
        assert outcomes(live) == [None] * 4
        engine.nearly_paid(1)
        eventually(lambda: outcomes(live) == [D] * 4)

    def test_if_it_falls_behind_while_it_catches_up_what_waited_is_owed_too(
        self, make, monkeypatch
    ):
        engine = self.catch_up(make, monkeypatch)
        waiting = parcels(4, start=100)
        engine.submit(waiting, within=0.01)
        assert outcomes(waiting) == [None] * 4
        more = parcels(40, start=200)
        engine.submit(more, within=0.01)
        assert set(outcomes(waiting + more)) == {OWED}

    def test_a_drain_hands_back_what_waits_and_needs_no_patience_for_it(self, make):
        gate = Gate()
        engine = self.fall(make, gate)
        engine.draining = True
        threading.Timer(0.05, gate.open.set).start()
        began = time.monotonic()
        engine.settle()
        assert time.monotonic() - began < 1
        status = engine.status()
        assert status.in_flight == 0
        assert status.owed > status.delivered > 0
        assert status.circuit == "closed"

    def test_an_outage_ends_it(self, make):
        gate = Gate()
        engine = self.fall(make, gate)
        engine.sink.answer = answers(then=Retry("down"))  # type: ignore[attr-defined]
        engine.sink.up.clear()  # type: ignore[attr-defined]
        gate.open.set()
        engine.submit_arrears(parcels(1, start=70))
        eventually(lambda: engine.status().circuit == "open", within=8)
        assert not engine.status().behind


class TestCarrying:
    def test_settling_for_a_moment_leaves_on_its_way_what_is_not_through(self, make):
        gate = Gate()
        engine = make(Scripted(gate, patience=5))
        sent = parcels(3)
        engine.submit(sent, within=1)
        began = time.monotonic()
        assert not engine.settle(within=0.05)
        assert time.monotonic() - began < 0.3
        assert outcomes(sent) == [None] * 3
        gate.open.set()
        assert engine.settle(within=2)
        assert outcomes(sent) == [D] * 3

    def test_what_hangs_for_longer_than_the_patience_is_owed_all_the_same(self, make):
        gate = Gate()
        engine = make(Scripted(gate, patience=0.1))
        sent = parcels(3)
        engine.submit(sent, within=1)
        until = time.monotonic() + 1
        while not engine.settle(within=0.02):
            assert time.monotonic() < until
        assert outcomes(sent) == [OWED] * 3
        assert engine.status().circuit == "open"
        gate.open.set()


class TestRates:
    def test_no_more_records_a_second_than_it_may_have(self, make):
        sink = Scripted(rate=Rate(records=200), patience=9)
        engine = make(sink)
        deliver(engine, parcels(200))
        began = time.monotonic()
        assert deliver(engine, parcels(60)) == [D] * 60
        deliver(engine, parcels(1))
        assert 0.2 < time.monotonic() - began < 1

    def test_few_requests_a_second_carry_what_gathers(self, make):
        sink = Scripted(rate=Rate(requests=4), patience=9, max_bytes=10_000)
        engine = make(sink, linger=0.001)
        for _ in range(4):  # what one second allows at once
            deliver(engine, parcels(1))
        before = len(sink.requests)
        for start in range(50):
            engine.submit(parcels(1, start=start))
            time.sleep(0.002)
        engine.settle()
        assert len(sink.requests) - before <= 2
        assert len(sink.taken) == 54

    def test_no_request_is_larger_than_a_second_of_the_rate(self, make):
        sink = Scripted(rate=Rate(records=5), patience=9)
        engine = make(sink)
        engine.submit(parcels(12))
        eventually(lambda: sink.requests != [])
        assert len(sink.requests[0]) <= 5


class TestVerdicts:
    def test_refused_credentials_are_read_anew_once(self, make):
        sink = Scripted(answers(Refresh("401")))
        engine = make(sink)
        assert deliver(engine, parcels(3)) == [D] * 3
        assert sink.opened == 2
        assert engine.status().circuit == "closed"

    def test_credentials_that_are_refused_again_stop_the_sink_and_drop_nothing(self, make):
        sink = Scripted(answers(then=Refresh("401: the token is invalid")))
        sink.up.clear()
        engine = make(sink)
        sent = parcels(3)
        assert deliver(engine, sent) == [OWED] * 3
        assert len(sink.requests) == 2
        assert sent[0].reason == "401: the token is invalid"
        assert engine.status().circuit == "open"

    def test_a_request_that_is_too_large_is_halved(self, make):
        def at_most(payloads: Sequence[bytes]) -> Verdict:
            return Accepted() if len(payloads) <= 3 else Shrink("413")

        sink = Scripted(at_most)
        assert deliver(make(sink), parcels(10)) == [D] * 10

    def test_a_record_that_is_too_large_by_itself_is_said_shorter(self, make):
        def at_most(payloads: Sequence[bytes]) -> Verdict:
            return Accepted() if max(map(len, payloads)) <= 50 else Shrink("413: too large")

        sink = Scripted(at_most)
        sink.shorter = b"short"
        engine = make(sink)
        found = large()
        assert deliver(engine, [*parcels(2), found, *parcels(2, start=5)]) == [D] * 5
        assert sink.taken.count(b"short") == 1
        assert found.shortened
        assert engine.status().shortened == 1

    @pytest.mark.parametrize("shorter", [None, b"y" * 100])
    def test_one_that_cannot_be_said_shorter_is_dead(self, make, shorter):
        sink = Scripted(answers(Shrink("413: too large")))
        sink.shorter = shorter
        found = large()
        assert deliver(make(sink), [found]) == [DEAD]
        assert found.reason == "413: too large"

    def test_a_record_above_the_systems_limit_is_said_shorter_before_it_is_sent(self, make):
        sink = Scripted(max_record_bytes=50)
        sink.shorter = b"short"
        engine = make(sink)
        first, second = (
            Parcel(n, 0, b"x" * 60, alert(n), origin=Origin("hub", "0")) for n in range(2)
        )
        engine.submit([first])
        sink.shorter = None
        engine.submit([second])
        engine.submit_arrears([third := Parcel(3, 0, b"x" * 60, alert(3))])
        engine.settle()
        assert outcomes([first, second, third]) == [D, DEAD, DEAD]
        assert sink.taken == [b"short"]
        assert "larger than" in second.reason

    def test_records_that_were_not_taken_for_now_are_sent_again(self, make):
        sink = Scripted(answers(RejectItems({1: "bad"}, taken=True, again=[0, 3])))
        engine = make(sink)
        assert deliver(engine, parcels(5)) == [D, DEAD, D, D, D]
        assert [len(request) for request in sink.requests] == [5, 2]
        assert sorted(map(int, sink.taken)) == [0, 2, 3, 4]
        assert engine.status().retries == 1

    def test_those_that_are_never_taken_are_owed_and_the_others_delivered(self, make):
        def never(payloads: Sequence[bytes]) -> Verdict:
            bad = [at for at, payload in enumerate(payloads) if int(payload) == 2]
            return RejectItems({}, taken=True, again=bad)

        sink = Scripted(never, patience=0.2)
        sink.up.clear()
        assert deliver(make(sink), parcels(4)) == [D, D, OWED, D]
        assert len(sink.requests) < 50, "with pauses"


class TestPending:
    """What the system took, and confirms only later."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch):
        monkeypatch.setattr("transforms.delivery.engine._CONFIRM", 0.01)

    def test_it_is_delivered_when_it_is_confirmed_and_not_before(self, make):
        sink = Scripted(answers(Pending(7), Pending(8)))
        engine = make(sink)
        first, second = parcels(2), parcels(2, start=2)
        engine.submit(first)
        assert not engine.settle(within=0.05)
        engine.submit(second)
        assert not engine.settle(within=0.05)
        assert engine.status().pending == 4
        sink.confirmed = {8: Accepted()}
        eventually(lambda: outcomes(second) == [D, D])
        assert outcomes(first) == [None, None]
        sink.confirmed = {7: Accepted()}
        eventually(lambda: outcomes(first) == [D, D])
        assert engine.settle(within=0)

    def test_what_was_not_kept_is_sent_again(self, make):
        sink = Scripted(answers(Pending(0)))
        sent = parcels(3)
        engine = make(sink)
        engine.submit(sent)
        engine.settle(within=0.02)
        sink.confirmed = {0: Retry("not acknowledged")}
        eventually(lambda: outcomes(sent) == [D] * 3)
        assert len(sink.requests) == 2

    def test_when_the_connection_breaks_everything_that_was_pending_is_sent_again(self, make):
        sink = Scripted(answers(Pending(0), ConnectionResetError("reset")))
        engine = make(sink)
        first, second = parcels(2), parcels(2, start=2)
        engine.submit(first)
        engine.settle(within=0.02)
        engine.submit(second)
        assert engine.settle()
        assert outcomes(first + second) == [D] * 4
        assert engine.status().pending == 0
        assert sorted(map(int, sink.taken)) == [0, 1, 2, 3]

    def test_it_may_wait_for_longer_than_the_patience_while_nobody_needs_an_end(self, make):
        sink = Scripted(answers(Pending(0)), patience=0.05)
        engine = make(sink)
        sent = parcels(2)
        engine.submit(sent)
        time.sleep(0.1)
        engine.settle(within=0.01)
        assert outcomes(sent) == [None, None]
        assert engine.status().circuit == "closed"

    def test_a_drain_owes_what_is_not_confirmed_by_then_and_leaves_the_circuit_closed(self, make):
        sink = Scripted(answers(Pending(0)), patience=0.1)
        engine = make(sink)
        sent = parcels(2)
        engine.submit(sent)
        engine.draining = True
        engine.settle()
        assert outcomes(sent) == [OWED, OWED]
        assert engine.status().circuit == "closed"
        sink.confirmed = {0: Accepted()}
        eventually(lambda: engine.status().late == 1)

    def test_it_does_not_count_as_waiting(self, make):
        handles = iter(range(1000))
        sink = Scripted(lambda payloads: Pending(next(handles)), max_records=2)
        engine = make(sink, queue_bytes=40, linger=0)
        sent = parcels(100)
        engine.submit(sent, within=2)
        eventually(lambda: engine.status().pending == 100)
        assert not engine.status().behind
        sink.confirmed = dict.fromkeys(range(1000), Accepted())
        eventually(lambda: outcomes(sent) == [D] * 100)
