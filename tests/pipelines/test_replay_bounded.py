"""A replay by a bounded runner's graph is the very same replay. The runner here is a double: Beam's
own local one, with several readers; it groups and redistributes as Spark does, in one process.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.cluster.spark import Cluster
from pipelines.replay import Asked, Replay, default_name
from pipelines.runners import choose
from pipelines.settings import HistorySettings, Settings, load
from schemas.batch import AlertBatch, Batch
from schemas.receipt import Outcomes
from tests.pipelines.test_replay import (
    BEGAN_MS,
    MINUTE_MS,
    arrived,
    capture,
    event,
    lines_file,
    names,
)
from tests.site import wait_for
from transforms import spool, write
from transforms.read.history import ReadShares, Share, admit
from transforms.read.plan import unread_of
from transforms.route import Where

SINKS = (
    "sinks:\n"
    "  - {file: {folder: one}, name: one}\n"
    "  - {file: {folder: two}, name: two, where: {severity: {at_least: medium}}}\n"
)


def made(folder: Path, sinks: str = SINKS) -> Settings:
    folder.mkdir(exist_ok=True)
    path = folder / "settings.yaml"
    path.write_text(f"{sinks}state: state\n")
    return load(path, HistorySettings)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return made(tmp_path / "bounded")


@pytest.fixture
def sinks(tmp_path: Path) -> Path:
    return tmp_path / "bounded"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """1,000 records in 20 files of two partitions, every tenth of which repeats one in a file
    before, and one that nobody understands."""
    folder = tmp_path / "capture"

    def record(n: int) -> bytes:
        number = n - 105 if n > 100 and n % 10 == 5 else n
        return event(number, BEGAN_MS + number // 100 * MINUTE_MS)

    for minute in range(10):
        for partition in range(2):
            first = 100 * minute + 50 * partition
            capture(folder, minute, map(record, range(first, first + 50)), partition)
    capture(folder, 11, [b"{broken", event(7000, BEGAN_MS, Severity="Low")])
    return folder


def here(readers: int = 3) -> Cluster:
    return Cluster(readers, "here", lambda: beam.Pipeline(runner=choose("DirectRunner").runner))


def replay(
    settings: Settings, *paths: Path, name: str = "", cluster: Cluster | None = None, **asked: Any
) -> tuple[Replay, Any]:
    about = Asked(tuple(map(str, paths)), **asked)
    going = Replay(settings, about, name or default_name(about), say=lambda line: None)
    going.store.prepare()
    going.prepare()
    going.cluster = cluster
    return going, going.run()


def sums(going: Replay) -> dict[str, tuple[int, Outcomes]]:
    return {account.name: (account.records, account.outcomes) for account in going.accounts()}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("readers", [1, 3])
def test_it_is_the_same_replay_as_on_one_machine(
    settings: Settings, sinks: Path, files: Path, tmp_path: Path, readers: int, workers: int
) -> None:
    asked: dict[str, Any] = {
        "start_ms": BEGAN_MS, "stop_ms": BEGAN_MS + 9 * MINUTE_MS, "workers": workers,
        "where": Where.model_validate({"severity": ["high", "low"]}),
    }  # fmt: skip
    local, result = replay(made(tmp_path / "local"), files, **asked)
    assert result.well
    going, result = replay(settings, files, cluster=here(readers), **asked)
    assert result.well, result
    for sink in ("one", "two"):
        assert arrived(sinks / sink) == arrived(tmp_path / "local" / sink)
    assert sums(going) == sums(local)
    assert sums(going)["one"][1].repeat and sums(going)["one"][1].dead == 1
    dead = [[*made.store.list("dead")] for made in (local, going)]
    assert len(dead[0]) == len(dead[1]) == 1


def test_nothing_is_left_but_accounts_and_what_was_delivered(
    settings: Settings, files: Path
) -> None:
    going, result = replay(settings, files, cluster=here())
    assert result.well
    left = {path.split("/")[2] for path in going.store.list(f"replays/{going.name}")}
    assert left == {"plan", "plan.json"}
    assert [*going.store.list("known/keys")]


def test_the_same_command_again_sends_nothing_and_then_only_what_is_new(
    settings: Settings, sinks: Path, files: Path
) -> None:
    replay(settings, files, cluster=here())
    before = arrived(sinks / "one")
    going, again = replay(settings, files, cluster=here())
    assert again.well and going.parts == 0
    late = [event(9000, BEGAN_MS), event(3, BEGAN_MS)]
    capture(files, 1, late, partition=7)  # of which one was delivered in the round before
    going, more = replay(settings, files, cluster=here())
    assert more.well and going.parts == 1
    assert arrived(sinks / "one") == before + names(9000)


def test_what_a_sink_has_is_not_sent_to_it_by_another_replay(
    settings: Settings, sinks: Path, files: Path, tmp_path: Path
) -> None:
    replay(settings, files, cluster=here(), sinks=("one",))
    before = arrived(sinks / "one")
    export = tmp_path / "export"
    lines_file(export, 5, [event(n, BEGAN_MS) for n in (1, 2, 9001)])
    going, result = replay(settings, export, cluster=here())
    assert result.well
    assert arrived(sinks / "one") == before + names(9001)
    assert arrived(sinks / "two") == names(1, 2, 9001)
    assert sums(going)["one"] == (3, Outcomes(delivered=1, repeat=2))


def test_what_could_not_be_read_is_named_and_the_rest_delivered(
    settings: Settings, sinks: Path, files: Path
) -> None:
    (files / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    going, result = replay(settings, files, cluster=here())
    assert not result.well and not result.problem
    assert [Path(each.url).name for each in unread_of(going.store, going.name)] == ["picture.png"]
    assert sums(going)["one"][0] == 1002


def test_without_deduplication_nothing_is_a_repeat(tmp_path: Path, files: Path) -> None:
    found = made(tmp_path / "off", "deduplicate: {scope: off}\n" + SINKS)
    going, result = replay(found, files, cluster=here(), again=True)
    assert result.well
    assert sums(going)["one"] == (1002, Outcomes(delivered=1001, dead=1))


def test_what_a_sink_did_not_take_is_paid_from_here(
    settings: Settings, sinks: Path, files: Path
) -> None:
    closed = sinks / "two"
    closed.write_text("a file where a folder should be")
    opened = threading.Timer(1.0, closed.unlink)
    opened.start()
    going, result = replay(settings, files, cluster=here())
    opened.join()
    assert result.well, result
    assert arrived(closed) == arrived(sinks / "one") - names(7000)
    assert all(account.holds for account in going.accounts())


def test_when_no_sink_takes_anything_it_ends_and_says_so(tmp_path: Path, files: Path) -> None:
    folder = tmp_path / "shut"
    found = made(folder, "sinks: [{file: {folder: one}, name: one}]\n")
    (folder / "one").write_text("a file where a folder should be")
    capture(files, 20, [event(n, BEGAN_MS) for n in range(20_000, 22_000)])
    for parts in range(21, 24):
        capture(files, parts, [event(1000 * parts + n, BEGAN_MS) for n in range(1000)])
    _, result = replay(found, files, cluster=here(1), patience=1.0)
    assert not result.well
    (folder / "one").unlink()
    _, result = replay(found, files, cluster=here(1), patience=30.0)
    assert result.well, result
    assert set(arrived(folder / "one").values()) == {1}


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is settled, and spooled, at every batch."""
    monkeypatch.setattr(write, "_OFTEN", (0.0, 1))  # bytes: it waits
    monkeypatch.setattr(spool, "_SECONDS", -1.0)


