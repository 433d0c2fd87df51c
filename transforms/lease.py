"""A lease on the state store: one holder at a time, on whatever machine, until it ends or dies.

    <path>/<number>   who took, renewed or released it; the highest number is the lease

The folder may be a network share, so no lock of one kernel's is enough. Nothing but this is asked
of it: of several that create a file of one name exclusively, one succeeds (open(2): `O_EXCL`, also
over NFS 3 and later, and SMB), and who has created one finds in the folder what was there before.

**One holder.** To take, renew or release is the same step: create the number behind the highest.
Of all who try from the same state one succeeds, the others look again; so a holder that renews and
one that thinks it dead exclude each other, too. The highest number is never removed. Lower ones
are, some renewals later, and one that overslept could create such a number again: hence who has
created one holds it only if it then finds no higher one.

**No wall clock is asked.** The holder stops by itself `seconds` after it began its last renewal, by
its own clock, which goes on while the machine sleeps. Another takes over only after it has seen the
same number for `seconds` by its own clock, or at once where it can know: the lease was released, or
the holder is a process of this machine that is gone, or of this boot of it, whose clock both share.
So clocks that step, or differ, change nothing; those of two machines need only run equally fast.

What is left: a machine that was frozen with all its clocks (a paused VM) thinks that it still holds
what another took, until its next renewal, a third of `seconds` later at most.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from transforms.delivery.line import printable
from transforms.state_store import StateStore

__all__ = ["Lease", "LeaseError", "LeaseLost", "held_by", "lease"]

_LOGGER = logging.getLogger(__name__)

_RENEWALS = 3  # in `seconds`
_KEPT = 8  # numbers below the highest: no listing takes as long as so many renewals
_JOIN_SECONDS = 5.0


class LeaseError(Exception):
    """Another holds the lease; the message says who, since when, and until when."""

    exit_code = 3


class LeaseLost(LeaseError):
    """It is held no more: another took over, or it could not be renewed in time."""


class _Term(msgspec.Struct):
    """Who has the lease. Wall-clock times, in ms, are for people only.

    machine: its boot and clock; pids: its space of process ids; both "" where it does not tell.
    started: when the process was, as the kernel counts. beat: `_clock()` before it was written.
    """

    host: str = ""
    pid: int = 0
    holder: str = ""
    machine: str = ""
    pids: str = ""
    started: str = ""
    since_ms: int = 0
    at_ms: int = 0
    beat: float = 0.0
    seconds: float = 0.0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {printable(self.host) or 'an unknown machine'}"


_TERM = msgspec.json.Decoder(_Term)


class Lease:
    """A lease that is held. `lost` is set when it is not any more."""

    def __init__(
        self,
        store: StateStore,
        path: str,
        number: int,
        term: _Term,
        on_lost: Callable[[], object] | None,
    ) -> None:
        self.lost = threading.Event()
        self._why = ""
        self._store = store
        self._path = path
        self._number = number
        self._term = term
        self._on_lost = on_lost
        self._losing = threading.Lock()
        self._ended = threading.Event()
        self._lapse = self._lapses()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises LeaseLost. To be asked before what must not be done by two; costs nothing."""
        if not self.lost.is_set() and self._lapsed():
            self._lose(self._late())
        if self.lost.is_set():
            raise LeaseLost(self._why)

    def release(self) -> None:
        """Let go of it; the next one need not wait."""
        self._ended.set()
        self._thread.join(_JOIN_SECONDS)
        self._lapse.cancel()
        if self.lost.is_set() or self._thread.is_alive():
            return
        try:
            released = msgspec.structs.replace(self._term, released=True, at_ms=_now_ms())
            _create(self._store, self._path, self._number + 1, released)
        except OSError as error:
            _LOGGER.warning("the lease %s could not be released: %s", self._path, error)

    def _renew(self) -> None:
        pause = usual = self._term.seconds / _RENEWALS
        while not self._ended.wait(pause) and not self.lost.is_set():
            pause = usual
            try:
                self._step()
            except OSError as error:
                _LOGGER.warning("the lease %s could not be renewed: %s", self._path, error)
                pause = min(1.0, usual / 10)

    def _step(self) -> None:
        if self._lapsed():
            self._lose(self._late())
            return
        term = msgspec.structs.replace(self._term, beat=_clock(), at_ms=_now_ms())
        mine = _create(self._store, self._path, self._number + 1, term)
        self._number += mine
        if not mine or _newest(self._store, self._path) != self._number:
            _, other = _look(self._store, self._path)
            self._lose(f"{other or 'another'} took over")
            return
        self._term = term
        self._lapse.cancel()
        self._lapse = self._lapses()
        _sweep(self._store, self._path, self._number)

    def _lapses(self) -> threading.Timer:
        """Ends the lease in time where the store does not answer: renewing it hangs there."""
        left = self._term.beat + self._term.seconds - _clock()
        timer = threading.Timer(max(0.0, left), lambda: self._lose(self._late()))
        timer.daemon = True
        timer.start()
        return timer

    def _lapsed(self) -> bool:
        return _clock() - self._term.beat >= self._term.seconds

    def _late(self) -> str:
        return f"it could not be renewed for {self._term.seconds:.0f} s"

    def _lose(self, why: str) -> None:
        with self._losing:
            if self.lost.is_set() or self._ended.is_set():
                return
            self._why = f"the lease of {_named(self._store, self._path)} is lost: {why}"
            self.lost.set()
        if self._on_lost is not None:
            self._on_lost()


