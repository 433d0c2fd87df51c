"""`alertbeam worker-pool` as a process, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["ROOT", "Pool", "eventually", "gone"]

ROOT = Path(__file__).parent.parent.parent


def eventually(check: Callable[[], Any], within: float = 60.0) -> Any:
    until = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)
    return found


def gone(pid: int) -> bool:
    """Whether the process has ended, also where nobody asked how."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


class Pool:
    """`alertbeam worker-pool` as a process; its log in a file."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.log = folder / "pool.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "worker-pool", "--port", "0", *arguments],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(folder), **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.says = self.process.stdout.readline()
        self.address, *_ = re.findall(r"worker pool on (\S+?)[;\n]", self.says) or [""]

    def get(self, what: str, path: str) -> tuple[int, str]:
        (address,) = re.findall(rf"{what} on (\S+?)[;\n]", self.says)
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    @property
    def figures(self) -> dict[str, int]:
        return json.loads(self.get("health", "/healthz")[1])

    def scraped(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Samples by name and labels."""
        status, text = self.get("metrics", "/metrics")
        assert status == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def started(self, name: str = "") -> list[int]:
        """The processes of the workers that it started, in order."""
        found = re.findall(r"worker (.*) \(process (\d+)\) started", self.log.read_text())
        return [int(pid) for each, pid in found if each == name or not name]

    @contextlib.contextmanager
    def runs(self, what: str) -> Iterator[subprocess.Popen[str]]:
        """A pipeline, of its own process, on this pool."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.pooled", self.address, what, str(self.folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def holding(self) -> int:
        """The process of the worker that is in its bundle."""
        return int(eventually(lambda: self._told("worker"), 90))

    def _told(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        for pid in self.started():
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
