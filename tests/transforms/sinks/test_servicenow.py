from __future__ import annotations

import json
import pickle
import re
import threading
import time
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Drip, Silence
from schemas.alert import Alert
from schemas.formats.servicenow import servicenow_incident
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.base import MARKER
from tests.transforms.sinks.doubles.servicenow import (
    Instance,
    Items,
    Page,
    Transformed,
    Unserved,
)
from transforms.sinks.base import (
    Accepted,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Split,
    Stop,
    Verdict,
)
from transforms.sinks.servicenow import ServiceNow, ServiceNowSettings

SECRET = "c0ffee-secret-that-nobody-may-see"
START = 1_790_000_000_000
POLICY = ("Operation Failed", "Data Policy Exception: The following fields are mandatory: Caller")


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance() as receiver:
        yield receiver


def sink(to: Instance | str = "https://x", table: str = "incident", **options: Any) -> ServiceNow:
    url = to if isinstance(to, str) else to.url
    given = {"username": "alertbeam", "password": "env:SECRET", "timeout": 0.5, **options}
    return ServiceNow("siem", ServiceNowSettings(url=url, table=table, **given))


def version(number: int, status: str = "new", **fields: Any) -> Alert:
    """Version `number` of one alert, a minute after the one before."""
    times = {"event_ms": START + 60_000 * number, "entity": "one"}
    return alert(number, status=status, **{**times, **fields})


def send(to: ServiceNow, *alerts: Alert, timeout: float = 2.0) -> Verdict:
    connection = to.connect()
    try:
        return connection.send([to.encode(each, SOURCE, PARTITION) for each in alerts], timeout)
    finally:
        connection.close()


def tell(to: ServiceNow, *alerts: Alert) -> None:
    """One after another; each is taken."""
    for each in alerts:
        verdict = send(to, each)
        assert isinstance(verdict, Accepted), verdict


def changed(instance: Instance, **fields: str) -> None:
    """What people did to the only record."""
    (row,) = instance.tables["incident"].values()
    row.update(fields)


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"username": ""}, "given together"),
            ({"password": None}, "given together"),
            ({"username": "", "password": None}, "either `username`"),
            ({"client_id": "a"}, "given together"),
            ({"client_id": "a", "client_secret": "env:SECRET"}, "either `username`"),
            ({"username": "a:b"}, "colon"),
            ({"url": "http://example.service-now.com"}, "unencrypted"),
            ({"url": "https://x.service-now.com/api/now"}, "without a path"),
            ({"table": "problem"}, "incident"),
            ({"table": "event", "import_table": "u_a"}, "`import_table` is for incidents"),
            ({"import_table": "u_a/../x"}, "lower-case letters"),
            ({"fields": {"a^b": "c"}}, "lower-case letters"),
            ({"fields": {"correlation_id": "c"}}, "set by alertbeam"),
            ({"fields": {"state": "2"}}, "set by alertbeam"),
            ({"table": "event", "fields": {"a": "b"}}, "Table API"),
            ({"import_table": "u_a", "close_fields": {"a": "b"}}, "Table API"),
            ({"table": "sn_si_incident", "close_fields": {"a": "b"}}, "only an `incident`"),
            ({"max_records": 101}, "100"),
        ],
    )
    def test_what_does_not_fit_is_told(self, options, said):
        given = {"url": "https://x", "table": "incident", "username": "u", "password": "env:SECRET"}
        with pytest.raises(ValidationError, match=re.escape(said)):
            ServiceNowSettings(**{**given, **options})

    def test_where_it_leads_and_how_a_record_is_found(self):
        assert sink("https://x/").settings.url == "https://x"
        assert sink().target == "https://x, incident"
        assert sink(import_table="u_a").target == "https://x, incident by u_a"
        assert "incident.list" in sink().find("abc")
        assert "em_event.list" in sink(table="event").find("abc")

    def test_a_request_holds_fewer_incidents_than_events_unless_told_otherwise(self):
        assert sink().limits.max_records == 10
        assert sink(table="event").limits.max_records == 100
        assert sink(max_records=3).limits.max_records == 3

    def test_it_is_pickled_without_its_secret_and_without_what_it_remembers(self, instance):
        first = sink(instance, "event")
        tell(first, version(2))
        copy = pickle.loads(pickle.dumps(first))
        assert SECRET.encode() not in pickle.dumps(first)
        assert SECRET not in f"{first!r} {first.settings!r} {first.connect()!r}"
        assert copy.encode(version(1), "", "") == first.encode(version(1), "", "")
        tell(copy, version(1))
        assert len(instance.events) == 2


