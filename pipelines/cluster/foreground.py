"""`alertbeam run` on Flink: submits, waits until the job works, and shows it until Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from pipelines.cluster.flink import Flink, FlinkError, wait_until_working
from pipelines.cluster.monitor import watch
from pipelines.cluster.savepoints import learn, submitted
from pipelines.cluster.submit import LOCAL, Submitted, embedded, prepare, stop_drained, submit
from pipelines.forward import accounts
from pipelines.positions import From
from pipelines.report import accounts_of, sinks_table, write_reports
from pipelines.settings import Settings
from transforms.delivery.line import printable
from transforms.state_store import StateStore, StateStoreError

__all__ = ["on_flink"]

_WORKING_SECONDS = 180.0


def on_flink(
    settings: Settings,
    path: Path,
    *,
    cluster: str,
    name: str,
    parallelism: int | None = None,
    start: From | None = None,
    job_server_jar: Path | None = None,
    options: Sequence[str] = (),
    quiet: bool = False,
) -> int:
    """Run until Ctrl-C; the exit code. On a standing cluster that leaves the job there; an embedded
    one is drained and ends. Raises RunError, FlinkError, JobServerError, StateStoreError."""
    shown = _Shown(settings, StateStore(str(settings.state)), Console(), quiet)
    say = shown.say
    if cluster != LOCAL:
        for job in Flink(cluster).jobs():
            if job.name == name and job.lives:
                raise FlinkError(
                    f"{printable(name)} runs already on {cluster}: stop it first (`alertbeam flink "
                    f"stop {printable(name)} --cluster {cluster}`), or give this one another --name"
                )
    prepare(settings, start, say)
    if cluster == LOCAL:
        with embedded(
            settings, name=name, parallelism=parallelism, job_server_jar=job_server_jar,
            options=options, say=say,
        ) as given:  # fmt: skip
            return shown.until_told(given)
    given = submit(
        settings, path, cluster=cluster, name=name, parallelism=parallelism,
        job_server_jar=job_server_jar, options=options, say=say,
    )  # fmt: skip
    submitted(shown.store, name, cluster, given.job_id, int(time.time() * 1000))
    state = shown.works(given)
    if state:
        say(f"{printable(name)} has ended: {state}")
        return 0 if state == "FINISHED" else 1
    say(f"{printable(name)} goes on; `alertbeam status` and {given.rest} show how")
    say(f"to stop it: alertbeam flink stop {printable(name)} --cluster {cluster} -c {path}")
    return 0


class _Shown(NamedTuple):
    """A job, for who looks at this terminal."""

    settings: Settings
    store: StateStore
    console: Console
    quiet: bool

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def works(self, given: Submitted, over: Callable[[], bool] = lambda: False) -> str:
        """Until Ctrl-C, or it is over: ""; or until it has ended: how."""
        client = Flink(given.rest)
        self.say(f"Flink job {given.job_id}: {client.url}")
        try:
            first = wait_until_working(client, given.job_id, self.say, _WORKING_SECONDS)
            learn(self.store, given.name, first)
            size = f", and its first checkpoint has {first.size:,} bytes" if first else ""
            self.say(f"it works{size}")
            return watch(
                client, given.job_id, given.name, self.console, store=self.store,
                sinks=accounts(self.settings), quiet=self.quiet, over=over,
            )  # fmt: skip
        except KeyboardInterrupt:  # it goes on, and what hinders it is shown by `flink watch`
            return ""

    def until_told(self, given: Submitted) -> int:
        """With an embedded Flink: until Ctrl-C or SIGTERM, and then drained."""
        asked: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: asked.append(number))
        state = self.works(given, over=lambda: bool(asked))
        if not state:
            self.say("draining: what was read is being delivered, windows fire")
            stop_drained(Flink(given.rest), given.job_id, self.store, given.run)
            state = "FINISHED"
        found = accounts_of(self.store, accounts(self.settings))
        self.console.print(sinks_table(found))
        try:
            self.say(f"report: {write_reports(self.settings, self.store)}")
        except StateStoreError as error:
            self.say(f"no report was written: {error}")
        return 0 if state == "FINISHED" and all(account.holds for account in found) else 1
