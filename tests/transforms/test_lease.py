"""A lease has one holder, whatever dies, hangs, oversleeps, or has its clock set."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import cli
from tests.site import wait_for
from transforms import lease as module
from transforms.lease import LeaseError, LeaseLost, held_by, lease
from transforms.state_store import StateStore

ROOT = Path(__file__).parent.parent.parent
PATH = "replays/nightly/lease"


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def names(store: StateStore) -> list[int]:
    return [int(path.rpartition("/")[2]) for path in store.list(PATH)]


def says(store: StateStore, number: int = -1) -> dict[str, Any]:
    """What a number's file says; the highest one's."""
    path = [*store.list(PATH)][number]
    found: dict[str, Any] = json.loads(store.get(path) or b"")
    return found


def write(store: StateStore, number: int, **term: Any) -> None:
    """A number of some other machine's holder, by hand."""
    other = {"host": "elsewhere", "pid": 7, "machine": "another boot", "seconds": 60.0, **term}
    store.put(f"{PATH}/{number:020d}", json.dumps(other).encode())


class Clock:
    """This machine's, which moves as somebody sleeps; `then` happens at a time of it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.then: list[tuple[float, Callable[[], object]]] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for each in [each for each in self.then if each[0] <= self.now]:
            self.then.remove(each)
            each[1]()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "_clock", lambda: made.now)
    fake = SimpleNamespace(sleep=made.sleep, time_ns=time.time_ns)
    monkeypatch.setattr(module, "time", fake)
    return made


# ---------------------------------------------------------------------------- held and let go


def test_who_holds_it_is_written_down_for_its_owner_alone(store: StateStore) -> None:
    with lease(store, PATH) as held:
        held.check()
        found = says(store)
        assert (found["pid"], found["released"]) == (os.getpid(), False)
        files = list((store.folder / PATH).iterdir())
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert stat.S_IMODE((store.folder / PATH).stat().st_mode) == 0o700
    assert says(store)["released"]


def test_another_is_refused_at_once_and_told_who_holds_it_since_and_until_when(
    store: StateStore,
) -> None:
    with lease(store, PATH, seconds=90):
        began = time.monotonic()
        with pytest.raises(LeaseError) as refused, lease(store, PATH):
            pytest.fail("two hold it")
    assert time.monotonic() - began < 10, "it need not wait to know"
    said = str(refused.value)
    assert f"process {os.getpid()} on {module.socket.gethostname()}" in said
    assert said.startswith(f"replays/nightly in the state folder {store.folder} is taken")
    since, until = (module.datetime.fromisoformat(each) for each in times(said))
    assert (until - since).total_seconds() == 90


def times(said: str) -> list[str]:
    return [said[at - 20 : at - 1] for at in range(len(said)) if said[at:].startswith("UTC")]


def test_a_command_that_is_refused_exits_with_3_and_one_line(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: object) -> None:
        with lease(store, PATH):
            pytest.fail("two hold it")

    monkeypatch.setattr(cli, "app", command)
    with lease(store, PATH), pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_it_says_of_a_host_is_one_line_whatever_its_name(
    store: StateStore, clock: Clock
) -> None:
    write(store, 4, host="evil\nforged: all is well\x1b[2J\u2028")
    clock.then = [(1_010, lambda: write(store, 5, host="evil\nforged\x1b[2J\u2028"))]
    said: list[str] = []
    with pytest.raises(LeaseError) as refused, lease(store, PATH, say=said.append):
        pytest.fail("it is held")
    assert len(said) == 1
    assert all(text.isprintable() for text in (*said, str(refused.value)))


def test_once_let_go_of_the_next_one_has_it_at_once(store: StateStore, clock: Clock) -> None:
    for _ in range(30):
        with lease(store, PATH) as held:
            held.check()
    assert clock.now == 1_000
    assert len(names(store)) <= 12, "old numbers go"


def test_an_exception_lets_go_of_it_and_comes_through(store: StateStore) -> None:
    with pytest.raises(ZeroDivisionError), lease(store, PATH):
        _ = 1 / 0
    with lease(store, PATH):
        pass


def test_two_names_are_two_leases(store: StateStore) -> None:
    with lease(store, PATH), lease(store, "replays/other/lease"):
        pass


def test_who_holds_it_can_be_asked_without_taking_it(store: StateStore, clock: Clock) -> None:
    assert held_by(store, PATH) == ""
    assert not store.folder.exists(), "looking writes nothing"
    with lease(store, PATH):
        assert held_by(store, PATH).startswith(f"process {os.getpid()} on ")
    assert held_by(store, PATH) == ""
    write(store, 70)
    assert held_by(store, PATH) == "process 7 on elsewhere"
    machine, pids = module._machine()
    write(store, 71, pid=2**22 + 1, machine=machine, pids=pids, beat=clock.now)
    assert held_by(store, PATH) == "", "it was killed"


# ------------------------------------------------------------------------------ one of several


def test_of_many_that_come_at_once_one_has_it(store: StateStore) -> None:
    many = 16
    together = threading.Barrier(many)
    done = threading.Barrier(many)

    def come(_: int) -> int:
        together.wait()
        try:
            with lease(store, PATH):
                done.wait(30)
                return 1
        except LeaseError:
            done.wait(30)
            return 0

    with ThreadPoolExecutor(many) as pool:
        for _ in range(10):
            assert sum(pool.map(come, range(many))) == 1


def test_of_many_that_see_it_expire_one_has_it(store: StateStore) -> None:
    many = 16
    write(store, 41, seconds=0.3)
    done = threading.Barrier(many)

    def come(_: int) -> int:
        try:
            with lease(store, PATH):
                done.wait(30)
                return 1
        except LeaseError:
            done.wait(30)
            return 0

    with ThreadPoolExecutor(many) as pool:
        assert sum(pool.map(come, range(many))) == 1


_CHILD = """
import os, sys
from pathlib import Path
from transforms import lease as module
from transforms.state_store import StateStore

