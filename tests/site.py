"""A whole site on loopback for tests: hub, receivers, settings, and the command as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.local.hub import EmbeddedHub
from pipelines.local.receivers import HecReceiver, SyslogReceiver
from pipelines.settings import Settings, load

HUB = "defender"
TOKEN = "a-token-for-tests"

SINKS = """\
  - splunk_hec: {{url: "{hec}", token: env:HEC_TOKEN, patience: {patience}, timeout: {patience}}}
    name: splunk
  - syslog: {{address: "{syslog}", format: cef, patience: {patience}}}
    name: siem
  - file: {{folder: archive}}
    name: archive
"""


class Site:
    """Hub `defender`, a Splunk HEC and a syslog receiver, and settings that join them."""

    def __init__(self, folder: Path, partitions: int = 4, **hub: object) -> None:
        self.folder = folder
        self.hub = EmbeddedHub(folder / "hub", {HUB: partitions}, **hub)  # type: ignore[arg-type]
        self.hec = HecReceiver(token=TOKEN, folder=folder / "received")
        self.syslog = SyslogReceiver(folder=folder / "received")
        self.settings = folder / "settings.yaml"
        self.state = folder / "state"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Site:
        self.hub.start()
        self.hec.start()
        self.syslog.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        self.syslog.stop()
        self.hec.stop()
        self.hub.stop()

    @property
    def environment(self) -> dict[str, str]:
        return {"HUB": self.hub.connection_string(HUB), "HEC_TOKEN": TOKEN}

    def write(self, *, sinks: str = SINKS, more: str = "", patience: float = 2) -> Path:
        """Write the settings file."""
        sinks = sinks.format(hec=self.hec.url, syslog=self.syslog.address, patience=patience)
        self.settings.write_text(
            f"sources:\n  - event_hubs: {{hub: {HUB}, connection_string: env:HUB}}\n"
            f"sinks:\n{sinks}state: state\n{more}"
        )
        return self.settings

    def load(self) -> Settings:
        """The settings, for a run in this process."""
        os.environ.update(self.environment)
        return load(self.settings)

    def publish(self, bodies: list[bytes], at_once: int = 50) -> None:
        """Put bodies on the hub, in turn over its partitions."""
        for start in range(0, len(bodies), at_once):
            self.hub.publish(HUB, bodies[start : start + at_once])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`alertbeam …` as a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            env={**os.environ, **self.environment, "COLUMNS": "160"},
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._processes.append(process)
        return process

    def command(self, *arguments: str, timeout: float = 60) -> tuple[int, str]:
        """Exit code and output of a command that ends by itself."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start("run", "-c", str(self.settings), *arguments)


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM, timeout: float = 30) -> str:
    """Signal the process, wait for its end, and give its output."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=timeout)
    return output


def wait_for(what: Callable[[], object], timeout: float = 30, why: str = "") -> None:
    """Until `what()` is true; fails after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, f"not within {timeout} s: {why or what}"
        time.sleep(0.02)


@contextlib.contextmanager
def site(folder: Path, partitions: int = 4, **hub: object) -> Iterator[Site]:
    with Site(folder, partitions, **hub) as made:
        yield made
