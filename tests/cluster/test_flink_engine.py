"""The client, its explanations and the monitor on Flink itself: one TaskManager of two slots."""

from __future__ import annotations

import importlib
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipelines.cluster.flink import Flink, FlinkError, diagnose, wait_until_working
from pipelines.cluster.job_server import JobServer, jar, serving
from pipelines.cluster.monitor import look
from pipelines.cluster.savepoints import Saved, newest
from tests.cluster.engine_jobs import Fails, Hoards, Measures, lanes
from tests.cluster.flink_double import FlinkDouble, checkpoint
from tests.engines.children import until
from tests.engines.flink import Standalone
from transforms.state_store import StateStore

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

LONG = 120.0  # seconds that only a failure waits for

Build = Callable[[beam.Pipeline], Any]


class Site:
    """A cluster, a job server before it, and a client."""

    def __init__(self, cluster: Standalone, server: JobServer) -> None:
        self.cluster = cluster
        self.server = server
        self.client = Flink(cluster.rest)

    def submit(self, build: Build, *options: str) -> str:
        """Submit a job; its id."""
        known = {job.id for job in self.client.jobs()}
        given = [
            f"--job_endpoint={self.server.endpoint}", "--job_name=alertbeam", "--streaming",
            *self.cluster.options, *options,
        ]  # fmt: skip
        pipeline = beam.Pipeline(PortableRunner(), PipelineOptions(given))
        build(pipeline)
        pipeline.run()

        def there() -> str:
            return next((job.id for job in self.client.jobs() if job.id not in known), "")

        return until(there, 60, self.server.log.read_text)

    def trouble(self, job: str, seconds: float = 90) -> str:
        """What hinders the job, as soon as it is known; the job is ended then."""

        def seen() -> str:
            return diagnose(self.client, self.client.job(job))

        found = until(seen, seconds, lambda: "no trouble")
        if self.client.job(job).lives:
            self.client.cancel(job)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("flink")
    conf = {"slot.request.timeout": "5000"}
    with Standalone(folder / "cluster", taskmanagers=1, slots=2, conf=conf) as cluster:
        server_jar = jar("flink", None, print)
        with serving("flink", cluster.rest, server_jar, folder / "job-server", print) as server:
            yield Site(cluster, server)


@pytest.fixture(autouse=True)
def _nothing_is_left(site: Site) -> Iterator[None]:
    """The next test has all slots."""
    yield
    for job in site.client.jobs():
        if job.lives:
            site.client.cancel(job.id)
    if site.cluster.children["taskmanager-1"].running:
        until(lambda: site.client.overview().free == 2, 60, lambda: "slots are taken")


def keys(answer: Any, at: str = "") -> set[str]:
    """Where there is something in a JSON text; of a list, in its first entry."""
    if isinstance(answer, list):
        return keys(answer[0], f"{at}[]") if answer else set()
    if isinstance(answer, dict):
        inside = (keys(value, f"{at}.{key}") for key, value in answer.items())
        return {f"{at}.{key}" for key in answer}.union(*inside)
    return set()


def measured(pipeline: beam.Pipeline) -> Any:
    return lanes(pipeline) | "Measure" >> beam.ParDo(Measures())


def hoarded(pipeline: beam.Pipeline) -> Any:
    return measured(pipeline) | "Hoard" >> beam.ParDo(Hoards(10))


def test_a_job_is_waited_for_watched_stopped_and_resumed(site: Site, tmp_path: Path) -> None:
    client = site.client
    has = client.overview()
    assert (has.version, has.taskmanagers, has.slots) == ("1.19.3", 1, 2)
    job = site.submit(hoarded)
    said: list[str] = []
    first = wait_until_working(client, job, said.append, 240)
    assert first and first.path and first.size > 0
    assert any(line.startswith("RUNNING after ") for line in said)
    assert client.named("alertbeam").id == client.named(job).id == job

    # Flink's server has new values every 10 s.
    lags = {(f"lag_events_ns_example/h/_Default_{n}", str(10 + n)) for n in range(4)}
    until(lambda: _lags(client, job) == lags, LONG, lambda: f"{_lags(client, job)}")
    until(lambda: _is_shown(client, job), LONG, lambda: f"{look(client, job)}")

    _is_doubled(site, job)

    with pytest.raises(FlinkError, match="no savepoint: Flink lacks the plugin for abfss://"):
        client.stop(job, "abfss://c@a.example/s")
    assert client.job(job).lives

    path = client.stop(job)
    assert not client.job(job).lives
    saved = until(lambda: client.checkpoints(job).latest.savepoint, LONG, lambda: path)
    assert saved.path == path
    store = StateStore(str(tmp_path / "state"))
    assert newest(store, "alertbeam", client) == Saved(path, saved.at_ms, saved.size)

    again = site.submit(hoarded, f"--savepoint_path={path}")
    wait_until_working(client, again, print, 240)
    restored = until(lambda: client.checkpoints(again).latest.restored, LONG, lambda: path)
    assert restored.path == path


