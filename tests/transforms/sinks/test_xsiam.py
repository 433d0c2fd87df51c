"""The XSIAM sink against a strict collector: its settings, forms, codes, and what it says."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import Answer
from schemas.formats import FORMATS
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.xsiam import Collector, Saying
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Stop, Verdict
from transforms.sinks.xsiam import Xsiam, XsiamSettings

KEY = "c0ffee-collector-key"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(KEY) as made:
        yield made


def sink(there: Collector | str, **options: Any) -> Xsiam:
    url = there if isinstance(there, str) else there.url
    return Xsiam("siem", XsiamSettings(**{"url": url, "key": "env:KEY", **options}))


def payload(xsiam: Xsiam, number: int = 1, **fields: Any) -> bytes:
    return xsiam.encode(alert(number, **fields), SOURCE, PARTITION)


def send(xsiam: Xsiam, *payloads: bytes) -> Verdict:
    connection = xsiam.connect()
    try:
        return connection.send(payloads or (payload(xsiam),), 0.5)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"url": "http://api-a.example"}, "unencrypted"),
        ({"url": "https://a/logs?key=hunter2"}, "no user, password, query"),
        ({"key": "hunter2"}, "as a reference"),
        ({"key_id": "hunter2"}, "pattern"),
        ({"dataset": 'x | filter "hunter2"'}, "pattern"),
        ({"format": "hunter2"}, "no such format"),
        ({"max_bytes": 10_000_001}, "less than or equal"),
    ],
)
def test_settings_that_are_wrong_are_told_and_not_repeated(given, complaint):
    with pytest.raises(ValidationError, match=complaint) as caught:
        sink("https://a", **given)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["two words", "new\nline", "schlüssel"])
def test_a_key_that_can_be_none_is_told_and_not_repeated(monkeypatch, text):
    monkeypatch.setenv("KEY", text)
    with pytest.raises(SecretError) as caught:
        sink("https://a").connect()
    assert text not in str(caught.value)


def test_a_url_without_a_path_means_the_collectors(collector):
    assert sink(collector).settings.url == f"{collector.url}/logs/v1/event"
    assert isinstance(send(sink(collector)), Accepted)


def test_records_are_lines_and_none_is_empty(collector):
    xsiam = sink(collector)
    payloads = [payload(xsiam, n, text=HOSTILE) for n in range(3)]
    assert isinstance(send(xsiam, *payloads), Accepted)
    assert [record["id"] for record in collector.records()] == [identity(n) for n in range(3)]
    assert collector.received == 3


def test_what_the_collector_is_set_to_must_be_what_is_sent(collector):
    verdict = send(sink(collector, gzip=False))
    assert isinstance(verdict, Retry)
    assert "Compression and Log Format" in verdict.reason
    assert isinstance(send(sink(collector, format="leef")), Retry)
    with Collector(KEY, gzip=False) as plain:
        assert isinstance(send(sink(plain, gzip=False)), Accepted)
    with Collector(KEY, form="CEF") as cef:
        assert isinstance(send(sink(cef, format="cef")), Accepted)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_taken_by_a_collector_of_its_kind(name):
    form = "JSON" if FORMATS[name].media_type == "application/json" else "Raw"
    with Collector(KEY, form=form) as made:
        xsiam = sink(made, format=name)
        hostile = {"text": HOSTILE, "alert_type": HOSTILE, "resource": HOSTILE}
        assert isinstance(send(xsiam, payload(xsiam), payload(xsiam, 2, **hostile)), Accepted)
        assert made.received == 2


def test_a_raw_record_over_several_lines_is_one(collector):
    raw = b'{\r\n  "id": "x",\n  "text": "a\\nb"\n}'
    xsiam = sink(collector, format="raw")
    assert isinstance(send(xsiam, payload(xsiam, raw=raw)), Accepted)
    assert collector.records() == [json.loads(raw)]


def test_an_id_is_sent_along_where_one_is_wanted():
    with Collector(KEY, key_id="12") as made:
        assert isinstance(send(sink(made)), Refresh)
        assert isinstance(send(sink(made, key_id="12")), Accepted)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Stop) for status in (302, 307, 400, 403, 404, 405, 422)),
        *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
        (401, Refresh),
        (413, Shrink),
    ],
)
def test_every_status_has_its_meaning(collector, status, verdict):
    collector.fail(Answer(status, text="because"))
    got = send(sink(collector))
    assert isinstance(got, verdict)
    assert got.reason.startswith(f"HTTP {status}: because")


@pytest.mark.parametrize("said", [{"error": "false"}, {"error": False}, {"ok": "true"}])
def test_taken_is_what_any_edition_calls_so(collector, said):
    collector.fail(Saying(said))
    assert isinstance(send(sink(collector)), Accepted)


@pytest.mark.parametrize(
    "said", [b"", b"<html>Sign in</html>", {}, [], {"error": "true"}, {"ok": False}, {"a": "b"}]
)
def test_a_success_that_is_no_collectors_is_none(collector, said):
    collector.fail(Saying(said, taken=False))
    verdict = send(sink(collector))
    assert isinstance(verdict, Stop)
    assert "no answer of a collector" in verdict.reason


def test_the_limits_are_those_of_the_documentation():
    limits = sink("https://a").limits
    assert limits.max_bytes <= 1_048_576
    assert limits.max_record_bytes == 5_000_000
    assert limits.rate.requests == 400


def test_what_is_said_shorter_is_json_with_its_id():
    large = alert(1, text="x" * 100_000)
    said = sink("https://a").shrink(large, SOURCE, PARTITION, 2_000)
    assert said is not None
    assert json.loads(said)["id"] == identity(1)
    assert sink("https://a").shrink(large, SOURCE, PARTITION, 20) is None
    assert sink("https://a", format="cef").shrink(large, SOURCE, PARTITION, 2_000) is None


def test_the_key_shows_nowhere(collector):
    collector.fail(Answer(403, text=f"{KEY} may not"))
    xsiam = sink(collector)
    connection = xsiam.connect()
    verdict = connection.send([payload(xsiam)], 0.5)
    connection.close()
    shown = f"{verdict!r} {xsiam!r} {xsiam.settings!r} {connection!r} {pickle.dumps(xsiam)!r}"
    assert KEY not in shown
    assert "*** may not" in shown


def test_the_check_sends_nothing_and_says_what_it_does_not_know(collector):
    assert "alertbeam sinks test siem" in sink(collector).check(1)
    assert collector.requests == 0
    collector.refuse()
    with pytest.raises(OSError):
        sink(collector).check(1)


def test_what_to_look_for():
    assert sink("https://a").find("ID") == 'dataset = microsoft_alertbeam_raw | filter id = "ID"'
    cef = sink("https://a", format="cef", dataset="msft_defender_raw")
    assert cef.find("ID") == 'dataset = msft_defender_raw | filter _raw_log contains "ID"'
    assert "ID" not in sink("https://a", format="raw").find("ID")
