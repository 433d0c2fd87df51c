"""What is published: every alert with its own id, and what must become of it.

Among unique alerts: exact copies of recent ones, mostly on another partition; status updates;
several records in one event; and events that must end as dead letters.
"""

from __future__ import annotations

import datetime
import json
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

from pipelines.local.events import defender_alert
from pipelines.local.hub import EmbeddedHub
from schemas.kinds import understand

__all__ = ["Place", "Traffic"]

_TICK = 0.05  # seconds
_SHAPES = 60
_RECENT = 150


class Place(NamedTuple):
    """Where a record lies on the hub."""

    partition: str
    sequence: int
    index: int


class _Made(NamedTuple):
    """An event's body; of each of its records the alert's id, or None: it is a dead letter."""

    body: bytes
    ids: list[str | None]


class Traffic(threading.Thread):
    """`rate` events a second, until `ended` is set. The same seed makes the same ones, times apart.

    places: where each alert lies, by id; more than once if it was copied. dead: where the records
    lie that cannot be understood. severity: of each alert.
    """

    def __init__(self, hub: EmbeddedHub, name: str, partitions: int, rate: int, seed: int) -> None:
        super().__init__(daemon=True, name="traffic")
        self.places: dict[str, list[Place]] = defaultdict(list)
        self.severity: dict[str, str] = {}
        self.dead: set[Place] = set()
        self.published = [-1] * partitions  # the last sequence number of each partition
        self.failed: BaseException | None = None
        self.ended = threading.Event()
        self._hub, self._name = hub, name
        self._rate = rate
        self._rng = random.Random(seed)
        now = datetime.datetime.now(datetime.timezone.utc)
        shapes = [defender_alert(self._rng, now) for _ in range(_SHAPES)]
        self._shapes = [(json.dumps(s).encode(), s["SystemAlertId"].encode()) for s in shapes]
        self._recent: deque[tuple[_Made, int]] = deque(maxlen=_RECENT)  # and its partition
        self._number = 0

    @property
    def records(self) -> int:
        """How many were published."""
        return sum(map(len, self.places.values())) + len(self.dead)

    def wanted(self, where: Callable[[str], bool]) -> set[str]:
        """The ids of alerts whose severity `where` says yes to."""
        return {identity for identity, severity in self.severity.items() if where(severity)}

    def run(self) -> None:
        try:
            self._publish()
        except BaseException as error:
            self.failed = error

    def _publish(self) -> None:
        began = time.monotonic()
        made = 0
        while not self.ended.is_set():
            due = int((time.monotonic() - began) * self._rate) + 1 - made
            made += due
            batches: dict[int, list[_Made]] = defaultdict(list)
            for _ in range(due):
                event, partition = self._event()
                batches[partition].append(event)
            for partition, events in batches.items():
                self._put(partition, events)
            time.sleep(_TICK)

    def _put(self, partition: int, events: list[_Made]) -> None:
        bodies = [event.body for event in events]
        _, first, last = self._hub.publish(self._name, bodies, partition=partition)
        for sequence, event in enumerate(events, first):
            for index, identity in enumerate(event.ids):
                place = Place(str(partition), sequence, index)
                if identity is None:
                    self.dead.add(place)
                else:
                    self.places[identity].append(place)
        self.published[partition] = last

    def _event(self) -> tuple[_Made, int]:
        rng, lot = self._rng, self._rng.random()
        partition = rng.randrange(len(self.published))
        if lot < 0.08 and self._recent:
            # Of the last few more often: those are still on their way.
            which = -1 - min(int(rng.expovariate(0.1)), len(self._recent) - 1)
            event, original = self._recent[which]
            others = [p for p in range(len(self.published)) if p != original]
            return event, rng.choice(others) if others and rng.random() < 0.9 else original
        if lot < 0.12 and self._recent:
            before = json.loads(rng.choice(self._recent)[0].body)
            if "records" not in before:
                self._number += 1
                at = datetime.datetime.now(datetime.timezone.utc)
                before["Status"] = rng.choice(("InProgress", "Resolved", "Dismissed"))
                before["ProcessingEndTime"] = f"{at:%Y-%m-%dT%H:%M:%S}.{self._number:07d}Z"
                return self._known(json.dumps(before).encode()), partition
        if lot < 0.14:
            self._number += 1
            return _Made(b'{"cut off": "in the mid %d' % self._number, [None]), partition
        if lot < 0.16:
            one, other = self._alert(), self._alert()
            body = b'{"records": [%s, null, %s]}' % (one.body, other.body)
            return _Made(body, [*one.ids, None, *other.ids]), partition
        event = self._alert()
        self._recent.append((event, partition))
        return event, partition

    def _alert(self) -> _Made:
        self._number += 1
        body, identity = self._rng.choice(self._shapes)
        return self._known(body.replace(identity, b"%s-%06d" % (identity, self._number)))

    def _known(self, body: bytes) -> _Made:
        alert = understand(body)
        self.severity[alert.event_id] = alert.severity
        return _Made(body, [alert.event_id])
