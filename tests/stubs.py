"""Alerts, batches and a sink made up for tests. Beam pickles them by name: hence a module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field

from schemas.alert import Alert
from schemas.batch import AlertBatch, Batch, Dropped, Origin, Record
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Sink,
    SinkSettings,
    Verdict,
)

ORIGIN = Origin("ns.servicebus.windows.net/hub/$Default", "3")


def alert(sequence: int = 0, index: int = 0, **fields: Any) -> Alert:
    """An alert of its own identity, unless `key` says another."""
    fields = {
        "kind": "defender_alert",
        "key": f"{sequence:08d}{index:08d}".encode(),
        "entity": f"{sequence}.{index}",
        "title": f"alert {sequence}",
        "severity": "high",
        "event_ms": 1_000 + sequence,
        "enqueued_ms": 1_000 + sequence,
        "raw": b'{"n":%d.%d}' % (sequence, index),
        **fields,
    }
    return Alert(sequence=sequence, index=index, **fields)


def alerts(
    first: int,
    last: int,
    *,
    made: Sequence[Alert] | None = None,
    dropped: Sequence[Dropped] = (),
    only: str | None = None,
    origin: Origin = ORIGIN,
) -> AlertBatch:
    """A parsed batch: one alert an event, or those that are given."""
    inside = [alert(sequence) for sequence in range(first, last + 1)] if made is None else [*made]
    return AlertBatch(origin, first, last, only, len(inside) + len(dropped), inside, [*dropped])


def events(first: int, *bodies: bytes, origin: Origin = ORIGIN, only: str | None = None) -> Batch:
    """A batch as it is read."""
    records = [Record(first + n, 0, 1_000 + first + n, body) for n, body in enumerate(bodies)]
    return Batch(origin, first, first + len(bodies) - 1, only, records)


TAKEN: defaultdict[str, list[bytes]] = defaultdict(list)
"""What each stub sink was sent and took, by its name."""

ANSWERS: dict[str, Callable[[Sequence[bytes]], Verdict]] = {}
"""How a stub sink of that name answers; it accepts where nothing is said."""


class StubSettings(SinkSettings):
    patience: float = Field(0.3, gt=0)


class StubSink(Sink[StubSettings]):
    """Sends `raw` as it is. An alert titled "no" cannot be encoded; one titled "bug" shows one."""

    kind = "stub"
    Settings = StubSettings

    def __init__(self, name: str = "siem", settings: StubSettings | None = None) -> None:
        super().__init__(name, settings or StubSettings())

    @property
    def limits(self) -> Limits:
        return Limits(1 << 20, 10)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        if alert.title == "no":
            raise ValueError("it has\nno words")
        if alert.title == "bug":
            raise KeyError(alert.raw)
        return alert.raw

    def connect(self) -> Connection:
        return _StubConnection(self.name)

    def probe(self, timeout: float) -> None:
        raise OSError("it is not back")


class _StubConnection(Connection):
    def __init__(self, name: str) -> None:
        self._name = name

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        verdict = ANSWERS.get(self._name, lambda _: Accepted())(payloads)
        if isinstance(verdict, Accepted):
            TAKEN[self._name].extend(payloads)
        return verdict
