from __future__ import annotations

import dataclasses
import gc
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.receipt import Outcome
from tests.transforms.delivery.scripted import (
    Scripted,
    ScriptedConnection,
    answers,
    deliver,
    eventually,
    parcels,
)
from transforms.delivery.engine import Engine
from transforms.delivery.engines import close_all, engine_for, engines
from transforms.delivery.line import printable
from transforms.delivery.parcel import Parcel
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Connection,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Split,
    Stop,
    Verdict,
)

ALL = [Outcome.DELIVERED] * 10


class TestPacking:
    def test_chunks_hold_no_more_bytes_than_the_limit_separators_included(self, make):
        sink = Scripted(max_bytes=110)
        deliver(make(sink), parcels(25))
        assert [len(request) for request in sink.requests] == [10, 10, 5]

    def test_chunks_hold_no_more_records_than_the_limit(self, make):
        sink = Scripted(max_records=4)
        deliver(make(sink), parcels(10))
        assert [len(request) for request in sink.requests] == [4, 4, 2]

    def test_a_chunk_fills_across_calls_and_goes_when_it_is_settled(self, make):
        sink = Scripted()
        engine = make(sink, linger=60)
        for parcel in parcels(5):
            engine.submit([parcel])
        assert sink.requests == []
        engine.settle()
        assert len(sink.requests) == 1

    def test_a_chunk_that_is_not_filled_goes_after_a_while(self, make):
        """So a sink does not wait until another one, settled before it, is through."""
        sink = Scripted()
        make(sink, linger=0.02).submit(parcels(5))
        eventually(lambda: len(sink.taken) == 5)

    def test_a_full_chunk_goes_at_once(self, make):
        sink = Scripted(max_records=5)
        make(sink, linger=60).submit(parcels(6))
        eventually(lambda: len(sink.taken) == 5)

    def test_a_record_larger_than_the_limit_goes_alone(self, make):
        sink = Scripted(max_bytes=100)
        sent = [*parcels(2), *parcels(1, size=500, start=2), *parcels(2, start=3)]
        deliver(make(sink), sent)
        assert [len(request) for request in sink.requests] == [2, 1, 2]

    def test_nothing_is_reordered_by_one_sender(self, make):
        sink = Scripted(max_records=7)
        sent = parcels(100)
        deliver(make(sink), sent)
        assert sink.taken == [parcel.payload for parcel in sent]

    def test_settling_nothing_is_free_and_starts_no_thread(self, make):
        engine = make(Scripted())
        engine.settle()
        engine.submit([])
        engine.settle()
        assert engine._threads == []


