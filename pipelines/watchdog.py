"""Notices a run that does not get on, and starts it again at its checkpoint.

A bundle may hang where nothing bounds it: a bug in an encoder, a deadlock, a C call that never
returns. Then the stacks of all threads go to standard error, and the process replaces itself, with
the same arguments and the same process id. A record that makes it hang again and again must not
do so for ever: a few times within an hour, and the run ends, and says where it hung.

What hangs without letting go of the interpreter's lock (a regular expression that backtracks)
stops this thread too: then faulthandler's own, which needs no lock, ends the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from apache_beam import DoFn

from pipelines.notify import notify
from pipelines.run import Run
from transforms import heartbeat
from transforms.read.reader import session

__all__ = ["GAVE_UP", "SECONDS", "Watchdog", "leave"]

SECONDS = 120.0
"""How long nothing may move, if the settings do not say."""
GAVE_UP = 3
"""The exit code of a run that hung once too often: to start it again helps nothing."""

_LOOK_SECONDS = 1.0
_LATE_SECONDS = 5.0  # a look that comes so late says that the whole process was stopped
_GRACE_SECONDS = 10.0  # until what needs no interpreter's lock ends the process
_MOST, _WITHIN = 5, 3600.0  # restarts, seconds
_RESTARTS = "ALERTBEAM_RESTARTS"
_STDERR = 2


class Watchdog:
    """`with Watchdog(run):` around `run.run()`. It looks from the first bundle on, which it also
    tells the service manager of.

    seconds: how long nothing may move. waits: whether a bundle may wait for every sink, as it may
    while a shift drains; else that is allowed only then.
    """

    def __init__(self, run: Run, seconds: float = SECONDS, waits: bool = False) -> None:
        self._run = run.name
        self._seconds = seconds
        self._waits = waits
        # One after the other takes and settles, each within its patience.
        self._patience = sum(2 * sink.settings.patience for sink in run.settings.sinks)
        self._stopping = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        faulthandler.enable(_STDERR)  # systemd's watchdog sends SIGABRT
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        heartbeat.end(self._run)

    def stopping(self) -> None:
        """The run was told to end: if it hangs now, it ends. Safe in a signal handler."""
        self._stopping = True
        notify("STOPPING=1")

    def _watch(self) -> None:
        said = waits = False
        looked = granted = time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            before, looked = looked, time.monotonic()
            waited, waits = waits, self._waits or session(self._run).draining
            if looked - before > _LATE_SECONDS or (waited and not waits):
                granted = looked
            moved = heartbeat.since(self._run)
            if moved is None:
                continue
            limit = self._seconds + (self._patience if waits else 0)
            still = looked - max(moved, granted)
            if still > limit:
                self._hung(still)
            notify("WATCHDOG=1" if said else "READY=1")
            said = True
            faulthandler.dump_traceback_later(limit + _GRACE_SECONDS, exit=True, file=_STDERR)

    def _hung(self, still: float) -> None:
        """Never returns. What hangs may hold any lock: so no logging, and no buffers."""
        where = _where()
        now = time.monotonic()  # of the machine: the next process reads the same clock
        before = map(float, os.environ.get(_RESTARTS, "").split())
        restarts = [at for at in before if at > now - _WITHIN]
        if self._stopping:
            then, code = "it was told to end, and ends; the next run goes on at the checkpoint", 1
        elif len(restarts) < _MOST:
            then = f"it starts again, at the checkpoint ({len(restarts) + 1} of {_MOST} an hour)"
            code = 0
        else:
            then = (
                f"it hung {_MOST + 1} times within an hour, and ends; the stacks above say more: "
                "mend what hangs, or leave that sink out; the next run goes on at the checkpoint"
            )
            code = GAVE_UP
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        _say(f"the run did not get on for {still:.0f} s: it hangs {where}: {then}")
        if code:
            leave(code)
        os.environ[_RESTARTS] = " ".join(f"{at:.0f}" for at in (*restarts, now))
        notify("STATUS=it hung, and starts again")
        faulthandler.cancel_dump_traceback_later()
        _show_cursor()
        for descriptor in _open():
            # Python's own close at exec; libraries' may not, and one may be the run's lock.
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def leave(code: int) -> None:
    """End at once: a clean end would wait for threads that hold sockets and queues."""
    _show_cursor()
    os._exit(code)


def _say(line: str) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{now} ERROR {line}\n".encode("utf-8", "replace"))


def _show_cursor() -> None:
    """The display hides it while it moves."""
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")


def _open() -> list[int]:
    with contextlib.suppress(OSError):
        return [fd for fd in (int(path.name) for path in Path("/proc/self/fd").iterdir()) if fd > 2]
    return []


def _where() -> str:
    """In which step, and at which line, the bundle stands; without one, the main thread."""
    frames = sys._current_frames()
    found = frames.get(threading.main_thread().ident or 0)
    step = ""
    for frame in frames.values():
        doing = next((s for s in map(_step, _outwards(frame)) if s), "")
        if doing:
            found, step = frame, f"in {doing}, "
            break
    if found is None:
        return f"{step}nobody knows where"
    code = found.f_code
    return f"{step}at {Path(code.co_filename).name}:{found.f_lineno} ({code.co_name})"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _step(frame: FrameType) -> str:
    """The pipeline's step that a frame belongs to, if it is one's own."""
    found = frame.f_locals.get("self")
    if not isinstance(found, DoFn) or not type(found).__module__.startswith("transforms."):
        return ""
    sink = getattr(found, "_sink", "")
    name = getattr(sink, "name", sink)
    step = type(found).__name__.strip("_")
    return f"the step {step} of the sink {name}" if name else f"the step {step}"
