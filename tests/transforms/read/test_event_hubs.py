"""Event Hubs as a Beam source: through the local runner, and the DoFn by itself."""

from __future__ import annotations

import itertools
import pickle
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from pipelines.local.hub import EmbeddedHub, Retention
from schemas.alert import Alert
from schemas.batch import Batch
from schemas.digest import from_json
from tests.transforms.read.conftest import HUB, until
from transforms.read import event_hubs, reader
from transforms.read.access import EventHubsAccess
from transforms.read.event_hubs import END, Partition, ReadEventHubs, ReadPartition, _Tracker
from transforms.read.reader import close_session, session
from transforms.state_store import StateStore
from transforms.steps import Digests, Parse, Shift

Access = Callable[..., EventHubsAccess]
SOURCE = "hub"

runs = (f"read {n}" for n in itertools.count())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_BACKOFF_SECONDS", (0.005, 0.05))


@pytest.fixture
def run() -> Iterator[str]:
    """The name of a run that no other test has."""
    name = next(runs)
    yield name
    close_session(name)


CAME: defaultdict[str, list[tuple[Any, float]]] = defaultdict(list)
"""What came out of a run's pipeline, and when."""


def keep(value: Any, run: str) -> None:
    CAME[run].append((value, time.monotonic()))


class Pipeline:
    """A live pipeline in a thread: `with` drains it and raises what it raised."""

    def __init__(self, run: str, partitions: list[Partition], *steps: Any) -> None:
        self.run = run
        self._pipeline = beam.Pipeline(runner=FnApiRunner())
        out = self._pipeline | "Read" >> ReadEventHubs(run, partitions)
        for step in steps:
            out = out | step
        _ = out | "Keep" >> beam.Map(keep, run)
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        try:
            self._pipeline.run().wait_until_finish()
        except BaseException as error:
            self._failed.append(error)

    def __enter__(self) -> Pipeline:
        session(self.run).draining = False
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        session(self.run).draining = True
        self.join()

    def join(self, seconds: float = 20.0) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the pipeline did not end"
        if self._failed:
            raise self._failed[0]

    @property
    def batches(self) -> list[Batch]:
        return [value for value, _ in CAME[self.run]]

    def bodies(self, partition: str) -> list[bytes]:
        return [
            record.body
            for batch in self.batches
            if batch.origin.partition == partition
            for record in batch.records
        ]

    def count(self) -> int:
        return sum(len(batch.records) for batch in self.batches)


def tiles(batches: list[Batch], start: int = 0) -> int:
    """Checks that the batches of one partition follow each other without a gap; where they end."""
    for batch in batches:
        assert batch.first == start
        assert [record.sequence for record in batch.records] == list(range(start, batch.last + 1))
        start = batch.last + 1
    return start


# --------------------------------------------------------------------------- through the runner


def test_everything_arrives_once_in_order_and_batches_tile_each_partition(
    separate_hub: Any, access: Access, run: str
) -> None:
    hub = separate_hub(hubs={HUB: 3})
    for partition in range(3):
        hub.publish(HUB, [b"%d-%d" % (partition, n) for n in range(450)], partition)
    partitions = [Partition(SOURCE, str(n), access(hub), 0) for n in range(3)]
    with Pipeline(run, partitions) as pipeline:
        until(lambda: pipeline.count() == 1350)
        hub.publish(HUB, [b"2-450"], 2)
        until(lambda: pipeline.count() == 1351)
    for n in range(3):
        mine = [batch for batch in pipeline.batches if batch.origin.partition == str(n)]
        assert tiles(mine) == 450 + (n == 2)
        assert pipeline.bodies(str(n)) == [b"%d-%d" % (n, i) for i in range(450 + (n == 2))]
        assert all(len(batch.records) <= 200 for batch in mine)
        assert {(batch.origin.source, batch.only, batch.wanted) for batch in mine} == {
            (SOURCE, None, None)
        }