folder, wins, known = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if known != "known":
    module._machine = lambda: ("", "")  # as if each were another machine's
store = StateStore(str(folder / "state"))
inside = folder / "inside"
while wins:
    try:
        with module.lease(store, "replays/nightly/lease", 20):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
            wins -= 1
    except module.LeaseError:
        pass
print("done")
"""


@pytest.mark.parametrize("known", ["known", "unknown"])
def test_of_processes_that_take_it_by_turns_no_two_are_inside(tmp_path: Path, known: str) -> None:
    children = [python(_CHILD, str(tmp_path), "15", known) for _ in range(3)]
    try:
        for child in children:
            output, _ = child.communicate(timeout=90)
            assert (child.returncode, output) == (0, "done\n"), output
    finally:
        end(children)


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def end(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_one_that_overslept_between_looking_and_taking_finds_that_another_has_it(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number that it then creates was there before, and was swept."""
    create, others = module._create, contextlib.ExitStack()

    def late(*arguments: Any) -> bool:
        monkeypatch.setattr(module, "_create", create)
        for _ in range(2):
            with lease(store, PATH):
                pass
        others.enter_context(lease(store, PATH))
        number = arguments[2]
        assert number not in names(store)
        return create(*arguments)

    monkeypatch.setattr(module, "_KEPT", 0)
    monkeypatch.setattr(module, "_create", late)
    with others:
        with pytest.raises(LeaseError), lease(store, PATH):
            pytest.fail("two hold it")
        assert len(names(store)) == 1, "what it created is gone again"