@contextlib.contextmanager
def dying(after: int) -> Iterator[None]:
    """Workers die when so many batches were sent."""
    real, left = write._Write.process, [after]

    def process(self: Any, batch: AlertBatch) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the worker is gone")
        return real(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write._Write, "process", process)
        yield


@pytest.mark.usefixtures("often")
def test_one_that_was_killed_goes_on_and_what_is_spooled_is_not_sent_again(
    settings: Settings, sinks: Path, files: Path, tmp_path: Path
) -> None:
    local, _ = replay(made(tmp_path / "local"), files)
    with dying(after=9):  # the first of two readers was in its fifth file: gaps are left
        going, result = replay(settings, files, name="month", cluster=here(2))
    assert "the worker is gone" in result.problem
    assert 0 < arrived(sinks / "two").total() < 900
    surveyed = [*going.store.list("replays/month/told/1")]
    going, result = replay(settings, files, name="month", cluster=here(3))
    assert surveyed and result.well, result
    for sink in ("one", "two"):  # either may have been the one whose batch was under way
        once, twice = arrived(tmp_path / "local" / sink), arrived(sinks / sink)
        assert once.keys() == twice.keys()
        assert (twice - once).total() <= 50, "but what was in flight: a file's"
    assert sums(going) == sums(local)


