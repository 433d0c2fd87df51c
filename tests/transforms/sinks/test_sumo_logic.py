"""The Sumo Logic sink against a strict source: its address, headers, answers and secrets."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Reply, certificate
from schemas.alert import Alert
from schemas.formats.stamped import stamped, stamped_within
from schemas.receipt import Outcome
from tests.strategies import alerts
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.sumo_logic import HttpSource
from transforms.delivery.engine import Engine
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Stop, Verdict
from transforms.sinks.sumo_logic import SumoLogic, SumoLogicSettings

CODE = "ZaVnC4dhaV2hunter2hunter2-_=="
D, OWED = Outcome.DELIVERED, Outcome.OWED


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpSource]:
    with HttpSource(code=CODE) as made:
        monkeypatch.setenv("SUMO", f"{made.url}/receiver/v1/http/{CODE}")
        yield made


def sink(**options: Any) -> SumoLogic:
    given = {"url": "env:SUMO", "patience": 0.5, "timeout": 0.3, **options}
    return SumoLogic("sumo", SumoLogicSettings(**given))


def payload(number: int = 1, **fields: Any) -> bytes:
    return sink().encode(alert(number, **fields), SOURCE, PARTITION)


def send(sumo: SumoLogic, *payloads: bytes) -> Verdict:
    """What one request comes to."""
    connection = sumo.connect()
    try:
        return connection.send(payloads or (payload(),), 0.3)
    finally:
        connection.close()


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: list[Engine] = []

    def run(sumo: SumoLogic, numbers: range) -> list[Outcome | None]:
        if not engines:
            engines.append(Engine(sumo, cool_down=(0.03, 0.1)))
        sent = parcels(sumo, numbers)
        engines[0].submit(sent)
        engines[0].settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines:
        engine.close()


class TestSettings:
    @pytest.mark.parametrize(
        "given",
        [
            {"url": "https://endpoint/receiver/v1/http/hunter2"},
            {"token": "hunter2"},
            {"source_category": "azure\r\nX-Forged: hunter2"},
            {"source_category": "azüre"},
            {"source_name": " name"},
            {"source_host": "host\n"},
            {"source_name": "x" * 1025},
            {"fields": {"a=b": "c"}},
            {"fields": {"a": "b,forged=1"}},
            {"fields": {"a": "b=c"}},
            {"fields": {"a": "b\r\nX-Forged: hunter2"}},
            {"fields": {"a": ""}},
            {"fields": {"a": "x" * 201}},
            {"fields": {f"f{n}": "x" for n in range(31)}},
            {"max_bytes": 2_000_000},
        ],
    )
    def test_what_cannot_be_sent_is_refused_at_once(self, given):
        with pytest.raises(ValidationError) as caught:
            sink(**given)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [
            ("http://endpoint.example/receiver/v1/http/hunter2", "unencrypted"),
            ("https://endpoint.example", "the whole address is needed"),
            ("https://endpoint.example/", "the whole address is needed"),
            ("https://endpoint.example/receiver/v1/http/hunter2?x=1", "no user, password, query"),
            ("https://u:hunter2@endpoint.example/receiver", "no user, password, query"),
            ("https://endpoint.example/hunter2\r\nX-Forged: y", "printable"),
            ("hunter2", "a URL is needed"),
        ],
    )
    def test_an_address_that_cannot_be_one_is_told_without_repeating_it(
        self, monkeypatch, value, complaint
    ):
        monkeypatch.setenv("SUMO", value)
        for use in (sink().connect, lambda: sink().probe(1), lambda: sink().check(1)):
            with pytest.raises(SecretError, match=f"env:SUMO: .*{complaint}") as caught:
                use()
            assert "hunter2" not in str(caught.value)

    def test_a_token_that_would_forge_a_header_is_not_sent(self, source, monkeypatch):
        monkeypatch.setenv("TOKEN", "hunter2\r\nX-Forged: 1")
        with pytest.raises(SecretError, match="env:TOKEN: ") as caught:
            sink(token="env:TOKEN").connect()
        assert "hunter2" not in str(caught.value)


class TestHeaders:
    def test_by_default_only_the_category_that_sumo_logics_own_searches_ask_for(self, source):
        assert isinstance(send(sink()), Accepted)
        assert source.metadata == [{"x-sumo-category": "azure/defender"}]

    def test_the_settings_are_said_of_every_request(self, source):
        sumo = sink(
            source_category="sec ops/azure",
            source_name="alertbeam",
            source_host="hub-1",
            fields={"environment": "prod eu", "team": "soc/1"},
        )
        assert isinstance(send(sumo), Accepted)
        assert source.metadata == [
            {
                "x-sumo-category": "sec ops/azure",
                "x-sumo-name": "alertbeam",
                "x-sumo-host": "hub-1",
                "x-sumo-fields": "environment=prod eu,team=soc/1",
            }
        ]

    def test_what_is_empty_is_left_to_the_source(self, source):
        assert isinstance(send(sink(source_category="")), Accepted)
        assert source.metadata == [{}]

    def test_a_source_with_an_auth_header_is_shown_its_token(self, monkeypatch):
        with HttpSource(token="hunter2") as source:
            monkeypatch.setenv("SUMO", f"{source.url}/receiver/v1/http")
            monkeypatch.setenv("TOKEN", "hunter2")
            assert isinstance(send(sink(token="env:TOKEN")), Accepted)
            monkeypatch.setenv("TOKEN", "another")
            assert isinstance(send(sink(token="env:TOKEN")), Refresh)
            assert isinstance(send(sink()), Refresh)


class TestLogs:
    def test_the_records_own_fields_are_at_the_top_after_its_time_and_id(self, source):
        send(sink(), payload(1), payload(2, text=HOSTILE))
        first, second = source.logs()
        assert [*first][:3] == ["alertbeam_time", "alertbeam_id", "SystemAlertId"]
        assert first["alertbeam_time"] == "2026-09-21T14:13:20.001Z"
        assert second["Description"] == HOSTILE

    @given(alerts())
    def test_any_record_is_one_line_with_all_that_is_in_it(self, made: Alert):
        said = stamped(made)
        assert not re.search("[\n\r\x85\u2028\u2029]", said.decode())
        record = json.loads(said)
        assert record.pop("alertbeam_id") == made.event_id
        assert bool(record.pop("alertbeam_time", "")) == bool(made.event_ms)
        assert record == json.loads(made.raw)

    @pytest.mark.parametrize("raw", [b"{}", b"{ \r\n}", b'{\n"a": {\n"b": 1}\r\n}'])
    def test_line_breaks_between_tokens_go(self, raw):
        record = json.loads(payload(raw=raw))
        assert record.pop("alertbeam_id") == identity(1)
        del record["alertbeam_time"]
        assert record == json.loads(raw)
        assert b"\n" not in payload(raw=raw)

    @pytest.mark.parametrize("name", ["alertbeam_id", r"alertbeam\u005fid", r"\u0061lertbeam_id"])
    def test_a_record_cannot_bear_another_records_id(self, name):
        raw = b'{"%b": "0", "a": {"alertbeam_id": "1"}}' % name.encode()
        pairs = json.loads(payload(raw=raw), object_pairs_hook=list)
        assert [name for name, _ in pairs] == ["alertbeam_time", "alertbeam_id", "a"]
        assert dict(pairs)["alertbeam_id"] == identity(1)

    @pytest.mark.parametrize("most", [300, 1_000, 20_000])
    def test_said_shorter_it_fits_and_keeps_its_id(self, most):
        said = stamped_within(alert(1, text='ü"\x00' * 50_000), most)
        assert most - 200 < len(said) <= most
        assert json.loads(said)["alertbeam_id"] == identity(1)
        assert json.loads(said)["shortened"] is True

    def test_no_request_holds_more_than_it_may_before_compression(self, source, deliver):
        assert deliver(sink(max_bytes=2_000), range(100)) == [D] * 100
        assert source.ids() == [identity(n) for n in range(100)]
        assert source.requests > 10


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            *((status, Accepted) for status in (200, 204)),
            *((status, Stop) for status in (201, 301, 302, 307, 400, 403, 404, 405, 422)),
            *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
            (401, Refresh),
            (413, Shrink),
        ],
    )
    def test_every_status_has_its_meaning(self, source, status, verdict):
        source.fail(Answer(status))
        assert isinstance(send(sink()), verdict)

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (Answer(503), "HTTP 503: service.unavailable: The service is unavailable."),
            (
                Answer(429),
                "HTTP 429: You have temporarily exceeded your Sumo Logic quota. "
                "Please try again at a later time",
            ),
            (Answer(403, text="\x1b[31mred\u202e" + "x" * 500), f"{'x' * 100}"),
        ],
    )
    def test_sumo_logics_own_words_are_told_in_a_line(self, source, answer, said):
        source.fail(answer)
        reason = send(sink()).reason  # type: ignore[union-attr]
        assert said in reason
        assert reason.isprintable()
        assert len(reason) < 250

    def test_what_it_remarks_on_a_request_that_it_took_is_a_warning(self, source, monkeypatch):
        assert send(sink()) == Accepted(said="HTTP 200: OK")
        remark = {"id": "1", "code": "fields", "message": "a field was dropped"}
        monkeypatch.setattr(source, "respond", lambda _: Reply(200, remark))
        said = "HTTP 200: fields: a field was dropped"
        assert send(sink()) == Accepted(warning=said, said=said)

    @pytest.mark.parametrize("quoted", [CODE, f"/receiver/v1/http/{CODE}"])
    def test_an_address_that_is_repeated_is_not_told(self, source, quoted):
        source.fail(Answer(403, text=f"no {quoted} here"))
        verdict = send(sink())
        assert isinstance(verdict, Stop)
        assert "hunter2" not in verdict.reason


class TestAddress:
    def test_a_regenerated_one_is_read_anew_at_once(self, source, deliver, monkeypatch):
        sumo = sink(patience=5)
        assert deliver(sumo, range(3)) == [D] * 3
        source.code = "another"
        monkeypatch.setenv("SUMO", f"{source.url}/receiver/v1/http/another")
        assert deliver(sumo, range(3, 6)) == [D] * 3
        assert source.ids() == [identity(n) for n in range(6)]

    def test_one_that_stays_wrong_owes_everything_and_is_told_to_be(self, source, deliver):
        sumo = sink(patience=5)
        source.code = "another"
        assert deliver(sumo, range(3)) == [OWED] * 3
        assert source.requests == 2
        with pytest.raises(OSError, match="`url` is to be the one it shows now"):
            sumo.check(1)
        source.code = CODE
        assert "it knows its address" in sumo.check(1)
        assert source.ids() == []

    def test_it_is_in_no_pickle_no_repr_and_no_target(self, source):
        sumo = sink()
        connection = sumo.connect()
        shown = f"{sumo!r} {sumo.settings!r} {connection!r} {sumo.target} {pickle.dumps(sumo)!r}"
        assert "hunter2" not in shown
        assert sumo.target == "env:SUMO, category azure/defender"

    def test_it_may_lie_in_a_file(self, source, tmp_path: Path, monkeypatch):
        file = tmp_path / "url"
        file.write_text(f"{source.url}/receiver/v1/http/{CODE}\n", encoding="utf-8")
        assert isinstance(send(sink(url=f"file:{file}")), Accepted)

    def test_over_tls_with_its_own_authority(self, tmp_path: Path, monkeypatch):
        cert, key = certificate(tmp_path)
        with HttpSource(code=CODE, tls=(cert, key)) as source:
            monkeypatch.setenv("SUMO", f"{source.url}/receiver/v1/http/{CODE}")
            assert isinstance(send(sink(tls={"ca": str(cert)})), Accepted)
            with pytest.raises(OSError):
                send(sink())


@pytest.mark.parametrize(
    ("category", "found"),
    [
        ("azure/defender", 'search _sourceCategory=azure/defender "the-id"'),
        ("sec ops", 'search _sourceCategory="sec ops" "the-id"'),
        ("", 'search "the-id"'),
    ],
)
def test_what_to_search_for(category, found):
    assert sink(source_category=category).find("the-id") == found
