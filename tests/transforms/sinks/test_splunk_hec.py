from __future__ import annotations

import dataclasses
import email.utils
import json
import logging
import math
import pickle
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
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
from schemas.batch import Origin
from schemas.kinds import KINDS
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from transforms.delivery.engine import Engine
from transforms.secrets import SecretError
from transforms.sinks import splunk_hec as module
from transforms.sinks.base import (
    Accepted,
    Connection,
    Pending,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Split,
    Stop,
    Verdict,
)
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
        for parcel in sent:
            parcel.origin = Origin(SOURCE, PARTITION)
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
        assert event["source"] == "eventhub://contoso.servicebus.windows.net/defender;"
        assert event["event"]["body"]["SystemAlertId"] == identity(1)
        assert "index" not in event

    @pytest.mark.parametrize(
        ("shape", "given", "meant"),
        [
            ("raw", None, "mscs:azure:eventhub"),
            ("cim", None, "alertbeam:alert"),  # the add-on would map its own fields over these
            ("cim", "soc:alert", "soc:alert"),
            ("body_wrapped", "", None),  # the token's default
        ],
    )
    def test_the_source_type_goes_with_the_shape_unless_it_is_said(self, shape, given, meant):
        options = {} if given is None else {"sourcetype": given}
        hec = sink("https://x", event_shape=shape, **options)
        assert json.loads(hec.encode(alert(1), SOURCE, PARTITION)).get("sourcetype") == meant

    def test_a_kind_may_have_an_index_a_source_and_a_source_type_of_its_own(self):
        kinds = {
            "security_incident": {"index": "incidents", "sourcetype": "soc:incident"},
            "xdr": {"source": "defender"},
        }
        hec = sink("https://x", index="security", source="hub", kinds=kinds)

        def said(kind: str) -> tuple[str, str, str]:
            event = json.loads(hec.encode(alert(1, kind=kind), SOURCE, PARTITION))
            return event["index"], event["source"], event["sourcetype"]

        assert said("security_incident") == ("incidents", "hub", "soc:incident")
        assert said("xdr") == ("security", "defender", "mscs:azure:eventhub")
        assert said("defender_alert") == ("security", "hub", "mscs:azure:eventhub")
        again = pickle.loads(pickle.dumps(hec))
        assert again.encode(alert(1), SOURCE, PARTITION) == hec.encode(alert(1), SOURCE, PARTITION)

    def test_a_kind_that_there_is_not_is_refused_with_those_that_there_are(self):
        with pytest.raises(ValidationError) as caught:
            sink("https://x", kinds={"incident": {"index": "incidents"}})
        (error,) = caught.value.errors()
        assert error["ctx"]["choices"] == [*KINDS]
        with pytest.raises(ValidationError, match="indx"):
            sink("https://x", kinds={"xdr": {"indx": "incidents"}})

    def test_what_a_kind_goes_to_stands_in_the_shortened_record_too(self):
        hec = sink("https://x", kinds={"defender_alert": {"index": "defender"}})
        short = hec.shrink(alert(1, text="x" * 5000), SOURCE, PARTITION, 2000)
        assert short is not None and json.loads(short)["index"] == "defender"

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
        assert isinstance(connection.send(payloads, 1), Accepted)
        splunk.refuse()
        splunk.accept()
        time.sleep(0.02)
        assert isinstance(connection.send(payloads, 1), Accepted)
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
    (403, 1, Stop),
    (403, 4, Refresh),
    *[(401, code, Refresh) for code in (2, 3, 4)],
    *[(400, code, Stop) for code in (7, 10, 11, 14, 16, 21, 22)],
    *[(400, code, Split) for code in (5, 6, 12, 13, 15)],
    *[(503, code, Retry) for code in (9, 18, 19, 20, 23)],
    (500, 8, Retry),
    *[(429, code, Retry) for code in (26, 27)],
    *[(status, None, Retry) for status in (408, 425, 429, 500, 502, 503, 504)],
    (401, None, Refresh),
    *[(status, None, Stop) for status in (403, 404, 405, 407, 301, 302, 307, 308)],
    *[(status, None, Stop) for status in (200, 201, 204)],
    *[(413, code, Shrink) for code in (None, 6)],
    (400, None, Split),
    (422, None, Split),
]


