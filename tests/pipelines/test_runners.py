"""The local runner: what our changes to Beam's own promise, and the parts of Beam they rest on."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricResults
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.worker import statecache
from apache_beam.runners.worker.bundle_processor import BundleProcessor
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.transforms.userstate import BagStateSpec
from apache_beam.utils.counters import CounterFactory

from pipelines.runners import RunnerError, choose

BUNDLES = 2_000


class _BundleByBundle(beam.DoFn, beam.transforms.core.RestrictionProvider):
    """Emits each number of the range in a bundle of its own."""

    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, element)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return int(restriction.size())

    @beam.DoFn.unbounded_per_element()
    def process(self, element: int, tracker: Any = beam.DoFn.RestrictionParam()) -> Iterator[Any]:
        at = tracker.current_restriction().start
        if tracker.try_claim(at):
            yield "key", at
            tracker.defer_remainder()


class _Count(beam.DoFn):
    SEEN = BagStateSpec("seen", BytesCoder())

    def process(self, element: tuple[str, int], seen: Any = beam.DoFn.StateParam(SEEN)) -> None:
        if element[1] % 100 == 0:
            assert len(list(seen.read())) == element[1]
        seen.add(b"x")
        Metrics.counter("test", "bundles").inc()


def test_counts_and_state_hold_over_thousands_of_bundles() -> None:
    with beam.Pipeline(runner=choose("DirectRunner").runner) as pipeline:
        _ = (
            pipeline
            | beam.Create([BUNDLES], reshuffle=False)
            | beam.ParDo(_BundleByBundle()).with_output_types(tuple[str, int])
            | beam.ParDo(_Count())
        )
    counters = pipeline.result.metrics().query()[MetricResults.COUNTERS]
    assert [(c.key.metric.name, c.result) for c in counters] == [("bundles", BUNDLES)]


def test_no_state_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    def weigh(*objects: object) -> int:
        raise AssertionError("the state cache is on")

    monkeypatch.setattr(statecache, "get_deep_size", weigh)
    with beam.Pipeline(runner=choose("DirectRunner").runner) as pipeline:
        _ = (
            pipeline
            | beam.Create([5], reshuffle=False)
            | beam.ParDo(_BundleByBundle()).with_output_types(tuple[str, int])
            | beam.ParDo(_Count())
        )


def test_beam_has_the_parts_that_are_changed() -> None:
    choose("DirectRunner")
    assert fn_runner.consolidate_monitoring_infos.__module__ == "pipelines.runners"
    assert (
        inspect.getsource(fn_runner.FnApiRunner.run_stages).count("consolidate_monitoring_infos(")
        == 2
    )
    assert BundleProcessor.monitoring_infos.__module__ == "pipelines.runners"
    cached = inspect.getsource(worker_handlers.EmbeddedWorkerHandler.__init__)
    assert "StateCache(STATE_CACHE_SIZE_MB" in cached


def test_the_end_of_a_bundle_hardly_waits_for_the_sampler_of_its_times() -> None:
    choose("DirectRunner")
    waited = []
    for _ in range(5):
        sampler = StateSampler("step", CounterFactory())
        sampler.start()
        time.sleep(0.5)
        began = time.perf_counter()
        sampler.stop()
        waited.append(time.perf_counter() - began)
    assert statistics.median(waited) < 0.02, "as it is, up to 0.1 s after half a second"
    assert "StateSampler(" in inspect.getsource(BundleProcessor.__init__)


def test_another_name_is_refused_and_those_there_are_told() -> None:
    with pytest.raises(RunnerError, match="there is DirectRunner"):
        choose("DirectRuner")


def test_direct_runner_is_the_one_in_this_process_and_says_so() -> None:
    runner, says = choose("DirectRunner")
    assert type(runner) is fn_runner.FnApiRunner
    assert says.startswith("DirectRunner: Beam's FnApiRunner in this process")


@pytest.mark.parametrize("name", ["", "directrunner", "PrismRunner", "FnApiRunner", "[red]"])
def test_a_name_is_taken_to_the_letter(name: str) -> None:
    with pytest.raises(RunnerError) as refused:
        choose(name)
    assert repr(name) in str(refused.value)
