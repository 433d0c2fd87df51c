"""The pipeline as a victim: `alertbeam …` in a process that dies at a named point, whose state
store fails, whose clock jumps, whose disk forgets.

Production code knows nothing of it: functions are wrapped here, in the process that is the victim.
`python -m tests.chaos.victim` is the nursery: it imports everything once, then forks a life for
each order (a line of JSON) on its standard input, one at a time, and says its process id and, once
it is dead, its wait status. So a life begins within tenths of a second instead of seconds.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["POINTS", "Call", "Journal", "Put"]


class Put(NamedTuple):
    """A write of the state store to a path that begins so: `before` it, `torn` (the temporary
    file half written and not renamed), or `after` it."""

    prefix: str
    phase: str


class Call(NamedTuple):
    """A call of a function: `before` it, or `after` it. Only those of which `counts` is true are
    counted: of its result and arguments."""

    module: str
    function: str
    phase: str
    counts: Callable[[Any, tuple[Any, ...]], bool] = lambda result, arguments: True


def _draining(result: Any, arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[1])


def _something(result: Any, arguments: tuple[Any, ...]) -> bool:
    return result is not None


def _payment(result: Any, arguments: tuple[Any, ...]) -> bool:
    return len(arguments) > 5 and arguments[5] is not None


POINTS: dict[str, Put | Call] = {
    "sent, no receipt": Call("transforms.delivery.engine", "Engine._deliver", "after"),
    "receipt, no account": Call("transforms.write", "receipt", "after"),
    "account half written": Put("accounts/", "torn"),
    "account, no checkpoint": Put("checkpoints/", "before"),
    "IOU half written": Put("owed/", "torn"),
    "IOU, no account": Put("owed/", "after"),
    "dead letter half written": Put("dead/", "torn"),
    "dead letter, no receipt": Put("dead/", "after"),
    "what was seen half written": Put("seen/", "torn"),
    "seen, not handed over": Put("seen/", "after"),
    "hand-over half written": Put("handed-over", "torn"),
    "handed over, no shift": Put("handed-over", "after"),
    "mark half written": Put("high-water", "torn"),
    "mark, nothing read": Put("high-water", "after"),
    "draining": Call("pipelines.run", "Run._draining", "after", _draining),
    "payment in hand": Call("transforms.read.payer", "Payer.take", "after", _something),
    "paid, not struck out": Call("transforms.owed", "write", "before", _payment),
    "struck out, not closed": Put("paid/", "after"),
    "before a write": Put("", "before"),
    "within a write": Put("", "torn"),
    "after a write": Put("", "after"),
}
"""Where a victim can be told to die."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class _Death:
    """Dies at the n-th time that a point is passed."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._lock = threading.Lock()

    def now(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


_torn = threading.local()  # .now: this thread's next rename is the end


def _die_at(name: str, nth: int) -> None:
    point, death = POINTS[name], _Death(nth)
    if isinstance(point, Call):
        _around(point, death)
        return
    from transforms.state_store import StateStore

    put = StateStore.put

    def dying(self: Any, path: str, *arguments: Any, **named: Any) -> Any:
        its_time = path.startswith(point.prefix) and death.now()
        if its_time and point.phase == "before":
            die()
        _torn.now = its_time and point.phase == "torn"
        result = put(self, path, *arguments, **named)
        if its_time:
            die()
        return result

    StateStore.put = dying  # type: ignore[method-assign]


def _around(point: Call, death: _Death) -> None:
    owner: Any = importlib.import_module(point.module)
    *outer, name = point.function.split(".")
    for each in outer:
        owner = getattr(owner, each)
    function = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        if point.phase == "before" and point.counts(None, arguments) and death.now():
            die()
        result = function(*arguments, **named)
        if point.phase == "after" and point.counts(result, arguments) and death.now():
            die()
        return result

    setattr(owner, name, dying)


# ------------------------------------------------------------------------ the state store's disk

_SAYS = {
    "disk full": (errno.ENOSPC, {"make", "sync"}),
    "disk read-only": (errno.EROFS, {"make", "change"}),
    "disk unreachable": (errno.EIO, {"make", "sync", "change", "read"}),
}


def _trouble(windows: list[tuple[float, float, str, float]], state: str) -> None:
    """What the system does in the state folder fails, or takes `value` seconds, in windows of
    monotonic time."""

    def check(what: str, path: Any) -> None:
        path = os.fspath(path or "")
        if not f"{path}/".startswith(f"{state}/"):
            return
        now = time.monotonic()
        for begin, end, kind, value in windows:
            if not begin <= now < end:
                continue
            if kind == "disk slow":
                time.sleep(value)
            elif what in _SAYS[kind][1]:
                code = _SAYS[kind][0]
                raise OSError(code, os.strerror(code), path)

    def wrap(owner: Any, name: str, what: str, where: Callable[..., Any]) -> None:
        function = getattr(owner, name)

        def checked(*arguments: Any, **named: Any) -> Any:
            check(what, where(*arguments, **named))
            return function(*arguments, **named)

        setattr(owner, name, checked)

    def first(path: Any = "", *rest: Any, **named: Any) -> Any:
        return "" if isinstance(path, int) else path

    wrap(tempfile, "mkstemp", "make", lambda *rest, dir="", **named: dir)
    wrap(os, "mkdir", "make", first)
    wrap(os, "fsync", "sync", lambda fd: Path(f"/proc/self/fd/{fd}").readlink())
    wrap(os, "replace", "change", first)
    wrap(os, "unlink", "change", first)
    wrap(os, "scandir", "read", first)
    wrap(Path, "read_bytes", "read", first)


def _clock(windows: list[tuple[float, float, str, float]]) -> None:
    """The wall clock is off by `value` seconds in windows of monotonic time."""
    now, now_ns = time.time, time.time_ns

    def off() -> float:
        at = time.monotonic()
        return sum(value for begin, end, _, value in windows if begin <= at < end)

    time.time = lambda: now() + off()
    time.time_ns = lambda: now_ns() + int(off() * 1e9)


# ------------------------------------------------------------------------------- power failures


class Journal:
    """Writes down what is done to names in the state folder, and what was fsynced, so that
    `power.fail` can undo what was not. What a rename or an unlink takes away is kept by a link."""

    def __init__(self, state: Path, folder: Path) -> None:
        self._state = f"{state}/"
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._file = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._number = 0
        self._synced: set[str] = set()
        self._replace, self._unlink, self._mkdir, self._fsync = (
            os.replace, os.unlink, os.mkdir, os.fsync
        )  # fmt: skip

    def install(self) -> None:
        os.replace = os.rename = self.replace
        os.unlink = os.remove = self.unlink
        os.mkdir = self.mkdir
        os.fsync = self.fsync

    def _mine(self, path: str) -> bool:
        return path.startswith(self._state) or f"{path}/" == self._state

    def _write(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def _begin(self, op: str, path: str, **more: Any) -> None:
        """Said before it is done, with the lock held: its number orders it."""
        self._number += 1
        kept = self._folder / str(self._number)
        try:
            os.link(path, kept)
        except OSError:
            kept = None
        self._write(
            op=op, n=self._number, path=path, folder=str(Path(path).parent),
            kept=str(kept) if kept else None, **more,
        )  # fmt: skip

    def replace(self, source: Any, target: Any, **named: Any) -> None:
        if not self._mine(path := os.fspath(target)):
            return self._replace(source, target, **named)
        with self._lock:
            source = os.fspath(source)
            self._begin("rename", path, source=source, synced=source in self._synced)
            self._synced.discard(source)
            return self._replace(source, target, **named)

    def unlink(self, path: Any, **named: Any) -> None:
        path = os.fspath(path)
        if not (self._mine(path) and Path(path).exists()) or Path(path).name.startswith("."):
            return self._unlink(path, **named)
        with self._lock:
            self._begin("unlink", path)
            return self._unlink(path, **named)

    def mkdir(self, path: Any, *arguments: Any, **named: Any) -> None:
        path = os.fspath(path)
        if not self._mine(path) or Path(path).exists():
            return self._mkdir(path, *arguments, **named)
        with self._lock:
            self._begin("mkdir", path)
            return self._mkdir(path, *arguments, **named)

    def fsync(self, fd: Any) -> None:
        path = str(Path(f"/proc/self/fd/{fd if isinstance(fd, int) else fd.fileno()}").readlink())
        with self._lock:
            upto = self._number
        self._fsync(fd)
        if self._mine(path) or path == str(Path(self._state).parent):
            with self._lock:
                if Path(path).is_dir():
                    self._write(op="fsync", folder=path, upto=upto)
                else:
                    self._synced.add(path)


def _low() -> None:
    """All renames, also those of pathlib, pass `os.replace`; and a torn one is the end."""
    replace = os.replace

    def dying(source: Any, target: Any, **named: Any) -> None:
        if getattr(_torn, "now", False):
            os.truncate(source, Path(source).stat().st_size // 2)
            die()
        replace(source, target, **named)

    os.replace = os.rename = dying
    Path.replace = lambda self, target: (os.replace(self, target), Path(target))[1]  # noqa: PTH105
    Path.rename = Path.replace

    def unlink(self: Path, missing_ok: bool = False) -> None:
        try:
            os.unlink(self)  # noqa: PTH108
        except FileNotFoundError:
            if not missing_ok:
                raise

    Path.unlink = unlink  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------ a process


def _live(order: dict[str, Any]) -> None:
    """Be `alertbeam …`, with what the order does to it, until it ends."""
    _with_parent()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, to in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, to)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    random.seed(order["seed"])
    if order["journal"]:
        Journal(Path(order["state"]), Path(order["journal"])).install()
    _low()
    windows = [tuple(window) for window in order["windows"]]
    if clock := [window for window in windows if window[2].startswith("clock")]:
        _clock(clock)
    if disk := [window for window in windows if window[2].startswith("disk")]:
        _trouble(disk, order["state"])
    if order["planted"]:
        from transforms import owed

        owed.write = lambda *arguments, **named: None
    if order["point"]:
        _die_at(order["point"], order["nth"])
    from pipelines.cli import main

    main(order["arguments"])


def _with_parent() -> None:
    """Whoever started this is gone: so is this."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _nursery() -> None:
    _with_parent()
    for module in ("pipelines.cli", "pipelines.monitor", "pipelines.run", "pipelines.settings"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _live(order)
            return
        _say(pid)
        _, status = os.waitpid(pid, 0)
        _say(status)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _nursery()