def test_a_drain_ends_the_run_with_all_that_was_taken_delivered(
    hub: EmbeddedHub, access: Access, run: str, partition: str
) -> None:
    """And the next shift goes on behind it: nothing is missing, nothing comes twice."""
    made = itertools.count()
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            hub.publish(HUB, [b"%d" % next(made) for _ in range(20)], partition)
            time.sleep(0.002)

    publisher = threading.Thread(target=publish)
    publisher.start()
    position = 0
    for _ in range(3):
        before = len(CAME[run])
        with Pipeline(run, [Partition(SOURCE, partition, access(hub), position)]) as pipeline:
            until(lambda before=before: len(CAME[run]) > before + 3)
        taken = session(run).status()[0].next
        position = tiles(pipeline.batches)
        assert position == taken, "everything that was taken was delivered"
    stop.set()
    publisher.join()
    with Pipeline(run, [Partition(SOURCE, partition, access(hub), position)]) as pipeline:
        last = next(made)
        until(lambda: pipeline.count() == last)
    assert pipeline.bodies(partition) == [b"%d" % n for n in range(last)]


def test_a_drain_of_idle_partitions_is_quick(hub: EmbeddedHub, access: Access, run: str) -> None:
    partitions = [Partition(SOURCE, str(n), access(hub), END - 1) for n in range(3)]
    with Pipeline(run, partitions):
        until(lambda: session(run).status())
        began = time.monotonic()
    assert time.monotonic() - began < 1.5


def test_a_range_with_an_end_is_read_to_it_and_the_run_ends_by_itself(
    separate_hub: Any, access: Access, run: str
) -> None:
    hub = separate_hub(hubs={HUB: 3})
    for partition in range(3):
        hub.publish(HUB, [b"x"] * 300, partition)
    stops = (300, 120, 0)
    partitions = [Partition(SOURCE, str(n), access(hub), 0, stop) for n, stop in enumerate(stops)]
    pipeline = Pipeline(run, partitions)
    with pipeline:
        pipeline.join()
    assert [len(pipeline.bodies(str(n))) for n in range(3)] == [300, 120, 0]
    assert session(run).ready() == 0, "what lies behind the end keeps nobody awake"


def test_a_range_whose_events_are_gone_ends_too(
    separate_hub: Any, access: Access, run: str
) -> None:
    """Retention overtook it between the listing and the reading."""
    hub = separate_hub(hubs={HUB: 1}, retention=Retention(events=5))
    hub.publish(HUB, [b"%d" % n for n in range(50)], 0)
    pipeline = Pipeline(run, [Partition(SOURCE, "0", access(hub), 10, 40)])
    with pipeline:
        pipeline.join()
    assert pipeline.batches == []


def test_faults_on_the_way_cost_nothing(
    hub: EmbeddedHub, access: Access, run: str, partition: str
) -> None:
    with Pipeline(run, [Partition(SOURCE, partition, access(hub), 0)]) as pipeline:
        for n in range(10):
            hub.publish(HUB, [b"%d" % n] * 30, partition)
            if n % 2:
                hub.drop_connections()
            else:
                hub.refuse_attaches(1)
                hub.detach_links(HUB)
            until(lambda n=n: pipeline.count() > n * 15)
        until(lambda: pipeline.count() == 300)
    assert tiles(pipeline.batches) == 300


def test_a_hub_that_is_down_stops_no_other(
    separate_hub: Any, hub: EmbeddedHub, access: Access, run: str, partition: str
) -> None:
    gone = separate_hub()
    partitions = [
        Partition("gone", "0", access(gone), 0),
        Partition(SOURCE, partition, access(hub), 0),
    ]
    gone.stop()
    with Pipeline(run, partitions) as pipeline:
        hub.publish(HUB, [b"x"] * 10, partition)
        until(lambda: pipeline.count() == 10)
        until(lambda: any(one.error for one in session(run).status()))
    assert [one.error == "" for one in session(run).status()] == [False, True]