class TestKeys:
    @given(st.one_of(st.text(max_size=200), st.sampled_from([HOSTILE, "javascript:gs.log()", "^"])))
    def test_no_alert_says_something_in_a_query(self, entity):
        key = json.loads(servicenow_incident(alert(1, entity=entity)))["correlation_id"]
        assert re.fullmatch(r"[A-Za-z0-9_./~-]{1,100}", key)

    def test_what_is_replaced_is_still_told_apart(self):
        entities = ["a^b", "a,b", "a_b", "a b", "a~b", "A^b", "a" * 101, "a" * 102, "ä", ""]
        keys = {
            json.loads(servicenow_incident(alert(1, entity=it)))["correlation_id"]
            for it in entities
        }
        assert len(keys) == len(entities)

    def test_the_record_of_another_is_not_touched_where_the_query_is_not_understood(self):
        """ServiceNow leaves out what it does not understand of a query, and finds everything."""

        class Lax(Instance):
            def _query(self, table: str, query: Any) -> list[dict[str, str]]:
                return super()._query(table, {**query, "sysparm_query": ""})

        with Lax() as lax:
            tell(sink(lax), version(1, entity="one"), version(2, entity="two"))
            assert sorted(lax.ids()) == sorted([identity(1), identity(2)])


class TestIncidents:
    def test_an_update_changes_the_record_and_closing_resolves_it(self, instance):
        tell(sink(instance), version(1))
        (before,) = instance.rows()
        assert (before["state"], before["correlation_id"]) == ("1", "one")
        assert before["correlation_display"].endswith(
            f" new high {identity(1)} Microsoft Defender for Cloud"
        )
        tell(sink(instance), version(2, "in_progress"))
        assert [row["state"] for row in instance.rows()] == ["2"]
        tell(sink(instance), version(3, "resolved"))
        (after,) = instance.rows()
        assert (after["sys_id"], after["state"]) == (before["sys_id"], "6")
        assert after["close_code"] == "Solution provided"
        assert "resolved" in after["close_notes"]
        assert instance.ids() == [identity(3)]

    @pytest.mark.parametrize("times", [{}, {"event_ms": START}])
    def test_what_comes_late_changes_nothing_also_after_a_restart(self, instance, times):
        """Some kinds bear one time through all versions: then that of their arrival counts."""
        first, last = version(1, **times), version(2, "resolved", **times)
        tell(sink(instance), last)
        (before,) = instance.rows()
        tell(sink(instance), first)
        assert instance.rows() == [before]
        assert not any(request.method == "PATCH" for request in instance.seen)

    def test_versions_within_one_request_end_in_the_newest(self, instance):
        assert isinstance(
            send(sink(instance), version(1), version(3, "resolved"), version(2)), Accepted
        )
        assert instance.ids() == [identity(3)]
        (row,) = instance.rows()
        assert row["state"] == "6"

    def test_what_comes_twice_is_written_once(self, instance):
        for _ in range(2):
            tell(sink(instance), version(1))
        assert len([it for it in instance.seen if it.method == "POST"]) == 1

    def test_what_people_changed_stays_unless_the_alert_moved_it(self, instance):
        tell(sink(instance), version(1, severity="high"))
        people = {"short_description": "ours", "impact": "3", "category": "inquiry", "state": "2"}
        changed(instance, **people)
        tell(sink(instance), version(2, severity="high", description="more is known"))
        (row,) = instance.rows()
        assert {name: row[name] for name in people} == people
        assert "more is known" in row["description"]
        tell(sink(instance), version(3, "in_progress", severity="critical"))
        (row,) = instance.rows()
        assert (row["impact"], row["short_description"]) == ("1", "ours")

    def test_what_people_resolved_is_not_opened_by_news_but_by_an_alert_that_is_open_again(
        self, instance
    ):
        tell(sink(instance), version(1))
        changed(instance, state="6", close_code="Solution provided", close_notes="done")
        tell(sink(instance), version(2, "in_progress"))
        assert [row["state"] for row in instance.rows()] == ["6"]
        tell(sink(instance), version(3, "resolved"))
        assert [row["close_notes"] for row in instance.rows()] == ["done"]
        tell(sink(instance), version(4))
        assert [row["state"] for row in instance.rows()] == ["2"]

    def test_a_closed_record_is_left_with_a_warning_and_followed_by_a_new_one_on_reopening(
        self, instance
    ):
        tell(sink(instance), version(1))
        changed(instance, state="7", active="false")
        verdict = send(sink(instance), version(2))
        assert isinstance(verdict, Accepted)
        assert "closed by hand" in verdict.warning
        assert instance.ids() == [identity(1)]
        changed(instance, state="6", active="true", close_code="x", close_notes="x")
        tell(sink(instance), version(3, "resolved"))
        changed(instance, state="7", active="false")
        tell(sink(instance), version(4, "resolved"))
        assert instance.ids() == [identity(3)]
        tell(sink(instance), version(5))
        assert instance.ids() == [identity(3), identity(5)]
        tell(sink(instance), version(6, "resolved"))
        assert instance.ids() == [identity(3), identity(6)]

    def test_a_record_that_others_wrote_over_is_taken_for_an_older_one(self, instance):
        tell(sink(instance), version(2))
        changed(instance, correlation_display="Contoso")
        tell(sink(instance), version(1))
        assert instance.ids() == [identity(1)]

    def test_fields_of_the_settings_are_set_once_and_those_of_closing_at_the_end(self, instance):
        made = sink(
            instance,
            fields={"assignment_group": "soc", "category": "inquiry"},
            close_fields={"close_code": "Resolved by caller"},
        )
        tell(made, version(1), version(2, "in_progress"))
        (row,) = instance.rows()
        assert (row["assignment_group"], row["category"]) == ("soc", "inquiry")
        changed(instance, assignment_group="others")
        tell(made, version(3, "dismissed"))
        (row,) = instance.rows()
        assert (row["assignment_group"], row["close_code"]) == ("others", "Resolved by caller")
        tell(made, version(4, "resolved", entity="seen only at its end"))
        assert [row["close_code"] for row in instance.rows()] == ["Resolved by caller"] * 2

    def test_a_security_incident_is_told_and_not_moved(self, instance):
        for each in (version(1), version(2, "resolved"), version(1)):
            tell(sink(instance, "sn_si_incident"), each)
        (row,) = instance.rows("sn_si_incident")
        assert "state" not in row
        assert "resolved" in row["work_notes"]
        assert row["correlation_display"].split()[3] == identity(2)

    def test_a_record_that_was_deleted_in_between_is_made_anew(self, instance):
        made = sink(instance)
        tell(made, version(1))
        instance.fail(Items(404), 1)
        assert isinstance(send(made, version(2)), Retry)
        instance.tables["incident"].clear()
        tell(made, version(2))
        assert instance.ids() == [identity(2)]

    def test_several_senders_make_one_record_of_one_alert(self, instance):
        made = sink(instance, timeout=5)
        together = threading.Barrier(6)

        def tell_one(number: int) -> None:
            together.wait(2)
            tell(made, version(number))

        threads = [threading.Thread(target=tell_one, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert instance.ids() == [identity(5)]

    def test_what_another_process_made_first_is_found_where_the_key_is_unique(self, instance):
        made = sink(instance)
        instance.fail(
            Items(403, "Operation Failed", "Unique Key violation detected by database"), 1
        )
        assert isinstance(send(made, version(1)), Retry)

    def test_nothing_is_made_while_an_unanswered_request_may_still_make_it(
        self, instance, monkeypatch
    ):
        made = sink(instance, timeout=30)
        instance.fail(Silence(), 1, on="/api/now/v1/batch")
        with pytest.raises(TimeoutError):
            send(made, version(1), timeout=0.2)
        verdict = send(made, version(1), version(1, entity="two"))
        assert isinstance(verdict, RejectItems)
        assert (verdict.reasons, verdict.again) == ({}, (0,))
        later = types.SimpleNamespace(monotonic=lambda: time.monotonic() + 61)
        monkeypatch.setattr("transforms.sinks.servicenow.time", later)
        tell(made, version(1))
        assert sorted(row["correlation_id"] for row in instance.rows()) == ["one", "two"]

    def test_what_an_unanswered_request_did_make_is_found(self, instance):
        made = sink(instance)
        instance.fail(Drip(0.05), 1)
        with pytest.raises(TimeoutError):
            send(made, version(1), timeout=0.1)
        tell(made, version(1))
        assert instance.ids() == [identity(1)]

    def test_of_an_alert_whose_newest_version_is_refused_the_one_before_is_told(self, instance):
        instance.fail(Items(403, *POLICY, marker=MARKER), 1)
        verdict = send(sink(instance), version(1), version(2, title=MARKER), version(3, entity="b"))
        assert isinstance(verdict, RejectItems)
        assert verdict.taken
        assert list(verdict.reasons) == [1]
        assert "mandatory" in verdict.reasons[1]
        assert verdict.again == (0,)

    def test_what_is_not_served_in_time_is_sent_again_and_no_more(self, instance):
        instance.fail(Unserved(1), 1)
        alerts = [version(n, entity=f"entity-{n}") for n in range(3)]
        verdict = send(sink(instance), *alerts)
        assert isinstance(verdict, RejectItems)
        assert (verdict.reasons, verdict.again) == ({}, (1, 2))
        assert instance.ids() == [identity(0)]

    def test_a_mandatory_field_that_is_missing_is_told_with_its_name(self, instance):
        instance.mandatory = {"caller_id"}
        verdict = send(sink(instance), version(1))
        assert isinstance(verdict, RejectItems)
        assert "caller_id" in verdict.reasons[0]
        tell(sink(instance, fields={"caller_id": "soc"}), version(1))


class TestImportSets:
    def test_the_transform_map_ends_in_the_newest_version(self, instance):
        for each in (version(1), version(3, "resolved"), version(2), version(3, "resolved")):
            tell(sink(instance, import_table="u_alertbeam"), each)
        (row,) = instance.rows()
        assert (row["state"], row["correlation_display"].split()[3]) == ("6", identity(3))

    def test_the_script_lets_stay_what_people_resolved(self, instance):
        made = sink(instance, import_table="u_alertbeam")
        tell(made, version(1))
        changed(instance, state="6", close_code="Solution provided", close_notes="done")
        tell(made, version(2, "in_progress"))
        assert [row["state"] for row in instance.rows()] == ["6"]
        assert instance.ids() == [identity(2)]

    def test_within_a_process_it_does_so_without_the_script_too(self, instance):
        class Plain(Instance):
            def _transform(self, source: dict[str, Any]) -> dict[str, str]:
                for row in self.tables["incident"].values():
                    row["correlation_display"] = ""
                return super()._transform(source)

        with Plain() as plain:
            made = sink(plain, import_table="u_alertbeam")
            tell(made, version(2, "resolved"), version(1))
            assert plain.ids() == [identity(2)]

    def test_news_of_a_new_alert_do_not_set_the_state_back(self):
        made = sink(import_table="u_a")
        record = json.loads(made.encode(version(1), "", "").partition(b" ")[2])
        assert "u_state" not in record
        assert all(name.startswith("u_") for name in record)
        closed = json.loads(made.encode(version(2, "resolved"), "", "").partition(b" ")[2])
        assert closed["u_state"] == "6"

    @pytest.mark.parametrize(
        ("result", "wanted"),
        [
            (Transformed("inserted"), Accepted),
            (Transformed("updated"), Accepted),
            (Transformed("ignored", "No field values changed"), Accepted),
            (Transformed("pending"), Accepted),
            (Transformed("error", "a script's error"), RejectItems),
            (Transformed("skipped", "no coalesce values"), RejectItems),
            (Transformed("error", "No transform entry or scripts are defined"), Stop),
            (Transformed("something else"), Stop),
            (Transformed(""), Stop),
        ],
    )
    def test_every_result_has_its_meaning(self, instance, result, wanted):
        instance.fail(result, 1)
        verdict = send(sink(instance, import_table="u_alertbeam"), version(1))
        assert isinstance(verdict, wanted), verdict
        if result.status == "pending":
            assert isinstance(verdict, Accepted)
            assert "later" in verdict.warning


class TestEvents:
    def test_an_alert_is_opened_cleared_and_opened_again(self, instance):
        made = sink(instance, "event")
        states = []
        for number, status in enumerate(("new", "resolved", "in_progress")):
            tell(made, version(number, status))
            states.append(instance.alerts["one"]["state"])
        assert states == ["Open", "Closed", "Open"]
        assert [event["severity"] for event in instance.events] == ["2", "0", "2"]

    def test_what_comes_late_is_not_sent_since_it_would_open_the_alert_again(self, instance):
        made = sink(instance, "event")
        tell(made, version(2, "resolved"), version(1))
        assert len(instance.events) == 1
        verdict = send(made, version(3, entity="two"), version(1), version(2, entity="two"))
        assert isinstance(verdict, Accepted)
        assert [event["message_key"] for event in instance.events] == ["one", "two"]

    def test_it_remembers_so_many_alerts_and_no_more(self, instance, monkeypatch):
        monkeypatch.setattr("transforms.sinks.servicenow._REMEMBERED", 2)
        made = sink(instance, "event")
        for name in ("one", "two", "three"):
            tell(made, version(2, entity=name))
        tell(made, version(1, entity="two"), version(1, entity="three"))
        assert len(instance.events) == 3
        tell(made, version(1, entity="one"))
        assert len(instance.events) == 4

    def test_an_answer_that_counts_fewer_is_no_success(self, instance, monkeypatch):
        monkeypatch.setattr(Instance, "_take", lambda self, given: len(given["records"]) - 1)
        verdict = send(sink(instance, "event"), version(1), version(1, entity="two"))
        assert isinstance(verdict, Split)
        assert verdict.reason == "of 2 events it took 1"

    def test_hostile_text_forges_no_event(self, instance):
        made = sink(instance, "event")
        tell(made, version(1, title=HOSTILE, description=HOSTILE, resource=HOSTILE))
        assert len(instance.events) == 1
        assert json.loads(instance.events[0]["additional_info"])["event"] == identity(1)
        assert instance.ids() == [identity(1)]

    def test_it_needs_the_role(self, instance):
        instance.roles.remove("evt_mgmt_integration")
        assert isinstance(send(sink(instance, "event"), version(1)), Stop)


class TestAnswers:
    @pytest.mark.parametrize("options", [{}, {"import_table": "u_alertbeam"}, {"table": "event"}])
    def test_what_stands_there_instead_of_an_instance_takes_nothing(self, instance, options):
        made = sink(instance, **options)
        instance.fail(Page(200), 1)
        verdict = send(made, version(1))
        assert isinstance(verdict, Stop)
        assert "hibernates" in verdict.reason
        instance.fail(Page(503), 1)
        assert isinstance(send(made, version(1)), Retry)
        tell(made, version(1))

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
    def test_the_query_before_is_understood_as_well(self, instance, status):
        instance.fail(Answer(status), 1, on="/api/now/v2/table")
        verdict = send(sink(instance), version(1))
        assert isinstance(verdict, {401: Refresh, 429: Retry, 500: Retry}.get(status, Stop))
        assert instance.ids() == []

    def test_a_pause_is_told_as_a_time_or_as_the_end_of_the_hour(self, instance):
        later = str(int(time.time()) + 900)
        for headers, least in (
            ((("Retry-After", "17"), ("X-RateLimit-Reset", later)), 17),
            ((("X-RateLimit-Reset", later),), 890),
            ((("X-RateLimit-Reset", "soon"),), None),
        ):
            instance.fail(Answer(429, headers=headers), 1)
            verdict = send(sink(instance), version(1))
            assert isinstance(verdict, Retry)
            assert verdict.after is None if least is None else least <= (verdict.after or 0) <= 900

    def test_too_large_is_told_in_words_or_by_413(self, instance):
        instance.fail(Answer(413), 1)
        assert isinstance(send(sink(instance), version(1)), Shrink)
        instance.max_bytes = 100
        assert isinstance(send(sink(instance), version(1)), Shrink)

    @pytest.mark.parametrize("table", ["incident", "event"])
    def test_requests_are_compressed_where_the_settings_say_so(self, instance, table):
        tell(sink(instance, table, gzip=True), version(1))
        assert instance.ids() == [identity(1)]
        posts = [it.headers for it in instance.seen if it.method == "POST"]
        assert [it.get("content-encoding") for it in posts] == ["gzip"]

    def test_an_address_without_event_management_is_about_the_settings(self, instance):
        instance.fail(Answer(400, text="Requested URI does not represent any resource"), 1)
        assert isinstance(send(sink(instance, "event"), version(1)), Stop)


class TestCredentials:
    OAUTH: ClassVar[dict[str, Any]] = {
        "username": "",
        "password": None,
        "client_id": "alertbeam",
        "client_secret": "env:SECRET",
    }

    def test_a_token_is_fetched_once_and_again_before_it_ends(self):
        with Instance(oauth=True) as instance:
            made = sink(instance, **self.OAUTH)
            connection = made.connect()
            for number in range(3):
                payload = made.encode(version(number), "", "")
                assert isinstance(connection.send([payload], 2.0), Accepted)
            assert len(instance.tokens) == 1
            connection.close()
            instance.lifetime = 30
            connection = made.connect()
            for number in range(3, 6):
                payload = made.encode(version(number), "", "")
                assert isinstance(connection.send([payload], 2.0), Accepted)
            connection.close()
            assert len(instance.tokens) > 2

    def test_a_grant_that_is_refused_is_tried_anew_once_and_tells_no_secret(self, monkeypatch):
        with Instance(oauth=True) as instance:
            monkeypatch.setenv("SECRET", "another-secret")
            verdict = send(sink(instance, **self.OAUTH), version(1))
            assert isinstance(verdict, Refresh)
            assert "access_denied" in verdict.reason
            assert "another-secret" not in verdict.reason

    def test_a_token_that_is_quoted_is_not_repeated(self):
        class Quoting(Instance):
            def refused(self, fault: Answer) -> Any:
                (token,) = self.tokens
                return super().refused(Answer(403, text=f"{token} of {SECRET}"))

        with Quoting(oauth=True) as instance:
            instance.fail(Answer(403), 1)
            verdict = send(sink(instance, **self.OAUTH), version(1))
        assert isinstance(verdict, Stop)
        assert "*** of ***" in verdict.reason


class TestCheck:
    def test_what_may_be_read_is_told_and_nothing_is_sent(self, instance):
        assert "incident can be read" in sink(instance).check(1)
        assert "sinks test siem" in sink(instance).check(1)
        assert "u_alertbeam can be read" in sink(instance, import_table="u_alertbeam").check(1)
        assert "em_event can be read" in sink(instance, "event").check(1)
        assert instance.received == 0

    def test_incidents_must_be_read_and_events_need_not(self, instance):
        instance.roles.clear()
        with pytest.raises(ConnectionError, match="User Not Authorized"):
            sink(instance).check(1)
        assert "need not" in sink(instance, "event").check(1)

    def test_a_field_that_may_not_be_read_is_missed(self, instance, monkeypatch):
        monkeypatch.setattr(Instance, "_query", lambda *_: [{"sys_id": "0" * 32}])
        with pytest.raises(ConnectionError, match="correlation_id"):
            sink(instance).check(1)

    def test_a_page_is_no_instance(self, instance):
        instance.fail(Page(200), on="/api/now/v2/table")
        for ask in (sink(instance).probe, sink(instance).check):
            with pytest.raises(ConnectionError, match="hibernates"):
                ask(1)
