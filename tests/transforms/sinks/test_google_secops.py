"""The Google SecOps sink against a strict double: logs, log types, refusals, Google's tokens."""

from __future__ import annotations

import base64
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Poison, Reply
from schemas.alert import Alert
from schemas.receipt import Outcome
from tests.strategies import alerts
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcel
from tests.transforms.sinks.doubles.base import MARKER
from tests.transforms.sinks.doubles.google_secops import INSTANCE, PROJECT, Chronicle, _key
from transforms.delivery.engine import Engine
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Connection,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Split,
    Stop,
    Verdict,
)
from transforms.sinks.google_secops import GoogleSecops, GoogleSecopsSettings

D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED
POISON = MARKER.encode()


@pytest.fixture
def secops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chronicle]:
    with Chronicle() as made:
        monkeypatch.setenv("KEY", made.account())
        yield made


def sink(to: Chronicle | str, **options: Any) -> GoogleSecops:
    given: dict[str, Any] = {
        "url": to if isinstance(to, str) else to.url,
        "project": PROJECT,
        "instance": INSTANCE,
        "credentials": "env:KEY",
        "patience": 0.5,
        "timeout": 0.3,
    }
    return GoogleSecops("secops", GoogleSecopsSettings(**{**given, **options}))


def logs(to: GoogleSecops, count: int, marked: tuple[int, ...] = ()) -> list[bytes]:
    made = [alert(n, text=MARKER if n in marked else "") for n in range(count)]
    return [to.encode(each, SOURCE, PARTITION) for each in made]


@pytest.fixture
def connected() -> Iterator[Callable[[GoogleSecops], Connection]]:
    made: list[Connection] = []

    def connect(google: GoogleSecops) -> Connection:
        made.append(google.connect())
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def send(google: GoogleSecops, *payloads: bytes) -> Verdict:
    """What one request over a new connection comes to."""
    connection = google.connect()
    try:
        return connection.send(payloads or logs(google, 1), 0.3)
    finally:
        connection.close()


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: list[Engine] = []

    def run(google: GoogleSecops, made: list[Alert]) -> list[Outcome | None]:
        if not engines:
            engines.append(Engine(google, cool_down=(0.03, 0.1)))
        sent = [parcel(google, each) for each in made]
        engines[0].submit(sent)
        engines[0].settle()
        return [each.outcome for each in sent]

    yield run
    for engine in engines:
        engine.close()


class TestSettings:
    @pytest.mark.parametrize(
        "given",
        [
            {"url": "http://chronicle.example"},
            {"url": "https://chronicle.example/v1"},
            {"url": "https://chronicle.example?key=hunter2"},
            {"project": "a/../b"},
            {"instance": "x?y"},
            {"region": "us/../eu"},
            {"credentials": '{"private_key": "hunter2"}'},
            {"log_type": "lower"},
            {"log_type": "A/../B"},
            {"log_types": {"no_such_kind": "WINEVTLOG"}},
            {"log_types": {"windows_event": "x"}},
            {"labels": {"a b": "c"}},
            {"namespace": "a\nb"},
            {"forwarder": "a/b"},
            {"max_bytes": 4_000_001},
        ],
    )
    def test_what_cannot_be_is_refused_without_repeating_what_may_be_secret(self, given):
        with pytest.raises(ValidationError) as caught:
            sink("https://chronicle.example", **given)
        assert "hunter2" not in str(caught.value)

    def test_the_endpoint_is_the_regions_unless_another_is_given(self):
        assert (
            "https://europe-west2-chronicle.googleapis.com,"
            in sink("", region="europe-west2").target
        )
        other = "https://chronicle.eu.rep.googleapis.com"
        assert f"{other}, instance {INSTANCE} of {PROJECT}" == sink(f"{other}/").target

    @pytest.mark.parametrize(
        "value",
        [
            "hunter2",
            "[]",
            "{}",
            '{"type": "service_account", "private_key": "hunter2", "client_email": "a", '
            '"token_uri": "https://oauth2.googleapis.com/token"}',
        ],
    )
    def test_a_key_that_is_none_is_told_without_repeating_it(self, secops, monkeypatch, value):
        monkeypatch.setenv("KEY", value)
        for use in (sink(secops).connect, lambda: sink(secops).check(1)):
            with pytest.raises(SecretError, match="env:KEY: it is not the JSON key") as caught:
                use()
            assert "hunter2" not in str(caught.value)

    def test_a_key_does_not_go_to_anybody_unencrypted(self, secops, monkeypatch):
        key = {**json.loads(secops.account()), "token_uri": "http://tokens.example/token"}
        monkeypatch.setenv("KEY", json.dumps(key))
        with pytest.raises(SecretError, match="env:KEY"):
            sink(secops).connect()

    def test_a_package_that_is_missing_is_told(self, secops, monkeypatch):
        monkeypatch.setitem(sys.modules, "google.oauth2.service_account", None)
        with pytest.raises(SecretError, match="pip install google-auth"):
            sink(secops).check(1)

    def test_without_a_key_the_environments_credentials_are_used(
        self, secops, monkeypatch, tmp_path: Path
    ):
        file = tmp_path / "key.json"
        file.write_text(secops.account(), encoding="utf-8")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        assert isinstance(send(sink(secops, credentials=None)), Accepted)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        with pytest.raises(SecretError, match="Application Default Credentials"):
            sink(secops, credentials=None).connect()


