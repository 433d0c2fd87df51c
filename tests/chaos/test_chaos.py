"""A bounded part of the fault campaign, and tests of its own parts.

`ALERTBEAM_CHAOS` is how many seconds it takes, about (120 without it); `make chaos` plays more.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import power
from tests.chaos.__main__ import line
from tests.chaos.plan import KINDS, Life, Plan, Trouble, plan
from tests.chaos.play import Nursery, Result, play
from tests.chaos.victim import Journal

SECONDS = float(os.environ.get("ALERTBEAM_CHAOS") or 120)
_OTHERS = 35  # seconds of it that the other tests here take
SEEDS = 1_000  # the fixed ones, from here on
FRESH = int(time.time()) % 1_000_000


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as found:
        yield found


def _played(chosen: Plan, nursery: Nursery, folder: Path) -> Result:
    result = play(chosen, nursery, folder / f"{chosen.kind}-{chosen.seed}")
    print(line(result))
    return result


def _wrong(chosen: Plan, nursery: Nursery, folder: Path) -> list[str]:
    """What must not be, and how to play it again."""
    result = _played(chosen, nursery, folder)
    again = f"python -m tests.chaos --kind {chosen.kind} --seed {chosen.seed}"
    return [*result.wrong, *result.notes, result.folder, again] if result.wrong else []


@pytest.mark.timeout(300 + SECONDS)
def test_nothing_is_lost_and_the_account_agrees(nursery: Nursery, tmp_path: Path) -> None:
    until = time.monotonic() + SECONDS - _OTHERS
    for number, kind in enumerate(itertools.cycle(KINDS)):
        wrong = _wrong(plan(kind, SEEDS + number // len(KINDS)), nursery, tmp_path)
        assert not wrong, "\n".join(wrong)
        if time.monotonic() > until:
            break


@pytest.mark.timeout(300)
def test_nothing_is_lost_with_a_seed_that_nobody_has_tried(
    nursery: Nursery, tmp_path: Path
) -> None:
    kind = random.Random(FRESH).choice([*KINDS])
    print(f"a fresh seed: {kind} {FRESH}")
    wrong = _wrong(plan(kind, FRESH), nursery, tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_the_campaign_finds_a_loss_that_is_planted(nursery: Nursery, tmp_path: Path) -> None:
    troubles = [Trouble("receiver refuses", 2.0, 9.0, "hook")]
    forgetful = Plan(1, "planted", 12.0, 100, 0.5, [Life("last", 0)], troubles, planted=True)
    result = _played(forgetful, nursery, tmp_path)
    assert any("hook:" in wrong and " lost: " in wrong for wrong in result.wrong), result.wrong


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_plan_again(kind: str) -> None:
    assert plan(kind, 7) == plan(kind, 7) != plan(kind, 8)
    json.dumps(plan(kind, 7).as_dict())


def _journal(tmp_path: Path) -> tuple[Path, Journal]:
    state = tmp_path / "state"
    state.mkdir()
    return state, Journal(state, tmp_path / "journal")


def _put(journal: Journal, target: Path, data: bytes, *synced: str) -> None:
    """Write a file whole, as the state store does."""
    temporary = target.with_name(f".{target.name}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        if "file" in synced:
            journal.fsync(file.fileno())
    journal.replace(temporary, target)
    if "folder" in synced:
        folder = os.open(target.parent, os.O_RDONLY)
        journal.fsync(folder)
        os.close(folder)


def test_a_power_failure_undoes_a_rename_whose_folder_was_not_fsynced(tmp_path: Path) -> None:
    state, journal = _journal(tmp_path)
    _put(journal, state / "one", b"old", "file", "folder")
    _put(journal, state / "one", b"new", "file")
    _put(journal, state / "two", b"new", "file")
    power.fail(tmp_path / "journal", random.Random(1), everything=True)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == {"one": b"old"}


def test_a_power_failure_leaves_what_was_fsynced(tmp_path: Path) -> None:
    state, journal = _journal(tmp_path)
    _put(journal, state / "one", b"old", "file")
    _put(journal, state / "one", b"new", "file")
    _put(journal, state / "two", b"new", "file", "folder")
    assert power.fail(tmp_path / "journal", random.Random(1), everything=True) == []
    assert (state / "one").read_bytes() == (state / "two").read_bytes() == b"new"


def test_a_power_failure_takes_what_a_file_held_that_was_not_fsynced(tmp_path: Path) -> None:
    state, journal = _journal(tmp_path)
    _put(journal, state / "one", b"new", "folder")
    power.fail(tmp_path / "journal", random.Random(1), everything=True)
    assert (state / "one").read_bytes() == b""


def test_a_power_failure_brings_back_what_was_unlinked_and_takes_new_folders(
    tmp_path: Path,
) -> None:
    state, journal = _journal(tmp_path)
    _put(journal, state / "one", b"old", "file", "folder")
    journal.unlink(state / "one")
    journal.mkdir(state / "inside")
    _put(journal, state / "inside" / "two", b"new", "file", "folder")
    power.fail(tmp_path / "journal", random.Random(1), everything=True)
    assert [path.name for path in state.iterdir()] == ["one"]
    assert (state / "one").read_bytes() == b"old"
