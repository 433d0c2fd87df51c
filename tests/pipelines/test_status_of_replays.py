"""`alertbeam status` shows how each replay stands, beside a run or without one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.replay import State
from tests.site import call
from transforms.lease import lease
from transforms.read.plan import folder
from transforms.state_store import StateStore

NOW_MS = int(time.time() * 1000)
SETTINGS = "sinks:\n  - file: {folder: archive}\nstate: state\n"


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    return StateStore(str(tmp_path / "state"))


def tell(store: StateStore, name: str, **state: Any) -> None:
    ended = {"began": NOW_MS - 60_000, "ended": NOW_MS, "ok": True, "said": ""}
    counts = {"parts": 1204, "done": 1204, "unread": 0, "rounds": 3}
    found = State(**{"name": name, **ended, **counts, **state})
    store.put(f"{folder(name)}/state.json", msgspec.json.encode(found))


def line(store: StateStore, name: str) -> str:
    code, said = call(store.folder.parent, "status")
    assert code == 0, said
    (found,) = [each for each in said.splitlines() if each.startswith(name)]
    return found


def test_one_that_is_through(store: StateStore) -> None:
    tell(store, "nightly")
    assert "finished" in line(store, "nightly") and "1,204 of 1,204" in line(store, "nightly")


def test_one_that_is_at_work_and_who_does_it(store: StateStore) -> None:
    tell(store, "nightly", ended=0, ok=False, done=400)
    with lease(store, f"{folder('nightly')}/lease"):
        assert "running: process" in line(store, "nightly")
        assert "400 of 1,204" in line(store, "nightly")


def test_one_that_was_killed_is_not_said_to_run(store: StateStore) -> None:
    tell(store, "nightly", ended=0, ok=False, done=400)
    assert "killed" in line(store, "nightly") and "running" not in line(store, "nightly")


def test_one_that_failed_and_why(store: StateStore) -> None:
    tell(store, "nightly", ok=False, said="no sink took anything\nforged  finished", unread=2)
    found = line(store, "nightly")
    assert "failed: no sink took anything forged" in found, "one line, whatever it said"


def test_where_nothing_ran_and_nothing_was_replayed_it_says_so(store: StateStore) -> None:
    code, said = call(store.folder.parent, "status")
    assert (code, said) == (0, "never run: there is no status in this state folder yet\n")
