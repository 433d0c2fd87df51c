"""The thin skins: what they add to the plain functions is Beam's windows, metrics and bundles."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.coders import registry
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_stream as streams
from apache_beam.testing.util import assert_that
from apache_beam.transforms import trigger, window
from apache_beam.transforms.window import FixedWindows, Sessions, SlidingWindows
from apache_beam.utils.timestamp import Duration

from schemas.alert import Alert, Subscription
from schemas.batch import NOBODY, AlertBatch, Batch, Dropped
from schemas.digest import Digest, from_json
from schemas.receipt import Outcome, Run
from tests.stubs import alert, alerts, events
from transforms.dead_letters import read_dead_letters
from transforms.route import AtLeast, Where
from transforms.state_store import StateStore
from transforms.steps import (
    UNKNOWN_SUBSCRIPTION,
    Digests,
    Enrich,
    Parse,
    Route,
    Shift,
    _Parse,
    _slot_ms,
)

T0 = 1_772_619_300_000  # 2026-03-04T10:15:00Z, a boundary of 5 and 15 minutes


class Keep:
    """What came out of a pipeline, for looking at in the test itself."""

    found: list[Any]

    def __call__(self, found: list[Any]) -> None:
        Keep.found = found


def run(values: list[Any], type_: type, *steps: Any) -> tuple[list[Any], Any]:
    """The values through the steps, on the local runner; what came out, and the result."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    out = pipeline | "Make" >> beam.Create(values, reshuffle=False).with_output_types(type_)
    for step in steps:
        out = out | step
    assert_that(out, Keep())
    result = pipeline.run()
    result.wait_until_finish()
    return Keep.found, result


def counters(result: Any) -> dict[str, int]:
    found = result.metrics().query(MetricsFilter().with_namespace("alertbeam"))["counters"]
    return {metric.key.metric.name: metric.committed for metric in found}


# --------------------------------------------------------------------------------------- Parse


