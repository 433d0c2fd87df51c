"""What measuring costs: the forwarding graph with its metrics told to Beam and Prometheus, against
the same without."""

from __future__ import annotations

import os
import statistics
import tempfile
import time

from benchmarks import tax
from benchmarks.alerts import batches, bodies
from benchmarks.figures import Figure
from transforms import metrics

__all__ = ["measures"]

_ALERTS = 100_000
_BATCH = 200
_ROUNDS = 7
_CALLS = 100_000


def measures() -> list[Figure]:
    """Medians of interleaved rounds on one core. Once measured, this process does for good."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(everywhere)})
    tax._held[:] = batches(bodies(_ALERTS), _BATCH)
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[metrics.FOLDER] = folder
            rounds = []
            for number in range(_ROUNDS + 1):
                took = {}
                for on in sorted((False, True), reverse=number % 2 == 0):
                    metrics._on = on
                    took[on] = tax._timed(tax._with_beam, len(tax._held), True)[1]
                rounds.append((took[True] / _ALERTS, took[True] / took[False]))
            cost, ratio = map(statistics.median, zip(*rounds[1:], strict=True))  # the first: loads
            return [
                Figure("parse to receipts, measured", cost * 1e6, "µs an alert"),
                Figure("measured / not, by CPU time", ratio, ""),
                Figure("a call, told to Prometheus", _call(True), "µs"),
                Figure("a call, off", _call(False), "µs"),
            ]
    finally:
        metrics._on = False
        os.environ.pop(metrics.FOLDER, None)
        os.sched_setaffinity(0, everywhere)
        tax._held.clear()


def _call(on: bool) -> float:
    metrics._on = on
    began = time.process_time()
    for _ in range(_CALLS):
        metrics.SENT.add(200, "splunk", "delivered")
    return (time.process_time() - began) / _CALLS * 1e6
