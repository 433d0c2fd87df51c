"""What the source writes down before it hands a batch on: gaps, and how far it has read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator

from schemas.batch import Batch, Origin
from tests.transforms.read.test_event_hubs import Tracked
from transforms.gaps import gaps
from transforms.hand_over import marks
from transforms.read.access import EventHubsAccess
from transforms.read.event_hubs import END, Partition, ReadPartition
from transforms.read.frames import Event
from transforms.read.reader import close_session, session
from transforms.state_store import StateStore

ORIGIN = Origin("ns/hub/$Default", "0")
runs = (f"handed on {n}" for n in itertools.count())


class _Reader(mock.Mock):
    """A reader that holds these events of the one partition, and has no more."""

    def holding(self, sequences: Sequence[int]) -> _Reader:
        self.left = [Event(n, 1_000 + n, b"%d" % n, None, None) for n in sequences]
        return self

    def ready(self) -> int:
        return 1

    def take(self, partition: str, stop: int, events: int, size: int) -> list[Event]:
        taken = [event for event in self.left if event.sequence < stop]
        self.left = self.left[len(taken) :]
        return taken

    def wait(self, partition: str, stop: int, timeout: float) -> str:
        return "past" if self.left else "late"

    def waiting(self, partition: str) -> bool:
        return False

    def quiet(self, partition: str, seconds: float) -> bool:
        return False


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


Read = Callable[..., Iterator[Batch]]


@pytest.fixture
def read(store: StateStore) -> Iterator[Read]:
    """The batches that a partition's source hands on, as it holds these events."""
    run = next(runs)

    def batches(*sequences: int, start: int = 0, stop: int = END) -> Iterator[Batch]:
        session(run)._readers[ORIGIN.source] = _Reader().holding(sequences)
        access = EventHubsAccess(hub="hub", namespace="ns")
        element = Partition(ORIGIN.source, ORIGIN.partition, access, start, stop)
        do_fn = ReadPartition(run, store)
        do_fn._may_wait, do_fn._sharers = False, 0
        tracker: Any = Tracked(start, stop)
        for one in do_fn.process(element, tracker, ManualWatermarkEstimator(None)):
            yield one.value

    yield batches
    close_session(run)


def missing(store: StateStore) -> list[tuple[int, int]]:
    return [(gap.first, gap.last) for gap in gaps(store, ORIGIN)]


def test_events_that_are_missing_between_others_are_a_gap_within_the_batch(
    read: Read, store: StateStore
) -> None:
    batch = next(read(12, 13, 20, start=10))
    assert missing(store) == [(10, 11), (14, 19)], "before it was handed on"
    assert (batch.first, batch.last) == (10, 20), "ranges have no hole: positions move over them"
    assert [record.sequence for record in batch.records] == [12, 13, 20]


def test_where_nothing_is_missing_there_is_no_gap(read: Read, store: StateStore) -> None:
    assert [(batch.first, batch.last) for batch in read(10, 11, 12, start=10)] == [(10, 12)]
    assert missing(store) == []


def test_the_rest_of_a_range_that_is_gone_is_a_gap(read: Read, store: StateStore) -> None:
    assert [*read(40, start=10, stop=20)] == []
    assert missing(store) == [(10, 19)]


def test_how_far_it_was_read_is_in_the_store_before_a_batch_is_handed_on(
    read: Read, store: StateStore
) -> None:
    batch = next(read(7, 8, 9, start=7))
    assert marks(store)[str(ORIGIN)] >= batch.last == 9
