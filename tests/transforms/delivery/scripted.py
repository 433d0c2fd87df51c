"""A system whose every answer a test decides, and what tests of the engine share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

from schemas.alert import Alert
from schemas.receipt import Outcome
from transforms.delivery.engine import Engine
from transforms.delivery.parcel import Parcel
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Rate,
    RejectItems,
    Sink,
    SinkSettings,
    Verdict,
)

Answer = Callable[[Sequence[bytes]], Verdict]


class Scripted(Sink[SinkSettings]):
    """A system whose every answer a test decides; `taken` is what it holds."""

    kind = "scripted"
    Settings = SinkSettings

    def __init__(
        self,
        answer: Answer = lambda payloads: Accepted(),
        *,
        patience: float = 0.4,
        timeout: float = 5.0,
        concurrency: int = 1,
        max_bytes: int = 1000,
        max_records: int = 100,
        name: str = "siem",
        max_record_bytes: int | None = None,
        rate: Rate | None = None,
    ) -> None:
        super().__init__(
            name,
            SinkSettings(
                patience=patience, timeout=timeout, concurrency=concurrency, rate=rate or Rate()
            ),
        )
        self._limits = Limits(max_bytes, max_records, max_record_bytes)
        self.confirmed: dict[Hashable, Verdict] = {}  # what `confirm` tells of, once
        self.shorter: bytes | None = None  # what a record is said as, if it is too large
        self.answer = answer
        self.up = threading.Event()  # what the probe finds
        self.up.set()
        self.requests: list[list[bytes]] = []
        self.times: list[float] = []
        self.taken: list[bytes] = []
        self.timeouts: list[float] = []
        self.opened = 0
        self.closed = 0
        self.probes = 0
        self.threads: set[str] = set()
        self.idle_after: float | None = None
        self.idles = 0

    @property
    def limits(self) -> Limits:
        return self._limits

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return alert.raw

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        return self.shorter

    def connect(self) -> Connection:
        self.opened += 1
        return ScriptedConnection(self)

    def probe(self, timeout: float) -> None:
        self.probes += 1
        if not self.up.is_set():
            raise ConnectionRefusedError("still down")


class ScriptedConnection(Connection):
    def __init__(self, sink: Scripted) -> None:
        self.sink = sink

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        sink = self.sink
        sink.requests.append(list(payloads))
        sink.times.append(time.monotonic())
        sink.timeouts.append(timeout)
        sink.threads.add(threading.current_thread().name)
        verdict = sink.answer(payloads)
        if isinstance(verdict, Accepted):
            sink.taken.extend(payloads)
        elif isinstance(verdict, RejectItems) and verdict.taken:
            out = {*verdict.reasons, *verdict.again}
            sink.taken.extend(p for i, p in enumerate(payloads) if i not in out)
        return verdict

    def confirm(self, timeout: float) -> Mapping[Hashable, Verdict]:
        found, self.sink.confirmed = self.sink.confirmed, {}
        return found

    def idle(self) -> float | None:
        self.sink.idles += 1
        return self.sink.idle_after

    def close(self) -> None:
        self.sink.closed += 1


def parcels(count: int, size: int = 10, start: int = 0) -> list[Parcel]:
    return [Parcel(n, 0, b"%0*d" % (size, n)) for n in range(start, start + count)]


def deliver(engine: Engine, sent: list[Parcel]) -> list[Outcome | None]:
    engine.submit(sent)
    engine.settle()
    return [parcel.outcome for parcel in sent]


def answers(*verdicts: Verdict | Exception, then: Verdict | Exception | None = None) -> Answer:
    """These, one a request; afterwards `then` (accepted, if not given)."""
    left = list(verdicts)

    def answer(payloads: Sequence[bytes]) -> Verdict:
        verdict = left.pop(0) if left else (then or Accepted())
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return answer


def eventually(check: Callable[[], bool], within: float = 3.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)