class TestShrinking:
    @pytest.mark.parametrize("shape", ["body_wrapped", "raw", "cim"])
    @pytest.mark.parametrize("most", [700, 1000, 5000])
    def test_it_is_a_valid_event_within_the_room(self, shape, most):
        hec = sink("https://x", event_shape=shape, index="security")
        made = alert(1, text='"\\🚨' * 5000, link="https://portal/", resource="vm-1")
        said = hec.shrink(made, SOURCE, PARTITION, most)
        assert most - 200 < len(said) <= most
        event = json.loads(said)
        assert (event["index"], event["fields"]["event_id"]) == ("security", identity(1))
        assert event["time"] == made.event_ms / 1000

    def test_without_room_for_an_id_there_is_none(self):
        assert sink("https://x").shrink(alert(1), SOURCE, PARTITION, 300) is None


class TestChecking:
    def test_a_good_token_is_told_without_sending_anything(self, splunk):
        assert sink(splunk.url).check(1) == "HEC is healthy; the token is accepted"
        assert splunk.received == 0

    def test_a_bad_token_is_told_with_what_to_do(self, splunk, monkeypatch):
        monkeypatch.setenv("HEC_TOKEN", "wrong")
        with pytest.raises(ConnectionError, match=r"Invalid token \(code 4\).*no such `token`"):
            sink(splunk.url).check(1)
        monkeypatch.delenv("HEC_TOKEN")
        with pytest.raises(SecretError, match="HEC_TOKEN is not set"):
            sink(splunk.url).check(1)

    def test_an_unhealthy_collector_is_told(self, splunk):
        splunk.healthy = False
        with pytest.raises(ConnectionError, match="HEC is unhealthy"):
            sink(splunk.url).check(1)

    def test_what_is_no_collector_is_told(self, splunk):
        splunk.fail(Answer(200, None, "welcome"))
        with pytest.raises(ConnectionError, match="no answer of an event collector"):
            sink(splunk.url).check(1)

    def test_a_certificate_that_is_not_trusted_is_told(self, tmp_path):
        with (
            HecReceiver(token=TOKEN, tls=certificate(tmp_path)) as splunk,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            sink(splunk.url).check(1)

    def test_acknowledgement_is_tried_too(self, splunk):
        hec = sink(splunk.url, acknowledge=True)
        with pytest.raises(ConnectionError, match=r"ACK is disabled \(code 14\): .* enabled"):
            hec.check(1)
        splunk.acknowledge = True
        splunk.fail(Answer(400, 12, "No event"), times=1, on="/services/collector/ack")
        with pytest.raises(ConnectionError, match=r"\(code 12\): indexer acknowledgement"):
            hec.check(1)
        assert hec.check(1).endswith("; it acknowledges what is indexed")
        with pytest.raises(ConnectionError, match=r"\(code 10\): .*`acknowledge: true`"):
            sink(splunk.url).check(1)

    def test_a_record_is_found_by_its_indexed_field(self):
        assert sink("https://x").find("ab12") == "search index=* event_id::ab12"
        assert sink("https://x", index="security").find("ab12") == (
            "search index=security event_id::ab12"
        )
        kinds = {"xdr": {"index": "xdr"}, "unknown": {"sourcetype": "x"}}
        assert sink("https://x", kinds=kinds).find("ab12") == "search index=* event_id::ab12"
        hec = sink("https://x", index="security", kinds=kinds)
        assert hec.find("ab12") == "search index IN (security, xdr) event_id::ab12"
        assert hec.target == "https://x, index security, xdr"


class TestAcknowledgement:
    @pytest.fixture
    def splunk(self) -> Iterator[HecReceiver]:
        with HecReceiver(token=TOKEN, strict=True, acknowledge=True) as receiver:
            receiver.ack_after = math.inf
            yield receiver

    @pytest.fixture
    def connection(self, splunk) -> Iterator[Connection]:
        made = sink(splunk.url, acknowledge=True, acknowledge_timeout=60).connect()
        yield made
        made.close()

    @staticmethod
    def send(connection: Connection, number: int) -> Verdict:
        payloads = [p.payload for p in parcels(sink("https://x"), range(number, number + 1))]
        return connection.send(payloads, 1)

    def test_what_is_taken_is_pending_until_it_is_indexed(self, splunk, connection):
        sent = [self.send(connection, number) for number in range(3)]
        assert {type(verdict) for verdict in sent} == {Pending}
        assert connection.confirm(1) == {}
        splunk.ack_after = 0
        assert connection.confirm(1) == {one.handle: Accepted(said="indexed") for one in sent}
        assert connection.confirm(1) == {}, "each is told once"

    def test_every_connection_has_a_channel_of_its_own(self, splunk, connection):
        other = sink(splunk.url, acknowledge=True).connect()
        first, second = self.send(connection, 0), self.send(other, 1)
        assert first.handle != second.handle
        splunk.ack_after = 0
        assert list(connection.confirm(1)) == [first.handle]
        assert list(other.confirm(1)) == [second.handle]
        other.close()

    def test_what_is_never_acknowledged_is_sent_again(self, splunk, connection, monkeypatch):
        splunk.lose_next(1)
        lost, kept = self.send(connection, 0), self.send(connection, 1)
        splunk.ack_after = 0
        now = time.monotonic()
        assert list(connection.confirm(1)) == [kept.handle]
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 61))
        told = Retry("not acknowledged within 60 s")
        assert connection.confirm(1) == {lost.handle: told}
        assert connection.confirm(1) == {}

    def test_a_connection_that_is_lost_loses_what_it_awaits(self, splunk, connection):
        self.send(connection, 0)
        splunk.restart()
        time.sleep(0.01)
        with pytest.raises(ConnectionError, match="with it its acknowledgements"):
            connection.confirm(1)

    def test_a_connection_that_is_given_up_for_its_age_loses_nothing(self, splunk, connection):
        """And takes a new channel: who answers there may count from 0 again."""
        first = self.send(connection, 0)
        connection._http._until = 0
        second = self.send(connection, 1)
        assert splunk.connections == 2
        assert {number for _, number in (first.handle, second.handle)} == {0}
        assert first.handle != second.handle
        splunk.ack_after = 0
        assert set(connection.confirm(1)) == {first.handle, second.handle}

    def test_a_busy_collector_is_asked_again(self, splunk, connection):
        sent = self.send(connection, 0)
        splunk.ack_after = 0
        splunk.fail(Answer(503, 9, "busy"), times=1, on="/services/collector/ack")
        assert connection.confirm(1) == {}
        assert list(connection.confirm(1)) == [sent.handle]

    def test_a_collector_that_forgot_the_channel_is_sent_everything_again(self, splunk, connection):
        sent = self.send(connection, 0)
        splunk.fail(Answer(400, 11, "Invalid channel"), on="/services/collector/ack")
        assert connection.confirm(1) == {sent.handle: Retry("HTTP 400: Invalid channel (code 11)")}

    @pytest.mark.parametrize(("status", "code"), [(404, None), (400, 14), (200, None), (403, 1)])
    def test_a_collector_that_cannot_be_asked_stops_it(self, splunk, connection, status, code):
        sent = self.send(connection, 0)
        splunk.fail(Answer(status, code, "no"), on="/services/collector/ack")
        assert isinstance(connection.confirm(1)[sent.handle], Stop)

    def test_a_token_that_was_replaced_meanwhile_ends_the_connection(self, splunk, connection):
        self.send(connection, 0)
        splunk.token = "another"
        with pytest.raises(ConnectionError, match="Invalid token"):
            connection.confirm(1)

    def test_a_token_without_acknowledgement_stops_it_and_says_so(self, splunk, connection):
        splunk.acknowledge = False
        verdict = self.send(connection, 0)
        assert isinstance(verdict, Stop)
        assert "no `ackId`: indexer acknowledgement is to be enabled" in verdict.reason

    def test_two_collectors_behind_one_channel_are_found_out(self, splunk, connection):
        self.send(connection, 0)
        splunk._channels.clear()  # what a load balancer without sticky sessions comes to
        with pytest.raises(ConnectionError, match="sticky sessions"):
            self.send(connection, 1)

    def test_a_load_balancers_cookies_are_shown_again(self, splunk, connection, monkeypatch):
        asked: list[str] = []
        well = splunk.respond

        def respond(request: Any) -> Any:
            asked.append(request.headers.get("Cookie", ""))
            reply = well(request)
            cookie = "AWSALB=a/b+c==; Path=/; Secure"
            return dataclasses.replace(reply, headers={"Set-Cookie": cookie})

        monkeypatch.setattr(splunk, "respond", respond)
        self.send(connection, 0)
        connection.confirm(1)
        assert asked == ["", "AWSALB=a/b+c=="]

    def test_what_an_indexer_lost_arrives_in_the_end(self, splunk, deliver):
        splunk.ack_after = 0
        splunk.lose_next(1)
        hec = sink(
            splunk.url, acknowledge=True, acknowledge_timeout=0.3, patience=5, max_bytes=1000
        )
        assert deliver(hec, 10) == [D] * 10
        assert set(splunk.ids()) == {identity(n) for n in range(10)}

    def test_a_restart_loses_nothing(self, splunk, deliver):
        hec = sink(splunk.url, acknowledge=True, patience=5, max_bytes=1000)
        timer = threading.Timer(0.1, lambda: (splunk.restart(), setattr(splunk, "ack_after", 0)))
        timer.start()
        assert deliver(hec, 10) == [D] * 10
        timer.join()
        assert set(splunk.ids()) == {identity(n) for n in range(10)}


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
        said = "HTTP 200: Queue nearly full (code 24)"
        assert send(sink(splunk.url)) == Accepted(said, said)

    def test_the_collectors_own_words_are_passed_on(self, splunk):
        assert send(sink(splunk.url)) == Accepted(said="HTTP 200: Success (code 0)")

    @pytest.mark.parametrize("code", [[], {}, "4", None, 1.5])
    def test_a_code_that_is_no_number_is_none(self, splunk, code):
        splunk.fail(Answer(403, code, "no"))
        assert isinstance(send(sink(splunk.url)), Stop)

    @pytest.mark.parametrize(
        ("code", "advice"),
        [(4, "knows no such `token`"), (7, "write to `index`"), (10, "`acknowledge: true`")],
    )
    def test_what_a_user_can_do_is_said(self, splunk, code, advice):
        splunk.fail(Answer(400, code, "no"))
        assert advice in send(sink(splunk.url)).reason

    @pytest.mark.parametrize("status", [200, 302])
    def test_a_portal_is_no_collector(self, splunk, status):
        splunk.fail(Answer(status, None, "log in"))
        assert "no answer of an event collector" in send(sink(splunk.url)).reason

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

    @pytest.mark.parametrize("shape", ["body_wrapped", "raw", "cim"])
    def test_a_single_event_that_is_too_large_is_said_shorter(self, deliver, shape):
        with HecReceiver(token=TOKEN, max_bytes=20_000, strict=True) as splunk:
            hec = sink(splunk.url, event_shape=shape, gzip=False)
            assert deliver(hec, 1, text="ü" * 20_000) == [D]
            (event,) = splunk.events()
            assert splunk.ids() == [identity(0)]
        record = event["event"] if shape == "raw" else event["event"]["body"]
        assert (record["shortened"], record["id"]) == (True, identity(0))
        assert record["description"] == "ü" * len(record["description"])

    def test_an_event_that_cannot_be_said_so_short_is_dead(self, deliver):
        with HecReceiver(token=TOKEN, max_bytes=300) as splunk:
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
        assert deliver.engine.status().reason == (
            "HTTP 403: Invalid token (code 4): the collector knows no such `token`"
        )
        monkeypatch.setenv("HEC_TOKEN", TOKEN)  # somebody mends it; nobody restarts
        wait_for(lambda: deliver.engine.status().circuit == "half_open")
        sent = parcels(sink(splunk.url), range(3))
        deliver.engine.submit(sent)
        deliver.engine.settle()
        assert [p.outcome for p in sent] == [D] * 3

    def test_a_token_that_was_replaced_is_read_anew(self, splunk, deliver, tmp_path):
        file = tmp_path / "token"
        file.write_text(TOKEN)
        hec = sink(splunk.url, token=f"file:{file}", patience=5)
        engine = Engine(hec)
        for now in (TOKEN, "another-token"):
            splunk.token = now
            file.write_text(now)
            sent = parcels(hec, range(3))
            engine.submit(sent)
            engine.settle()
            assert [p.outcome for p in sent] == [D] * 3
        assert engine.status().openings == 0
        engine.close()

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
            assert isinstance(connection.send([b"x" * 100] * 100_000, 2), Shrink)
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
