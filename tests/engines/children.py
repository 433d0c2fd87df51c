"""Processes of a test that end with it, whatever happens: each in a session of its own, and where
there is setpriv, by the kernel if the test itself is killed (so start them from a thread that
stays: the main one).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

__all__ = ["LOOPBACK", "Child", "free_port", "until"]

LOOPBACK = "127.0.0.1"
_SETPRIV = shutil.which("setpriv")

T = TypeVar("T")


class Child:
    """A program that can be killed, and started again. It appends what it says to `log`."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path
    ) -> None:
        self.command, self.log = list(command), log
        self._env, self._cwd = {**os.environ, **env}, cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the one that runs. Raises AssertionError: what it said, if it ended by itself."""
        assert self._process is not None, f"{self.log.stem} was not started"
        ended = self._process.poll()
        assert ended is None, f"{self.log.stem} ended with {ended}:\n{self.said()[-4000:]}"
        return self._process.pid

    def start(self) -> None:
        assert self._process is None, f"{self.log.stem} runs"
        kept = [_SETPRIV, "--pdeathsig", "KILL", "--"] if _SETPRIV else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*kept, *self.command],
                env=self._env,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._groups.append(self._process.pid)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds: float = 20) -> int | None:
        """SIGTERM, and kill -9 for who does not heed it in time; its exit code."""
        return self._end(signal.SIGTERM, seconds)

    def _end(self, number: signal.Signals, seconds: float) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return process.returncode

    def close(self) -> None:
        """End it, and whatever its processes have started and left."""
        self.stop()
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._groups.clear()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def until(what: Callable[[], T], seconds: float, why: Callable[[], str] | str) -> T:
    """What it answers as soon as that is true, asked every 50 ms. Raises AssertionError: why."""
    end = time.monotonic() + seconds
    while True:
        if answer := what():
            return answer
        assert time.monotonic() < end, why if isinstance(why, str) else why()
        time.sleep(0.05)
