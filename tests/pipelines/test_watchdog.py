"""A run that does not get on is noticed, shows where, and goes on at its checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest

from pipelines import watchdog as watchdog_module
from pipelines.watchdog import GAVE_UP, Watchdog
from tests.site import SINKS, Site, alerts, wait_for
from transforms import heartbeat
from transforms.read.reader import close_session, session
from transforms.write import _Write

ROOT = Path(__file__).parent.parent.parent
SECONDS = 0.1
LOOK = 0.02


# ------------------------------------------------------------------------ processes that hang


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    patient = SINKS.replace("archive}}", "archive, patience: {patience}}}")
    with Site(tmp_path, partitions=1) as made:
        made.write(sinks=patient, patience=0.2)
        yield made


def start(site: Site, how: str, times: int, allowed: int = 5) -> subprocess.Popen[str]:
    site.more["PYTHONPATH"] = str(ROOT)
    module = ["-m", "tests.pipelines.hanging", how, str(times), str(site.folder), str(allowed)]
    process = subprocess.Popen(
        [sys.executable, *module, "run", "-c", str(site.settings), "--quiet"],
        env={**os.environ, **site.environment},
        cwd=site.folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    site._processes.append(process)
    return process


def poisoned(count: int) -> dict[str, bytes]:
    """Alerts, of which the last one hangs the file sink."""
    return {**alerts(count - 1), **alerts(1, seed=2, AlertDisplayName="hang-here")}


def hung(site: Site, times: int) -> bool:
    marks = site.folder / "hung"
    return marks.exists() and len(marks.read_bytes()) >= times


def test_a_bundle_that_hangs_is_noticed_and_every_sink_gets_everything(site: Site) -> None:
    running = start(site, "waits", times=1)
    sent = poisoned(20)
    site.publish(list(sent.values()))
    wait_for(lambda: all(set(ids) == set(sent) for ids in site.arrived().values()), 60)
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 0, output
    assert "Current thread" in output and "hanging.py" in output, "the stacks are shown"
    assert re.search(
        r"the run did not get on for \d+ s: it hangs in the step Write of the sink archive, "
        r"at threading.py:\d+ \(wait\): it starts again, at the checkpoint \(1 of 5 an hour\)",
        output,
    )
    assert all(account.holds for account in site.accounts().values())


def test_a_record_that_always_hangs_ends_the_run_which_says_where(site: Site) -> None:
    running = start(site, "waits", times=99, allowed=1)
    site.publish(list(poisoned(4).values()))
    output, _ = running.communicate(timeout=60)
    assert running.returncode == GAVE_UP, output
    assert hung(site, 2) and not hung(site, 3)
    last = output.splitlines()[-1]
    assert "in the step Write of the sink archive" in last
    assert "it hung 2 times within an hour, and ends" in last


def test_what_holds_the_interpreters_lock_ends_with_its_stacks(site: Site) -> None:
    running = start(site, "computes", times=1)
    site.publish(list(poisoned(4).values()))
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 1, output
    assert "Timeout" in output and "hanging.py" in output


def test_a_run_that_hangs_after_it_was_told_to_end_does_not_start_again(site: Site) -> None:
    running = start(site, "waits", times=99)
    site.publish(list(poisoned(4).values()))
    wait_for(lambda: hung(site, 1), 30)
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 1, output
    assert "it was told to end, and ends" in output.splitlines()[-1]


# ------------------------------------------------------------------------- when it is noticed


class _Dog(Watchdog):
    def __init__(self, name: str, patience: float = 0.0, waits: bool = False) -> None:
        sink = SimpleNamespace(settings=SimpleNamespace(patience=patience / 2))
        run: Any = SimpleNamespace(name=name, settings=SimpleNamespace(sinks=[sink]))
        super().__init__(run, SECONDS, waits)
        self.noticed = threading.Event()

    def _hung(self, still: float) -> None:
        self.noticed.set()


@pytest.fixture
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(watchdog_module, "_LOOK_SECONDS", LOOK)
    monkeypatch.setattr(watchdog_module.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    monkeypatch.setattr(watchdog_module.faulthandler, "enable", lambda *_: None)
    yield request.node.name
    close_session(request.node.name)


def test_nothing_is_noticed_before_the_first_bundle(name: str) -> None:
    with _Dog(name) as dog:
        assert not dog.noticed.wait(2 * SECONDS)


def test_a_run_that_gets_on_is_left_alone_and_one_that_stops_is_not(name: str) -> None:
    with _Dog(name) as dog:
        for _ in range(15):
            heartbeat.progress(name)
            assert not dog.noticed.wait(SECONDS / 5)
        assert dog.noticed.wait(5)


def test_another_runs_progress_is_not_this_ones(name: str) -> None:
    with _Dog(name) as dog:
        heartbeat.progress(name)
        end = time.monotonic() + 5
        while not dog.noticed.wait(LOOK):
            heartbeat.progress("another")
            assert time.monotonic() < end
    heartbeat.end("another")


@pytest.mark.parametrize("draining", [True, False])
def test_a_drain_may_wait_for_every_sinks_patience(name: str, draining: bool) -> None:
    session(name).draining = draining
    with _Dog(name, patience=60) as dog:
        heartbeat.progress(name)
        assert dog.noticed.wait(3 * SECONDS) is not draining


def test_after_a_long_drain_the_next_shift_has_its_time(name: str) -> None:
    session(name).draining = True
    with _Dog(name, patience=60) as dog:
        heartbeat.progress(name)
        assert not dog.noticed.wait(3 * SECONDS)
        session(name).draining = False
        assert not dog.noticed.wait(SECONDS / 2)
        assert dog.noticed.wait(5)


def test_a_run_until_caught_up_waits_for_its_sinks_at_any_time(name: str) -> None:
    with _Dog(name, patience=60, waits=True) as dog:
        heartbeat.progress(name)
        assert not dog.noticed.wait(3 * SECONDS)


def test_a_process_that_was_stopped_and_goes_on_gets_its_time_anew(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(ahead=0.0)
    real = time.monotonic
    monkeypatch.setattr(watchdog_module.time, "monotonic", lambda: real() + clock.ahead)
    dog = _Dog(name)
    monkeypatch.setattr(dog, "_seconds", 50.0)
    with dog:
        heartbeat.progress(name)
        time.sleep(3 * LOOK)
        clock.ahead = 1000.0
        assert not dog.noticed.wait(0.2)


# ---------------------------------------------------------------------- how often it restarts


class _Replaced(BaseException):
    pass


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the process did: `exec`, or an exit code."""
    found: list[Any] = []

    def replaced(*_: object) -> None:
        found.append("exec")
        raise _Replaced

    def left(code: int) -> None:
        found.append(code)
        raise _Replaced

    monkeypatch.setattr(watchdog_module.os, "execv", replaced)
    monkeypatch.setattr(watchdog_module.os, "_exit", left)
    monkeypatch.setattr(watchdog_module.fcntl, "fcntl", lambda *_: None)
    monkeypatch.setattr(watchdog_module.faulthandler, "dump_traceback", lambda *_, **__: None)
    monkeypatch.setenv("ALERTBEAM_RESTARTS", "")
    return found


