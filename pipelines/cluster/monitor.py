"""Shows how a job on a Flink cluster goes, from Flink's REST API and the state store, until Ctrl-C.

That leaves the job running: it is the cluster's. In a terminal the picture moves in place;
elsewhere a line comes now and then. Source of the metrics' names: Flink, "Metrics", "System
metrics".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.cluster.flink import Checkpoints, Flink, FlinkError, JobDetail, diagnose
from pipelines.cluster.savepoints import learn
from pipelines.replay_monitor import size
from pipelines.report import (
    OWED,
    accounts_of,
    owed_table,
    read_status,
    sinks_table,
    standings,
    works,
)
from pipelines.report.tables import lasting
from pipelines.tables import shown, table
from transforms.delivery.line import printable
from transforms.metrics import NAMESPACE, READ
from transforms.state_store import StateStore

__all__ = ["Load", "View", "load_table", "look", "watch"]

_LOOK_SECONDS = 2.0
_LINE_SECONDS = 5.0
_LOST_SECONDS = 600.0  # a JobManager that is not back by then is not waited for
_MOST_SUBTASKS = 8  # that are shown one by one
_UNEVEN = 1.5  # times the mean
_LEAST = 1.0  # elements, or elements a second, of a subtask that can be uneven
_RATE, _BUSY, _HELD = (
    "numRecordsOutPerSecond", "busyTimeMsPerSecond", "backPressuredTimeMsPerSecond",
)  # fmt: skip


class Load(NamedTuple):
    """What a vertex's subtasks do, in the order of their numbers: elements a second that leave
    each, and which share of the time it works, or is held up by what comes after it. events: read
    from the hubs since it was started."""

    vertex: str
    rates: tuple[float, ...]
    busy: tuple[float, ...]
    held: tuple[float, ...]
    events: tuple[float, ...]

    @property
    def uneven(self) -> bool:
        """Whether one subtask does much more than the others: not where hardly any does a thing."""
        each = self.events if any(self.events) else self.rates
        most = max(each, default=0)
        return most > _LEAST and most * len(each) > _UNEVEN * sum(each)


class View(NamedTuple):
    """A job at one moment. restarts: since it was submitted; None: Flink does not say yet."""

    job: JobDetail
    checkpoints: Checkpoints
    restarts: int | None
    loads: tuple[Load, ...]

    @property
    def state(self) -> str:
        if self.job.state == "RUNNING" and not self.job.runs:
            return "STARTING"
        return self.job.state


def look(client: Flink, job_id: str) -> View:
    """Ask the cluster. Raises FlinkError."""
    job = client.job(job_id)
    said = client.job_metrics(job_id, ["numRestarts"]).get("numRestarts", "")
    loads = []
    for vertex in job.vertices if job.runs else ():
        subtasks = range(vertex.parallelism)
        names = [f"{n}.{what}" for what in (_RATE, _BUSY, _HELD) for n in subtasks]
        found = client.vertex_metrics(job_id, vertex.id, names)
        rates, busy, held = (
            tuple(_number(found.get(f"{n}.{what}")) for n in subtasks)
            for what in (_RATE, _BUSY, _HELD)
        )
        own = client.beam_metrics(job_id, vertex.id, NAMESPACE, [f"{READ.name}_"])
        events = tuple(
            sum(_number(value) for (at, _), value in own.items() if at == n) for n in subtasks
        )
        loads.append(Load(vertex.name, rates, busy, held, events))
    restarts = int(said) if said.isdecimal() else None
    return View(job, client.checkpoints(job_id), restarts, tuple(loads))


def _number(text: str | None) -> float:
    """What is not there yet, and NaN (a source that works in a thread of its own), is 0."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0


def load_table(loads: Sequence[Load]) -> Table:
    """A row a vertex: each subtask's rate, load and what holds it up; unevenness stands out."""
    rows = table("load, a figure a subtask")
    rows.add_column("steps", overflow="ellipsis", no_wrap=True, max_width=40)
    for column in ("events read", "elements/s", "busy %", "held up %"):
        rows.add_column(column, justify="right")
    rows.add_column("")
    for load in loads:
        rows.add_row(
            shown(load.vertex),
            _each(load.events) if any(load.events) else "",
            _each(load.rates),
            _each([busy / 10 for busy in load.busy]),
            _each([held / 10 for held in load.held]),
            Text("uneven", "yellow") if load.uneven else "",
        )
    return rows


def _each(values: Sequence[float]) -> str:
    if len(values) > _MOST_SUBTASKS:
        mean = sum(values) / len(values)
        return f"{min(values):,.0f} to {max(values):,.0f}, mean {mean:,.0f}"
    return " ".join(f"{value:,.0f}" for value in values) or "-"


def watch(
    client: Flink,
    job_id: str,
    name: str,
    console: Console,
    *,
    store: StateStore | None = None,
    sinks: Sequence[str] = (),
    quiet: bool = False,
    over: Callable[[], bool] = lambda: False,
) -> str:
    """Show the job until it ends (then its state), or Ctrl-C, or `over()` (then an empty text).

    store, sinks: where the accounts are, and whose; the last checkpoint is kept there too. Raises
    FlinkError where the cluster does not come back.
    """
    shows = console.is_terminal and not quiet
    seen = _Seen(client, name, store, tuple(sinks))
    with contextlib.ExitStack() as opened:
        live = (
            opened.enter_context(Live(console=console, auto_refresh=False, transient=True))
            if shows
            else None
        )
        try:
            while not over():
                view = seen.look(job_id)
                if live is not None:
                    live.update(seen.picture(view), refresh=True)
                elif not quiet and seen.due(view):
                    try:
                        console.print(seen.line(view), soft_wrap=True)
                    except (OSError, SystemExit):
                        # Nobody reads any more (of a pipe, rich tells so by SystemExit).
                        quiet = True
                if view is not None and not view.job.lives:
                    return view.job.state
                time.sleep(_LOOK_SECONDS)
        except KeyboardInterrupt:
            pass
    return ""


