"""What a job can be resumed from outlasts the cluster that it ran on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cluster.flink import Checkpoint, Flink
from pipelines.cluster.savepoints import Saved, kept, learn, newest, stopped, submitted
from tests.cluster.flink_double import FlinkDouble, checkpoint
from transforms.state_store import StateStore


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    made = StateStore(str(tmp_path / "state"))
    made.prepare()
    return made


@pytest.fixture
def double() -> Iterator[FlinkDouble]:
    with FlinkDouble() as made:
        yield made


def retained(folder: Path, number: int, at: float) -> Path:
    """A checkpoint as Flink lays it out."""
    made = folder / f"chk-{number}"
    made.mkdir(parents=True)
    (made / "_metadata").write_bytes(b"")
    os.utime(made / "_metadata", (at, at))
    return made


def test_nothing_is_known_of_a_job_that_never_ran(store: StateStore) -> None:
    assert newest(store, "alertbeam") is None


def test_what_is_kept_comes_back(store: StateStore) -> None:
    submitted(store, "a/../b", "jobmanager:8081", "1" * 32, 5)
    learn(store, "a/../b", Checkpoint(7, 10, 100, 1, "abfss://c/chk-7"))
    stopped(store, "a/../b", Saved("abfss://s/1", 20, 200))
    known = kept(store, "a/../b")
    assert (known.cluster, known.job, known.submitted_ms) == ("jobmanager:8081", "1" * 32, 5)
    assert known.checkpoint == Saved("abfss://c/chk-7", 10, 100)
    assert known.savepoints == [Saved("abfss://s/1", 20, 200)]
    assert list(store.list("flink")) == ["flink/a%2F..%2Fb.json"]


def test_the_newest_is_taken_whichever_it_is(store: StateStore) -> None:
    stopped(store, "x", Saved("abfss://s/1", 20))
    learn(store, "x", Checkpoint(7, 10, 100, 1, "abfss://c/chk-7"))
    assert newest(store, "x") == Saved("abfss://s/1", 20)
    learn(store, "x", Checkpoint(9, 30, 100, 1, "abfss://c/chk-9"))
    assert newest(store, "x") == Saved("abfss://c/chk-9", 30, 100)


def test_what_cannot_be_resumed_from_is_not_kept(store: StateStore) -> None:
    learn(store, "x", None)
    learn(store, "x", Checkpoint(7, 10, 100, 1, "<checkpoint-not-externally-addressable>"))
    assert newest(store, "x") is None


@pytest.mark.parametrize("scheme", ["file:", "file://", ""])
def test_beside_a_checkpoint_that_was_seen_the_newest_complete_one_is_found(
    store: StateStore, tmp_path: Path, scheme: str
) -> None:
    folder = tmp_path / "a folder" / "job"
    path = f"{scheme}{folder}/chk-7".replace(" ", "%20" if scheme else " ")
    learn(store, "x", Checkpoint(7, 10_000, 100, 1, path))
    assert newest(store, "x") == Saved(path, 10_000, 100)  # it may be another machine's
    retained(folder, 9, 30)
    retained(folder, 12, 40)
    (folder / "chk-13").mkdir()  # not complete
    (folder / "chk-x").mkdir()
    (folder / "chk-x" / "_metadata").touch()
    assert newest(store, "x") == Saved(path.replace("chk-7", "chk-12"), 40_000)


def test_what_the_cluster_remembers_of_a_job_that_ended_counts(
    store: StateStore, double: FlinkDouble
) -> None:
    stopped(store, "x", Saved("abfss://s/1", 20))
    double.add(name="x", state="FAILED", completed=checkpoint(7, "abfss://c/chk-7"))
    double.add(name="x", state="RUNNING", completed=checkpoint(8, "abfss://c/chk-8"))
    double.add(name="y", state="FAILED", completed=checkpoint(9, "abfss://c/chk-9"))
    found = newest(store, "x", Flink(double.address))
    assert found and found.path == "abfss://c/chk-7"


def test_a_cluster_that_is_gone_is_passed_over(store: StateStore) -> None:
    stopped(store, "x", Saved("abfss://s/1", 20))
    with FlinkDouble() as gone:
        pass
    assert newest(store, "x", Flink(gone.address)) == Saved("abfss://s/1", 20)


def test_a_file_of_another_version_is_as_none(store: StateStore) -> None:
    store.put("flink/x.json", b'{"name": 1}')
    assert newest(store, "x") is None
    stopped(store, "x", Saved("abfss://s/1", 20))
    assert newest(store, "x") == Saved("abfss://s/1", 20)


def test_only_so_many_savepoints_are_kept_in_mind(store: StateStore) -> None:
    for n in range(30):
        stopped(store, "x", Saved(f"s/{n}", n))
    assert [saved.at_ms for saved in kept(store, "x").savepoints] == list(range(10, 30))
