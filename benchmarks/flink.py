"""What a Flink costs: the same graph, hub and collector on an embedded one and on one machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.site import Site

__all__ = ["flink"]

_LOADED = 200_000
_PARTITIONS = 4
_START_SECONDS = 300.0
_FLINK = ("--runner", "FlinkRunner", "--cluster", "local", "--parallelism")
_CASES = (
    ("one machine", "global", ()),
    ("Flink, scope worker", "worker", (*_FLINK, "1")),
    ("Flink, scope global", "global", (*_FLINK, "1")),
    ("Flink, scope worker, 2 subtasks", "worker", (*_FLINK, "2")),
    ("Flink, scope global, 2 subtasks", "global", (*_FLINK, "2")),
)


def flink() -> Iterator[Figure]:
    """A loaded hub, read as fast as it goes: from 20 % to 95 % of it. CPU: of Python and Java."""
    first = 0.0
    for what, scope, options in _CASES:
        with Site(_PARTITIONS) as site:
            site.hub.call("load", _LOADED)
            site.run(scope=scope, options=options)
            site.wait(lambda: site.received > _LOADED * 0.20, _START_SECONDS)
            begun, cpu, began = site.received, site.cpu, time.monotonic()
            site.wait(lambda: site.received > _LOADED * 0.95, _START_SECONDS)
            count, cpu, took = site.received - begun, site.cpu - cpu, time.monotonic() - began
            site.drain()
        first = first or cpu / count
        yield Figure(f"{what}: rate", count / took, "alerts/s")
        yield Figure(f"{what}: a million alerts take", cpu / count * 1e6, "CPU s")
        yield Figure(f"{what}: that of one machine's", cpu / count / first, "")