def test_an_alert_is_there_at_once_beside_31_idle_partitions(
    hub: EmbeddedHub, access: Access, run: str
) -> None:
    busy = 31
    starts = [hub.partition_info(HUB, n).last_sequence_number + 1 for n in range(32)]
    partitions = [Partition(SOURCE, str(n), access(hub), starts[n]) for n in range(32)]
    published: list[float] = []
    with Pipeline(run, partitions) as pipeline:
        until(lambda: len(session(run).status()) == 32)
        until(lambda: all(one.connected for one in session(run).status()))
        began, used = time.monotonic(), time.process_time()
        while len(published) < 30:
            published.append(time.monotonic())
            hub.publish(HUB, [b"%d" % len(published)], busy)
            time.sleep(0.1)
        used = (time.process_time() - used) / (time.monotonic() - began)
        until(lambda: pipeline.count() == 30)
    arrived = [at for batch, at in CAME[run] for _ in batch.records]
    waited = sorted(end - start for start, end in zip(published, arrived, strict=True))
    assert waited[-1] < 0.5, waited
    assert used < 0.5, f"{used:.0%} of a core for ten alerts a second"


def read_up_to(run: str) -> int:
    return sum(one.next for one in session(run).status())


def test_windows_fire_at_the_drain_and_count_what_came_late(
    separate_hub: Any, access: Access, run: str, tmp_path: Any
) -> None:
    """The watermark is at the enqueued time; what an alert says of its own time lies before."""
    hub = separate_hub(hubs={HUB: 1})
    bodies = [
        b'{"n":%d,"SystemAlertId":"%d","TimeGenerated":"%s"}' % (n, n, when)
        for n, when in enumerate([b"2020-01-01T00:00:01Z", b"2020-01-01T00:09:00Z"] * 20)
    ]
    digests = Digests(
        "storms", FixedWindows(300), (), early=None, lateness=0, samples=0, shift=Shift(1)
    )
    with Pipeline(
        run,
        [Partition(SOURCE, "0", access(hub), 0)],
        Parse(StateStore(str(tmp_path))),
        digests,
    ):
        for start in range(0, 40, 10):
            hub.publish(HUB, bodies[start : start + 10], 0)
            until(lambda start=start: read_up_to(run) == start + 10)
    panes: list[Alert] = [value for value, _ in CAME[run]]
    assert sum(from_json(pane.raw).total for pane in panes) == 40


# -------------------------------------------------------------------------- the DoFn by itself


class Tracked:
    """A tracker as the runner gives it to `process`."""

    def __init__(self, start: int, stop: int = END) -> None:
        self.inner = _Tracker(OffsetRange(start, stop))
        self.deferred = False

    def current_restriction(self) -> OffsetRange:
        return self.inner.current_restriction()

    def try_claim(self, position: int) -> bool:
        return self.inner.try_claim(position)

    def defer_remainder(self, rest: Any = None) -> None:
        self.deferred = True


class Slices:
    """Calls `process` as a runner does, slice after slice, for one partition."""

    def __init__(self, run: str, element: Partition) -> None:
        self.do_fn = ReadPartition(run)
        self.element = element
        self.position = element.start
        self.watermark = ManualWatermarkEstimator(None)

    def next(self, tracker: Tracked | None = None) -> list[TimestampedValue]:
        self.do_fn.start_bundle()
        tracker = tracker or Tracked(self.position, self.element.stop)
        made = list(self.do_fn.process(self.element, tracker, self.watermark))
        if made:
            self.position = made[-1].value.last + 1
        self.tracker = tracker
        return made

    def read(self, count: int) -> list[TimestampedValue]:
        made: list[TimestampedValue] = []
        end = time.monotonic() + 10
        while sum(len(one.value.records) for one in made) < count:
            assert time.monotonic() < end
            made += self.next()
        return made


@pytest.fixture
def sliced(run: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Slices]:
    """Makes the slices of a partition; an idle one lasts some ms."""
    monkeypatch.setattr(event_hubs, "_IDLE_SECONDS", 0.02)
    monkeypatch.setattr(event_hubs, "_GATHER_SECONDS", 0.0)
    return lambda *element: Slices(run, Partition(SOURCE, *element))


