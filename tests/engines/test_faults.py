"""More that befalls the streaming pipeline on a real Flink (`make chaos-flink`): each time nothing
is lost, what came twice was under way, and the account is exact.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import contextlib
import re
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cluster.savepoints import newest
from tests.engines.children import until
from tests.engines.job import INTERVAL, LONG, MORE, NAME, PARTITIONS, SINKS, Job, running
from tests.site import HUB, TOKEN, stop

pytestmark = [pytest.mark.engines, pytest.mark.thorough, pytest.mark.timeout(1500)]

ARCHIVE = """\
  - file: {{folder: archive}}
    name: archive
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    with running(tmp_path_factory.mktemp("faults")) as running_job:
        yield running_job


def nothing() -> None:
    pass


def pickled(app: Path) -> bytes:
    """All functions of the job in a jar, as Beam's pickler leaves them: in its graph, which is JSON
    around binary, are texts in base64, of what bz2 made of them."""
    with zipfile.ZipFile(app) as opened:
        (name,) = [each for each in opened.namelist() if each.endswith("/pipeline.json")]
        graph = opened.read(name)
    found = []
    for outer in _TEXTS.findall(graph):
        for inner in _TEXTS.findall(base64.b64decode(outer + b"==")):
            with contextlib.suppress(binascii.Error, OSError, ValueError):
                found.append(bz2.decompress(base64.b64decode(inner)))
    return b"".join(found)


_TEXTS = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")


def test_a_killed_jobmanager_loses_nothing_the_job_is_resumed_from_its_last_checkpoint(
    job: Job,
) -> None:
    def fault() -> None:
        job.cluster.kill("jobmanager")
        job.cluster.start("jobmanager")
        job.cluster.wait()
        assert "/chk-" in job.resume()

    assert job.through(fault) <= INTERVAL


def test_a_resumed_job_whose_jobmanager_is_killed_is_resumed_from_its_own_checkpoint(
    job: Job,
) -> None:
    def fault() -> None:
        job.flink("stop")
        job.resume()
        before = job.id
        job.cluster.kill("jobmanager")
        job.cluster.start("jobmanager")
        job.cluster.wait()
        assert f"/{before}/chk-" in job.resume()

    assert job.through(fault) <= 2 * INTERVAL


def test_a_killed_pool_of_workers_loses_nothing(job: Job) -> None:
    def fault() -> None:
        job.cluster.kill("pool-1")
        job.cluster.start("pool-1")

    assert job.through(fault) <= INTERVAL


def test_connections_that_the_hub_drops_lose_and_repeat_nothing(job: Job) -> None:
    restarts = job.restarts

    def fault() -> None:
        assert job.site.hub.drop_connections() >= PARTITIONS

    assert job.through(fault) == 0
    assert job.restarts == restarts


def test_what_a_receiver_refuses_for_a_while_is_owed_and_paid(job: Job) -> None:
    def owed() -> bool:
        return job.site.account("splunk").outcomes.owed > 0

    def fault() -> None:
        job.site.hec.refuse()
        until(owed, LONG, job.told)
        job.site.hec.accept()

    assert job.through(fault) <= INTERVAL


def test_partitions_that_are_added_are_read(job: Job) -> None:
    def fault() -> None:
        job.site.hub.add_partitions(HUB, PARTITIONS + 2)

    assert job.through(fault) == 0
    assert {*job.site.positions("splunk")} == {str(n) for n in range(PARTITIONS + 2)}


def test_a_sink_that_is_added_begins_where_the_savepoint_stands(job: Job) -> None:
    job.flink("stop")
    job.late["archive"] = {*job.sent}
    job.site.write(sinks=SINKS + ARCHIVE, more=MORE)
    job.resume()
    assert (job.through(nothing), job.restarts) == (0, 0)


def test_a_sink_that_is_removed_costs_the_others_nothing(job: Job) -> None:
    job.flink("stop")
    job.site.write(sinks=SINKS, more=MORE)
    assert "resume with --allow-non-restored" in job.resume(code=1)
    job.resume("--allow-non-restored")
    assert (job.through(nothing), job.restarts) == (0, 0)


def test_a_jar_of_the_job_goes_on_from_its_savepoint(job: Job, tmp_path: Path) -> None:
    app = tmp_path / "app.jar"
    given = ["-c", str(job.site.settings), "-o", str(app), "--name", NAME]
    code, said = job.site.call("flink", "jar", *given, "--", *job.cluster.options)
    assert code == 0, said
    held = pickled(app)
    assert b"HEC_TOKEN" in held, "by reference"
    assert TOKEN.encode() not in held
    job.flink("stop")
    saved = newest(job.site.store, NAME)
    assert saved is not None
    job.cluster.flink("run", "-d", "-s", saved.path, str(app))
    app.unlink()  # 200 MB
    assert (job.through(nothing), job.restarts) == (0, 0)


def test_the_cluster_is_listed_and_the_job_watched_until_it_is_left_alone(job: Job) -> None:
    code, said = job.site.call("flink", "list", "--cluster", job.cluster.rest)
    assert code == 0 and NAME in said and "RUNNING" in said and "of 4 slots free" in said, said
    watching = job.site.start("flink", "watch", NAME, "--cluster", job.cluster.rest)
    assert watching.stdout and NAME in watching.stdout.readline()
    last = stop(watching, signal.SIGINT)
    assert (watching.returncode, f"{NAME} goes on" in last) == (0, True), last
    assert job.client.job(job.id).lives


def test_a_drained_job_has_delivered_all_that_it_read(job: Job) -> None:
    assert (job.through(nothing), job.restarts) == (0, 0)
    drained = job.id
    assert "its windows have fired" in job.flink("stop", "--drain")
    assert not job.client.job(drained).lives
    assert all(each.holds and not each.outcomes.owed for each in job.site.accounts().values())