@contextlib.contextmanager
def lease(
    store: StateStore,
    path: str,
    seconds: float = 60.0,
    say: Callable[[str], None] = lambda line: None,
    on_lost: Callable[[], object] | None = None,
) -> Iterator[Lease]:
    """Hold `path` alone while the block runs. Raises LeaseError if another has it: at once where
    that can be known, else as soon as it renews it; and LeaseLost at the end if it was lost.

    seconds: how long it outlasts a holder that died, or hangs; renewed every third of it.
    on_lost: called from another thread, once, when the lease is lost.
    """
    me = _this(seconds)
    held = Lease(store, path, *_take(store, path, me, say), on_lost)
    try:
        yield held
    finally:
        held.release()
    if held.lost.is_set():
        held.check()


def held_by(store: StateStore, path: str) -> str:
    """Who has the lease, in words; "": nobody, as far as can be known from here."""
    newest = _newest(store, path)
    term = _read(store, path, newest) if newest >= 0 else None
    return "" if term is None or _free(term, _this(0.0), _clock(), 0.0) else str(term)


def _this(seconds: float) -> _Term:
    machine, pids = _machine()
    return _Term(
        socket.gethostname(),
        os.getpid(),
        uuid.uuid4().hex,
        machine,
        pids,
        _started(os.getpid()) or "",
        since_ms=_now_ms(),
        seconds=seconds,
    )


def _take(store: StateStore, path: str, me: _Term, say: Callable[[str], None]) -> tuple[int, _Term]:
    number, since, moved, said = -1, 0.0, False, False
    while True:
        newest, holder = _look(store, path)
        now = _clock()
        if newest != number:
            number, since, moved = newest, now, number >= 0
        free = _free(holder, me, now, now - since)
        if free:
            mine = msgspec.structs.replace(me, beat=now, at_ms=_now_ms())
            if _create(store, path, number + 1, mine):
                if _newest(store, path) == number + 1:
                    _sweep(store, path, number + 1)
                    return number + 1, mine
                store.delete(_file(path, number + 1), sync=False)  # it was there before, and went
        elif holder is not None and (moved or free is False):
            raise LeaseError(_refusal(store, path, holder))
        elif now > since and not said:
            said = True
            say(
                f"{holder or 'somebody'} had {_named(store, path)} last, and did not let go: "
                f"waiting up to {(holder or me).seconds:.0f} s to see whether it still works"
            )
        time.sleep(min(1.0, me.seconds / 50))


def _free(holder: _Term | None, me: _Term, now: float, watched: float) -> bool | None:
    """Whether the lease may be taken; None: only time will tell.

    watched: for how long it has not changed.
    """
    if holder is None:  # it is being written, or could not be
        return watched >= me.seconds or None
    if holder.released:
        return True
    if holder.machine and holder.machine == me.machine and now >= holder.beat:
        gone = holder.pids == me.pids and _gone(holder)
        return gone or now - holder.beat >= holder.seconds
    return watched >= holder.seconds or None


def _refusal(store: StateStore, path: str, holder: _Term) -> str:
    until = holder.at_ms + int(holder.seconds * 1000)
    return (
        f"{_named(store, path)} is taken: {holder} has it since {_shown(holder.since_ms)}, "
        f"until {_shown(until)} unless it renews it"
    )


def _named(store: StateStore, path: str) -> str:
    return f"{path.rpartition('/')[0] or path} in the state folder {store.folder}"


def _shown(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


# ------------------------------------------------------------------------------- its numbers


def _file(path: str, number: int) -> str:
    return f"{path}/{number:020d}"


def _numbers(store: StateStore, path: str) -> list[int]:
    names = (found.rpartition("/")[2] for found in store.list(path))
    return sorted(int(name) for name in names if name.isdecimal())


def _newest(store: StateStore, path: str) -> int:
    return max(_numbers(store, path), default=-1)


def _look(store: StateStore, path: str) -> tuple[int, _Term | None]:
    """The highest number, and what it says; None: nothing yet."""
    newest = _newest(store, path)
    if newest < 0:
        nobody = _Term(released=True)
        store.put(_file(path, 0), msgspec.json.encode(nobody), sync=False)  # makes the folder
        return 0, nobody
    return newest, _read(store, path, newest)


def _read(store: StateStore, path: str, number: int) -> _Term | None:
    """What a number says; None: nothing yet, or it is gone."""
    try:
        return _TERM.decode(store.get(_file(path, number)) or b"")
    except msgspec.DecodeError:
        return None


def _create(store: StateStore, path: str, number: int, term: _Term) -> bool:
    """Whether the number is ours, as nobody had it: it is, even if nothing could be written in."""
    try:
        descriptor = os.open(
            store.folder / _file(path, number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(term))
    except OSError as error:
        _LOGGER.warning("the lease %s holds nobody's name: %s", path, error)
    return True


def _sweep(store: StateStore, path: str, number: int) -> None:
    for old in _numbers(store, path):
        if old < number - _KEPT:
            store.delete(_file(path, old), sync=False)


# ------------------------------------------------------------------- this machine, its processes


def _clock() -> float:
    """Seconds since the machine's start, also those in which it slept (clock_getres(2))."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _machine() -> tuple[str, str]:
    """What processes of one clock have in common, and those of one space of ids (proc(5))."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        spaces = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("time", "pid")]
    except OSError:
        return "", ""
    return f"{boot} {spaces[0]}", spaces[1]


def _gone(holder: _Term) -> bool:
    """Whether the process is: none has its id, or one that was started at another time."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's; it need not be seen in /proc
    started = _started(holder.pid)
    return started is not None and started != holder.started


def _started(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; "": it ended, and nobody has asked how;
    None: not to be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]
