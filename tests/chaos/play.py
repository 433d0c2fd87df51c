"""Plays a plan: a site, a load, one life of the pipeline after the other, and its judgement."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.report import read_status
from tests.chaos import power
from tests.chaos.ground import PARTITIONS, SINKS, TROUBLES, Ground
from tests.chaos.judge import Death, judge, through
from tests.chaos.plan import Life, Plan
from tests.chaos.traffic import Traffic
from tests.site import HUB
from transforms.owed import debts

__all__ = ["Nursery", "Result", "play"]

_CATCH_UP = 60.0  # seconds
_ENDING = 40.0
_AGAIN = 0.3  # from an end to the next start
_LAST_WORDS = 5  # lines of its log: as many as the longest advice has
_ROOT = Path(__file__).parent.parent.parent


class Nursery:
    """The process that lives are forked from (`tests.chaos.victim`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        self._said: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def begin(self, order: dict[str, Any]) -> Process:
        """Fork a life. The one before must be dead."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Process(self._said.get(timeout=30), self._said)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self._process.stdout:
                self._said.put(int(line))


class Process:
    """One life. `code`: its exit code, negative for a signal; None while it lives."""

    def __init__(self, pid: int, said: queue.SimpleQueue[int]) -> None:
        self.pid = pid
        self.code: int | None = None
        self._said = said

    def wait(self, timeout: float) -> bool:
        """Whether it is dead, at most so much later."""
        if self.code is None:
            with contextlib.suppress(queue.Empty):
                self.code = os.waitstatus_to_exitcode(self._said.get(timeout=max(0.0, timeout)))
        return self.code is not None

    def signal(self, number: int) -> None:
        if not self.wait(0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclasses.dataclass
class Result:
    """How a plan went. wrong: what must not be; empty: it went well.

    recovered: the longest that each sink got nothing after a fault's end, seconds; of those
        after which it got something before the next fault.
    caught_up: seconds after the load and the last trouble until everything was through.
    """

    kind: str
    seed: int
    seconds: float = 0.0
    alerts: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    twice: dict[str, int] = dataclasses.field(default_factory=dict)
    passed: dict[str, int] = dataclasses.field(default_factory=dict)
    recovered: dict[str, float] = dataclasses.field(default_factory=dict)
    caught_up: float = 0.0
    folder: str = ""


class _Play:
    def __init__(self, plan: Plan, nursery: Nursery, ground: Ground, result: Result) -> None:
        self.plan, self.nursery, self.ground, self.result = plan, nursery, ground, result
        self.rng = random.Random(f"play {plan.kind} {plan.seed}")
        self.traffic = Traffic(ground.hub, HUB, PARTITIONS, plan.rate, plan.seed)
        self.deaths: list[Death] = []
        self.begins: list[float] = []  # of faults, monotonic
        self.ends: list[float] = []
        self.may_repeat: set[str] = set()
        self.began = 0.0
        self.number = 0
        self.ill: list[str] = []
        self._counting = threading.Lock()

    def run(self) -> None:
        self.began = time.monotonic()
        troubles = threading.Thread(target=self._safely, daemon=True, name="troubles")
        self.traffic.start()
        troubles.start()
        for life in self.plan.lives:
            if life.end == "last":
                self._last(troubles)
            else:
                self._live(life)

    # ------------------------------------------------------------------------ troubles outside

    def _safely(self) -> None:
        try:
            self._trouble()
        except BaseException as error:
            self.ill.append(f"the campaign itself failed: {error!r}")

    def _trouble(self) -> None:
        """Begin and end the plan's troubles at their times."""
        steps: list[tuple[float, int, Any]] = []
        for number, trouble in enumerate(self.plan.troubles):
            steps.append((trouble.at, number, trouble))
            steps.append((trouble.at + trouble.seconds, number, None))
        endings: dict[int, Callable[[], object]] = {}
        for at, number, trouble in sorted(steps, key=lambda step: (step[0], step[2] is None)):
            time.sleep(max(0.0, self.began + at - time.monotonic()))
            if trouble is None:
                endings.pop(number, lambda: None)()
                self.ends.append(time.monotonic())
                continue
            self.begins.append(time.monotonic())
            self._count(trouble.name)
            if trouble.name in TROUBLES:
                if trouble.name.startswith(("receiver", "folder")):
                    # Of what was sent when it began nobody knows whether it arrived.
                    self.may_repeat.add(trouble.sink or "archive")
                begin = TROUBLES[trouble.name]
                endings[number] = begin(self.ground, self.rng, trouble.sink)

    def _excused(self, said: str) -> bool:
        """Whether a run may end by itself, to be begun again by whatever supervises it: while its
        state store fails; or, as it begins, while no hub lets it in or another reader has it."""
        at = time.monotonic() - self.began
        now = [t for t in self.plan.troubles if t.at <= at <= t.at + t.seconds + 2]
        if "no hub can be read" in said:
            return any(t.name.startswith(("hub", "clock")) for t in now)
        if "another reader, by an epoch" in said:
            return any(t.name == "hub steals" for t in now)
        return any(t.name.startswith("disk") for t in now)

    # ---------------------------------------------------------------------------------- lives

    def _begin(self, life: Life) -> Process:
        self.number += 1
        ground, state = self.ground, self.ground.state
        windows = [
            (self.began + t.at, self.began + t.at + t.seconds, t.name, t.value)
            for t in self.plan.troubles
            if t.name.startswith(("disk", "clock"))
        ]
        order = {
            "arguments": ["run", "-c", str(ground.settings)],
            "folder": str(ground.folder),
            "log": str(ground.folder / f"life-{self.number}.log"),
            "environment": {**ground.environment, "COLUMNS": "160"},
            "seed": self.plan.seed * 1000 + self.number,
            "state": str(state),
            "journal": str(ground.folder / "journal") if self.plan.power else "",
            "windows": windows,
            "point": life.point,
            "nth": life.nth,
            "planted": self.plan.planted,
        }
        return self.nursery.begin(order)

    def _live(self, life: Life) -> None:
        """One life, to its end."""
        receiver = self.ground.receivers[life.owes] if life.owes else None
        if receiver is not None:
            self._count("receiver refuses")
            self.may_repeat.add(life.owes)
            receiver.refuse()
        process = self._begin(life)
        until = time.monotonic() + life.seconds
        while not process.wait(min(0.1, until - time.monotonic())) and time.monotonic() < until:
            if receiver is not None and life.pays and debts(self.ground.store, life.owes):
                receiver.accept()
        self.begins.append(time.monotonic())
        by_itself = process.code not in (None, -signal.SIGKILL)
        ended = life.end
        if ended == "point" and process.code is None:
            self.result.notes.append(f"not reached: {life.point} for the {life.nth}. time")
            ended, life = "kill", dataclasses.replace(life, point="")
        if ended in ("point", "kill"):
            process.signal(signal.SIGKILL)
        else:
            process.signal(signal.SIGTERM)
            if ended != "term":
                process.wait(life.more)
                process.signal(signal.SIGTERM if ended == "term, term" else signal.SIGKILL)
        if not process.wait(_ENDING):
            self.result.wrong.append(f"life {self.number} did not end within {_ENDING:g} s")
            process.signal(signal.SIGKILL)
            process.wait(10)
        self._dead(process, life, by_itself)
        if receiver is not None:
            receiver.accept()

    def _count(self, fault: str) -> None:
        with self._counting:
            self.result.faults[fault] += 1

    def _dead(self, process: Process, life: Life, by_itself: bool) -> None:
        code = process.code
        # -15: before it had a handler.
        if by_itself or (life.end == "term" and code not in (0, -signal.SIGTERM)):
            self._gave_up(code)
        if life.end in ("kill", "point"):
            what = "power" if self.plan.power else "kill"
            self._count(f"{what}: {life.point or 'at random'}")
        elif life.end != "last":
            self._count(f"SIG{life.end.upper()}")
        if code != 0:
            if self.plan.power:
                undone = power.fail(
                    self.ground.folder / "journal", self.rng, self.rng.random() < 0.5
                )
                self.result.notes.append(f"undone: {len(undone)}")
                with (self.ground.folder / "undone").open("a") as file:
                    file.writelines(f"{self.number}: {line}\n" for line in undone)
            death = Death.now(self.ground, self.traffic)
            self.deaths.append(death)
            where = life.point or life.end
            self.result.notes.append(f"life {self.number}, {where}: in flight {death.size}")
        elif self.plan.power:
            shutil.rmtree(self.ground.folder / "journal", ignore_errors=True)
        self.ends.append(time.monotonic())

    def _gave_up(self, code: int | None) -> None:
        log = (self.ground.folder / f"life-{self.number}.log").read_text(errors="replace")
        last = [line for line in log.splitlines() if line.strip()][-_LAST_WORDS:]
        told = f"life {self.number} ended by itself with {code}: {' '.join(last)}"
        if self._excused(told):
            self.result.notes.append(told)
        else:
            self.result.wrong.append(told)

    def _last(self, troubles: threading.Thread) -> None:
        """The life that must catch up, and end well; as a supervisor would, it is begun again
        where it ends by itself."""
        life = Life("last", 0)
        process = self._begin(life)
        load_end = time.monotonic() + max(1.0, self.began + self.plan.seconds - time.monotonic())
        until = load_end + _CATCH_UP
        done = False
        while not done and time.monotonic() < until:
            if process.wait(0.1):
                self._dead(process, life, by_itself=True)
                time.sleep(_AGAIN)
                process = self._begin(life)
            if time.monotonic() >= load_end:
                self.traffic.ended.set()
            over = not self.traffic.is_alive() and not troubles.is_alive()
            runs = read_status(self.ground.store).get("pid") == process.pid
            done = over and runs and through(self.ground, self.traffic)
        self.result.caught_up = round(max(0.0, time.monotonic() - load_end), 2)
        if not done:
            self.result.wrong.append(f"not through {_CATCH_UP:g} s after the load: {self._stuck()}")
        process.signal(signal.SIGTERM)
        if not process.wait(_ENDING):
            self.result.wrong.append(f"the last life did not end within {_ENDING:g} s")
            process.signal(signal.SIGKILL)
            process.wait(10)
        elif process.code != 0:
            self._gave_up(process.code)
        self.ground.wait_for_quiet()
        if self.traffic.failed or self.ill:
            self.result.wrong.append(f"{self.traffic.failed or self.ill}")
        crashed = bool(self.deaths) or self._disk_trouble
        said = judge(self.ground, self.traffic, self.deaths, self._doubtful(), done, crashed)
        self.result.wrong += said.wrong
        self.result.twice, self.result.passed = said.twice, said.passed
        self.result.alerts = self.traffic.records
        for end in self.ends:
            # Until the next trouble, which is told of itself.
            until = min((at for at in self.begins if at > end), default=load_end)
            for sink, seconds in self.ground.recovery(end, min(until, load_end)).items():
                longest = max(self.result.recovered.get(sink, 0.0), seconds)
                self.result.recovered[sink] = round(longest, 2)

    def _doubtful(self) -> set[str]:
        """Sinks of which nobody knows what they took: whose receiver was in trouble; all, where
        the store failed, as then a shift's work is done again."""
        return {*SINKS} if self._disk_trouble else self.may_repeat

    @property
    def _disk_trouble(self) -> bool:
        return any(trouble.name.startswith("disk") for trouble in self.plan.troubles)

    def _stuck(self) -> str:
        accounts = self.ground.accounts()
        published = dict(enumerate(self.traffic.published))
        found = {
            sink: {**self.ground.positions(sink), "owed": accounts[sink].outcomes.owed}
            for sink in SINKS
        }
        return f"published {published}, settled {found}"


def play(plan: Plan, nursery: Nursery, folder: Path) -> Result:
    """Play a plan in a folder, which goes if all went well."""
    result = Result(plan.kind, plan.seed, folder=str(folder))
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan.as_dict(), indent=1))
    began = time.monotonic()
    with _no_collections():
        try:
            with Ground(folder, plan.patience) as ground:
                _Play(plan, nursery, ground, result).run()
        except Exception as error:
            result.wrong.append(f"the campaign itself failed: {error!r}")
    result.seconds = round(time.monotonic() - began, 2)
    if not result.wrong:
        shutil.rmtree(folder)
        result.folder = ""
    return result


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Hub and receivers live in this process: a collection would stop all of them."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
