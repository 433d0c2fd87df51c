from __future__ import annotations

import email.utils
import json
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import (
    Answer,
    Drip,
    HalfClose,
    HecReceiver,
    InvalidEvent,
    Poison,
    Reset,
    Silence,
    Slow,
    certificate,
)
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from transforms.delivery.engine import Engine
from transforms.delivery.http import retry_after
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, RejectItems, Retry, Split, Stop, Verdict
from transforms.sinks.splunk_hec import SplunkHec, SplunkHecSettings

TOKEN = "c0ffee-token-that-nobody-may-see"
D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("HEC_TOKEN", TOKEN)


@pytest.fixture
def splunk() -> Iterator[HecReceiver]:
    with HecReceiver(token=TOKEN, strict=True) as receiver:
        yield receiver


def sink(url: str, **options: Any) -> SplunkHec:
    given = {"token": "env:HEC_TOKEN", "patience": 0.5, "timeout": 0.3, **options}
    return SplunkHec("splunk", SplunkHecSettings(url=url, **given))


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: list[Engine] = []

    def run(hec: SplunkHec, count: int = 3, **options: Any) -> list[Outcome | None]:
        engines.append(Engine(hec, cool_down=(0.03, 0.1)))
        sent = parcels(hec, range(count), **options)
        engines[-1].submit(sent)
        engines[-1].settle()
        run.engine, run.sent = engines[-1], sent  # type: ignore[attr-defined]
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines:
        engine.close()


def send(hec: SplunkHec, count: int = 3, timeout: float = 0.3) -> Verdict:
    """What one request comes to; failures as the engine sees them."""
    connection = hec.connect()
    try:
        return connection.send([p.payload for p in parcels(hec, range(count))], timeout)
    finally:
        connection.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            ("https://splunk:8088", "https://splunk:8088/services/collector/event"),
            ("https://splunk:8088/", "https://splunk:8088/services/collector/event"),
            ("https://proxy/splunk/services/collector", "https://proxy/splunk/services/collector"),
            ("http://127.0.0.1:8088", "http://127.0.0.1:8088/services/collector/event"),
            ("http://[::1]:8088", "http://[::1]:8088/services/collector/event"),
            ("http://localhost:8088", "http://localhost:8088/services/collector/event"),
        ],
    )
    def test_an_url_without_a_path_means_the_event_endpoint(self, url, meant):
        assert sink(url).settings.url == meant

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("http://splunk:8088", "unencrypted"),
            ("http://127.0.0.1.evil.example", "unencrypted"),
            ("splunk:8088", "a URL is needed"),
            ("https://", "a URL is needed"),
            ("https://user:hunter2@splunk:8088", "no user, password"),
            ("https://splunk:8088/services/collector?token=hunter2", "no user, password"),
            ("https://splunk:99999", "port"),
        ],
    )
    def test_a_bad_url_is_refused_without_repeating_what_may_be_secret(self, url, complaint):
        with pytest.raises(ValidationError, match=complaint) as caught:
            sink(url)
        assert "hunter2" not in str(caught.value)

    def test_a_pasted_token_is_refused_and_not_repeated(self):
        with pytest.raises(ValidationError) as caught:
            sink("https://splunk:8088", token="hunter2-hunter2")
        assert "hunter2" not in str(caught.value)

    def test_tls_files_are_given_by_reference(self):
        hec = sink("https://splunk:8088", tls={"ca": "file:/etc/ca.pem"})
        assert (hec.settings.tls.ca, hec.settings.tls.verify) == ("/etc/ca.pem", True)
        for tls in ({"ca": "-----BEGIN CERTIFICATE-----"}, {"key": "/k"}, {"cA": "/k"}):
            with pytest.raises(ValidationError):
                sink("https://splunk:8088", tls=tls)

    def test_every_field_says_what_it_is(self):
        fields = SplunkHecSettings.model_fields.values()
        assert all(field.description for field in fields)


