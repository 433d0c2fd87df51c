"""Load for acceptance tests: unique alerts at a steady rate, and how long a sink gets nothing."""

from __future__ import annotations

import datetime
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from pipelines.local.events import defender_alert
from schemas.kinds import understand
from tests.site import HUB, Site

__all__ = ["Publisher", "Watch"]


class Publisher(threading.Thread):
    """`rate` unique alerts a second, `count` in all; remembers each one's id and severity."""

    def __init__(self, site: Site, rate: int, count: int) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.rate = rate
        self.count = count
        self.severity: dict[str, str] = {}
        self.began = 0.0  # monotonic

    def at(self, second: float) -> None:
        """Wait until so long after the beginning."""
        time.sleep(max(0.0, self.began + second - time.monotonic()))

    def run(self) -> None:
        rng = random.Random(7)
        now = datetime.datetime.now(datetime.timezone.utc)
        shapes = [defender_alert(rng, now) for _ in range(200)]
        bodies = [json.dumps(shape, separators=(",", ":")).encode() for shape in shapes]
        self.began = time.monotonic()
        for number in range(self.count // 20):
            batch = []
            for at in range(20):
                which = (number * 20 + at) % len(shapes)
                identity = shapes[which]["SystemAlertId"].encode()
                body = bodies[which].replace(identity, b"%s-%06d" % (identity, number * 20 + at))
                alert = understand(body)
                self.severity[alert.event_id] = alert.severity
                batch.append(body)
            self.site.hub.publish(HUB, batch)
            ahead = self.began + (number + 1) * 20 / self.rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


class Watch(threading.Thread):
    """The longest time in which a sink got nothing, but for times in which it had trouble of its
    own: while `trouble` is set, or the run says that its circuit is open, or it is behind."""

    def __init__(self, received: Callable[[], int], status: Callable[[], dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.received = received
        self.status = status
        self.longest = 0.0
        self.trouble = threading.Event()
        self.ended = threading.Event()

    def run(self) -> None:
        count, since = self.received(), time.monotonic()
        while not self.ended.wait(0.05):
            now = time.monotonic()
            if self.received() != count or self.trouble.is_set() or self._troubled():
                count, since = self.received(), now
            self.longest = max(self.longest, now - since)

    def _troubled(self) -> bool:
        status = self.status()
        return bool(status.get("behind")) or status.get("circuit") == "open"