class TestDelivery:
    def test_what_was_accepted_is_delivered(self, make):
        engine = make(Scripted())
        assert deliver(engine, parcels(10)) == ALL
        status = engine.status()
        assert (status.delivered, status.in_flight, status.requests) == (10, 0, 1)
        assert status.bytes_sent == 110, "separators included"

    def test_a_connection_and_its_thread_serve_many_bundles(self, make):
        sink = Scripted()
        engine = make(sink)
        for _ in range(5):
            deliver(engine, parcels(10))
        assert (sink.opened, len(sink.threads)) == (1, 1)

    def test_as_many_threads_send_as_the_concurrency_says(self, make):
        meet = threading.Barrier(3, timeout=2)

        def answer(payloads: Sequence[bytes]) -> Verdict:
            meet.wait()
            return Accepted()

        sink = Scripted(answer, concurrency=3, max_records=1, patience=2)
        assert deliver(make(sink), parcels(3)) == [Outcome.DELIVERED] * 3
        assert sink.opened == 3

    def test_a_warning_is_counted_and_logged_once(self, make, caplog):
        engine = make(Scripted(lambda _: Accepted("ack queue\nalmost full"), max_records=1))
        assert deliver(engine, parcels(3)) == [Outcome.DELIVERED] * 3
        assert engine.status().warnings == 3
        assert [r.getMessage() for r in caplog.records] == [
            "sink siem: accepted, with a warning: ack queue almost full"
        ]

    def test_many_bundles_side_by_side_each_get_their_outcomes(self, make):
        sink = Scripted(max_records=3, concurrency=2, patience=5)
        engine = make(sink)
        bundles = [parcels(50, start=50 * n) for n in range(6)]
        found: list[list[Outcome | None]] = []

        def run(bundle: list[Parcel]) -> None:
            found.append(deliver(engine, bundle))

        threads = [threading.Thread(target=run, args=(bundle,)) for bundle in bundles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[Outcome.DELIVERED] * 50] * 6
        assert sorted(sink.taken) == [p.payload for bundle in bundles for p in bundle]

    def test_an_idle_connection_is_asked_to_tidy_up(self, make):
        sink = Scripted()
        sink.idle_after = 0.0  # too eager: the engine does not let it spin
        deliver(make(sink), parcels(1))
        time.sleep(0.25)
        assert 1 <= sink.idles <= 4

    def test_a_connection_that_breaks_while_it_tidies_up_is_opened_anew(self, make, monkeypatch):
        monkeypatch.setattr(ScriptedConnection, "idle", lambda self: 1 / 0)
        sink = Scripted()
        engine = make(sink)
        deliver(engine, parcels(1))
        eventually(lambda: sink.closed == 1)
        assert deliver(engine, parcels(1)) == [Outcome.DELIVERED]


class TestRetries:
    def test_a_retry_succeeds_within_the_patience(self, make):
        sink = Scripted(answers(Retry("busy"), ConnectionResetError("reset"), Retry("busy")))
        engine = make(sink)
        assert deliver(engine, parcels(10)) == ALL
        assert engine.status().retries == 3
        assert sink.requests[0] == sink.requests[-1]

    def test_a_network_error_reopens_the_connection_a_refusal_does_not(self, make):
        sink = Scripted(answers(Retry("busy"), then=Accepted()))
        deliver(make(sink), parcels(1))
        assert (sink.opened, sink.closed) == (1, 0)
        sink = Scripted(answers(TimeoutError("timed out"), then=Accepted()))
        deliver(make(sink), parcels(1))
        assert (sink.opened, sink.closed) == (2, 1)

    def test_the_time_a_system_names_is_kept(self, make):
        sink = Scripted(answers(Retry("slow down", after=0.2)), patience=2)
        assert deliver(make(sink), parcels(10)) == ALL
        assert sink.times[1] - sink.times[0] >= 0.2

    def test_the_time_a_system_names_holds_for_every_sender(self, make):
        sink = Scripted(
            answers(Retry("slow down", after=0.3)), patience=2, concurrency=2, max_records=1
        )
        engine = make(sink)
        engine.submit(parcels(2))
        eventually(lambda: len(sink.requests) >= 1)
        time.sleep(0.05)
        before = len(sink.requests)
        engine.submit(parcels(4, start=2))
        engine.settle()
        assert sink.times[before] - sink.times[0] >= 0.25

    def test_a_named_time_beyond_the_patience_is_owed_now_and_the_circuit_open_until_then(
        self, make
    ):
        sink = Scripted(answers(Retry("closed for today", after=0.6)))
        engine = make(sink)
        started = time.monotonic()
        assert deliver(engine, parcels(3)) == [Outcome.OWED] * 3
        assert time.monotonic() - started < 0.2
        time.sleep(0.4)
        assert (engine.status().circuit, sink.probes) == ("open", 0)
        eventually(lambda: engine.status().circuit == "half_open")
        assert time.monotonic() - started >= 0.6

    def test_a_retry_after_nothing_does_not_spin(self, make):
        sink = Scripted(answers(then=Retry("busy", after=0.0)), patience=0.3)
        deliver(make(sink), parcels(1))
        assert len(sink.requests) < 30

    def test_beyond_the_patience_it_is_owed_with_the_reason(self, make):
        sink = Scripted(answers(then=Retry("the queue is full")), patience=0.2)
        sent = parcels(10)
        started = time.monotonic()
        assert deliver(make(sink), sent) == [Outcome.OWED] * 10
        assert time.monotonic() - started < 0.3
        assert {parcel.reason for parcel in sent} == {"the queue is full"}

    def test_a_request_may_take_no_longer_than_what_is_left_of_the_patience(self, make):
        sink = Scripted(answers(Retry("busy", after=0.15)), patience=0.4, timeout=10)
        deliver(make(sink), parcels(1))
        assert sink.timeouts[0] <= 0.4 + 1e-6
        assert sink.timeouts[1] <= 0.25