class TestEncoding:
    def test_the_settings_are_in_every_event(self):
        hec = sink(
            "https://x", index="security", host="h", source="s", sourcetype="t", event_shape="raw"
        )
        event = json.loads(hec.encode(alert(1), SOURCE, PARTITION))
        assert {name: event[name] for name in ("index", "host", "source", "sourcetype")} == {
            "index": "security",
            "host": "h",
            "source": "s",
            "sourcetype": "t",
        }
        assert event["event"]["SystemAlertId"] == identity(1)

    def test_without_settings_it_looks_as_the_add_on_writes_it(self):
        event = json.loads(sink("https://x").encode(alert(1), SOURCE, PARTITION))
        assert event["sourcetype"] == "mscs:azure:eventhub"
        assert event["source"] == "contoso.servicebus.windows.net/defender;"
        assert event["event"]["body"]["SystemAlertId"] == identity(1)
        assert "index" not in event

    def test_it_pickles_without_the_secret(self):
        pickled = pickle.dumps(sink("https://x"))
        assert TOKEN.encode() not in pickled
        assert pickle.loads(pickled).settings.token == "env:HEC_TOKEN"


class TestDelivery:
    @pytest.mark.parametrize("gzip", [True, False])
    def test_every_event_arrives_once(self, splunk, deliver, gzip):
        hec = sink(splunk.url, gzip=gzip, max_bytes=20_000)
        assert deliver(hec, 500) == [D] * 500
        assert splunk.ids() == [identity(n) for n in range(500)]
        assert splunk.requests > 5

    def test_one_connection_serves_all_requests(self, splunk, deliver):
        deliver(sink(splunk.url, max_bytes=1000), 50)
        assert splunk.requests > 20
        assert splunk.connections == 1

    def test_hostile_text_forges_no_event(self, splunk, deliver):
        assert deliver(sink(splunk.url), 20, text=HOSTILE) == [D] * 20
        events = list(splunk.events())
        assert [e["fields"]["event_id"] for e in events] == [identity(n) for n in range(20)]
        assert events[0]["event"]["body"]["Description"] == HOSTILE

    def test_a_connection_that_went_idle_and_was_closed_is_opened_anew(self, splunk):
        hec = sink(splunk.url)
        connection = hec.connect()
        payloads = [p.payload for p in parcels(hec, range(1))]
        assert connection.send(payloads, 1) == Accepted()
        splunk.refuse()
        splunk.accept()
        time.sleep(0.02)
        assert connection.send(payloads, 1) == Accepted()
        connection.close()

    def test_over_tls_with_its_own_authority(self, tmp_path, deliver):
        cert, key = certificate(tmp_path)
        with HecReceiver(token=TOKEN, tls=(cert, key)) as splunk:
            hec = sink(splunk.url, tls={"ca": f"file:{cert}"})
            assert deliver(hec, 300) == [D] * 300
            hec.probe(1)

    def test_a_certificate_of_an_unknown_authority_stops_it(self, tmp_path, deliver):
        with HecReceiver(token=TOKEN, tls=certificate(tmp_path)) as splunk:
            assert deliver(sink(splunk.url, patience=5)) == [OWED] * 3
            assert "certificate was refused" in deliver.engine.status().reason
            assert deliver.engine.status().retries == 0

    def test_a_certificate_for_another_name_stops_it(self, tmp_path, deliver):
        cert, key = certificate(tmp_path)
        with HecReceiver(token=TOKEN, tls=(cert, key)) as splunk:
            tls = {"ca": str(cert), "server_name": "splunk.example"}
            assert deliver(sink(splunk.url, tls=tls, patience=5)) == [OWED] * 3

    def test_only_when_told_so_any_certificate_will_do(self, tmp_path, deliver):
        with HecReceiver(token=TOKEN, tls=certificate(tmp_path)) as splunk:
            assert deliver(sink(splunk.url, tls={"verify": False})) == [D] * 3


ANSWERS = [
    # status, code → verdict; the table of the contract
    *[(200, code, Accepted) for code in (0, 24, 25)],
    *[(403, code, Stop) for code in (1, 4)],
    *[(401, code, Stop) for code in (2, 3)],
    *[(400, code, Stop) for code in (7, 10, 11, 14, 16, 21, 22)],
    *[(400, code, Split) for code in (5, 6, 12, 13, 15)],
    *[(503, code, Retry) for code in (9, 18, 19, 20, 23)],
    (500, 8, Retry),
    *[(429, code, Retry) for code in (26, 27)],
    *[(status, None, Retry) for status in (408, 425, 429, 500, 502, 503, 504)],
    *[(status, None, Stop) for status in (401, 403, 404, 405, 407, 301, 302, 307, 308)],
    *[(status, None, Stop) for status in (200, 201, 204)],
    (413, None, Split),
    (400, None, Split),
    (422, None, Split),
]


