"""What a cluster's workers tell of themselves says when a job that drains may be stopped."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from transforms.state_store import StateStore
from transforms.workers import ALL, Beat, beats, drained, silent, together


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def told(
    store: StateStore, name: str, looked: tuple[str, ...], ended: tuple[str, ...] = (),
    run: str = "run", age: float = 0,
) -> None:  # fmt: skip
    """A worker's last word."""
    at_ms = int((time.time() - age) * 1000)
    beat = Beat(run, at_ms, [], dict.fromkeys(looked, at_ms), {}, [*ended])
    store.put(f"workers/{name}.json", msgspec.json.encode(beat))


def test_workers_are_silent_once_each_partition_that_any_of_them_read_is_ended_by_one(
    store: StateStore,
) -> None:
    assert not silent(store, "run"), "nobody has told anything yet"
    told(store, "a", ("0", "1"), ("0",))
    assert not silent(store, "run")
    told(store, "b", ("1",), ("1",))  # it has moved there
    assert silent(store, "run")
    told(store, "c", ("2",), run="another")
    assert silent(store, "run") and not silent(store, "another")


def test_a_job_is_drained_only_when_nothing_more_is_handed_out(store: StateStore) -> None:
    told(store, "a", ("0",), ("0",))
    assert silent(store, "run") and not drained(store, "run")
    told(store, "b", (), (ALL,), run="another")
    assert not drained(store, "run")
    told(store, "b", (), (ALL,))
    assert drained(store, "run")


def test_workers_that_told_nothing_for_an_hour_are_forgotten(store: StateStore) -> None:
    told(store, "a", ("0",), age=3_700)
    told(store, "b", ("1",), ("1",))
    assert [beat.looked_ms.keys() for beat in beats(store)] == [{"1"}]
    assert silent(store, "run")
    assert [*store.list("workers")] == ["workers/b.json"]


def test_a_partition_was_looked_at_when_the_last_of_them_did(store: StateStore) -> None:
    told(store, "a", ("0",), age=60)
    told(store, "b", ("0",))
    assert together("run", beats(store)).looked_ms["0"] > (time.time() - 30) * 1000
