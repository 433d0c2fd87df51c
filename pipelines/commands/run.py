"""`alertbeam run`: stream until told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands._log import set_up

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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only problems and the result.")
    ] = False,
) -> None:
    """Stream from the hubs to all sinks, until Ctrl-C or SIGTERM.

    The first signal drains: what was read is delivered or accounted for,
    checkpoints are written, windows fire. A second one stops at once;
    the next run goes on at the checkpoint.

    Exit code 0: every record is accounted for; 1: the account does not
    hold; 2: the settings are wrong.

    [dim]$ alertbeam run -c settings.yaml[/dim]
    [dim]$ alertbeam run -c settings.yaml --until-caught-up[/dim]
    """
    set_up()  # before Beam is imported
    from pipelines.settings import load

    raise typer.Exit(streaming(load(settings), runner, until_caught_up, quiet))


def streaming(settings: Any, runner: str, until_caught_up: bool, quiet: bool) -> int:
    """Run in the foreground, with signals and a display; the exit code."""
    from rich.console import Console

    from pipelines.forward import accounts
    from pipelines.monitor import Monitor
    from pipelines.report import accounts_of, counts_line, drift_table, sinks_table
    from pipelines.run import Run
    from transforms.drift import drift_of

    console = Console()

    def say(line: str) -> None:
        # Whoever read may be gone (of a pipe, rich tells so by SystemExit): the run goes on.
        with contextlib.suppress(OSError, SystemExit):
            console.print(line, markup=False, soft_wrap=True)

    running = Run(settings, runner=runner, until_caught_up=until_caught_up, say=say)
    if not quiet:
        say(running.runner.says)
    asked: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if asked:
            # Not sys.exit: threads hold sockets and queues that a clean end would wait for.
            os.write(2, b"\nstopped at once; the next run goes on at the checkpoint\n")
            os._exit(128 + number)
        asked.append(number)
        os.write(2, b"\ndraining: what was read is being delivered (again: stop at once)\n")
        running.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    began_ms = int(time.time() * 1000)
    with Monitor(running, console, quiet):
        running.run()
    found = accounts_of(running.store, accounts(settings))
    console.print(sinks_table(found))
    say(counts_line(running.counts))
    drift = drift_table(drift_of(running.store), began_ms)
    if drift.row_count:
        console.print(drift)
    return 0 if all(account.holds for account in found) else 1
