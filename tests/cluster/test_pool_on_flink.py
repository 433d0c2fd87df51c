"""The worker pool under a real TaskManager: what Flink shows of what workers measure, and how they
end with the job, or with the TaskManager."""

from __future__ import annotations

import re
from pathlib import Path

import apache_beam as beam
import pytest

from pipelines.cluster.flink import Flink
from pipelines.cluster.job_server import jar, serving
from tests.cluster import pooled
from tests.cluster.pool import Pool, eventually, gone
from tests.engines import jobs
from tests.engines.flink import Standalone
from tests.engines.test_engines import submit

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

LANES = 2


def lanes(pipeline: beam.Pipeline) -> None:
    """Numbers for ever, as jobs.py has them, measured."""
    _ = (
        pipeline
        | beam.Create(range(LANES))
        | "Count" >> beam.ParDo(jobs._Count())
        | "Pass" >> beam.ParDo(pooled.Pass())
    )


def shown(flink: Flink, job: str) -> dict[str, int]:
    """What Flink shows of Beam's own metrics, added up over its subtasks."""
    found: dict[str, int] = {}
    for vertex in flink.job(job).vertices:
        for (_, name), value in flink.beam_metrics(job, vertex.id, "alertbeam").items():
            if re.fullmatch(r"-?\d+", value):
                found[name] = found.get(name, 0) + int(value)
            else:
                found.setdefault(name, -1)
    return found


@pytest.mark.thorough
def test_flink_shows_what_workers_measure_and_they_end_with_the_job_or_its_taskmanager(
    tmp_path: Path,
) -> None:
    (folder := tmp_path / "pool").mkdir()
    pool = Pool(folder, "--health", "0", "--metrics", "0")
    try:
        with Standalone(tmp_path / "cluster", taskmanagers=1, pools=False) as cluster:
            flink = Flink(cluster.rest)
            options = ["--streaming", *cluster.options, f"--environment_config={pool.address}"]

            def start() -> str:
                server_jar = jar("flink", None, print)
                with serving("flink", cluster.rest, server_jar, tmp_path, print) as server:
                    submit(server, options, lanes)
                    return eventually(
                        lambda: [job for job, at in cluster.jobs().items() if at == "RUNNING"], 200
                    )[0]

            def counted() -> bool:
                return shown(flink, job).get("read_events_hub_0", 0) > 100

            job = start()
            eventually(counted, 200)
            seen = shown(flink, job)
            assert seen["sink_records_siem_delivered"] > 100
            assert "delivery_seconds_siem" in seen
            assert seen["lag_events_hub_1"] >= 100
            before = seen["read_events_hub_1"]
            where = (("partition", "1"), ("source", "hub"))
            assert pool.scraped()["alertbeam_read_events_total", where] >= before
            workers = pool.started()
            assert pool.figures == {"workers": len(workers), "started": len(workers), "died": 0}

            flink.cancel(job)
            eventually(lambda: all(map(gone, workers)))
            eventually(lambda: pool.figures["workers"] == 0)
            assert pool.figures["died"] == 0, pool.log.read_text()
            assert "is killed" not in pool.log.read_text()

            job = start()
            eventually(lambda: pool.figures["workers"] > 0)
            eventually(counted, 200)
            workers = pool.started()
            cluster.kill("taskmanager-1")
            eventually(lambda: all(map(gone, workers)))
            eventually(lambda: pool.figures["workers"] == 0)
            assert pool.figures["died"] == 0, pool.log.read_text()
    finally:
        pool.kill()
