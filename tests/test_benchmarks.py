"""The benchmark of the sinks runs, and what it counts adds up; its figures are asserted nowhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import sinks
from benchmarks.sinks import CASES, Run, measure


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