class TestRefusals:
    def test_a_refused_request_is_halved_down_to_the_culprit(self, make):
        bad = b"0000000137"
        sink = Scripted(
            lambda payloads: Split("too bad") if bad in payloads else Accepted(),
            max_records=500,
            max_bytes=100_000,
            patience=5,
        )
        sent = parcels(300)
        deliver(make(sink, linger=60), sent)
        assert [p.sequence for p in sent if p.outcome is Outcome.DEAD] == [137]
        assert sent[137].reason == "too bad"
        assert sorted(sink.taken) == [p.payload for p in sent if p.sequence != 137]
        assert len(sink.requests) <= 2 * 9 + 1

    def test_a_single_refused_record_is_dead_and_the_circuit_stays_closed(self, make):
        engine = make(Scripted(answers(Split("not this one"))))
        assert deliver(engine, parcels(1)) == [Outcome.DEAD]
        assert engine.status().circuit == "closed"

    def test_refused_positions_are_dead_and_the_rest_is_sent_again(self, make):
        sink = Scripted(answers(RejectItems({1: "bad date", 3: "bad id"}, taken=False)))
        sent = parcels(5)
        deliver(make(sink), sent)
        assert [p.sequence for p in sent if p.outcome is Outcome.DEAD] == [1, 3]
        assert sent[3].reason == "bad id"
        assert sink.taken == [sent[0].payload, sent[2].payload, sent[4].payload]

    def test_refused_positions_are_dead_and_the_rest_is_not_sent_again_if_taken(self, make):
        sink = Scripted(answers(RejectItems({0: "bad"}, taken=True)))
        sent = parcels(3)
        assert deliver(make(sink), sent) == [Outcome.DEAD, Outcome.DELIVERED, Outcome.DELIVERED]
        assert len(sink.requests) == 1

    def test_refused_positions_that_do_not_exist_are_looked_for_by_halving(self, make):
        bad = parcels(4)[2].payload
        sink = Scripted(
            lambda payloads: RejectItems({99: "?"}, taken=False) if bad in payloads else Accepted()
        )
        sent = parcels(4)
        deliver(make(sink), sent)
        assert [p.sequence for p in sent if p.outcome is Outcome.DEAD] == [2]

    def test_every_record_refused_one_after_another_ends_dead(self, make):
        sink = Scripted(lambda payloads: RejectItems({0: "bad"}, taken=False), patience=5)
        assert deliver(make(sink), parcels(10)) == [Outcome.DEAD] * 10


