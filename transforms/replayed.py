"""What a replay takes of what it reads: the alerts of a stretch of time, marked as replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import msgspec

from schemas.alert import Alert
from schemas.batch import AlertBatch, Dropped
from schemas.receipt import Outcome
from transforms import coders

__all__ = ["TakeReplayed", "Taken", "take_batch", "taken"]

_NEVER = 2**62


class Taken(NamedTuple):
    """Which alerts a replay is about: those from `start_ms` on, and before `stop_ms`.

    by: `event`, when it happened; `enqueued`, when it came to the hub.
    """

    name: str
    start_ms: int | None = None
    stop_ms: int | None = None
    by: Literal["event", "enqueued"] = "event"


def taken(alert: Alert, what: Taken) -> bool:
    """Whether the replay is about this alert."""
    at = alert.event_ms if what.by == "event" else alert.enqueued_ms
    return (what.start_ms or 0) <= at < (what.stop_ms or _NEVER)


def take_batch(batch: AlertBatch, what: Taken) -> AlertBatch:
    """The batch, its alerts marked as replayed; those of another time are not routed."""
    for alert in batch.alerts:
        alert.replay = what.name
    if what.start_ms is None and what.stop_ms is None:
        return batch
    kept = [alert for alert in batch.alerts if taken(alert, what)]
    if len(kept) == len(batch.alerts):
        return batch
    others = [
        Dropped(alert.sequence, alert.index, Outcome.NOT_ROUTED)
        for alert in batch.alerts
        if not taken(alert, what)
    ]
    return msgspec.structs.replace(batch, alerts=kept, dropped=batch.dropped + others)


class _Take(beam.DoFn):
    def __init__(self, what: Taken) -> None:
        self._what = what

    def process(self, batch: AlertBatch) -> Iterator[AlertBatch]:
        yield take_batch(batch, self._what)


class TakeReplayed(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]`: what the replay is about."""

    def __init__(self, what: Taken) -> None:
        super().__init__()
        self._take = _Take(what)

    def expand(self, batches: Any) -> Any:
        return batches | "Choose" >> beam.ParDo(self._take).with_output_types(AlertBatch)


coders.register()
