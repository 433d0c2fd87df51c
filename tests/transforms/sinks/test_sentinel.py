"""The Sentinel sink against doubles of the Logs Ingestion API and of Entra: settings, rows, sizes,
tokens, what answers mean."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Silence
from schemas.alert import Alert
from schemas.kinds import understand
from schemas.receipt import Outcome
from tests.examples import EXAMPLES, encoded
from tests.strategies import alerts
from tests.transforms.entra import EntraReceiver
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, parcels
from tests.transforms.sinks.doubles.sentinel import (
    COLUMNS,
    RULE,
    SCOPE,
    Coded,
    Quotes,
    Rule,
    Takes,
)
from transforms.delivery.engine import Engine
from transforms.entra import Bearer
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Split, Stop, Verdict
from transforms.sinks.sentinel import Sentinel, SentinelSettings

SECRET = "s3cret-of-an-application"
GOOD = {"endpoint": "https://a-b1.westeurope-1.ingest.monitor.azure.com", "rule": RULE}
D, OWED = Outcome.DELIVERED, Outcome.OWED


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def entra() -> Iterator[EntraReceiver]:
    with EntraReceiver(secret=SECRET, scopes={SCOPE}) as made:
        yield made


@pytest.fixture
def rule(entra: EntraReceiver) -> Iterator[Rule]:
    with Rule(entra, "AlertBeam_CL") as made:
        yield made


def sink(rule: Rule, **options: Any) -> Sentinel:
    given: dict[str, Any] = {
        "endpoint": rule.url,
        "rule": RULE,
        "credential": rule.entra.credential("env:SECRET"),
        "patience": 2,
        "timeout": 2,
    }
    return Sentinel("sentinel", SentinelSettings(**{**given, **options}))


def send(sentinel: Sentinel, *payloads: bytes) -> Verdict:
    """What one request comes to."""
    connection = sentinel.connect()
    try:
        return connection.send(payloads or (payload(sentinel),), 2.0)
    finally:
        connection.close()


def payload(sentinel: Sentinel, number: int = 1, **fields: Any) -> bytes:
    return sentinel.encode(alert(number, **fields), SOURCE, PARTITION)


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: list[Engine] = []

    def run(sentinel: Sentinel, count: int = 3, **options: Any) -> list[Outcome | None]:
        engines.append(Engine(sentinel, cool_down=(0.03, 0.1)))
        sent = parcels(sentinel, range(count), **options)
        engines[-1].submit(sent)
        engines[-1].settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines:
        engine.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"endpoint": "http://a.ingest.monitor.azure.com"}, "unencrypted"),
            ({"endpoint": "https://hunter2:x@a.ingest.monitor.azure.com"}, "no user, password"),
            ({"endpoint": f"{GOOD['endpoint']}/dataCollectionRules/x"}, "without a path"),
            ({"endpoint": "a.ingest.monitor.azure.com"}, "a URL is needed"),
            ({"rule": "alertbeam"}, "immutable id is needed"),
            ({"rule": "/subscriptions/x/dataCollectionRules/y"}, "immutable id is needed"),
            ({"rule": f"{RULE}/../x"}, "immutable id is needed"),
            ({"stream": "AlertBeam_CL"}, "named Custom-"),
            ({"stream": "Custom-a/../b?x"}, "named Custom-"),
            ({"format": "cef"}, "sentinel_row"),
            ({"credential": {"client_secret": {"secret": "hunter2"}}}, "as a reference"),
        ],
    )
    def test_what_is_wrong_is_refused_without_repeating_what_may_be_secret(self, given, complaint):
        with pytest.raises(ValidationError, match=complaint) as caught:
            SentinelSettings(**{**GOOD, **given})
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("given", "stream", "found"),
        [
            ({}, "Custom-AlertBeam_CL", 'AlertBeam_CL | where EventId == "x"'),
            (
                {"format": "asim"},
                "Custom-ASimAlertEventLogs",
                'ASimAlertEventLogs | where AdditionalFields has "x"',
            ),
            ({"stream": "Custom-Mine"}, "Custom-Mine", 'Mine_CL | where EventId == "x"'),
            ({"stream": "Custom-Mine_CL"}, "Custom-Mine_CL", 'Mine_CL | where EventId == "x"'),
        ],
    )
    def test_the_stream_is_that_of_the_table_unless_it_is_named(self, given, stream, found):
        made = Sentinel("s", SentinelSettings(**{**GOOD, **given}))
        assert made.target == f"{GOOD['endpoint']}, {RULE}, {stream}"
        assert made.find("x") == found

    @pytest.mark.parametrize(
        ("endpoint", "scope"),
        [
            ("https://a.westeurope-1.ingest.monitor.azure.com", "https://monitor.azure.com"),
            ("https://a.usgovvirginia-1.ingest.monitor.azure.us", "https://monitor.azure.us"),
            ("https://a.chinanorth3-1.ingest.monitor.azure.cn", "https://monitor.azure.cn"),
            ("https://a.ingest.monitor.azure.us:8443/", "https://monitor.azure.us"),
        ],
    )
    def test_the_token_is_for_the_cloud_of_the_endpoint(self, endpoint, scope, monkeypatch):
        asked = []
        bearer = lambda credential, scope, timeout: asked.append(scope)  # noqa: E731
        monkeypatch.setattr("transforms.sinks.sentinel.Bearer", bearer)
        Sentinel("s", SentinelSettings(**{**GOOD, "endpoint": endpoint})).connect()
        assert asked == [f"{scope}/.default"]


class TestRequest:
    def test_it_is_an_array_to_the_stream_with_a_token(self, rule):
        made = sink(rule)
        sent = [payload(made, n) for n in range(3)]
        assert isinstance(send(made, *sent), Accepted)
        (request,) = rule.seen
        assert request.path == f"/dataCollectionRules/{RULE}/streams/Custom-AlertBeam_CL"
        assert request.query == {"api-version": "2023-01-01"}
        assert request.headers["content-encoding"] == "gzip"
        assert request.headers["authorization"].startswith("Bearer ey")
        assert request.body == b"[" + b",".join(sent) + b"]"

    def test_it_goes_uncompressed_where_gzip_is_off(self, rule):
        assert isinstance(send(sink(rule, gzip=False)), Accepted)
        assert "content-encoding" not in rule.seen[0].headers

    def test_one_token_is_used_for_all_of_a_connection(self, rule, deliver):
        assert deliver(sink(rule), 500, text="x" * 4000) == [D] * 500
        assert len(rule.seen) > 3
        assert len(rule.entra.asked) == 1

    def test_another_stream_is_asked_for_by_its_name(self, rule):
        rule.stream = "Custom-Mine"
        assert isinstance(send(sink(rule, stream="Custom-Mine")), Accepted)
        assert isinstance(send(sink(rule)), Stop)


class TestRows:
    @pytest.mark.parametrize("name", EXAMPLES)
    @pytest.mark.parametrize(
        ("form", "table"), [("sentinel_row", "AlertBeam_CL"), ("asim", "ASimAlertEventLogs")]
    )
    def test_every_kind_of_record_has_only_columns_that_the_stream_declares(
        self, entra, name, form, table
    ):
        with Rule(entra, table) as rule:
            made = sink(rule, format=form)
            known = understand(encoded(EXAMPLES[name].record()))
            row = made.encode(known, SOURCE, PARTITION)
            assert isinstance(send(made, row), Accepted)
            assert rule.rows() == [json.loads(row)]

    def test_hostile_text_stays_in_its_field(self, rule):
        made = sink(rule)
        hostile = alert(1, text=HOSTILE, entity=HOSTILE, resource=HOSTILE)
        assert isinstance(send(made, made.encode(hostile, SOURCE, PARTITION)), Accepted)
        (row,) = rule.rows()
        assert row["AlertName"] == HOSTILE
        assert json.loads(row["RawEvent"])["Description"] == HOSTILE

    def test_no_field_is_so_long_that_it_would_be_truncated(self, rule):
        made = sink(rule)
        row = payload(made, text="ü🚨" * 100_000)
        assert isinstance(send(made, row), Accepted)
        assert all(len(str(value).encode()) <= 64_000 for value in rule.rows()[0].values())
        assert rule.rows()[0]["RawEventBytes"] > 1_000_000

    @given(alert=alerts())
    def test_any_alert_can_be_said_shorter_and_keeps_its_id(self, alert: Alert):
        made = Sentinel("s", SentinelSettings(**GOOD))
        for most in (20_000, 4_000):
            said = made.shrink(alert, SOURCE, PARTITION, most)
            if said is not None:
                assert len(said) <= most
                row = json.loads(said)
                assert row["EventId"] == alert.event_id
                assert row.get("RawEventBytes", 0) == len(alert.raw)
                assert row.keys() <= {column["name"] for column in COLUMNS["AlertBeam_CL"]}

    @pytest.mark.parametrize("form", ["sentinel_row", "asim"])
    def test_an_ordinary_alert_is_said_within_3000_bytes(self, form):
        made = Sentinel("s", SentinelSettings(**GOOD, format=form))
        large = alert(1, text="x" * 100_000)
        said = made.shrink(large, SOURCE, PARTITION, 3_000)
        assert said is not None
        assert len(said) <= 3_000
        assert large.event_id.encode() in said
        assert made.shrink(large, SOURCE, PARTITION, 300) is None


class TestLimits:
    def test_the_documented_limits_of_a_rule_are_kept(self):
        limits = Sentinel("s", SentinelSettings(**GOOD)).limits
        assert limits.rate.requests == 200
        assert limits.rate.bytes is not None
        assert 33_000_000 < limits.rate.bytes < 34_000_000

    def test_no_request_is_longer_than_a_megabyte_uncompressed(self, rule, deliver):
        rule.max_bytes = 1_000_000
        assert deliver(sink(rule), 40, text="ü" * 30_000) == [D] * 40
        assert {type(request.body) for request in rule.seen} == {bytes}
        longest = max(len(request.body) for request in rule.seen)
        assert 700_000 < longest <= 1_000_000

    def test_a_record_of_the_largest_size_goes_whole(self, rule):
        made = sink(rule)
        row = json.loads(payload(made))
        columns = [c["name"] for c in COLUMNS["AlertBeam_CL"] if c["type"] == "string"]
        row |= {name: "x" * 32_000 for name in columns if name != "EventId"}
        body = json.dumps(row).encode()
        rule.max_bytes = len(body) + 2
        assert isinstance(send(made, body), Accepted)
        rule.max_bytes -= 1
        assert isinstance(send(made, body), Shrink)


class TestAnswers:
    @pytest.mark.parametrize(
        ("fault", "verdict", "said"),
        [
            (Takes(200), Accepted, "HTTP 200"),
            (Answer(200, text="<html>"), Stop, "no answer of the Logs Ingestion API"),
            (Answer(400, text="malformed JSON"), Split, "InvalidPayload: malformed JSON"),
            (Coded("InvalidStream"), Stop, "InvalidStream.*declared there"),
            (Coded("InvalidDcrImmutableId"), Stop, "InvalidDcrImmutableId.*that of `rule`"),
            (Coded("NotFound", 404), Stop, "NotFound.*that of `rule`"),
            (Answer(401), Refresh, "AuthenticationFailed"),
            (Answer(403), Stop, "Monitoring Metrics Publisher on the rule"),
            (Answer(413), Shrink, "ContentLengthLimitExceeded"),
            (Answer(429), Retry, "TooManyRequests"),
            (Answer(500), Retry, "HTTP 500"),
        ],
    )
    def test_what_an_answer_means(self, rule, fault, verdict, said):
        rule.fail(fault)
        found = send(sink(rule))
        assert type(found) is verdict
        assert re.search(said, getattr(found, "said", "") or getattr(found, "reason", ""))

    def test_the_pause_that_it_asks_for_is_kept(self, rule):
        rule.fail(Answer(429, headers=(("Retry-After", "7"),)))
        found = send(sink(rule))
        assert isinstance(found, Retry)
        assert found.after == 7

    def test_an_answer_that_is_no_json_is_told_by_its_header(self, rule):
        rule.fail(Coded("InvalidStream", bare=True))
        assert "HTTP 400: InvalidStream: Bad Request: " in str(send(sink(rule)))

    def test_a_quoted_token_is_not_repeated_not_even_in_part(self, rule, monkeypatch):
        rule.fail(Quotes())
        rule.entra.secret = "s3cret" * 60
        monkeypatch.setenv("SECRET", rule.entra.secret)
        found = send(sink(rule))
        assert isinstance(found, Stop)
        assert "***" in found.reason
        assert "s3crets3cret" not in found.reason

    def test_a_role_that_is_missing_stops_it_until_it_is_there(self, rule):
        rule.granted = False
        made = sink(rule)
        engine = Engine(made, cool_down=(0.03, 0.1))
        sent = parcels(made, range(3))
        engine.submit(sent)
        engine.settle()
        assert [parcel.outcome for parcel in sent] == [OWED] * 3
        assert "Monitoring Metrics Publisher" in (sent[0].reason or "")
        rule.granted = True
        until = time.monotonic() + 5
        while engine.status().circuit == "open":
            assert time.monotonic() < until
            time.sleep(0.01)
        engine.close()


class TestTokens:
    def test_a_revoked_token_is_replaced_once(self, rule, deliver):
        made = sink(rule)
        engine = Engine(made, cool_down=(0.03, 0.1))
        for start in (0, 5):
            sent = parcels(made, range(start, start + 5))
            engine.submit(sent)
            engine.settle()
            assert [parcel.outcome for parcel in sent] == [D] * 5
            rule.entra.revoke()
        assert engine.status().openings == 0
        assert len(rule.entra.asked) == 2
        engine.close()

    def test_an_entra_that_is_away_costs_nothing_but_time(self, rule, deliver):
        rule.entra.refuse()
        assert deliver(sink(rule, patience=0.3)) == [OWED] * 3
        assert rule.seen == []
        rule.entra.accept()
        assert deliver(sink(rule)) == [D] * 3

    def test_an_entra_that_refuses_is_told(self, rule, monkeypatch):
        monkeypatch.setenv("SECRET", "another")
        found = send(sink(rule))
        assert isinstance(found, Refresh)
        assert "AADSTS7000215" in found.reason

    def test_an_entra_that_is_silent_is_given_up_in_time(self, rule):
        rule.entra.fail(Silence())
        started = time.monotonic()
        with pytest.raises(OSError, match="no token"):
            send(sink(rule, timeout=0.4))
        assert time.monotonic() - started < 2

    def test_neither_secret_nor_token_is_pickled_or_shown(self, rule):
        made = sink(rule)
        send(made)
        token = rule.seen[0].headers["authorization"].removeprefix("Bearer ")
        packed = pickle.dumps(made)
        assert SECRET.encode() not in packed
        assert token.encode() not in packed
        assert SECRET not in repr(made.settings)


class TestCheck:
    def test_it_says_what_it_found_and_sends_no_record(self, rule):
        assert sink(rule).check(2.0) == (
            "Entra gives a token; the answer to a request without a record is HTTP 204: No Content"
        )
        assert rule.seen[0].body == b"[]"
        assert rule.received == 0

    @pytest.mark.parametrize("status", [400, 500])
    def test_an_answer_about_the_missing_record_is_one_of_a_service_that_is_up(self, rule, status):
        rule.fail(Answer(status))
        sink(rule).probe(2.0)

    @pytest.mark.parametrize(
        "fault",
        [*(Answer(status) for status in (401, 403, 404, 429, 503)), Coded("InvalidStream")],
    )
    def test_any_other_answer_is_one_of_a_service_that_is_not(self, rule, fault):
        rule.fail(fault)
        with pytest.raises(ConnectionError, match="HTTP"):
            sink(rule).probe(2.0)

    def test_a_wrong_secret_is_told(self, rule, monkeypatch):
        monkeypatch.setenv("SECRET", "another")
        with pytest.raises(SecretError, match="AADSTS7000215"):
            sink(rule).check(2.0)


class TestDouble:
    """It refuses what the service would drop, cut or refuse."""

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b'{"EventId": "x"}', "an array is expected"),
            (b'["x"]', "an array of objects"),
            (b'[{"EventId": "x"}', "Malformed"),
            (b'[{"EventId": NaN}]', "not JSON"),
            (b'[{"EventId": "x", "EventId": "y"}]', "twice"),
            (b'[{"Title": "x"}]', "does not declare"),
            (b'[{"EventId": 1}]', "no string"),
            (b'[{"RawEventBytes": "1"}]', "no int"),
            (b'[{"EventTime": "yesterday"}]', "no datetime"),
            (b'[{"RawEvent": "' + b"x" * 65_537 + b'"}]', "longer than 64 KB"),
            (b'[{"Entities": ["' + b"x" * 65_537 + b'"]}]', "longer than 64 KB"),
        ],
    )
    def test_a_body_that_is_not_what_the_stream_declares(self, rule, body, why):
        found = send_body(rule, body)
        assert found[0] == 400
        assert why in found[1]
        assert rule.received == 0

    def test_an_empty_body_is_an_error_of_its_own(self, rule):
        assert send_body(rule, b"")[0] == 500

    def test_more_than_a_megabyte(self, rule):
        assert send_body(rule, b"[" + b" " * 1_048_576 + b"]")[0] == 413

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            ({"path": "/dataCollectionRules/x"}, 404),
            ({"path": f"/dataCollectionRules/dcr-{'1' * 32}/streams/Custom-AlertBeam_CL"}, 404),
            ({"query": {}}, 400),
            ({"headers": {"authorization": "Bearer x"}}, 401),
            ({"method": "PUT"}, 405),
        ],
    )
    def test_another_request(self, rule, change, status):
        send(sink(rule))
        asked = dataclasses.replace(rule.seen[0], **change)
        assert rule.respond(asked).status == status


def send_body(rule: Rule, body: bytes) -> tuple[int, str]:
    """The answer to any body, from whoever has a token."""
    bearer = Bearer(sink(rule).settings.credential, SCOPE)
    headers = {"Authorization": bearer.header(), "Content-Type": "application/json"}
    bearer.close()
    path = f"/dataCollectionRules/{RULE}/streams/Custom-AlertBeam_CL?api-version=2023-01-01"
    asked = urllib.request.Request(rule.url + path, body, headers, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
