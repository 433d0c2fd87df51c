"""`alertbeam run`: stream until told to end."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands._log import set_up
from pipelines.memory import stay_small

__all__ = ["run", "streaming"]


def run(
    settings: Annotated[
        Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
    ] = Path("settings.yaml"),
    runner: Annotated[
        str, typer.Option(help="The Beam runner, by name.", metavar="NAME")
    ] = "DirectRunner",
    until_caught_up: Annotated[
        bool,
        typer.Option(
            "--until-caught-up", help="End when everything that is in the hubs now is through."
        ),
    ] = False,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="Begin elsewhere than at the checkpoint: latest, earliest, a time, how long "
            "ago, an event's sequence number; see above.",
            metavar="WHERE",
        ),
    ] = "",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only problems and the result.")
    ] = False,
    cluster: Annotated[
        str,
        typer.Option(
            help="With FlinkRunner: the JobManager's REST address, or `local` for a Flink of its "
            "own.",
            metavar="HOST:PORT",
        ),
    ] = "local",
    name: Annotated[
        str, typer.Option(help="With FlinkRunner: what the job is called.", metavar="NAME")
    ] = "alertbeam",
    parallelism: Annotated[
        int | None,
        typer.Option("--parallelism", "-p", min=1, help="With FlinkRunner: subtasks a step."),
    ] = None,
    job_server_jar: Annotated[
        Path | None,
        typer.Option(
            "--job-server-jar",
            help="With FlinkRunner: Beam's job server, if it is not to be fetched.",
            metavar="JAR",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            help="With FlinkRunner, after --: options of Beam and Flink.", metavar="-- OPTIONS"
        ),
    ] = None,
) -> None:
    """Stream from the hubs to all sinks, until Ctrl-C or SIGTERM.

    The first signal drains: what was read is delivered or accounted for,
    checkpoints are written, windows fire. A second one stops at once;
    the next run goes on at the checkpoint.

    A run that hangs (nothing moves for two minutes: `watchdog` in the
    settings) shows where, and starts itself again at the checkpoint, five
    times an hour at most.

    `--from` moves each partition's position, once, at the start: `latest`,
    `earliest`, `checkpoint` (another consumer's in Blob Storage, if that is
    ahead), a time, how long ago (30m, 2h, 7d), a sequence number; for one
    hub or partition `HUB=…`, `PARTITION=…`, `HUB/PARTITION=…`. What is passed
    over is a gap in the account. A step back delivers again, and keeps the
    account so far as history.

    `--runner FlinkRunner` submits the same pipeline to a Flink cluster, shows
    it there, and leaves it there at Ctrl-C; `alertbeam flink` looks after it
    (docs/run-on-flink.md).

    Exit code 0: every record is accounted for; 1: the account does not
    hold, or the run could not go on; 2: the settings are wrong; 3: it hung
    too often. deploy/systemd has a unit for long runs.

    [dim]$ alertbeam run -c settings.yaml[/dim]
    [dim]$ alertbeam run -c settings.yaml --until-caught-up[/dim]
    [dim]$ alertbeam run --from 2h           # what came in the last 2 hours, again[/dim]
    [dim]$ alertbeam run --from latest       # pass over what is waiting: a gap[/dim]
    [dim]$ alertbeam run --from 2026-03-04T10:00:00Z[/dim]
    [dim]$ alertbeam run --from 3=1200,defender/4=earliest[/dim]
    [dim]$ alertbeam run --runner FlinkRunner --cluster jobmanager:8081 -p 2[/dim]
    """
    stay_small()
    set_up()  # before Beam is imported
    from pipelines.runners import known
    from pipelines.settings import load

    if known(runner) == "FlinkRunner":
        from pipelines.cluster.foreground import on_flink
        from pipelines.positions import From

        if until_caught_up:
            raise typer.BadParameter("--until-caught-up is not for FlinkRunner")
        code = on_flink(
            load(settings), settings, cluster=cluster, name=name, parallelism=parallelism,
            start=From.parse(start) if start else None, job_server_jar=job_server_jar,
            options=options or (), quiet=quiet,
        )  # fmt: skip
        raise typer.Exit(code)
    raise typer.Exit(streaming(load(settings), runner, until_caught_up, quiet, start))


def streaming(
    settings: Any,
    runner: str,
    until_caught_up: bool,
    quiet: bool,
    start: str = "",
    join: Callable[[Callable[[str], None]], Any] | None = None,
) -> int:
    """Run in the foreground, with signals and a display; the exit code.

    join: makes the run, where it begins with history; given what says a line.
    """
    from rich.console import Console

    from pipelines.forward import accounts
    from pipelines.monitor import Monitor
    from pipelines.positions import From
    from pipelines.report import (
        accounts_of,
        counts_line,
        drift_table,
        sinks_table,
        write_reports,
    )
    from pipelines.run import Run
    from pipelines.watchdog import Watchdog, leave
    from transforms.drift import drift_of
    from transforms.state_store import StateStoreError

    console = Console()

    def say(line: str) -> None:
        # Whoever read may be gone (of a pipe, rich tells so by SystemExit): the run goes on.
        with contextlib.suppress(OSError, SystemExit):
            console.print(line, markup=False, soft_wrap=True)

    # Once: where the watchdog starts it again, it goes on at the checkpoint.
    again = "ALERTBEAM_RESTARTS" in os.environ
    where = From.parse(start) if start and not again else None
    running = (
        join(say)
        if join
        else Run(settings, runner=runner, until_caught_up=until_caught_up, start=where, say=say)
    )
    if not quiet:
        say(running.runner.says)
    watchdog = Watchdog(running, settings.watchdog, waits=until_caught_up or join is not None)
    asked: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if asked:
            os.write(2, b"\nstopped at once; the next run goes on at the checkpoint\n")
            leave(128 + number)
        asked.append(number)
        os.write(2, b"\ndraining: what was read is being delivered (again: stop at once)\n")
        running.stop()
        watchdog.stopping()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    # What was imported stays, and walking it took 0.1 s of each full collection: 0.01 s is left.
    gc.freeze()
    began_ms = int(time.time() * 1000)
    with watchdog, Monitor(running, console, quiet):
        running.run()
    found = accounts_of(running.store, accounts(settings))
    console.print(sinks_table(found))
    say(counts_line(running.counts))
    drift = drift_table(drift_of(running.store), began_ms)
    if drift.row_count:
        console.print(drift)
    try:
        say(f"report: {write_reports(settings, running.store)}")
    except StateStoreError as error:
        say(f"no report was written: {error}")
    return 0 if all(account.holds for account in found) else 1
