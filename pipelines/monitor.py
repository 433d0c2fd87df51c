"""Watches a run: writes its status for `alertbeam status`, and shows it to whoever looks."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelines.forward import accounts
from pipelines.report import accounts_of, sinks_table
from pipelines.run import Run
from transforms.delivery.engine import engines
from transforms.read.reader import session

__all__ = ["Monitor"]

_STATUS_SECONDS = 1.0
_SHOW_SECONDS = 0.5
_LINE_SECONDS = 5.0


class Monitor:
    """`with Monitor(run, console):` around `run.run()`.

    In a terminal the account moves in place; elsewhere (a log, a pipe) a line comes every 5 s.
    """

    def __init__(self, run: Run, console: Console, quiet: bool = False) -> None:
        self._run = run
        self._console = console
        self._quiet = quiet
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._began = time.monotonic()
        self._before = (self._began, 0)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write(running=False)

    def _watch(self) -> None:
        if self._quiet or not self._console.is_terminal:
            shown = time.monotonic()
            while not self._ended.wait(_STATUS_SECONDS):
                self._write()
                if not self._quiet and time.monotonic() - shown >= _LINE_SECONDS:
                    shown = time.monotonic()
                    self._console.print(self._line(), soft_wrap=True)
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not self._ended.wait(_SHOW_SECONDS):
                self._write()
                found = accounts_of(self._run.store, accounts(self._run.settings))
                live.update(Group(self._line(), sinks_table(found, circuits=True)), refresh=True)

    def _write(self, running: bool = True) -> None:
        """`status.json`: small, replaced whole, so that another process can look at any time."""
        status = {
            "pid": os.getpid(),
            "running": running,
            "at_ms": int(time.time() * 1000),
            "runner": self._run.runner.says.partition(":")[0],
            "partitions": session(self._run.name).status() if running else self._partitions,
            "sinks": {e.sink.name: dataclasses.asdict(e.status()) for e in engines(self._run.name)}
            if running
            else self._sinks,
        }
        self._partitions: list[Any] = status["partitions"]  # type: ignore[assignment]
        self._sinks: dict[str, Any] = status["sinks"]  # type: ignore[assignment]
        self._run.store.put("status.json", msgspec.json.encode(status))

    def _line(self) -> Text:
        """Events read, their rate, and how far behind the hubs reading is."""
        partitions = session(self._run.name).status()
        read = sum(p.taken for p in partitions)
        now = time.monotonic()
        (then, before), self._before = self._before, (now, read)
        rate = (read - before) / max(now - then, 0.001)
        lag = [p.lag for p in partitions if p.lag is not None]
        text = Text(f"{now - self._began:6.0f} s  read {read:,} events ({rate:,.0f}/s)")
        text.append(f"  waiting in the hub {sum(lag):,}")
        for engine in engines(self._run.name):
            status = engine.status()
            if status.circuit != "closed":
                text.append(f"  {engine.sink.name}: {status.circuit} ({status.reason})", "red")
        for partition in partitions:
            if partition.error:
                text.append(f"  {partition.source}/{partition.partition}: {partition.error}", "red")
        return text
