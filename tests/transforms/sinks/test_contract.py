"""What every sink holds to, whatever it is: one suite, over every double in doubles/.

A test names the properties that it holds; it runs for each sink that is not exempt from them.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import inspect
import logging
import pickle
import random
import re
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.forward import forward
from pipelines.settings import Settings
from schemas.alert import Alert
from schemas.batch import AlertBatch, Origin
from schemas.receipt import Outcome
from tests import strategies
from tests.transforms.sinks.alerts import (
    HOSTILE,
    PARTITION,
    SOURCE,
    alert,
    identity,
    parcel,
    parcels,
)
from tests.transforms.sinks.conftest import chosen
from tests.transforms.sinks.doubles import (
    DOUBLES,
    HELPED,
    IMPATIENT,
    MARKER,
    PATIENT,
    PAUSE,
    PROPERTIES,
    SECRET,
    Double,
    Says,
    matrix,
    plays,
)
from transforms.dead_letters import read_dead_letters
from transforms.delivery.engine import Engine
from transforms.delivery.engines import close_all
from transforms.delivery.parcel import Parcel
from transforms.read.access import EventHubsAccess
from transforms.read.event_hubs import Partition, ReadEventHubs
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Connection, Pending, Retry, Sink, Verdict, sinks
from transforms.state_store import StateStore
from transforms.write import WriteTo

D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED
LATE = 5.0  # seconds: who waits for what never comes takes longer, and who does not, never does


def holds(*names: str) -> Callable[[Any], Any]:
    """Mark a test as one of these properties; where `name` is a parameter, it runs for each."""

    def mark(test: Any) -> Any:
        test.holds = names
        return test

    return mark


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = chosen(metafunc.config)
    wanted = getattr(metafunc.function, "holds", ())
    if "kind" in metafunc.fixturenames:
        kinds = {DOUBLES[name].kind for name in names}
        everything = len(names) == len(DOUBLES)
        metafunc.parametrize("kind", sorted({*kinds, *(sinks() if everything else ())}))
    elif "says" in metafunc.fixturenames:
        cases = [(name, says) for name in names for says in DOUBLES[name].table]
        labels = [f"{name}-{says.name}-{says.becomes}" for name, says in cases]
        metafunc.parametrize("double, says", cases, ids=labels, indirect=["double"])
    elif "double" in metafunc.fixturenames:
        held = [(n, w) for n in names for w in wanted if w not in DOUBLES[n].lacks]
        if "name" in metafunc.fixturenames:
            ids = [f"{name}-{want}" for name, want in held]
            metafunc.parametrize("double, name", held, ids=ids, indirect=["double"])
        else:
            metafunc.parametrize("double", dict.fromkeys(n for n, _ in held), indirect=True)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def double(request: pytest.FixtureRequest, tmp_path) -> Iterator[Double]:
    made = DOUBLES[request.param](tmp_path / "double")
    yield made
    made.stop()


class Sent:
    """What a sink's connections were asked to send, in order, and what became of each request."""

    def __init__(self, sink: Sink[Any]) -> None:
        self.requests: list[list[bytes]] = []
        self.verdicts: list[Verdict] = []
        connect = sink.connect
        sink.connect = lambda: _Watched(connect(), self)  # type: ignore[method-assign]


class _Watched(Connection):
    def __init__(self, inner: Connection, sent: Sent) -> None:
        self._inner, self._sent = inner, sent
        self.confirm, self.idle, self.close = inner.confirm, inner.idle, inner.close  # type: ignore[method-assign]
        self.hurry = inner.hurry  # type: ignore[method-assign]

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        self._sent.requests.append(list(payloads))
        verdict = self._inner.send(payloads, timeout)
        self._sent.verdicts.append(verdict)
        return verdict


