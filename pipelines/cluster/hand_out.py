"""Hands out the partitions of all hubs to a cluster's workers, also those that are added later.

A DoFn that goes by a timer, whose restriction says what was handed out already: that outlasts
restarts, and takes a changed list of sources, where `Create` would never fire again. It is one
element, so one worker has it at a time, and does what `alertbeam run` does on one machine beside
its pipeline: it holds the state store's lock, looks for new partitions, publishes checkpoints,
writes the status, and raises the alarm over a partition that nobody reads.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from pipelines.cold_start import horizon_start
from pipelines.forward import accounts
from pipelines.hubs import Hubs, RunError
from pipelines.redeliver import owed_to
from pipelines.settings import Settings
from schemas.batch import Origin
from transforms import metrics
from transforms.checkpoints import publishing
from transforms.hand_over import load
from transforms.owed import void_letters
from transforms.read.by_timer import AHEAD_SECONDS, ByTimer, Endless
from transforms.read.event_hubs import Partition
from transforms.read.reader import session
from transforms.secrets import SecretError
from transforms.spread import spread_names
from transforms.state_store import StateStore, StateStoreError
from transforms.workers import ALL, beats, ended, silent, tell, together

__all__ = ["CLUSTER", "HandOut"]

_LOGGER = logging.getLogger(__name__)

CLUSTER = "a cluster"
"""What runs it, in the status."""

_LOOK_SECONDS = 5.0
_LISTING_SECONDS = 30.0
_STATUS_SECONDS = 2.0
_UNREAD_SECONDS = 60.0
_LOCK_SECONDS = 2.0  # from one try to get the lock to the next
_LET_GO_SECONDS = 30.0  # without being asked, until another worker may have it
_PATIENCE_SECONDS = 120.0  # until it is surely another run that has it
_OWED = "owed"


class Handed(NamedTuple):
    """The restriction: what was handed out, by `str(origin)`; whether that is all it is about."""

    names: tuple[str, ...] = ()
    ended: bool = False


class _Tracker:
    """A claim is a name; the empty one ends it: nothing will be added any more."""

    def __init__(self, handed: Handed) -> None:
        self._handed = handed

    def current_restriction(self) -> Handed:
        return self._handed

    def try_claim(self, position: str) -> bool:
        if self._handed.ended or not position:
            self._handed = self._handed._replace(ended=True)
            return False
        self._handed = Handed((*self._handed.names, position))
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Handed, Handed] | None:
        if fraction_of_remainder != 0 or self._handed.ended:
            return None
        left = self._handed
        self._handed = Handed(left.names, ended=True)
        return self._handed, left

    def check_done(self) -> None:
        if not self._handed.ended:
            raise ValueError("partitions may still be added")


class _HandOut(beam.DoFn):
    """What `ByTimer` runs."""

    def __init__(self, settings: Settings, run: str, marks: bool) -> None:
        self._settings = settings
        self._run = run
        self._marks = marks

    def initial_restriction(self, element: bytes) -> Handed:
        return Handed()

    def create_tracker(self, restriction: Handed) -> _Tracker:
        return _Tracker(restriction)

    def process(
        self, element: bytes, tracker: Any, watermark: ManualWatermarkEstimator
    ) -> Iterator[TimestampedValue]:
        del element
        if session(self._run).draining:
            if silent(StateStore(str(self._settings.state)), self._run):
                tracker.try_claim("")
                ended(self._run, ALL)
            else:
                tracker.defer_remainder(Duration(_LOCK_SECONDS))
            return
        keeper = _keeper(self._settings, self._run)
        now = Timestamp.of(time.time())
        if keeper.holds():
            handed = {*tracker.current_restriction().names}
            new = [each for each in keeper.look() if _name(each) not in handed]
            keys = spread_names([_name(each) for each in new], len(handed))
            for key, each in zip(keys, keeper.placed(new) if self._marks else new, strict=True):
                if tracker.try_claim(_name(each)):
                    yield TimestampedValue((key, each), now)
            if _OWED not in handed and tracker.try_claim(_OWED):
                yield TimestampedValue((_OWED, keeper.owed), now)
            metrics.UNREAD.set(len(keeper.unread))
            if watermark.current_watermark() is None:  # from now on the readers hold it
                watermark.set_watermark(now + Duration(AHEAD_SECONDS))
        tracker.defer_remainder(Duration(_LOOK_SECONDS if keeper.holds() else _LOCK_SECONDS))


def _name(partition: Partition) -> str:
    return f"{partition.source}/{partition.partition}"


class _Keeper:
    """What one worker of the cluster does for all of it: as long as it is asked."""

    def __init__(self, settings: Settings, run: str) -> None:
        self.unread: list[str] = []
        self._settings = settings
        self._run = run
        self._store = StateStore(str(settings.state))
        self._sinks = accounts(settings)
        self.owed = owed_to(settings, self._sinks)
        self._held: ExitStack | None = None
        self._began = time.time()
        self._waits_since = time.monotonic()
        self._asked = time.monotonic()
        self._list_at = 0.0  # monotonic
        self._names: set[str] = set()
        self._problem = ""
        self._lock = threading.Lock()

    def holds(self) -> bool:
        """Whether this worker has the state store's lock; tries to get it. Where a job was
        restarted, another worker of it may still have it, until it is not asked any more."""
        with self._lock:
            self._asked = time.monotonic()
            if self._held is not None:
                return True
            held = ExitStack()
            try:
                self._store.prepare()
                held.enter_context(self._store.lock("run"))
            except StateStoreError:
                if time.monotonic() > self._waits_since + _PATIENCE_SECONDS:
                    raise
                return False
            try:
                self._begin(held)
            except BaseException:
                held.close()
                raise
            self._held = held
            return True

    def _begin(self, held: ExitStack) -> None:
        self._began = time.time()
        self._hubs = Hubs(
            self._settings.sources, self._store, self._sinks, say=_LOGGER.warning, claims=False
        )
        self._hubs.look(first=True)
        void_letters(self._store, self._sinks)
        hubs = {entry.name: entry.event_hubs for entry in self._settings.sources}
        held.enter_context(publishing(hubs, self._store, self._sinks, _LOGGER.warning))
        tell(self._run, self._store)
        threading.Thread(target=self._keep_status, args=(held,), name="status", daemon=True).start()

    def look(self) -> list[Partition]:
        """Every partition that there is now, from where it goes on live; none until it is time to
        list them again."""
        if time.monotonic() < self._list_at:
            return []
        self._list_at = time.monotonic() + _LISTING_SECONDS
        try:
            self._hubs.look()
            self._problem = ""
        except (OSError, SecretError, RunError) as error:
            if str(error) != self._problem:
                _LOGGER.warning("partitions could not be listed: %s", error)
            self._problem = str(error)
        found = [each._replace(live=each.start) for each in self._hubs.partitions()]
        self._names = {_name(each) for each in found}
        return found

    def placed(self, partitions: Iterable[Partition]) -> list[Partition]:
        """Where each is read from: the deduplication's horizon before it goes on live is addressed
        to nobody, and only marks what was seen. The runner remembers none of these."""
        handed = load(self._store)
        told = dict(handed.counted) if handed else {}
        horizon_ms = self._settings.deduplicate.horizon_ms
        found = []
        for each in partitions:
            origin = Origin(each.source, each.partition)
            start = horizon_start(self._store, self._sinks, origin, each.live, horizon_ms)
            found.append(
                each._replace(start=start, counted=each.live, told=told.get(str(origin), -1))
            )
        return found

    def _keep_status(self, held: ExitStack) -> None:
        while True:
            with self._lock:
                if time.monotonic() > self._asked + _LET_GO_SECONDS:
                    self._held, self._waits_since = None, time.monotonic()
                    held.close()
                    return
            try:
                self._write_status()
            except OSError as error:
                _LOGGER.warning("the status could not be written: %s", error)
            time.sleep(_STATUS_SECONDS)

    def _write_status(self) -> None:
        known = together(self._run, beats(self._store))
        now = time.time()
        before = {*self.unread}
        self.unread = sorted(
            name
            for name in self._names
            if now - max(known.looked_ms.get(name, 0) / 1000, self._began) > _UNREAD_SECONDS
        )
        for name in {*self.unread} - before:
            _LOGGER.error(
                "%s: nobody has read this partition for a minute: stop the job with a savepoint, "
                "and resume it; if that does not help, start it without one: it goes on where "
                "every sink stands", name,
            )  # fmt: skip
        status = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "running": True,
            "at_ms": int(now * 1000),
            "runner": CLUSTER,
            "run": self._run,
            "partitions": known.partitions,
            "unread": self.unread,
            "sinks": known.sinks,
        }
        self._store.put("status.json", msgspec.json.encode(status), sync=False)


_keepers: dict[str, _Keeper] = {}
_keepers_lock = threading.Lock()


def _keeper(settings: Settings, run: str) -> _Keeper:
    with _keepers_lock:
        if run not in _keepers:
            _keepers[run] = _Keeper(settings, run)
        return _keepers[run]


class HandOut(beam.PTransform):
    """`PBegin → PCollection[tuple[str, Partition | Debts]]`, each once, by a key of its own that
    lies evenly among the others.

    marks: whether what was seen before is read again where the runner has no memory of it; not
        where nothing is deduplicated.
    """

    def __init__(self, settings: Settings, run: str, marks: bool = True) -> None:
        super().__init__()
        self._hand_out = _HandOut(settings, run, marks)

    def expand(self, begin: Any) -> Any:
        hand_out = beam.ParDo(ByTimer(self._hand_out)).with_output_types(tuple[str, Any])
        return begin | "All hubs" >> Endless("hubs") | "Hand out" >> hand_out
