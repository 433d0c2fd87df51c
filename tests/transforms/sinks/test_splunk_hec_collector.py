"""What the OpenTelemetry Collector's receiver of Splunk's HEC makes of what the sink sends.

It is what may stand before Splunk, or in its place, and the one collector that can be had without
Splunk. Unlike Splunk it has no token of its own (an extension asks for one, and answers a bare
401), takes all of a request or nothing, never says 413, and acknowledges at once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.receivers import certificate
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, alert, identity, parcels
from tests.transforms.sinks.daemons import COLLECTOR, Collector, missing
from transforms.delivery.engine import Engine
from transforms.delivery.parcel import Parcel
from transforms.sinks.splunk_hec import SplunkHec, SplunkHecSettings

TOKEN = "5a3c0ffe-0000-4000-8000-00000000beef"
D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED

Start = Callable[..., Collector]
Deliver = Callable[[SplunkHec, list[Parcel]], list[Outcome | None]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    missing(COLLECTOR)
    monkeypatch.setenv("TOKEN", TOKEN)
    running: list[Collector] = []

    def run(**options: Any) -> Collector:
        running.append(Collector(tmp_path, TOKEN, **options))
        running[-1].start()
        return running[-1]

    yield run
    for collector in running:
        collector.kill()


@pytest.fixture
def deliver() -> Iterator[Deliver]:
    engines: dict[str, Engine] = {}

    def run(to: SplunkHec, sent: list[Parcel]) -> list[Outcome | None]:
        engine = engines.setdefault(to.settings.url, Engine(to, cool_down=(0.05, 0.2)))
        run.engine = engine  # type: ignore[attr-defined]
        engine.submit(sent)
        engine.settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines.values():
        engine.close()


def sink(collector: Collector, **options: Any) -> SplunkHec:
    given = {"url": collector.url, "token": "env:TOKEN", "patience": 3.0, "timeout": 3.0}
    return SplunkHec("siem", SplunkHecSettings(**{**given, **options}))


def ids(collector: Collector) -> list[str]:
    return [event["attributes"]["event_id"] for event in collector.lines()]


def recovered(engine: Engine) -> None:
    until = time.monotonic() + 5
    while engine.status().circuit == "open":
        assert time.monotonic() < until, engine.status().reason
        time.sleep(0.01)


@pytest.mark.parametrize("acknowledge", [False, True])
@pytest.mark.parametrize("gzip", [False, True])
def test_every_alert_arrives_once_whatever_it_says(start, deliver, gzip, acknowledge):
    collector = start(**({"ack": {"extension": "ack"}} if acknowledge else {}))
    to = sink(collector, gzip=gzip, acknowledge=acknowledge, max_bytes=100_000)
    sent = parcels(to, range(500), text=HOSTILE)
    assert deliver(to, sent) == [D] * 500
    assert ids(collector) == [identity(n) for n in range(500)]


@pytest.mark.parametrize("shape", ["raw", "body_wrapped", "cim"])
def test_an_event_says_what_the_alert_says(start, deliver, shape):
    collector = start()
    to = sink(collector, event_shape=shape, index="security", host="beam", source="hub")
    made = alert(7, text=HOSTILE)
    assert deliver(to, parcels(to, range(7, 8), text=HOSTILE)) == [D]
    (event,) = collector.lines()
    body = event["body"]
    assert (body if shape == "raw" else body["body"]) == json.loads(made.raw)
    if shape == "cim":
        assert (body["signature"], body["severity"]) == (HOSTILE, "high")
    assert event["time"] == made.event_ms
    assert event["resource"] == {
        "com.splunk.index": "security",
        "com.splunk.source": "hub",
        "com.splunk.sourcetype": "alertbeam:alert" if shape == "cim" else "mscs:azure:eventhub",
        "host.name": "beam",
    }


def test_over_tls_with_its_own_authority(start, deliver, tmp_path):
    cert, key = certificate(tmp_path)
    collector = start(tls={"cert_file": str(cert), "key_file": str(key)})
    trusting = sink(collector, tls={"ca": f"file:{cert}"})
    assert deliver(trusting, parcels(trusting, range(10))) == [D] * 10
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        sink(collector).check(3.0)


def test_a_wrong_token_stops_and_a_new_one_is_read_without_a_restart(start, deliver, monkeypatch):
    collector = start()
    to = sink(collector)
    monkeypatch.setenv("TOKEN", "yesterdays-token")
    sent = parcels(to, range(5))
    assert deliver(to, sent) == [OWED] * 5
    assert "401" in sent[0].reason and "yesterdays" not in sent[0].reason
    with pytest.raises(OSError, match="401"):
        to.check(3.0)
    monkeypatch.setenv("TOKEN", TOKEN)
    recovered(deliver.engine)
    assert deliver(to, parcels(to, range(5))) == [D] * 5
    assert ids(collector) == [identity(n) for n in range(5)]
    assert "accepted" in to.check(3.0)


def test_a_token_that_is_changed_under_way_costs_nothing(start, deliver, monkeypatch):
    collector = start()
    to = sink(collector)
    assert deliver(to, parcels(to, range(5))) == [D] * 5
    collector.kill()
    collector._env["TOKEN"] = "todays-token"
    collector.start()
    monkeypatch.setenv("TOKEN", "todays-token")
    assert deliver(to, parcels(to, range(5, 10))) == [D] * 5
    assert ids(collector) == [identity(n) for n in range(10)]


def test_without_the_ack_extension_acknowledgement_is_refused_in_words(start, deliver):
    collector = start()
    to = sink(collector, acknowledge=True)
    sent = parcels(to, range(1))
    assert deliver(to, sent) == [OWED]
    assert "ackId" in sent[0].reason


def test_what_is_invalid_is_dead_and_nothing_comes_twice(start, deliver):
    """It names the position of bad fields, but not that of a blank event."""
    collector = start()
    to = sink(collector)
    sent = parcels(to, range(10))
    sent[3].payload = b'{"event":"nested","fields":{"event_id":{"a":1}}}'
    sent[6].payload = b'{"event":"","fields":{"event_id":"blank"}}'
    outcomes = [DEAD if n in (3, 6) else D for n in range(10)]
    assert deliver(to, sent) == outcomes
    assert "indexed fields" in sent[3].reason and "blank" in sent[6].reason
    assert sorted(ids(collector)) == sorted(identity(n) for n in range(10) if n not in (3, 6))


def test_a_request_over_its_limit_is_halved_until_it_fits(start, deliver):
    """It calls what is too long invalid, as it reads only the beginning."""
    collector = start(max_request_body_size=20_000)
    to = sink(collector)
    sent = [*parcels(to, range(100)), *parcels(to, range(100, 101), text="x" * 20_000)]
    assert deliver(to, sent) == [D] * 100 + [DEAD]
    assert sorted(ids(collector)) == sorted(identity(n) for n in range(100))


@pytest.mark.parametrize("acknowledge", [False, True])
def test_killed_and_started_again_it_misses_nothing(start, deliver, acknowledge):
    collector = start(**({"ack": {"extension": "ack"}} if acknowledge else {}))
    to = sink(collector, acknowledge=acknowledge, patience=0.3)
    assert deliver(to, parcels(to, range(100))) == [D] * 100
    collector.kill()
    assert deliver(to, parcels(to, range(100, 120))) == [OWED] * 20
    collector.start()
    recovered(deliver.engine)
    assert deliver(to, parcels(to, range(100, 120))) == [D] * 20
    assert ids(collector) == [identity(n) for n in range(120)]


@pytest.mark.parametrize("acknowledge", [False, True])
def test_killed_in_the_middle_of_a_stream_it_misses_nothing(start, deliver, acknowledge):
    """What it had written and not answered comes again: one request's worth at most; with
    acknowledgements, what was not asked about yet."""
    collector = start(**({"ack": {"extension": "ack"}} if acknowledge else {}))
    to = sink(collector, acknowledge=acknowledge, patience=1, timeout=1, max_bytes=20_000)
    sent = parcels(to, range(3000))
    stream = threading.Thread(target=deliver, args=(to, sent))
    stream.start()
    until = time.monotonic() + 5
    while not (collector.out.exists() and collector.out.stat().st_size > 100_000):
        assert time.monotonic() < until
    collector.kill()
    stream.join()
    outcomes = [parcel.outcome for parcel in sent]
    assert OWED in outcomes and set(outcomes) <= {D, OWED}
    assert D in outcomes or acknowledge
    collector.start()
    recovered(deliver.engine)
    again = parcels(to, range(3000))
    owed = [parcel for n, parcel in enumerate(again) if outcomes[n] is OWED]
    assert {*deliver(to, owed)} == {D}
    found = Counter(ids(collector))
    assert found.keys() == {identity(n) for n in range(3000)}
    assert acknowledge or found.total() - 3000 <= 20_000 // len(sent[0].payload)
