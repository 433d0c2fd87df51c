"""The Logz.io sink against a strict listener: lines that it takes, and what a 400 leaves open."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Reply
from schemas.alert import Alert
from schemas.formats.logz_io import LINE_BYTES, logz_io
from schemas.receipt import Outcome
from tests.strategies import alerts
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.base import MARKER
from tests.transforms.sinks.doubles.logz_io import Listener, Refuses, why_invalid
from transforms.delivery.engine import Engine
from transforms.delivery.parcel import Parcel
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Stop,
    Verdict,
)
from transforms.sinks.logz_io import LogzIo, LogzIoSettings

TOKEN = "hunter2+hunter2/token"  # it needs escaping
D, DEAD = Outcome.DELIVERED, Outcome.DEAD


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(TOKEN) as made:
        yield made


def sink(url: str = "https://listener.logz.io", **options: Any) -> LogzIo:
    given = {"url": url, "token": "env:TOKEN", "patience": 0.5, "timeout": 0.3, **options}
    return LogzIo("logz", LogzIoSettings(**given))


def lines(count: int, marked: tuple[int, ...] = ()) -> list[bytes]:
    made = [alert(n, text=MARKER if n in marked else "x" * len(MARKER)) for n in range(count)]
    return [logz_io(each) for each in made]


def send(to: Listener, *payloads: bytes) -> Verdict:
    """What one request comes to."""
    connection = sink(to.url).connect()
    try:
        return connection.send(payloads or lines(1), 0.3)
    finally:
        connection.close()


def counted(malformed: int = 0, oversized: int = 0, empty: int = 0, successful: int = 0) -> Reply:
    return Reply(
        400,
        {
            "malformedLines": malformed,
            "oversizedLines": oversized,
            "emptyLogLines": empty,
            "successfulLines": successful,
        },
    )


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Parcel]]]:
    engines: list[Engine] = []

    def run(logz: LogzIo, sent: list[Parcel]) -> list[Parcel]:
        engines.append(Engine(logz, cool_down=(0.03, 0.1)))
        engines[-1].submit(sent)
        engines[-1].settle()
        return sent

    yield run
    for engine in engines:
        engine.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            ("https://listener.logz.io", "https://listener.logz.io:8071"),
            ("https://listener-eu.logz.io:8071/", "https://listener-eu.logz.io:8071"),
            ("https://proxy.example:443", "https://proxy.example:443"),
        ],
    )
    def test_a_listener_without_a_port_means_the_one_with_tls(self, url, meant):
        assert sink(url).settings.url == meant

    @pytest.mark.parametrize(
        "given",
        [
            {"url": "http://listener.logz.io:8070"},
            {"url": "https://listener.logz.io:8071?token=hunter2"},
            {"url": "https://listener.logz.io:8071/hunter2"},
            {"token": "hunter2"},
            {"log_type": "two words"},
            {"log_type": "a&token=hunter2"},
            {"log_type": ""},
            {"max_bytes": 10_485_761},
        ],
    )
    def test_what_cannot_be_is_refused_without_repeating_what_may_be_secret(self, given):
        with pytest.raises(ValidationError) as caught:
            sink(**given)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("value", ["hunter2\r\nHost: x", "hunter2 hunter2", "hünter2"])
    def test_a_token_that_would_forge_a_request_is_not_sent(self, monkeypatch, value):
        monkeypatch.setenv("TOKEN", value)
        with pytest.raises(SecretError, match="env:TOKEN: ") as caught:
            sink().connect()
        assert "hunter2" not in str(caught.value)

    def test_the_token_is_in_no_pickle_no_repr_and_no_target(self):
        logz = sink()
        shown = f"{logz!r} {logz.settings!r} {logz.connect()!r} {logz.target} {logz.check!r}"
        assert "hunter2" not in shown + repr(pickle.dumps(logz))


class TestLines:
    @given(alerts())
    def test_any_alert_is_a_line_that_can_be_searched(self, made: Alert):
        said = logz_io(made)
        assert b"\n" not in said
        assert len(said) <= LINE_BYTES
        log = json.loads(said)
        assert not why_invalid(log)
        assert log["microsoft"]["event_id"] == made.event_id
        assert bool(log.get("@timestamp")) == bool(made.event_ms or made.enqueued_ms)

    @pytest.mark.parametrize("size", [30_000, 33_000, 200_000, 1_000_000])
    @pytest.mark.parametrize("text", ["x", "ü", '"', "\x00"])
    def test_what_is_too_long_is_cut_and_marked(self, size, text):
        log = json.loads(logz_io(alert(1, text=text * size)))
        assert not why_invalid(log)
        assert log["microsoft"]["event_id"] == identity(1)
        assert log["event"]["original"].startswith('{"SystemAlertId"')
        assert log["tags"] == ["shortened"]

    def test_what_is_not_too_long_is_whole_and_unmarked(self):
        made = alert(1, text=HOSTILE)
        log = json.loads(logz_io(made))
        assert log["event"]["original"].encode() == made.raw
        assert "tags" not in log

    @pytest.mark.parametrize("most", [2_000, 5_000, 20_000, 90_000])
    def test_it_can_be_said_shorter_still(self, most):
        many = {"Entities": [{"Type": "ip", "Address": f"198.51.{n}.7"} for n in range(250)] * 8}
        raw = json.dumps({"SystemAlertId": "x", **many}).encode()
        made = alert(1, text="x" * 90_000, raw=raw)
        said = logz_io(made, most)
        assert len(said) <= most
        assert json.loads(said)["microsoft"]["event_id"] == identity(1)

    def test_what_cannot_be_said_at_all_is_told(self):
        with pytest.raises(ValueError, match="its fields alone need"):
            logz_io(alert(1, text="x" * 90_000), 100)
        assert sink().shrink(alert(1), SOURCE, PARTITION, 100) is None

    def test_the_type_stands_in_the_request_alone(self, listener):
        assert isinstance(send(listener, *lines(3)), Accepted)
        assert listener.types == {"alertbeam"}
        assert listener.ids() == [identity(n) for n in range(3)]


class TestPartial:
    """A 400: some lines were taken, and it does not say which."""

    def test_a_line_that_is_malformed_alone_is_dead(self, listener):
        listener.fail(Refuses("malformed"))
        verdict = send(listener, *lines(1, marked=(0,)))
        assert isinstance(verdict, RejectItems)
        assert [*verdict.reasons] == [0]
        assert "of 1 lines 0 were taken, 1 malformed" in verdict.reasons[0]

    def test_a_line_that_is_oversized_alone_is_said_shorter(self, listener):
        listener.fail(Refuses("oversized"))
        assert isinstance(send(listener, *lines(1, marked=(0,))), Shrink)

    def test_oversized_lines_are_known_by_their_length(self, listener, monkeypatch):
        monkeypatch.setattr(listener, "respond", lambda _: counted(oversized=2, successful=3))
        verdict = send(listener, b"{1}", b"{12345}", b"{12}", b"{1234}", b"{123}")
        assert isinstance(verdict, RejectItems)
        assert sorted(verdict.reasons) == [1, 3]
        assert verdict.taken
        assert not verdict.again

    @pytest.mark.parametrize(
        ("reply", "payloads"),
        [
            (counted(malformed=1, successful=2), (b"{1}", b"{12}", b"{123}")),
            (counted(malformed=1, oversized=1, successful=1), (b"{1}", b"{12}", b"{123}")),
            (counted(empty=1, successful=2), (b"{1}", b"{12}", b"{123}")),
            (counted(oversized=1, successful=2), (b"{1}", b"{123}", b"{123}")),
            (counted(oversized=1, successful=7), (b"{1}", b"{12}", b"{123}")),
        ],
    )
    def test_where_it_stays_unknown_all_are_dead_and_say_so_and_none_comes_again(
        self, listener, monkeypatch, reply, payloads
    ):
        monkeypatch.setattr(listener, "respond", lambda _: reply)
        verdict = send(listener, *payloads)
        assert isinstance(verdict, RejectItems)
        assert sorted(verdict.reasons) == [0, 1, 2]
        assert all("may have been taken" in why for why in verdict.reasons.values())
        assert verdict.taken
        assert not verdict.again

    def test_where_none_was_taken_none_may_have_been(self, listener, monkeypatch):
        monkeypatch.setattr(listener, "respond", lambda _: counted(malformed=3))
        verdict = send(listener, *lines(3))
        assert isinstance(verdict, RejectItems)
        assert sorted(verdict.reasons) == [0, 1, 2]
        assert not any("may have been" in why for why in verdict.reasons.values())

    def test_where_all_were_oversized_they_are_said_shorter(self, listener, monkeypatch):
        monkeypatch.setattr(listener, "respond", lambda _: counted(oversized=3))
        assert isinstance(send(listener, *lines(3)), Shrink)

    def test_a_400_with_nothing_wrong_is_a_warning(self, listener, monkeypatch):
        monkeypatch.setattr(listener, "respond", lambda _: counted(successful=3))
        verdict = send(listener, *lines(3))
        assert isinstance(verdict, Accepted)
        assert verdict.warning

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"malformedLines":"x"}'])
    def test_a_400_that_counts_nothing_is_about_the_settings(self, listener, monkeypatch, body):
        monkeypatch.setattr(listener, "respond", lambda _: Reply(400, body))
        assert isinstance(send(listener, *lines(3)), Stop)

    def test_nothing_is_lost_nothing_comes_twice_and_each_dead_letter_says_why(
        self, listener, deliver
    ):
        listener.fail(Refuses("malformed"))
        logz = sink(listener.url)
        sent = parcels(logz, range(10))
        sent[4] = parcels(logz, range(4, 5), text=MARKER)[0]
        assert [parcel.outcome for parcel in deliver(logz, sent)] == [DEAD] * 10
        assert listener.ids() == [identity(n) for n in range(10) if n != 4]
        assert all("which ones it does not say" in parcel.reason for parcel in sent)
        assert listener.requests == 1


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            (200, Accepted),
            (401, Refresh),
            (413, Shrink),
            *((status, Stop) for status in (201, 204, 302, 400, 403, 404, 405, 422)),
            *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
        ],
    )
    def test_every_status_has_its_meaning(self, listener, status, verdict):
        listener.fail(Answer(status))
        assert isinstance(send(listener), verdict)

    @pytest.mark.parametrize("quoted", [TOKEN, "hunter2%2Bhunter2%2Ftoken"])
    def test_a_token_that_is_repeated_is_not_told(self, listener, quoted):
        listener.fail(Answer(403, text=f"<h1>no</h1>\x1b /?token={quoted}&type=x"))
        verdict = send(listener)
        assert isinstance(verdict, Stop)
        assert "hunter2" not in verdict.reason
        assert verdict.reason == "HTTP 403: no /?token=***&type=x"

    def test_a_wrong_token_is_told_to_be_of_this_region(self, listener):
        listener.token = "another"
        verdict = send(listener)
        assert isinstance(verdict, Refresh)
        assert verdict.reason == (
            "HTTP 401: Logging token is not valid: `token` is to be a log shipping token of an "
            "account in this region"
        )


def test_the_check_sends_an_empty_line_which_is_no_log(listener):
    assert sink(listener.url).check(1) == "the listener answers; it knows the token"
    assert listener.answers == [(400, counted(empty=1).body)]
    assert listener.ids() == []
    listener.token = "another"
    with pytest.raises(OSError, match="Logging token is not valid"):
        sink(listener.url).check(1)


def test_what_to_search_for():
    assert sink().find("the-id") == 'search type:"alertbeam" AND microsoft.event_id:"the-id"'
