"""Beam's tax: the forwarding graph on the local runner against the same functions in a loop."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from benchmarks.alerts import SUBSCRIBED, batches, bodies
from benchmarks.figures import Figure
from benchmarks.nowhere import sinks
from pipelines.runners import choose
from schemas.batch import AlertBatch, Batch
from schemas.ledger import Ledger
from transforms.account import Account
from transforms.deduplicate import Deduplicate, Seen, deduplicate_batch
from transforms.delivery.engines import close_all, engine_for
from transforms.enrich import enrich_batch
from transforms.parse import parse_batch
from transforms.route import compile_where, route_batch
from transforms.state_store import StateStore
from transforms.steps import Enrich, Parse, Route
from transforms.write import WriteTo, parcels, receipt

__all__ = ["tax"]

_ALERTS = 100_000
_BATCH = 200
_ROUNDS = 5
_HORIZON_MS = 24 * 3600 * 1000

_held: list[Batch] = []


class _Held(beam.DoFn):
    """What the background reader is to the real source: batches that lie in memory."""

    def process(self, span: tuple[int, int]) -> Iterator[Batch]:
        yield from _held[slice(*span)]


class _Encode(beam.DoFn):
    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def process(self, batch: AlertBatch) -> None:
        parcels(self._sink, batch, -1)


def _with_beam(folder: str, count: int, deliver: bool) -> None:
    run, store = uuid.uuid4().hex, StateStore(folder)
    pipeline = beam.Pipeline(runner=choose("DirectRunner").runner)
    alerts = (
        pipeline
        | beam.Create([(0, count)], reshuffle=False)
        | beam.ParDo(_Held()).with_output_types(Batch)
        | Parse(store)
        | Deduplicate(_HORIZON_MS, 1, run, store)
        | Enrich(SUBSCRIBED)
    )
    made = sinks()
    names = [sink.name for sink in made]
    for sink in made:
        routed = alerts | f"Route to {sink.name}" >> Route(sink.name, None)
        if deliver:
            receipts = routed | f"Write to {sink.name}" >> WriteTo(sink, run, store)
            _ = receipts | f"Account for {sink.name}" >> Account(sink.name, names, store)
        else:
            _ = routed | f"Encode for {sink.name}" >> beam.ParDo(_Encode(sink))
    pipeline.run().wait_until_finish()
    close_all(run)


def _in_a_loop(folder: str, count: int, deliver: bool) -> None:
    run = uuid.uuid4().hex
    seen = Seen(_HORIZON_MS)
    made = sinks()
    predicates = {sink.name: compile_where(None) for sink in made}
    ledgers = {sink.name: Ledger(-1) for sink in made}
    sent: dict[str, list[Any]] = {sink.name: [] for sink in made}
    for batch in _held[:count]:
        parsed, _ = parse_batch(batch)
        seen.turn(max((alert.enqueued_ms for alert in parsed.alerts), default=0))
        fresh, _ = deduplicate_batch(parsed, seen)
        alerts = enrich_batch(fresh, SUBSCRIBED)
        for sink in made:
            routed = route_batch(alerts, sink.name, predicates[sink.name])
            assert routed is not None
            encoded = parcels(sink, routed, -1)
            if deliver:
                engine_for(sink, run).submit(encoded)
                sent[sink.name].append((routed, encoded))
    if deliver:
        for sink in made:
            engine_for(sink, run).settle()
            for routed, encoded in sent[sink.name]:
                ledgers[sink.name].add(receipt(sink.name, routed, encoded, -1))
                ledgers[sink.name].advance()
        close_all(run)


def _timed(
    work: Callable[[str, int, bool], None], count: int, deliver: bool
) -> tuple[float, float]:
    """Seconds on the clock, and of the processor's."""
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        work(folder, count, deliver)
        return time.perf_counter() - began, time.process_time() - cpu


def tax() -> list[Figure]:
    """Medians of interleaved rounds on one core."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(everywhere)})
    _held[:] = batches(bodies(_ALERTS), _BATCH)
    found = []
    try:
        for deliver in (False, True):
            what = "parse to receipts" if deliver else "parse to encode"
            _timed(_with_beam, 5, deliver)  # what the first time loads
            _timed(_in_a_loop, 5, deliver)
            rounds = []
            for number in range(_ROUNDS):
                graph = _timed(_with_beam, len(_held), deliver) if number % 2 else None
                loop = _timed(_in_a_loop, len(_held), deliver)
                graph = graph or _timed(_with_beam, len(_held), deliver)
                start, _ = _timed(_with_beam, 0, deliver)
                rounds.append((loop[0], graph[0], start, loop[0] / graph[0], loop[1] / graph[1]))
            alone, beamed, start, ratio, of_cpu = map(statistics.median, zip(*rounds, strict=True))
            found += [
                Figure(f"{what}, loop", _ALERTS / alone, "alerts/s"),
                Figure(f"{what}, Beam", _ALERTS / beamed, "alerts/s"),
                Figure(f"{what}, Beam / loop, by the clock", ratio, ""),
                Figure(f"{what}, Beam / loop, by CPU time", of_cpu, ""),
                Figure(f"{what}, of Beam's time its start", start, "s"),
            ]
    finally:
        os.sched_setaffinity(0, everywhere)
        _held.clear()
    return found
