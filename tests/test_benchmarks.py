"""The benchmarks of the sinks and of history run, and what they count adds up; their figures are
asserted nowhere."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fastavro
import pytest

from benchmarks import history, sinks
from benchmarks.history import LAYOUTS, write_history
from benchmarks.sinks import CASES, Run, measure
from schemas.batch import Batch, Origin, Record
from transforms.parse import parse_batch


@pytest.fixture
def in_threads(monkeypatch):
    """Starting processes takes seconds."""
    monkeypatch.setattr(sinks, "_process", lambda core: ThreadPoolExecutor(1))
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setenv("BENCHMARKED", "")  # it is set there, and is to be gone afterwards
    yield
    sinks._loaded.clear()


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_all_that_both_sides_send_arrives(case):
    ((bare, engine),) = measure(case, 450, rounds=1)  # more than a batch, or than some requests
    count = round(450 * case.share)
    for run in (bare, engine):
        assert run.alerts == count
        assert run.arrived == run.sent == count + min(count, 200)
        assert run.seconds > 0


def test_sender_and_receiver_are_processes_of_their_own():
    case = next(case for case in CASES if case.what == "syslog/TLS, CEF")
    ((bare, engine),) = measure(case, 400, rounds=1)
    assert bare.arrived == engine.arrived == 600


def test_a_case_of_which_not_all_arrived_is_void():
    whole, short = Run(10, 1.0, 1.0, 12, 12), Run(10, 1.0, 1.0, 12, 11)
    assert [figure.unit for figure in sinks._figures("it", [(whole, whole)])].count("alerts/s") == 1
    (only,) = sinks._figures("it", [(whole, whole), (whole, short)])
    assert (only.what, only.value) == ("it: VOID, arrived of 48", 47)


# -------------------------------------------------------------------------------------- history


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _bodies(folder: Path) -> list[bytes]:
    found = []
    for path in _files(folder):
        if path.suffix == ".json":
            found += path.read_bytes().splitlines()
        else:
            with path.open("rb") as file:
                found += [row["Body"] for row in fastavro.reader(file)]  # type: ignore[index,call-overload]
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_made_up_history_is_what_was_asked_for_and_the_same_each_time(layout, tmp_path):
    written = write_history(tmp_path / "one", 3_000, layout, days=1)
    bodies = _bodies(tmp_path / "one")
    assert len(bodies) == written.alerts == 3_000
    assert len({*bodies}) == written.different
    assert 0.08 < 1 - written.different / written.alerts < 0.12
    assert 1_500 < sum(map(len, bodies)) / 3_000 < 2_600
    assert written.files == len(_files(tmp_path / "one"))
    assert all(json.loads(body) for body in bodies)
    write_history(tmp_path / "two", 3_000, layout, days=1)
    assert _bodies(tmp_path / "two") == bodies


def test_every_record_of_it_is_understood_as_one_of_its_own(tmp_path):
    write_history(tmp_path, 2_000, days=1)
    records = [Record(n, 0, 1, body) for n, body in enumerate(_bodies(tmp_path))]
    parsed, letters = parse_batch(Batch(Origin("it", "0"), 0, 1_999, None, records))
    assert not letters
    assert len({alert.key for alert in parsed.alerts}) == len({record.body for record in records})
    assert len({alert.kind for alert in parsed.alerts}) >= 5
    assert "unknown" not in {alert.kind for alert in parsed.alerts}


@pytest.mark.parametrize("layout", ["capture", "PT05M"])
def test_loop_and_replay_deliver_the_same(layout, tmp_path):
    ((loop, replay),) = history.measure(1_000, layout, tmp_path, rounds=1, days=1)
    assert loop.lines == replay.lines > 850
    assert min(loop.cpu, replay.cpu, loop.rss, replay.rss) > 0
    figures = [*history._compared(layout, 1_000, [(loop, replay)])]
    assert figures[2].value == pytest.approx(loop.seconds / replay.seconds)
