"""What a second worker adds on a real Flink: one TaskManager and its worker pool, and two.

So that what workers share is the limit (the hub, the collector, the state folder, Flink's own
coordination), and not this machine, each worker is held to a part of a core: it is stopped as soon
as it is ahead of that, and continued when it is not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from unittest import mock

from benchmarks.figures import Figure
from benchmarks.site import Site, family, seconds_used
from tests.engines.flink import Standalone

__all__ = ["scaling"]

_WARM = 60_000  # read before, at full speed: a JVM compiles what it runs often
_ALERTS = 160_000
_PARTITIONS = 4
_SHARE = 0.5  # of a core
_TICK = 0.01  # seconds
_BANK = 0.05  # seconds of a CPU that a worker may have in hand
_SECONDS = 300.0
_OWN = ("--environment", "--parallelism")  # the rest as users have it
_SCOPES = ("worker", "global")


def scaling() -> Iterator[Figure]:
    """From 20 % to 80 % of a loaded hub, read as fast as the workers may."""
    for scope in _SCOPES:
        one, two = _rate(scope, 1), _rate(scope, 2)
        yield Figure(f"scope {scope}, one worker with {_SHARE} of a core", one, "alerts/s")
        yield Figure(f"scope {scope}, two such workers", two, "alerts/s")
        yield Figure(f"scope {scope}, two: that of one's", two / one, "")


def _rate(scope: str, workers: int) -> float:
    with Site(_PARTITIONS) as site, mock.patch.dict(os.environ, site.environment):
        (folder := site.folder / "flink").mkdir()
        conf = {"heartbeat.timeout": "120000"}
        with Standalone(folder, taskmanagers=workers, slots=2, conf=conf) as cluster:
            own = [each for each in cluster.options if each.startswith(_OWN)]
            given = ("--runner", "FlinkRunner", "--cluster", cluster.rest, "--", *own)
            site.hub.call("load", _WARM)
            site.run(scope=scope, options=given)
            site.wait(lambda: site.received >= _WARM, _SECONDS)
            pids = [
                [cluster.children[f"{kind}-{n}"].pid for kind in ("taskmanager", "pool")]
                for n in range(1, workers + 1)
            ]
            loaded = threading.Event()
            with _held([[p for pid in each for p in family(pid)] for each in pids], loaded):
                site.hub.call("load", _ALERTS)
                loaded.set()
                site.wait(lambda: site.received > _WARM + _ALERTS * 0.2, _SECONDS)
                begun, began = site.received, time.monotonic()
                site.wait(lambda: site.received > _WARM + _ALERTS * 0.8, _SECONDS)
                rate = (site.received - begun) / (time.monotonic() - began)
            site.wait(lambda: site.received >= _WARM + _ALERTS, _SECONDS)
    return rate


@contextlib.contextmanager
def _held(workers: Sequence[Sequence[int]], loaded: threading.Event) -> Iterator[None]:
    """Hold each worker's processes to their share once it is loaded, and to nothing before, as long
    as the `with` lasts."""
    ended = threading.Event()
    threads = [threading.Thread(target=_hold, args=(pids, loaded, ended)) for pids in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        loaded.set()
        ended.set()
        for thread in threads:
            thread.join()


def _hold(pids: Sequence[int], loaded: threading.Event, ended: threading.Event) -> None:
    _signal(pids, signal.SIGSTOP)
    loaded.wait()
    used, at, left, stopped = sum(map(seconds_used, pids)), time.monotonic(), 0.0, True
    try:
        while not ended.wait(_TICK):
            used, before = sum(map(seconds_used, pids)), used
            at, since = time.monotonic(), at
            left = min(_BANK, left + _SHARE * (at - since) - (used - before))
            if stopped != (left < 0):
                stopped = left < 0
                _signal(pids, signal.SIGSTOP if stopped else signal.SIGCONT)
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)