@pytest.mark.thorough
def test_the_state_of_a_step_that_is_gone_is_dropped_only_when_that_is_asked_for(
    site: Site,
) -> None:
    client = site.client
    job = site.submit(hoarded)
    wait_until_working(client, job, print, 240)
    path = client.savepoint(job)
    assert client.job(job).lives
    client.cancel(job)
    assert "resume with --allow-non-restored" in site.trouble(
        site.submit(measured, f"--savepoint_path={path}")
    )
    less = site.submit(measured, f"--savepoint_path={path}", "--allow_non_restored_state")
    wait_until_working(client, less, print, 240)
    restored = until(lambda: client.checkpoints(less).latest.restored, LONG, lambda: path)
    assert restored.path == path


def _is_shown(client: Flink, job: str) -> bool:
    """What is read, how fast, by each subtask (of an Impulse there is one); and restarts."""
    view = look(client, job)
    return (
        view.restarts is not None
        and [len(load.rates) for load in view.loads] == [1, 2, 2, 2, 2]
        and any(sum(load.events) for load in view.loads)
        and any(sum(load.rates) for load in view.loads)
    )


def _lags(client: Flink, job: str) -> set[tuple[str, str]]:
    """What Beam's gauges say, wherever they are kept."""
    vertices = client.job(job).vertices
    found = [client.beam_metrics(job, each.id, "alertbeam", ["lag_"]) for each in vertices]
    return {(name, value) for each in found for (_, name), value in each.items()}


def _is_doubled(site: Site, job: str) -> None:
    """The double of the other tests says nothing that Flink does not say."""
    with FlinkDouble() as double:
        made = double.add(id=job, completed=checkpoint(1), slots=1)
        made.vertex("Read")
        double.taskmanager = site.cluster.get("/taskmanagers")["taskmanagers"][0]["id"]
        for path in (
            "/overview", "/taskmanagers", f"/taskmanagers/{double.taskmanager}", "/jobs/overview",
            f"/jobs/{job}", f"/jobs/{job}/exceptions", f"/jobs/{job}/checkpoints",
            f"/jobs/{job}/metrics",
        ):  # fmt: skip
            with urllib.request.urlopen(f"http://{double.address}/v1{path}") as answer:
                said = keys(json.load(answer))
            until(
                lambda said=said, path=path: said and said <= keys(site.cluster.get(path)),
                LONG, lambda said=said, path=path: f"{path}: {said - keys(site.cluster.get(path))}",
            )  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (Fails("secret", "env:NOT_THERE"), "a secret is missing on the workers: env:NOT_THERE."),
        (
            Fails("state", "/proc/alertbeam/state"),
            "the workers cannot use the state folder /proc/alertbeam/state",
        ),
        (Fails("bug"), "ValueError: the odd"),
    ],
    ids=["secret", "state", "bug"],
)
def test_what_fails_on_a_worker_is_told_in_a_line(site: Site, fails: Fails, says: str) -> None:
    job = site.submit(lambda pipeline: lanes(pipeline) | "Fail" >> beam.ParDo(fails))
    assert says in site.trouble(job)


@pytest.mark.thorough
def test_a_package_that_workers_lack_is_told(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import apache_beam as beam\n\nclass Here(beam.DoFn):\n    process = print\n"
    (tmp_path / "only_here.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    step = importlib.import_module("only_here").Here()
    job = site.submit(lambda pipeline: lanes(pipeline) | "Here" >> beam.ParDo(step))
    assert "the workers lack a library (No module named 'only_here')" in site.trouble(job)
    sys.modules.pop("only_here")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--parallelism=8"], "the job needs 8 slots, "),
        (
            ["--savepoint_path=file:/nowhere/savepoint-1"],
            "there is no savepoint or checkpoint at file:/nowhere/savepoint-1",
        ),
        (["--savepoint_path=abfss://c@a.example/s"], "Flink lacks the plugin for abfss://"),
    ],
    ids=["slots", "savepoint", "plugin"],
)
def test_what_flink_refuses_is_told(site: Site, options: Sequence[str], says: str) -> None:
    assert says in site.trouble(site.submit(measured, *options))


@pytest.mark.thorough
def test_without_a_worker_pool_and_without_taskmanagers_that_is_told(site: Site) -> None:
    site.cluster.kill("pool-1")
    assert "no worker pool answers at worker-pool/127.0.0.2:" in site.trouble(site.submit(measured))
    site.cluster.kill("taskmanager-1")
    until(lambda: not site.client.overview().taskmanagers, 60, lambda: "it is still there")
    assert "the cluster has no TaskManagers" in site.trouble(site.submit(measured))
