"""What is measured: each thing named once, told to Beam, whose runners show it, and to Prometheus.

Beam's metrics (namespace `alertbeam`) know no labels, and Flink adds up those of one name in a
fused stage, whatever their step; so labels follow the name: `sink_records:splunk:delivered`.
Prometheus' are `alertbeam_…`. The workers of a pool write them to its folder, and it serves them.

All is off until a worker starts it. A call is one a batch, never one an alert. Beam takes what is
said in the thread of a bundle and drops the rest; Prometheus takes everything. Times are told as
timestamps, so that an age grows also where nobody tells it any more.

Sources: Prometheus' "Metric and label naming" and "Instrumentation", and its Python client's
"Multiprocess Mode", whose private parts add up many observations at once, and files of the dead.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apache_beam.metrics import Metrics

from transforms.delivery.line import printable

if TYPE_CHECKING:
    from transforms.delivery.parcel import Status
    from transforms.read.reader import PartitionStatus

__all__ = [
    "CHECKPOINT",
    "DEAD",
    "DELIVERY",
    "FOLDER",
    "MEASURES",
    "NAMESPACE",
    "PARSED",
    "READ",
    "READ_AT",
    "REPEATS",
    "SENT",
    "UNREAD",
    "on",
    "retire",
    "stand",
    "start",
    "told",
]

NAMESPACE = "alertbeam"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the pool's folder; without it, nothing is told to Prometheus."""

_MOST = 4096  # series of a measure; the labels of any more are all "other"
_LABEL = 200  # characters
_UNSAFE = re.compile(r"[^\w./-]")  # in Beam's names: Flink's REST API parts them by commas
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 21_600.0)
_CIRCUITS = {"closed": 0, "half_open": 1, "open": 2}

_on = False
_making = threading.Lock()
_files = threading.Lock()  # those of the dead are read, or added up


def start() -> None:
    """Measure from now on, in this process."""
    global _on
    _on = True


def on() -> bool:
    """Whether it is measured: to be asked before figures are made that cost something."""
    return _on


class _Measure:
    """labels: the names of what tells its series apart."""

    def __init__(self, name: str, says: str, *labels: str) -> None:
        self.name = name
        self.says = says
        self.labels = labels
        self._series: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self._family: Any = None

    def _of(self, values: tuple[str, ...]) -> tuple[Any, Any]:
        """Beam's updater and Prometheus' series; of the latter None where nobody serves it."""
        return self._series.get(values) or self._made(values)

    def _made(self, values: tuple[str, ...]) -> tuple[Any, Any]:
        with _making:
            if len(self._series) >= _MOST:
                values = ("other",) * len(values)
            if values not in self._series:
                shown = [printable(value, _LABEL) for value in values]
                name = ":".join([self.name, *(_UNSAFE.sub("_", each) for each in shown)])
                theirs = None
                if os.environ.get(FOLDER):
                    self._family = self._family or self._prometheus()
                    theirs = self._family.labels(*shown) if shown else self._family
                self._series[values] = self._beam(name), theirs
            return self._series[values]

    def _beam(self, name: str) -> Callable[[int], None]:
        raise NotImplementedError

    def _prometheus(self) -> Any:
        raise NotImplementedError


class _Count(_Measure):
    def add(self, amount: int, *labels: str) -> None:
        if not _on or not amount:
            return
        beam, theirs = self._of(labels)
        beam(amount)
        if theirs is not None:
            theirs.inc(amount)

    def _beam(self, name: str) -> Callable[[int], None]:
        return Metrics.counter(NAMESPACE, name).inc

    def _prometheus(self) -> Any:
        from prometheus_client import Counter as Count

        name = f"{NAMESPACE}_{self.name}"
        return Count(name, self.says, self.labels, registry=None)


class _Level(_Measure):
    """of: which process's value holds, of several: the latest of those that live, or the highest
    there ever was."""

    def __init__(self, name: str, says: str, *labels: str, of: Any = "livemostrecent") -> None:
        super().__init__(name, says, *labels)
        self._which = of

    def set(self, value: float, *labels: str) -> None:
        if not _on:
            return
        beam, theirs = self._of(labels)
        beam(int(value))
        if theirs is not None:
            theirs.set(value)

    def _beam(self, name: str) -> Callable[[int], None]:
        return Metrics.gauge(NAMESPACE, name).set

    def _prometheus(self) -> Any:
        from prometheus_client import Gauge

        name = f"{NAMESPACE}_{self.name}"
        return Gauge(name, self.says, self.labels, registry=None, multiprocess_mode=self._which)


