"""What checkpoints of the streaming pipeline on a real Flink hold, in bytes: little where nothing
comes, and else what the deduplication has to remember.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pipelines.cluster.submit import CHECKPOINT_SECONDS
from tests.engines.children import until
from tests.engines.job import LONG, Job, running, settled
from tests.site import alerts

pytestmark = [pytest.mark.engines, pytest.mark.thorough, pytest.mark.timeout(1500)]

_IDLE_SECONDS = 600
_ALERTS = 10_000
_KEY = 64  # bytes that an alert may take: its key is 16, and lies in two horizons


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    with running(tmp_path_factory.mktemp("checkpoints"), CHECKPOINT_SECONDS) as running_job:
        yield running_job


def size(job: Job) -> int:
    """Of a checkpoint that begins from now on."""

    def last() -> tuple[int, int]:
        found = job.client.checkpoints(job.id).latest.completed
        return (found.id, found.size) if found else (0, 0)

    after = last()[0] + 1  # one may be in the making
    return until(lambda: found[1] if (found := last())[0] > after else 0, LONG, job.told)


def test_a_checkpoint_is_in_proportion_to_what_is_remembered(job: Job) -> None:
    sizes = []
    for seed in (1, 2, 3):
        job.sent |= (new := alerts(_ALERTS, seed=seed))
        job.site.publish([*new.values()])
        until(settled(job.site, len(job.sent)), LONG, job.told)
        sizes.append(size(job))
    print(f"bytes of a checkpoint after each {_ALERTS:,} alerts: {sizes}")
    assert sizes[2] - sizes[0] <= 2 * _ALERTS * _KEY, sizes
    assert sizes[2] - sizes[1] <= 2 * max(sizes[1] - sizes[0], 100_000), sizes


def test_idle_partitions_hardly_let_checkpoints_grow(job: Job) -> None:
    first = size(job)
    time.sleep(_IDLE_SECONDS)
    last = size(job)
    print(f"bytes of a checkpoint: {first:,}, and {last:,} after {_IDLE_SECONDS} idle seconds")
    assert last - first < 1_000_000
    assert job.restarts == 0
