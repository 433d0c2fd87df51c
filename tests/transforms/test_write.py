"""Each record that comes to a sink ends there in exactly one way, and the receipt says which."""

from __future__ import annotations

import itertools
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import registry
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert
from schemas.batch import NOBODY, AlertBatch, Dropped
from schemas.digest import Digest, from_json, to_alert, to_json
from schemas.ledger import Ledger
from schemas.receipt import Outcome, Outcomes, Receipt, Run
from tests import stubs
from tests.stubs import ORIGIN, StubSink, alert, alerts
from transforms.account import begin
from transforms.dead_letters import read_dead_letters, write_dead_letters
from transforms.deduplicate import shard_batch
from transforms.delivery.engines import close_all
from transforms.delivery.parcel import Parcel
from transforms.journal import journaled
from transforms.read.reader import close_session, session
from transforms.sinks.base import Accepted, RejectItems, Retry, Stop
from transforms.state_store import StateStore
from transforms.write import (
    DigestsOnly,
    WriteDigests,
    WriteTo,
    _Sent,
    _Write,
    _WriteDigests,
    parcels,
    receipt,
)

names = (f"sink{n}" for n in itertools.count())


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


@pytest.fixture
def sink() -> Iterator[StubSink]:
    """A sink of a name that no other test has; the run is named like it."""
    made = StubSink(next(names))
    yield made
    close_all(made.name)


def write(
    sink: StubSink, store: StateStore, *batches: AlertBatch, answer: Any = None
) -> list[Receipt]:
    """The batches as one bundle of the DoFn."""
    if answer is not None:
        stubs.ANSWERS[sink.name] = answer
    do_fn = _Write(sink, sink.name, store)
    do_fn.setup()
    do_fn.start_bundle()
    for batch in batches:
        do_fn.process(batch)
    return [windowed.value for windowed in do_fn.finish_bundle()]


# ----------------------------------------------------------------------------- plain functions


def test_every_alert_is_a_parcel_with_its_address() -> None:
    made = [alert(7), alert(7, 1), alert(9)]
    found = parcels(StubSink(), alerts(5, 9, made=made), -1)
    assert [(p.sequence, p.index, p.payload) for p in found] == [
        (one.sequence, one.index, one.raw) for one in made
    ]
    assert {p.outcome for p in found} == {None}


def test_what_a_sink_cannot_say_is_dead_with_the_reason_in_one_line() -> None:
    (found,) = parcels(StubSink(), alerts(0, 0, made=[alert(title="no")]), -1)
    assert (found.outcome, found.reason) == (
        Outcome.DEAD,
        "cannot be encoded: it has no words",
    )


def test_a_bug_in_an_encoder_costs_its_record_alone_and_quotes_nothing_of_it() -> None:
    made = [alert(0), alert(1, title="bug", raw=b"a secret"), alert(2)]
    found = parcels(StubSink(), alerts(0, 2, made=made), -1)
    assert [p.outcome for p in found] == [None, Outcome.DEAD, None]
    assert found[1].reason == "the encoder failed: KeyError"


def test_what_was_settled_before_is_not_encoded_again() -> None:
    assert [p.sequence for p in parcels(StubSink(), alerts(0, 9), 6)] == [7, 8, 9]


def sent(ended: dict[tuple[int, int], Outcome]) -> list[Parcel]:
    return [Parcel(*address, b"", None, outcome) for address, outcome in ended.items()]


def test_a_receipt_counts_each_record_once() -> None:
    made = [alert(n) for n in range(10, 15)]
    gone = [
        Dropped(15, 0, Outcome.REPEAT),
        Dropped(15, 1, Outcome.DEAD),
        Dropped(16, 0, Outcome.NOT_ROUTED),
    ]
    ends = [
        Outcome.DELIVERED,
        Outcome.OWED,
        Outcome.OWED,
        Outcome.DEAD,
        Outcome.OWED,
    ]
    batch = alerts(10, 16, made=made, dropped=gone)
    found = receipt("siem", batch, sent({(10 + n, 0): end for n, end in enumerate(ends)}), -1)
    assert found.outcomes == Outcomes(delivered=1, not_routed=1, repeat=1, dead=2, owed=3)
    assert found.owed == [Run(11, 12, 0), Run(14, 14, 0)]
    assert (found.first, found.last, found.size) == (10, 16, 8)
    assert found.enqueued_ms == made[-1].enqueued_ms
    assert (found.only, found.delivered, found.dead) == (None, [], [])


