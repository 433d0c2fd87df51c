"""`alertbeam replay`, killed again and again while a sink fails now and then: nothing is lost, few
alerts come twice, and the report says exactly what lies in the files.

A short form with five kills; `ALERTBEAM_SOAK` (`make soak`) makes it 20, over 100,000 alerts.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fastavro
import pytest

from pipelines.local.events import defender_alert, security_alert
from pipelines.report import SinkAccount, accounts_of
from schemas.batch import Record
from schemas.kinds import understand
from tests.site import call, stop
from transforms.account import settled
from transforms.capture import CAPTURE_SCHEMA, row
from transforms.state_store import StateStore

SOAK = bool(os.environ.get("ALERTBEAM_SOAK"))
ALERTS = 100_000 if SOAK else 12_000
KILLS = 20 if SOAK else 5
RATE = (
    6_000 if SOAK else 3_000
)  # alerts a second at most, so that there is a middle to be killed in
REPEATS = 0.05  # of the alerts lie in a second file, too
WINDOW = 400  # alerts of a file
LATEST = (
    2.0 if SOAK else 1.2
)  # seconds after the first progress of a start, that it is killed at most
IN_FLIGHT = 400  # alerts that a kill can make come twice: of a request, and the batches it cuts
BEGAN_MS = 1_772_600_400_000  # 2026-03-04 05:00 UTC
MINUTE_MS = 60_000

SETTINGS = """\
sinks:
  - {file: {folder: one, max_bytes: 4000000}, name: one}
  - {file: {folder: two, max_bytes: 400000}, name: two}
state: state
"""


def alerts(count: int) -> dict[str, bytes]:
    """Different alerts of two kinds: the body by the stable id."""
    rng = random.Random(7)
    now = datetime.datetime.fromtimestamp(BEGAN_MS / 1000, datetime.timezone.utc)
    models = [json.dumps(make(rng, now)) for make in (defender_alert, security_alert) * 10]
    found: dict[str, bytes] = {}
    while len(found) < count:
        model = json.loads(models[len(found) % len(models)])
        model["SystemAlertId"] = f"{rng.getrandbits(64):016x}"
        body = json.dumps(model).encode()
        found[understand(body).event_id] = body
    return found


class History:
    """Alerts in files, a third of them in Log Analytics' layout and the others in Capture's."""

    def __init__(self, folder: Path) -> None:
        self.alerts = alerts(ALERTS)
        rng = random.Random(8)
        bodies = [*self.alerts.values()]
        again = rng.sample(bodies, int(REPEATS * len(bodies)))
        self.records = len(bodies) + len(again)
        for number, start in enumerate(range(0, len(bodies), WINDOW)):
            some = bodies[start : start + WINDOW]
            if repeats := again[: max(1, len(again) * WINDOW // len(bodies))]:
                del again[: len(repeats)]
                some = some + repeats
            if start + WINDOW >= len(bodies):
                some += again
            at_ms = BEGAN_MS + number * 5 * MINUTE_MS
            if number % 3:
                self._capture(folder / "capture", at_ms, number, some)
            else:
                self._exported(folder / "exported", at_ms, some)

    @staticmethod
    def _capture(folder: Path, at_ms: int, number: int, bodies: list[bytes]) -> None:
        day = time.strftime("%Y/%m/%d/%H/%M/%S", time.gmtime(at_ms / 1000))
        path = folder / "contoso" / "defender" / str(number % 2) / f"{day}.avro"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = (row(Record(number * 10_000 + n, 0, at_ms + n, b)) for n, b in enumerate(bodies))
        with path.open("wb") as file:
            fastavro.writer(file, CAPTURE_SCHEMA, rows, codec="deflate", sync_interval=64_000)

    @staticmethod
    def _exported(folder: Path, at_ms: int, bodies: list[bytes]) -> None:
        where = time.strftime("y=%Y/m=%m/d=%d/h=%H/m=%M", time.gmtime(at_ms / 1000))
        path = folder / "WorkspaceResourceId=" / where / "PT05M.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(body + b"\n" for body in bodies))


class Failing(threading.Thread):
    """Takes a sink's folder away now and then: its name leads to what is no folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._real = folder.with_name(f"{folder.name}-real")
        self._real.mkdir()
        folder.with_name("no-folder").touch()
        folder.symlink_to(self._real)
        self._ended = threading.Event()
        self.times = 0

    def run(self) -> None:
        rng = random.Random(9)
        while not self._ended.wait(rng.uniform(0.3, 1.5)):
            self._point(self._folder.with_name("no-folder"))
            self.times += 1
            self._ended.wait(rng.uniform(0.1, 0.4))
            self._point(self._real)

    def _point(self, to: Path) -> None:
        new = self._folder.with_name("new-link")
        new.symlink_to(to)
        new.replace(self._folder)

    def end(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    made = Failing(tmp_path / "two")
    made.start()
    yield made
    made.end()


COMMAND = ("replay", "capture", "exported", "-c", "settings.yaml", "--name", "month")


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *COMMAND, "--rate", str(RATE), "--quiet"],
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def progress(store: StateStore) -> tuple[int, ...]:
    """Where the sinks' accounts stand, as numbers that only ever grow."""
    found = (settled(store, sink) for sink in ("one", "two"))
    return tuple(entry.position for entries in found for entry in entries.values())


