"""A whole site on loopback for tests: hub, receivers, settings, and the command as a process."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from pipelines import cli
from pipelines.forward import accounts
from pipelines.local.events import defender_alert
from pipelines.local.hub import EmbeddedHub
from pipelines.local.receivers import HecReceiver, SyslogReceiver
from pipelines.monitor import Monitor
from pipelines.positions import From
from pipelines.report import SinkAccount, accounts_of
from pipelines.run import Run
from pipelines.settings import Settings, load
from schemas.kinds import understand
from transforms.account import settled
from transforms.read.access import EventHubsAccess
from transforms.read.sdk import HubProperties, hub_properties, kept_sequences
from transforms.state_store import StateStore

HUB = "defender"
TOKEN = "a-token-for-tests"

SOURCES = "  - event_hubs: {hub: defender, connection_string: env:HUB}\n"

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
        self.more: dict[str, str] = {}  # environment
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
        return {"HUB": self.hub.connection_string(HUB), "HEC_TOKEN": TOKEN, **self.more}

    @property
    def source(self) -> str:
        """The hub as origins name it."""
        return f"127.0.0.1:{self.hub.port}/{HUB}/$Default"

    @property
    def store(self) -> StateStore:
        return StateStore(str(self.state))

    def write(
        self,
        *,
        sinks: str | list[dict[str, Any]] = SINKS,
        more: str = "",
        patience: float = 2,
        sources: str = SOURCES,
    ) -> Path:
        """Write the settings file. sinks: text with places for the receivers, or entries."""
        if isinstance(sinks, list):
            sinks = "".join(f"  - {json.dumps(entry)}\n" for entry in sinks)
        else:
            sinks = sinks.format(hec=self.hec.url, syslog=self.syslog.address, patience=patience)
        self.settings.write_text(f"sources:\n{sources}sinks:\n{sinks}state: state\n{more}")
        return self.settings

    def load(self) -> Settings:
        """The settings, for a run in this process."""
        os.environ.update(self.environment)  # resolved again on each connection, at any time
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

    def call(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a command, in this process: some seconds less of importing."""
        return call(self.folder, *arguments, **self.environment)

    def catch_up(self, start: str = "") -> list[str]:
        """Run in this process until everything that is in the hub now is through; what it said.
        start: `--from`."""
        said: list[str] = []
        with self._asked_directly():
            where = From.parse(start) if start else None
            Run(self.load(), until_caught_up=True, start=where, say=said.append).run()
        return said

    @contextlib.contextmanager
    def _asked_directly(self) -> Iterator[None]:
        """Runs in this process learn of the hub's partitions without the SDK, which takes half a
        second each time; of other hubs, and of one that refuses, as ever."""

        def properties(access: EventHubsAccess) -> HubProperties:
            if access.hub != HUB or "HUB" in self.more or self.hub.faults.refused:
                return hub_properties(access)
            hub = self.hub.hubs[HUB]
            return HubProperties([str(n) for n in range(len(hub.partitions))], hub.created_ms)

        def kept(access: EventHubsAccess, partition: str) -> range:
            if access.hub != HUB or "HUB" in self.more or self.hub.faults.refused:
                return kept_sequences(access, partition)
            info = self.hub.partition_info(HUB, partition)
            following = info.last_sequence_number + 1
            return range(following if info.is_empty else info.begin_sequence_number, following)

        with (
            mock.patch("pipelines.hubs.hub_properties", properties),
            mock.patch("pipelines.hubs.kept_sequences", kept),
            mock.patch("pipelines.hubs.claim"),  # which holds each hub for two seconds
        ):
            yield

    @contextlib.contextmanager
    def running(self) -> Iterator[Run]:
        """A run in this process, beside the test; at the end it drains, and must have been well."""
        said: list[str] = []
        run = Run(self.load(), say=said.append)
        run.said = said  # type: ignore[attr-defined]
        failed: list[BaseException] = []

        def work() -> None:
            try:
                with (
                    self._asked_directly(),
                    mock.patch("pipelines.monitor._STATUS_SECONDS", 0.1),
                    Monitor(run, Console(file=io.StringIO()), quiet=True),
                ):
                    run.run()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="run", daemon=True)
        thread.start()
        try:
            yield run
        finally:
            run.stop()
            thread.join(60)
        assert not thread.is_alive(), "the run did not end"
        if failed:
            raise failed[0]

    def wait_for_quiet(self, seconds: float = 0.2) -> None:
        """Until the receivers have taken everything that was on its way to them."""
        before = None
        while before != (before := (self.hec.received, self.syslog.received)):
            time.sleep(seconds)

    def account(self, sink: str) -> SinkAccount:
        return accounts_of(self.store, [sink])[0]

    def accounts(self) -> dict[str, SinkAccount]:
        """The account of every sink that the settings name."""
        return {a.name: a for a in accounts_of(self.store, accounts(self.load()))}

    def positions(self, sink: str) -> dict[str, int]:
        """The last settled sequence number of each partition."""
        found = settled(self.store, sink)
        return {origin.partition: entry.position for origin, entry in found.items()}

    def archived(self, folder: str = "archive") -> list[dict[str, Any]]:
        """What the file sink wrote: also in open files, but for a line that a kill cut off."""
        paths = sorted((self.folder / folder).glob("*.ndjson*"))
        lines = (line for path in paths for line in path.read_bytes().splitlines(keepends=True))
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def arrived(self) -> dict[str, Counter[str]]:
        """How often each alert is at each of the three sinks, by its stable id."""
        return {
            "splunk": Counter(self.hec.ids()),
            "siem": Counter(self.syslog.ids()),
            "archive": Counter(line["id"] for line in self.archived()),
        }


def call(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of `alertbeam …` in a folder, in this process.

    An exception that it does not tell in a line comes through.
    """
    output = io.StringIO()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    here = Path.cwd()
    with (
        mock.patch.dict(os.environ, {**environment, "COLUMNS": "160"}),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        os.chdir(folder)
        try:
            cli.main(arguments)
        except SystemExit as ended:
            code = ended.code
        finally:
            os.chdir(here)
            for number, handler in before.items():
                signal.signal(number, handler)
    assert isinstance(code, int)
    return code, output.getvalue()


def alerts(count: int, seed: int = 1, **changes: Any) -> dict[str, bytes]:
    """`count` different alerts: the body by the stable id."""
    rng = random.Random(seed)
    now = datetime.datetime.now(datetime.timezone.utc)
    bodies = [json.dumps(defender_alert(rng, now, **changes)).encode() for _ in range(count)]
    return {understand(body).event_id: body for body in bodies}


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
