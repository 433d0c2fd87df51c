"""`alertbeam owed`: what sinks are owed, exactly, and cancelling it by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands._log import set_up

if TYPE_CHECKING:
    from pipelines.owed import Owed
    from pipelines.settings import Settings

__all__ = ["owed"]

_Config = Annotated[
    Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
]
_SETTINGS = Path("settings.yaml")

owed = typer.Typer(
    no_args_is_help=True,
    help="""Show what sinks are owed, exactly, and cancel it by hand.

    A sink is owed what it did not take in time. `alertbeam run` pays by
    itself, `alertbeam redeliver` by hand.

    [dim]$ alertbeam owed list -c settings.yaml[/dim]
    [dim]$ alertbeam owed show splunk 3[/dim]
    [dim]$ alertbeam owed drop splunk --why "a test flood, ticket 4711"[/dim]
    """,
)


@owed.command("list")
def list_(settings: _Config = _SETTINGS) -> None:
    """Show what each sink is owed of each partition, since when, how long
    the hub still keeps it, and whether it is set aside from it.

    [dim]$ alertbeam owed list -c settings.yaml[/dim]
    """
    set_up()  # before Beam is imported
    from rich.console import Console

    from pipelines.forward import accounts
    from pipelines.owed import digests_table, owed_by_partition, owed_table
    from pipelines.settings import load
    from transforms.state_store import StateStore

    loaded = load(settings)
    store = StateStore(str(loaded.state))
    found = owed_by_partition(store, accounts(loaded))
    digests = digests_table(store, (s.name for s in loaded.sinks if s.send == "digests"))
    console = Console()
    if found:
        retention = {entry.name: entry.event_hubs.retention_hours for entry in loaded.sources}
        console.print(owed_table(found, retention))
    else:
        console.print("no sink is owed anything")
    if digests.row_count:
        console.print(digests)


@owed.command()
def show(
    sink: Annotated[str, typer.Argument(help="The sink's name in the settings.")],
    partition: Annotated[str | None, typer.Argument(help="Only this partition.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="As JSON lines: partition, first, last, index.")
    ] = False,
    settings: _Config = _SETTINGS,
) -> None:
    """Show exactly which records a sink is owed: runs of event numbers, and
    the record's place in its event.

    [dim]$ alertbeam owed show splunk 3[/dim]
    """
    set_up()
    import msgspec
    from rich.console import Console

    from pipelines.owed import runs_table

    found = _found(_load(settings, sink), sink, partition)
    if json:
        for each in found:
            for run in each.runs:
                line = {
                    "source": each.source, "partition": each.partition,
                    "first": run.first, "last": run.last, "index": run.index,
                }  # fmt: skip
                typer.echo(msgspec.json.encode(line).decode())
        return
    console = Console()
    for each in found:
        whose = f"\n{each.source}, partition {each.partition}: {each.records:,} records"
        console.print(whose, markup=False, highlight=False, soft_wrap=True)
        console.print(runs_table(each))
    if not found:
        console.print(f"{sink} is owed nothing", markup=False)


@owed.command()
def drop(
    sink: Annotated[str, typer.Argument(help="The sink's name in the settings.")],
    why: Annotated[str, typer.Option(help="The reason: each dead letter keeps it.")],
    partition: Annotated[str | None, typer.Option(help="Only of this partition.")] = None,
    range_: Annotated[
        str | None,
        typer.Option("--range", help="Only of these events: A-B, or one.", metavar="A-B"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    settings: _Config = _SETTINGS,
) -> None:
    """Cancel what a sink is owed: it is dead then, not owed, and not paid
    any more. A dead letter each says why; without the record itself.

    What is on its way to the sink at the moment may still arrive. While a
    run works in the state folder, that does it.

    Exit code 0: it is cancelled; 1: it is not.

    [dim]$ alertbeam owed drop splunk --partition 3 --range 1200-1300 \\[/dim]
    [dim]      --why "a test flood, ticket 4711"[/dim]
    """
    set_up()
    from schemas.runs import clip, count
    from transforms.orders import Drop, give
    from transforms.state_store import StateStore

    loaded = _load(settings, sink)
    if not why.strip():
        raise typer.BadParameter("say why: whoever finds the dead letters will want to know")
    first, last = _range(range_)
    found = _found(loaded, sink, partition)
    records = sum(count(clip(each.runs, first, last)) for each in found)
    if not records:
        typer.echo(f"{sink} is owed nothing there")
        return
    if not yes:
        typer.confirm(
            f"{sink} will never get {records:,} records that it is owed. Go on?", abort=True
        )
    order = Drop(sink, why.strip(), partition, first, last)
    answer = give(StateStore(str(loaded.state)), order, typer.echo)
    for line in answer.said:
        typer.echo(line)
    typer.echo(f"{sink}: {answer.records:,} records are cancelled; `alertbeam dead list` has them")


def _load(path: Path, sink: str) -> Settings:
    from pipelines.forward import accounts
    from pipelines.settings import load

    loaded = load(path)
    names = accounts(loaded)
    if sink not in names:
        raise typer.BadParameter(f"there is no sink {sink!r}; there are: {', '.join(names)}")
    return loaded


def _found(settings: Settings, sink: str, partition: str | None) -> list[Owed]:
    from pipelines.owed import owed_by_partition
    from transforms.state_store import StateStore

    found = owed_by_partition(StateStore(str(settings.state)), [sink])
    return [each for each in found if partition in (None, each.partition)]


def _range(text: str | None) -> tuple[int, int]:
    """The first and the last event."""
    if text is None:
        return 0, 2**62
    parts = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", text.strip())
    if parts is None or int(parts[1]) > int(parts[2] or parts[1]):
        raise typer.BadParameter(f"{text!r} is no range of event numbers, such as 1200-1300")
    return int(parts[1]), int(parts[2] or parts[1])
