"""A splittable DoFn that is run by a timer goes on where it deferred, and holds its watermark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Duration, Timestamp

from transforms.read.by_timer import ByTimer, _Endless


class Counts(beam.DoFn, beam.transforms.core.RestrictionProvider):
    """Two numbers a time, up to the element's; its watermark is the last of them."""

    def __init__(self, forgets: bool = False) -> None:
        self.forgets = forgets
        self.called: list[str] = []

    def setup(self) -> None:
        self.called.append("setup")

    def start_bundle(self) -> None:
        self.called.append("start")

    def finish_bundle(self) -> None:
        self.called.append("finish")

    def teardown(self) -> None:
        self.called.append("teardown")

    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, element)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return int(restriction.size())

    def process(self, element: int, tracker: Any, watermark: Any) -> Iterator[int]:
        first = tracker.current_restriction().start
        for number in range(first, first + 2):
            if not tracker.try_claim(number):
                return
            watermark.set_watermark(Timestamp(number))
            yield number
        if not self.forgets:
            tracker.defer_remainder(Duration(5))


class Cell:
    """Both a state and a timer of one key, as Beam gives them."""

    def __init__(self) -> None:
        self.kept: bytes | None = None
        self.fires: Timestamp | None = None
        self._input_timestamp = Timestamp(77)

    def read(self) -> bytes | None:
        return self.kept

    def write(self, value: bytes) -> None:
        self.kept = value

    def clear(self) -> None:
        self.kept = None

    def set(self, at: Timestamp) -> None:
        self.fires = at


def test_it_goes_on_where_it_deferred_until_nothing_is_left_and_then_keeps_nothing() -> None:
    given, cell = ByTimer(Counts()), Cell()
    assert [*given.process(("five", 5), cell, cell)] == [0, 1]
    found = []
    while cell.kept is not None:
        assert cell.fires is not None and cell.fires > Timestamp.now()
        cell.fires = None
        found.append([*given.on_again(cell, cell)])
    assert found == [[2, 3], [4]]
    assert cell.fires is None
    assert [*given.on_again(cell, cell)] == [], "a timer that is late"


def test_its_timer_holds_the_watermark_where_reading_stands() -> None:
    given, cell = ByTimer(Counts()), Cell()
    assert [*given.process(("nine", 9), cell, cell)] == [0, 1]
    assert cell._input_timestamp == Timestamp(1)
    assert [*given.on_again(cell, cell)] == [2, 3]
    assert cell._input_timestamp == Timestamp(3)


def test_without_a_watermark_it_holds_all() -> None:
    class Silent(Counts):
        def process(self, element: int, tracker: Any, watermark: Any) -> Iterator[int]:
            yield from ()
            tracker.defer_remainder()

    cell = Cell()
    assert [*ByTimer(Silent()).process(("x", 3), cell, cell)] == []
    assert cell._input_timestamp == MIN_TIMESTAMP


def test_a_name_that_is_being_read_is_not_begun_again() -> None:
    given, cell = ByTimer(Counts()), Cell()
    assert [*given.process(("five", 5), cell, cell)] == [0, 1]
    assert [*given.process(("five", 5), cell, cell)] == []
    assert [*given.on_again(cell, cell)] == [2, 3]


def test_what_is_neither_read_nor_deferred_is_an_error() -> None:
    cell = Cell()
    with pytest.raises(ValueError, match="claim"):
        [*ByTimer(Counts(forgets=True)).process(("five", 5), cell, cell)]


def test_bundles_and_ends_are_told_to_it() -> None:
    reads = Counts()
    given = ByTimer(reads)
    given.setup()
    given.start_bundle()
    given.finish_bundle()
    given.teardown()
    assert reads.called == ["setup", "start", "finish", "teardown"]


def test_in_a_pipeline_every_element_is_read_to_its_end() -> None:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        named = pipeline | beam.Create([("five", 5), ("two", 2), ("none", 0)])
        read = named | beam.ParDo(ByTimer(Counts()))
        assert_that(read, equal_to([0, 1, 2, 3, 4, 0, 1]))


def test_what_gives_the_first_element_gives_it_once_and_never_ends_nor_holds_a_window() -> None:
    endless, restriction = _Endless(), _Endless().initial_restriction("one")
    given, year = [], 366 * 86_400
    for _ in range(3):
        tracker = ThreadsafeRestrictionTracker(endless.create_tracker(restriction))
        watermark = ManualWatermarkEstimator(None)
        found = endless.process("one", RestrictionTrackerView(tracker), watermark)
        given += [each.value for each in found]
        restriction, delay = tracker.deferred_status()
        assert watermark.current_watermark() > Timestamp.now() + year
        assert Duration(3600) < delay < Duration(year)
        tracker.check_done()
    assert given == ["one"]