class TestAnswers:
    @pytest.mark.parametrize(("status", "code", "verdict"), ANSWERS)
    def test_every_status_and_code_has_its_verdict(self, splunk, status, code, verdict):
        splunk.fail(Answer(status, code, "said", (("Location", "http://127.0.0.1:1/"),)))
        got = send(sink(splunk.url))
        assert type(got) is verdict
        assert splunk.requests == 1
        if verdict is not Accepted:
            assert got.reason.startswith(f"HTTP {status}: ")

    def test_a_warning_is_passed_on(self, splunk):
        splunk.fail(Answer(200, 24, "Queue nearly full"))
        assert send(sink(splunk.url)) == Accepted("HTTP 200: Queue nearly full (code 24)")

    def test_an_invalid_event_is_named_and_the_others_are_not_taken_for_granted(self, splunk):
        splunk.fail(InvalidEvent(1))
        got = send(sink(splunk.url))
        assert isinstance(got, RejectItems)
        assert (list(got.reasons), got.taken) == ([1], False)

    def test_retry_after_in_seconds_and_as_a_date(self, splunk):
        splunk.fail(Answer(503, 9, "busy", (("Retry-After", "7"),)))
        assert send(sink(splunk.url)).after == 7
        date = email.utils.formatdate(time.time() + 60, usegmt=True)
        splunk.fail(Answer(429, 26, "busy", (("Retry-After", date),)))
        assert 55 < send(sink(splunk.url)).after < 61

    @pytest.mark.parametrize("value", ["soon", "-1", "", "1e9", "Mon, 99 Foo 2026 00:00:00"])
    def test_a_retry_after_that_is_neither_is_none(self, value):
        message = email.message.Message()
        message["Retry-After"] = value
        assert retry_after(message) is None

    def test_a_server_that_repeats_the_token_does_not_get_it_into_the_reason(self, splunk):
        splunk.fail(Answer(403, 4, f"Invalid token {TOKEN}"))
        assert TOKEN not in send(sink(splunk.url)).reason

    def test_a_token_with_a_line_break_is_refused_before_it_is_sent(self, splunk, monkeypatch):
        monkeypatch.setenv("HEC_TOKEN", "x\r\nX-Evil: 1")
        with pytest.raises(SecretError, match="letters, digits"):
            sink(splunk.url).connect()