class TestStops:
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Stop("401: the token was refused"), "401: the token was refused"),
            (SecretError("env:TOKEN: not set"), "env:TOKEN: not set"),
            (ssl.SSLCertVerificationError(1, "x"), "the certificate was refused"),
            (KeyError("the payload itself"), "KeyError at scripted.py:"),
        ],
        ids=["verdict", "secret", "certificate", "bug"],
    )
    def test_everything_is_owed_at_once_and_nothing_dropped(self, make, fault, reason):
        if isinstance(fault, ssl.SSLCertVerificationError):
            fault.verify_message = "self-signed"
        sink = Scripted(answers(then=fault), patience=5, max_records=2)
        engine = make(sink, cool_down=(5, 5))
        sent = parcels(10)
        started = time.monotonic()
        assert deliver(engine, sent) == [Outcome.OWED] * 10
        assert time.monotonic() - started < 0.5
        assert all(reason in parcel.reason for parcel in sent)
        assert "payload" not in sent[0].reason
        assert reason in engine.status().reason
        assert len(sink.requests) == 1

    @pytest.mark.parametrize(
        "verdict", [None, Retry(None), RejectItems([1], taken=False), RejectItems({0: 1}, True)]
    )
    def test_a_sink_whose_verdict_makes_no_sense_is_a_stop(self, make, verdict):
        sink = Scripted(answers(verdict, then=Accepted()), patience=5)
        engine = make(sink)
        started = time.monotonic()
        assert deliver(engine, parcels(2)) == [Outcome.OWED] * 2
        assert time.monotonic() - started < 1
        assert "Error" in engine.status().reason
        eventually(lambda: engine.status().circuit == "half_open")
        assert deliver(engine, parcels(2)) == [Outcome.DELIVERED] * 2

    def test_the_connection_is_opened_anew_so_that_secrets_are_read_anew(self, make):
        sink = Scripted(answers(Stop("401")))
        engine = make(sink)
        deliver(engine, parcels(1))
        eventually(lambda: engine.status().circuit == "half_open")
        assert deliver(engine, parcels(1)) == [Outcome.DELIVERED]
        assert sink.opened == 2

    def test_a_connection_that_cannot_be_made_or_closed_costs_no_record(self, make):
        class Bad(Scripted):
            def connect(self) -> Connection:
                if self.opened == 0:
                    self.opened = 1
                    raise ConnectionRefusedError("refused")
                return super().connect()

        sink = Bad(answers(TimeoutError("late")))
        sink_close = ScriptedConnection.close
        ScriptedConnection.close = lambda self: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        try:
            assert deliver(make(sink), parcels(10)) == ALL
        finally:
            ScriptedConnection.close = sink_close  # type: ignore[method-assign]