class _Seen:
    """What was seen before, where that counts: rates, restarts, what was told."""

    def __init__(
        self, client: Flink, name: str, store: StateStore | None, sinks: tuple[str, ...]
    ) -> None:
        self._client = client
        self._name = name
        self._store = store
        self._sinks = sinks
        self._before = (time.monotonic(), -1)
        self._restarts = 0
        self._lost = 0.0
        self._problem = ""
        self._told = (float("-inf"), "")  # when a line was shown, and the state in it

    def look(self, job_id: str) -> View | None:
        """None while the cluster does not answer."""
        try:
            view = look(self._client, job_id)
            restarts = view.restarts or 0
            last = view.checkpoints.latest.completed
            if not view.job.runs or restarts > self._restarts:
                self._problem = diagnose(self._client, view.job)
            elif last and last.at_ms > view.job.timestamps.get("RUNNING", 0):
                self._problem = ""  # it has come through whatever it was
            self._restarts = restarts
        except FlinkError as error:
            now = time.monotonic()
            self._lost = self._lost or now
            if now - self._lost > _LOST_SECONDS:
                raise
            self._problem = str(error)
            return None
        self._lost = 0.0
        if self._store is not None:
            with contextlib.suppress(OSError):  # the workers tell if it fails
                learn(self._store, self._name, last)
        return view

    def due(self, view: View | None) -> bool:
        """Whether it is time for a line: now and then, and when the state is another."""
        state = view.state if view else ""
        when, before = self._told
        return state != before or time.monotonic() - when >= _LINE_SECONDS

    def picture(self, view: View | None) -> RenderableType:
        parts: list[RenderableType] = [self.line(view)]
        if view is not None and view.loads:
            parts.append(load_table(view.loads))
        if self._store is not None and self._sinks:
            found = accounts_of(self._store, self._sinks)
            parts.append(sinks_table(found, circuits=True))
            owed = owed_table(found, running=True)
            if owed.row_count:
                parts += [owed, Text(OWED, "dim")]
        return Group(*parts)

    def line(self, view: View | None) -> Text:
        """State, since when, restarts, the last checkpoint, what was read; what is not well."""
        self._told = (time.monotonic(), view.state if view else "")
        text = Text(printable(self._name), "bold")
        if view is None:
            return text.append(f"  no answer: {self._problem}", "not bold red")
        job = view.job
        text.append(f"  {printable(view.state)}", "not bold green" if job.runs else "not bold red")
        said = [f"{lasting((job.now_ms - job.timestamps.get(job.state, job.began_ms)) / 1000)}"]
        if view.restarts:
            said.append(f"{view.restarts:,} restarts")
        said.append(checkpoint_line(view))
        said += self._read()
        text.append("".join(f"  {each}" for each in said), "not bold")
        for wrong in self._wrong():
            text.append(f"  {wrong}", "not bold red")
        if self._problem:
            text.append(f"  {self._problem}", "not bold red")
        if any(load.uneven for load in view.loads):
            text.append("  uneven load", "not bold yellow")
        return text

    def _read(self) -> list[str]:
        """What came in, by the accounts: the sink that is furthest; and what waits in the hubs."""
        if self._store is None or not self._sinks:
            return []
        found = accounts_of(self._store, self._sinks)
        records = max(account.records for account in found)
        now = time.monotonic()
        (then, before), self._before = self._before, (now, records)
        said = f"read {records:,}"
        if before >= 0:
            said += f" ({(records - before) / max(now - then, 0.001):,.0f}/s)"
        owed = sum(account.outcomes.owed for account in found)
        dead = sum(account.outcomes.dead for account in found)
        waits = [at for at in standings(self._store, self._sinks) if at.lag_events]
        behind = max((at.lag_seconds or 0 for at in waits), default=0)
        return [
            said,
            *(f"{n:,} {what}" for n, what in ((owed, "owed"), (dead, "dead")) if n),
            f"waiting in the hub {sum(at.lag_events or 0 for at in waits):,}"
            + (f" ({lasting(behind)})" if waits else ""),
        ]

    def _wrong(self) -> list[str]:
        """What the workers tell of sinks that take nothing, and of partitions."""
        status = read_status(self._store) if self._store is not None else {}
        if not works(status):
            return []  # another run's, of before
        found = []
        for name, sink in status.get("sinks", {}).items():
            if sink.get("circuit", "closed") != "closed":
                reason = printable(str(sink.get("reason", "")))
                found.append(f"{printable(name)}: {printable(sink['circuit'])} ({reason})")
        for at in status["partitions"]:
            if at["error"]:
                where = f"{at['source']}/{at['partition']}"
                found.append(f"{printable(where)}: {printable(at['error'])}")
        if unread := status.get("unread"):
            found.append(f"{len(unread):,} partitions that nobody reads")
        return found


def checkpoint_line(view: View) -> str:
    """The last checkpoint: how old, how large, how long it took; and whether one failed since."""
    last, failed = view.checkpoints.latest.completed, view.checkpoints.latest.failed
    said = "no checkpoint yet"
    if last is not None:
        age = lasting((view.job.now_ms - last.at_ms) / 1000)
        said = f"checkpoint {age} ago ({size(last.size)} in {last.took_ms / 1000:.1f} s)"
    since = last.at_ms if last else 0
    return said + (", one failed since" if failed and failed.at_ms > since else "")
