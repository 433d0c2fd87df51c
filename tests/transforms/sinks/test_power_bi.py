"""The Power BI sink against a strict double: the dataset, the rows, refusals, tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Reply, Request
from schemas.formats.power_bi import COLUMNS
from tests.transforms.entra import EntraReceiver
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.power_bi import SCOPE, WORKSPACE, Service
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Connection, Refresh, Retry, Split, Stop
from transforms.sinks.power_bi import PowerBi, PowerBiSettings

OURS = [{"name": name, "dataType": kind} for name, kind in COLUMNS.items()]
DATASETS = f"/v1.0/myorg/groups/{WORKSPACE}/datasets"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("SECRET", "s3cret")
    with EntraReceiver(secret="s3cret", scopes={SCOPE}) as entra, Service(entra) as made:
        yield made


def sink(there: Service, **options: Any) -> PowerBi:
    given = {
        "url": there.url,
        "workspace": WORKSPACE,
        "credential": there.entra.credential("env:SECRET"),
    }
    return PowerBi("bi", PowerBiSettings(**{**given, **options}))


def row(number: int = 1, **fields: Any) -> bytes:
    settings = PowerBiSettings(workspace=WORKSPACE)
    return PowerBi("bi", settings).encode(alert(number, **fields), SOURCE, PARTITION)


@pytest.fixture
def connect() -> Iterator[Any]:
    made: list[Connection] = []

    def open_(to: PowerBi) -> Connection:
        made.append(to.connect())
        return made[-1]

    yield open_
    for connection in made:
        connection.close()


class TestSettings:
    @pytest.mark.parametrize("workspace", ["", "My workspace", "f089354e", f"{WORKSPACE}/datasets"])
    def test_a_workspace_is_given_by_its_id(self, workspace):
        with pytest.raises(ValidationError, match="workspace"):
            PowerBiSettings(workspace=workspace)

    @pytest.mark.parametrize(
        "url", ["https://api.powerbi.com/v1.0", "http://api.powerbi.com", "https://a?b=c", "a"]
    )
    def test_the_address_is_that_of_the_api_alone(self, url):
        with pytest.raises(ValidationError, match="url"):
            PowerBiSettings(workspace=WORKSPACE, url=url)

    @pytest.mark.parametrize("table", ["", "a/b", "a'b", "1st", "x" * 101])
    def test_a_table_has_a_plain_name(self, table):
        with pytest.raises(ValidationError, match="table"):
            PowerBiSettings(workspace=WORKSPACE, table=table)

    def test_no_more_requests_at_once_than_a_dataset_takes(self):
        assert PowerBiSettings(workspace=WORKSPACE, concurrency=5)
        with pytest.raises(ValidationError, match="takes 5 requests at once"):
            PowerBiSettings(workspace=WORKSPACE, concurrency=6)

    def test_the_limits_are_those_of_the_documentation(self):
        limits = PowerBi("bi", PowerBiSettings(workspace=WORKSPACE)).limits
        assert limits.max_records == 10_000
        assert limits.rate.requests == 120 / 60
        assert limits.rate.records == 1_000_000 / 3600

    @pytest.mark.parametrize(
        ("url", "audience"),
        [
            ("https://api.powerbi.com", "https://analysis.windows.net/powerbi/api"),
            ("https://api.powerbigov.us", "https://analysis.usgovcloudapi.net/powerbi/api"),
            ("https://api.powerbi.cn/", "https://analysis.chinacloudapi.cn/powerbi/api"),
        ],
    )
    def test_a_token_is_asked_for_of_the_cloud_that_the_api_is_in(self, monkeypatch, url, audience):
        asked: list[str] = []

        class Watched:
            def __init__(self, credential: object, scope: str, timeout: float) -> None:
                asked.append(scope)

        monkeypatch.setattr("transforms.sinks.power_bi.Bearer", Watched)
        PowerBi("bi", PowerBiSettings(workspace=WORKSPACE, url=url)).connect()
        assert asked == [f"{audience}/.default"]


class TestDataset:
    def test_it_is_made_once_with_its_columns_and_found_from_then_on(self, service, connect):
        for number in range(3):
            assert isinstance(connect(sink(service)).send([row(number)], 5), Accepted)
        (made,) = service.datasets.values()
        assert made["name"] == "alertbeam"
        assert made["tables"] == [{"name": "Alerts", "columns": OURS}]
        assert [each["EventId"] for each in service.rows] == [identity(n) for n in range(3)]

    def test_it_is_looked_for_once_a_connection(self, service, connect):
        connection = connect(sink(service))
        for number in range(3):
            assert isinstance(connection.send([row(number)], 5), Accepted)
        (found,) = service.datasets
        rows = f"POST {DATASETS}/{found}/tables/Alerts/rows"
        assert service.paths[-3:] == [rows] * 3
        assert service.paths.count(f"GET {DATASETS}") == 2  # once more before it is made

    def test_senders_that_begin_together_make_one(self, service, connect):
        connections = [connect(sink(service, concurrency=5)) for _ in range(5)]
        threads = [
            threading.Thread(target=each.send, args=([row(number)], 5))
            for number, each in enumerate(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(service.datasets) == 1
        assert sorted(it["EventId"] for it in service.rows) == sorted(identity(n) for n in range(5))

    def test_one_that_is_there_is_used_and_others_are_left_alone(self, service, connect):
        service.add("other", OURS)
        mine = service.add("mine", OURS, "My alerts")
        no_push = service.add("mine", OURS)
        service.datasets[no_push]["addRowsAPIEnabled"] = False
        to = sink(service, dataset="mine", table="My alerts", create=False)
        assert isinstance(connect(to).send([row()], 5), Accepted)
        assert service.paths[-1] == f"POST {DATASETS}/{mine}/tables/My alerts/rows"

    def test_by_its_id_nothing_is_looked_for(self, service, connect):
        mine = service.add("mine", OURS)
        to = sink(service, dataset=mine)
        assert isinstance(connect(to).send([row()], 5), Accepted)
        assert service.paths == [f"POST {DATASETS}/{mine}/tables/Alerts/rows"]

    def test_two_of_one_name_are_told_and_neither_is_written_to(self, service, connect):
        service.add("alertbeam", OURS)
        service.add("alertbeam", OURS)
        verdict = connect(sink(service)).send([row()], 5)
        assert isinstance(verdict, Stop)
        assert "2 push datasets alertbeam: give the id of one" in verdict.reason

    def test_none_is_made_where_that_is_not_wanted(self, service, connect):
        verdict = connect(sink(service, create=False)).send([row()], 5)
        assert isinstance(verdict, Stop)
        assert "no push dataset alertbeam" in verdict.reason
        assert not service.datasets

    def test_one_that_was_deleted_is_looked_up_again_and_made_anew(self, service, connect):
        to = sink(service)
        connection = connect(to)
        assert isinstance(connection.send([row()], 5), Accepted)
        service.datasets.clear()
        verdict = connection.send([row()], 5)
        assert isinstance(verdict, Refresh)
        assert "is not found" in verdict.reason
        assert isinstance(connect(to).send([row()], 5), Accepted)
        assert len(service.datasets) == 1

    def test_a_table_of_other_columns_costs_no_record(self, service, connect):
        service.add("alertbeam", OURS[1:])
        verdict = connect(sink(service)).send([row()], 5)
        assert isinstance(verdict, Stop)
        assert "'Time' is not found" in verdict.reason
        assert "columns are not alertbeam's" in verdict.reason

    def test_what_is_refused_before_the_rows_is_not_blamed_on_them(self, service, connect):
        service.fail(Answer(400), on=DATASETS)
        assert isinstance(connect(sink(service)).send([row()], 5), Stop)


class TestRows:
    def test_hostile_text_is_a_value_of_its_row(self, service, connect):
        sent = [row(1, text=HOSTILE, entity=HOSTILE), row(2)]
        assert isinstance(connect(sink(service)).send(sent, 5), Accepted)
        first, second = service.rows
        assert first.keys() == second.keys()
        assert [it["EventId"] for it in service.rows] == [identity(1), identity(2)]

    def test_ten_thousand_rows_are_taken_and_one_more_is_not(self, service, connect):
        service.max_bytes = 100_000_000
        connection = connect(sink(service))
        small = json.dumps({"EventId": "x"}).encode()
        assert isinstance(connection.send([small] * 10_000, 5), Accepted)
        assert isinstance(connection.send([small] * 10_001, 5), Split)

    def test_an_update_is_a_row_more(self, service, connect):
        connection = connect(sink(service))
        first = row(1, entity="a", status="new")
        then = row(2, entity="a", status="resolved")
        for sent in (first, then):
            assert isinstance(connection.send([sent], 5), Accepted)
        assert [(it["EntityId"], it["Closed"]) for it in service.rows] == [
            ("a", False),
            ("a", True),
        ]

    def test_a_long_row_is_said_shorter_and_a_short_one_is_not(self, service):
        to = sink(service)
        large = alert(1, text="x" * 5_000)
        whole = to.encode(large, SOURCE, PARTITION)
        said = to.shrink(large, SOURCE, PARTITION, 3_000)
        assert len(said) <= 3_000 < len(whole)
        assert json.loads(said)["EventId"] == identity(1)
        assert to.shrink(large, SOURCE, PARTITION, len(whole)) is None
        assert to.shrink(large, SOURCE, PARTITION, 30) is None

    def test_a_request_may_be_compressed(self, service, connect):
        assert isinstance(connect(sink(service, gzip=True)).send([row()], 5), Accepted)
        assert len(service.rows) == 1


class TestRefusals:
    def test_over_the_requests_of_a_minute_it_waits_as_long_as_it_is_told(self, service, connect):
        service.a_minute = 1
        connection = connect(sink(service))
        assert isinstance(connection.send([row()], 5), Accepted)
        verdict = connection.send([row()], 5)
        assert isinstance(verdict, Retry)
        assert verdict.after is not None and 50 < verdict.after <= 60
        assert "exceeded the amount of requests" in verdict.reason

    def test_over_the_rows_of_an_hour_it_waits_as_long_as_it_is_told(self, service, connect):
        service.an_hour = 1
        verdict = connect(sink(service)).send([row(1), row(2)], 5)
        assert isinstance(verdict, Retry)
        assert verdict.after is not None and 3_500 < verdict.after <= 3_600
        assert "rows per hour limit" in verdict.reason

    def test_a_token_that_has_ended_is_renewed(self, service, connect):
        to = sink(service)
        connection = connect(to)
        assert isinstance(connection.send([row()], 5), Accepted)
        service.entra.revoke()
        verdict = connection.send([row()], 5)
        assert isinstance(verdict, Refresh)
        assert "TokenExpired" in verdict.reason
        assert isinstance(connect(to).send([row()], 5), Accepted)

    def test_a_secret_that_entra_refuses_is_read_anew(self, service, connect, monkeypatch):
        monkeypatch.setenv("SECRET", "wr0ng")
        verdict = connect(sink(service)).send([row()], 5)
        assert isinstance(verdict, Refresh)
        assert "AADSTS7000215" in verdict.reason
        assert "wr0ng" not in verdict.reason

    def test_missing_rights_are_told_with_what_to_do(self, service, connect):
        service.fail(Answer(403))
        verdict = connect(sink(service)).send([row()], 5)
        assert isinstance(verdict, Stop)
        assert "role Contributor in the workspace" in verdict.reason

    @pytest.mark.parametrize("status", [200, 202])
    def test_a_web_page_has_taken_nothing(self, service, connect, monkeypatch, status):
        page = Reply(status, b"<html>sign in</html>", {"Content-Type": "text/html"})
        add = service._add
        monkeypatch.setattr(service, "_add", lambda *given: page)
        connection = connect(sink(service))
        assert isinstance(connection.send([row()], 5), Stop)
        monkeypatch.setattr(service, "_add", add)
        assert isinstance(connection.send([row()], 5), Accepted)

    def test_an_answer_without_a_dataset_is_none(self, service, connect, monkeypatch):
        class Portal(Service):
            def respond(self, request: Request) -> Reply:
                return Reply(200, b"<html>sign in</html>", {"Content-Type": "text/html"})

        with Portal(service.entra) as portal:
            assert isinstance(connect(sink(portal)).send([row()], 5), Stop)
            with pytest.raises(OSError):
                sink(portal).check(5)


class TestCheck:
    def test_it_tells_whether_the_dataset_is_there_and_makes_none(self, service):
        assert "made with the first alert" in sink(service).check(5)
        with pytest.raises(OSError, match="no push dataset"):
            sink(service, create=False).check(5)
        assert not service.datasets
        mine = service.add("alertbeam", OURS)
        assert "is there" in sink(service).check(5)
        assert "is there" in sink(service, dataset=mine).check(5)
        assert not service.rows

    def test_it_tells_a_wrong_workspace_a_wrong_id_and_a_wrong_secret(self, service, monkeypatch):
        nowhere = "00000000-0000-4000-8000-000000000000"
        for wrong in ({"workspace": nowhere}, {"dataset": nowhere}):
            with pytest.raises(OSError, match="is there such a workspace"):
                sink(service, **wrong).check(5)
        monkeypatch.setenv("SECRET", "wr0ng")
        with pytest.raises(SecretError, match="AADSTS7000215"):
            sink(service).check(5)

    def test_how_to_find_an_alert(self, service):
        found = sink(service, table="My alerts").find(identity(1))
        assert found.endswith(f"EVALUATE FILTER('My alerts', [EventId] = \"{identity(1)}\")")