def test_parsing_passes_alerts_writes_dead_letters_and_counts_kinds(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    batches = [events(10, b'{"a":1}', b"{", b'{"records":[{"b":1},7]}'), events(13, b'{"c":1}')]
    found, result = run(batches, Batch, Parse(store))
    found.sort(key=lambda batch: batch.first)
    assert [(b.first, b.last, b.size) for b in found] == [(10, 12, 4), (13, 13, 1)]
    assert found[0].dropped == [Dropped(11, 0, Outcome.DEAD), Dropped(12, 1, Outcome.DEAD)]
    letters = [(one.sequence, one.index, one.step, one.body) for one in read_dead_letters(store)]
    assert letters == [(11, 0, "parse", b"{"), (12, 1, "parse", b"7")]
    assert counters(result) == {"unknown": 3}


def test_repairs_and_masked_secrets_are_counted(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    secret = b'{"url":"https://a.example/?sig=abcdefghijklmnopqrstuvwxyz"}'
    batches = [events(10, b"{'a':1}", b'{"a":1}{"b":2}', secret)]
    (found,), result = run(batches, Batch, Parse(store))
    assert counters(result) == {
        "unknown": 4,
        "repaired:single_quotes": 1,
        "repaired:concatenated_objects": 2,
        "masked": 1,
    }
    masked = found.alerts[3]
    assert masked.raw == b'{"url":"https://a.example/?sig=[masked]"}'
    assert masked.original == secret
    (found,), result = run(batches, Batch, Parse(store, masking=False))
    assert found.alerts[3].raw == secret
    assert "masked" not in counters(result)


def parse(store: StateStore, batch: Batch) -> AlertBatch:
    do_fn = _Parse(store)
    do_fn.setup()
    do_fn.start_bundle()
    (parsed,) = do_fn.process(batch)
    do_fn.finish_bundle()
    return parsed


def test_of_a_debt_only_the_records_that_are_owed_go_on(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    bodies = [b'{"n":0}', b'{"records":[{"n":1},{"n":2},8,{"n":3}]}', b'{"n":4}', b"{", b'{"n":5}']
    batch = events(20, *bodies, only="siem")
    batch.wanted = [Run(0, 1, 0), Run(19, 20, 0), Run(24, 9_000, 0), Run(21, 21, 3)]
    parsed = parse(store, batch)
    assert [(one.sequence, one.index, one.raw) for one in parsed.alerts] == [
        (20, 0, b'{"n":0}'),
        (21, 3, b'{"n":3}'),
        (24, 0, b'{"n":5}'),
    ]
    assert (parsed.size, parsed.dropped, parsed.only) == (3, [], "siem")
    assert list(read_dead_letters(store)) == [], "they were written when it was first read"


def test_what_was_owed_and_is_not_understood_any_more_is_a_dead_letter(tmp_path: Path) -> None:
    """Else it would be owed for ever: another version of this project may read otherwise."""
    batch = events(7, b'{"n":0}', b"{", only="siem")
    batch.wanted = [Run(8, 8, 0), Run(7, 7, 1)]
    store = StateStore(str(tmp_path))
    parsed = parse(store, batch)
    assert (parsed.size, parsed.alerts) == (2, [])
    assert parsed.dropped == [Dropped(7, 1, Outcome.DEAD), Dropped(8, 0, Outcome.DEAD)]
    letters = {(each.sequence, each.index): each for each in read_dead_letters(store)}
    assert letters[7, 1].reason == "it was owed, and the event holds no such record any more"
    assert letters[7, 1].body == b'{"n":0}'
    assert letters[8, 0].body == b"{"


def test_a_bundle_writes_its_own_dead_letters_only(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    do_fn = _Parse(store)
    do_fn.setup()
    for first in (0, 100):
        do_fn.start_bundle()
        list(do_fn.process(events(first, b"{")))
        do_fn.finish_bundle()
    assert len(list(store.list("dead"))) == 2


# ----------------------------------------------------------------------------- Enrich and Route


def test_enriching_sets_what_is_known_and_counts_what_is_not() -> None:
    batch = alerts(
        0, 1, made=[alert(0, subscription_id="s-1"), alert(1, subscription_id="s-2"), alert(2)]
    )
    about = {"s-1": Subscription("s-1", name="Pay")}
    (found,), result = run([batch], AlertBatch, Enrich(about))
    assert [one.subscription and one.subscription.name for one in found.alerts][:2] == ["Pay", ""]
    assert counters(result)[UNKNOWN_SUBSCRIPTION] >= 1


def test_a_sink_gets_what_its_conditions_let_through_and_the_rest_is_counted() -> None:
    where = Where(severity=AtLeast(at_least="high"))
    batch = alerts(0, 1, made=[alert(0), alert(1, severity="low")])
    (found,), _ = run([batch], AlertBatch, Route("siem", where))
    assert [one.sequence for one in found.alerts] == [0]
    assert found.dropped == [Dropped(1, 0, Outcome.NOT_ROUTED)]


def test_a_debt_goes_to_its_sink_alone_and_marks_go_to_none() -> None:
    where = Where(severity=AtLeast(at_least="high"))
    low = [alert(1, severity="low")]
    batches = [alerts(1, 1, made=low, only=name) for name in ("siem", "splunk", NOBODY)]
    found, _ = run(batches, AlertBatch, Route("siem", where))
    assert [(one.only, len(one.alerts)) for one in found] == [("siem", 1)]


# ------------------------------------------------------------------------------------- Digests


SHIFT = Shift(7)


def digests(windows: Any, shift: Shift | None = SHIFT, by: Any = ("severity",)) -> Digests:
    return Digests("storms", windows, by, early=30, lateness=3600, samples=2, shift=shift)


def told(found: list[Alert]) -> list[Digest]:
    return sorted(
        (from_json(one.raw) for one in found), key=lambda d: (d.start_ms, sorted(d.key.items()))
    )


def at(*seconds: float, **fields: Any) -> list[Alert]:
    """Alerts of these times after T0."""
    return [
        alert(n, event_ms=T0 + int(second * 1000), **fields) for n, second in enumerate(seconds)
    ]


def cut(made: list[Alert], size: int = 3) -> list[AlertBatch]:
    return [
        alerts(start, start + size - 1, made=made[start : start + size])
        for start in range(0, len(made), size)
    ]


def mixed(count: int) -> list[Alert]:
    rng = random.Random(5)
    return [
        alert(
            n,
            event_ms=T0 + rng.randrange(-3_600_000, 3_600_000),
            severity=rng.choice(["high", "low"]),
            status=rng.choice(["new", "resolved"]),
            key=rng.randbytes(16),
        )
        for n in range(count)
    ]


def test_fixed_windows_count_each_alert_once_by_its_own_time() -> None:
    made = mixed(200)
    found, _ = run(cut(made, 20), AlertBatch, digests(FixedWindows(300)))
    expected = Counter((one.event_ms // 300_000 * 300_000, one.severity) for one in made)
    panes = told(found)
    assert {(d.start_ms, d.key["severity"]): d.total for d in panes} == expected
    assert len(panes) == len(expected), "one pane a key and window"
    for d in panes:
        inside = [
            one
            for one in made
            if d.start_ms <= one.event_ms < d.end_ms and one.severity == d.key["severity"]
        ]
        assert d.end_ms == d.start_ms + 300_000
        assert (d.first_ms, d.last_ms) == (
            min(one.event_ms for one in inside),
            max(one.event_ms for one in inside),
        )
        assert d.statuses == Counter(one.status for one in inside)
        assert [s.id for s in d.samples] == sorted(one.event_id for one in inside)[:2]
        assert (d.name, d.pane) == ("storms", 7)


@pytest.mark.parametrize(("size", "every"), [(600, 300), (600, 250), (90, 60), (60, 90)])
def test_sliding_windows_count_each_alert_in_every_window_it_lies_in(size: int, every: int) -> None:
    made = mixed(60)
    found, _ = run(cut(made, 20), AlertBatch, digests(SlidingWindows(size, every), by=()))
    expected: Counter[int] = Counter()
    for one in made:
        start = one.event_ms // (every * 1000) * every * 1000
        while start > one.event_ms - size * 1000:
            expected[start] += 1
            start -= every * 1000
    assert {d.start_ms: d.total for d in told(found)} == expected
    assert {d.end_ms - d.start_ms for d in told(found)} <= {size * 1000}


def test_sessions_reach_from_the_first_alert_to_a_gap_after_the_last() -> None:
    made = at(0, 59.999, 100.5, 160.5, 400, 400.001)
    found, _ = run(cut(made, 2), AlertBatch, digests(Sessions(60)))
    assert [(d.start_ms - T0, d.end_ms - T0, d.total) for d in told(found)] == [
        (0, 160_500, 3),
        (160_500, 220_500, 1),  # a gap of exactly one minute parts
        (400_000, 460_001, 2),
    ]


def test_sessions_of_different_keys_do_not_join() -> None:
    made = at(0, severity="high") + at(30, severity="low")
    found, _ = run(cut(made), AlertBatch, digests(Sessions(60)))
    assert [(d.key["severity"], d.total) for d in told(found)] == [("high", 1), ("low", 1)]


def test_without_keys_everything_is_counted_together() -> None:
    found, _ = run(cut(mixed(30)), AlertBatch, digests(FixedWindows(7200), by=()))
    assert sum(d.total for d in told(found)) == 30
    assert {len(d.key) for d in told(found)} == {0}


def test_what_is_read_again_for_one_sink_or_to_mark_is_not_counted() -> None:
    batches = [alerts(0, 1, only="siem"), alerts(2, 3, only=NOBODY), alerts(4, 4)]
    found, _ = run(batches, AlertBatch, digests(FixedWindows(300)))
    assert sum(d.total for d in told(found)) == 1


@pytest.mark.parametrize("windows", [FixedWindows(300), SlidingWindows(600, 300), Sessions(60)])
def test_times_of_any_year_are_counted_and_crash_nothing(windows: Any) -> None:
    years = {
        "year 1": -62_135_596_800_000,
        "before 1970": -1,
        "1970": 0,
        "now": T0,
        "next century": 4_102_444_800_000,
        "year 9999": 253_402_300_799_999,
    }
    made = [alert(n, event_ms=ms, alert_type=said) for n, (said, ms) in enumerate(years.items())]
    found, _ = run(cut(made), AlertBatch, digests(windows, by=("alert_type",)))
    in_windows = 2 if isinstance(windows, SlidingWindows) else 1
    assert Counter(d.key["alert_type"] for d in told(found)) == dict.fromkeys(years, in_windows)
    for d in told(found):
        assert d.start_ms <= d.first_ms == years[d.key["alert_type"]] < d.end_ms


@pytest.mark.parametrize(
    ("start", "drained", "timing"),
    [
        (+3600, 0, "early"),  # not over yet
        (-30, 0, "early"),
        (-70, -100, "on_time"),  # ended since the last shift did
        (-400, 0, "on_time"),  # no shift before: it cannot have fired
        (-400, -10, "late"),  # had fired already
        (-400, -340, "late"),
    ],
)
def test_on_the_local_runner_the_clock_tells_which_pane_it_is(
    start: int, drained: int, timing: str
) -> None:
    now = int(time.time() * 1000)
    begins = now + start * 1000
    windows = FixedWindows(60, offset=begins // 1000 % 60)
    made = [alert(0, event_ms=begins // 1000 * 1000)]
    shift = Shift(3, now + drained * 1000 if drained else 0)
    found, _ = run(cut(made), AlertBatch, digests(windows, shift))
    assert [(d.timing, d.pane) for d in told(found)] == [(timing, 3)]


def test_the_panes_of_a_window_add_up_over_shifts() -> None:
    made = mixed(40)
    panes = []
    for number, part in enumerate((made[:25], made[25:])):
        found, _ = run(cut(part), AlertBatch, digests(FixedWindows(7200), Shift(number)))
        panes += told(found)
    sums: Counter[tuple[int, str]] = Counter()
    for d in panes:
        sums[d.start_ms, d.key["severity"]] += d.total
    assert sums == Counter((a.event_ms // 7_200_000 * 7_200_000, a.severity) for a in made)
    assert len({d.id for d in panes}) == len(panes), "each pane has its own id"


def test_the_digest_comes_as_an_alert_that_every_sink_can_write() -> None:
    (found,), _ = run(cut(at(1, 2)), AlertBatch, digests(FixedWindows(300)))
    assert isinstance(found, Alert)
    assert (found.kind, found.entity, found.severity) == ("digest", "storms", "high")
    assert msgspec.json.decode(found.raw)["total"] == 2
    assert found.event_id == from_json(found.raw).id


@pytest.mark.parametrize(
    ("windows", "slot"),
    [
        (FixedWindows(300), 300_000),
        (SlidingWindows(600, 250), 50_000),
        (SlidingWindows(90, 60), 30_000),
        (FixedWindows(60, offset=25), 5_000),
        (SlidingWindows(60, 30, offset=10), 10_000),
        (Sessions(60), 1),
    ],
)
def test_alerts_of_one_slot_always_share_their_windows(windows: Any, slot: int) -> None:
    assert _slot_ms(windows) == slot
    for start in (0, slot, 7 * slot, -3 * slot):
        inside = {
            tuple(map(str, windows.assign(window.WindowFn.AssignContext(ms / 1000))))
            for ms in (start, start + slot // 2, start + slot - 1)
        }
        assert len(inside) == 1


# ------------------------------------------------------ where Beam's own triggers fire (Flink)


def test_elsewhere_panes_come_early_on_time_and_late_and_are_let_go_of() -> None:
    into = digests(FixedWindows(300), shift=None)._window()
    windowing = into.windowing
    fires = windowing.triggerfn
    assert str(fires) == "AfterWatermark(early=AfterProcessingTime(delay=30), late=AfterCount(1))"
    assert windowing.accumulation_mode == trigger.AccumulationMode.DISCARDING
    assert windowing.allowed_lateness == Duration(3600)


def test_elsewhere_without_early_panes_there_are_none() -> None:
    step = Digests("s", Sessions(9), (), early=None, lateness=0, samples=1, shift=None)
    assert step._window().windowing.triggerfn.early is None


def test_a_fraction_of_a_second_is_not_rounded_to_nothing() -> None:
    step = Digests("s", Sessions(9), (), early=0.5, lateness=0.5, samples=1, shift=None)
    windowing = step._window().windowing
    assert "AfterProcessingTime(delay=1)" in str(windowing.triggerfn)
    assert windowing.allowed_lateness == Duration(0.5)


def test_on_the_local_runner_there_is_no_timer() -> None:
    windowing = digests(FixedWindows(300))._window().windowing
    assert windowing.triggerfn == trigger.DefaultTrigger()
    assert windowing.accumulation_mode == trigger.AccumulationMode.DISCARDING


def test_elsewhere_counts_of_early_on_time_and_late_panes_add_up() -> None:
    start = T0 // 1000
    stream = (
        streams.TestStream(coder=registry.get_coder(AlertBatch))
        .advance_watermark_to(start)
        .add_elements([*cut(at(1, 2))])
        .advance_processing_time(40)
        .add_elements([*cut(at(3))])
        .advance_watermark_to(start + 300)
        .add_elements([*cut(at(4))])
        .add_elements([*cut(at(5))])
        .advance_watermark_to(start + 300 + 4000)
        .add_elements([*cut(at(6))])  # beyond the allowed lateness
        .advance_watermark_to_infinity()
    )
    pipeline = beam.Pipeline(runner=BundleBasedDirectRunner())
    pipeline._options.view_as(beam.options.pipeline_options.StandardOptions).streaming = True
    out = pipeline | stream
    out.element_type = AlertBatch
    assert_that(out | digests(FixedWindows(300), shift=None), Keep())
    pipeline.run().wait_until_finish()
    panes = sorted(told(Keep.found), key=lambda d: d.pane)
    assert [(d.timing, d.total) for d in panes] == [
        ("early", 2),
        ("on_time", 1),
        ("late", 1),
        ("late", 1),
    ]
    assert [d.pane for d in panes] == [0, 1, 2, 3]
