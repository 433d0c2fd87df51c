"""Which Beam runner runs the pipeline, chosen by name and said aloud.

`DirectRunner` here is Beam's in-process FnApiRunner, made by us: Beam's own switch of that name
tries Prism first, then falls back silently, and Prism loses elements (docs/adr/0003).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["RUNNERS", "Choice", "RunnerError", "beside", "choose", "known", "sample_often"]

RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner")

_SAMPLED_MS = 10


class RunnerError(ValueError):
    """A runner that does not exist here."""

    exit_code = 2


class Choice(NamedTuple):
    """A runner, and why it is this one."""

    runner: Any
    says: str


def known(name: str) -> str:
    """The name, if it is a runner's. Raises RunnerError."""
    if name not in RUNNERS:
        raise RunnerError(f"there is no runner {name!r} here; there is {', '.join(RUNNERS)}")
    return name


def choose(name: str) -> Choice:
    """The runner of that name, in this process. Raises RunnerError."""
    known(name)
    if name != "DirectRunner":
        raise RunnerError(f"{name} does not do this: leave out --runner")
    return Choice(
        _fn_api_runner(),
        "DirectRunner: Beam's FnApiRunner in this process, streaming in shifts "
        "(not Beam's own switch of that name, which may pick Prism)",
    )


def beside(
    pipeline: Any, name: str, counts: Counter[str]
) -> tuple[threading.Thread, list[BaseException]]:
    """A thread, to be started, that runs the pipeline to its end and adds what its steps counted;
    and why it failed, if it did: to be told in the right thread."""
    from apache_beam.metrics.metric import MetricResults, MetricsFilter

    failed: list[BaseException] = []

    def work() -> None:
        try:
            result = pipeline.run()
            result.wait_until_finish()
            ours = MetricsFilter().with_namespace("alertbeam")  # runners count things of their own
            counters = result.metrics().query(ours)[MetricResults.COUNTERS]
            counts.update({c.key.metric.name: c.result or 0 for c in counters})
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    return threading.Thread(target=work, name=name, daemon=True), failed


def _fn_api_runner() -> Any:
    """Beam's FnApiRunner without four habits that its own short pipelines never notice, but that
    a stream of many small bundles does: they cost 20 ms and 30 KB a bundle (docs/adr/0003).
    """
    from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
    from apache_beam.runners.worker.bundle_processor import BundleProcessor

    # State is cached for one bundle, and every entry weighed by a walk through all modules.
    worker_handlers.STATE_CACHE_SIZE_MB = 0
    # Each bundle reports times and sizes of every step, which nobody here reads.
    BundleProcessor.monitoring_infos = _own_metrics
    # Reports are chained, not added up: kept for ever, and too deep to be read after 1,000.
    fn_runner.consolidate_monitoring_infos = _added_up
    sample_often()
    return fn_runner.FnApiRunner()


def sample_often() -> None:
    """Do not let the end of a bundle wait for Beam's sampler of its steps' times: that sleeps for
    up to 200 ms at a time, on average a tenth of the bundle's own time."""
    from apache_beam.runners.worker.statesampler import StateSampler

    StateSampler.__init__.__defaults__ = (_SAMPLED_MS,)  # no option leads there


def _own_metrics(processor: Any) -> list[Any]:
    """What the DoFns of a bundle counted."""
    found = (op.user_monitoring_infos(step) for step, op in processor.ops.items())
    return [info for infos in found for info in infos.values()]


def _added_up(infos: Iterable[Any]) -> list[Any]:
    """One metric of each name and step."""
    from apache_beam.metrics.monitoring_infos import consolidate

    return list(consolidate(infos))
