"""A job for tests of the engines themselves: numbers, counted on for ever, each written to a file.

It streams as forwarding does: a splittable DoFn that defers, an exchange by key, keyed state.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.utils.timestamp import Duration

__all__ = ["counted", "numbers", "squares", "state_is_exact"]

_FOREVER = 2**40
_BATCH = 5


class _Numbers(RestrictionProvider):
    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, _FOREVER)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return 1

    def truncate(self, element: int, restriction: OffsetRange) -> None:
        return None  # it ends when the job is drained


_NUMBERS = _Numbers()


class _Count(beam.DoFn):
    """Lane and number: five of each lane, ten times a second."""

    @beam.DoFn.unbounded_per_element()
    def process(
        self, lane: int, tracker: Any = beam.DoFn.RestrictionParam(_NUMBERS)
    ) -> Iterator[tuple[int, int]]:
        at = tracker.current_restriction().start
        for number in range(at, at + _BATCH):
            if not tracker.try_claim(number):
                return
            yield lane, number
        tracker.defer_remainder(Duration(0.1))


class _Write(beam.DoFn):
    """`lane number state` a line, of which the last counts what came in that lane; a file for each
    process, which is not flushed before a bundle's end is."""

    SEEN = ReadModifyWriteStateSpec("seen", VarIntCoder())

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, pair: tuple[int, int], seen: Any = beam.DoFn.StateParam(SEEN)) -> None:
        count = (seen.read() or 0) + 1
        seen.write(count)
        with (Path(self._folder) / str(os.getpid())).open("a") as file:
            file.write(f"{pair[0]} {pair[1]} {count}\n")


def counted(pipeline: beam.Pipeline, folder: Path, lanes: int = 4) -> None:
    """Count on for ever, in so many lanes."""
    _ = (
        pipeline
        | "Lanes" >> beam.Create(range(lanes))
        | "Count" >> beam.ParDo(_Count())
        | "Write" >> beam.ParDo(_Write(str(folder)))
    )


def numbers(folder: Path) -> dict[int, Counter[int]]:
    """What was written, by lane: how often each number."""
    found: dict[int, Counter[int]] = {}
    for file in folder.iterdir():
        for line in file.read_text().split("\n")[:-1]:
            lane, number, _ = map(int, line.split())
            found.setdefault(lane, Counter())[number] += 1
    return found


def state_is_exact(folder: Path) -> bool:
    """Each number of a lane was counted once, as often as it was written."""
    lines = (line.split() for file in folder.iterdir() for line in file.read_text().splitlines())
    return all(int(number) + 1 == int(count) for _, number, count in lines)


def squares(pipeline: beam.Pipeline, folder: Path, count: int = 1000) -> None:
    """Bounded: the numbers below `count`, summed by their last digit, each sum into a file."""
    _ = (
        pipeline
        | "Numbers" >> beam.Create(range(count))
        | "Digit" >> beam.Map(lambda number: (number % 10, number))
        | "Sum" >> beam.CombinePerKey(sum)
        | "File" >> beam.Map(_file, str(folder))
    )


def _file(total: tuple[int, int], folder: str) -> None:
    (Path(folder) / str(total[0])).write_text(str(total[1]))
