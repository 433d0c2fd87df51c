"""`alertbeam validate`: are these settings good?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipelines.settings import Settings

__all__ = ["validate"]


def validate(
    settings: Annotated[Path, typer.Argument(help="The settings file.", metavar="SETTINGS")],
) -> None:
    """Check a settings file: every mistake at once, each with its line.

    Its secrets must exist, its files be readable, and its state folder be
    writable (it is made if need be). Nobody is connected to.

    Exit code 0: good; 2: mistakes.

    [dim]$ alertbeam validate settings.yaml[/dim]
    """
    from pipelines.settings import load

    loaded = load(settings)
    typer.echo(f"{settings}: good")
    _show(loaded)


def _show(settings: Settings) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    sources = [source.name for source in settings.sources]
    table = Table("Sink", "Kind", "Gets", "Where", box=None, header_style="bold", pad_edge=False)
    for sink in settings.sinks:
        gets, where = "alerts", "all"
        if sink.send == "digests":
            gets, where = f"digests: {', '.join(digest.name for digest in settings.digests)}", ""
        elif sink.where is not None:
            conditions = sink.where.model_dump(mode="json", by_alias=True, exclude_none=True)
            where = json.dumps(conditions, ensure_ascii=False)[1:-1].replace('"', "") or "all"
        table.add_row(*map(escape, (sink.name, sink.kind, gets, where)))
    console = Console(soft_wrap=False)
    console.print(f"\nFrom {escape(', '.join(sources))}, state in {escape(str(settings.state))}:\n")
    console.print(table)