class _Spread(_Measure):
    """Seconds. Beam's distribution has one figure a call, the mean, in milliseconds."""

    def observe(self, seconds: Sequence[float], *labels: str) -> None:
        if not _on or not seconds:
            return
        total = sum(seconds)
        beam, theirs = self._of(labels)
        beam(int(1000 * total / len(seconds)))
        if theirs is not None:
            at = bisect_left(_SECONDS, min(seconds))
            if at == bisect_left(_SECONDS, max(seconds)):  # as most batches are
                counts = {at: len(seconds)}
            else:
                counts = Counter(bisect_left(_SECONDS, each) for each in seconds)
            for at, count in counts.items():
                theirs._buckets[at].inc(count)
            theirs._sum.inc(total)

    def _beam(self, name: str) -> Callable[[int], None]:
        return Metrics.distribution(NAMESPACE, name).update

    def _prometheus(self) -> Any:
        from prometheus_client import Histogram

        name = f"{NAMESPACE}_{self.name}"
        return Histogram(name, self.says, self.labels, registry=None, buckets=_SECONDS)


_PARTITION = ("source", "partition")

READ = _Count("read_events", "Events that came live from the hub.", *_PARTITION)
READ_AT = _Level(
    "read_timestamp_seconds", "When its reader last looked at the partition.", *_PARTITION, of="max"
)
_LAG = _Level("lag_events", "Events in the partition that were not read yet.", *_PARTITION)
_LAG_SECONDS = _Level(
    "lag_seconds", "How old what is read next is, at most; 0: nothing waits.", *_PARTITION
)
UNREAD = _Level("unread_partitions", "Partitions that nobody reads.")
CHECKPOINT = _Level(
    "checkpoint_timestamp_seconds", "When the partition's checkpoint moved.", *_PARTITION, of="max"
)
PARSED = _Count("parsed_records", "Records found in live events.", "source")
REPEATS = _Count("repeat_records", "Records that came before.", "source")
SENT = _Count("sink_records", "Records by how they ended for the sink.", "sink", "outcome")
DELIVERY = _Spread("delivery_seconds", "From enqueued in the hub to taken by the sink.", "sink")
_CIRCUIT = _Level("circuit_state", "0: closed, 1: half open, 2: open.", "sink", of="livemax")
DEAD = _Count("dead_letters", "Dead letters by the step that refused the record.", "step")

MEASURES: dict[str, _Measure] = {
    each.name: each
    for each in (
        READ, READ_AT, _LAG, _LAG_SECONDS, UNREAD, CHECKPOINT, PARSED, REPEATS, SENT, DELIVERY,
        _CIRCUIT, DEAD,
    )
}  # fmt: skip
"""By name: that of a Beam metric up to its first colon."""


def stand(partitions: Iterable[PartitionStatus], sinks: Mapping[str, Status]) -> None:
    """How reading and the sinks of this process stand."""
    if not _on:
        return
    now = time.time()
    for each in partitions:
        where = each.source, each.partition
        if (events := each.lag) is None:
            continue
        _LAG.set(events, *where)
        if not events:
            _LAG_SECONDS.set(0, *where)
        elif each.read_enqueued_ms is not None:
            _LAG_SECONDS.set(max(0.0, now - each.read_enqueued_ms / 1000), *where)
    for name, sink in sinks.items():
        _CIRCUIT.set(_CIRCUITS[sink.circuit], name)


# ------------------------------------------------------------------------- what a pool serves


def told(folder: Path) -> Iterator[Any]:
    """What the folder's processes told, added up, as a collector of Prometheus' gives it."""
    from prometheus_client.multiprocess import MultiProcessCollector

    with _files:
        yield from list(MultiProcessCollector(None, str(folder)).collect())


def retire(folder: Path, pid: int) -> None:
    """A process is gone: what it counted stays, in one file for all of those, however many."""
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import mark_process_dead

    with _files:
        mark_process_dead(pid, str(folder))
        for kind in ("counter", "histogram", "gauge_max"):
            dead = folder / f"{kind}_{pid}.db"
            if not dead.exists():
                continue
            try:
                found = [*MmapedDict.read_all_values_from_file(str(dead))]
            except (RuntimeError, ValueError, struct.error):  # a kill cut it off
                found = []
            kept = MmapedDict(str(folder / f"{kind}_0.db"))
            for key, value, *_ in found:
                before, _ = kept.read_value(key)
                after = max(before, value) if kind == "gauge_max" else before + value
                kept.write_value(key, after, 0.0)
            kept.close()
            dead.unlink()
