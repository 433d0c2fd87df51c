"""What each worker process of a cluster tells of itself: the cluster's own pages do not have it.

    workers/<host>-<pid>.json     every 2 s; of one that ended, until an hour later
    draining/<run>                the run is to read no further, so that its windows fire

Who wants to know how a job goes puts these together: `together`. A runner's own way to drain does
not end a source that reads for ever (Flink's waits without end).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable

import msgspec

from schemas.batch import Origin
from transforms import metrics
from transforms.delivery.engines import engines
from transforms.delivery.parcel import Status
from transforms.read.reader import PartitionStatus, session
from transforms.state_store import StateStore, StateStoreError, place

__all__ = [
    "ALL", "Beat", "beats", "drain", "drained", "ended", "looked", "silent", "tell", "together",
]  # fmt: skip

ALL = "*"
"""Told as ended by whoever hands out partitions, when it hands out no more."""

_LOGGER = logging.getLogger(__name__)
_FOLDER = "workers"
_EVERY_SECONDS = 2.0
_LET_GO_SECONDS = 60.0  # that a partition is not looked at, until its link is another's
_OLD_SECONDS = 3600.0


class Beat(msgspec.Struct):
    """One worker, at one moment. looked_ms: by `str(origin)`, when the pipeline last asked for
    the partition's events. sinks: by name, of this worker's own engines. ended: by `str(origin)`,
    what is drained."""

    run: str
    at_ms: int
    partitions: list[PartitionStatus]
    looked_ms: dict[str, int]
    sinks: dict[str, Status]
    ended: list[str] = []


_ended: dict[str, set[str]] = {}  # by run
_looked: dict[str, dict[Origin, float]] = {}  # by run; wall clock
_telling: set[tuple[str, str]] = set()
_lock = threading.Lock()


def looked(run: str, origin: Origin) -> None:
    """The pipeline asks for a partition's events."""
    with _lock:
        _looked.setdefault(run, {})[origin] = time.time()


def ended(run: str, name: str) -> None:
    """The pipeline asks no more for a partition's events: it drains."""
    with _lock:
        _ended.setdefault(run, set()).add(name)


def drain(store: StateStore, run: str) -> None:
    """Tell all workers of the run to read no further."""
    store.put(_order(run), b"")


def silent(store: StateStore, run: str) -> bool:
    """Whether none of them reads a partition any more."""
    told = [beat for beat in beats(store) if beat.run == run]
    done = {name for beat in told for name in beat.ended}
    return bool(told) and all(name in done for beat in told for name in beat.looked_ms)


def drained(store: StateStore, run: str) -> bool:
    """Whether none will be read any more either: nothing holds the watermark, and windows fire."""
    return any(ALL in beat.ended for beat in beats(store) if beat.run == run)


def _order(run: str) -> str:
    return place("draining", run)


def tell(run: str, store: StateStore) -> None:
    """Begin to tell of the run in this process, if nobody does yet."""
    with _lock:
        if (run, str(store.folder)) in _telling:
            return
        _telling.add((run, str(store.folder)))
    threading.Thread(target=_tell, args=(run, store), name="tell", daemon=True).start()


def _tell(run: str, store: StateStore) -> None:
    path, problem = place(_FOLDER, f"{socket.gethostname()}-{os.getpid()}.json"), ""
    while True:
        try:
            beat = _beat(run)
            metrics.stand(beat.partitions, beat.sinks)
            store.put(path, msgspec.json.encode(beat), sync=False)
            if not session(run).draining and store.get(_order(run)) is not None:
                session(run).draining = True
            problem = ""
        except StateStoreError as error:
            if str(error) != problem:
                _LOGGER.warning("how this worker does cannot be told: %s", error)
            problem = str(error)
        time.sleep(_EVERY_SECONDS)


def _beat(run: str) -> Beat:
    now = time.time()
    with _lock:
        known = dict(_looked.get(run, {}))
        done = sorted(_ended.get(run, ()))
    reading = session(run)
    statuses = []
    for status in reading.status():
        at = known.get(Origin(status.source, status.partition), 0.0)
        if at < now - _LET_GO_SECONDS:
            reading.release(status.source, status.partition)
        else:
            statuses.append(status)
    return Beat(
        run,
        int(now * 1000),
        statuses,
        {str(origin): int(at * 1000) for origin, at in known.items()},
        {engine.sink.name: engine.status() for engine in engines(run)},
        done,
    )


def beats(store: StateStore) -> list[Beat]:
    """What workers tell, and told in the last hour; older ones are swept."""
    found = []
    for path in store.list(_FOLDER):
        try:
            beat = msgspec.json.decode(store.get(path) or b"", type=Beat)
        except msgspec.DecodeError:
            continue  # gone, or another version's
        if beat.at_ms < (time.time() - _OLD_SECONDS) * 1000:
            store.delete(path, sync=False)
        else:
            found.append(beat)
    return found


class Together(msgspec.Struct):
    """What all workers of a run tell. looked_ms: as in `Beat`. sinks: counts added up, the rest
    as the worker has it that is worst off."""

    partitions: list[PartitionStatus]
    looked_ms: dict[str, int]
    sinks: dict[str, Status]


_WORST = ("open", "half_open", "closed")


def together(run: str, told: Iterable[Beat]) -> Together:
    """Each partition by the worker that looked at it last."""
    partitions: dict[str, tuple[int, PartitionStatus]] = {}
    looked_ms: dict[str, int] = {}
    sinks: dict[str, Status] = {}
    for beat in told:
        if beat.run != run:
            continue
        for name, at_ms in beat.looked_ms.items():
            looked_ms[name] = max(at_ms, looked_ms.get(name, 0))
        for status in beat.partitions:
            name = f"{status.source}/{status.partition}"
            found = beat.looked_ms.get(name, 0), status
            partitions[name] = max(found, partitions.get(name, found), key=lambda each: each[0])
        for name, sink in beat.sinks.items():
            sinks[name] = _both(sinks[name], sink) if name in sinks else sink
    rows = [status for _, status in partitions.values()]
    rows.sort(key=lambda each: (each.source, len(each.partition), each.partition))
    return Together(rows, looked_ms, sinks)


def _both(one: Status, other: Status) -> Status:
    worst = min(one, other, key=lambda each: _WORST.index(each.circuit))
    sums = {
        each.name: getattr(one, each.name) + getattr(other, each.name)
        for each in dataclasses.fields(Status)
        if each.name not in ("circuit", "since", "reason", "behind")
    }
    return dataclasses.replace(worst, behind=one.behind or other.behind, **sums)
