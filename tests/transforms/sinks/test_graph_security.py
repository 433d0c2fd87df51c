"""Alerts as Graph has them, to a consumer that knows Graph's schema."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.alert import Alert
from schemas.kinds import understand
from schemas.receipt import Outcome
from tests.examples import EXAMPLES, encoded
from tests.schemas.formats.test_graph import check
from tests.strategies import alerts
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.graph_security import Consumer, examine
from transforms.delivery.engine import Engine
from transforms.sinks.base import Accepted, Refresh, Split, Verdict
from transforms.sinks.graph_security import GraphSecurity, GraphSecuritySettings

KEY = b"a key of 24 bytes or more"
D = Outcome.DELIVERED


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING", KEY.decode())


@pytest.fixture(params=[False, True], ids=["one", "page"])
def consumer(request: pytest.FixtureRequest) -> Iterator[Consumer]:
    with Consumer(KEY, page=request.param) as made:
        yield made


def sink(there: Consumer | str, **options: Any) -> GraphSecurity:
    url = there if isinstance(there, str) else f"{there.url}/hook"
    page = isinstance(there, Consumer) and there.page
    given = {"url": url, "secret": "env:SIGNING", "batch": "page" if page else "one", **options}
    return GraphSecurity("partner", GraphSecuritySettings(**given))


def send(there: GraphSecurity, *payloads: bytes) -> Verdict:
    connection = there.connect()
    try:
        return connection.send(payloads, 2.0)
    finally:
        connection.close()


def said(made: Alert) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sink("https://a").encode(made, SOURCE, PARTITION))
    return found


def from_graph(**changes: Any) -> Alert:
    return understand(encoded(EXAMPLES["graph_alert"].record() | changes))


class TestAlerts:
    def test_one_is_as_graph_has_it_and_bears_its_id(self):
        found = said(alert(1, text=HOSTILE))
        check(found)
        assert found["additionalData"]["event_id"] == identity(1)
        assert found["title"] == HOSTILE

    @pytest.mark.parametrize("kind", EXAMPLES)
    def test_every_kind_becomes_one(self, kind):
        made = understand(encoded(EXAMPLES[kind].record()))
        found = said(made)
        examine(found)
        assert found["additionalData"]["event_id"] == made.event_id

    @given(made=alerts())
    def test_whatever_a_record_says_it_is_one(self, made: Alert) -> None:
        found = said(made)
        examine(found)
        assert found["additionalData"]["event_id"] == made.event_id

    def test_graphs_own_alerts_stay_as_they_are_but_for_the_id(self):
        made = from_graph()
        found = said(made)
        assert found["additionalData"].pop("event_id") == made.event_id
        record = json.loads(made.raw)
        told = {"@odata.type": "#microsoft.graph.security.dictionary"} | (
            record.pop("additionalData", None) or {}
        )
        assert found.pop("additionalData") == told
        assert found == record

    def test_a_member_of_tomorrow_is_passed_on(self):
        assert said(from_graph(detectionSource="somethingNew"))["detectionSource"] == "somethingNew"

    def test_nobody_else_says_the_id(self):
        made = from_graph(additionalData={"event_id": "forged"})
        assert said(made)["additionalData"]["event_id"] == made.event_id

    @pytest.mark.parametrize(
        "broken",
        [
            {"severity": "very\nhigh"},
            {"severity": None},
            {"status": 7},
            {"createdDateTime": "yesterday"},
            {"evidence": [{"verdict": "malicious"}]},
            {"evidence": [{"@odata.type": "text"}]},
            {"mitreTechniques": "T1059"},
            {"title": ["x"]},
            {"additionalData": "text"},
        ],
    )
    def test_an_alert_of_graphs_that_breaks_graphs_schema_is_said_anew(self, broken):
        made = from_graph(**broken)
        found = said(made)
        check(found)
        assert found["id"] == made.entity
        assert found["additionalData"]["event_id"] == made.event_id


class TestRequests:
    def test_alerts_arrive_in_pages_or_one_by_one(self, consumer):
        engine = Engine(sink(consumer, max_records=4, max_bytes=20_000))
        sent = parcels(engine.sink, range(10), HOSTILE)
        engine.submit(sent)
        engine.settle()
        engine.close()
        assert {parcel.outcome for parcel in sent} == {D}
        assert consumer.ids() == [identity(n) for n in range(10)]
        assert consumer.requests == (3 if consumer.page else 10)
        for request in consumer.seen:
            assert len(request.body) <= 20_000
            assert request.headers["content-type"] == "application/json"
            assert ("value" in json.loads(request.body)) is consumer.page

    def test_a_full_page_holds_the_bytes_that_it_may_and_not_one_more(self, consumer):
        there = sink(consumer)
        made = [there.encode(alert(n), SOURCE, PARTITION) for n in range(3 if consumer.page else 1)]
        assert isinstance(send(there, *made), Accepted)
        counted = sum(map(len, made)) + (len(made) - 1) * there.separator_bytes
        most = there.settings.max_bytes
        assert there.limits.max_bytes - counted == most - len(consumer.seen[-1].body)

    def test_the_signature_is_of_the_body(self, consumer, monkeypatch):
        there = sink(consumer)
        payload = there.encode(alert(1), SOURCE, PARTITION)
        monkeypatch.setenv("SIGNING", "another")
        assert isinstance(send(there, payload), Refresh)
        monkeypatch.setenv("SIGNING", KEY.decode())
        assert isinstance(send(there, payload), Accepted)

    @pytest.mark.parametrize(
        "changes",
        [
            {"severity": "critical"},
            {"status": "active"},
            {"serviceSource": "Microsoft Defender for Cloud"},
            {"classification": None},
            {"createdDateTime": "2026-03-04 10:13:14"},
            {"mitreTechniques": "T1059"},
            {"evidence": [{"@odata.type": "#microsoft.graph.security.hostEvidence"}]},
            {"colour": "red"},
        ],
    )
    def test_the_consumer_refuses_what_is_not_graphs(self, consumer, changes):
        wrong = json.dumps(said(alert(1)) | changes).encode()
        assert isinstance(send(sink(consumer), wrong), Split)
        lacking = said(alert(1))
        del lacking["severity"]
        assert isinstance(send(sink(consumer), json.dumps(lacking).encode()), Split)
        assert consumer.ids() == []


class TestShortened:
    @given(made=alerts(), most=st.integers(500, 6_000))
    def test_it_is_an_alert_still_within_the_bytes(self, made: Alert, most: int) -> None:
        found = sink("https://a").shrink(made, SOURCE, PARTITION, most)
        if found is not None:
            assert len(found) <= most
            shorter = json.loads(found)
            examine(shorter)
            assert shorter["additionalData"]["event_id"] == made.event_id

    def test_the_text_is_kept_as_far_as_it_fits(self):
        large = alert(1, text="word " * 50_000)
        found = json.loads(sink("https://a").shrink(large, SOURCE, PARTITION, 16_000) or b"")
        assert found["title"] == ("word " * 1_000)[:4_096]
        assert found["additionalData"]["shortened"] == "true"
        assert sink("https://a").shrink(large, SOURCE, PARTITION, 100) is None


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({}, "either `url` or `secret_url`"),
            ({"url": "https://a/b?sig=hunter2"}, "give such a URL as `secret_url`"),
            ({"url": "http://hook.example/b"}, "unencrypted"),
            ({"url": "https://a/b", "secret": "hunter2"}, "as a reference"),
            ({"url": "https://a/b", "headers": {"a": "env:X", "A": "env:Y"}}, "twice"),
            ({"url": "https://a/b", "format": "ecs"}, "format"),
            ({"url": "https://a/b", "batch": "array"}, "batch"),
            ({"url": "https://a/b", "max_records": 1_000}, "max_records"),
        ],
    )
    def test_what_is_wrong_is_refused(self, given, complaint):
        with pytest.raises(ValidationError, match=complaint) as caught:
            GraphSecuritySettings(**given)
        assert "hunter2" not in str(caught.value)

    def test_it_pickles_and_shows_no_secret(self, monkeypatch):
        monkeypatch.setenv("HOOK", "https://hook.example/hunter2?x=hunter2")
        there = sink("", secret_url="env:HOOK")
        copy = pickle.loads(pickle.dumps(there))
        assert copy.encode(alert(1), SOURCE, PARTITION) == there.encode(alert(1), "", "")
        assert "hunter2" not in f"{there!r} {there.settings!r} {there.target} {there.connect()!r}"

    def test_a_headers_reference_and_gzip_reach_the_endpoint(self, monkeypatch):
        monkeypatch.setenv("AUTH", "Bearer hunter2")
        with Consumer(KEY, headers={"Authorization": "Bearer hunter2"}) as there:
            made = sink(there, headers={"Authorization": "env:AUTH"}, gzip=True)
            assert isinstance(send(made, made.encode(alert(1), "", "")), Accepted)
            assert there.seen[-1].headers["content-encoding"] == "gzip"

    def test_what_to_look_for(self):
        assert identity(1) in sink("https://a").find(identity(1))


def test_a_later_version_has_the_same_id_and_another_event_id() -> None:
    first = alert(1, status="new")
    then = msgspec.structs.replace(first, key=alert(2).key, status="resolved")
    one, two = said(first), said(then)
    assert one["id"] == two["id"]
    assert (one["status"], two["status"]) == ("new", "resolved")
    assert one["additionalData"]["event_id"] != two["additionalData"]["event_id"]