def test_a_receipt_tells_what_was_settled_earlier() -> None:
    batch = alerts(0, 9, made=[alert(n) for n in (2, 4, 6)], dropped=[Dropped(3, 0, Outcome.DEAD)])
    found = receipt("siem", batch, sent({(6, 0): Outcome.DELIVERED}), 4)
    assert found.outcomes == Outcomes(delivered=1, earlier=3)


def test_a_payment_tells_exactly_what_ended_now() -> None:
    batch = alerts(0, 3, only="siem")
    ends = [Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED, Outcome.DELIVERED]
    found = receipt("siem", batch, sent({(n, 0): end for n, end in enumerate(ends)}), -1)
    assert found.only == "siem"
    assert found.delivered == [Run(0, 0, 0), Run(3, 3, 0)]
    assert found.dead == [Run(1, 1, 0)]
    assert found.owed == [Run(2, 2, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([*Outcome])), max_size=30),
    st.integers(1, 8),
    st.integers(-1, 20),
)
def test_the_receipts_of_a_batch_cut_by_shard_settle_it_exactly(
    records: list[tuple[int, Outcome]], shards: int, after: int
) -> None:
    made: list[Alert] = []
    gone: list[Dropped] = []
    ends: dict[tuple[int, int], Outcome] = {}
    for index, (sequence, outcome) in enumerate(sorted(records)):
        if outcome in (Outcome.REPEAT, Outcome.NOT_ROUTED):
            gone.append(Dropped(sequence, index, outcome))
        else:
            made.append(alert(sequence, index, key=index.to_bytes(4, "big") * 4))
        ends[sequence, index] = outcome
    batch = alerts(0, 20, made=made, dropped=gone)
    ledger = Ledger(min(after, 19))
    parts = list(shard_batch(batch, shards))
    for n, (_, part) in enumerate(parts):
        told = {(a.sequence, a.index): ends[a.sequence, a.index] for a in part.alerts}
        told = {address: end for address, end in told.items() if address[0] > after}
        ledger.add(receipt("siem", part, sent(told), after))
        ledger.advance()
        fed = sum(len(p.alerts) + len(p.dropped) for _, p in parts[: n + 1])
        assert (ledger.position == 20) == (fed == batch.size), "settled by all of its parts"
    counted = [end for (sequence, _), end in ends.items() if sequence > after]
    assert ledger.records == len(counted) == ledger.outcomes.total
    assert ledger.outcomes == Outcomes(*(counted.count(end) for end in Outcome))


# --------------------------------------------------------------------------------- the DoFn


def test_what_a_sink_takes_is_delivered(sink: StubSink, store: StateStore) -> None:
    found = write(sink, store, alerts(0, 24), alerts(25, 29))
    assert [one.outcomes for one in found] == [Outcomes(delivered=25), Outcomes(delivered=5)]
    assert sorted(stubs.TAKEN[sink.name]) == sorted(alert(n).raw for n in range(30))
    assert list(read_dead_letters(store)) == []


def test_an_empty_batch_has_its_receipt(sink: StubSink, store: StateStore) -> None:
    (found,) = write(sink, store, alerts(3, 7, made=[]))
    assert (found.first, found.last, found.size, found.outcomes) == (3, 7, 0, Outcomes())


def test_what_cannot_be_encoded_lies_among_the_dead_letters_with_its_bytes(
    sink: StubSink, store: StateStore
) -> None:
    made = [alert(0), alert(1, title="no", raw=b"\xff\0"), alert(2, 5, title="bug"), alert(3)]
    (found,) = write(sink, store, alerts(0, 3, made=made))
    assert found.outcomes == Outcomes(delivered=2, dead=2)
    letters = [
        (one.sequence, one.index, one.step, one.reason, one.body, one.enqueued_ms)
        for one in read_dead_letters(store)
    ]
    assert letters == [
        (1, 0, sink.name, "cannot be encoded: it has no words", b"\xff\0", 1001),
        (2, 5, sink.name, "the encoder failed: KeyError", made[2].raw, 1002),
    ]
    assert len(stubs.TAKEN[sink.name]) == 2