class TestLogs:
    def test_a_log_is_the_record_in_base64_with_its_times(self):
        made = alert(1, text=HOSTILE)
        log_type, _, said = sink("").encode(made, SOURCE, PARTITION).partition(b" ")
        assert log_type == b"MICROSOFT_DEFENDER_CLOUD_ALERTS"
        log = json.loads(said)
        record = json.loads(base64.b64decode(log.pop("data")))
        assert record["Description"] == HOSTILE
        assert record["alertbeam_id"] == identity(1)
        assert log == {
            "logEntryTime": "2026-09-21T14:13:20.001Z",
            "collectionTime": "2026-09-21T14:13:20.501Z",
        }

    @given(alerts())
    def test_any_alert_is_collected_after_it_was_entered(self, made: Alert):
        log = json.loads(sink("").encode(made, SOURCE, PARTITION).partition(b" ")[2])
        assert "1970" <= log["logEntryTime"] < log["collectionTime"] < "2101"

    @pytest.mark.parametrize(
        ("kind", "log_type"),
        [
            ("defender_alert", "MICROSOFT_DEFENDER_CLOUD_ALERTS"),
            ("graph_alert", "MICROSOFT_GRAPH_ALERT"),
            ("security_incident", "MICROSOFT_SENTINEL"),
            ("entra_log", "SPECIAL"),
            ("windows_event", "WINEVTLOG"),
            ("unknown", "OTHER"),
        ],
    )
    def test_the_log_type_is_the_settings_else_the_kinds_else_the_default(self, kind, log_type):
        types = {"windows_event": "WINEVTLOG", "entra_log": "SPECIAL", "unknown": "OTHER"}
        said = sink("", log_types=types).encode(alert(1, kind=kind), SOURCE, PARTITION)
        assert said.partition(b" ")[0].decode() == log_type

    def test_namespace_labels_and_forwarder_are_said(self, secops):
        google = sink(secops, namespace="corp", labels={"tenant": "contoso"}, forwarder="abc-1")
        assert isinstance(send(google), Accepted)
        ((_, (log,)),) = secops.batches
        assert log["environmentNamespace"] == "corp"
        assert log["labels"] == {"tenant": {"value": "contoso"}}

    @pytest.mark.parametrize("forwarder", ["", "abc-1"])
    def test_a_full_request_holds_the_bytes_that_it_may(self, secops, monkeypatch, forwarder):
        sizes = []
        respond = secops.respond
        monkeypatch.setattr(
            secops, "respond", lambda asked: (sizes.append(len(asked.body)), respond(asked))[1]
        )
        google = sink(secops, max_bytes=10_000, forwarder=forwarder)
        payloads, size = [], 0
        for payload in logs(google, 100):
            if size + len(payload) + google.separator_bytes > google.limits.max_bytes:
                break
            payloads.append(payload)
            size += len(payload) + google.separator_bytes
        assert isinstance(send(google, *payloads), Accepted)
        assert 8_000 < sizes[-1] <= 10_000

    def test_a_log_of_more_than_a_megabyte_is_said_shorter(self, secops, deliver):
        google = sink(secops, patience=5, timeout=5)
        made = [alert(n, text="x" * 700_000 if n == 1 else "") for n in range(3)]
        assert deliver(google, made) == [D] * 3
        assert sorted(secops.ids()) == sorted(identity(n) for n in range(3))
        assert [record.get("shortened", False) for record in secops.records()].count(True) == 1

    def test_a_repeat_makes_no_second_log(self, secops):
        google = sink(secops)
        for _ in range(3):
            assert isinstance(send(google, *logs(google, 5)), Accepted)
        assert secops.ids() == [identity(n) for n in range(5)]