def test_batches_are_timestamped_by_the_enqueued_time_of_their_last_event(
    separate_hub: Any, access: Access, sliced: Any
) -> None:
    clock = iter(range(5_000, 10**6, 1_000))
    hub = separate_hub(clock=lambda: next(clock))
    for _ in range(3):
        hub.publish(HUB, [b"x"], 0)
    slices = sliced("0", access(hub), 0)
    made = slices.read(3)
    times = [record.enqueued_ms for one in made for record in one.value.records]
    assert times == sorted(times)
    assert [one.timestamp for one in made] == [
        Timestamp(micros=one.value.records[-1].enqueued_ms * 1000) for one in made
    ]
    assert slices.watermark.current_watermark() == made[-1].timestamp


def test_the_backlog_is_reported_as_the_hub_tells_it(
    separate_hub: Any, access: Access, sliced: Any
) -> None:
    hub = separate_hub()
    element = Partition(SOURCE, "0", access(hub), 0)
    slices = sliced(*element[1:])
    size = slices.do_fn.restriction_size
    assert size(element, OffsetRange(0, END)) == 0, "nothing is known yet"
    hub.publish(HUB, [b"x"] * 50, 0)
    slices.read(50)
    assert size(element, OffsetRange(10, END)) == 40
    assert size(element, OffsetRange(50, END)) == 0
    assert size(element, OffsetRange(10, 30)) == 20, "a range with an end has its own size"


def test_an_idle_partition_does_not_hold_back_the_watermark(
    hub: EmbeddedHub, access: Access, sliced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hubs, "_IDLE_WATERMARK_SECONDS", 0.05)
    start = hub.partition_info(HUB, 29).last_sequence_number + 1
    slices = sliced("29", access(hub), start)

    def now() -> bool:
        assert slices.next() == []
        reached = slices.watermark.current_watermark()
        return reached is not None and time.time() - 1 < reached.micros / 1e6 < time.time()

    until(now)