def hangs(dog: _Dog) -> None:
    with pytest.raises(_Replaced):
        Watchdog._hung(dog, 120)


def test_it_restarts_five_times_within_an_hour_and_then_ends(name: str, ends: list[Any]) -> None:
    for _ in range(6):
        hangs(_Dog(name))
    assert ends == ["exec"] * 5 + [GAVE_UP]


def test_restarts_of_more_than_an_hour_ago_do_not_count(
    name: str, ends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    for number in range(12):
        monkeypatch.setattr(watchdog_module.time, "monotonic", lambda n=number: now + n * 900)
        hangs(_Dog(name))
    assert ends == ["exec"] * 12
    assert len(os.environ["ALERTBEAM_RESTARTS"].split()) <= 5, "it is forgotten"


def test_it_starts_with_the_same_interpreter_and_arguments(
    name: str, ends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "-m", "pipelines.cli", "run"])

    def replaced(*arguments: object) -> None:
        given.extend(arguments)
        raise _Replaced

    monkeypatch.setattr(watchdog_module.os, "execv", replaced)
    hangs(_Dog(name))
    command = [sys.executable, "-X", "dev", "-m", "pipelines.cli", "run"]
    assert given == [sys.executable, command]


# ------------------------------------------------------------------------------------- where


def test_the_step_is_named_whichever_thread_it_hangs_in() -> None:
    class Hangs(beam.DoFn):
        def process(self) -> None:
            begun.set()
            go.wait(30)

    Hangs.__module__ = "transforms.somewhere"
    begun, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=Hangs().process)
    thread.start()
    begun.wait(5)
    try:
        found = watchdog_module._where()
    finally:
        go.set()
        thread.join()
    assert re.fullmatch(r"in the step Hangs, at threading.py:\d+ \(wait\)", found)


def test_without_a_bundle_it_is_the_main_thread() -> None:
    assert re.fullmatch(r"at watchdog.py:\d+ \(_where\)", watchdog_module._where())


def test_a_step_of_a_sink_is_told_with_its_name() -> None:
    step = _Write.__new__(_Write)
    step._sink = SimpleNamespace(name="archive")  # type: ignore[assignment]
    frame: Any = SimpleNamespace(f_locals={"self": step})
    assert watchdog_module._step(frame) == "the step Write of the sink archive"
