"""Long life: faults every minute, and nothing that grows. Only with `ALERTBEAM_SOAK` (`make soak`),
the seconds that it takes: 1800 to mean something."""

from __future__ import annotations

import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.elsewhere import LATE, TOKEN, Second, elsewhere

SECONDS = int(os.environ.get("ALERTBEAM_SOAK") or 0)
RATE = 2_000  # alerts a second
EVERY = 60.0  # seconds: a fault
FAULT = (15.0, 10.0)  # seconds into it, and how long
RECOVERY = 30.0
SETTLED = min(300.0, SECONDS / 2)  # from when on memory must be flat
FLAT = 0.1
LATE_SHARE = 0.01  # of the alerts of a second may be late all the same

SETTINGS = """\
sources:
  - event_hubs: {{hub: defender, connection_string: env:HUB}}
sinks:
  - splunk_hec: {{url: "http://{splunk}", token: env:TOKEN, patience: 2, timeout: 2}}
    name: splunk
  - syslog: {{address: "{siem}", format: cef, patience: 2, timeout: 2}}
    name: siem
  - webhook: {{url: "http://{hook}/hook", batch: lines, patience: 2, timeout: 2}}
    name: hook
deduplicate: {{horizon: 15s}}
state: state
"""


class Sample(NamedTuple):
    """Of the run's process and its state folder, `at` seconds after the load began."""

    at: float
    mebibytes: float
    threads: int
    descriptors: int
    files: int
    kibibytes: int


def sample(pid: int, state: Path, at: float) -> Sample:
    proc = Path(f"/proc/{pid}")
    resident = int((proc / "status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
    counts = [sum(1 for _ in (proc / each).iterdir()) for each in ("task", "fd")]
    sizes = []
    for folder, _, names in os.walk(state):
        for name in names:
            try:
                sizes.append((Path(folder) / name).stat().st_size)
            except FileNotFoundError:
                continue
    return Sample(at, resident, *counts, len(sizes), sum(sizes) // 1024)


class Output(threading.Thread):
    """What the run says, read as it comes: a full pipe would stop it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self._from: Any = process.stdout
        self.start()

    def run(self) -> None:
        self.lines.extend(self._from)

    def __str__(self) -> str:
        return "".join(self.lines[-200:])


def keeps_pace(receivers: Any) -> bool:
    """Whether nothing was late anywhere in the last seconds."""
    return all(
        len(found) == 3 and all(each.longest < LATE for each in found.values())
        for found in receivers.seconds(int(time.time()) - 3).values()
    )


@pytest.fixture
def cleared() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def soak(tmp_path: Path, cleared: ExitStack) -> None:
    traffic_at, receivers_at = (cleared.enter_context(elsewhere()) for _ in range(2))
    receivers = receivers_at.Receivers()
    traffic = traffic_at.Traffic(tmp_path / "hub", RATE)
    (tmp_path / "settings.yaml").write_text(SETTINGS.format(**receivers.addresses()))
    run = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", "-c", "settings.yaml"],
        env={**os.environ, "HUB": traffic.connection_string(), "TOKEN": TOKEN, "COLUMNS": "160"},
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    cleared.callback(run.kill)
    output = Output(run)
    traffic.begin()
    end = time.monotonic() + 120
    while not keeps_pace(receivers):
        assert run.poll() is None, output
        assert time.monotonic() < end, f"this machine is too slow, or busy, for {RATE}/s\n{output}"
        time.sleep(0.5)

    faults: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("splunk refuses", lambda: receivers.refuse("splunk"), lambda: receivers.heal("splunk")),
        ("the webhook hangs", lambda: receivers.hang("hook"), lambda: receivers.heal("hook")),
        ("the hub drops its links", traffic.drop, traffic.drop),
        ("the hub stalls", traffic.stall, traffic.heal),
        ("syslog hangs", lambda: receivers.hang("siem"), lambda: receivers.heal("siem")),
    ]
    began, clock = time.monotonic(), time.time()
    samples: list[Sample] = []
    calm: list[tuple[str, float, float]] = []  # after which fault, and when nothing is late
    plan: list[tuple[float, Callable[[], Any]]] = []
    for number in range(int(SECONDS // EVERY)):
        name, fail, heal = faults[number % len(faults)]
        at = number * EVERY + FAULT[0]
        plan += [(at, fail), (at + FAULT[1], heal)]
        calm.append((name, at + FAULT[1] + RECOVERY, (number + 1) * EVERY + FAULT[0]))
    while (now := time.monotonic() - began) < SECONDS:
        assert run.poll() is None, output
        while plan and plan[0][0] <= now:
            plan.pop(0)[1]()
        samples.append(sample(run.pid, tmp_path / "state", now))
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began - now)))
    count = traffic.end()
    end = time.monotonic() + 60
    while min(receivers.distinct().values()) < count and time.monotonic() < end:
        time.sleep(0.2)
    arrived = receivers.distinct()
    lacking, seconds = receivers.lacking(count), receivers.seconds(int(clock))
    run.send_signal(signal.SIGTERM)
    run.wait(60)
    files = sample(os.getpid(), tmp_path / "state", SECONDS)

    print(f"\n{count:,} alerts; twice: {receivers.twice()}")
    for each in [*samples[:: max(1, len(samples) // 20)], samples[-1]]:
        print("  ".join(f"{k} {v:,.0f}" for k, v in each._asdict().items()))
    late = []
    for name, since, until in calm:
        clear = range(math.ceil(clock + since), int(clock + min(until, SECONDS)) - 1)
        for sink, found in seconds.items():
            inside = [found.get(at, Second(0, 0, EVERY)) for at in clear]
            worst = max((each.longest for each in inside), default=0.0)
            print(f"after “{name}”, {sink}: {worst:.2f} s late at most, in {len(inside)} s")
            if any(each.late > LATE_SHARE * each.count or not each.count for each in inside):
                late.append(f"{sink}, after “{name}”: later than {LATE:g} s")
    print(output)
    assert run.returncode == 0, output
    assert set(arrived.values()) == {count}, f"not all arrived: {arrived}; the first: {lacking}"
    assert not late, late
    settled = [each for each in samples if each.at >= SETTLED]
    usual = statistics.median(each.mebibytes for each in settled[:60])
    most = max(settled, key=lambda each: each.mebibytes)
    print(f"resident: {usual:.0f} MiB, at most {most.mebibytes:.0f} MiB, {most.at:.0f} s in")
    for minute in zip(*[iter(settled)] * 30, strict=False):
        now_used = statistics.median(each.mebibytes for each in minute)
        assert abs(now_used - usual) <= FLAT * usual, f"{usual:.0f} MiB became {now_used:.0f}"
    half = len(settled) // 2
    for grows, slack in (("threads", 2), ("descriptors", 3), ("files", 20)):
        first, second = (
            max(getattr(each, grows) for each in part) for part in (settled[:half], settled[half:])
        )
        assert second <= first + slack, f"{grows}: {first} became {second}"
    assert files.files <= settled[0].files + 20


if SECONDS:

    @pytest.mark.timeout(SECONDS + 300)
    def test_a_long_run_stays_as_it_is_and_soon_recovers_from_each_fault(
        tmp_path: Path, cleared: ExitStack
    ) -> None:
        soak(tmp_path, cleared)
