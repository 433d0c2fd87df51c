"""What is measured, as Beam and Prometheus see it. Prometheus' client chooses its way once, when it
is imported; so what tells it things here are processes of their own, as workers are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricResults
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from transforms import metrics
from transforms.read.reader import PartitionStatus

ROOT = Path(__file__).parent.parent.parent
HOSTILE = 'a"b\\c\nd{e="f"} \x00\ud800 é,:;' + "x" * 1000


def tells(code: str, folder: Path | None) -> subprocess.Popen[str]:
    """A process that measures, and says which it is."""
    environment = {key: value for key, value in os.environ.items() if key != metrics.FOLDER}
    if folder is not None:
        environment[metrics.FOLDER] = str(folder)
    code = f"from transforms import metrics\nmetrics.start()\n{code}\n"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


class Scraped:
    """What a pool with this folder serves, read by Prometheus' own parser."""

    def __init__(self, folder: Path) -> None:
        class Workers:
            def collect(self) -> Iterator[Any]:
                return metrics.told(folder)

        registry = CollectorRegistry()
        registry.register(Workers())  # type: ignore[arg-type]
        self.text = generate_latest(registry).decode()
        self.families = list(text_string_to_metric_families(self.text))

    def __call__(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) < 2
        return found[0] if found else None

    def labels(self, name: str) -> list[dict[str, str]]:
        return [s.labels for family in self.families for s in family.samples if s.name == name]


COUNTS = """
metrics.READ.add(200, "hub", "0")
metrics.READ.add(50, "hub", "0")
metrics.SENT.add(3, "siem", "dead")
metrics.CHECKPOINT.set(1000 + {n}, "hub", "0")
metrics.DELIVERY.observe([0.1, 0.2, 0.26, 7.0, 90_000.0], "siem")
metrics.UNREAD.set({n})
"""


def test_what_processes_told_is_added_up_and_stays_when_they_are_gone(tmp_path: Path) -> None:
    running = [tells(COUNTS.format(n=n), tmp_path) for n in (5, 3)]
    pids = [process.pid for process in running if not ended(process)]
    both = Scraped(tmp_path)

    def as_it_is(seen: Scraped) -> None:
        assert seen("alertbeam_read_events_total", source="hub", partition="0") == 500
        assert seen("alertbeam_sink_records_total", sink="siem", outcome="dead") == 6
        where = {"source": "hub", "partition": "0"}
        assert seen("alertbeam_checkpoint_timestamp_seconds", **where) == 1005
        bucket = "alertbeam_delivery_seconds_bucket"
        bounds = {"0.1": 2, "0.25": 4, "0.5": 6, "5.0": 6, "10.0": 8, "21600.0": 8, "+Inf": 10}
        assert {le: seen(bucket, sink="siem", le=le) for le in bounds} == bounds
        assert seen("alertbeam_delivery_seconds_count", sink="siem") == 10
        assert seen("alertbeam_delivery_seconds_sum", sink="siem") == pytest.approx(180_015.12)

    as_it_is(both)
    assert both("alertbeam_unread_partitions") in (3, 5)
    for pid in pids:
        metrics.retire(tmp_path, pid)
        as_it_is(Scraped(tmp_path))
    metrics.retire(tmp_path, pids[0])  # again: it adds nothing
    last = Scraped(tmp_path)
    as_it_is(last)
    assert last("alertbeam_unread_partitions") is None, "nobody lives who could say"


def test_workers_that_come_and_go_leave_no_more_files(tmp_path: Path) -> None:
    for _ in range(3):
        process = tells(COUNTS.format(n=1), tmp_path)
        ended(process)
        metrics.retire(tmp_path, process.pid)
    assert len(list(tmp_path.iterdir())) == 3
    assert Scraped(tmp_path)("alertbeam_read_events_total", source="hub", partition="0") == 750


def test_a_file_that_a_kill_cut_off_spoils_nothing(tmp_path: Path) -> None:
    process = tells(COUNTS.format(n=1), tmp_path)
    ended(process)
    (tmp_path / "counter_1.db").touch()
    whole = (tmp_path / f"histogram_{process.pid}.db").read_bytes()
    (tmp_path / "histogram_1.db").write_bytes(whole[:300])
    for pid in (1, process.pid):
        metrics.retire(tmp_path, pid)
    seen = Scraped(tmp_path)
    assert seen("alertbeam_read_events_total", source="hub", partition="0") == 250
    assert seen("alertbeam_delivery_seconds_count", sink="siem") == 5


