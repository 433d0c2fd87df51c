"""The graph of a cluster in a worker of the pool, reading a hub: what is scraped is what the
accounts say."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import ExternalEnvironment

from pipelines.forward import Cluster, accounts, forward
from pipelines.settings import Settings
from tests.cluster.pool import Pool, eventually
from tests.site import HUB, Site, alerts
from transforms.read.event_hubs import Partition
from transforms.read.on_cluster import ReadPartitions


class Read(beam.PTransform):
    """What the hub has now, as the elements that a cluster hands out."""

    def __init__(self, site: Site, settings: Settings, run: str) -> None:
        super().__init__()
        access = settings.sources[0].event_hubs
        self.partitions = [
            Partition(site.source, name, access, 0, following)
            for name in ("0", "1")
            if (following := site.hub.partition_info(HUB, name).last_sequence_number + 1)
        ]
        self.read = ReadPartitions(run, accounts(settings), site.store)

    def expand(self, begin: Any) -> Any:
        named = [(each.partition, each) for each in self.partitions]
        return begin | "Partitions" >> beam.Create(named, reshuffle=False) | self.read


def test_what_is_scraped_is_what_the_accounts_say(tmp_path: Path) -> None:
    with Site(tmp_path, partitions=2) as site:
        site.write(patience=10)
        settings = site.load()
        site.store.prepare()
        sent = [*alerts(60).values()]
        site.publish([*sent, *sent[:7], b"no alert at all", b"{"])
        run = uuid.uuid4().hex
        (folder := tmp_path / "pool").mkdir()
        pool = Pool(folder, "--health", "0", "--metrics", "0", **site.environment)
        try:
            runner = FnApiRunner(default_environment=ExternalEnvironment(pool.address))
            pipeline = beam.Pipeline(runner=runner)
            read = Read(site, settings, run)
            forward(pipeline, read, settings, {}, run, cluster=Cluster(2))
            pipeline.run().wait_until_finish()
            eventually(lambda: pool.figures["workers"] == 0)
            seen = pool.scraped()
        finally:
            pool.kill()
        assert "WARNING" not in pool.log.read_text(), "nothing was wrong"
        found = site.accounts()
        assert set(found) == {"splunk", "siem", "archive"}

    def value(name: str, **labels: str) -> float:
        return seen.get((f"alertbeam_{name}", tuple(sorted(labels.items()))), 0)

    where = [{"source": each.source, "partition": each.partition} for each in read.partitions]
    assert sum(value("read_events_total", **each) for each in where) == 69
    records = next(iter(found.values())).records
    assert value("parsed_records_total", source=site.source) == records == 69
    assert value("repeat_records_total", source=site.source) == 7
    assert value("dead_letters_total", step="parse") == 2
    for name, account in found.items():
        assert account.holds
        for outcome in ("delivered", "dead", "owed", "repeat", "not_routed"):
            counted = value("sink_records_total", sink=name, outcome=outcome)
            assert counted == getattr(account.outcomes, outcome), (name, outcome)
        assert value("delivery_seconds_count", sink=name) == account.outcomes.delivered == 60
        assert 0 < value("delivery_seconds_sum", sink=name) < 60 * 120
    for each in where:
        for stamp in ("checkpoint_timestamp_seconds", "read_timestamp_seconds"):
            assert time.time() - 120 < value(stamp, **each) <= time.time(), stamp
