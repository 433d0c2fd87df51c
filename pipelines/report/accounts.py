"""What the state store says: each sink's account, what it is owed, where partitions stand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from schemas.batch import Origin
from schemas.receipt import Outcomes
from schemas.runs import Run, clip, count
from transforms.account import settled
from transforms.owed import sums
from transforms.read.plan import REPLAY
from transforms.state_store import StateStore, place

__all__ = [
    "Owed",
    "SinkAccount",
    "Standing",
    "accounts_of",
    "is_running",
    "owed_of",
    "read_status",
    "standings",
    "works",
]

_TOLD_SECONDS = 30.0


class SinkAccount(msgspec.Struct):
    """One sink's sums over all partitions. `records` were counted where they were parsed.

    since_ms: when the oldest record that is owed was enqueued, about; 0: nothing is, or not known.
    behind, paying: as the pipeline said last: whether the sink is slower than what comes, and
        how many records that were owed it takes a second.
    """

    name: str
    records: int
    outcomes: Outcomes
    circuit: str = ""
    since_ms: int = 0
    behind: bool = False
    paying: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether in = delivered + not routed + repeat + dead + owed."""
        return self.records == self.outcomes.total


def accounts_of(store: StateStore, sinks: Iterable[str]) -> list[SinkAccount]:
    """The account of each sink, with what was paid moved from owed to delivered or dead."""
    found = []
    status = read_status(store)
    for sink in sinks:
        paid = sums(store, sink)  # first: what is paid meanwhile cannot exceed what is owed
        records, outcomes = 0, Outcomes()
        for entry in settled(store, sink).values():
            records += entry.records
            outcomes += entry.outcomes
        outcomes.owed -= paid.delivered + paid.dead + paid.not_routed
        outcomes.not_routed += paid.not_routed
        outcomes.delivered += paid.delivered
        outcomes.dead += paid.dead
        said = status.get("sinks", {}).get(sink, {})
        found.append(
            SinkAccount(
                sink,
                records,
                outcomes,
                said.get("circuit", ""),
                paid.since_ms if outcomes.owed else 0,
                said.get("behind", False),
                said.get("paying_per_second", 0.0),
            )
        )
    return found


def read_status(store: StateStore) -> dict[str, Any]:
    """What the running (or last) pipeline wrote of itself; empty if there never was one."""
    data = store.get("status.json")
    try:
        return msgspec.json.decode(data or b"{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return {}  # another version's


def is_running(store: StateStore) -> bool:
    """Whether the pipeline that wrote the status still works."""
    return works(read_status(store))


def works(status: Mapping[str, Any]) -> bool:
    """Whether the pipeline of this status still works; one on a cluster, as it is told often."""
    if not status.get("running"):
        return False
    if status.get("host"):
        return time.time() - status["at_ms"] / 1000 < _TOLD_SECONDS
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Owed(msgspec.Struct):
    """What one sink is owed of one partition, and how what it was owed before ended.

    since_ms: when the oldest record was enqueued, or somewhat before; 0: not known, or none is.
    """

    runs: list[Run]
    since_ms: int = 0
    delivered: int = 0
    dead: int = 0
    not_routed: int = 0

    @property
    def count(self) -> int:
        return count(self.runs)


class _Segment(msgspec.Struct):
    owed: list[Run]
    since_ms: int = 0
    delivered: int = 0
    dead: int = 0
    not_routed: int = 0


class _Paid(msgspec.Struct):
    delivered: int = 0
    dead: int = 0
    closed: list[int] = []
    not_routed: int = 0


_SEGMENT = msgspec.json.Decoder(_Segment)
_PAID = msgspec.json.Decoder(_Paid)


def owed_of(store: StateStore, sink: str, origin: Origin, position: int) -> Owed:
    """Up to the sink's position, from the objects themselves (their layout: `transforms.owed`)."""
    names = origin.source.split("/")
    paths = [*store.list(place("owed", sink, *names, origin.partition))]
    read = [(int(path.rpartition("/")[2].removesuffix(".json")), store.get(path)) for path in paths]
    # After the segments: one may close meanwhile, and counts once.
    paid = _PAID.decode(store.get(place("paid", sink, *names, f"{origin.partition}.json")) or b"{}")
    found = Owed([], 0, paid.delivered, paid.dead, paid.not_routed)
    for first, data in read:
        if data is None or first in paid.closed:
            continue
        segment = _SEGMENT.decode(data)
        left = clip(segment.owed, 0, position)
        found.runs += left
        found.delivered += segment.delivered
        found.dead += segment.dead
        found.not_routed += segment.not_routed
        if left and segment.since_ms:
            found.since_ms = min(found.since_ms or segment.since_ms, segment.since_ms)
    return found


class Standing(msgspec.Struct):
    """Where one partition stands, in sequence numbers; None: not known.

    read: the last event that was read. settled: the last that every sink settled. last: the last
    that the hub told of. lag_seconds: the age of what was read last, while something waits.
    """

    source: str
    partition: str
    read: int | None
    settled: int | None
    last: int | None
    lag_events: int | None
    lag_seconds: float | None
    error: str = ""


def standings(store: StateStore, sinks: Iterable[str]) -> list[Standing]:
    """Every partition that sinks have settled something of, or that the pipeline reads."""
    positions: dict[Origin, list[int]] = {}
    for sink in sinks:
        for origin, entry in settled(store, sink).items():
            if not origin.source.startswith(REPLAY):  # whose lanes are no partitions of a hub
                positions.setdefault(origin, []).append(entry.position)
    status = read_status(store)
    reading = {Origin(p["source"], p["partition"]): p for p in status.get("partitions", ())}
    found = []
    for origin in sorted(
        {*positions, *reading}, key=lambda o: (o.source, len(o.partition), o.partition)
    ):
        seen = reading.get(origin, {})
        position = min(positions.get(origin, [-1]))
        last = seen.get("last_sequence")
        behind = None if last is None else max(0, last - position)
        seconds = None
        if behind == 0:
            seconds = 0.0
        elif behind and seen.get("last_enqueued_ms"):
            oldest = seen.get("read_enqueued_ms") or seen["last_enqueued_ms"]
            seconds = max(0.0, time.time() - oldest / 1000)
        found.append(
            Standing(
                origin.source,
                origin.partition,
                seen["next"] - 1 if seen.get("next") else None,
                position if position >= 0 else None,
                last,
                behind,
                seconds,
                seen.get("error", ""),
            )
        )
    return found
