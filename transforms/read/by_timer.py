"""Runs a splittable DoFn by a timer, for a source that never ends on a cluster: docs/adr/0018.

What it defers lies in one cell of state under the element's name, and one timer looks at it again.
A runner that does the deferring itself has more to keep: Beam's Flink runner a new state for each
time, which until apache/beam#39191 it never clears, under the bytes of an element, which it
expects to be the same in every process.

What gives it the elements must not end, nor its watermark: a processing-time timer of a window that
is over is passed over. `Endless` is the first of a chain of these.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Duration, Timestamp

__all__ = ["AHEAD_SECONDS", "ByTimer", "Endless"]

AHEAD_SECONDS = 10 * 366 * 86_400.0
"""How far a watermark that holds back nothing is put: behind the end of every window."""

_WATERMARK = ManualWatermarkEstimator.default_provider()
_LOOK_SECONDS = 86_400.0  # Beam's Flink runner keeps something for ever each time

_REST = ReadModifyWriteStateSpec("rest", BytesCoder())
_AGAIN = TimerSpec("again", TimeDomain.REAL_TIME)


class _Tracker:
    """What a splittable DoFn's `process` is given: claims, and the rest that it defers."""

    def __init__(self, tracker: Any) -> None:
        self.rest: Any = None
        self.delay = Duration(0)
        self._tracker = tracker

    def current_restriction(self) -> Any:
        return self._tracker.current_restriction()

    def try_claim(self, position: Any) -> bool:
        return bool(self._tracker.try_claim(position))

    def defer_remainder(self, delay: Duration | None = None) -> None:
        if split := self._tracker.try_split(0):
            _, self.rest = split
            self.delay = delay or self.delay

    def check_done(self) -> None:
        self._tracker.check_done()


class ByTimer(beam.DoFn):
    """`(name, element) → ` what `reads` gives of the element, until it defers no more.

    reads: a splittable DoFn with a watermark of its own (ManualWatermarkEstimator), which is also
    its RestrictionProvider. A name that is still being read is not begun again.
    """

    def __init__(self, reads: Any) -> None:
        self._reads = reads

    def setup(self) -> None:
        self._reads.setup()

    def start_bundle(self) -> None:
        self._reads.start_bundle()

    def finish_bundle(self) -> None:
        self._reads.finish_bundle()

    def teardown(self) -> None:
        self._reads.teardown()

    def process(  # type: ignore[no-untyped-def]
        self,
        named: tuple[str, Any],
        rest=beam.DoFn.StateParam(_REST),
        again=beam.DoFn.TimerParam(_AGAIN),
    ) -> Iterator[Any]:
        if rest.read() is None:
            _, element = named
            restriction = self._reads.initial_restriction(element)
            yield from self._look(element, restriction, None, rest, again)

    @on_timer(_AGAIN)
    def on_again(  # type: ignore[no-untyped-def]
        self, rest=beam.DoFn.StateParam(_REST), again=beam.DoFn.TimerParam(_AGAIN)
    ) -> Iterator[Any]:
        if kept := rest.read():
            element, restriction, watermark = pickle.loads(kept)  # noqa: S301 - our own
            yield from self._look(element, restriction, watermark, rest, again)

    def _look(
        self, element: Any, restriction: Any, watermark: Timestamp | None, rest: Any, again: Any
    ) -> Iterator[Any]:
        tracker = _Tracker(self._reads.create_tracker(restriction))
        estimator = ManualWatermarkEstimator(watermark)
        yield from self._reads.process(element, tracker, estimator)
        if tracker.rest is None:
            tracker.check_done()
            rest.clear()
            return
        watermark = estimator.current_watermark()
        rest.write(pickle.dumps((element, tracker.rest, watermark)))
        # A timer holds the watermark at this. Beam has it in its protocol, and no word for it.
        again._input_timestamp = MIN_TIMESTAMP if watermark is None else watermark
        again.set(Timestamp.of(time.time()) + tracker.delay)


class _Positions(OffsetRestrictionTracker):
    def is_bounded(self) -> bool:
        return False


class _Endless(beam.DoFn, beam.transforms.core.RestrictionProvider):
    def initial_restriction(self, element: Any) -> OffsetRange:
        return OffsetRange(0, sys.maxsize)

    def create_tracker(self, restriction: OffsetRange) -> _Positions:
        return _Positions(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:
        return 1

    @beam.DoFn.unbounded_per_element()
    def process(  # type: ignore[no-untyped-def]
        self,
        element: Any,
        tracker=beam.DoFn.RestrictionParam(),
        watermark=beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[TimestampedValue]:
        now = time.time()
        at = tracker.current_restriction().start
        if tracker.try_claim(at):
            if at == 0:
                yield TimestampedValue(element, Timestamp.of(now))
            watermark.set_watermark(Timestamp.of(now + AHEAD_SECONDS))
            tracker.defer_remainder(Duration(_LOOK_SECONDS))


class Endless(beam.PTransform):
    """`PBegin → PCollection[tuple[str, bytes]]`: one element of that name, at the time of its
    beginning; a watermark that lies ahead of all windows, and never ends."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._named = (name, b"")

    def expand(self, begin: Any) -> Any:
        return (
            begin
            | "Begin" >> beam.Create([self._named], reshuffle=False)
            | "Go on" >> beam.ParDo(_Endless()).with_output_types(tuple[str, bytes])
        )
