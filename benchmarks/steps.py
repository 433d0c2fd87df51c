"""What each step of the way costs an alert, by itself: so that a step that became slow is seen."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

from benchmarks.alerts import ORIGIN, SUBSCRIBED, batches, bodies
from benchmarks.figures import Figure
from benchmarks.nowhere import sinks
from pipelines.local.hub import amqp
from schemas.batch import AlertBatch, Batch
from schemas.formats.ndjson import ndjson
from schemas.ledger import Ledger
from schemas.receipt import Outcome
from transforms.deduplicate import Seen, deduplicate_batch
from transforms.delivery.engine import Engine
from transforms.delivery.http import compress
from transforms.delivery.parcel import Parcel
from transforms.enrich import enrich_batch
from transforms.parse import parse_batch
from transforms.read.frames import decode_message, decode_transfer
from transforms.route import Where, compile_where, route_batch
from transforms.write import receipt

__all__ = ["steps"]

_ALERTS = 10_000
_BATCH = 200
_ROUNDS = 7
_REQUEST = 370  # alerts: about 1 MB
_SETTLED_AT = 10  # batches, as a bundle has them
_HORIZON_MS = 24 * 3600 * 1000

T = TypeVar("T")


def steps() -> list[Figure]:
    """Medians of CPU time on one core, in the order in which an alert goes."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(everywhere)})
    try:
        return [
            Figure(name, statistics.median(took) / _ALERTS * 1e6, "µs an alert")
            for name, took in _measured().items()
        ]
    finally:
        os.sched_setaffinity(0, everywhere)


def _measured() -> dict[str, list[float]]:
    """CPU seconds of every round, by step."""
    made = bodies(_ALERTS)
    frames = [_transfer(number, body) for number, body in enumerate(made)]
    read = batches(made, _BATCH)
    took: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        _round(frames, read, took)
    return took


def _round(frames: list[bytes], read: list[Batch], took: dict[str, list[float]]) -> None:
    def timed(name: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        result = work()
        took.setdefault(name, []).append(time.process_time() - began)
        return result

    hec, cef = sinks()
    where = compile_where(Where.model_validate({"severity": {"at_least": "low"}}))
    source, partition = ORIGIN.source, ORIGIN.partition

    timed("read: decode frames", lambda: [_decoded(frame) for frame in frames])
    parsed = timed("parse", lambda: [parse_batch(batch)[0] for batch in read])
    fresh = timed("deduplicate", lambda: _deduplicated(parsed))
    alerts = timed("enrich", lambda: [enrich_batch(batch, SUBSCRIBED) for batch in fresh])
    timed("route", lambda: [route_batch(batch, "siem", where) for batch in alerts])
    flat = [alert for batch in alerts for alert in batch.alerts]
    said = timed("format: HEC", lambda: [hec.encode(a, source, partition) for a in flat])
    timed("format: CEF", lambda: [cef.encode(a, source, partition) for a in flat])
    timed(
        "format: NDJSON",
        lambda: [ndjson(alert, source=source, partition=partition) for alert in flat],
    )
    payload = iter(said)
    sent = [
        [Parcel(a.sequence, a.index, next(payload), a) for a in batch.alerts] for batch in alerts
    ]
    timed("deliver: submit and settle", lambda: _delivered(hec, sent))
    requests = [b"\n".join(said[at : at + _REQUEST]) for at in range(0, len(said), _REQUEST)]
    timed("deliver: gzip", lambda: [compress(request) for request in requests])
    timed("account: receipts and ledger", lambda: _accounted(alerts, sent))


def _transfer(number: int, body: bytes) -> bytes:
    """A frame's body as the service sends it where the runtime metric is asked for."""
    now = amqp.timestamp(int(time.time() * 1000))
    metric = {
        "last_enqueued_sequence_number": amqp.long(number + 1000),
        "last_enqueued_offset": amqp.string(str(number * 2800)),
        "last_enqueued_time_utc": now,
        "runtime_info_retrieval_time_utc": now,
    }
    own = {
        "x-opt-sequence-number": amqp.long(number),
        "x-opt-offset": amqp.string(str(number * 2700)),
        "x-opt-enqueued-time": now,
    }
    uint, tag = amqp.uint(number), amqp.binary(number.to_bytes(4, "big"))
    performative = amqp.composite(0x14, amqp.uint(0), uint, tag, amqp.uint(0), amqp.TRUE)
    return b"".join(
        (
            performative,
            b"\0\x53\x71" + amqp.mapping(metric, key=amqp.symbol),
            b"\0\x53\x72" + amqp.mapping(own, key=amqp.symbol),
            b"\0\x53\x75" + amqp.binary(body),
        )
    )


def _decoded(frame: bytes) -> Any:
    _, _, payload = decode_transfer(frame, 0)
    return decode_message(frame, payload, len(frame))


def _deduplicated(parsed: list[AlertBatch]) -> list[AlertBatch]:
    seen = Seen(_HORIZON_MS)
    fresh = []
    for batch in parsed:
        seen.turn(batch.alerts[-1].enqueued_ms)
        fresh.append(deduplicate_batch(batch, seen)[0])
    return fresh


def _delivered(sink: Any, sent: list[list[Parcel]]) -> None:
    engine = Engine(sink)
    for number, parcels in enumerate(sent, 1):
        engine.submit(parcels)
        if number % _SETTLED_AT == 0:
            engine.settle()
    engine.close()
    assert all(parcel.outcome is Outcome.DELIVERED for parcels in sent for parcel in parcels)


def _accounted(alerts: list[AlertBatch], sent: list[list[Parcel]]) -> None:
    ledger = Ledger(-1)
    for batch, parcels in zip(alerts, sent, strict=True):
        ledger.add(receipt("splunk", batch, parcels, -1))
        ledger.advance()
    assert ledger.records == _ALERTS