class TestFailures:
    def test_a_poisoned_event_is_found_by_halving_and_dead(self, splunk, deliver):
        splunk.fail(Poison(identity(70).encode()))
        outcomes = deliver(sink(splunk.url, patience=5), 200)
        assert [n for n, outcome in enumerate(outcomes) if outcome is not D] == [70]
        assert (outcomes[70], "HTTP 400" in deliver.sent[70].reason) == (DEAD, True)
        assert sorted(splunk.ids()) == sorted(identity(n) for n in range(200) if n != 70)

    def test_a_numbered_invalid_event_is_dead_and_no_other_is_missing(self, splunk, deliver):
        splunk.fail(Poison(identity(70).encode(), numbered=True))
        outcomes = deliver(sink(splunk.url, patience=5), 200)
        assert [n for n, outcome in enumerate(outcomes) if outcome is DEAD] == [70]
        assert set(splunk.ids()) == {identity(n) for n in range(200) if n != 70}
        assert splunk.requests == 2

    def test_a_request_that_is_too_large_is_halved_until_it_fits(self, deliver):
        with HecReceiver(token=TOKEN, max_bytes=3000) as splunk:
            assert deliver(sink(splunk.url, patience=5), 60) == [D] * 60
            assert splunk.ids() == [identity(n) for n in range(60)]

    def test_a_single_event_that_is_too_large_is_dead(self, deliver):
        with HecReceiver(token=TOKEN, max_bytes=3000) as splunk:
            assert deliver(sink(splunk.url), 1, text="x" * 5000) == [DEAD]
            assert "HTTP 413" in deliver.sent[0].reason

    def test_a_429_is_waited_out(self, splunk, deliver):
        splunk.fail(Answer(429, 26, "full", (("Retry-After", "1"),)), times=1)
        started = time.monotonic()
        assert deliver(sink(splunk.url, patience=3)) == [D] * 3
        assert time.monotonic() - started >= 1

    def test_a_wrong_token_owes_everything_and_drops_nothing(self, splunk, deliver, monkeypatch):
        monkeypatch.setenv("HEC_TOKEN", "wrong")
        assert deliver(sink(splunk.url, patience=5)) == [OWED] * 3
        assert deliver.engine.status().reason == "HTTP 403: Invalid token (code 4)"
        monkeypatch.setenv("HEC_TOKEN", TOKEN)  # somebody mends it; nobody restarts
        wait_for(lambda: deliver.engine.status().circuit == "half_open")
        sent = parcels(sink(splunk.url), range(3))
        deliver.engine.submit(sent)
        deliver.engine.settle()
        assert [p.outcome for p in sent] == [D] * 3

    def test_a_missing_token_owes_everything(self, splunk, deliver, monkeypatch):
        monkeypatch.delenv("HEC_TOKEN")
        assert deliver(sink(splunk.url)) == [OWED] * 3
        assert "HEC_TOKEN is not set" in deliver.engine.status().reason

    @pytest.mark.parametrize(
        "fault",
        [Answer(503, 9, "busy"), Reset(), Reset(taken=True), HalfClose(), Silence(), Slow(0.5)],
        ids=lambda fault: type(fault).__name__,
    )
    def test_what_passes_is_survived_without_loss(self, splunk, deliver, fault):
        splunk.fail(fault, times=1)
        assert deliver(sink(splunk.url, patience=3), 20) == [D] * 20
        assert set(splunk.ids()) == {identity(n) for n in range(20)}
        assert deliver.engine.status().retries == 1

    @pytest.mark.parametrize(
        "fault",
        [Answer(503, 9, "busy"), Reset(), HalfClose(), Silence(), Drip(0.05)],
        ids=lambda fault: type(fault).__name__,
    )
    def test_what_lasts_is_owed_within_the_patience_and_recovered_from(
        self, splunk, deliver, fault
    ):
        splunk.fail(fault)
        started = time.monotonic()
        assert deliver(sink(splunk.url), 20) == [OWED] * 20
        assert time.monotonic() - started < 0.8
        splunk.heal()
        wait_for(lambda: deliver.engine.status().circuit == "half_open")
        sent = parcels(sink(splunk.url), range(20))
        deliver.engine.submit(sent)
        deliver.engine.settle()
        assert [p.outcome for p in sent] == [D] * 20
        assert {identity(n) for n in range(20)} <= set(splunk.ids())

    def test_an_answer_that_drips_for_ever_ends_with_the_timeout(self, splunk):
        splunk.fail(Drip(0.05))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(sink(splunk.url), timeout=0.2)
        assert time.monotonic() - started < 0.4

    def test_a_server_that_answers_before_it_has_read_everything_is_heard(self):
        import socket

        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            peer, _ = listener.accept()
            peer.recv(1000)
            peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            time.sleep(0.05)
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
        hec = sink(f"http://127.0.0.1:{listener.getsockname()[1]}", gzip=False)
        connection = hec.connect()
        try:
            assert isinstance(connection.send([b"x" * 100] * 100_000, 2), Split)
        finally:
            connection.close()
            listener.close()

    def test_what_is_no_http_is_a_network_error(self):
        import socket

        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            peer, _ = listener.accept()
            peer.recv(100_000)
            peer.sendall(b"220 mail ESMTP\r\n")
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(OSError, match="not an HTTP answer"):
            send(sink(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        listener.close()

    def test_an_unhealthy_collector_is_not_back(self, splunk):
        hec = sink(splunk.url)
        hec.probe(1)
        splunk.healthy = False
        with pytest.raises(OSError, match=r"HTTP 503: HEC is unhealthy.* \(code 18\)"):
            hec.probe(1)
        splunk.refuse()
        with pytest.raises(ConnectionRefusedError):
            hec.probe(1)

    def test_the_token_is_in_no_log_and_no_reason(self, splunk, deliver, caplog):
        caplog.set_level(logging.DEBUG)
        for fault in (Answer(403, 4, TOKEN), Answer(500, 8, TOKEN), Answer(200, 24, TOKEN)):
            splunk.fail(fault)
            deliver(sink(splunk.url, patience=0.1))
            assert TOKEN not in repr(deliver.engine.status()) + repr(deliver.sent)
        assert TOKEN not in caplog.text


def wait_for(check: Callable[[], bool], within: float = 3.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)
