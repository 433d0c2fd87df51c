"""Plants each bug in a copy of the tree, and runs the tests that must find it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.mutants import __doc__ as ABOUT
from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SECONDS = 60  # that a test may take: what hangs has failed
_LEFT_OUT = shutil.ignore_patterns(".*", "out", "build", "*.egg-info", "__pycache__")


class Result(NamedTuple):
    """`killed`, `survived`, or what keeps the answer from being had; by: the test, or why."""

    mutant: Mutant
    became: str
    by: str
    seconds: float


def plant(mutant: Mutant, root: Path) -> None:
    """Put the bug into the tree. Raises ValueError where its place is not there, or not unique."""
    path = root / mutant.file
    text = path.read_text("utf-8") if path.exists() else ""
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has what is to be replaced {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")


def tests(root: Path, names: Sequence[str], seconds: float) -> tuple[int, str]:
    """pytest's exit code, and its output. seconds: that each test may take."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
    done = subprocess.run(
        [*command, f"--timeout={seconds}"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def tried(mutant: Mutant, tree: Path, seconds: float = SECONDS) -> Result:
    """What becomes of one, planted in a copy of this tree."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="alertbeam-mutant-") as folder:
        root = Path(folder) / "tree"
        shutil.copytree(tree, root)
        try:
            plant(mutant, root)
        except ValueError as error:
            return Result(mutant, "not planted", str(error), 0.0)
        code, said = tests(root, mutant.tests, seconds)
    took = time.monotonic() - began
    failed = re.findall(r"^(?:FAILED|ERROR) \S*::(.*?)(?: - .*)?$", said, re.MULTILINE)
    if code == 0:
        return Result(mutant, "survived", "none of its tests failed", took)
    if code == 1 and failed:
        return Result(mutant, "killed", failed[0], took)
    return Result(mutant, "not run", said.strip().splitlines()[-1] if said else "", took)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every one was killed."""
    told = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.mutants", None, ABOUT, formatter_class=told)
    parser.add_argument("names", nargs="*", help="only those whose name holds one of these")
    parser.add_argument("--list", action="store_true", help="name them, and plant none")
    parser.add_argument("--jobs", type=int, default=2, help="side by side (%(default)s)")
    asked = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not asked.names or any(n in m.name for n in asked.names)]
    if not chosen:
        parser.error("there is none of that name: see --list")
    if asked.list:
        for mutant in chosen:
            print(f"{mutant.name}\n    {mutant.file}: {' '.join(mutant.tests)}")
        return 0
    with tempfile.TemporaryDirectory(prefix="alertbeam-mutants-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT)
        print(f"{len(chosen)} bugs; first their tests without any", flush=True)
        # Without any bug they pass, or their failing would say nothing.
        code, said = tests(tree, [*dict.fromkeys(t for m in chosen for t in m.tests)], SECONDS)
        if code != 0:
            print(said, "\nthese fail without any bug planted", sep="", file=sys.stderr)
            return 2
        with ThreadPoolExecutor(asked.jobs) as pool:
            results = []
            for result in pool.map(lambda mutant: tried(mutant, tree), chosen):
                results.append(result)
                mutant, became, by, took = result
                print(f"{became:<11} {mutant.name}, {took:.1f} s\n            {by}", flush=True)
    alive = [result for result in results if result.became != "killed"]
    print(f"{len(results)} planted, {len(results) - len(alive)} killed")
    for mutant, became, by, _ in alive:
        print(f"{became}: {mutant.name} ({mutant.file}): {by}")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
