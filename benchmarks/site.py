"""A hub and a collector in processes of their own, and the pipeline as a user runs it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.alerts import bodies
from pipelines.local.hub import EmbeddedHub
from pipelines.local.receivers import HecReceiver

__all__ = ["Site", "family", "seconds_used"]

_HUB = "defender"
_TOKEN = "a-token-for-benchmarks"
_SETTINGS = """\
sources:
  - event_hubs: {{hub: {hub}, connection_string: env:HUB}}
sinks:
  - splunk_hec: {{url: "{url}", token: env:HEC_TOKEN, gzip: {gzip}}}
    name: splunk
deduplicate: {{scope: {scope}}}
state: state
"""
_DIFFERENT = 20_000  # alerts; then they come again with other ids
_ID = b'"SystemAlertId":"'
_ENQUEUED = re.compile(rb'"x-opt-enqueued-time":(\d+)')
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Site:
    """`with Site(partitions) as site:` gives hub and collector; `site.run()` the pipeline."""

    def __init__(self, partitions: int) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self.folder = Path(self._kept.name)
        self.hub = _Remote(_Hub, self.folder / "hub", partitions)
        self.collector = _Remote(_Collector)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.hub.close()
        self.collector.close()
        self._kept.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """What its settings refer to."""
        return {"HUB": self.hub.address, "HEC_TOKEN": _TOKEN}

    def run(self, gzip: bool = True, scope: str = "global", options: Sequence[str] = ()) -> None:
        """Start `alertbeam run` from the hub to the collector."""
        settings = self.folder / "settings.yaml"
        url = self.collector.address
        gzipped = str(gzip).lower()
        settings.write_text(_SETTINGS.format(hub=_HUB, url=url, gzip=gzipped, scope=scope))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "run", "-c", str(settings), *options],
                env={**os.environ, **self.environment},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def drain(self) -> None:
        """End the pipeline as a user does; it must say that its account holds."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(180):
            raise RuntimeError(self._log.read_text()[-2000:])

    def wait(self, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self._log.read_text()[-2000:])
            time.sleep(0.02)

    @property
    def received(self) -> int:
        """Events that came to the collector."""
        return int(self.collector.call("received"))

    @property
    def cpu(self) -> float:
        """Seconds that the pipeline's processes have used, in user and kernel."""
        assert self._process is not None
        return sum(map(seconds_used, family(self._process.pid)))

    @property
    def rss(self) -> float:
        """MiB that it has in memory."""
        return int(self._proc("statm").split()[1]) * _PAGE / 2**20

    def _proc(self, name: str) -> str:
        assert self._process is not None
        return Path("/proc", str(self._process.pid), name).read_text()

    @property
    def _log(self) -> Path:
        return self.folder / "log"


def family(pid: int) -> list[int]:
    """A process, and those that it started, in whichever thread."""
    threads = Path("/proc", str(pid), "task").glob("*/children")
    found = [child for each in threads for child in each.read_text().split()]
    return [pid, *(each for child in found for each in family(int(child)))]


def seconds_used(pid: int) -> float:
    """Of a CPU, in user and kernel."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class _Remote:
    """An object in a process of its own, whose methods are called over a pipe."""

    def __init__(self, kind: type[Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.address: str = self._pipe.recv()

    def call(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _serve(pipe: Connection, kind: type[Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    it = kind(*arguments)
    pipe.send(it.address)
    with contextlib.suppress(EOFError):  # the parent is done, or gone
        while True:
            method, given = pipe.recv()
            pipe.send(getattr(it, method)(*given))
    it.stop()


class _Hub:
    """Takes alerts at once, or so many a second until it is stopped."""

    def __init__(self, folder: Path, partitions: int) -> None:
        self._hub = EmbeddedHub(folder, {_HUB: partitions}).start()
        self.address = self._hub.connection_string(_HUB)
        self._bodies = bodies(_DIFFERENT, repeats=0)
        self._published = 0
        self._ended = threading.Event()

    def load(self, count: int) -> None:
        for _ in range(count // 100):
            self._publish(100)

    def stream(self, rate: float) -> None:
        """10 ms apart, or more where they are fewer."""
        threading.Thread(target=self._stream, args=(rate,), daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        self._hub.stop()

    def _stream(self, rate: float) -> None:
        at_once = max(1, round(rate / 100))
        began, sent = time.monotonic(), 0
        while not self._ended.wait(max(0.0, began + sent / rate - time.monotonic())):
            self._publish(at_once)
            sent += at_once

    def _publish(self, count: int) -> None:
        made = []
        for number in range(self._published, self._published + count):
            body = self._bodies[number % _DIFFERENT]
            at = body.index(_ID) + len(_ID)
            made.append(b"%b%012d%b" % (body[:at], number, body[at + 12 :]))
        self._published += count
        self._hub.publish(_HUB, made)


class _Collector:
    """Counts events; where it is told to, notes how old each is when it comes."""

    def __init__(self) -> None:
        collector = self

        class Receiver(HecReceiver):
            def take(self, body: bytes) -> None:
                now = time.time() * 1000
                if collector._watching:
                    collector._ages += [now - int(at) for at in _ENQUEUED.findall(body)]
                with collector._lock:
                    self.received += body.count(b"}\n{") + 1

        self._lock = threading.Lock()  # each connection has a thread
        self._watching = False
        self._ages: list[float] = []
        self._receiver: HecReceiver = Receiver(token=_TOKEN).start()
        self.address = self._receiver.url

    def received(self) -> int:
        return self._receiver.received

    def watch(self) -> None:
        self._ages = []
        self._watching = True

    def ages(self) -> list[float]:
        """Of the events since `watch`, in ms from enqueued to delivered; the least first."""
        self._watching = False
        return sorted(self._ages)

    def stop(self) -> None:
        self._receiver.stop()