def test_what_the_system_refuses_is_dead_with_its_reason_and_the_rest_is_delivered(
    sink: StubSink, store: StateStore
) -> None:
    bad = alert(4).raw

    def refuse(payloads: Sequence[bytes]) -> Any:
        found = {at: "too\x1b[2Jodd" for at, payload in enumerate(payloads) if payload == bad}
        return RejectItems(found, taken=False) if found else Accepted()

    (found,) = write(sink, store, alerts(0, 9), answer=refuse)
    assert found.outcomes == Outcomes(delivered=9, dead=1)
    assert [(one.sequence, one.reason, one.body) for one in read_dead_letters(store)] == [
        (4, "too [2Jodd", bad)
    ]
    assert len(stubs.TAKEN[sink.name]) == 9


def test_dead_letters_are_on_disk_before_any_receipt_is_given(
    sink: StubSink, store: StateStore
) -> None:
    do_fn = _Write(sink, sink.name, store)
    do_fn.setup()
    do_fn.start_bundle()
    do_fn.process(alerts(0, 0, made=[alert(title="no")]))
    ended = do_fn.finish_bundle()
    assert next(ended).value.outcomes.dead == 1
    assert len(list(read_dead_letters(store))) == 1


def put_down(store: StateStore, sink: StubSink, count: int) -> list[Receipt]:
    """The journal, once it holds that many receipts."""
    until = time.monotonic() + 3
    while len(found := journaled(store, "journal").get(sink.name, [])) < count:
        assert time.monotonic() < until, found
        time.sleep(0.002)
    return found


