"""`alertbeam redeliver`: pay what sinks are owed, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands._log import set_up

__all__ = ["redeliver"]


def redeliver(
    settings: Annotated[
        Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
    ] = Path("settings.yaml"),
    sink: Annotated[str | None, typer.Option(help="Only what this sink is owed.")] = None,
) -> None:
    """Deliver what sinks are owed from outages, and to them alone.

    Exactly those records are read again from the hub. What cannot be
    delivered now stays owed.

    Exit code 0: nothing is owed any more; 1: something is.

    [dim]$ alertbeam redeliver -c settings.yaml --sink splunk[/dim]
    """
    set_up()  # before Beam is imported
    from pipelines.forward import accounts
    from pipelines.redeliver import redeliver as pay
    from pipelines.settings import load

    loaded = load(settings)
    names = accounts(loaded)
    if sink is not None and sink not in names:
        raise typer.BadParameter(f"there is no sink {sink!r}; there are: {', '.join(names)}")
    left = 0
    for paid in pay(loaded, sink, typer.echo):
        left += paid.left
        if paid.left:
            typer.echo(f"{paid.sink}: {paid.left:,} of {paid.owed:,} records are still owed")
        else:
            typer.echo(f"{paid.sink}: nothing is owed; {paid.paid:,} records were paid now")
    raise typer.Exit(1 if left else 0)
