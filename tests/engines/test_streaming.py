"""The streaming pipeline on a real Flink: the same deliveries, repeats, digests and accounts as on
one machine, through kills, savepoints and the loss of all of Flink's state.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.flink import Flink, wait_until_working
from pipelines.cluster.submit import embedded, prepare, stop_drained
from tests.engines.children import until
from tests.engines.job import (
    INTERVAL,
    LONG,
    PARTITIONS,
    SINKS,
    Job,
    arrived,
    running,
    settled,
    tiled,
    told,
)  # fmt: skip
from tests.site import Site, alerts
from tests.transforms.sinks.daemons import missing
from transforms.workers import beats

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1500)]

COUNTS = """\
  - file: {{folder: counts}}
    name: counts
    send: digests
"""
DIGESTS = "digests: [{name: kinds, by: [kind], window: {fixed: 1h}, early: 2s}]\n"


def digests(site: Site) -> list[dict[str, Any]]:
    return [
        json.loads(line)["raw"]
        for file in sorted((site.folder / "counts").glob("*"))
        for line in file.read_text().splitlines()
        if line.endswith("}")
    ]


def test_an_embedded_flink_forwards_drops_repeats_counts_and_drains(tmp_path: Path) -> None:
    missing("flink")
    with Site(tmp_path, PARTITIONS) as site:
        site.write(
            sinks=SINKS + COUNTS, more=f"deduplicate: {{horizon: 10m, shards: 4}}\n{DIGESTS}"
        )
        settings = site.load()
        sent = [*alerts(300).values()]
        site.publish([*sent, *sent[37:138]])  # copies on other partitions than their originals
        said: list[str] = []
        prepare(settings, say=said.append)
        with embedded(settings, name="streams", parallelism=2, say=said.append) as given:
            client = Flink(given.rest)
            assert wait_until_working(client, given.job_id, said.append, LONG), said
            until(settled(site, 401), LONG, lambda: told(site))
            early = until(lambda: digests(site), LONG, lambda: f"no digest: {told(site)}")
            assert {each["timing"] for each in early} == {"early"}
            more = [*alerts(50, seed=2).values()]
            site.publish(more)
            until(settled(site, 451), LONG, lambda: told(site))
            site.publish([*alerts(20, seed=3).values()])  # perhaps not even read yet
            stop_drained(client, given.job_id, site.store, given.run, LONG)
        known = site.accounts()
        read = known["splunk"].records
        assert known["splunk"].holds and known["siem"].holds and 451 <= read <= 471
        assert known["splunk"].outcomes.repeat == known["siem"].outcomes.repeat == 101
        for sink, found in arrived(site).items():
            assert {*found.values()} == {1}, f"{sink}: delivered twice"
            assert len(found) == read - 101
        tiled(site)
        panes = digests(site)
        assert sum(each["total"] for each in panes) == read - 101, "each alert in one pane"
        assert len({each["pane"] for each in panes}) == len(panes)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    with running(tmp_path_factory.mktemp("streaming")) as running_job:
        yield running_job


def test_partitions_lie_evenly_on_the_workers(job: Job) -> None:
    def reads() -> list[int]:
        since = (time.time() - 10) * 1000
        return [len(b.partitions) for b in beats(job.site.store) if b.at_ms > since]

    until(lambda: reads() == [PARTITIONS // 2] * 2, LONG, lambda: f"{reads()}")


def test_a_killed_taskmanager_loses_nothing(job: Job) -> None:
    def fault() -> None:
        job.cluster.kill("taskmanager-1")
        job.cluster.start("taskmanager-1")

    assert job.through(fault) <= INTERVAL


def test_killed_workers_lose_nothing(job: Job) -> None:
    def fault() -> None:
        for pid in job.cluster.workers("pool-2"):
            os.kill(pid, signal.SIGKILL)

    assert job.through(fault) <= INTERVAL


def test_a_savepoint_and_a_resume_lose_and_repeat_nothing(job: Job) -> None:
    def fault() -> None:
        assert "To resume it:" in job.flink("stop")
        job.resume()

    assert job.through(fault) == 0
    assert job.restarts == 0


def test_a_job_without_any_state_goes_on_where_its_sinks_stand(job: Job) -> None:
    def fault() -> None:
        assert "without a savepoint" in job.flink("stop", "--cancel")
        job.start()

    assert job.through(fault) <= INTERVAL
    job.site.publish([*job.sent.values()][-20:])
    until(
        lambda: all(each.outcomes.repeat == 20 for each in job.site.accounts().values()),
        LONG, job.told,
    )  # fmt: skip
    for found in arrived(job.site).values():
        assert {*found} == {*job.sent}
