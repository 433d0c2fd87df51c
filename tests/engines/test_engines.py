"""The engines do what the rest rests on: a job server starts and ends, a cluster takes a job, runs
it in the workers of its pools, and goes on after a kill.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipelines.cluster.job_server import EMBEDDED, JobServer, jar, serving, workers_here
from tests.engines import jobs, spark
from tests.engines.children import until
from tests.engines.flink import Standalone
from tests.transforms.sinks.daemons import missing

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]


def submit(
    server: JobServer, options: Sequence[str], build: Callable[[beam.Pipeline], None]
) -> beam.runners.runner.PipelineResult:
    given = [f"--job_endpoint={server.endpoint}", "--job_name=smoke", *options]
    pipeline = beam.Pipeline(PortableRunner(), PipelineOptions(given))
    build(pipeline)
    return pipeline.run()


def come(folder: Path, count: int = 50, since: Mapping[int, int] | None = None) -> bool:
    """Each of the four lanes has so many numbers, or so many more than it had then."""
    found = furthest(folder)
    return len(found) == 4 and all(
        n >= (since or {}).get(lane, 0) + count for lane, n in found.items()
    )


def furthest(folder: Path) -> dict[int, int]:
    return {lane: max(seen) for lane, seen in jobs.numbers(folder).items()}


def lost(folder: Path) -> int:
    return sum(max(lane) + 1 - len(lane) for lane in jobs.numbers(folder).values())


def twice(folder: Path) -> int:
    return sum(lane.total() - len(lane) for lane in jobs.numbers(folder).values())


@pytest.mark.thorough
def test_flink_inside_the_job_server_streams_in_our_own_process_and_ends_with_it(
    tmp_path: Path,
) -> None:
    missing("flink")
    out = tmp_path / "out"
    out.mkdir()
    checkpoints = (tmp_path / "checkpoints").as_uri()
    options = ["--streaming", "--parallelism=2"]
    options += ["--checkpointing_interval=1000", "--state_backend=filesystem"]
    options += [f"--state_backend_storage_path={checkpoints}", "--max_bundle_time_mills=100"]
    options += ["--finish_bundle_before_checkpointing"]
    with (
        serving("flink", EMBEDDED, jar("flink", None, print), tmp_path, print) as server,
        workers_here() as workers,
    ):
        assert _listening_here(workers[-1])
        result = submit(server, [*options, *workers], lambda pipeline: jobs.counted(pipeline, out))
        until(lambda: come(out), 200, server.log.read_text)
        assert [file.name for file in out.iterdir()] == [str(os.getpid())]
        result.cancel()
    assert lost(out) == 0
    assert not _listening(server)


@pytest.mark.thorough
def test_a_killed_taskmanager_and_a_killed_worker_cost_no_number(
    cluster: Standalone, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    server_jar = jar("flink", None, print)
    with serving("flink", cluster.rest, server_jar, tmp_path, print) as server:
        options = ["--streaming", *cluster.options]
        submit(server, options, lambda pipeline: jobs.counted(pipeline, out))
        until(lambda: come(out), 200, server.log.read_text)
    (job,) = (job for job, state in cluster.jobs().items() if state == "RUNNING")
    # The job goes on without its job server, in the workers of both pools.
    workers = {str(pid) for pool in ("pool-1", "pool-2") for pid in cluster.workers(pool)}
    assert {file.name for file in out.iterdir()} <= workers
    cluster.checkpoint(job)

    cluster.kill("taskmanager-2")
    cluster.start("taskmanager-2")
    _goes_on(cluster, job, out)

    for pid in cluster.workers("pool-1"):
        os.kill(pid, 9)
    _goes_on(cluster, job, out)

    cluster.patch(f"/jobs/{job}?mode=cancel")
    until(lambda: cluster.jobs()[job] == "CANCELED", 60, cluster.exceptions(job))
    assert lost(out) == 0
    assert jobs.state_is_exact(out)
    print(json.dumps({"twice": twice(out)}))


@pytest.mark.thorough
def test_a_bounded_job_ends_on_spark_inside_the_job_server(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with spark.local(tmp_path / "spark") as server, workers_here() as workers:
        result = submit(server, workers, lambda pipeline: jobs.squares(pipeline, out))
        assert result.wait_until_finish(240_000) == "DONE", server.log.read_text()
    sums = {file.name: int(file.read_text()) for file in out.iterdir()}
    assert sums == {str(digit): sum(range(digit, 1000, 10)) for digit in range(10)}


def test_a_jar_is_run_stopped_with_a_savepoint_and_resumed_without_loss_or_repeat(
    cluster: Standalone, tmp_path: Path
) -> None:
    out, app = tmp_path / "out", tmp_path / "app.jar"
    out.mkdir()
    options = ["--streaming", f"--output_executable_path={app}", *cluster.options]
    with serving("flink", "[auto]", jar("flink", None, print), tmp_path, print) as server:
        built = submit(server, options, lambda pipeline: jobs.counted(pipeline, out))
        assert built.wait_until_finish(400_000) == "DONE", server.log.read_text()

    job = _started(cluster, "run", "-d", str(app))
    until(lambda: come(out), 200, lambda: cluster.exceptions(job))
    said = cluster.flink("stop", "--savepointPath", str(cluster.savepoints), job)
    savepoint = said.partition("Savepoint completed. Path: ")[2].split()[0]
    assert cluster.jobs()[job] == "FINISHED"

    job = _started(cluster, "run", "-d", "-s", savepoint, str(app))
    _goes_on(cluster, job, out)
    cluster.flink("cancel", job)
    app.unlink()  # 200 MB
    assert (lost(out), twice(out)) == (0, 0)
    assert jobs.state_is_exact(out)


@pytest.mark.thorough
def test_a_new_jobmanager_gets_the_taskmanagers_back(cluster: Standalone) -> None:
    cluster.kill("jobmanager")
    cluster.start("jobmanager")
    cluster.wait()
    assert len(cluster.get("/taskmanagers")["taskmanagers"]) == 2


def _started(cluster: Standalone, *command: str) -> str:
    """The job that this command of Flink's has started."""
    return cluster.flink(*command).partition("JobID ")[2].split()[0]


def _goes_on(cluster: Standalone, job: str, out: Path) -> None:
    """From here on, every lane counts on by 50 and more."""
    since = furthest(out)
    until(lambda: come(out, since=since), 200, lambda: cluster.exceptions(job))


def _listening_here(option: str) -> bool:
    """On the option's port something listens, and reached from this machine only."""
    port = option.rpartition(":")[2]
    said = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True).stdout.splitlines()
    found = {line.split()[3] for line in said if line.split()[3].endswith(f":{port}")}
    return bool(found) and found <= {f"127.0.0.1:{port}", f"[::ffff:127.0.0.1]:{port}"}


def _listening(server: JobServer) -> bool:
    port = server.endpoint.rpartition(":")[2]
    said = subprocess.run(["ss", "-ltn"], capture_output=True, text=True).stdout
    return f":{port} " in said
