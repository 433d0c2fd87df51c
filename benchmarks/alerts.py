"""Alerts to measure with: Defender alerts of about 2.4 KB, made quickly, some of them repeats."""

from __future__ import annotations

import datetime
import json
import random
import time

from pipelines.local.events import SUBSCRIPTIONS, defender_alert
from schemas.alert import Subscription
from schemas.batch import Batch, Origin, Record

__all__ = ["ORIGIN", "SUBSCRIBED", "batches", "bodies"]

ORIGIN = Origin("contoso.servicebus.windows.net/defender/$Default", "0")
SUBSCRIBED = {
    identity: Subscription(identity, name, owner, environment)
    for identity, (name, owner, environment) in SUBSCRIPTIONS.items()
}

_SHAPES = 400


def bodies(count: int, repeats: float = 0.1, seed: int = 1) -> list[bytes]:
    """Of a few hundred shapes, each with its own id; a share of `repeats` came shortly before."""
    rng = random.Random(seed)
    now = datetime.datetime.now(datetime.timezone.utc)
    shapes = []
    for _ in range(_SHAPES):
        alert = defender_alert(rng, now)
        identity = alert["SystemAlertId"].encode()
        shapes.append((json.dumps(alert, separators=(",", ":")).encode(), identity))
    made: list[bytes] = []
    for number in range(count):
        if made and rng.random() < repeats:
            made.append(made[-rng.randrange(1, min(len(made), 2000) + 1)])
        else:
            body, identity = shapes[number % _SHAPES]
            made.append(body.replace(identity, b"%b%08d" % (identity[:-8], number)))
    return made


def batches(made: list[bytes], size: int) -> list[Batch]:
    """The bodies as they come from one partition, `size` at a time, ten in a millisecond."""
    now = int(time.time() * 1000)
    return [
        Batch(
            ORIGIN,
            first,
            first + len(part) - 1,
            None,
            [Record(first + at, 0, now + (first + at) // 10, body) for at, body in enumerate(part)],
        )
        for first in range(0, len(made), size)
        if (part := made[first : first + size])
    ]
