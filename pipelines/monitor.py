"""Watches a run: writes its status for `alertbeam status`, and shows it to whoever looks."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import deque

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pipelines.forward import accounts
from pipelines.notify import notify
from pipelines.report import OWED, accounts_of, owed_table, sinks_table
from pipelines.run import Run
from transforms.delivery.line import printable

__all__ = ["Monitor"]

_LOGGER = logging.getLogger(__name__)

_STATUS_SECONDS = 1.0
_SHOW_SECONDS = 0.5
_LINE_SECONDS = 5.0
_RATE_SECONDS = 10.0  # that a rate of payments is of


class Monitor:
    """`with Monitor(run, console):` around `run.run()`.

    In a terminal the account moves in place; elsewhere (a log, a pipe) a line comes every 5 s, and
    the service manager has it as the service's status.
    """

    def __init__(self, run: Run, console: Console, quiet: bool = False) -> None:
        self._run = run
        self._console = console
        self._quiet = quiet
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="monitor", daemon=True)
        self._began = time.monotonic()
        self._before = (self._began, 0)
        self._problem = ""  # of writing the status, told once
        self._paid: dict[str, deque[tuple[float, int]]] = {}  # by sink: when, records by then

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
                if time.monotonic() - shown < _LINE_SECONDS:
                    continue
                shown = time.monotonic()
                line = self._line()
                notify(f"STATUS={line.plain.strip()}")
                if not self._quiet:
                    try:
                        self._console.print(line, soft_wrap=True)
                    except (OSError, SystemExit):
                        # Nobody reads any more (of a pipe, rich tells so by SystemExit).
                        self._quiet = True
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not self._ended.wait(_SHOW_SECONDS):
                self._write()
                found = accounts_of(self._run.store, accounts(self._run.settings))
                seen = Group(self._line(), sinks_table(found, circuits=True))
                owed = owed_table(found, running=True)
                if owed.row_count:
                    seen.renderables.extend((owed, Text(OWED, "dim")))
                live.update(seen, refresh=True)

    def _write(self, running: bool = True) -> None:
        """`status.json`: small, replaced whole, so that another process can look at any time."""
        if not self._run.began:
            return  # the folder may be another run's
        partitions, sinks = self._run.status()
        status = {
            "pid": os.getpid(),
            "running": running,
            "at_ms": int(time.time() * 1000),
            "runner": self._run.runner.says.partition(":")[0],
            "partitions": partitions,
            "sinks": {
                name: dataclasses.asdict(sink)
                | {"paying_per_second": round(self._paying(name, sink.paid), 1)}
                for name, sink in sinks.items()
            },
        }
        try:
            self._run.store.put("status.json", msgspec.json.encode(status), sync=False)
            self._problem = ""
        except OSError as error:
            if self._problem != (problem := str(error)):
                _LOGGER.warning("the status could not be written: %s", problem)
            self._problem = problem

    def _paying(self, sink: str, paid: int) -> float:
        """Records a second that were owed and are taken now."""
        now = time.monotonic()
        seen = self._paid.setdefault(sink, deque([(now, paid)]))
        seen.append((now, paid))
        while now - seen[0][0] > _RATE_SECONDS and len(seen) > 2:
            seen.popleft()
        then, before = seen[0]
        return (paid - before) / max(now - then, 0.001)

    def _line(self) -> Text:
        """Events read, their rate, and how far behind the hubs reading is; what is not well."""
        partitions, sinks = self._run.status()
        read = sum(p.taken for p in partitions)
        now = time.monotonic()
        (then, before), self._before = self._before, (now, read)
        rate = (read - before) / max(now - then, 0.001)
        lag = [p.lag for p in partitions if p.lag is not None]
        text = Text(f"{now - self._began:6.0f} s  read {read:,} events ({rate:,.0f}/s)")
        text.append(f"  waiting in the hub {sum(lag):,}")
        for name, sink in sinks.items():
            if sink.circuit != "closed":
                text.append(f"  {name}: {sink.circuit} ({printable(sink.reason)})", "red")
            elif sink.behind:
                text.append(f"  {name}: slower than the stream", "yellow")
        for partition in partitions:
            if partition.error:
                where = f"{partition.source}/{partition.partition}"
                text.append(f"  {where}: {printable(partition.error)}", "red")
        return text