class Turns:
    """Threads that take one step of theirs at a time, whose it is being chosen from outside."""

    def __init__(self) -> None:
        self.waiting: dict[int, threading.Event] = {}
        self.changed = threading.Condition()
        self.running = 0

    def step(self) -> None:
        """Called by a thread before each step: waits for its turn."""
        go = threading.Event()
        with self.changed:
            self.waiting[threading.get_ident()] = go
            self.running -= 1
            self.changed.notify_all()
        assert go.wait(30)

    def play(self, actors: list[Callable[[], None]], choose: Callable[[int], int]) -> None:
        failed: list[BaseException] = []

        def act(actor: Callable[[], None]) -> None:
            try:
                self.step()
                actor()
            except BaseException as error:
                failed.append(error)
            finally:
                with self.changed:
                    self.running -= 1
                    self.changed.notify_all()

        self.running = len(actors)
        threads = [threading.Thread(target=act, args=(actor,), daemon=True) for actor in actors]
        order = []
        for thread in threads:
            thread.start()
            order.append(thread.ident)
        while True:
            with self.changed:
                assert self.changed.wait_for(lambda: not self.running, 30)
                ready = [ident for ident in order if ident in self.waiting]
                if not ready:
                    break
                go = self.waiting.pop(ready[choose(len(ready))])  # type: ignore[arg-type]
                self.running += 1
                go.set()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]


@settings(max_examples=60)
@given(st.data())
def test_in_whatever_order_their_steps_come_one_at_most_holds_it(data: st.DataObject) -> None:
    """Steps: to list, to read, to create, to delete. Nothing old is kept, so that whoever
    oversleeps can create a number that was there before."""
    turns, inside = Turns(), Counter[str]()
    held = 0

    class Gated(StateStore):
        def get(self, path: str) -> bytes | None:
            turns.step()
            return super().get(path)

        def list(self, prefix: str) -> Iterator[str]:
            turns.step()
            return iter([*super().list(prefix)])

        def delete(self, path: str, *, sync: bool = True) -> None:
            turns.step()
            super().delete(path, sync=sync)

    create = module._create

    def gated(*arguments: Any) -> bool:
        turns.step()
        return create(*arguments)

    def actor() -> None:
        nonlocal held
        for _ in range(3):
            try:
                with lease(store, PATH):
                    inside["now"] += 1
                    assert inside["now"] == 1, "two hold it"
                    turns.step()
                    inside["now"] -= 1
                    held += 1
            except LeaseError:
                pass

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(module, "_create", gated),
        mock.patch.object(module, "_KEPT", 0),
        mock.patch.object(
            module, "time", SimpleNamespace(sleep=lambda _: turns.step(), **clocks())
        ),
    ):
        store = Gated(folder)
        turns.play([actor] * 3, choices(data))
    assert held


def choices(data: st.DataObject) -> Callable[[int], int]:
    """Whose turn it is: one for a while, then another."""
    who, left = 0, 0

    def choose(ready: int) -> int:
        nonlocal who, left
        if not left:
            who = data.draw(st.integers(0, 2))
            left = data.draw(st.integers(1, 40))
        left -= 1
        return who % ready

    return choose


