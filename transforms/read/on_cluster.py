"""Partitions of event hubs on a cluster, wherever a worker is told to read one.

The same as `event_hubs.py`, but for three things. Whoever reads a partition where this process did
not just read it begins an attempt (transforms/attempts.py). Bundles are small, as the runner keeps
what they give until they end. And it goes by a timer (`by_timer.py`): an idle partition is looked
at more seldom, up to every second, since each time is a bundle.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import apache_beam as beam
from apache_beam.utils.timestamp import Duration

from schemas.batch import Batch, Origin
from transforms import coders
from transforms.account import begin as begin_account
from transforms.account import checkpoint
from transforms.attempts import Attempt, begin
from transforms.read.by_timer import ByTimer
from transforms.read.event_hubs import Partition, ReadPartition
from transforms.read.reader import HubReader
from transforms.read.sdk import HubError, kept_sequences
from transforms.state_store import StateStore
from transforms.workers import ended, looked, tell

__all__ = ["ReadPartitions"]

_BUNDLE_SECONDS = 0.5
_BUNDLE_BYTES = 4 * 1024 * 1024
_REST_SECONDS = (0.2, 1.0)
_PATIENT_SECONDS = 5.0  # without an event, until it is looked at more seldom


class _Read(ReadPartition):
    seconds, bytes = _BUNDLE_SECONDS, _BUNDLE_BYTES

    def __init__(self, run: str, sinks: tuple[str, ...], store: StateStore) -> None:
        super().__init__(run, store)
        self._sinks = sinks
        self._at = store

    def setup(self) -> None:
        tell(self._run, self._at)

    def start_bundle(self) -> None:
        super().start_bundle()
        self._sharers = 1  # each partition has bundles of its own

    def _attempt(
        self, element: Partition, origin: Origin, first: int, reader: HubReader
    ) -> Attempt:
        looked(self._run, origin)
        with _lock:
            known = _attempts.get((self._run, origin))
        if known is not None and reader.at(element.partition) == first:
            return known
        # A sink that was added begins where the others stand; on a cluster, where reading does.
        begin_account(self._at, self._sinks, origin, max(first, element.live) - 1)
        positions = {sink: self._position(sink, origin) for sink in self._sinks}
        try:
            mark = kept_sequences(element.access, element.partition).stop - 1
        except HubError:
            mark = None
        begun = begin(self._at, origin, positions, mark, element.told)
        with _lock:
            _attempts[self._run, origin] = begun
        return begun

    def _position(self, sink: str, origin: Origin) -> int:
        found = checkpoint(self._at, [sink], origin)
        assert found is not None, "it was begun just now"
        return found

    def _cover(self, origin: Origin, sequence: int) -> None:
        """Whoever begins the next attempt asks the hub how far this one may have come."""

    def _ended(self, origin: Origin) -> None:
        ended(self._run, str(origin))

    def _rest(self, origin: Origin | None, idle: bool) -> Duration | None:
        with _lock:
            now = time.monotonic()
            if not idle:
                _idle_since[self._run, origin] = now
            since = _idle_since.setdefault((self._run, origin), now)
        if not idle:
            return None
        least, most = _REST_SECONDS
        over = now - since - _PATIENT_SECONDS
        return Duration(least if over < 0 else min(most, least + over))


_lock = threading.Lock()
_attempts: dict[tuple[str, Origin], Attempt] = {}
_idle_since: dict[tuple[str, Origin | None], float] = {}  # monotonic


class ReadPartitions(beam.PTransform):
    """`PCollection[tuple[str, Partition | Debts]] → PCollection[Batch]`, timestamped by enqueued
    time; by name.

    sinks: those that have an account. store: the state store that all workers share.
    """

    def __init__(self, run: str, sinks: tuple[str, ...], store: StateStore) -> None:
        super().__init__()
        self._read = _Read(run, sinks, store)

    def expand(self, partitions: Any) -> Any:
        return partitions | "Read" >> beam.ParDo(ByTimer(self._read)).with_output_types(Batch)


coders.register()
