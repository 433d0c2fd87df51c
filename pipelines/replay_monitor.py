"""Shows how a replay goes: a bar and each sink's account in a terminal, a line in a log."""

from __future__ import annotations

import contextlib
import threading
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.replay import Rehearsal, Replay
from pipelines.report import sinks_table

__all__ = ["Read", "Shown", "size"]

_SHOW_SECONDS = 0.5
_LINE_SECONDS = 5.0


class Shown:
    """A bar with rate and time left, and each sink's account; in a log, a line now and then."""

    def __init__(self, going: Replay, console: Console, quiet: bool) -> None:
        self._going = going
        self._console = console
        self._quiet = quiet
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._quiet or not self._console.is_terminal:
            while not self._ended.wait(_LINE_SECONDS):
                if not self._quiet:
                    with contextlib.suppress(OSError, SystemExit):
                        self._console.print(self._line(), markup=False, soft_wrap=True)
            return
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
            auto_refresh=False, console=self._console,
        )  # fmt: skip
        task = bar.add_task("", total=max(1, self._going.bytes))
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not self._ended.wait(_SHOW_SECONDS):
                bar.update(task, completed=self._going.read()[0], description=self._line())
                found = self._going.accounts()
                live.update(Group(bar, sinks_table(found)), refresh=True)

    def _line(self) -> str:
        done, total = self._going.read()
        records = self._going.progress.records
        seconds = max(0.001, time.monotonic() - self._began)
        line = (
            f"{100 * done / max(1, total):3.0f} %  {records:,} alerts ({records / seconds:,.0f}/s)"
        )
        if held := self._going.progress.held:
            line += f"  waiting: no sink takes anything ({held})"
        return line


class Read:
    """How far reading is, where nothing is sent."""

    def __init__(self, rehearsal: Rehearsal, console: Console, quiet: bool) -> None:
        self._rehearsal = rehearsal
        self._console = console
        self._shows = console.is_terminal and not quiet
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        if not self._shows:
            return
        progress = self._rehearsal.progress
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not self._ended.wait(_SHOW_SECONDS):
                done = 100 * progress.bytes / max(1, self._rehearsal.bytes)
                live.update(f"{done:3.0f} %  {progress.records:,} records", refresh=True)


def size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