def clocks() -> dict[str, Any]:
    return {
        name: getattr(time, name)
        for name in ("time_ns", "clock_gettime", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC")
        if hasattr(time, name)
    }


# ----------------------------------------------------------------------- holders that are gone


_HOLDER = """
import sys, time
from transforms.lease import LeaseError, lease
from transforms.state_store import StateStore

try:
    with lease(StateStore(sys.argv[1]), "replays/nightly/lease", float(sys.argv[2])) as held:
        print("held", flush=True)
        while True:
            time.sleep(0.02)
            held.check()
except LeaseError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def holder(store: StateStore) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    """Another process that holds it."""
    children: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        child = python(_HOLDER, str(store.folder), str(seconds))
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        return child

    yield start
    end(children)


@pytest.mark.parametrize("reaped", [True, False])
def test_of_a_process_of_this_machine_that_was_killed_it_is_taken_at_once(
    store: StateStore, holder: Callable[[float], subprocess.Popen[str]], reaped: bool
) -> None:
    child = holder(3_600)
    with pytest.raises(LeaseError), lease(store, PATH):
        pytest.fail("it lives")
    child.kill()
    if reaped:
        child.wait()
    else:
        wait_for(lambda: module._started(child.pid) == "")
    with lease(store, PATH) as held:
        held.check()


def test_a_process_that_has_the_id_of_one_that_is_gone_does_not_hold_it(
    store: StateStore, clock: Clock
) -> None:
    machine, pids = module._machine()
    gone = {"pid": os.getpid(), "machine": machine, "pids": pids, "beat": clock.now}
    write(store, 3, **gone, started=module._started(os.getpid()))
    with pytest.raises(LeaseError), lease(store, PATH):
        pytest.fail("it lives")
    write(store, 3, **gone, started="1")
    with lease(store, PATH):
        assert clock.now == 1_000


def test_a_process_of_another_user_that_is_not_to_be_seen_lives(
    store: StateStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("transforms.lease.os.kill", refused)
    monkeypatch.setattr(module, "_started", lambda _: None)
    machine, pids = module._machine()
    write(store, 3, pid=2**22 + 1, machine=machine, pids=pids, beat=clock.now)
    with pytest.raises(LeaseError), lease(store, PATH):
        pytest.fail("it lives")


def test_an_id_of_another_container_says_nothing(store: StateStore, clock: Clock) -> None:
    """The same kernel, so the same clock; but nobody here has that id."""
    machine, _ = module._machine()
    write(store, 3, pid=2**22 + 1, machine=machine, pids="pid:[1]", beat=clock.now)
    with pytest.raises(LeaseError), lease(store, PATH):
        pytest.fail("it lives")
    clock.now += 60
    with lease(store, PATH):
        assert clock.now == 1_060


def test_of_a_machine_that_died_it_is_taken_once_it_did_not_change_for_its_seconds(
    store: StateStore, clock: Clock
) -> None:
    write(store, 7, seconds=45.0)
    said: list[str] = []
    with lease(store, PATH, say=said.append) as held:
        assert 1_045 <= clock.now < 1_050
        held.check()
    assert len(said) == 1 and "process 7 on elsewhere" in said[0] and "45 s" in said[0]


def test_a_machine_that_still_renews_it_is_left_alone_as_soon_as_it_does(
    store: StateStore, clock: Clock
) -> None:
    write(store, 7)
    clock.then = [(1_020, lambda: write(store, 8))]
    with pytest.raises(LeaseError, match="process 7 on elsewhere"), lease(store, PATH):
        pytest.fail("it lives")
    assert clock.now < 1_025


def test_one_that_lets_go_while_it_is_watched_is_followed_at_once(
    store: StateStore, clock: Clock
) -> None:
    write(store, 7)
    clock.then = [(1_020, lambda: write(store, 8, released=True))]
    with lease(store, PATH):
        assert clock.now < 1_025


@pytest.mark.parametrize("step", [-86_400 * 400, 86_400 * 400])
@pytest.mark.parametrize("lives", [True, False])
def test_wall_clocks_that_step_or_differ_change_nothing(
    store: StateStore, clock: Clock, step: int, lives: bool
) -> None:
    its = time.time_ns() // 1_000_000 + step * 1000
    write(store, 7, since_ms=max(0, its), at_ms=max(0, its), beat=clock.now + step)
    if lives:
        clock.then = [(1_020, lambda: write(store, 8))]
        with pytest.raises(LeaseError), lease(store, PATH):
            pytest.fail("it lives")
    else:
        with lease(store, PATH):
            assert 1_060 <= clock.now < 1_065


def test_a_number_that_says_nothing_is_waited_for_and_then_passed_over(
    store: StateStore, clock: Clock
) -> None:
    store.put(f"{PATH}/{5:020d}", b"")
    with lease(store, PATH, seconds=30):
        assert 1_030 <= clock.now < 1_035
        assert names(store) == [5, 6]


# ---------------------------------------------------------------------- holders that lose it


def test_one_that_hung_past_its_end_is_told_and_disturbs_nobody(
    store: StateStore, holder: Callable[[float], subprocess.Popen[str]]
) -> None:
    child = holder(2)
    child.send_signal(signal.SIGSTOP)

    def taken() -> bool:
        try:
            with lease(store, PATH, 60) as held:
                child.send_signal(signal.SIGCONT)
                output, _ = child.communicate(timeout=60)
                assert child.returncode == 3, output
                assert "replays/nightly" in output and "is lost" in output
                held.check()
            return True
        except LeaseError:
            return False

    wait_for(taken, 60)


def test_one_that_overslept_while_others_came_and_went_does_not_renew_it(
    store: StateStore, clock: Clock
) -> None:
    lost: list[int] = []
    with pytest.raises(LeaseLost, match="took over"), lease(
        store, PATH, on_lost=lambda: lost.append(1)
    ) as held:  # fmt: skip
        for number in names(store):
            store.delete(f"{PATH}/{number:020d}")
        write(store, 400)  # and with its clocks stopped, it notices nothing
        held.check()
        held._step()
        assert held.lost.is_set() and lost == [1]
        held.check()
    assert says(store)["host"] == "elsewhere", "it lets go of nothing that is another's"


def test_one_that_another_overtook_does_not_renew_it(store: StateStore, clock: Clock) -> None:
    with pytest.raises(LeaseLost, match="process 7 on elsewhere took over"), lease(
        store, PATH
    ) as held:  # fmt: skip
        write(store, max(names(store)) + 1)
        held._step()


def test_one_that_slept_for_too_long_does_not_renew_it_even_if_nobody_took_it(
    store: StateStore, clock: Clock
) -> None:
    with pytest.raises(LeaseLost, match="could not be renewed for 60 s"), lease(
        store, PATH
    ) as held:  # fmt: skip
        before = names(store)
        clock.now += 60
        held._step()
        assert names(store) == before


def test_it_is_renewed_as_long_as_it_is_held(store: StateStore) -> None:
    with lease(store, PATH, seconds=3) as held:
        first = max(names(store))
        wait_for(lambda: max(names(store)) >= first + 2)
        assert not held.lost.is_set()
        found = says(store)
    assert found["at_ms"] > found["since_ms"]


def test_a_store_that_fails_for_a_moment_loses_nothing(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = threading.Event()
    create, failed = module._create, []

    def broken(*arguments: Any) -> bool:
        if failing.is_set():
            failed.append(1)
            raise OSError(5, "Input/output error")
        return create(*arguments)

    monkeypatch.setattr(module, "_create", broken)
    with lease(store, PATH, seconds=6) as held:
        first = max(names(store))
        failing.set()
        wait_for(lambda: failed)
        failing.clear()
        wait_for(lambda: max(names(store)) > first)
        held.check()


def test_a_store_that_hangs_ends_it_in_time_by_itself(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    lost = threading.Event()
    create = module._create

    def hung(*arguments: Any) -> bool:
        hangs.wait(60)
        return create(*arguments)

    with pytest.raises(LeaseLost, match="could not be renewed for 1 s"), lease(
        store, PATH, seconds=1, on_lost=lost.set
    ) as held:  # fmt: skip
        monkeypatch.setattr(module, "_create", hung)
        monkeypatch.setattr(module, "_JOIN_SECONDS", 0.1)
        assert lost.wait(30)
        with pytest.raises(LeaseLost):
            held.check()
    hangs.set()


def test_a_disk_that_is_full_takes_the_name_and_not_the_lease(
    store: StateStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease(store, PATH) as held:
        first = max(names(store))
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "fdopen", full)
            held._step()
        assert max(names(store)) == first + 1
        held.check()
        held._step()
        assert says(store)["pid"] == os.getpid()


def full(descriptor: int, *_: object) -> Any:
    os.close(descriptor)
    raise OSError(28, "No space left on device")
