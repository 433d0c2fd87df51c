"""`alertbeam flink`: jobs are listed, stopped and resumed; on a double of Flink's REST API.

Submitting is another module's: here it is a double too, with the signature that is agreed.
"""

from __future__ import annotations

import json
import re
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from pipelines.cluster import flink as client
from pipelines.cluster.flink import FlinkError
from pipelines.cluster.savepoints import Saved, kept, stopped
from pipelines.commands.flink import flink
from pipelines.settings import Settings
from tests.cluster.flink_double import FlinkDouble, checkpoint, refusal, saved
from transforms.state_store import StateStore

SETTINGS = "sources: [{event_hubs: {namespace: a.b, hub: h}}]\nsinks: [{file: {folder: out}}]\n"


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlinkDouble]:
    monkeypatch.setattr(client, "_LOOK_SECONDS", 0.01)
    with FlinkDouble() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateStore:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    Path("settings.yaml").write_text(f"{SETTINGS}state: state\n", encoding="utf-8")
    made = StateStore(str(tmp_path / "state"))
    made.prepare()
    return made


class Submitted(NamedTuple):
    job_id: str
    name: str
    rest: str


@pytest.fixture
def submissions(double: FlinkDouble, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was submitted; it runs on the double at once, restored from the savepoint."""
    given: list[dict[str, Any]] = []

    def submit(
        settings: Settings, settings_path: Path, *, cluster: str, name: str,
        parallelism: int | None, savepoint: str = "", allow_non_restored: bool = False,
        job_server_jar: Path | None = None, options: Sequence[str] = (),
        output_jar: Path | None = None, say: Callable[[str], None],
    ) -> Submitted:  # fmt: skip
        given.append(
            {
                "cluster": cluster, "name": name, "parallelism": parallelism, "options": options,
                "savepoint": savepoint, "allow_non_restored": allow_non_restored,
            }
        )  # fmt: skip
        if output_jar is not None:
            output_jar.write_bytes(b"x" * 2_000_000)
            return Submitted("", name, "")
        job = double.add(name=name, completed=checkpoint(1))
        job.vertex("Read")
        if savepoint != "ignored":
            job.restored = {"id": 1, "external_path": savepoint, "is_savepoint": True}
        return Submitted(job.id, name, cluster)

    module = types.ModuleType("pipelines.cluster.submit")
    module.submit = submit  # type: ignore[attr-defined]

    def stop_drained(flink: Any, job: str, store: StateStore, run: str, seconds: float) -> str:
        given.append({"drained": job, "run": run})
        return "s"

    module.stop_drained = stop_drained  # type: ignore[attr-defined]
    module.prepare = lambda settings, say: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipelines.cluster.submit", module)
    return given


def call(*arguments: str) -> tuple[int, str]:
    """Exit code and output; an error of ours as the command `alertbeam` tells it."""
    result = CliRunner().invoke(flink, arguments)
    if isinstance(result.exception, FlinkError):
        return 1, result.output + str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\x1b\[[\d;]*m", "", result.output)


class TestList:
    def test_an_empty_cluster_is_shown_with_its_slots(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        code, out = call("list", "--cluster", double.address)
        assert code == 0
        said = f"Flink 1.19.3 at http://{double.address}: 2 TaskManagers, 2 of 4 slots free"
        assert out.splitlines() == [said, "no jobs"]

    def test_jobs_are_shown_with_what_they_can_be_resumed_from(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        stopped(store, "old", Saved("abfss://s/1", 20))
        double.add(name="old", state="FINISHED", ended_ms=1_000)
        job = double.add(completed=checkpoint(3, age=4), metrics={"numRestarts": "7"})
        code, out = call("list", "--cluster", double.address)
        assert code == 0
        rows = [re.split(r" {2,}", line.strip()) for line in out.splitlines()]
        first = next(row for row in rows if row[0] == "alertbeam")
        assert (first[1], first[3:]) == ("RUNNING", ["7", "4 s ago, 1.2 MB", "-", job.id[:8]])
        assert "old can be resumed from abfss://s/1" in out
        assert "alertbeam can be resumed" not in out

    def test_it_needs_no_settings(
        self, double: FlinkDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        double.add(state="FAILED", metrics={}, checkpointing=False)
        assert call("list", "--cluster", double.address)[0] == 0

    def test_settings_that_are_named_have_to_be_there(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        with pytest.raises(Exception, match=r"other\.yaml"):
            call("list", "--cluster", double.address, "-c", "other.yaml")

    def test_names_of_any_origin_do_no_harm(self, double: FlinkDouble, store: StateStore) -> None:
        double.add(name="[red]x[/]\x1b[2J", state="FAILED")
        code, out = call("list", "--cluster", double.address)
        assert code == 0 and "\x1b" not in out and "[red]x[/]" in out

    def test_credentials_that_are_no_reference_are_refused_unseen(self, store: StateStore) -> None:
        code, out = call("list", "--credentials", "user:word")
        assert code == 2
        assert "given as a reference" in " ".join(out.replace("│", " ").split())
        assert "user:word" not in out


class TestStop:
    def test_a_cluster_that_ends_with_its_job_is_no_failure(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        job = double.add(completed=checkpoint(3), stopping=[saved("file:/s/savepoint-1")])

        def gone(method: str, path: str) -> tuple[int, bytes] | None:
            ended = job.state == "FINISHED"
            return (503, refusal("shutting down")) if ended and "checkpoints" in path else None

        double.override = gone
        code, out = call("stop", "alertbeam", "--cluster", double.address)
        assert (code, "file:/s/savepoint-1" in out) == (0, True), out

    def test_it_says_where_the_savepoint_lies_and_how_to_resume(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        job = double.add(completed=checkpoint(3), stopping=[saved("file:/s/savepoint-1")])
        job.savepoint = checkpoint(4, "file:/s/savepoint-1", is_savepoint=True)
        code, out = call("stop", "alertbeam", "--cluster", double.address)
        assert code == 0, out
        first, path, _, resume = out.splitlines()
        assert re.fullmatch(
            r"alertbeam is stopped, after \d+\.\d s; its savepoint of 1.2 MB:", first
        )
        assert path == "file:/s/savepoint-1"
        assert (
            resume
            == f"alertbeam flink resume alertbeam --cluster {double.address} -c settings.yaml"
        )
        known = kept(store, "alertbeam")
        assert [each.path for each in known.savepoints] == ["file:/s/savepoint-1"]
        assert known.checkpoint and known.checkpoint.path == "file:/checkpoints/x/chk-3"

    def test_without_settings_the_command_names_the_savepoint(
        self, double: FlinkDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        double.add(stopping=[saved("file:/s/a b")])
        code, out = call("stop", "alertbeam", "--cluster", double.address)
        assert code == 0
        assert out.splitlines()[-1].endswith(f"--cluster {double.address} --from 'file:/s/a b'")

    def test_what_was_drained_is_not_resumed(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        job = double.add()
        status = {"running": True, "host": "h", "at_ms": int(time.time() * 1000), "run": "abc"}
        store.put("status.json", json.dumps(status).encode())
        code, out = call("stop", "alertbeam", "--drain", "--cluster", double.address)
        assert code == 0 and "not resumed from that" in out
        assert submissions == [{"drained": job.id, "run": "abc"}]
        assert kept(store, "alertbeam").savepoints == []

    def test_a_job_that_does_not_tell_of_itself_is_not_drained(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        double.add()
        code, out = call("stop", "alertbeam", "--drain", "--cluster", double.address)
        assert code == 1 and "tells of itself in the state folder" in out
        assert submissions == []

    def test_one_that_fails_says_that_the_job_goes_on(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        double.add()
        double.override = lambda method, path: (500, refusal("x: y")) if method == "POST" else None
        code, out = call("stop", "alertbeam", "--cluster", double.address)
        assert code == 1
        assert out.startswith("alertbeam is not stopped, it goes on: x: y.")
        assert out.endswith("--cancel")

    def test_a_cancelled_one_can_be_resumed_from_its_last_checkpoint(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        job = double.add(completed=checkpoint(3, age=30))
        code, out = call("stop", "alertbeam", "--cancel", "--cluster", double.address)
        assert code == 0 and job.state == "CANCELED"
        assert "without a savepoint" in out
        assert re.search(r"of 3\d s ago, is file:/checkpoints/x/chk-3: .* read again", out)
        known = kept(store, "alertbeam").checkpoint
        assert known and known.path == "file:/checkpoints/x/chk-3"

    def test_a_cancelled_one_without_a_checkpoint_starts_cold(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        double.add()
        code, out = call("stop", "alertbeam", "--cancel", "--cluster", double.address)
        assert code == 0 and "goes on at what is settled" in out

    def test_drain_and_cancel_exclude_each_other(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        assert call("stop", "x", "--drain", "--cancel", "--cluster", double.address)[0] == 2
        assert double.asked == []

    def test_a_job_that_does_not_run_is_not_stopped(
        self, double: FlinkDouble, store: StateStore
    ) -> None:
        code, out = call("stop", "alertbeam", "--cluster", double.address)
        assert code == 1 and "there is no job alertbeam" in out


class TestResume:
    def test_the_newest_savepoint_is_taken(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        stopped(store, "alertbeam", Saved("s/1", 1))
        stopped(store, "alertbeam", Saved("s/2", 2))
        code, out = call(
            "resume", "alertbeam", "--cluster", double.address, "-p", "3", "--allow-non-restored",
            "--", "--checkpointing_interval=1000", "--x",
        )  # fmt: skip
        assert code == 0, out
        assert submissions == [
            {
                "cluster": double.address, "name": "alertbeam", "parallelism": 3,
                "options": ["--checkpointing_interval=1000", "--x"], "savepoint": "s/2",
                "allow_non_restored": True,
            }
        ]  # fmt: skip
        assert "alertbeam works, with the state of s/2" in out
        assert kept(store, "alertbeam").job == double.jobs[0].id

    def test_one_can_be_named(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        stopped(store, "alertbeam", Saved("s/1", 1))
        assert call("resume", "alertbeam", "--cluster", double.address, "--from", "s/0")[0] == 0
        assert submissions[0]["savepoint"] == "s/0"

    def test_where_none_is_known_it_says_what_to_do(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        code, out = call("resume", "alertbeam", "--cluster", double.address)
        assert code == 1 and "no savepoint of alertbeam is known" in out
        assert submissions == []

    def test_a_job_that_lives_is_not_started_twice(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        double.add(state="RESTARTING")
        code, out = call("resume", "alertbeam", "--cluster", double.address, "--from", "s")
        assert code == 1 and "is RESTARTING already" in out and "alertbeam flink stop" in out
        assert submissions == []

    def test_a_savepoint_that_was_passed_over_in_silence_is_told(
        self, double: FlinkDouble, store: StateStore, submissions: list[dict[str, Any]]
    ) -> None:
        code, out = call("resume", "alertbeam", "--cluster", double.address, "--from", "ignored")
        assert code == 1 and "began without the savepoint" in out


class TestWatch:
    def test_it_ends_with_the_job(self, double: FlinkDouble, store: StateStore) -> None:
        job = double.add(completed=checkpoint(3))
        job.vertex("Read")
        double.override = lambda method, path: (
            setattr(job, "state", "FAILED") if path.endswith("/checkpoints") else None
        )
        code, out = call("watch", "alertbeam", "--cluster", double.address)
        assert code == 1 and "alertbeam has ended: FAILED" in out

    def test_ctrl_c_says_how_to_stop_it(
        self, double: FlinkDouble, store: StateStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        double.add()
        monkeypatch.setattr("pipelines.cluster.monitor.watch", lambda *_, **__: "")
        code, out = call("watch", "alertbeam", "--cluster", double.address)
        stop = f"alertbeam flink stop alertbeam --cluster {double.address} -c settings.yaml"
        assert (code, out) == (0, f"alertbeam goes on; to stop it: {stop}\n")


def test_a_jar_is_written_with_how_to_run_it(
    store: StateStore, submissions: list[dict[str, Any]]
) -> None:
    code, out = call("jar", "-o", "my app.jar", "-p", "2", "--", "--x")
    assert code == 0
    assert out.splitlines() == [
        "my app.jar: 2.0 MB",
        "To start it:   flink run -d -p 2 'my app.jar'",
        "To resume it:  flink run -d -p 2 -s SAVEPOINT 'my app.jar'",
    ]
    assert submissions[0]["cluster"] == "[auto]" and submissions[0]["options"] == ["--x"]
