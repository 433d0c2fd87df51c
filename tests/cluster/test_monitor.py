"""What is shown of a job on a cluster: asked of a double of Flink, and of a state store."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from pipelines.cluster import monitor as module
from pipelines.cluster.flink import Flink, FlinkError
from pipelines.cluster.monitor import Load, load_table, look, watch
from pipelines.cluster.savepoints import kept
from schemas.receipt import Outcomes
from tests.cluster.flink_double import DoubleJob, FlinkDouble, checkpoint
from tests.site import wait_for
from transforms.account import Settled
from transforms.owed import account_path
from transforms.state_store import StateStore

HOSTILE = "[red]x[/] \x1b[2J\r\n"


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlinkDouble]:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LINE_SECONDS", 0.05)
    with FlinkDouble() as made:
        yield made


@pytest.fixture
def job(double: FlinkDouble) -> DoubleJob:
    made = double.add(completed=checkpoint(3, age=4.0), metrics={"numRestarts": "2"})
    made.failed = {"failure_timestamp": int(time.time() * 1000), "failure_message": "expired"}
    made.vertex("Read")["values"] = {
        "0.numRecordsOutPerSecond": "100.0",
        "1.numRecordsOutPerSecond": "900.5",
        "0.busyTimeMsPerSecond": "NaN",
        "1.busyTimeMsPerSecond": "700",
        "0.backPressuredTimeMsPerSecond": "10",
        "1.backPressuredTimeMsPerSecond": "20",
        "0.[2]{Read}.alertbeam_read_events_h_0": "1000",
        "1.[2]{Read}.alertbeam_read_events_h_1": "300",
        "1.[2]{Read}.alertbeam_read_events_h_2": "30",
        "1.[2]{Read}.alertbeam_read_timestamp_seconds_h_2": "99",
    }
    return made


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    made = StateStore(str(tmp_path / "state"))
    made.prepare()
    outcomes = Outcomes(delivered=7, dead=1, owed=2)
    entry = Settled(position=9, records=10, enqueued_ms=1, outcomes=outcomes)
    reading = {"source": "ns/h/$Default", "partition": "0", "next": 60, "last_sequence": 51}
    reading |= {"last_enqueued_ms": 1, "read_enqueued_ms": int(time.time() * 1000) - 3_000}
    broken = {"source": "h", "partition": "1", "error": "the hub refuses"}
    status = {
        "running": True, "host": "h", "at_ms": int(time.time() * 1000), "unread": ["h/2"],
        "partitions": [reading | {"error": ""}, broken],
        "sinks": {"my siem": {"circuit": "open", "reason": "no answer"}},
    }  # fmt: skip
    made.put("status.json", json.dumps(status).encode())
    made.put(account_path("my siem", "ns/h/$Default", "0"), msgspec.json.encode(entry))
    return made


def shown(
    double: FlinkDouble,
    job: DoubleJob,
    until: Callable[[str], bool],
    terminal: bool = False,
    **options: object,
) -> tuple[str, str]:
    """What `watch` returns, and printed by the time that `until` held of it."""
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=terminal)
    began = time.monotonic()
    state = watch(
        Flink(double.address), job.id, job.name, console,
        over=lambda: until(out.getvalue()) or time.monotonic() - began > 20,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return state, out.getvalue()


class TestLooking:
    def test_a_view_has_each_subtasks_load(self, double: FlinkDouble, job: DoubleJob) -> None:
        view = look(Flink(double.address), job.id)
        assert view.loads == (
            Load("Read", (100.0, 900.5), (0.0, 700.0), (10.0, 20.0), (1000.0, 330.0)),
        )
        assert (view.state, view.restarts) == ("RUNNING", 2)

    def test_before_workers_say_anything_nothing_is_made_up(self, double: FlinkDouble) -> None:
        fresh = double.add(metrics={}, state="INITIALIZING")
        view = look(Flink(double.address), fresh.id)
        assert (view.restarts, view.loads) == (None, ())

    @pytest.mark.parametrize(
        ("rates", "uneven"),
        [((100, 900), True), ((450, 550), False), ((900,), False), ((0, 0), False), ((), False),
         ((0.1, 0.9), False)],
    )  # fmt: skip
    def test_unevenness_is_a_subtask_that_does_far_more(
        self, rates: tuple[float, ...], uneven: bool
    ) -> None:
        assert Load("x", rates, rates, rates, (0.0,) * len(rates)).uneven is uneven
        assert Load("x", (5.0, 5.0), (), (), rates).uneven is (uneven and len(rates) > 1)

    def test_many_subtasks_are_summed_up(self) -> None:
        out = io.StringIO()
        many = tuple(float(n) for n in range(64))
        Console(file=out, width=200).print(load_table([Load(HOSTILE, many, many, many, many)]))
        assert "0 to 63, mean 32" in out.getvalue()
        assert "\x1b" not in out.getvalue()


class TestWatching:
    def test_a_line_says_how_it_goes(
        self, double: FlinkDouble, job: DoubleJob, store: StateStore
    ) -> None:
        state, out = shown(
            double, job, lambda text: text.count("\n") > 1, store=store, sinks=["my siem"]
        )
        assert state == ""
        line = out.splitlines()[-1]
        assert re.match(
            r"alertbeam  RUNNING  \d+ s  2 restarts  checkpoint \d+ s ago \(1.2 MB", line
        )
        for part in (
            "in 0.3 s), one failed since",
            "read 10 (0/s)", "2 owed", "1 dead", "waiting in the hub 42 (",
            "my siem: open (no answer)", "1 partitions that nobody reads",
            "h/1: the hub refuses",
            "uneven load",
        ):  # fmt: skip
            assert part in line, (part, line)

    def test_a_terminal_shows_loads_accounts_and_circuits(
        self, double: FlinkDouble, job: DoubleJob, store: StateStore
    ) -> None:
        _, out = shown(
            double, job, lambda text: "uneven" in text, True, store=store, sinks=["my siem"]
        )
        for part in ("load, a figure a subtask", "100 900", "uneven", "my siem", "open", "owed"):
            assert part in out

    def test_the_last_checkpoint_is_kept_for_a_resume(
        self, double: FlinkDouble, job: DoubleJob, store: StateStore
    ) -> None:
        shown(double, job, lambda text: "RUNNING" in text, store=store, sinks=["my siem"])
        found = kept(store, "alertbeam").checkpoint
        assert found and found.path == "file:/checkpoints/x/chk-3"

    def test_it_ends_with_the_job_and_says_why(self, double: FlinkDouble, job: DoubleJob) -> None:
        job.state, job.failures = "FAILED", ["java.lang.OutOfMemoryError: Java heap space\n\tat a"]
        state, out = shown(double, job, lambda text: False)
        assert state == "FAILED"
        assert "a JVM is out of memory (Java heap space)" in out

    def test_a_restart_is_explained_until_a_checkpoint_came_after_it(
        self, double: FlinkDouble, job: DoubleJob
    ) -> None:
        job.metrics = {"numRestarts": "0"}
        job.completed = checkpoint(3, age=90.0)

        def goes_on(text: str) -> bool:
            if "checkpoint" in text and job.metrics["numRestarts"] == "0":
                job.failures = ["java.net.UnknownHostException: jobmanager: x\n\tat a.b(C)"]
                job.metrics = {"numRestarts": "1"}
            if "1 restarts" in text:
                job.completed = checkpoint(4, age=0.0)
            return "host jobmanager" in text and "host jobmanager" not in text.splitlines()[-1]

        _, out = shown(double, job, goes_on)
        assert "the host jobmanager is not known" in out
        assert "jobmanager" not in out.splitlines()[-1]

    def test_a_jobmanager_that_is_away_is_told_and_waited_for(
        self, double: FlinkDouble, job: DoubleJob
    ) -> None:
        def goes_on(text: str) -> bool:
            away = "no answer" in text
            double.override = (lambda *_: None) if away else (lambda *_: (503, b""))
            return "RUNNING" in text

        _, out = shown(double, job, goes_on)
        assert "no answer: http://" in out and "RUNNING" in out

    def test_one_that_does_not_come_back_is_given_up(
        self, double: FlinkDouble, job: DoubleJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_LOST_SECONDS", 0.1)
        double.override = lambda *_: (503, b"")
        with pytest.raises(FlinkError, match="HTTP 503"):
            shown(double, job, lambda text: False)

    def test_ctrl_c_ends_the_picture_and_nothing_else(
        self, double: FlinkDouble, job: DoubleJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("pipelines.cluster.monitor.time.sleep", interrupted)
        assert shown(double, job, lambda text: False)[0] == ""
        assert {method for method, *_ in double.asked} == {"GET"}

    def test_a_closed_pipe_ends_the_lines_and_not_the_watch(
        self, double: FlinkDouble, job: DoubleJob
    ) -> None:
        class Closed(io.StringIO):
            def write(self, text: str) -> int:
                raise BrokenPipeError

        states: list[str] = []
        thread = threading.Thread(
            target=lambda: states.append(
                watch(Flink(double.address), job.id, "x", Console(file=Closed()))
            )
        )
        thread.start()
        wait_for(lambda: len(double.asked) > 20, 10)
        job.state = "FINISHED"
        thread.join(10)
        assert states == ["FINISHED"]

    def test_nothing_that_flink_says_moves_the_cursor(
        self, double: FlinkDouble, job: DoubleJob
    ) -> None:
        job.name = job.state = HOSTILE
        _, out = shown(double, job, lambda text: "\n" in text)
        assert "\x1b" not in out and "[red]x[/]" in out