class TestCircuit:
    def open(self, make: Callable[..., Engine], **options: object) -> tuple[Scripted, Engine]:
        sink = Scripted(answers(Stop("down")), **options)  # type: ignore[arg-type]
        sink.up.clear()
        engine = make(sink)
        deliver(engine, parcels(1))
        return sink, engine

    def test_while_it_is_open_everything_is_owed_for_free(self, make):
        sink, engine = self.open(make, patience=5)
        started = time.monotonic()
        sent = parcels(50_000)
        deliver(engine, sent)
        assert time.monotonic() - started < 0.5
        assert {(p.outcome, p.reason) for p in sent} <= {
            (Outcome.OWED, "down"),
            (Outcome.OWED, "still down"),
        }
        assert len(sink.requests) == 1

    def test_it_is_probed_without_any_record_until_the_system_is_back(self, make):
        sink, engine = self.open(make)
        eventually(lambda: sink.probes >= 3)
        assert engine.status().openings == 1
        sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")
        assert len(sink.requests) == 1
        assert deliver(engine, parcels(10)) == ALL
        assert engine.status().circuit == "closed"

    def test_probes_become_rarer_and_a_success_resets_that(self, make):
        sink, engine = self.open(make)
        eventually(lambda: sink.probes >= 4)
        assert engine._circuit.failures >= 4
        sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")
        deliver(engine, parcels(1))
        assert engine._circuit.failures == 0

    def test_a_failing_first_request_opens_it_again_and_only_one_is_tried(self, make):
        sink, engine = self.open(make, max_records=2, patience=5)
        sink.answer = answers(then=Retry("not yet"))
        sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")
        assert deliver(engine, parcels(10)) == [Outcome.OWED] * 10
        assert len(sink.requests) == 2
        assert engine.status().openings == 2

    def test_half_open_only_one_sender_tries(self, make):
        sink, engine = self.open(make, concurrency=3, max_records=1, patience=2)
        under_way: list[int] = []
        most: list[int] = []

        def answer(payloads: Sequence[bytes]) -> Verdict:
            under_way.append(1)
            most.append(len(under_way))
            time.sleep(0.05)
            under_way.pop()
            return Accepted()

        sink.answer = answer
        sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")
        assert deliver(engine, parcels(6)) == [Outcome.DELIVERED] * 6
        assert most[:2] == [1, 1]

    def test_a_system_that_hangs_behind_a_good_probe_delays_nobody_for_the_whole_patience(
        self, make, monkeypatch
    ):
        monkeypatch.setattr("transforms.delivery.engine._TRIAL", 0.2)
        sink, engine = self.open(make, patience=60)
        release = threading.Event()

        def hang(payloads: Sequence[bytes]) -> Verdict:
            release.wait(5)
            return Accepted()

        sink.answer = hang
        sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")
        started = time.monotonic()
        try:
            assert deliver(engine, parcels(1)) == [Outcome.OWED]
            assert time.monotonic() - started < 1
        finally:
            release.set()

    def test_a_probe_that_breaks_is_a_probe_that_fails(self, make):
        sink, engine = self.open(make)
        sink.up = None  # type: ignore[assignment]
        try:
            eventually(lambda: "AttributeError" in engine.status().reason)
        finally:
            sink.up = threading.Event()
            sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")

    def test_it_says_once_that_it_opened_and_once_that_it_closed(self, make, caplog):
        caplog.set_level(logging.INFO)
        sink = Scripted(answers(Stop("no\r\nforged: line\x1b[31m\u2028" + "x" * 1000)))
        sink.up.clear()
        engine = make(sink)
        deliver(engine, parcels(3))
        eventually(lambda: sink.probes >= 2)
        deliver(engine, parcels(3))
        sink.up.set()
        eventually(lambda: engine.status().circuit == "half_open")
        deliver(engine, parcels(3))
        opened, closed = (record.getMessage() for record in caplog.records)
        assert opened.startswith("sink siem: circuit opened: no  forged: line [31m x")
        assert opened.isprintable()
        assert len(opened) < 400
        assert closed == "sink siem: circuit closed"


