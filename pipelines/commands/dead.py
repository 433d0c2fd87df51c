"""`alertbeam dead`: records that could not go on, why, and trying them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands._log import set_up

__all__ = ["dead"]

_Config = Annotated[
    Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
]
_Id = Annotated[
    list[str] | None, typer.Argument(help="Letters, as `dead show` lists them.", metavar="ID")
]
_Sink = Annotated[str | None, typer.Option(help="Only what this sink refused.")]
_Step = Annotated[str | None, typer.Option(help="Only of this step: `parse`, or a sink.")]
_Reason = Annotated[str, typer.Option(help="Only those whose reason says this.")]
_SETTINGS = Path("settings.yaml")

dead = typer.Typer(
    no_args_is_help=True,
    help="""Show the records that could not go on, with their bytes and the
    reason, and try them again.

    [dim]$ alertbeam dead list -c settings.yaml[/dim]
    [dim]$ alertbeam dead show --sink splunk[/dim]
    [dim]$ alertbeam dead retry --reason "larger than"[/dim]
    """,
)


@dead.command("list")
def list_(settings: _Config = _SETTINGS) -> None:
    """Show how many there are, by the step that refused them and the reason.

    [dim]$ alertbeam dead list -c settings.yaml[/dim]
    """
    set_up()  # before Beam is imported
    from rich.console import Console

    from pipelines.dead import by_reason
    from pipelines.settings import load
    from transforms.dead_letters import read_dead_letters
    from transforms.state_store import StateStore

    rows = by_reason(read_dead_letters(StateStore(str(load(settings).state))))
    Console().print(rows if rows.row_count else "there are no dead letters")


@dead.command()
def show(
    ids: _Id = None,
    sink: _Sink = None,
    step: _Step = None,
    reason: _Reason = "",
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the bytes of one letter, and nothing else.")
    ] = False,
    settings: _Config = _SETTINGS,
) -> None:
    """Show letters: one a line, or, if it is one, all of it.

    [dim]$ alertbeam dead show --step parse[/dim]
    [dim]$ alertbeam dead show 4f1c0a9b77e2[/dim]
    [dim]$ alertbeam dead show 4f1c0a9b77e2 --raw > event.json[/dim]
    """
    set_up()
    import sys

    from rich.console import Console

    from pipelines.dead import letters_table, whole
    from pipelines.settings import load
    from transforms.orders import Retry, matching
    from transforms.state_store import StateStore

    store = StateStore(str(load(settings).state))
    found = [*matching(store, Retry([], ids or [], _step(sink, step), reason))]
    if not found:
        raise typer.BadParameter("there is no such dead letter: `alertbeam dead list` has them")
    if raw:
        if len(found) > 1:
            raise typer.BadParameter(f"{len(found):,} letters are like that: give the ID of one")
        sys.stdout.buffer.write(found[0].body)
        sys.stdout.buffer.flush()
        return
    Console().print(whole(found[0]) if len(found) == 1 else letters_table(found))


@dead.command()
def retry(
    ids: _Id = None,
    sink: _Sink = None,
    step: _Step = None,
    reason: _Reason = "",
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    settings: _Config = _SETTINGS,
) -> None:
    """Try letters again, after a fix: a new version, a larger limit, …

    They are owed then, and go through the pipeline once more, to the
    sinks that miss them and no other: those of `parse` to all that want
    them, a sink's to that sink. What arrives is no dead letter any more;
    what is refused again is the same letter as before, with the latest
    reason and a count. `alertbeam run` pays them at once; without a run,
    `alertbeam redeliver`. A run of an older version must be started anew
    first: it works with what it knows.

    Exit code 0: all are owed now; 1: some cannot be tried again.

    [dim]$ alertbeam dead retry --step parse[/dim]
    [dim]$ alertbeam dead retry --sink splunk --reason "larger than"[/dim]
    [dim]$ alertbeam dead retry 4f1c0a9b77e2[/dim]
    """
    set_up()
    from pipelines.forward import DIGESTS, accounts
    from pipelines.settings import load
    from transforms.orders import Retry, give
    from transforms.state_store import StateStore

    if every == bool(ids or sink or step or reason):
        raise typer.BadParameter("say which: IDs, --sink, --step, --reason, or --all")
    loaded = load(settings)
    names = [name for name in accounts(loaded) if name != DIGESTS]
    order = Retry(names, ids or [], _step(sink, step), reason)
    answer = give(StateStore(str(loaded.state)), order, typer.echo)
    typer.echo(f"{answer.records:,} dead letters are owed again, and will be paid")
    for line in answer.said:
        typer.echo(f"not tried again: {line}")
    raise typer.Exit(1 if answer.said or not answer.records else 0)


def _step(sink: str | None, step: str | None) -> str | None:
    if sink and step and sink != step:
        raise typer.BadParameter(f"what {sink} refused was not refused by {step}: give one of them")
    return sink or step