def test_a_hub_that_cannot_be_reached_holds_back_the_watermark(
    separate_hub: Any, access: Access, sliced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there is still to come."""
    monkeypatch.setattr(event_hubs, "_IDLE_WATERMARK_SECONDS", 0.0)
    hub = separate_hub()
    element = Partition(SOURCE, "0", access(hub), 0)
    hub.stop()
    slices = sliced(*element[1:])
    for _ in range(5):
        slices.next()
    assert slices.watermark.current_watermark() is None


def test_the_watermark_never_passes_what_is_still_to_come(
    separate_hub: Any, access: Access, sliced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catching up with days that lie back, the buffer is empty for a moment now and then."""
    monkeypatch.setattr(event_hubs, "_IDLE_WATERMARK_SECONDS", 0.05)
    clock = itertools.count(1_000_000, 60_000)
    hub = separate_hub(clock=lambda: next(clock))
    for _ in range(40):
        hub.publish(HUB, [b"x"], 0)
    hub.slow_down(0.005)
    slices = sliced("0", access(hub), 0)
    while slices.position < 40:
        before = slices.watermark.current_watermark()
        for one in slices.next():
            assert before is None or before <= one.timestamp
    until(lambda: slices.next() or slices.watermark.current_watermark() > Timestamp(10**9))


def test_the_watermark_never_goes_back() -> None:
    watermark = ManualWatermarkEstimator(None)
    for at, expected in ((5, 5), (3, 5), (8, 8)):
        ReadPartition._advance(watermark, Timestamp(at))
        assert watermark.current_watermark() == Timestamp(expected)


def test_a_slice_is_bounded_by_bytes_and_goes_on_where_it_ended(
    separate_hub: Any, access: Access, sliced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadPartition, "bytes", 300_000)
    monkeypatch.setattr(event_hubs, "_BATCH_BYTES", 100_000)
    hub = separate_hub()
    for _ in range(10):
        hub.publish(HUB, [b"x" * 10_000] * 20, 0)
    slices = sliced("0", access(hub), 0)
    found: list[Batch] = []
    while slices.position < 200:
        made = slices.next()
        assert len(made) <= 3, "three batches of 100 kB fill it"
        assert slices.tracker.deferred
        found += [one.value for one in made]
    assert tiles(found) == 200


def test_a_slice_ends_as_soon_as_nothing_waits(
    separate_hub: Any, access: Access, run: str, sliced: Any
) -> None:
    hub = separate_hub()
    slices = sliced("0", access(hub), 0)
    slices.next()
    until(lambda: session(run).status()[0].connected)
    hub.publish(HUB, [b"x"] * 3, 0)
    until(lambda: session(run).ready())
    began = time.monotonic()
    assert len(slices.next()[0].value.records) == 3
    assert time.monotonic() - began < 0.2
    assert slices.tracker.deferred


def test_only_the_first_idle_partition_of_a_bundle_waits(
    hub: EmbeddedHub, access: Access, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hubs, "_IDLE_SECONDS", 0.2)
    do_fn = ReadPartition(run)
    do_fn.start_bundle()
    waited = []
    for n in range(20, 28):
        start = hub.partition_info(HUB, n).last_sequence_number + 1
        began = time.monotonic()
        tracker = Tracked(start)
        element = Partition(SOURCE, str(n), access(hub), start)
        assert list(do_fn.process(element, tracker, ManualWatermarkEstimator(None))) == []
        assert tracker.deferred
        waited.append(time.monotonic() - began)
    assert 0.15 < waited[0] < 1
    assert sum(waited[1:]) < 0.15


def test_a_claim_that_is_refused_leaves_the_events_for_whoever_goes_on(
    separate_hub: Any, access: Access, run: str, sliced: Any
) -> None:
    """The runner split the range while the events were being taken."""
    hub = separate_hub()
    hub.publish(HUB, [b"x"] * 10, 0)
    slices = sliced("0", access(hub), 0)
    background = session(run).reader(SOURCE, slices.element.access)
    background.seek("0", 0)
    until(lambda: background.waiting("0"))
    refused = Tracked(0)
    refused.try_claim = lambda position: False  # type: ignore[method-assign]
    assert slices.next(refused) == []
    assert tiles([one.value for one in slices.read(10)]) == 10


def test_drained_a_range_is_claimed_to_its_end(
    hub: EmbeddedHub, access: Access, run: str, sliced: Any
) -> None:
    slices = sliced("28", access(hub), 0)
    session(run).draining = True
    assert slices.next() == []
    slices.tracker.inner.check_done()
    assert not slices.tracker.deferred


def test_a_range_is_split_at_its_position_only() -> None:
    """A partition has one reader: a part of the range elsewhere would read it a second time."""
    tracker = _Tracker(OffsetRange(0, END))
    tracker.try_claim(41)
    assert tracker.try_split(0.5) is None
    assert not tracker.is_bounded()
    done, rest = tracker.try_split(0)
    assert (done, rest) == (OffsetRange(0, 42), OffsetRange(42, END))
    assert _Tracker(OffsetRange(0, 9)).is_bounded()


def test_what_is_to_be_read_can_be_shipped_and_holds_no_secret(
    hub: EmbeddedHub, access: Access
) -> None:
    element = Partition(
        SOURCE, "0", access(hub, string="Endpoint=sb://x/;SharedAccessKey=s3cr3t"), 5
    )
    packed = pickle.dumps(element)
    assert pickle.loads(packed) == element
    assert b"s3cr3t" not in packed


def test_a_range_never_ends_before_it_begins(hub: EmbeddedHub, access: Access, run: str) -> None:
    """The checkpoint may lie behind what was in the hub when it was listed."""
    made = ReadPartition(run).initial_restriction(Partition(SOURCE, "0", access(hub), 50, 40))
    assert made == OffsetRange(50, 50)
