"""What only LogRhythm has: who it lets in, its forms, its webhooks' codes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer
from schemas.alert import Alert
from tests.strategies import alerts
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.arcsight import rfc5424_id
from tests.transforms.sinks.doubles.logrhythm import WebhookBeat, json_id
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Split, Stop, Verdict
from transforms.sinks.logrhythm import Logrhythm, LogrhythmSettings


def sink(url: str = "https://oc.example:8085/webhook", **options: Any) -> Logrhythm:
    return Logrhythm("lr", LogrhythmSettings(url=url, **options))


def listener(**options: Any) -> Logrhythm:
    return Logrhythm("lr", LogrhythmSettings(address="agent:6514", **options))


def encode(to: Logrhythm, made: Alert) -> bytes:
    return to.encode(made, SOURCE, PARTITION)


def send(to: Logrhythm) -> Verdict:
    connection = to.connect()
    try:
        return connection.send([encode(to, alert(1, text=HOSTILE))], 1)
    finally:
        connection.close()


@pytest.fixture
def beat() -> Iterator[WebhookBeat]:
    with WebhookBeat() as running:
        yield running


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({}, "give either `address` or `url`"),
            ({"url": "https://a", "format": "cef"}, "a webhook takes JSON alone"),
            ({"url": "https://a", "framing": "octet"}, "`framing` means nothing with `url`"),
            ({"address": "a:1", "token": "env:T"}, "`token` means nothing with `address`"),
            ({"address": "a:1", "max_bytes": 70_000}, "65,000 bytes at most"),
            (
                {"url": "https://a", "token": "env:T", "credentials": "env:C"},
                "either `credentials` or `token`",
            ),
            ({"url": "https://a", "token_header": "X: y\r\n"}, "string_pattern|should match"),
            ({"url": "http://oc.example:8085/webhook"}, "unencrypted"),
        ],
    )
    def test_what_cannot_be_is_refused(self, given, why):
        with pytest.raises(ValidationError, match=why):
            LogrhythmSettings(**given)

    def test_where_it_leads(self):
        assert sink("https://axon.example/collect/5ecret").target == "https://axon.example"


class TestWebhook:
    def test_an_open_collector_wants_no_credentials(self, beat):
        assert isinstance(send(sink(f"{beat.url}/webhook")), Accepted)
        assert beat.ids() == [identity(1)]

    def test_a_token(self, beat, monkeypatch):
        monkeypatch.setenv("TOKEN", "t0ken")
        beat.authorization = "Bearer t0ken"
        assert isinstance(send(sink(f"{beat.url}/webhook", token="env:TOKEN")), Accepted)
        assert isinstance(send(sink(f"{beat.url}/webhook")), Refresh)

    def test_a_token_in_a_header_of_its_own_is_sent_as_it_is(self, beat, monkeypatch):
        seen: list[Any] = []
        monkeypatch.setattr(beat, "respond", lambda request, well=beat.respond: (
            seen.append(request.headers), well(request))[1])  # fmt: skip
        monkeypatch.setenv("TOKEN", "t0ken")
        send(sink(f"{beat.url}/webhook", token="env:TOKEN", token_header="X-Api-Key"))
        assert seen[0]["x-api-key"] == "t0ken"
        assert "authorization" not in seen[0]

    def test_a_user_and_a_password(self, beat, monkeypatch):
        monkeypatch.setenv("USER_PASSWORD", "ann:p:w")
        beat.authorization = f"Basic {base64.b64encode(b'ann:p:w').decode()}"
        to = sink(f"{beat.url}/webhook", credentials="env:USER_PASSWORD")
        assert isinstance(send(to), Accepted)

    @pytest.mark.parametrize("wrong", ["no-colon", ":nobody", "ann:p\r\nX: y", "ann:ü"])
    def test_credentials_of_another_form_are_told_and_not_repeated(self, monkeypatch, wrong):
        monkeypatch.setenv("USER_PASSWORD", wrong)
        with pytest.raises(SecretError) as caught:
            sink(credentials="env:USER_PASSWORD").connect()
        assert "env:USER_PASSWORD" in str(caught.value)
        assert wrong not in str(caught.value)

    @pytest.mark.parametrize("quoted", ["ann:hunter2", "hunter2", "YW5uOmh1bnRlcjI="])
    def test_credentials_that_it_quotes_are_not_repeated(self, beat, monkeypatch, quoted):
        monkeypatch.setenv("USER_PASSWORD", "ann:hunter2")
        beat.fail(Answer(403, text=f"{quoted} may not"))
        verdict = send(sink(f"{beat.url}/webhook", credentials="env:USER_PASSWORD"))
        assert isinstance(verdict, Stop)
        assert "*** may not" in verdict.reason

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            *((status, Stop) for status in (301, 403, 404, 405)),
            *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
            *((400, Split), (401, Refresh), (413, Shrink), (422, Split)),
        ],
    )
    def test_what_http_says_is_understood(self, beat, status, verdict):
        beat.fail(Answer(status))
        assert isinstance(send(sink(f"{beat.url}/webhook")), verdict)
        assert beat.ids() == []

    def test_what_it_finds_too_large_is_said_shorter_without_the_record(self):
        to, made = sink(), alert(1, text="x" * 2000)
        whole, shorter = encode(to, made), to.shrink(made, SOURCE, PARTITION, 2000)
        assert shorter is not None
        assert len(shorter) <= 2000 < len(whole)
        assert "original_message" in json.loads(whole)
        assert json_id(shorter) == identity(1)
        assert to.shrink(made, SOURCE, PARTITION, 100) is None
        assert to.shrink(made, SOURCE, PARTITION, 9000) is None, "it was as short as that"
        assert listener().shrink(made, SOURCE, PARTITION, 2000) is None


class TestEvents:
    def test_the_log_source_bears_the_name_that_is_set(self):
        said = json.loads(encode(sink(beat="webhookbeat_soc"), alert(1)))
        assert said["fullyqualifiedbeatname"] == "webhookbeat_soc"
        assert said["session"] == identity(1)
        assert identity(1) in sink().find(identity(1))

    @given(alerts())
    def test_any_alert_reads_back_in_every_form(self, made):
        assert json_id(encode(sink(), made)) == made.event_id
        text = encode(listener(), made)
        assert json_id(text[text.index(b"{") :]) == made.event_id
        assert len(text) <= 8000
        assert rfc5424_id(encode(listener(format="cef"), made)) == made.event_id

    def test_cef_is_found_by_its_external_id(self):
        found = listener(format="cef").find(identity(1))
        assert f"externalId={identity(1)}" in found
        assert f"externalId={identity(1)}" in encode(listener(format="cef"), alert(1)).decode()


@pytest.mark.parametrize(
    "forged",
    [
        b"[]",
        b'{"whsdp":true,"fullyqualifiedbeatname":"webhookbeat_a"}',
        b'{"whsdp":1,"fullyqualifiedbeatname":"webhookbeat_a","session":"%b"}' % (b"0" * 32),
        b'{"whsdp":true,"fullyqualifiedbeatname":"other","session":"%b"}' % (b"0" * 32),
        b'{"whsdp":true,"fullyqualifiedbeatname":"webhookbeat_a","session":"%b","x":{}}'
        % (b"0" * 32),
        b'{"whsdp":true,"fullyqualifiedbeatname":"webhookbeat_a","session":"%b","sport":"1"}'
        % (b"0" * 32),
    ],
)
def test_the_double_refuses_what_is_not_flat_or_not_of_the_schema(forged):
    with pytest.raises((ValueError, KeyError)):
        json_id(forged)