def lines(folder: Path) -> list[str]:
    """The ids of what a sink has written; a line that a kill cut off is none."""
    found = []
    for path in sorted(folder.glob("*.ndjson*")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found.append(json.loads(line)["id"])
    return found


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.ndjson*"))


@pytest.mark.timeout(900 if SOAK else 240)
def test_killed_at_random_moments_it_loses_nothing_and_the_report_is_exact(
    tmp_path: Path, failing: Failing
) -> None:
    history = History(tmp_path)
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    store = StateStore(str(tmp_path / "state"))
    rng = random.Random(10)
    killed = 0
    process = start(tmp_path)
    try:
        while killed < KILLS:
            before, size = progress(store), written(tmp_path / "one")
            until = time.monotonic() + 60
            if rng.random() > 0.2:  # else while it starts
                while (progress(store), written(tmp_path / "one")) == (before, size):
                    assert process.poll() is None, process.communicate()[0]
                    assert time.monotonic() < until, "it does not get on"
                    time.sleep(0.01)
            time.sleep(rng.uniform(0, LATEST))
            assert process.poll() is None, f"it ended before kill {killed}: {process.returncode}"
            stop(process, signal.SIGKILL)
            killed += 1
            process = start(tmp_path)
        failing.end()  # what is owed by now can be paid
        output, _ = process.communicate(timeout=600 if SOAK else 120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, output
    assert failing.times > 1

    found = {"one": Counter(lines(tmp_path / "one")), "two": Counter(lines(tmp_path / "two-real"))}
    accounts = {account.name: account for account in accounts_of(store, found)}
    for sink, arrived in found.items():
        _check(sink, arrived, history, accounts[sink])
    code, again = call(tmp_path, *COMMAND)
    assert code == 0 and "nothing is new" in again, again


def _check(sink: str, arrived: Counter[str], history: History, account: SinkAccount) -> None:
    assert set(arrived) == set(history.alerts), f"{sink} lacks alerts, or has others"
    twice = sum(arrived.values()) - len(history.alerts)
    print(f"\n{sink}: {twice:,} came twice, by {KILLS} kills; {account.outcomes}")
    assert max(arrived.values()) <= 1 + KILLS
    assert twice <= KILLS * IN_FLIGHT, f"{sink}: more came twice than can have been in flight"
    assert account.holds
    assert account.records == history.records
    said = account.outcomes
    assert said.owed == said.dead == said.not_routed == 0
    assert said.delivered + said.repeat == history.records
    assert len(history.alerts) <= said.delivered <= sum(arrived.values())