def test_what_ended_is_put_down_at_once_although_its_bundle_goes_on(
    sink: StubSink, store: StateStore
) -> None:
    do_fn = _Write(sink, sink.name, store, journal="journal")
    do_fn.setup()
    do_fn.start_bundle()
    for first in (0, 10):
        do_fn.process(alerts(first, first + 9))
        found = put_down(store, sink, first // 10 + 1)
    said = [windowed.value for windowed in do_fn.finish_bundle()]
    assert found == said
    assert [each.outcomes for each in found] == [Outcomes(delivered=10)] * 2


def test_what_did_not_end_is_not_put_down(sink: StubSink, store: StateStore) -> None:
    gate = threading.Event()
    stubs.ANSWERS[sink.name] = lambda payloads: Accepted() if gate.wait(5) else Retry("busy")
    patient = StubSink(sink.name, stubs.StubSettings(patience=5))
    do_fn = _Write(patient, sink.name, store, journal="journal")
    do_fn.setup()
    do_fn.start_bundle()
    do_fn.process(alerts(0, 9))
    do_fn.process(alerts(10, 10, made=[]))  # nothing of it is to be sent, but it has its turn
    time.sleep(0.05)
    assert journaled(store, "journal") == {}
    gate.set()
    assert [each.first for each in put_down(store, sink, 2)] == [0, 10]


def test_a_receipt_is_put_down_once_its_dead_letters_are_on_disk(
    sink: StubSink, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_fn = _Write(sink, sink.name, store, journal="journal")
    do_fn.setup()
    do_fn.start_bundle()
    do_fn.process(alerts(0, 0, made=[alert(title="no")]))
    do_fn.process(alerts(1, 9))
    assert [each.first for each in put_down(store, sink, 1)] == [1]
    before: list[dict[str, list[Receipt]]] = []
    real = write_dead_letters

    def noting(*args: Any) -> None:
        before.append(journaled(store, "journal"))
        real(*args)

    monkeypatch.setattr("transforms.write.write_dead_letters", noting)
    list(do_fn.finish_bundle())
    assert [each.first for each in before[0][sink.name]] == [1]
    assert [each.first for each in journaled(store, "journal")[sink.name]] == [0, 1]


def test_what_is_owed_is_exactly_what_was_not_taken(sink: StubSink, store: StateStore) -> None:
    """Ten at a time: the sink takes the first request, then its key is refused."""

    def first_only(payloads: Sequence[bytes]) -> Any:
        return Stop("the key is refused") if stubs.TAKEN[sink.name] else Accepted()

    found = write(sink, store, alerts(0, 14), alerts(15, 19), answer=first_only)
    taken = set(stubs.TAKEN[sink.name])
    assert len(taken) == 10
    unpaid = [n for one in found for run in one.owed for n in range(run.first, run.last + 1)]
    assert unpaid == [n for n in range(20) if alert(n).raw not in taken]
    assert sum(one.outcomes.delivered for one in found) == 10
    assert sum(one.outcomes.owed for one in found) == 10
    assert list(read_dead_letters(store)) == [], "what is owed is not dead"


def test_a_sink_that_stays_away_longer_than_its_patience_owes_all_of_it(
    sink: StubSink, store: StateStore
) -> None:
    (found,) = write(sink, store, alerts(0, 9), answer=lambda _: Retry("busy"))
    assert found.outcomes == Outcomes(owed=10)
    assert found.owed == [Run(0, 9, 0)]


def test_after_a_restart_what_this_sink_had_settled_is_not_sent_again(
    sink: StubSink, store: StateStore
) -> None:
    """Another sink stood further back, and reading began there."""
    begin(store, [sink.name], ORIGIN, 6)
    dropped = [Dropped(5, 1, Outcome.REPEAT), Dropped(8, 1, Outcome.REPEAT)]
    made = [alert(n, title="no" if n == 3 else "") for n in range(10)]
    found = write(sink, store, alerts(0, 9, made=made, dropped=dropped), alerts(10, 11))
    assert [one.outcomes for one in found] == [
        Outcomes(delivered=3, repeat=1, earlier=8),
        Outcomes(delivered=2),
    ]
    assert sorted(stubs.TAKEN[sink.name]) == sorted(alert(n).raw for n in (7, 8, 9, 10, 11))
    assert list(read_dead_letters(store)) == []


def test_a_payment_is_sent_although_it_lies_before_the_position(
    sink: StubSink, store: StateStore
) -> None:
    begin(store, [sink.name], ORIGIN, 100)
    (found,) = write(sink, store, alerts(3, 5, only=sink.name))
    assert (found.only, found.delivered) == (sink.name, [Run(3, 5, 0)])
    assert len(stubs.TAKEN[sink.name]) == 3


def test_the_next_bundle_begins_with_nothing(sink: StubSink, store: StateStore) -> None:
    do_fn = _Write(sink, sink.name, store)
    do_fn.setup()
    for first in (0, 10):
        do_fn.start_bundle()
        do_fn.process(alerts(first, first + 9))
        assert [w.value.first for w in do_fn.finish_bundle()] == [first]


def test_a_sink_can_be_shipped_to_a_worker(sink: StubSink, store: StateStore) -> None:
    shipped = pickle.loads(pickle.dumps(_Write(sink, sink.name, store)))
    shipped.setup()
    shipped.start_bundle()
    shipped.process(alerts(0, 0))
    assert [w.value.outcomes.delivered for w in shipped.finish_bundle()] == [1]


# ------------------------------------------------------------------------------------ carrying


class Carrying:
    """A DoFn whose batches may end in later bundles, and a sink that answers when it is let."""

    def __init__(self, sink: StubSink, store: StateStore) -> None:
        self.sink = sink
        self.gate = threading.Event()
        self.do_fn = _Write(sink, sink.name, store, carry=True)
        self.do_fn.setup()
        stubs.ANSWERS[sink.name] = self.answer

    def answer(self, payloads: Sequence[bytes]) -> Any:
        self.gate.wait(5)
        return Accepted()

    def bundle(self, *batches: AlertBatch) -> list[Receipt]:
        self.do_fn.start_bundle()
        for batch in batches:
            self.do_fn.process(batch)
        return [windowed.value for windowed in self.do_fn.finish_bundle()]

    def settle(self) -> None:
        until = time.monotonic() + 3
        while self.do_fn._engine.status().in_flight:
            assert time.monotonic() < until
            time.sleep(0.002)


def fresh(first: int, last: int) -> AlertBatch:
    """Alerts that have just come."""
    now_ms = int(time.time() * 1000)
    made = [alert(n, enqueued_ms=now_ms) for n in range(first, last + 1)]
    return alerts(first, last, made=made)


@pytest.fixture
def carrying(sink: StubSink, store: StateStore) -> Iterator[Carrying]:
    patient = StubSink(sink.name, stubs.StubSettings(patience=5))
    made = Carrying(patient, store)
    yield made
    made.gate.set()
    close_session(sink.name)


def test_a_batch_that_has_not_ended_holds_up_no_bundle_and_is_told_of_in_a_later_one(
    carrying: Carrying,
) -> None:
    began = time.monotonic()
    assert carrying.bundle(fresh(0, 4)) == []
    assert time.monotonic() - began < 1
    began = time.monotonic()
    assert carrying.bundle(fresh(5, 9)) == []
    assert time.monotonic() - began < 0.2, "it was waited for already"
    carrying.gate.set()
    carrying.settle()
    found = carrying.bundle()
    assert [(one.first, one.outcomes) for one in found] == [
        (0, Outcomes(delivered=5)),
        (5, Outcomes(delivered=5)),
    ]


def test_one_that_ends_while_it_is_looked_for_is_told_of_once(
    carrying: Carrying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment a sender may set the last outcome of a batch."""
    ends, real = iter([False]), _Sent.ended.fget  # type: ignore[attr-defined]
    late = property(lambda sent: real(sent) and next(ends, True))
    monkeypatch.setattr("transforms.write._Sent.ended", late)
    carrying.gate.set()
    told = [each.first for _ in range(3) for each in carrying.bundle(fresh(0, 4))]
    assert told.count(0) == 3


def test_the_pipeline_is_told_that_a_batch_ended_although_nothing_else_comes(
    carrying: Carrying,
) -> None:
    carrying.bundle(fresh(0, 4))
    reading = session(carrying.sink.name)
    assert not reading.wait(0.01)
    carrying.gate.set()
    assert reading.wait(3)
    assert len(carrying.bundle()) == 1


def test_a_drain_waits_for_everything(carrying: Carrying) -> None:
    carrying.bundle(fresh(0, 4))
    session(carrying.sink.name).draining = True
    threading.Timer(0.1, carrying.gate.set).start()
    (found,) = carrying.bundle()
    assert found.outcomes == Outcomes(delivered=5)


def test_old_alerts_may_be_waited_for_longer(carrying: Carrying) -> None:
    """They are minutes late already, and reading on ahead of the sink would only make it owed."""
    threading.Timer(0.5, carrying.gate.set).start()
    made = [alert(0, enqueued_ms=int((time.time() - 60) * 1000))]
    assert len(carrying.bundle(alerts(0, 0, made=made))) == 1


def test_a_payment_is_waited_for_by_nobody_and_the_payer_told_how_it_ended(
    carrying: Carrying, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Payer:
        def done(self, *what: Any) -> None:
            told.append(what)

    monkeypatch.setattr("transforms.write.payer", lambda run: Payer())
    began = time.monotonic()
    made = [alert(3), alert(4, title="no")]
    batch = alerts(3, 4, made=made, only=carrying.sink.name)
    assert carrying.bundle(batch) == told == []
    assert time.monotonic() - began < 0.2
    carrying.gate.set()
    carrying.settle()
    (found,) = carrying.bundle()
    assert (found.delivered, found.dead) == ([Run(3, 3, 0)], [Run(4, 4, 0)])
    assert told == [(carrying.sink.name, ORIGIN, [Run(3, 3, 0), Run(4, 4, 0)], [])]
    assert [one.sequence for one in read_dead_letters(store)] == [4]


def test_a_receipt_says_since_when_what_is_owed_waits(sink: StubSink, store: StateStore) -> None:
    (found,) = write(sink, store, alerts(3, 9), answer=lambda _: Stop("the key is refused"))
    assert found.since_ms == alert(3).enqueued_ms


def test_what_could_not_be_read_again_ends_with_the_payment_too(
    sink: StubSink, store: StateStore
) -> None:
    batch = alerts(3, 4, dropped=[Dropped(4, 7, Outcome.DEAD)], only=sink.name)
    (found,) = write(sink, store, batch)
    assert found.dead == [Run(4, 4, 7)]


# ------------------------------------------------------------------------------------- digests


def digest(number: int) -> Alert:
    return to_alert(
        Digest(
            name="storms",
            key={"subscription": str(number)},
            start_ms=0,
            end_ms=300_000,
            pane=0,
            timing="on_time",
            total=3,
            severities={"high": 3},
            statuses={},
            kinds={},
            first_ms=1,
            last_ms=2,
            samples=[],
        )
    )


def aside(store: StateStore) -> list[bytes]:
    return [store.get(path) or b"" for path in store.list("aside")]


def write_digests(sink: StubSink, store: StateStore, *made: Alert) -> None:
    do_fn = _WriteDigests(sink, sink.name, store)
    do_fn.setup()
    do_fn.start_bundle()
    for one in made:
        do_fn.process(one)
    do_fn.finish_bundle()


def test_digests_that_are_taken_are_not_kept(sink: StubSink, store: StateStore) -> None:
    write_digests(sink, store, digest(1), digest(2))
    assert sorted(stubs.TAKEN[sink.name]) == sorted([digest(1).raw, digest(2).raw])
    assert aside(store) == []


def test_digests_that_are_refused_or_owed_are_set_aside_whole(
    sink: StubSink, store: StateStore
) -> None:
    bad = digest(1).raw

    def answer(payloads: Sequence[bytes]) -> Any:
        return RejectItems({0: "odd"}, taken=True) if payloads[0] == bad else Stop("the key")

    stubs.ANSWERS[sink.name] = answer
    write_digests(sink, store, digest(1))
    write_digests(sink, store, digest(2), digest(2))
    kept = aside(store)
    assert sorted(kept) == sorted([digest(1).raw, digest(2).raw]), "one object a digest"
    assert [to_json(from_json(one)) for one in kept] == kept
    assert list(read_dead_letters(store)) == []


# --------------------------------------------------------------------------- through the runner


def test_through_the_runner_receipts_come_out(sink: StubSink, tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    batches = [alerts(0, 9), alerts(10, 14, made=[alert(10, title="no")])]

    def check(found: list[Receipt]) -> None:
        found.sort(key=lambda one: one.first)
        assert [one.outcomes for one in found] == [Outcomes(delivered=10), Outcomes(dead=1)]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        out = (
            pipeline
            | beam.Create(batches, reshuffle=False).with_output_types(AlertBatch)
            | WriteTo(sink, sink.name, store)
        )
        assert registry.get_coder(out.element_type).to_type_hint() is Receipt
        assert_that(out, check)
    assert len(list(read_dead_letters(store))) == 1


def test_where_only_digests_are_wanted_every_alert_is_delivered_by_being_counted() -> None:
    batches = [
        alerts(0, 4, dropped=[Dropped(4, 1, Outcome.REPEAT)]),
        alerts(5, 5, only=NOBODY),  # read again: it was counted when it came first
    ]

    def check(found: list[Receipt]) -> None:
        assert [one.outcomes for one in found] == [Outcomes(delivered=5, repeat=1)]
        assert [(one.sink, one.only) for one in found] == [("digests", None)]

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(batches).with_output_types(AlertBatch)
        assert_that(made | DigestsOnly("digests"), check)


def test_through_the_runner_refused_digests_are_set_aside(sink: StubSink, tmp_path: Path) -> None:
    stubs.ANSWERS[sink.name] = lambda _: Stop("the key is refused")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        made = pipeline | beam.Create([digest(1), digest(2)])
        _ = made | WriteDigests(sink, sink.name, StateStore(str(tmp_path)))
    assert len(aside(StateStore(str(tmp_path)))) == 2
