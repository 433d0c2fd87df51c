"""`alertbeam validate`: are these settings good, and can everything be reached?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands._log import set_up
from pipelines.commands.sinks import configured, outcome

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.settings import Settings

__all__ = ["validate"]


def validate(
    settings: Annotated[Path, typer.Argument(help="The settings file.", metavar="SETTINGS")],
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Connect to each source and sink too; nothing is sent."),
    ] = False,
) -> None:
    """Check a settings file: every mistake at once, each with its line.

    Its secrets must exist, its files be readable, and its state folder be
    writable (it is made if need be). Nobody is connected to, but with
    --connect: then names, certificates and credentials are tried as well.
    No record is sent or read.

    Exit code 0: good; 1: something cannot be reached; 2: mistakes.

    [dim]$ alertbeam validate settings.yaml[/dim]
    [dim]$ alertbeam validate --connect settings.yaml[/dim]
    """
    set_up()
    from rich.console import Console

    from pipelines.settings import load
    from pipelines.tables import shown

    loaded = load(settings)
    typer.echo(f"{settings}: good")
    console = Console()
    sources = ", ".join(source.name for source in loaded.sources)
    console.print(shown(f"From {sources}, state in {loaded.state}", most=1000), highlight=False)
    console.print(configured(loaded))
    if connect:
        raise typer.Exit(_connect(console, loaded))


def _connect(console: Console, settings: Settings) -> int:
    """Tell of each source and sink as soon as it is known; the exit code."""
    from pipelines.trial import reach

    count = len(settings.sources) + len(settings.sinks)
    bad = 0
    console.print("\nconnecting; nothing is sent")
    with console.status(f"waiting for {count}") as status:
        for done, it in enumerate(reach(settings), 1):
            bad += not it.good
            console.print(outcome(it.good, it.name, it.kind, it.said, it.warning))
            status.update(f"waiting for {count - done}")
    console.print(f"[red]{bad} of {count} cannot be used[/]" if bad else f"all {count} can be used")
    return 1 if bad else 0
