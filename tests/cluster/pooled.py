"""What workers of a pool do in tests; they import it. `python -m tests.cluster.pooled ADDRESS WHAT
FOLDER` runs it: Beam's FnApiRunner, which asks the pool for workers as a TaskManager does."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import ExternalEnvironment

from tests.transforms.delivery.scripted import Scripted, ScriptedConnection, parcels
from transforms import metrics
from transforms.delivery.engines import engine_for
from transforms.read.reader import PartitionStatus
from transforms.sinks.base import Connection

SECRET = "4111-1111-1111-1111"
SOURCE = 'ns.example/hub "a"\\\n$Default'
ROUNDS = 50


class _Telltale(ScriptedConnection):
    """Leaves a file when it is closed."""

    def close(self) -> None:
        (self.sink.folder / "closed").touch()  # type: ignore[attr-defined]


class _Sink(Scripted):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def connect(self) -> Connection:
        return _Telltale(self)


class Hold(beam.DoFn):
    """Opens an engine, tells its process, and stays in the bundle until `go` is there."""

    def process(self, folder: str) -> Iterator[str]:
        engine = engine_for(_Sink(Path(folder)), "run")
        engine.submit(parcels(1))
        engine.settle()
        (Path(folder) / "worker.new").write_text(str(os.getpid()))
        (Path(folder) / "worker.new").rename(Path(folder) / "worker")
        while not (Path(folder) / "go").exists():
            time.sleep(0.05)
        yield folder


class Stuck(beam.DoFn):
    """Hangs, and takes no hint: its engine never closes."""

    def process(self, folder: str) -> None:
        sink = _Sink(Path(folder))
        never = threading.Event()
        sink.answer = lambda payloads: never.wait()  # type: ignore[assignment,return-value]
        engine_for(sink, "run").submit(parcels(1))
        (Path(folder) / "worker").write_text(str(os.getpid()))
        never.wait()


class Fail(beam.DoFn):
    def process(self, folder: str) -> None:
        raise ValueError(f"no number: {SECRET}\nand more of it")


class Count(beam.DoFn):
    """Measures as the pipeline does: a call a batch, in the thread of a bundle, and beside it."""

    def process(self, number: int) -> Iterator[int]:
        metrics.READ.add(number, SOURCE, str(number % 4))
        metrics.SENT.add(number, "siem", "delivered")
        metrics.SENT.add(0, "siem", "dead")
        metrics.DELIVERY.observe([0.1 * number] * number, "siem")
        metrics.READ_AT.set(1_700_000_000 + number, SOURCE, str(number % 4))
        yield number


class Pass(beam.DoFn):
    """A number a call, measured as an event read and a record delivered."""

    def process(self, pair: tuple[int, int]) -> None:
        metrics.READ.add(1, "hub", str(pair[0]))
        metrics.SENT.add(1, "siem", "delivered")
        metrics.DELIVERY.observe([0.2], "siem")
        metrics.stand([PartitionStatus("hub", str(pair[0]), 11, last_sequence=110)], {})


def hold(pipeline: beam.Pipeline, folder: str) -> None:
    pipeline | beam.Create([folder]) | beam.ParDo(Hold())


def stuck(pipeline: beam.Pipeline, folder: str) -> None:
    pipeline | beam.Create([folder]) | beam.ParDo(Stuck())


def fail(pipeline: beam.Pipeline, folder: str) -> None:
    pipeline | beam.Create([folder]) | beam.ParDo(Fail())


def count(pipeline: beam.Pipeline, folder: str) -> None:
    pipeline | beam.Create(range(1, ROUNDS + 1)) | beam.Reshuffle() | beam.ParDo(Count())


def run(address: str, build: Callable[[beam.Pipeline, str], Any], folder: str) -> Any:
    """The pipeline's result, once it ended."""
    runner = FnApiRunner(default_environment=ExternalEnvironment(address))
    pipeline = beam.Pipeline(runner=runner, options=PipelineOptions([]))
    build(pipeline, folder)
    result = pipeline.run()
    result.wait_until_finish()
    return result


if __name__ == "__main__":
    from tests.cluster import pooled  # the module that workers import, not this main one

    run(sys.argv[1], getattr(pooled, sys.argv[2]), sys.argv[3])
