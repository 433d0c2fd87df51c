"""What a run shows of itself while it works, and leaves for `alertbeam status`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from pipelines import monitor as monitor_module
from pipelines.monitor import Monitor
from pipelines.runners import Choice
from pipelines.settings import Settings, load
from schemas.receipt import Outcomes
from tests.site import wait_for
from transforms.account import Settled
from transforms.delivery.parcel import Status
from transforms.owed import account_path
from transforms.read.reader import PartitionStatus
from transforms.state_store import StateStore

SOURCE = "127.0.0.1:1/defender/$Default"
HOSTILE = "[red]x[/] \x1b[2J\r\n"
NOTHING: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Status)}
ENGINE = Status(**NOTHING | {"circuit": "closed", "reason": ""})


class _Run:
    """What a monitor sees of a run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = StateStore(str(settings.state))
        self.runner = Choice(None, "DirectRunner: because")
        self.began = True
        self.partitions = [PartitionStatus(SOURCE, "0", 5, last_sequence=9, taken=1_000)]
        self.sinks = {"siem": ENGINE}

    def status(self) -> tuple[list[PartitionStatus], dict[str, Status]]:
        return self.partitions, self.sinks

    def written(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.get("status.json") or b"{}")
        return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Run:
    (tmp_path / "settings.yaml").write_text(
        "sources: [{event_hubs: {namespace: a.b, hub: h}}]\n"
        "sinks: [{syslog: {address: 'a.b:1'}, name: siem}]\nstate: state\n"
    )
    for name in ("_STATUS_SECONDS", "_SHOW_SECONDS", "_LINE_SECONDS"):
        monkeypatch.setattr(monitor_module, name, 0.01)
    return _Run(load(tmp_path / "settings.yaml"))


def monitor(run: _Run, console: Console | None = None, quiet: bool = True) -> Monitor:
    return Monitor(run, console or Console(file=io.StringIO()), quiet)  # type: ignore[arg-type]


def watched(run: _Run, **options: Any) -> str:
    """What a console shows until the status was written some times."""
    out = io.StringIO()
    with monitor(run, Console(file=out, width=200, **options), quiet=False):
        wait_for(lambda: run.written().get("running"), 5)
        before = run.written()["at_ms"]
        wait_for(lambda: run.written()["at_ms"] > before + 30, 5)
    return out.getvalue()


def test_the_status_says_who_runs_and_where_everything_stands(run: _Run) -> None:
    with monitor(run):
        wait_for(run.written, 5)
        found = run.written()
    assert (found["pid"], found["running"], found["runner"]) == (os.getpid(), True, "DirectRunner")
    assert abs(found["at_ms"] / 1000 - time.time()) < 10
    assert found["partitions"][0] == {
        "source": SOURCE, "partition": "0", "next": 5, "last_sequence": 9, "taken": 1_000,
        "last_enqueued_ms": None, "read_enqueued_ms": None, "connected": False, "error": "",
    }  # fmt: skip
    assert found["sinks"]["siem"]["circuit"] == "closed"
    assert run.written() == found | {"running": False, "at_ms": run.written()["at_ms"]}


def test_a_run_that_never_began_leaves_the_folder_alone(run: _Run) -> None:
    run.began = False
    with monitor(run):
        time.sleep(0.05)
    assert run.store.get("status.json") is None


def test_a_run_that_ends_before_the_first_look_is_told_too(run: _Run) -> None:
    with monitor(run):
        pass
    assert run.written()["running"] is False
    assert run.written()["partitions"][0]["next"] == 5


def test_an_error_of_the_run_comes_through(run: _Run) -> None:
    with (
        pytest.raises(ValueError, match="of the run"),
        monitor(run),
    ):
        raise ValueError("of the run")


def test_a_full_disk_costs_the_status_and_nothing_else_and_is_told_once(
    run: _Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []

    def full(path: str, data: bytes, **how: object) -> None:
        looks.append(path)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(run.store, "put", full)
        with monitor(run):
            wait_for(lambda: len(looks) > 3, 5)
    assert caplog.text.count("No space left on device") == 1
    watched(run)


def test_a_reader_that_went_away_costs_the_lines_and_nothing_else(run: _Run) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with monitor(run, Console(file=Gone()), quiet=False):
        wait_for(run.written, 5)
        before = run.written()["at_ms"]
        wait_for(lambda: run.written()["at_ms"] > before + 50, 5)


@pytest.mark.parametrize("quiet", [True, False])
def test_the_service_manager_has_the_line_as_the_services_status(
    run: _Run, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(monitor_module, "notify", told.append)
    run.sinks = {"siem": dataclasses.replace(ENGINE, circuit="open", reason=HOSTILE)}
    with monitor(run, Console(file=io.StringIO(), width=200), quiet):
        wait_for(lambda: told, 5)
    assert told[0].startswith("STATUS=") and "read 1,000 events" in told[0]
    assert "siem: open" in told[0] and told[0].isprintable(), "one line, whatever a sink says"


def test_in_a_log_it_is_a_line_now_and_then(run: _Run) -> None:
    lines = watched(run).splitlines()
    assert len(lines) >= 2
    assert "read 1,000 events" in lines[-1] and "waiting in the hub 5" in lines[-1]
    assert not any("│" in line for line in lines)


def test_in_a_terminal_the_account_moves_in_place_and_is_gone_at_the_end(run: _Run) -> None:
    shown = watched(run, force_terminal=True)
    assert "in = delivered + not routed" in shown and "\x1b[2K" in shown


def test_what_is_owed_is_shown_with_how_fast_it_is_paid(run: _Run) -> None:
    origin = "ns/hub/group", "0"
    owed = Settled(9, 10, 0, Outcomes(owed=10))
    run.store.put(account_path("siem", *origin), msgspec.json.encode(owed))
    run.sinks = _Paying()
    assert b"\nowed" not in watched(run).encode(), "in a log there is no table"
    shown = watched(run, force_terminal=True)
    assert re.search(r"siem.* 10 .* \d[\d,]*/s, but more comes", shown)
    assert "paid by itself" in shown
    assert "siem: slower than the stream" in shown
    assert run.written()["sinks"]["siem"]["paying_per_second"] > 0


class _Paying(dict[str, Status]):
    """A sink that is behind, and was paid ten more records whenever somebody looks."""

    paid = 0

    def items(self) -> Any:
        self.paid += 10
        yield "siem", dataclasses.replace(ENGINE, behind=True, paid=self.paid)


def test_quiet_means_quiet(run: _Run) -> None:
    out = io.StringIO()
    with monitor(run, Console(file=out, force_terminal=True)):
        wait_for(run.written, 5)
    assert out.getvalue() == ""


def test_trouble_is_in_the_line_as_plain_text(run: _Run) -> None:
    run.sinks = {"siem": dataclasses.replace(ENGINE, circuit="open", reason=HOSTILE)}
    run.partitions = [PartitionStatus(SOURCE, "3", 5, error=HOSTILE)]
    shown = watched(run).splitlines()[0]
    assert "siem: open ([red]x[/]" in shown
    assert f"{SOURCE}/3: [red]x[/]" in shown
    assert "\x1b[2J" not in shown