class TestSeveralTypes:
    KINDS = ("defender_alert", "graph_alert", "entra_log")

    def made(self, google: GoogleSecops, text: str = "") -> list[bytes]:
        kinds = [self.KINDS[n % 3] for n in range(9)]
        texts = [text if n == 4 else "" for n in range(9)]
        made = [alert(n, kind=kind, text=texts[n]) for n, kind in enumerate(kinds)]
        return [google.encode(each, SOURCE, PARTITION) for each in made]

    def test_each_type_has_a_request_of_its_own(self, secops):
        google = sink(secops)
        assert isinstance(send(google, *self.made(google)), Accepted)
        assert [(log_type, len(batch)) for log_type, batch in secops.batches] == [
            ("MICROSOFT_DEFENDER_CLOUD_ALERTS", 3),
            ("MICROSOFT_GRAPH_ALERT", 3),
            ("AZURE_AD", 3),
        ]

    @pytest.mark.parametrize("numbered", [True, False])
    def test_what_is_refused_of_one_type_concerns_no_other(self, secops, deliver, numbered):
        secops.fail(Poison(POISON, numbered))
        google = sink(secops, patience=5)
        made = [alert(n, kind=self.KINDS[n % 3], text=MARKER if n == 4 else "") for n in range(9)]
        outcomes = deliver(google, made)
        assert outcomes == [DEAD if n == 4 else D for n in range(9)]
        assert sorted(secops.ids()) == sorted(identity(n) for n in range(9) if n != 4)

    def test_only_what_was_not_taken_comes_again(self, secops, connected):
        google = sink(secops)
        connection = connected(google)
        unwell = iter([None, Answer(503)])
        secops.failed = lambda *_: (  # type: ignore[method-assign]
            secops.refused(fault) if (fault := next(unwell, None)) else None
        )
        secops.fail(Poison(b"x"))
        verdict = connection.send(self.made(google), 0.3)
        assert isinstance(verdict, RejectItems)
        assert (verdict.taken, dict(verdict.reasons)) == (True, {})
        assert sorted(verdict.again) == [1, 2, 4, 5, 7, 8]

    def test_a_connection_that_breaks_between_two_of_them_loses_nothing(self, secops, deliver):
        google = sink(secops, patience=5)
        respond = secops.respond

        def once(request: Any) -> Reply:
            if secops.batches and not broken:
                broken.append(secops.reset())
            return respond(request)

        broken: list[Any] = []
        secops.respond = once  # type: ignore[method-assign]
        made = [alert(n, kind=self.KINDS[n % 3]) for n in range(9)]
        assert deliver(google, made) == [D] * 9
        assert broken
        assert sorted({*secops.ids()}) == sorted(identity(n) for n in range(9))


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            (200, Accepted),
            (401, Refresh),
            *((status, Stop) for status in (204, 302, 403, 404)),
            *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
            (413, Shrink),
        ],
    )
    def test_every_status_has_its_meaning(self, secops, status, verdict):
        secops.fail(Answer(status))
        assert isinstance(send(sink(secops)), verdict)

    def test_googles_own_words_are_told(self, secops):
        secops.fail(Answer(403))
        assert send(sink(secops)) == Stop(
            "HTTP 403: PERMISSION_DENIED: Permission 'chronicle.logs.import' denied on resource."
        )

    def test_a_log_that_is_named_is_dead(self, secops):
        secops.fail(Poison(POISON, numbered=True))
        google = sink(secops)
        verdict = send(google, *logs(google, 5, marked=(3,)))
        assert isinstance(verdict, RejectItems)
        assert [*verdict.reasons] == [3]
        assert not verdict.taken

    @pytest.mark.parametrize("count", [1, 5])
    def test_what_the_settings_may_be_to_blame_for_costs_no_log(self, secops, count):
        """Google answers a wrong region or instance with the same words as a bad log."""
        secops.fail(Answer(400))
        google = sink(secops)
        verdict = send(google, *logs(google, count))
        assert isinstance(verdict, Stop)
        assert "are the settings right?" in verdict.reason

    @pytest.mark.parametrize(
        "text",
        [
            "log type X is not supported",
            "Forwarder not found",
            "invalid parent",
            'Invalid value at "project"',
        ],
    )
    def test_a_400_that_names_a_setting_stops_also_once_logs_were_taken(
        self, secops, connected, text
    ):
        google = sink(secops)
        connection = connected(google)
        assert isinstance(connection.send(logs(google, 1), 0.3), Accepted)
        secops.fail(Answer(400, text=text))
        assert isinstance(connection.send(logs(google, 5), 0.3), Stop)

    def test_once_logs_of_a_type_were_taken_a_400_is_about_logs(self, secops, connected):
        google = sink(secops)
        connection = connected(google)
        assert isinstance(connection.send(logs(google, 1), 0.3), Accepted)
        secops.fail(Answer(400))
        assert isinstance(connection.send(logs(google, 5), 0.3), Split)

    def test_before_that_the_last_log_is_tried_alone(self, secops):
        secops.fail(Poison(POISON))
        google = sink(secops)
        verdict = send(google, *logs(google, 5, marked=(0,)))
        assert isinstance(verdict, RejectItems)
        assert (verdict.taken, dict(verdict.reasons)) == (True, {})
        assert [*verdict.again] == [0, 1, 2, 3]
        assert secops.ids() == [identity(4)]

    def test_so_a_bad_log_is_found_and_the_others_arrive(self, secops, deliver):
        secops.fail(Poison(POISON))
        google = sink(secops, patience=5)
        made = [alert(n, text=MARKER if n in (0, 5) else "") for n in range(10)]
        assert deliver(google, made) == [DEAD if n in (0, 5) else D for n in range(10)]
        assert sorted(secops.ids()) == sorted(identity(n) for n in range(10) if n not in (0, 5))

    def test_a_request_that_is_too_large_is_known_by_googles_words(self, secops):
        secops.max_bytes = 1_500
        google = sink(secops)
        assert isinstance(send(google, *logs(google, 5)), Shrink)

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>",
            b"[]",
            b'"x"',
            b'{"error": "x"}',
            b'{"error": {"details": 1}}',
            b'{"error": {"details": [1, {"fieldViolations": [1, {"field": 2}]}]}}',
            b'{"error": {"details": [{"fieldViolations": [{"field": "logs[99].data"}]}]}}',
            b"[" * 2_000,
        ],
    )
    def test_an_answer_that_is_none_costs_no_log(self, secops, monkeypatch, body):
        grant = secops.respond
        monkeypatch.setattr(
            secops,
            "respond",
            lambda asked: grant(asked) if asked.path == "/token" else Reply(400, body),
        )
        google = sink(secops)
        assert isinstance(send(google, *logs(google, 3)), Stop)