class TestPatience:
    def test_a_request_that_hangs_is_given_up_and_its_late_result_ignored(self, make):
        release = threading.Event()

        def hang(payloads: Sequence[bytes]) -> Verdict:
            release.wait(5)
            return Accepted()

        sink = Scripted(hang, patience=0.2)
        engine = make(sink)
        sent = parcels(10)
        started = time.monotonic()
        assert deliver(engine, sent) == [Outcome.OWED] * 10
        assert 0.15 < time.monotonic() - started < 0.4
        release.set()
        eventually(lambda: engine.status().late == 1)
        assert [p.outcome for p in sent] == [Outcome.OWED] * 10
        assert (engine.status().owed, engine.status().delivered) == (10, 0)

    @pytest.mark.parametrize("where", ["send", "probe"])
    def test_a_sender_that_never_comes_back_is_replaced(self, make, monkeypatch, where):
        monkeypatch.setattr("transforms.delivery.engine._OVERDUE", 0.1)
        release, hung = threading.Event(), threading.Event()

        def hang_once() -> None:
            if not hung.is_set():
                hung.set()
                release.wait(10)

        def answer(payloads: Sequence[bytes]) -> Verdict:
            if where == "send":
                hang_once()
            return Accepted() if hung.is_set() else Stop("not now")

        sink = Scripted(answer, patience=0.1, timeout=0.1)
        if where == "probe":
            monkeypatch.setattr(sink, "probe", lambda timeout: hang_once())
        engine = make(sink, cool_down=(0.01, 0.02))
        assert deliver(engine, parcels(1)) == [Outcome.OWED]
        assert hung.wait(5)

        def through() -> bool:
            engine.nearly_paid(1)  # as the payer does, twice a second
            return deliver(engine, parcels(1)) == [Outcome.DELIVERED]

        eventually(through)
        release.set()
        eventually(lambda: deliver(engine, parcels(1)) == [Outcome.DELIVERED])

    def test_it_comes_back_after_a_request_that_hung(self, make):
        release = threading.Event()
        sink = Scripted(lambda _: (release.wait(5), Accepted())[1], patience=0.1)
        engine = make(sink)
        deliver(engine, parcels(1))
        release.set()
        eventually(lambda: engine.status().circuit == "half_open")
        assert deliver(engine, parcels(10)) == ALL

    def test_submitting_waits_for_room_and_no_longer_than_the_patience(self, make):
        release = threading.Event()
        sink = Scripted(lambda _: (release.wait(5), Accepted())[1], max_records=1, patience=0.3)
        engine = make(sink, queue_bytes=50)
        sent = parcels(1000)
        started = time.monotonic()
        engine.submit(sent)
        assert 0.2 < time.monotonic() - started < 0.6
        assert [p.outcome for p in sent] == [Outcome.OWED] * 1000
        release.set()

    def test_a_sink_slower_than_the_stream_costs_one_call_no_more_than_the_patience(self, make):
        sink = Scripted(lambda _: (time.sleep(0.03), Accepted())[1], max_records=1, patience=0.3)
        engine = make(sink, queue_bytes=20)
        sent = parcels(200)
        started = time.monotonic()
        engine.submit(sent)
        engine.settle()
        assert time.monotonic() - started < 1.0
        assert {p.outcome for p in sent} == {Outcome.DELIVERED, Outcome.OWED}

    def test_back_pressure_loses_nothing(self, make):
        sink = Scripted(lambda _: (time.sleep(0.002), Accepted())[1], max_records=1, patience=5)
        assert deliver(make(sink, queue_bytes=20), parcels(50)) == [Outcome.DELIVERED] * 50

    def test_other_senders_requests_that_are_under_way_may_still_succeed(self, make):
        met = threading.Barrier(2, timeout=2)

        def answer(payloads: Sequence[bytes]) -> Verdict:
            met.wait()
            if payloads[0].endswith(b"0"):
                return Stop("refused")
            time.sleep(0.1)
            return Accepted()

        sink = Scripted(answer, concurrency=2, max_records=1, patience=2)
        engine = make(sink, cool_down=(5, 5))
        assert deliver(engine, parcels(2)) == [Outcome.OWED, Outcome.DELIVERED]
        assert engine.status().late == 0


class TestClosing:
    def test_closing_delivers_what_was_submitted_and_ends_threads_and_connections(self, make):
        sink = Scripted(concurrency=2, max_records=3)
        engine = make(sink)
        sent = parcels(10)
        engine.submit(sent)
        engine.close()
        assert [p.outcome for p in sent] == ALL
        assert not any(thread.is_alive() for thread in engine._threads)
        assert sink.opened == sink.closed

    def test_what_comes_after_closing_is_owed(self, make):
        engine = make(Scripted())
        engine.close()
        sent = parcels(2)
        assert deliver(engine, sent) == [Outcome.OWED] * 2
        assert sent[0].reason == "the sink was closed"
        engine.close()

    def test_closing_ends_an_open_circuits_waiting(self, make):
        sink = Scripted(answers(then=Stop("down")))
        engine = make(sink, cool_down=(60, 60))
        deliver(engine, parcels(1))
        started = time.monotonic()
        engine.close()
        assert time.monotonic() - started < 0.5
        assert not any(thread.is_alive() for thread in engine._threads)

    def test_an_engine_outlives_shifts_and_is_one_a_sink_and_run(self):
        sink = Scripted()
        try:
            engine = engine_for(sink, "run 1")
            assert engine_for(Scripted(), "run 1") is engine
            assert engine_for(Scripted(name="other"), "run 1") is not engine
            assert engine_for(sink, "run 2") is not engine
            assert len(engines("run 1")) == 2
        finally:
            close_all("run 1")
            close_all("run 2")
        assert engines("run 1") == []
        assert deliver(engine, parcels(1)) == [Outcome.OWED]