@pytest.mark.usefixtures("often")
def test_one_machine_goes_on_with_what_a_cluster_began(
    settings: Settings, sinks: Path, files: Path, tmp_path: Path
) -> None:
    local, _ = replay(made(tmp_path / "local"), files)
    with dying(after=10):
        replay(settings, files, name="month", cluster=here(1))
    going, result = replay(settings, files, name="month")
    assert result.well, result
    assert arrived(sinks / "one") == arrived(tmp_path / "local" / "one")
    assert sums(going) == sums(local)


def test_one_that_is_told_to_end_settles_what_it_read_and_goes_on_later(
    settings: Settings, sinks: Path, files: Path
) -> None:
    about = Asked((str(files),), rate=500.0)
    first = Replay(settings, about, "month", say=lambda line: None)
    first.store.prepare()
    first.cluster = here(2)
    ends = threading.Thread(
        target=lambda: (wait_for(lambda: arrived(sinks / "one"), 60), first.stop())
    )
    ends.start()
    stopped = first.run()
    ends.join()
    assert "the same command goes on" in stopped.problem
    assert 0 < arrived(sinks / "one").total() < 900
    _, result = replay(settings, files, name="month", cluster=here(2))
    assert result.well
    assert set(arrived(sinks / "one").values()) == {1}


SEEN: list[Batch] = []


def see(batch: Batch) -> None:
    SEEN.append(batch)


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_what_readers_share_tiles_every_lane(settings: Settings, files: Path, readers: int) -> None:
    going = Replay(settings, Asked((str(files),), workers=2), "month", say=lambda line: None)
    going.store.prepare()
    plan = going.prepare()
    admit(going.store, "month", "job")
    shares = [Share("month", n, readers, "job") for n in range(readers)]
    SEEN.clear()
    pipeline = here().pipeline()
    read = ReadShares("run", shares, going.store, 86_400_000, ())
    _ = pipeline | read | beam.Map(see)
    pipeline.run().wait_until_finish()
    for lane in range(2):
        found = sorted((b.first, b.last) for b in SEEN if b.origin.partition == str(lane))
        assert found[0][0] == 0 and found[-1][1] == plan.end(lane) - 1
        assert all(b[0] == a[1] + 1 for a, b in pairwise(found))
    assert sum(len(b.records) for b in SEEN) == 1002


def test_readers_of_a_job_that_is_over_read_nothing(settings: Settings, files: Path) -> None:
    going = Replay(settings, Asked((str(files),)), "month", say=lambda line: None)
    going.store.prepare()
    going.prepare()
    admit(going.store, "month", "another")
    SEEN.clear()
    pipeline = here().pipeline()
    read = ReadShares("run", [Share("month", 0, 1, "job")], going.store, 86_400_000, ())
    _ = pipeline | read | beam.Map(see)
    pipeline.run().wait_until_finish()
    assert not SEEN
