"""Flink's REST API as the client sees it: on a double, and (marked `engines`) on Flink itself."""

from __future__ import annotations

import base64
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cluster import flink as module
from pipelines.cluster.flink import Flink, FlinkError, diagnose, wait_until_working
from tests.cluster.flink_double import (
    IN_PROGRESS,
    DoubleJob,
    FlinkDouble,
    checkpoint,
    refusal,
    saved,
    unsaved,
)
from transforms.secrets import SecretRef

NO_SLOTS = (
    "org.apache.flink.runtime.JobException: Recovery is suppressed\n\tat org.apache.A.b(A:1)\n"
    "Caused by: org.apache.flink.runtime.jobmanager.scheduler.NoResourceAvailableException: "
    "Could not acquire the minimum required resources.\n"
)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlinkDouble]:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    with FlinkDouble() as made:
        yield made


@pytest.fixture
def client(double: FlinkDouble) -> Flink:
    return Flink(double.address)


def running(double: FlinkDouble, **fields: object) -> DoubleJob:
    job = double.add(**fields)
    job.vertex("Read")
    return job


class TestLooking:
    def test_the_cluster_says_its_version_taskmanagers_and_slots(self, client: Flink) -> None:
        has = client.overview()
        assert (has.version, has.taskmanagers, has.slots, has.free) == ("1.19.3", 2, 4, 2)

    def test_jobs_come_newest_first(self, double: FlinkDouble, client: Flink) -> None:
        double.add(name="old", began_ms=1_000, state="FAILED")
        double.add(name="new", began_ms=2_000)
        assert [(job.name, job.lives) for job in client.jobs()] == [("new", True), ("old", False)]

    def test_a_job_is_found_by_name_and_by_id_while_it_lives(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        double.add(state="FAILED")
        job = double.add()
        assert client.named("alertbeam").id == client.named(job.id).id == job.id
        assert client.named(job.id[:8]).id == job.id
        with pytest.raises(FlinkError, match="there is no job"):
            client.named(job.id[:7])

    def test_a_job_that_is_none_or_ended_or_two_is_refused(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        with pytest.raises(FlinkError, match="there is no job alertbeam"):
            client.named("alertbeam")
        first = double.add(state="CANCELED")
        with pytest.raises(FlinkError, match="does not run: it is CANCELED"):
            client.named("alertbeam")
        first.state = "RESTARTING"
        second = double.add()
        with pytest.raises(FlinkError, match=f"2 jobs .*({first.id}|{second.id})"):
            client.named("alertbeam")

    def test_a_job_runs_only_when_all_its_vertices_do(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double)
        assert client.job(job.id).runs
        job.vertex("Write", status="DEPLOYING")
        assert client.job(job.id).state == "RUNNING"
        assert not client.job(job.id).runs

    def test_checkpoints_are_read_with_what_was_restored_and_what_failed(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(
            double,
            completed=checkpoint(7, "file:/c/chk-7"),
            restored={"id": 6, "restore_timestamp": 5, "is_savepoint": True, "external_path": "s"},
            failed=checkpoint(8) | {"failure_timestamp": 9, "failure_message": "expired"},
        )
        found = client.checkpoints(job.id)
        last, restored, failed = (
            found.latest.completed, found.latest.restored, found.latest.failed,
        )  # fmt: skip
        assert last and restored and failed
        assert (last.id, last.size, last.took_ms, last.path) == (7, 1_234_567, 300, "file:/c/chk-7")
        assert (restored.id, restored.path, restored.is_savepoint) == (6, "s", True)
        assert (failed.message, found.counts.failed) == ("expired", 1)

    def test_where_checkpoints_are_off_there_are_none(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double, checkpointing=False)
        assert client.checkpoints(job.id).latest.completed is None

    def test_while_a_job_is_initializing_there_are_none(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = double.add(state="INITIALIZING")
        assert client.checkpoints(job.id).latest.completed is None
        assert diagnose(client, client.job(job.id)) == ""

    def test_a_checkpoint_in_the_jobmanagers_memory_is_nothing_to_resume_from(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double, completed=checkpoint(1, "<checkpoint-not-externally-addressable>"))
        last = client.checkpoints(job.id).latest.completed
        assert last and last.path == ""

    def test_exceptions_are_told_by_their_cause_in_one_printable_line(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        hostile = "java.lang.Exception: \x1b[2J" + "x" * 5_000 + "\nSecond line\n\tat a.b(C)"
        job = running(double, failures=[NO_SLOTS, hostile])
        first, second = client.exceptions(job.id)
        assert first.cause == (
            "NoResourceAvailableException: Could not acquire the minimum required resources."
        )
        assert second.cause.isprintable() and len(second.cause) < 310


class TestMetrics:
    def test_a_long_list_is_asked_for_in_urls_that_flink_takes(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double)
        names = [f"{n}.[3]{{Parse, Deduplicate}} {'ä' * 40}.numRecordsIn" for n in range(40)]
        names = [name.replace(",", "_") for name in names]
        job.vertices[0]["values"] = {name: str(n) for n, name in enumerate(names)}
        found = client.vertex_metrics(job.id, job.vertices[0]["id"], names)
        assert found == job.vertices[0]["values"]
        assert len(double.asked) > 1

    def test_what_is_not_there_is_left_out(self, double: FlinkDouble, client: Flink) -> None:
        job = running(double)
        assert client.job_metrics(job.id, ["numRestarts", "nope"]) == {"numRestarts": "0"}
        assert client.job_metrics(job.id, []) == {}

    def test_beams_own_are_found_by_namespace_subtask_and_name(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double)
        job.vertices[0]["values"] = {
            "0.[2]{Read}.alertbeam_read_events": "12",
            "1.[2]{Read}.alertbeam_read_events": "34",
            "1.[2]{Read}.other_read_events": "56",
            "1.numRecordsIn": "78",
        }
        assert client.beam_metrics(job.id, job.vertices[0]["id"], "alertbeam") == {
            (0, "read_events"): "12",
            (1, "read_events"): "34",
        }


class TestStopping:
    def test_a_savepoint_is_waited_for(self, double: FlinkDouble, client: Flink) -> None:
        job = running(double, stopping=[IN_PROGRESS, IN_PROGRESS, saved("file:/s/savepoint-1")])
        assert client.stop(job.id, "file:/s") == "file:/s/savepoint-1"
        method, path, body = double.asked[0]
        assert (method, path) == ("POST", f"/v1/jobs/{job.id}/stop")
        assert body == {
            "drain": False, "targetDirectory": "file:/s", "triggerId": body["triggerId"],
        }  # fmt: skip

    def test_a_job_that_was_stopped_has_ended(self, double: FlinkDouble, client: Flink) -> None:
        """What Flink shows of it lags: a resume right after would find it running."""
        job = running(double, stopping=[saved("s")], stale=1)
        client.stop(job.id)
        assert not client.job(job.id).lives

    @pytest.mark.parametrize("how", ["stop", "cancel"])
    def test_a_cluster_that_ends_with_its_job_has_ended_it(
        self, double: FlinkDouble, client: Flink, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = running(double, stopping=[saved("s")], stale=1)
        asked, request = itertools.count(), client._request

        def gone(method: str, path: str, *more: object) -> bytes:
            if path == f"/jobs/{job.id}" and next(asked):
                raise FlinkError("no Flink there")
            return request(method, path, *more)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "_request", gone)
        getattr(client, how)(job.id)
        assert next(asked) == 2

    def test_one_that_does_not_end_is_told_with_its_savepoint(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double, stopping=[saved("file:/s/1")], stale=1_000_000)
        with pytest.raises(FlinkError, match="savepoint file:/s/1 is complete, but it has not"):
            client.stop(job.id, seconds=0.1)

    def test_one_without_stopping_says_so(self, double: FlinkDouble, client: Flink) -> None:
        job = running(double, stopping=[saved("s")])
        assert client.savepoint(job.id) == "s"
        assert double.asked[0][2]["cancel-job"] is False

    def test_why_it_failed_is_told(self, double: FlinkDouble, client: Flink) -> None:
        stack = (
            "java.util.concurrent.CompletionException: x\n\tat a.B.c(D)\nCaused by: "
            "org.apache.flink.runtime.checkpoint.CheckpointException: Checkpoint triggering task "
            "A (1/2) of job b is not being executed at the moment. Aborting checkpoint. Failure "
            "reason: Not all required tasks are currently running.\n\tat e.F.g(H)\n"
        )
        job = running(double, stopping=[unsaved(stack)])
        with pytest.raises(FlinkError, match="no savepoint: not all of the job's tasks run"):
            client.stop(job.id)

    def test_where_there_is_no_folder_for_it_that_is_told(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double)
        text = (
            "org.apache.flink.runtime.rest.handler.RestHandlerException: Config key "
            "[state.savepoints.dir] is not set. Property [targetDirectory] must be provided."
        )
        double.override = lambda method, path: (400, refusal(text)) if method == "POST" else None
        with pytest.raises(FlinkError, match=r"no folder for savepoints: .*state\.savepoints"):
            client.stop(job.id)

    def test_waiting_has_an_end(self, double: FlinkDouble, client: Flink) -> None:
        job = running(double, stopping=[IN_PROGRESS])
        with pytest.raises(FlinkError, match="not complete after 0 s"):
            client.stop(job.id, seconds=0.1)

    def test_a_jobmanager_that_is_away_for_a_moment_is_waited_for(
        self, double: FlinkDouble, client: Flink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = running(double, stopping=[saved("s")])
        request, lost = client._request, iter([False, True, True, False, False])

        def flaky(*arguments: object) -> bytes:
            if next(lost):
                raise FlinkError("no Flink there")
            return request(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(client, "_request", flaky)
        assert client.stop(job.id) == "s"

    def test_cancelling_waits_until_it_has_ended(self, double: FlinkDouble, client: Flink) -> None:
        job = running(double)
        client.cancel(job.id)
        assert job.state == "CANCELED"
        assert double.asked[0][:2] == ("PATCH", f"/v1/jobs/{job.id}?mode=cancel")


class TestReaching:
    @pytest.mark.parametrize(
        ("address", "url"),
        [
            ("jobmanager:8081", "http://jobmanager:8081"),
            ("[::1]:8081", "http://[::1]:8081"),
            ("https://gateway.example/flink/", "https://gateway.example/flink"),
        ],
    )
    def test_an_address_is_a_host_and_port_or_a_url(self, address: str, url: str) -> None:
        assert Flink(address).url == url

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "ftp://a:1",
            "http://user:secret@a:1",
            "a:x",
            "a:99999",
            "http://a:1?b=c",
            "http://a#b",
        ],
    )
    def test_what_is_none_is_refused_without_repeating_secrets(self, address: str) -> None:
        with pytest.raises(FlinkError, match="is no address of a cluster") as error:
            Flink(address)
        assert "secret" not in str(error.value)

    def test_a_path_in_front_is_kept(self, double: FlinkDouble) -> None:
        double.override = lambda method, path: (
            (200, b'{"taskmanagers": 5}') if path == "/flink/v1/overview" else None
        )
        assert Flink(f"http://{double.address}/flink").overview().taskmanagers == 5

    def test_credentials_are_a_user_with_password_or_a_token(
        self, double: FlinkDouble, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FLINK", "user:word")
        client = Flink(double.address, SecretRef("env:FLINK"))
        client.overview()
        monkeypatch.setenv("FLINK", "token")
        client.overview()
        basic = base64.b64encode(b"user:word").decode()
        said = [headers["authorization"] for headers in double.headers]
        assert said == [f"Basic {basic}", "Bearer token"]

    def test_a_refusal_asks_for_credentials(self, double: FlinkDouble, client: Flink) -> None:
        double.override = lambda method, path: (401, b"")
        with pytest.raises(FlinkError, match=r"refuses \(HTTP 401\): give --credentials"):
            client.overview()

    def test_where_nothing_listens_it_says_what_to_look_at(self) -> None:
        with FlinkDouble() as gone:
            pass
        with pytest.raises(FlinkError, match=r"no Flink at .*Connection refused.*rest\.port"):
            Flink(gone.address).overview()

    def test_an_answer_that_never_comes_is_given_up(self, double: FlinkDouble) -> None:
        double.hang.clear()
        began = time.monotonic()
        with pytest.raises(FlinkError, match="does not answer in time"):
            Flink(double.address, timeout=0.2).overview()
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"taskmanagers": "two"}', b"\xff"])
    def test_another_server_is_not_taken_for_flink(
        self, double: FlinkDouble, client: Flink, body: bytes
    ) -> None:
        double.override = lambda method, path: (200, body)
        with pytest.raises(FlinkError, match="not Flink's REST API"):
            client.overview()

    def test_an_answer_without_end_is_not_read(
        self, double: FlinkDouble, client: Flink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_MOST", 1 << 20)
        double.override = lambda method, path: (200, b" " * (3 << 20))
        with pytest.raises(FlinkError, match="more than 1 MB"):
            client.overview()

    def test_a_redirect_is_not_followed(
        self, double: FlinkDouble, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FLINK", "token")
        with FlinkDouble() as other:
            to = f"http://{other.address}/v1/overview".encode()
            double.override = lambda method, path: (302, to)
            with pytest.raises(FlinkError, match="HTTP 302"):
                Flink(double.address, SecretRef("env:FLINK")).overview()
            assert other.asked == []

    @pytest.mark.parametrize(
        "body", [b"", b"<html>\x1b[2J", refusal("\x1b[2J\r\nboom\n\tat a.B.c(D)"), refusal("")]
    )
    def test_whatever_a_refusal_says_is_one_printable_line(
        self, double: FlinkDouble, client: Flink, body: bytes
    ) -> None:
        double.override = lambda method, path: (500, body)
        with pytest.raises(FlinkError) as error:
            client.overview()
        assert str(error.value).isprintable() and str(error.value)
        assert error.value.status == 500

    def test_a_name_of_any_origin_stays_in_its_place_in_the_path(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        with pytest.raises(FlinkError):
            client.job("../overview?x=")
        assert double.asked[0][1] == "/v1/jobs/..%2Foverview%3Fx%3D"


class TestWaiting:
    def test_it_waits_for_all_subtasks_and_the_first_checkpoint(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = double.add(state="CREATED")
        vertex = job.vertex("Read", status="CREATED")
        said: list[str] = []

        def goes_on(line: str) -> None:
            said.append(line.partition(" ")[0])
            if said[-1] == "CREATED":
                job.state = "RUNNING"
            elif said[-1] == "STARTING":
                vertex["status"] = "RUNNING"
            elif said[-1] == "RUNNING":
                job.completed = checkpoint(1)

        found = wait_until_working(client, job.id, goes_on, 30)
        assert found and found.id == 1
        assert said == ["CREATED", "STARTING", "RUNNING"]

    def test_a_job_that_fails_ends_it_with_the_reason(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double, state="FAILED", failures=[NO_SLOTS])
        with pytest.raises(FlinkError, match="the job is FAILED: there are not enough free slots"):
            wait_until_working(client, job.id, lambda line: None, 30)

    def test_a_job_that_is_through_before_its_first_checkpoint_is_well(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double, state="FINISHED")
        assert wait_until_working(client, job.id, lambda line: None, 30) is None

    @pytest.mark.parametrize(
        ("taskmanagers", "free", "told"),
        [(0, 0, "the cluster has no TaskManagers"), (2, 1, "needs 2 slots, 1 of 4 are free")],
    )
    def test_what_is_missing_is_said_once_and_is_the_reason_in_the_end(
        self, double: FlinkDouble, client: Flink, monkeypatch: pytest.MonkeyPatch,
        taskmanagers: int, free: int, told: str,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(module, "_PATIENCE", 0)
        double.taskmanagers, double.free = taskmanagers, free
        job = double.add()
        job.vertex("Read", status="SCHEDULED")
        said: list[str] = []
        with pytest.raises(FlinkError, match=f"does not work after 0 s: .*{told}.*left as it is"):
            wait_until_working(client, job.id, said.append, 0.3)
        assert len([line for line in said if told in line]) == 1

    def test_slots_that_the_job_holds_itself_are_not_missing(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        double.free = 0
        job = double.add(slots=2)
        job.vertex("Read", status="SCHEDULED")
        double.add(slots=2)
        assert diagnose(client, client.job(job.id)) == ""
        job.slots = 1
        assert diagnose(client, client.job(job.id)).startswith("the job needs 2 slots, 0 of 4 are")

    def test_a_restart_is_explained_while_it_goes_on(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        refused = (
            "java.lang.RuntimeException: Error received from SDK harness for instruction 1: "
            "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named "
            "'transforms'\n\n\tat a.b(C)\n"
        )
        job = running(double, state="RESTARTING", failures=[refused])

        def mended(line: str) -> None:
            if "the workers lack alertbeam" in line:
                job.state, job.completed = "RUNNING", checkpoint(1)

        assert wait_until_working(client, job.id, mended, 30)

    def test_a_failed_checkpoint_is_told(
        self, double: FlinkDouble, client: Flink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_PATIENCE", 0)
        expired = {"failure_message": "Checkpoint expired before completing."}
        job = running(double, failed=checkpoint(1) | expired)
        with pytest.raises(FlinkError, match=r"a checkpoint failed: .*longer than its timeout"):
            wait_until_working(client, job.id, lambda line: None, 0.2)

    def test_a_jobmanager_that_starts_anew_is_waited_for(
        self, double: FlinkDouble, client: Flink
    ) -> None:
        job = running(double, completed=checkpoint(1))
        double.override = lambda method, path: (503, b"")
        threading.Timer(0.2, lambda: setattr(double, "override", lambda *_: None)).start()
        assert wait_until_working(client, job.id, lambda line: None, 30)

    def test_one_that_never_answers_is_told_in_the_end(self, tmp_path: Path) -> None:
        with FlinkDouble() as gone:
            pass
        with pytest.raises(FlinkError, match="does not work after 0 s: no Flink at"):
            wait_until_working(Flink(gone.address), "x" * 32, lambda line: None, 0.2)