@pytest.fixture
def engine_of() -> Iterator[Callable[[Sink[Any]], Engine]]:
    engines: list[Engine] = []

    def make(sink: Sink[Any]) -> Engine:
        engines.append(Engine(sink, cool_down=(0.03, 0.1)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def deliver(engine: Engine, sent: list[Parcel]) -> list[Outcome | None]:
    engine.submit(sent)
    engine.settle()
    return [p.outcome for p in sent]


def give(engine: Engine, patience: float, timeout: float = PATIENT) -> None:
    """From now on it has other patience: none while the system fails, for the sake of the suite;
    enough while it is up, for on a busy machine it would be given up, too."""
    engine._patience, engine._timeout = patience, timeout


def pay(engine: Engine, sent: Iterable[Parcel], within: float = 60.0) -> None:
    """Send what is owed of it again, as the pipeline does, until nothing is."""
    give(engine, PATIENT)
    until = time.monotonic() + within
    owed = [p for p in sent if p.outcome is OWED]
    while owed:
        assert time.monotonic() < until, "it never got everything"
        recovered(engine)
        again = [Parcel(p.sequence, p.index, p.payload, p.alert, origin=p.origin) for p in owed]
        deliver(engine, again)
        owed = [p for p in again if p.outcome is OWED]


def recovered(engine: Engine) -> None:
    eventually(lambda: engine.status().circuit != "open")


def eventually(check: Callable[[], bool], within: float = 20.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


def arrived(double: Double, numbers: Iterable[int], course: str = "") -> None:
    """It holds exactly these alerts; repeats of them where its contract allows some."""
    wanted = {identity(n) for n in numbers}
    eventually(lambda: wanted <= {*double.ids()})
    found = Counter(double.ids())
    assert found.keys() == wanted
    if course not in double.may_repeat:
        assert found.total() == len(wanted), "something came twice"


def in_order(double: Double, count: int) -> None:
    """It holds the first `count` alerts, once each, in order where it keeps one."""
    wanted = [identity(n) for n in range(count)]
    eventually(lambda: len(double.ids()) >= count)
    assert (double.ids() if double.ordered else sorted(double.ids())) == (
        wanted if double.ordered else sorted(wanted)
    )


# ------------------------------------------------------------------------- the suite itself


def test_every_sink_has_a_double(kind):
    assert kind in {double.kind for double in DOUBLES.values()}


@pytest.mark.parametrize("held", PROPERTIES)
def test_every_property_has_a_test(held):
    tests = inspect.getmembers(sys.modules[__name__], inspect.isfunction)
    assert any(held in getattr(test, "holds", ()) for _, test in tests)


def test_every_double_plays_what_it_can_and_says_why_it_cannot(request):
    for name in chosen(request.config):
        double = DOUBLES[name]
        assert double.system, name
        for held in PROPERTIES:
            assert plays(double, held) or double.lacks.get(held), f"{name} does not play: {held}"
        for lacked, why in double.lacks.items():
            assert lacked in HELPED, f"{name}: no system is exempt from: {lacked}"
            assert len(why) > 10, f"{name}: why not: {lacked}?"
            assert not plays(double, lacked), f"{name} plays what it says it lacks: {lacked}"
        assert double.may_repeat | double.faults.keys() <= PROPERTIES.keys(), name


def test_the_matrix_tells_of_each_sink_and_property_once():
    found = [(held.sink, held.property) for held in matrix()]
    assert sorted(found) == sorted((name, held) for name in DOUBLES for held in PROPERTIES)


# --------------------------------------------------------------------- what a sink is made of


def test_its_example_is_all_that_it_needs(kind):
    """`alertbeam sinks show KIND --example` prints it."""
    sink = sinks()[kind]
    assert sink.example
    sink("example", sink.Settings(**sink.example)).encode(alert(1), SOURCE, PARTITION)


def test_the_kind_is_the_name_of_its_module(kind):
    sink = sinks()[kind]
    if sink.__module__.startswith("transforms.sinks."):
        assert sink.__module__ == f"transforms.sinks.{kind}"
    assert sink.__doc__ and sink.Settings.__doc__


def test_settings_explain_themselves_and_refuse_what_they_do_not_know(kind):
    settings = sinks()[kind].Settings
    assert all(field.description for field in settings.model_fields.values())
    assert settings.model_json_schema()["additionalProperties"] is False
    with pytest.raises(ValidationError) as caught:
        settings(nonsense="hunter2")  # type: ignore[call-arg]
    assert "hunter2" not in str(caught.value)


@holds("any")
def test_encoding_is_pure_and_needs_neither_secret_nor_system(double, monkeypatch):
    monkeypatch.delenv("SECRET")
    double.down()
    for made in (alert(1), alert(1, text=HOSTILE), alert(1, text="x" * 1_000_000)):
        sink = double.sink()
        assert sink.encode(made, SOURCE, PARTITION) == sink.encode(made, SOURCE, PARTITION)


@holds("largest")
def test_what_is_said_shorter_fits_and_is_still_a_record(double):
    sink = double.sink()
    large = alert(1, text="ünïcödé " * 20_000)
    whole = sink.encode(large, SOURCE, PARTITION)
    for most in (100_000, 20_000, 3_000):
        said = sink.shrink(large, SOURCE, PARTITION, most) if most < len(whole) else None
        if said is None:
            continue
        assert len(said) <= most
        assert said == sink.shrink(large, SOURCE, PARTITION, most)
        sink.connect().send([said], 5.0)
        eventually(lambda: identity(1) in double.ids())


@holds("restart")
def test_it_pickles_as_it_is(double):
    sink = double.sink("name")
    copy = pickle.loads(pickle.dumps(sink))
    assert (copy.name, copy.settings) == ("name", sink.settings)
    assert copy.encode(alert(1), SOURCE, PARTITION) == sink.encode(alert(1), SOURCE, PARTITION)


# --------------------------------------------------------------------------- what it delivers


@holds("one")
def test_one(double, engine_of):
    engine = engine_of(double.sink(patience=PATIENT))
    assert deliver(engine, parcels(engine.sink, range(1))) == [D]
    in_order(double, 1)


@holds("many")
def test_many(double, engine_of):
    engine = engine_of(double.sink(patience=PATIENT))
    count = 2000 if engine.sink.limits.max_records > 1 else 400
    assert deliver(engine, parcels(engine.sink, range(count))) == [D] * count
    in_order(double, count)


@holds("many")
def test_several_senders_lose_and_double_nothing(double, engine_of):
    engine = engine_of(double.sink(concurrency=3, patience=PATIENT))
    for start in range(0, 1000, 100):
        sent = parcels(engine.sink, range(start, start + 100), text="x" * 1500)
        assert deliver(engine, sent) == [D] * 100
    arrived(double, range(1000))


@holds("largest")
def test_an_alert_of_a_megabyte_among_others(double, engine_of):
    engine = engine_of(double.sink(patience=PATIENT))
    sent = [
        *parcels(engine.sink, range(3)),
        *parcels(engine.sink, range(3, 4), text="x" * 500_000),  # twice in the record
        *parcels(engine.sink, range(4, 7)),
    ]
    assert deliver(engine, sent) == [D] * 7
    in_order(double, 7)


@holds("status update")
def test_what_became_of_an_alert_is_told(double, engine_of):
    """A later version of what the system has already, and then the first one once more, late: it
    was owed, say."""
    engine = engine_of(double.sink(patience=PATIENT))
    first = alert(1, status="new", version="1", event_ms=1_790_000_000_000)
    then = alert(
        2, entity=first.entity, status="resolved", version="2", event_ms=first.event_ms + 60_000
    )
    for each in (first, then):
        assert deliver(engine, [parcel(engine.sink, each)]) == [D]
    told = [identity(2)] if double.updates else [identity(1), identity(2)]
    eventually(lambda: sorted(double.ids()) == sorted(told))
    if double.updates:
        assert deliver(engine, [parcel(engine.sink, first)]) == [D]
        time.sleep(0.1)
        assert double.ids() == told, "what it shows is older than what it was told"


@holds("hostile text")
def test_nothing_an_alert_says_forges_another(double, engine_of):
    engine = engine_of(double.sink(patience=PATIENT))
    made = [
        alert(n, text=HOSTILE, alert_type=HOSTILE, resource=HOSTILE, entity=f"{HOSTILE}{n}")
        if n % 2
        else alert(n)
        for n in range(50)
    ]
    sent = [parcel(engine.sink, one, n) for n, one in enumerate(made)]
    assert deliver(engine, sent) == [D] * 50
    in_order(double, 50)


@holds("any")
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_alert_arrives_once_with_its_id(double, data):
    drawn: list[Alert] = data.draw(st.lists(strategies.alerts(), min_size=1, max_size=10))
    held = Counter(double.ids())
    keys = [uuid.uuid4() for _ in drawn]  # each its own: of one entity only the last would show
    made = [
        msgspec.structs.replace(one, key=key.bytes, entity=f"{one.entity}{key}")
        for one, key in zip(drawn, keys, strict=True)
    ]
    engine = Engine(double.sink(patience=PATIENT), linger=0.0)
    sent = [parcel(engine.sink, one, n) for n, one in enumerate(made)]
    outcomes = deliver(engine, sent)
    engine.close()
    assert outcomes == [D] * len(made), [p.reason for p in sent]
    wanted = Counter(one.event_id for one in made)
    eventually(lambda: Counter(double.ids()) - held >= wanted)
    assert Counter(double.ids()) - held == wanted


@holds("split by size")
def test_no_request_holds_more_than_the_limits_say(double, engine_of):
    sink = double.sink(patience=PATIENT)
    limits, more = sink.limits, sink.separator_bytes
    text = "x" * max(500, limits.max_bytes // 150)
    (one,) = parcels(sink, range(1), text=text)
    enough = min(5 * limits.max_bytes // (2 * len(one.payload)), 5 * limits.max_records // 2)
    sent, watched = parcels(sink, range(max(3, enough)), text=text), Sent(sink)
    assert set(deliver(engine_of(sink), sent)) == {D}
    assert len(watched.requests) > 1
    assert {type(verdict) for verdict in watched.verdicts} <= {Accepted, Pending}, "none refused"
    for request in watched.requests:
        assert len(request) <= limits.max_records
        assert len(request) == 1 or sum(len(p) + more for p in request) <= limits.max_bytes
    arrived(double, range(len(sent)))


# ------------------------------------------------------------------- what the system may say


@holds("status codes")
def test_every_answer_has_its_outcome(double, says: Says, engine_of):
    times = {"owed": {"patience": 1.0, "timeout": 0.9}}
    sink = double.sink(**times.get(says.becomes, {"patience": PATIENT}))
    watched, engine = Sent(sink), engine_of(sink)
    sent = parcels(sink, range(8), text="x" * 600 if says.becomes == "split" else "")
    if says.becomes == "dead":
        sent[3] = parcels(sink, range(3, 4), text=MARKER)[0]
    double.play(says.fault, 1 if says.becomes in ("delivered", "retried") else None)
    started = time.monotonic()
    outcomes, took = deliver(engine, sent), time.monotonic() - started
    requests = len(watched.requests)
    reasons = {p.reason for p in sent if p.outcome is not D}
    if says.becomes == "dead":
        assert outcomes == [D, D, D, DEAD, D, D, D, D], reasons
    else:
        assert set(outcomes) == {OWED if says.becomes in ("stopped", "owed") else D}, reasons
    assert all(reasons)
    if says.becomes == "delivered":
        assert requests == 1
        return
    assert {
        "retried": requests == 2,
        "split": requests > 2,
        "dead": True,  # in one request, or in more
        "stopped": requests <= 2 and took < PATIENT / 2,
        "owed": requests >= 2 or took > 0.25,  # a client that repeats by itself
    }[says.becomes], f"{requests} requests in {took:.2f} s"
    double.up()
    pay(engine, sent)
    engine.close()
    if says.becomes == "dead":
        arrived(double, (n for n in range(8) if n != 3), "partial rejection")
    else:
        arrived(double, range(8), "status codes")


@holds("partial rejection", "unnamed rejection")
def test_only_the_refused_record_is_dead(double, name, engine_of):
    engine = engine_of(double.sink(patience=PATIENT))
    double.play(double.faults[name])
    sent = parcels(engine.sink, range(20))
    for n in (7, 13):
        sent[n] = parcels(engine.sink, range(n, n + 1), text=MARKER)[0]
    outcomes = deliver(engine, sent)
    assert [n for n, outcome in enumerate(outcomes) if outcome is DEAD] == [7, 13]
    assert outcomes.count(D) == 18
    assert sent[7].reason and MARKER not in sent[7].reason
    assert engine.status().circuit == "closed"
    arrived(double, {*range(20)} - {7, 13}, name)


@holds("too large")
def test_a_request_that_is_too_large_is_halved(double, engine_of):
    sink = double.sink(patience=PATIENT)
    sent, watched = parcels(sink, range(16), text="x" * 500), Sent(sink)
    double.limit(4 * len(sent[0].payload) + 300)
    engine = engine_of(sink)
    assert deliver(engine, sent) == [D] * 16
    assert len(watched.requests) > 16 / 4
    arrived(double, range(16), "too large")


@holds("too large")
def test_a_record_that_is_too_large_by_itself_is_said_shorter_or_is_dead(double, engine_of):
    engine = engine_of(double.sink(patience=PATIENT))
    double.limit(50_000)
    sent = parcels(engine.sink, range(9))
    sent[4] = parcels(engine.sink, range(4, 5), text="x" * 100_000)[0]
    fits = len(sent[4].payload) < 40_000  # a format that cuts every field needs no more than that
    outcomes = deliver(engine, sent)
    shorter = engine.sink.shrink(alert(4, text="x" * 100_000), SOURCE, PARTITION, 16_000)
    assert outcomes[:4] + outcomes[5:] == [D] * 8
    assert outcomes[4] is (DEAD if shorter is None and not fits else D), sent[4].reason
    assert sent[4].reason or outcomes[4] is D
    arrived(double, (n for n in range(9) if outcomes[n] is D), "too large")


@holds("Retry-After in seconds", "Retry-After as a date")
def test_the_pause_that_the_system_asks_for_is_understood(double, name):
    sink = double.sink()
    connection = sink.connect()
    double.play(double.faults[name], 1)
    verdict = connection.send([sink.encode(alert(1), SOURCE, PARTITION)], 5.0)
    connection.close()
    assert isinstance(verdict, Retry)
    assert verdict.after is not None and PAUSE - 300 < verdict.after <= PAUSE
    assert double.ids() == []


@holds("credentials renewed")
def test_refused_credentials_are_read_anew_at_once(double, engine_of, monkeypatch):
    engine = engine_of(double.sink(patience=PATIENT))
    assert deliver(engine, parcels(engine.sink, range(5))) == [D] * 5
    double.renew("another-secret-of-the-same-kind")
    monkeypatch.setenv("SECRET", "another-secret-of-the-same-kind")
    assert deliver(engine, parcels(engine.sink, range(5, 10))) == [D] * 5
    assert engine.status().openings == 0
    arrived(double, range(10), "credentials renewed")


@holds("credentials renewed")
def test_credentials_that_stay_refused_owe_everything_and_drop_nothing(
    double, engine_of, monkeypatch
):
    sink = double.sink(patience=PATIENT)
    watched, engine = Sent(sink), engine_of(sink)
    double.renew("another-secret-of-the-same-kind")
    sent = parcels(sink, range(5))
    assert deliver(engine, sent) == [OWED] * 5
    assert len(watched.requests) == 2, "once, and once more with what was read anew"
    monkeypatch.setenv("SECRET", "another-secret-of-the-same-kind")
    pay(engine, sent)
    arrived(double, range(5), "credentials renewed")


# ----------------------------------------------------------------------- how it may fail


@holds("timeout")
def test_a_system_that_never_answers_is_given_up_in_time(double, engine_of):
    engine = engine_of(double.sink())
    double.play(double.faults["timeout"])
    sent = parcels(engine.sink, range(50))
    started = time.monotonic()
    outcomes = deliver(engine, sent)
    assert time.monotonic() - started < LATE
    assert set(outcomes) <= ({OWED} if double.answers else {D, OWED})
    double.up()
    pay(engine, sent)
    engine.close()
    arrived(double, range(50), "timeout")


@holds("slow drip", "reset mid-body", "reset after taking", "half-closed")
def test_a_request_that_breaks_costs_nothing(double, name, engine_of):
    drips = {"timeout": 0.3} if name == "slow drip" else {}
    engine = engine_of(double.sink(patience=PATIENT, **drips))
    assert deliver(engine, parcels(engine.sink, range(20))) == [D] * 20
    double.play(double.faults[name], 1)
    started = time.monotonic()
    assert deliver(engine, parcels(engine.sink, range(20, 40))) == [D] * 20
    assert time.monotonic() - started < LATE
    assert deliver(engine, parcels(engine.sink, range(40, 60))) == [D] * 20
    assert engine.status().openings == 0
    eventually(lambda: {*double.ids()} >= {identity(n) for n in range(60)})
    engine.close()
    arrived(double, range(60), name)


@holds("outage")
def test_an_outage_is_owed_to_the_record_and_paid_when_the_probe_finds_the_system_back(
    double, engine_of
):
    engine = engine_of(double.sink())
    give(engine, PATIENT)
    assert deliver(engine, parcels(engine.sink, range(50))) == [D] * 50
    eventually(lambda: len(double.ids()) == 50)
    double.down()
    give(engine, **IMPATIENT)
    started = time.monotonic()
    owed = parcels(engine.sink, range(50, 80))
    assert deliver(engine, owed) == [OWED] * 30
    assert time.monotonic() - started < LATE
    assert all(p.reason for p in owed)
    give(engine, PATIENT, IMPATIENT["timeout"])
    more = parcels(engine.sink, range(80, 1080))
    requests, started = engine.status().requests, time.monotonic()
    assert deliver(engine, more) == [OWED] * 1000
    assert time.monotonic() - started < LATE, "an open circuit costs nothing"
    assert engine.status().requests == requests
    assert (engine.status().delivered, engine.status().owed) == (50, 1030)
    double.up()
    pay(engine, [*owed, *more])
    assert engine.status().circuit == "closed"
    engine.close()
    arrived(double, range(1080), "outage")


@holds("nothing lost")
def test_a_system_that_comes_and_goes_gets_everything_in_the_end(double, engine_of):
    chance = random.Random(1)
    engine = engine_of(double.sink(patience=0.1))
    over = threading.Event()

    def flap() -> None:
        while not over.wait(chance.uniform(0.02, 0.1)):
            double.down()
            over.wait(chance.uniform(0.02, 0.1))
            double.up()

    thread = threading.Thread(target=flap)
    thread.start()
    every: list[Parcel] = []
    try:
        for start in range(0, 1000, 50):
            sent = parcels(engine.sink, range(start, start + 50))
            assert set(deliver(engine, sent)) <= {D, OWED}
            every += sent
            time.sleep(0.01)
    finally:
        over.set()
        thread.join()
        double.up()
    pay(engine, every)
    engine.close()
    arrived(double, range(1000), "nothing lost")


@holds("restart")
def test_a_restart_goes_on_where_it_ended(double):
    for start in (0, 20, 40):
        engine = Engine(double.sink(patience=PATIENT))
        assert deliver(engine, parcels(engine.sink, range(start, start + 20))) == [D] * 20
        engine.close()
    arrived(double, range(60))


@holds("restart")
def test_what_was_on_its_way_at_a_crash_is_sent_again_and_nothing_is_missing(double, engine_of):
    """Nothing is known of what had no outcome yet: all of it comes again."""
    sink = double.sink(patience=PATIENT)
    before, after = engine_of(sink), engine_of(pickle.loads(pickle.dumps(sink)))
    assert deliver(before, parcels(sink, range(20))) == [D] * 20
    before.submit(parcels(sink, range(20, 40)))
    assert deliver(after, parcels(sink, range(20, 60))) == [D] * 40
    before.close()
    after.close()
    wanted = {identity(n) for n in range(60)}
    eventually(lambda: {*double.ids()} >= wanted)
    found = Counter(double.ids())
    assert found.keys() == wanted
    assert max(found.values()) <= 2
    assert all(found[identity(n)] == 1 for n in [*range(20), *range(40, 60)])


@holds("two of a kind")
def test_two_of_one_kind_do_not_touch_each_other(double, engine_of, tmp_path):
    other = type(double)(tmp_path / "other")
    one = engine_of(double.sink("one", patience=1.5))
    two = engine_of(other.sink("two", patience=PATIENT))
    try:
        double.down()
        for engine, start in ((one, 0), (two, 100)):
            engine.submit(parcels(engine.sink, range(start, start + 20)))
        two.settle()
        assert one.status().in_flight == 20, "it waited for the other"
        one.settle()
        assert (one.status().owed, two.status().delivered) == (20, 20)
        arrived(other, range(100, 120))
    finally:
        two.close()
        other.stop()


@holds("two of a kind")
def test_two_of_one_kind_may_share_a_system(double, engine_of):
    one, two = (engine_of(double.sink(name, patience=PATIENT)) for name in ("one", "two"))
    for engine, start in ((one, 0), (two, 20), (one, 40)):
        assert deliver(engine, parcels(engine.sink, range(start, start + 20))) == [D] * 20
    arrived(double, range(60))


# ------------------------------------------------------------------------- what a user sees


@holds("check")
def test_the_probe_and_the_check_tell_up_from_down_and_send_nothing(double):
    sink = double.sink()
    sink.probe(1.0)
    found = sink.check(1.0)
    assert found and found.isprintable() and SECRET not in found
    double.down()
    for ask in (sink.probe, sink.check):
        with pytest.raises(OSError) as caught:
            ask(1.0)
        assert str(caught.value) and SECRET not in str(caught.value)
    double.up()
    sink.probe(1.0)
    assert double.ids() == []
    assert "the-event-id" in sink.find("the-event-id")


@holds("check")
def test_the_check_tells_bad_credentials_or_says_that_it_cannot(double, monkeypatch):
    if not double.secret:
        return
    monkeypatch.setenv("SECRET", "a-secret-that-is-not-the-right-one")
    try:
        found = double.sink().check(1.0)
        assert "credentials" in found, "it must say that they are not known to be good"
    except (OSError, SecretError) as error:
        found = str(error)
    assert found and "not-the-right-one" not in found
    monkeypatch.delenv("SECRET")
    with pytest.raises(SecretError, match="SECRET"):
        double.sink().check(1.0)


@holds("secrets")
def test_the_secret_shows_nowhere(double, engine_of, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    sink = double.sink()
    engine = engine_of(sink)
    sent = parcels(sink, range(5))
    deliver(engine, sent)
    double.down()
    failed = parcels(sink, range(5, 10))
    deliver(engine, failed)
    monkeypatch.setenv("SECRET", SECRET + "\r\nX-Injected: yes")
    with contextlib.suppress(OSError, SecretError) as raised:
        sink.check(0.3)
    assert sink.target
    shown = f"{sink!r} {sink} {sink.target} {sink.settings!r} {engine.status()!r}"
    shown += f"{sent!r} {failed!r} {raised!r}"
    assert SECRET not in shown + caplog.text
    assert SECRET.encode() not in pickle.dumps(sink)
    assert not double.secret or "env:SECRET" in repr(sink.settings), "its reference may"


@holds("quoted secret")
def test_a_secret_that_the_system_quotes_is_not_repeated(double, engine_of, caplog):
    caplog.set_level(logging.DEBUG)
    engine = engine_of(double.sink())
    double.play(double.faults["quoted secret"])
    sent = parcels(engine.sink, range(5))
    deliver(engine, sent)
    assert all(p.reason for p in sent)
    shown = f"{sent!r} {engine.status()!r} {caplog.text}"
    assert SECRET not in shown


@holds("secrets")
def test_the_secret_is_in_no_dead_letter_and_nowhere_in_the_state(double, tmp_path):
    """What a graph leaves behind, when a record is refused, or owed where none can be."""
    store = StateStore(str(tmp_path / "state"))
    fault = next((double.faults[f] for f in REFUSING if f in double.faults), None)
    sink = double.sink("siem", **({"patience": PATIENT} if fault else {}))
    run = f"run of {tmp_path}"
    if fault is None:
        double.down()
    else:
        double.play(fault)
    made = [alert(n, text=MARKER if n == 3 else "") for n in range(6)]
    origin = Origin(SOURCE, PARTITION)
    try:
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            _ = (
                pipeline
                | beam.Create([AlertBatch(origin, 0, 5, None, 6, made, [])], reshuffle=False)
                | WriteTo(sink, run, store)
            )
    finally:
        close_all(run)
    letters = list(read_dead_letters(store))
    assert [letter.sequence for letter in letters] == ([] if fault is None else [3])
    assert not any(SECRET in repr(letter) for letter in letters)
    kept = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in data for data in kept)


REFUSING = ("partial rejection", "unnamed rejection")


@holds("secrets")
def test_the_secret_is_not_in_the_pickled_graph(double, tmp_path):
    given: Mapping[str, Any] = {
        "sources": [{"event_hubs": {"namespace": "a.b", "hub": "h"}}],
        "sinks": [{double.kind: double.settings(), "name": "siem"}],
        "state": str(tmp_path / "state"),
    }
    partition = Partition("a.b/h", "0", EventHubsAccess(hub="h", namespace="a.b"), 0)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    forward(pipeline, ReadEventHubs("run", [partition]), Settings.model_validate(given), {}, "run")
    proto = pipeline.to_runner_api().SerializeToString()
    packed = [base64.b64decode(found) for found in re.findall(rb"QlpoO[A-Za-z0-9+/=]+", proto)]
    graph = proto + b"".join(map(bz2.decompress, packed))
    assert b"siem" in graph and b"transforms.sinks" in graph, "the sink is in it"
    assert not double.secret or b"env:SECRET" in graph, "and so is the reference to its secret"
    assert SECRET.encode() not in graph
