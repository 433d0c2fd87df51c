"""Jobs for tests of what Flink says of jobs: some that go well, some that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.userstate import BagStateSpec

from tests.engines.jobs import _Count
from transforms.secrets import SecretRef
from transforms.state_store import StateStore

__all__ = ["Fails", "Hoards", "Measures", "lanes"]


def lanes(pipeline: beam.Pipeline, count: int = 4) -> beam.PCollection[tuple[int, int]]:
    """Numbers, counted on for ever, in so many lanes."""
    return pipeline | "Lanes" >> beam.Create(range(count)) | "Count" >> beam.ParDo(_Count())


class Measures(beam.DoFn):
    """Tells Beam what `transforms/metrics.py` tells it: names with labels, as Flink gets them."""

    def process(self, pair: tuple[int, int]) -> Iterator[tuple[int, int]]:
        where = f"ns.example/h/_Default:{pair[0]}"
        Metrics.counter("alertbeam", f"read_events:{where}").inc()
        Metrics.gauge("alertbeam", f"lag_events:{where}").set(10 + pair[0])
        Metrics.distribution("alertbeam", "delivery_seconds:my_siem").update(7)
        yield pair


class Hoards(beam.DoFn):
    """Keeps so many bytes of state."""

    KEPT = BagStateSpec("kept", BytesCoder())

    def __init__(self, size: int) -> None:
        self._size = size

    def process(self, pair: tuple[int, int], kept: Any = beam.DoFn.StateParam(KEPT)) -> None:
        if pair[1] == 0:
            kept.add(bytes(self._size))


class Fails(beam.DoFn):
    """Fails on the worker, as the real steps do where a worker lacks what they need."""

    def __init__(self, how: str, what: str = "") -> None:
        self._how = how
        self._what = what

    def setup(self) -> None:
        if self._how == "secret":
            SecretRef(self._what).resolve()

    def process(self, pair: tuple[int, int]) -> None:
        if self._how == "state":
            StateStore(self._what).prepare()
        if self._how == "bug":
            raise ValueError("the odd\none")
