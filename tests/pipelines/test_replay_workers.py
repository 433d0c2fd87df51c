"""Workers of a replay end with it, however it ends: its lease is free then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site import wait_for

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="it asks Linux for children")
def test_workers_end_with_whoever_started_them(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("sinks: [file: {folder: archive}]\nstate: state\n")
    for n in range(2):
        (tmp_path / f"{n}.json").write_text("".join(f'{{"n":{i}.{n}}}\n' for i in range(40_000)))
    command = ["replay", "0.json", "1.json", "--workers", "2", "--rate", "100"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    children: list[int] = []

    def working() -> bool:
        found = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        children[:] = map(int, found)
        return len(children) == 2 and (tmp_path / "archive").is_dir()

    try:
        wait_for(working, 60)
        parent.kill()
        parent.wait()
        wait_for(lambda: not any(map(alive, children)), 30, "a worker outlives its replay")
    finally:
        parent.kill()
        parent.wait()
        for pid in filter(alive, children):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
