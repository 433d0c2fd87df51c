"""What every sink holds to, whatever it is: run over each that is found in transforms/sinks."""

from __future__ import annotations

import logging
import pickle
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles import DOUBLES, SECRET, Double
from transforms.delivery.engine import Engine, Parcel
from transforms.sinks.base import Sink, sinks

KINDS = sorted(sinks())
D, OWED = Outcome.DELIVERED, Outcome.OWED


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture(params=KINDS)
def double(request: pytest.FixtureRequest, tmp_path) -> Iterator[Double]:
    assert request.param in DOUBLES, f"{request.param} has no double in doubles.py"
    made = DOUBLES[request.param](tmp_path / "double")
    yield made
    made.stop()


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
    return [parcel.outcome for parcel in sent]


def recovered(engine: Engine) -> None:
    eventually(lambda: engine.status().circuit != "open")


def eventually(check: Callable[[], bool], within: float = 5.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


def ids(double: Double, count: int) -> list[str]:
    """What it holds, once that is `count` alerts or more."""
    eventually(lambda: len(double.ids()) >= count)
    return double.ids()


def test_the_kind_is_the_name_of_its_module():
    for kind, sink in sinks().items():
        assert sink.__module__ == f"transforms.sinks.{kind}"
        assert sink.__doc__ and sink.Settings.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_settings_explain_themselves_and_refuse_what_they_do_not_know(kind):
    settings = sinks()[kind].Settings
    assert all(field.description for field in settings.model_fields.values())
    assert settings.model_json_schema()["additionalProperties"] is False
    with pytest.raises(ValidationError) as caught:
        settings(nonsense="hunter2")  # type: ignore[call-arg]
    assert "hunter2" not in str(caught.value)


def test_encoding_is_pure_and_needs_no_secret(double, monkeypatch):
    monkeypatch.delenv("SECRET")
    double.down()
    for made in (alert(1), alert(1, text=HOSTILE), alert(1, text="x" * 1_000_000)):
        sink = double.sink()
        assert sink.encode(made, SOURCE, PARTITION) == sink.encode(made, SOURCE, PARTITION)


@pytest.mark.parametrize("count", [1, 2000])
def test_one_and_many(double, engine_of, count):
    engine = engine_of(double.sink(patience=5))
    assert deliver(engine, parcels(engine.sink, range(count))) == [D] * count
    assert ids(double, count) == [identity(n) for n in range(count)]


def test_an_alert_of_a_megabyte_among_others(double, engine_of):
    engine = engine_of(double.sink(patience=5, timeout=5))
    sent = [
        *parcels(engine.sink, range(3)),
        *parcels(engine.sink, range(3, 4), text="x" * 500_000),  # twice in the record
        *parcels(engine.sink, range(4, 7)),
    ]
    assert deliver(engine, sent) == [D] * 7
    assert ids(double, 7) == [identity(n) for n in range(7)]


def test_nothing_an_alert_says_forges_another(double, engine_of):
    engine = engine_of(double.sink())
    sent = [
        Parcel(n, 0, engine.sink.encode(made, SOURCE, PARTITION))
        for n in range(50)
        for made in [
            alert(n, text=HOSTILE, alert_type=HOSTILE, resource=HOSTILE, entity=HOSTILE)
            if n % 2
            else alert(n)
        ]
    ]
    assert deliver(engine, sent) == [D] * 50
    assert ids(double, 50) == [identity(n) for n in range(50)]


def test_several_senders_lose_and_double_nothing(double, engine_of):
    engine = engine_of(double.sink(concurrency=3, patience=5))
    for start in range(0, 1000, 100):
        sent = parcels(engine.sink, range(start, start + 100), text="x" * 1500)
        assert deliver(engine, sent) == [D] * 100
    assert sorted(ids(double, 1000)) == sorted(identity(n) for n in range(1000))


def test_an_outage_is_owed_to_the_record_and_paid_when_the_probe_finds_the_system_back(
    double, engine_of
):
    engine = engine_of(double.sink())
    assert deliver(engine, parcels(engine.sink, range(50))) == [D] * 50
    ids(double, 50)
    double.down()
    started = time.monotonic()
    owed = parcels(engine.sink, range(50, 80))
    assert deliver(engine, owed) == [OWED] * 30
    assert time.monotonic() - started < 0.8
    assert all(parcel.reason for parcel in owed)
    more = parcels(engine.sink, range(80, 1080))
    started = time.monotonic()
    assert deliver(engine, more) == [OWED] * 1000
    assert time.monotonic() - started < 0.1, "an open circuit costs nothing"
    double.up()
    recovered(engine)
    assert deliver(engine, parcels(engine.sink, range(50, 1080))) == [D] * 1030
    assert engine.status().circuit == "closed"
    assert set(ids(double, 1080)) == {identity(n) for n in range(1080)}


def test_a_system_that_comes_and_goes_gets_everything_in_the_end(double, engine_of):
    """What is owed is sent again, as the pipeline does it, until nothing is."""
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
    try:
        owed = []
        for start in range(0, 1000, 50):
            sent = parcels(engine.sink, range(start, start + 50))
            outcomes = deliver(engine, sent)
            assert set(outcomes) <= {D, OWED}
            owed += [parcel.sequence for parcel in sent if parcel.outcome is OWED]
            time.sleep(0.01)
    finally:
        over.set()
        thread.join()
        double.up()
    until = time.monotonic() + 5
    while owed:
        assert time.monotonic() < until, "it never got everything"
        recovered(engine)
        again = [parcels(engine.sink, range(n, n + 1))[0] for n in owed]
        deliver(engine, again)
        owed = [parcel.sequence for parcel in again if parcel.outcome is OWED]
    engine.close()
    eventually(lambda: set(double.ids()) == {identity(n) for n in range(1000)})


def test_a_restart_goes_on_where_it_ended(double):
    for start in (0, 20, 40):
        engine = Engine(double.sink())
        assert deliver(engine, parcels(engine.sink, range(start, start + 20))) == [D] * 20
        engine.close()
    assert sorted(ids(double, 60)) == sorted(identity(n) for n in range(60))


def test_two_of_one_kind_do_not_touch_each_other(double, engine_of, tmp_path):
    other = type(double)(tmp_path / "other")
    one, two = engine_of(double.sink("one")), engine_of(other.sink("two"))
    try:
        double.down()
        for engine, start in ((one, 0), (two, 100)):
            engine.submit(parcels(engine.sink, range(start, start + 20)))
        started = time.monotonic()
        two.settle()
        assert time.monotonic() - started < 0.3, "it waited for the other"
        one.settle()
        assert (one.status().owed, two.status().delivered) == (20, 20)
        assert Counter(ids(other, 20)) == Counter(identity(n) for n in range(100, 120))
    finally:
        two.close()
        other.stop()


def test_two_of_one_kind_may_share_a_system(double, engine_of):
    one, two = engine_of(double.sink("one")), engine_of(double.sink("two"))
    for engine, start in ((one, 0), (two, 20), (one, 40)):
        assert deliver(engine, parcels(engine.sink, range(start, start + 20))) == [D] * 20
    assert sorted(ids(double, 60)) == sorted(identity(n) for n in range(60))


def test_the_probe_tells_up_from_down_and_sends_nothing(double):
    sink = double.sink()
    sink.probe(1.0)
    double.down()
    with pytest.raises(OSError):
        sink.probe(1.0)
    double.up()
    sink.probe(1.0)
    assert double.ids() == []


def test_it_pickles_as_it_is(double):
    sink = double.sink("name")
    copy = pickle.loads(pickle.dumps(sink))
    assert (copy.name, copy.settings) == ("name", sink.settings)
    assert copy.encode(alert(1), SOURCE, PARTITION) == sink.encode(alert(1), SOURCE, PARTITION)


def test_the_secret_shows_nowhere(double, engine_of, caplog):
    caplog.set_level(logging.DEBUG)
    sink = double.sink()
    engine = engine_of(sink)
    sent = parcels(sink, range(5))
    deliver(engine, sent)
    double.down()
    failed = parcels(sink, range(5, 10))
    deliver(engine, failed)
    shown = f"{sink!r} {sink} {sink.settings!r} {engine.status()!r} {sent!r} {failed!r}"
    assert SECRET not in shown + caplog.text
    assert SECRET.encode() not in pickle.dumps(sink)
    assert not double.secret or "env:SECRET" in repr(sink.settings), "its reference may"
