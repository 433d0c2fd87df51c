"""A replay on Spark, or bounded on Flink: where it runs, how it is submitted, what went wrong.

Source: Apache Beam, "Using the Apache Spark Runner" (portable), "Using the Apache Flink Runner";
Spark, "Master URLs".
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipelines.cluster.job_server import EMBEDDED, Engine, jar, serving
from pipelines.cluster.trouble import explain, told
from pipelines.cluster.worker_pool import Address, WorkerPool
from transforms.delivery.line import printable

__all__ = ["BOUNDED", "Cluster", "ClusterError", "bounded", "explained", "master", "trouble"]

BOUNDED: dict[str, Engine] = {"SparkRunner": "spark", "FlinkRunner": "flink"}
"""The runners of clusters, and their engines."""

_LOCAL = re.compile(r"local(\[(\d+|\*)\])?")
_ADDRESS = re.compile(r"(spark://)?[^\s/:\[\]]+:\d{1,5}(,[^\s/:\[\]]+:\d{1,5})*")
_READERS = 4  # at once, on a cluster of which nobody said more
_WORKERS = "127.0.0.1:50000"  # the pool beside each of the cluster's own workers
_RAISED = re.compile(
    r"^(?:[\w.]+\.)?(?:StorageError|SinksShutError|HistoryError): (.+)$", re.MULTILINE
)
# As Spark 3.5 says it.
_TROUBLES = {
    "All masters are unresponsive": "no Spark master answers there: is that the address of its "
    "spark:// URL, and is it Spark 3.5?",
    "Master removed our application": "Spark's workers could not start executors: their logs say "
    "why; is there Java 17, and SPARK_HOME?",
    "Initial job has not accepted any resources": "Spark has no worker free for this: are any "
    "registered with its master, with cores and memory left?",
}
_MOST_LOG = 1024 * 1024
_STEP = re.compile(r" \[while running '[^']*'\]")


class ClusterError(Exception):
    """It cannot be submitted; the message says why."""

    exit_code = 2


class Cluster(NamedTuple):
    """Where bounded jobs run. readers: how many read at once. says: in a line, for people. log: the
    job server's."""

    readers: int
    says: str
    pipeline: Callable[[], beam.Pipeline]
    log: Path | None = None


def master(engine: Engine, cluster: str) -> str:
    """The engine's name for a cluster that is called `local`, `local[2]` or `host:port`. Raises
    ClusterError."""
    if local := _LOCAL.fullmatch(cluster):
        if engine == "flink":
            return EMBEDDED
        return f"local[{local[2] or '*'}]"
    if not _ADDRESS.fullmatch(cluster):
        raise ClusterError(f"{printable(cluster)!r} is no cluster: say local, local[2], host:port")
    return cluster if engine == "flink" or "://" in cluster else f"spark://{cluster}"


@contextlib.contextmanager
def bounded(
    runner: str,
    cluster: str,
    folder: Path,
    *,
    name: str,
    job_server_jar: Path | None = None,
    parallelism: int | None = None,
    options: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Iterator[Cluster]:
    """Somewhere to run bounded jobs, one after another, for as long as the `with` lasts.

    folder: the state store's. options: Beam's, which go over the ones that are chosen here. Raises
    ClusterError, JobServerError.
    """
    engine = BOUNDED[runner]
    where = master(engine, cluster)
    local = _LOCAL.fullmatch(cluster)
    readers = parallelism or _READERS
    if local and not parallelism:
        readers = int(local[2]) if (local[2] or "*") != "*" else os.cpu_count() or 1
    chosen = [f"--job_name={name}", "--environment_type=EXTERNAL"]
    if engine == "flink":
        chosen.append(f"--parallelism={readers}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        if local:  # a process for each reader, so that they share no interpreter
            pool = stack.enter_context(WorkerPool(Address("127.0.0.1", 0)))
            stack.enter_context(_watched(pool))
            chosen += [f"--environment_config={pool.listen}", f"--sdk_worker_parallelism={readers}"]
        else:
            chosen.append(f"--environment_config={_WORKERS}")
        found = jar(engine, job_server_jar, say)
        conf = _conf(engine, readers, bool(local))
        server = stack.enter_context(serving(engine, where, found, folder / engine, say, conf))
        flags = [*chosen, *options, f"--job_endpoint={server.endpoint}"]

        def pipeline() -> beam.Pipeline:
            # Not the engine's own runner, which would start a job server of its own.
            return beam.Pipeline(runner=PortableRunner(), options=PipelineOptions(flags))

        place = "on this machine" if local else f"on {where}"
        says = f"{engine.capitalize()} {place}, {readers} readers at once"
        yield Cluster(readers, says, pipeline, server.log)


@contextlib.contextmanager
def _watched(pool: WorkerPool) -> Iterator[None]:
    watching = threading.Thread(target=pool.watch, name="worker pool", daemon=True)
    watching.start()
    try:
        yield
    finally:
        pool.stop()
        watching.join()


def _conf(engine: Engine, readers: int, local: bool) -> dict[str, str]:
    if engine == "flink":
        return {"taskmanager.numberOfTaskSlots": str(readers)} if local else {}
    conf = {
        "spark.default.parallelism": str(readers),  # partitions of what is grouped
        # A task that is tried again reads on behind what is spooled; two at once would send twice.
        "spark.speculation": "false",
    }
    return {**conf, "spark.ui.enabled": "false"} if local else conf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Beam prints Java's stack traces by the root logger; they are in the job server's log."""

    def others(record: logging.LogRecord) -> bool:
        return record.module != "portable_runner"

    root = logging.getLogger()
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)


def trouble(log: Path | None) -> str:
    """What Spark's driver says in its log that is usually wrong, and what to do; "": nothing."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_LOG))
        said = file.read().decode(errors="replace")
    return next((why for text, why in _TROUBLES.items() if text in said), "")


def explained(error: BaseException, log: Path | None = None) -> str:
    """What a job says that failed, in a line: what its reader raised, or what is usual; else where
    more is said."""
    text = str(error)
    if raised := _RAISED.findall(text):
        return printable(_STEP.sub("", raised[-1]))[:500]
    if known := trouble(log) or explain(text):
        return known
    said = told(_STEP.sub("", text)) or type(error).__name__
    return f"{said}; what the job server said: {printable(str(log))}" if log else said
