"""Submits the streaming pipeline to Flink: a standing cluster, an embedded one, or into a jar.

Beam's job server (`job_server.py`) makes a Flink job of the graph. On a standing cluster the job
stays when this process goes; workers are a pool beside each TaskManager. An embedded Flink lives in
the job server, and its workers in this process.

Source of the options: Apache Beam, "Flink Pipeline Options"; which of them are good ones, and which
traps are between: docs/run-on-flink.md.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cluster.flink import Flink, FlinkError
from pipelines.cluster.hand_out import HandOut
from pipelines.cluster.job_server import EMBEDDED, JobServer, serving, workers_here
from pipelines.cluster.job_server import jar as jar_of
from pipelines.cluster.trouble import in_log, told
from pipelines.forward import Cluster, accounts, forward
from pipelines.hubs import Hubs
from pipelines.positions import From
from pipelines.settings import Settings
from schemas.alert import Subscription
from transforms import metrics
from transforms.delivery.engines import close_all
from transforms.delivery.line import printable
from transforms.enrich import load_subscriptions
from transforms.read.on_cluster import ReadPartitions
from transforms.read.payer import close_payer
from transforms.read.reader import close_session
from transforms.spread import GROUPS
from transforms.state_store import StateStore, place
from transforms.workers import drain, drained

__all__ = [
    "CHECKPOINT_SECONDS",
    "LOCAL",
    "Submitted",
    "embedded",
    "graph",
    "prepare",
    "stop_drained",
    "submit",
]

LOCAL = "local"
"""The cluster's name that means: an embedded one."""

WORKERS = "127.0.0.1:50000"
"""Where each TaskManager finds its pool of workers, unless `--environment_config` says another."""

CHECKPOINT_SECONDS = 10
"""From one of Flink's checkpoints to the next; positions settle in the state store meanwhile."""

_BUNDLE_MILLIS = 100  # a bundle lasts that long, however little is in it
_SEEN_SECONDS = 120.0  # until a job that was submitted is seen on its cluster
_FOR_EVER = str(2**31 - 1)


class Submitted(NamedTuple):
    """A job that was submitted. job_id: Flink's; "" where it is none's yet. rest: its REST API and
    web UI. run: how its workers call it."""

    job_id: str
    name: str
    rest: str
    run: str = ""


def stop_drained(
    client: Flink, job_id: str, store: StateStore, run: str, seconds: float = 120.0
) -> str:
    """Stop a job once it reads no more, so that all of its windows fire; the savepoint that its
    last checkpoint is. Raises FlinkError."""
    drain(store, run)
    until = time.monotonic() + seconds
    while not drained(store, run):
        if time.monotonic() > until:
            raise FlinkError(f"its workers still read after {seconds:.0f} s: it goes on draining")
        time.sleep(0.5)
    return client.stop(job_id)


def prepare(
    settings: Settings, start: From | None = None, say: Callable[[str], None] = print
) -> None:
    """Check the state folder and every hub, and settle where each partition begins, so that what is
    wrong is told here and not on a worker. Raises RunError, StateStoreError."""
    store = StateStore(str(settings.state))
    store.prepare()
    with store.lock("run"):
        Hubs(settings.sources, store, accounts(settings), start=start, say=say).look(first=True)


def graph(pipeline: beam.Pipeline, settings: Settings, run: str, parallelism: int) -> None:
    """Add the streaming graph to `pipeline`, for a cluster."""
    subscriptions: dict[str, Subscription] = {}
    if settings.subscriptions is not None:
        subscriptions = dict(load_subscriptions(settings.subscriptions.file))
    store = StateStore(str(settings.state))
    read = _Read(settings, run, store)
    forward(pipeline, read, settings, subscriptions, run, cluster=Cluster(2 * parallelism))


class _Read(beam.PTransform):
    def __init__(self, settings: Settings, run: str, store: StateStore) -> None:
        super().__init__()
        marks = settings.deduplicate.scope != "off"
        self._hand_out = HandOut(settings, run, marks)
        self._read = ReadPartitions(run, accounts(settings), store)

    def expand(self, begin: Any) -> Any:
        return begin | "Partitions" >> self._hand_out | "Events" >> self._read


