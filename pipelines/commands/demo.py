"""`alertbeam demo`: the main job on this machine, from events to the account."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands._log import set_up

__all__ = ["demo"]


def demo(
    events: Annotated[
        Path | None, typer.Option(help="Your own files, or a folder of them, instead.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Made-up events.")] = 5_000,
    out: Annotated[Path, typer.Option(help="Where its folder is made.")] = Path("out"),
) -> None:
    """Show the whole way on this machine: an embedded hub and receivers,
    thousands of varied events, and the account of each one at the end.

    Exit code 0 only if the sums hold and the receivers have what the
    account says.

    [dim]$ alertbeam demo[/dim]
    [dim]$ alertbeam demo --events ~/exports[/dim]
    """
    set_up()  # before Beam is imported
    from rich.console import Console

    from pipelines.local.demo import demo as run

    raise typer.Exit(run(out, events, count, Console()))
