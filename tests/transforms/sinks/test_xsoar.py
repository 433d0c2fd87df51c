"""The XSOAR sink against a strict server: versions, codes, and incidents that are changed."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Slow
from schemas.alert import Alert
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcel
from tests.transforms.sinks.doubles.xsiam import Saying
from tests.transforms.sinks.doubles.xsoar import FIELD, Server
from transforms.delivery.engine import Engine
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Split, Stop, Verdict
from transforms.sinks.xsoar import Xsoar, XsoarSettings

KEY = "c0ffee-api-key"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(KEY) as made:
        yield made


def sink(there: Server | str, **options: Any) -> Xsoar:
    url = there if isinstance(there, str) else there.url
    given: dict[str, Any] = {"url": url, "key": "env:KEY", "key_id": "7"}
    return Xsoar("soar", XsoarSettings(**{**given, **options}))


def send(xsoar: Xsoar, made: Alert | None = None) -> Verdict:
    connection = xsoar.connect()
    try:
        payload = xsoar.encode(made or alert(1), SOURCE, PARTITION)
        return connection.send([payload], 0.5)
    finally:
        connection.close()


def version(number: int, seconds: int = 0, **fields: Any) -> Alert:
    """A version of one alert."""
    event_ms = 1_790_000_000_000 + seconds * 1000
    return alert(number, **{"entity": "one", "event_ms": event_ms, **fields})


def labels(incident: dict[str, Any]) -> dict[str, str]:
    return {label["type"]: label["value"] for label in incident["labels"]}


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"url": "http://soar.example"}, "unencrypted"),
            ({"key": "hunter2"}, "as a reference"),
            ({"key_id": "hunter2"}, "pattern"),
            ({"key_field": 'x" or "hunter2'}, "pattern"),
            ({"key_field": "Alertbeam Entity"}, "pattern"),
        ],
    )
    def test_what_is_wrong_is_told_and_not_repeated(self, given, complaint):
        with pytest.raises(ValidationError, match=complaint) as caught:
            sink("https://a", **given)
        assert "hunter2" not in str(caught.value)

    def test_without_an_id_of_the_key_version_6_is_spoken(self):
        with Server(KEY, version=6) as six:
            assert isinstance(send(sink(six)), Refresh)
            assert isinstance(send(sink(six, key_id="")), Accepted)
            assert "takes the key" in sink(six, key_id="").check(1)
        with Server(KEY, version=8) as eight:
            verdict = send(sink(eight, key_id=""))
            assert isinstance(verdict, Refresh)
            assert "`key_id`" in verdict.reason

    def test_an_account_of_several_is_in_the_address(self):
        with Server(KEY, version=6, root="/acc_shop") as account:
            xsoar = sink(f"{account.url}/acc_shop", key_id="")
            assert isinstance(send(xsoar), Accepted)
            xsoar.probe(1)

    def test_an_advanced_key_signs(self):
        with Server(KEY, advanced=True) as advanced:
            assert isinstance(send(sink(advanced)), Refresh)
            xsoar = sink(advanced, key_type="advanced", key_field=FIELD)
            assert isinstance(send(xsoar), Accepted)

    def test_type_and_investigation_are_as_the_settings_say(self, server):
        assert isinstance(send(sink(server)), Accepted)
        assert isinstance(send(sink(server, type="Microsoft", investigate=False)), Accepted)
        first, then = server.seen
        assert (first.get("type"), first["createInvestigation"]) == (None, True)
        assert (then["type"], then["createInvestigation"]) == ("Microsoft", False)


class TestVerdicts:
    @pytest.mark.parametrize("key_field", ["", FIELD])
    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            *((status, Stop) for status in (302, 307, 403, 404, 405)),
            *((status, Split) for status in (400, 422)),
            *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
            (401, Refresh),
            (413, Shrink),
        ],
    )
    def test_every_status_has_its_meaning(self, server, status, verdict, key_field):
        server.fail(Answer(status, text="because"))
        got = send(sink(server, key_field=key_field))
        assert isinstance(got, verdict)
        assert "because" in got.reason
        assert f"HTTP {status}" in got.reason

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            *((status, Stop) for status in (302, 400, 403, 404, 413, 422)),
            *((status, Retry) for status in (429, 500, 503)),
            (401, Refresh),
        ],
    )
    def test_what_the_search_is_told_costs_no_record(self, server, status, verdict):
        server.fail(Answer(status), on="/xsoar/public/v1/incidents/search")
        assert isinstance(send(sink(server, key_field=FIELD)), verdict)
        assert not server.incidents

    @pytest.mark.parametrize("said", [b"", b"<html>Sign in</html>", {}, [], {"id": ""}])
    @pytest.mark.parametrize("on", ["/xsoar/public/v1/incident", "/xsoar/public/v1/incidents/se"])
    def test_a_success_that_is_not_xsoars_is_none(self, server, said, on):
        server.fail(Saying(said), on=on)
        verdict = send(sink(server, key_field=FIELD))
        assert isinstance(verdict, Stop)
        assert "no answer of XSOAR" in verdict.reason
        assert not server.incidents

    def test_one_that_is_refused_is_dead_and_the_others_arrive(self):
        class Picky(Server):
            def respond(self, request: Any) -> Any:
                if identity(2).encode() in request.body:
                    return self.refused(Answer(400, text="not this one"))
                return super().respond(request)

        with Picky(KEY) as picky:
            engine = Engine(sink(picky))
            sent = [parcel(engine.sink, alert(n)) for n in range(5)]
            engine.submit(sent)
            engine.close()
            wanted = [Outcome.DEAD if n == 2 else Outcome.DELIVERED for n in range(5)]
            assert [each.outcome for each in sent] == wanted
            assert "not this one" in sent[2].reason


class TestUpdates:
    def test_without_a_field_each_version_is_an_incident(self, server):
        for number, seconds in ((1, 0), (2, 60), (1, 0)):
            assert isinstance(send(sink(server), version(number, seconds)), Accepted)
        assert server.ids() == [identity(1), identity(2), identity(1)]
        assert server.searches == 0

    def test_with_one_the_incident_tells_the_last_and_nothing_older(self, server):
        xsoar = sink(server, key_field=FIELD)
        for number, seconds, shown in ((1, 0, 1), (3, 120, 3), (2, 60, 3), (3, 120, 3)):
            made = version(number, seconds, status=f"status {number}")
            assert isinstance(send(xsoar, made), Accepted)
            assert server.ids() == [identity(shown)]
        (incident,) = server.incidents.values()
        assert labels(incident)["Status"] == "status 3"
        assert "Status: status 3" in incident["details"]
        assert json.loads(incident["rawJSON"])["SystemAlertId"] == identity(3)
        assert incident["version"] == 2

    def test_of_one_time_what_was_enqueued_later_is_newer(self, server):
        xsoar = sink(server, key_field=FIELD)
        for number, enqueued_ms in ((1, 10), (3, 30), (2, 20)):
            assert isinstance(send(xsoar, version(number, enqueued_ms=enqueued_ms)), Accepted)
        assert server.ids() == [identity(3)]

    def test_what_people_did_to_it_stays(self, server):
        xsoar = sink(server, key_field=FIELD)
        send(xsoar, version(1))
        theirs = {"owner": "ann", "severity": 4, "name": "Ann's", "status": 1, "sla": 0.8}
        server.touch("1", **theirs, closeNotes="half a \ud83d")
        assert isinstance(send(xsoar, version(2, 60, severity="low", status="resolved")), Accepted)
        incident = server.incidents["1"]
        assert {name: incident[name] for name in theirs} == theirs
        assert labels(incident) | {"Brand": "Manual", "Instance": ""} == labels(incident)
        assert labels(incident)["Severity"] == "low"
        types = [label["type"] for label in incident["labels"]]
        assert len({*types}) == len(types)
        assert "createInvestigation" not in server.seen[-1]

    def test_who_was_faster_is_not_overwritten(self, server):
        xsoar = sink(server, key_field=FIELD)
        send(xsoar, version(1))
        server.before_change = lambda: server.touch("1", owner="ann")
        verdict = send(xsoar, version(2, 60))
        assert isinstance(verdict, Retry)
        assert "DB Version '2' and Insert version '1'" in verdict.reason
        assert isinstance(send(xsoar, version(2, 60)), Accepted)
        assert server.incidents["1"]["owner"] == "ann"
        assert server.ids() == [identity(2)]

    def test_a_field_that_is_not_searched_by_stops_the_sink(self):
        with Server(KEY, fields=()) as without:
            xsoar = sink(without, key_field=FIELD)
            assert isinstance(send(xsoar, version(1)), Accepted)
            verdict = send(xsoar, alert(2))
            assert isinstance(verdict, Stop)
            assert f"`{FIELD}`" in verdict.reason
            assert len(without.incidents) == 1

    def test_what_it_is_about_is_told_from_any_other_however_it_is_written(self, server):
        xsoar = sink(server, key_field=FIELD)
        for number, entity in enumerate(('" or id:"1', "\\", "*", HOSTILE, "", "")):
            assert isinstance(send(xsoar, alert(number, entity=entity)), Accepted)
        assert server.ids() == [identity(number) for number in range(6)]

    def test_labels_that_somebody_wrote_do_not_break_it(self, server):
        xsoar = sink(server, key_field=FIELD)
        send(xsoar, version(1))
        for written in (None, [], [{"type": "alertbeam", "value": "a b"}], [{"type": "alertbeam"}]):
            server.touch("1", labels=written)
            assert isinstance(send(xsoar, version(2, 60)), Accepted)
            assert server.ids() == [identity(2)]

    def test_the_two_requests_share_the_time(self, server):
        server.fail(Slow(0.15), on="/xsoar/public/v1/")
        xsoar = sink(server, key_field=FIELD)
        connection, started = xsoar.connect(), time.monotonic()
        with pytest.raises(OSError):
            connection.send([xsoar.encode(alert(1), SOURCE, PARTITION)], 0.2)
        connection.close()
        assert time.monotonic() - started < 0.28


def test_what_is_said_shorter_is_an_incident_with_its_ids(server):
    xsoar, large = sink(server), alert(1, text='"' * 100_000)
    for most in (3_000, 100_000):
        said = xsoar.shrink(large, SOURCE, PARTITION, most)
        assert said is not None
        assert len(said) <= most
        connection = xsoar.connect()
        assert isinstance(connection.send([said], 0.5), Accepted)
        connection.close()
    assert server.ids() == [identity(1)] * 2
    assert xsoar.shrink(large, SOURCE, PARTITION, 300) is None


def test_the_check_tells_a_wrong_key_and_makes_nothing(server, monkeypatch):
    assert "takes the key" in sink(server).check(1)
    server.fail(Answer(403, text="no"), on="/xsoar/public/v1/incidents/search")
    with pytest.raises(OSError, match="read and write incidents"):
        sink(server).check(1)
    server.heal()
    monkeypatch.setenv("KEY", "another")
    with pytest.raises(OSError, match="HTTP 401"):
        sink(server).check(1)
    assert not server.incidents


def test_the_key_shows_nowhere(server):
    server.fail(Answer(403, text=f"{KEY} may not"))
    xsoar = sink(server)
    verdict = send(xsoar)
    assert isinstance(verdict, Stop)
    assert "*** may not" in verdict.reason
    assert KEY not in f"{xsoar!r} {xsoar.settings!r} {pickle.dumps(xsoar)!r}"