class TestTokens:
    def test_one_serves_a_connection(self, secops, connected):
        google = sink(secops)
        connection = connected(google)
        for n in range(3):
            payload = google.encode(alert(n), SOURCE, PARTITION)
            assert isinstance(connection.send([payload], 0.3), Accepted)
        assert secops.grants == 1

    def test_one_that_is_refused_is_asked_for_anew(self, secops, deliver):
        google = sink(secops, patience=5)
        assert deliver(google, [alert(1)]) == [D]
        secops.tokens.clear()
        assert deliver(google, [alert(2)]) == [D]
        assert (secops.grants, len(secops.ids())) == (2, 2)

    def test_a_key_that_was_replaced_is_read_anew_at_once(self, secops, deliver, monkeypatch):
        google = sink(secops, patience=5)
        assert deliver(google, [alert(1)]) == [D]
        secops.key = _key(2)
        secops.tokens.clear()
        monkeypatch.setenv("KEY", secops.account())
        assert deliver(google, [alert(2)]) == [D]

    def test_a_key_that_google_refuses_owes_everything_until_it_is_replaced(
        self, secops, deliver, monkeypatch
    ):
        monkeypatch.setenv("KEY", secops.account(_key(2)))
        google = sink(secops, patience=5)
        started = time.monotonic()
        assert deliver(google, [alert(1), alert(2)]) == [OWED] * 2
        assert time.monotonic() - started < 1
        with pytest.raises(SecretError, match="Google gives no token: invalid_grant"):
            google.check(1)
        assert secops.ids() == []

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    def test_google_that_gives_none_for_now_is_waited_for_by_the_engine_alone(self, secops, status):
        secops.no_tokens = Answer(status)
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=f"no token: 127.0.0.1 answers HTTP {status}"):
            send(sink(secops))
        assert time.monotonic() - started < 0.5

    @pytest.mark.parametrize("text", ["", "<html>", '"x"', "[]"])
    def test_a_portal_that_answers_instead_of_google_is_told(self, secops, text):
        secops.no_tokens = Answer(200, text=text)
        with pytest.raises(ConnectionError, match="what answers is not Google"):
            send(sink(secops))

    def test_an_answer_without_a_token_is_told(self, secops):
        secops.no_tokens = Answer(200, text="{}")
        verdict = send(sink(secops))
        assert isinstance(verdict, Refresh)
        assert "Google gives no token" in verdict.reason

    def test_neither_key_nor_token_is_in_a_pickle_a_repr_or_a_reason(self, secops, connected):
        google = sink(secops)
        connection = connected(google)
        assert isinstance(connection.send(logs(google, 1), 0.3), Accepted)
        (token,) = secops.tokens
        secops.fail(Answer(403, text=f"{token} has no access"))
        verdict = connection.send(logs(google, 1), 0.3)
        assert isinstance(verdict, Stop)
        shown = f"{google!r} {google.settings!r} {connection!r} {google.target} {verdict!r}"
        shown += repr(pickle.dumps(google))
        assert token not in shown
        assert "PRIVATE KEY" not in shown


class TestCheck:
    def test_an_account_that_may_only_import_is_known_by_what_it_is_denied(self, secops):
        assert sink(secops).check(1).startswith("the credentials are known; they may not see")
        secops.may_see = True
        assert sink(secops).check(1).startswith("the instance is there")
        assert secops.ids() == []

    def test_an_instance_that_is_not_there_is_told(self, secops):
        with pytest.raises(OSError, match="HTTP 404: NOT_FOUND"):
            sink(secops, instance="00000000-0000-4000-8000-000000000000").check(1)


def test_what_to_search_for():
    assert sink("").find("the-id") == 'raw log search: raw = "the-id"'
