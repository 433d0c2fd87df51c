"""The bugs can be planted as they are listed, and what becomes of one is told rightly."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants import __main__ as mutants
from tests.mutants.__main__ import ROOT, main, plant, tried
from tests.mutants.planted import MUTANTS, Mutant

GUARD = "def guarded(n: int) -> bool:\n    return n > 0\n"
TEST = "from guard import guarded\n\ndef test_it() -> None:\n    assert not guarded(-1)\n"
KILLED = Mutant("a guard that is gone", "guard.py", "n > 0", "True", ("test_guard.py",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    (made / "guard.py").write_text(GUARD)
    (made / "test_guard.py").write_text(TEST)
    return made


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_has_its_place_and_its_tests(mutant: Mutant, tmp_path: Path) -> None:
    path = tmp_path / mutant.file
    path.parent.mkdir(parents=True)
    path.write_text((ROOT / mutant.file).read_text("utf-8"), "utf-8")
    plant(mutant, tmp_path)
    ast.parse(path.read_text("utf-8"))
    assert mutant.old != mutant.new
    assert all((ROOT / name.partition("::")[0]).exists() for name in mutant.tests)


def test_no_two_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    ("change", "became", "by"),
    [
        ({}, "killed", "test_it"),
        ({"new": "n >= 0"}, "survived", "none of its tests failed"),
        ({"new": "__import__('time').sleep(60)"}, "killed", "test_it"),
        ({"old": "n < 0"}, "not planted", "guard.py has what is to be replaced 0 times"),
        ({"new": "n >"}, "not run", "1 error"),
        ({"file": "gone.py"}, "not planted", "gone.py has what is to be replaced 0 times"),
        ({"tests": ("test_gone.py",)}, "not run", "test_gone.py"),
    ],
    ids=["found", "not found", "hangs", "moved", "no Python", "no file", "no test"],
)
def test_what_becomes_of_one_is_told(
    tree: Path, change: dict[str, str], became: str, by: str
) -> None:
    result = tried(KILLED._replace(**change), tree, seconds=2)
    assert result.became == became
    assert by in result.by
    assert (tree / "guard.py").read_text() == GUARD, "it is planted in a copy"


@pytest.mark.parametrize(("change", "code"), [({}, 0), ({"new": "n >= 0"}, 1)])
def test_the_exit_code_tells_whether_all_were_killed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], code: int
) -> None:
    monkeypatch.setattr(mutants, "ROOT", tree)
    monkeypatch.setattr(mutants, "MUTANTS", (KILLED._replace(**change),))
    assert main([]) == code


def test_tests_that_fail_without_any_bug_prove_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "test_guard.py").write_text(TEST.replace("assert not", "assert"))
    monkeypatch.setattr(mutants, "ROOT", tree)
    monkeypatch.setattr(mutants, "MUTANTS", (KILLED,))
    assert main([]) == 2