def test_an_idle_engine_uses_no_cpu(make):
    engine = make(Scripted(concurrency=4, max_records=1))
    deliver(engine, parcels(8))
    gc.collect()
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_what_others_wrote_is_one_short_harmless_line():
    assert printable("a\nb\x00c\u202ed\x9b", 100) == "a b c d "
    assert printable("x" * 20, 10) == "x" * 10 + "…"


VERDICTS: dict[str, Any] = {
    "accept": Accepted(),
    "retry": Retry("busy"),
    "later": Retry("busy", after=0.01),
    "much later": Retry("busy", after=9),
    "split": Split("refused"),
    "shrink": Shrink("413"),
    "refresh": Refresh("401"),
    "stop": Stop("403"),
    **dict.fromkeys(("reject", "partly", "some later", "error", "bug", "hang")),
}


@dataclasses.dataclass(frozen=True)
class Say:
    """An answer that depends on the request: what hypothesis draws."""

    what: str
    at: int = 0

    def __call__(self, payloads: Sequence[bytes]) -> Verdict:
        if self.what == "hang":
            time.sleep(0.06)
            return Accepted()
        if self.what == "error":
            raise ConnectionResetError("reset")
        if self.what == "bug":
            raise ValueError("bug")
        if self.what == "reject":
            return RejectItems({self.at: "refused"}, taken=False)
        if self.what == "partly":
            return RejectItems({self.at: "refused"}, taken=True)
        if self.what == "some later":
            return RejectItems({self.at: "refused"}, taken=True, again=[self.at + 1])
        return VERDICTS[self.what]


SAYINGS = st.builds(
    Say,
    st.sampled_from(list(VERDICTS)),
    st.integers(0, 4),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(SAYINGS, max_size=25),
    bundles=st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=4),
    concurrency=st.integers(1, 3),
    max_records=st.integers(1, 5),
)
def test_every_parcel_has_exactly_one_outcome_whatever_the_system_answers(
    script, bundles, concurrency, max_records
):
    left = list(script)

    def answer(payloads: Sequence[bytes]) -> Verdict:
        try:
            say = left.pop(0)
        except IndexError:
            say = Say("accept")
        return say(payloads)

    sink = Scripted(answer, patience=0.05, concurrency=concurrency, max_records=max_records)
    engine = Engine(sink, queue_bytes=30, cool_down=(0.001, 0.005))
    everything: list[Parcel] = []
    try:
        for bundle in bundles:
            started = time.monotonic()
            sent: list[Parcel] = []
            for count in bundle:
                more = parcels(count, start=len(everything))
                everything += more
                sent += more
                engine.submit(more)
            engine.settle()
            assert all(parcel.outcome is not None for parcel in sent)
            assert time.monotonic() - started < 0.05 * (len(bundle) + 1) + 0.5
    finally:
        engine.close()
    outcomes = [parcel.outcome for parcel in everything]
    status = engine.status()
    assert status.in_flight == 0
    assert status.delivered == outcomes.count(Outcome.DELIVERED)
    assert status.dead == outcomes.count(Outcome.DEAD)
    assert status.owed == outcomes.count(Outcome.OWED)
    taken = sink.taken
    delivered = {p.payload for p in everything if p.outcome is Outcome.DELIVERED}
    assert delivered <= set(taken)
    assert len(taken) == len(set(taken)), "nothing that was accepted is sent again"
    assert all(p.reason for p in everything if p.outcome is not Outcome.DELIVERED)