def submit(
    settings: Settings,
    settings_path: Path,
    *,
    cluster: str,
    name: str,
    parallelism: int | None = None,
    savepoint: str = "",
    allow_non_restored: bool = False,
    job_server_jar: Path | None = None,
    options: Sequence[str] = (),
    output_jar: Path | None = None,
    say: Callable[[str], None] = print,
) -> Submitted:
    """Submit the job to a standing cluster, or write it into a jar.

    cluster: `host:port` of the JobManager's REST API. options: Beam's and Flink's, after ours.
    Returns when the cluster has the job; whether it works is asked for by
    `flink.wait_until_working`. Raises FlinkError, JobServerError.
    """
    store = StateStore(str(settings.state))
    given = ["--environment_type=EXTERNAL", f"--environment_config={WORKERS}"]
    if savepoint:
        given.append(f"--savepoint_path={savepoint}")
    if allow_non_restored:
        given.append("--allow_non_restored_state")
    if output_jar is not None:
        given.append(f"--output_executable_path={output_jar.absolute()}")
    flags = [*_flags(name, parallelism), *given, *options]
    sinks = ", ".join(accounts(settings))
    say(f"job {printable(name)} of {printable(str(settings_path))}, to {sinks}")
    known: set[str] = set()
    if output_jar is None:
        client = Flink(cluster)
        known = {job.id for job in client.jobs()}
    with serving(
        "flink", cluster, jar_of("flink", job_server_jar, say), _folder(store, name), say
    ) as server:
        run = uuid.uuid4().hex
        result = _run(settings, run, server, flags)
        if output_jar is not None:
            result.wait_until_finish()
            return Submitted("", name, "")
        return Submitted(_seen(client, name, known, result, server), name, client.url, run)


def _seen(client: Flink, name: str, known: set[str], result: Any, server: JobServer) -> str:
    """The job that was not there before."""
    until, problem = time.monotonic() + _SEEN_SECONDS, ""
    while time.monotonic() < until and result.state not in ("FAILED", "CANCELLED"):
        try:
            for job in client.jobs():
                if job.name == name and job.id not in known:
                    return job.id
        except FlinkError as error:  # an embedded one begins with its job
            problem = f": {error}"
        time.sleep(0.5)
    said = told(in_log(server.log.read_text(encoding="utf-8", errors="replace")))
    raise FlinkError(
        f"{printable(name)} could not be submitted: {said or f'see {server.log}'}{problem}"
    )


@contextlib.contextmanager
def embedded(
    settings: Settings,
    *,
    name: str,
    parallelism: int | None = None,
    savepoint: str = "",
    job_server_jar: Path | None = None,
    options: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Iterator[Submitted]:
    """The job on an embedded Flink, with its workers in this process, as long as the `with` lasts.

    Its checkpoints and savepoints lie under the state folder.
    """
    store, run = StateStore(str(settings.state)), uuid.uuid4().hex
    folder = _folder(store, name)
    slots = parallelism or 2
    conf = {
        "taskmanager.numberOfTaskSlots": str(slots),
        "taskmanager.memory.managed.size": "64m",
        "state.checkpoints.dir": (folder / "checkpoints").absolute().as_uri(),
        "state.savepoints.dir": (folder / "savepoints").absolute().as_uri(),
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": _FOR_EVER,
        "restart-strategy.fixed-delay.delay": "2 s",
    }
    jar = jar_of("flink", job_server_jar, say)
    metrics.start()
    with serving("flink", EMBEDDED, jar, folder, say, conf) as server, workers_here() as workers:
        flags = [*_flags(name, slots), *workers, *options]
        if savepoint:
            flags.append(f"--savepoint_path={savepoint}")
        try:
            result = _run(settings, run, server, flags)
            job = _seen(Flink(server.rest), name, set(), result, server)
            yield Submitted(job, name, server.rest, run)
        finally:
            close_payer(run)
            close_session(run)
            close_all(run)


def _run(settings: Settings, run: str, server: JobServer, flags: Sequence[str]) -> Any:
    # Flink's own options are unknown to Beam until the job server tells them.
    logging.getLogger("apache_beam.options.pipeline_options").setLevel(logging.ERROR)
    found = PipelineOptions(
        [*flags, "--runner=PortableRunner", f"--job_endpoint={server.endpoint}"]
    )
    pipeline = beam.Pipeline(options=found)
    graph(pipeline, settings, run, _parallelism(flags))
    return pipeline.run()


def _flags(name: str, parallelism: int | None) -> list[str]:
    return [
        f"--job_name={name}",
        "--streaming",
        *([f"--parallelism={parallelism}"] if parallelism else []),
        f"--max_parallelism={GROUPS}",
        f"--checkpointing_interval={CHECKPOINT_SECONDS * 1000}",
        # Else a checkpoint holds what bundles gave so far: 40 MB, measured.
        "--finish_bundle_before_checkpointing",
        "--externalized_checkpoints_enabled",
        "--retain_externalized_checkpoints_on_cancellation",
        f"--max_bundle_time_mills={_BUNDLE_MILLIS}",
        # Else Beam asks pip what is installed, at each submission; images need have none.
        "--experiments=disable_logging_submission_environment",
    ]


def _parallelism(flags: Sequence[str]) -> int:
    said = [flag.partition("=")[2] for flag in flags if flag.startswith("--parallelism=")]
    return int(said[-1]) if said else 2


def _folder(store: StateStore, name: str) -> Path:
    """Of a job: two may be submitted at once."""
    folder = store.folder / place("flink", name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