def test_many_at_once_are_counted_as_one_by_one(tmp_path: Path) -> None:
    """Against the client's own `observe`, whose private parts we add to."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    made = "import random\nr = random.Random(7)\nages = [r.expovariate(0.02) for _ in range(500)]\n"
    edges = "ages += [0, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 21600.0]\n"
    many = "metrics.DELIVERY.observe(ages, 'siem')"
    each = "series = metrics.DELIVERY._of(('siem',))[1]\nfor age in ages: series.observe(age)"
    ended(tells(made + edges + many, ours))
    ended(tells(made + edges + each, theirs))

    def samples(folder: Path) -> dict[tuple[str, str], float]:
        found = [s for family in Scraped(folder).families for s in family.samples]
        return {(s.name, s.labels.get("le", "")): s.value for s in found}

    assert samples(ours) == pytest.approx(samples(theirs))
    assert samples(ours)["alertbeam_delivery_seconds_count", ""] == 513


def test_a_hostile_name_is_one_label_on_one_line(tmp_path: Path) -> None:
    ended(tells(f"metrics.READ.add(2, {HOSTILE!r}, '0')", tmp_path))
    seen = Scraped(tmp_path)
    (labels,) = seen.labels("alertbeam_read_events_total")
    assert labels["source"].startswith('a"b\\c d{e="f"}    é,:;xxx')
    assert len(labels["source"]) <= 201
    assert seen("alertbeam_read_events_total", **labels) == 2
    assert len([line for line in seen.text.splitlines() if not line.startswith("#")]) == 1


def test_names_without_end_take_no_memory_without_end(tmp_path: Path) -> None:
    code = "for n in range(5000): metrics.DEAD.add(1, f'step {n}')\n"
    code += "print(len(metrics.DEAD._series))"
    assert int(ended(tells(code, tmp_path))) == 4097
    seen = Scraped(tmp_path)
    assert len(seen.labels("alertbeam_dead_letters_total")) == 4097
    assert seen("alertbeam_dead_letters_total", step="step 4095") == 1
    assert seen("alertbeam_dead_letters_total", step="other") == 5000 - 4096


def test_without_a_pool_prometheus_is_not_even_imported() -> None:
    code = COUNTS.format(n=1) + "import sys\nprint('prometheus_client' in sys.modules)"
    assert ended(tells(code, None)) == "False\n"


def test_what_is_off_makes_no_series() -> None:
    assert not metrics.on()
    metrics.READ.add(1, "hub", "off")
    metrics.CHECKPOINT.set(1, "hub", "off")
    metrics.DELIVERY.observe([1.0], "off")
    made = {labels for measure in metrics.MEASURES.values() for labels in measure._series}
    assert not any("off" in labels for labels in made)


def test_lag_is_in_events_and_in_seconds_and_unknown_where_the_hub_told_nothing(
    tmp_path: Path,
) -> None:
    code = """
import time
from transforms.read.reader import PartitionStatus
now = int(time.time() * 1000)
metrics.stand(
    [
        PartitionStatus("hub", "behind", 11, last_sequence=110, read_enqueued_ms=now - 60_000),
        PartitionStatus("hub", "level", 111, last_sequence=110, read_enqueued_ms=now - 60_000),
        PartitionStatus("hub", "unknown", 11),
        PartitionStatus("hub", "new", 11, last_sequence=20),
    ],
    {},
)
"""
    ended(tells(code, tmp_path))
    seen = Scraped(tmp_path)

    def lag(partition: str) -> tuple[float | None, float | None]:
        where = {"source": "hub", "partition": partition}
        return seen("alertbeam_lag_events", **where), seen("alertbeam_lag_seconds", **where)

    events, seconds = lag("behind")
    assert events == 100 and seconds == pytest.approx(60, abs=5)
    assert lag("level") == (0, 0)
    assert lag("unknown") == (None, None)
    assert lag("new") == (10, None)


class _Measures(beam.DoFn):
    def process(self, number: int) -> None:
        metrics.SENT.add(number, "siem-1", "delivered")
        metrics.READ.add(number, "ns.example/a b,c:d", "0")
        metrics.DELIVERY.observe([0.5, 1.5], "siem-1")
        status = PartitionStatus("hub", "0", 11, last_sequence=110, read_enqueued_ms=0)
        metrics.stand([status], {})


def test_beam_gets_names_with_labels_that_its_runners_can_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_on", True)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    pipeline | beam.Create([1, 2, 3], reshuffle=False) | beam.ParDo(_Measures())
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query()

    def told(kind: str) -> dict[str, Any]:
        assert {each.key.metric.namespace for each in found[kind]} == {"alertbeam"}
        return {each.key.metric.name: each.result for each in found[kind]}

    assert told(MetricResults.COUNTERS) == {
        "sink_records:siem-1:delivered": 6,
        "read_events:ns.example/a_b_c_d:0": 6,
    }
    assert told(MetricResults.GAUGES)["lag_events:hub:0"].value == 100
    spread = told(MetricResults.DISTRIBUTIONS)["delivery_seconds:siem-1"]
    assert (spread.count, spread.min, spread.max) == (3, 1000, 1000)
    names = {name.partition(":")[0] for kind in found for name in map(_name, found[kind])}
    assert names <= metrics.MEASURES.keys()


def _name(found: Any) -> str:
    return str(found.key.metric.name)
