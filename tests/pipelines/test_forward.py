"""The forwarding graph as the local runner will run it: one fused stage from the hub to every
account. Behind a stage boundary there, nothing would arrive before a drain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment
from apache_beam.transforms.window import FixedWindows

from pipelines import forward as graph
from pipelines.forward import accounts, forward
from pipelines.settings import Settings, load
from schemas.batch import AlertBatch
from transforms.read.access import EventHubsAccess
from transforms.read.event_hubs import Partition, ReadEventHubs
from transforms.steps import Route, Shift

SETTINGS = """\
sources: [{event_hubs: {namespace: a.b, hub: h}}]
subscriptions: {file: subscriptions.yaml}
digests:
  - {name: storms, window: {fixed: 5m}, by: [severity], early: 30s}
  - {name: slides, window: {sliding: {size: 10m, every: 5m}}}
  - {name: bursts, window: {session: 60}}
sinks:
  - splunk_hec: {url: "https://a.b", token: env:TOKEN}
    name: splunk
    where: {severity: high}
  - {syslog: {address: "a.b:6514"}, name: siem}
  - {file: {folder: archive}, name: archive}
  - {file: {folder: digests}, name: counts, send: digests}
state: state
deduplicate: {shards: 4}
"""
TAKERS = ("splunk", "siem", "archive")
PARTITIONS = [
    Partition("a.b/h", str(n), EventHubsAccess(hub="h", namespace="a.b"), 0) for n in "01"
]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TOKEN", "t")
    (tmp_path / "subscriptions.yaml").write_text("[]")
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    return load(tmp_path / "settings.yaml")


def stages(settings: Settings, read: beam.PTransform | None = None) -> list[set[str]]:
    """The stages that the runner makes of the graph, each as the names of its steps."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    read = ReadEventHubs("run", PARTITIONS) if read is None else read
    forward(pipeline, read, settings, {}, "run", Shift(1))
    proto = pipeline.to_runner_api(default_environment=EmbeddedPythonEnvironment.default())
    _, made = FnApiRunner().create_stages(proto)
    return [{step.unique_name for step in stage.transforms} for stage in made]


def wanted(sinks: Iterable[str] = TAKERS) -> list[str]:
    """What must lie together, as the beginnings of the steps' names."""
    return [
        "Read events/Read/Process",
        "Parse/",
        "Drop exact repeats/By shard",
        "Drop exact repeats/Drop repeats",
        "Enrich with subscriptions/",
        *(f"{step} {sink}/" for sink in sinks for step in ("Route to", "Write to", "Account for")),
    ]


def broken(made: list[set[str]], steps: Iterable[str]) -> list[str]:
    """The steps that do not lie in one stage with Parse: none, if everything streams."""
    streaming = next(stage for stage in made if any(n.startswith("Parse/") for n in stage))
    return [step for step in steps if not any(name.startswith(step) for name in streaming)]


def test_from_the_hub_to_every_account_it_is_one_stage(settings: Settings) -> None:
    assert broken(stages(settings), wanted()) == []


def test_no_step_of_the_way_lies_in_a_second_stage(settings: Settings) -> None:
    made = stages(settings)
    for step in wanted():
        assert sum(any(name.startswith(step) for name in stage) for stage in made) == 1, step


def test_only_digests_have_a_stage_behind_them(settings: Settings) -> None:
    grouped = [stage for stage in stages(settings) if any("Digest" in name for name in stage)]
    assert len(grouped) > 1, "the digests group, so they cut"
    behind = ("Digest", "Write storms", "Write slides", "Write bursts")
    for stage in grouped[1:]:
        assert all(name.startswith(behind) for name in stage)


def test_where_only_digests_are_sent_their_account_is_on_the_way(
    settings: Settings,
) -> None:
    only = settings.model_copy(
        update={"sinks": tuple(s for s in settings.sinks if s.send == "digests")}
    )
    assert accounts(only) == ("digests",)
    steps = [*wanted([]), "Only digests are wanted/", "Account for digests/"]
    assert broken(stages(only), steps) == []


def test_each_sink_that_takes_alerts_has_an_account(settings: Settings) -> None:
    assert accounts(settings) == TAKERS


class TestTheCheckItself:
    """It must notice what would break the stage: else it holds nothing."""

    @pytest.mark.parametrize(
        "cut",
        [
            lambda alerts: (alerts, alerts) | beam.Flatten(),
            lambda alerts: alerts | beam.Reshuffle(),
            lambda alerts: (
                alerts
                | beam.Map(lambda batch: (str(batch.origin), batch))
                | beam.WindowInto(FixedWindows(60))
                | beam.GroupByKey()
                | beam.FlatMap(lambda pair: pair[1]).with_output_types(AlertBatch)
            ),
        ],
        ids=["Flatten", "Reshuffle", "GroupByKey"],
    )
    def test_it_tells_what_lies_behind_a_cut(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        cut: Callable[[Any], Any],
    ) -> None:
        class CutBeforeSiem(Route):
            def expand(self, batches: Any) -> Any:
                routed = super().expand(batches)
                return cut(routed) if self._sink == "siem" else routed

        monkeypatch.setattr(graph, "Route", CutBeforeSiem)
        assert broken(stages(settings), wanted()) == ["Write to siem/", "Account for siem/"]

    def test_it_tells_a_cut_before_everything(self, settings: Settings) -> None:
        class Cut(ReadEventHubs):
            def expand(self, begin: Any) -> Any:
                return super().expand(begin) | "Spread" >> beam.Reshuffle()

        assert broken(stages(settings, Cut("run", PARTITIONS)), wanted()) == [
            "Read events/Read/Process"
        ]
