"""Hub, publisher and receivers for a soak, each in a process of its own, and light: the judge's
interpreter must not be what is slow.

Every alert says its number and when it was published. Receivers keep no alert, only how often
each number came, and for each second how late what came in it was.
"""

from __future__ import annotations

import datetime
import gc
import json
import multiprocessing
import random
import re
import threading
import time
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.local.events import defender_alert
from pipelines.local.hub import EmbeddedHub, Retention
from pipelines.local.receivers import (
    HecReceiver,
    HttpReceiver,
    Reply,
    Request,
    Silence,
    SyslogReceiver,
)

__all__ = ["HUB", "LATE", "TOKEN", "Receivers", "Second", "Traffic", "elsewhere"]

HUB = "defender"
TOKEN = "a-token-for-tests"
LATE = 2.0  # seconds
_PLACE = "soak-000000000-0000000000000"
_MARK = re.compile(rb"soak-(\d{9})-(\d{13})")
_AT_ONCE = 20


class Second(NamedTuple):
    """What came in a second of the clock: how many, of which so many were late; the latest's
    lateness in seconds."""

    count: int
    late: int
    longest: float


class Traffic:
    """A hub, and `rate` unique alerts a second on it once `begin` was said."""

    def __init__(self, folder: Path, rate: int, keep_seconds: float = 300.0) -> None:
        kept = Retention(seconds=keep_seconds)
        self._hub = EmbeddedHub(folder, {HUB: 4}, retention=kept, segment_bytes=8 << 20).start()
        self._rate = rate
        self._count = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def connection_string(self) -> str:
        return self._hub.connection_string(HUB)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> int:
        """How many were published."""
        self._ended.set()
        self._thread.join()
        return self._count

    def stop(self) -> None:
        self._hub.stop()

    def drop(self) -> None:
        self._hub.drop_connections()

    def stall(self) -> None:
        self._hub.stall(HUB)

    def heal(self) -> None:
        self._hub.heal()

    def _publish(self) -> None:
        rng = random.Random(7)
        now = datetime.datetime.now(datetime.timezone.utc)
        shapes = [defender_alert(rng, now) for _ in range(200)]
        for shape in shapes:
            shape["SystemAlertId"], shape["AlertDisplayName"] = _PLACE, f"An alert, {_PLACE}"
        bodies = [json.dumps(shape, separators=(",", ":")).encode() for shape in shapes]
        place, began = _PLACE.encode(), time.monotonic()
        while not self._ended.is_set():
            batch = []
            for number in range(self._count, self._count + _AT_ONCE):
                mark = b"soak-%09d-%013d" % (number, time.time() * 1000)
                batch.append(bodies[number % len(bodies)].replace(place, mark))
            self._hub.publish(HUB, batch)
            self._count += _AT_ONCE
            ahead = began + self._count / self._rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


class _Arrivals:
    """What a receiver keeps."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.times = bytearray()  # by number, how often it came
        self.seconds: dict[int, Second] = {}
        self._adding = threading.Lock()
        self.received = 0

    def keep(self, data: bytes, records: int = 0) -> None:
        now = time.time()
        with self._adding:
            count, late, longest = self.seconds.get(int(now), (0, 0, 0.0))
            for number, at in set(_MARK.findall(data)):
                which, age = int(number), now - int(at) / 1000
                if which >= len(self.times):
                    self.times.extend(bytes(which + 100_000 - len(self.times)))
                self.times[which] = min(255, self.times[which] + 1)
                count += 1
                late += age > LATE
                longest = max(longest, age)
            self.seconds[int(now)] = Second(count, late, longest)
            self.received += records


class _Hec(_Arrivals, HecReceiver):
    pass


class _Syslog(_Arrivals, SyslogReceiver):
    pass


class _Hook(_Arrivals, HttpReceiver):
    def respond(self, request: Request) -> Reply:
        self.keep(request.body)
        return Reply(200)


class Receivers:
    """Splunk's collector, a syslog server and a webhook."""

    def __init__(self) -> None:
        self._all: dict[str, Any] = {
            "splunk": _Hec(token=TOKEN).start(),
            "siem": _Syslog().start(),
            "hook": _Hook().start(),
        }

    def addresses(self) -> dict[str, str]:
        return {name: each.address for name, each in self._all.items()}

    def refuse(self, name: str) -> None:
        self._all[name].refuse()

    def hang(self, name: str) -> None:
        self._all[name].fail(Silence())

    def heal(self, name: str) -> None:
        self._all[name].heal()
        self._all[name].accept()

    def distinct(self) -> dict[str, int]:
        """How many different alerts came to each."""
        return {name: len(each.times) - each.times.count(0) for name, each in self._all.items()}

    def twice(self) -> dict[str, int]:
        """How many came again."""
        return {name: sum(each.times) - self.distinct()[name] for name, each in self._all.items()}

    def lacking(self, count: int) -> dict[str, list[int]]:
        """Of the first `count` alerts, those that did not come: some of them."""
        found = {}
        for name, each in self._all.items():
            lacks = (n for n in range(count) if n >= len(each.times) or not each.times[n])
            found[name] = [n for n, _ in zip(lacks, range(10), strict=False)]
        return found

    def seconds(self, since: int) -> dict[str, dict[int, Second]]:
        """What came in each whole second from `since` (epoch) on."""
        until = int(time.time())
        return {
            name: {at: each.seconds[at] for at in sorted([*each.seconds]) if since <= at < until}
            for name, each in self._all.items()
        }

    def stop(self) -> None:
        for each in self._all.values():
            each.stop()


class _Elsewhere(BaseManager):
    pass


_Elsewhere.register("Traffic", Traffic)
_Elsewhere.register("Receivers", Receivers)


def elsewhere() -> Any:
    """A new process: `with elsewhere() as there: there.Traffic(…)` lives in it."""
    manager = _Elsewhere(ctx=multiprocessing.get_context("spawn"))
    manager.start(initializer=gc.disable)
    return manager
