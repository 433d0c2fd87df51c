"""`alertbeam sinks`: where alerts can go, what each system can be told, and whether one works."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines.commands._log import set_up

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipelines.settings import Settings
    from pipelines.trial import Tried

__all__ = ["configured", "outcome", "sinks"]

_SAID = 500  # characters
_FIND = 2_000


class _Kinds(TyperGroup):
    """`alertbeam sinks splunk_hec` is `alertbeam sinks show splunk_hec`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


sinks = typer.Typer(cls=_Kinds)


@sinks.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="List the sinks of these settings.", metavar="SETTINGS"
        ),
    ] = None,
) -> None:
    """Show which systems alerts can go to, and send a test alert there.

    [dim]$ alertbeam sinks                               # which systems there are[/dim]
    [dim]$ alertbeam sinks splunk_hec                    # all its settings[/dim]
    [dim]$ alertbeam sinks splunk_hec --example          # what to write into yours[/dim]
    [dim]$ alertbeam sinks -c settings.yaml              # your own sinks[/dim]
    [dim]$ alertbeam sinks test splunk -c settings.yaml  # does one get alerts?[/dim]
    """
    if context.invoked_subcommand is not None:
        if settings is not None:  # said before the command, it is meant for the command
            context.default_map = {context.invoked_subcommand: {"settings": settings}}
        return
    from rich.console import Console

    console = Console()
    if settings is not None:
        from pipelines.settings import load

        console.print(configured(load(settings)))
        return
    console.print(_systems())
    console.print("\n[dim]alertbeam sinks KIND lists all settings of one.[/dim]")


@sinks.command()
def show(
    kind: Annotated[str, typer.Argument(help="Which one, as `alertbeam sinks` lists them.")],
    example: Annotated[
        bool, typer.Option("--example", help="Print a block for the settings file instead.")
    ] = False,
) -> None:
    """Show all settings of a system: those that it needs first, those
    that all share last.

    [dim]$ alertbeam sinks show splunk_hec[/dim]
    [dim]$ alertbeam sinks show splunk_hec --example >> settings.yaml[/dim]
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from transforms.sinks.base import sinks as discovered

    found = discovered()
    if kind not in found:
        raise typer.BadParameter(f"there is no sink {kind!r}; there are: {', '.join(found)}")
    if example:
        typer.echo(_example(found[kind]), nl=False)
        return
    model = found[kind].Settings
    schema = model.model_json_schema(by_alias=True)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for setting, what, about in _rows(schema, schema.get("$defs", {}), last=_shared(model)):
        table.add_row(f"  {setting}", f"{escape(about)} [dim]{escape(what)}[/dim]".strip())
    Console().print(f"[bold]{kind}[/bold]: {escape(_about(found[kind]))}", table)


@sinks.command()
def test(
    name: Annotated[
        str | None, typer.Argument(help="The sink's name in the settings.", metavar="NAME")
    ] = None,
    settings: Annotated[
        Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
    ] = Path("settings.yaml"),
    every: Annotated[bool, typer.Option("--all", help="All sinks, one after the other.")] = False,
    wait: Annotated[
        float,
        typer.Option(min=0, max=600, help="Seconds for a system that takes first, confirms later."),
    ] = 60,
) -> None:
    """Send one test alert to a sink; tell what it answered, and how to find it.

    The alert says that it is a test, who sent it and when; it is
    informational. It goes out as real ones do, but once, whatever the
    sink's `where`; no account counts it. A sink of digests gets a digest.

    Exit code 0: it was accepted (by all); 1: it was not.

    [dim]$ alertbeam sinks test splunk -c settings.yaml[/dim]
    [dim]$ alertbeam sinks test --all -c settings.yaml[/dim]
    """
    set_up()
    from rich.console import Console

    from pipelines.settings import load
    from pipelines.trial import try_sink

    if (name is None) != every:
        raise typer.BadParameter("give either the name of a sink, or --all")
    loaded = load(settings)
    chosen = [entry for entry in loaded.sinks if every or entry.name == name]
    if not chosen:
        names = ", ".join(entry.name for entry in loaded.sinks)
        raise typer.BadParameter(f"there is no sink {name!r}; there are: {names}")
    console = Console()
    tried: list[Tried] = []
    for entry in chosen:
        with console.status(f"sending to {entry.name} …"):
            tried.append(try_sink(entry, loaded, wait))
        if not every:
            _tell(console, tried[0])
    if every:
        _tell_all(console, tried)
    raise typer.Exit(0 if all(each.accepted for each in tried) else 1)


def outcome(good: bool, name: str, kind: str, said: str, warning: str = "") -> Table:
    """A line about one sink or source, whose own words may be hostile; under it, what to heed."""
    from rich.table import Table
    from rich.text import Text

    from pipelines.tables import shown

    line = Text.assemble((name, "bold"), f" ({kind}): ", shown(said, most=_SAID))
    rows = Table.grid(padding=(0, 1, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("[green]✓[/]" if good else "[red]✗[/]", line)
    if warning:
        rows.add_row("[yellow]![/]", shown(warning, "yellow", most=_SAID))
    return rows


def _tell(console: Console, it: Tried) -> None:
    from pipelines.tables import shown

    console.print(outcome(it.accepted, it.name, it.kind, _answer(it), it.note))
    size = f"{it.size:,} bytes " if it.size else ""
    where = shown(f"{size}to {it.target} in {it.seconds:.2f} s", "dim")
    console.print("  ", where, sep="", soft_wrap=True)
    if it.accepted:
        console.print("\nto find it there:")
        _tell_where(console, it)


def _tell_all(console: Console, tried: list[Tried]) -> None:
    from pipelines.tables import shown, table

    rows = table("a test record to each sink")
    rows.add_column("")
    rows.add_column("sink", style="bold", overflow="fold")
    rows.add_column("kind", overflow="fold")
    rows.add_column("its answer", overflow="fold")
    for it in tried:
        mark = "[green]✓[/]" if it.accepted else "[red]✗[/]"
        rows.add_row(mark, shown(it.name), it.kind, shown(_answer(it), most=_SAID))
        if it.note:
            rows.add_row("[yellow]![/]", "", "", shown(it.note, "yellow", most=_SAID))
    console.print(rows)
    found = [it for it in tried if it.accepted]
    if found:
        console.print("\nto find them there:")
    for it in found:
        _tell_where(console, it, f"{it.name}: ")


def _answer(it: Tried) -> str:
    if not it.accepted:
        return it.said
    return f"accepted: {it.said}" if it.said else "accepted; it says no more"


def _tell_where(console: Console, it: Tried, before: str = "") -> None:
    """Never broken into lines: it is to be copied."""
    from pipelines.tables import shown

    console.print("  ", before, shown(it.find, "bold", most=_FIND), sep="", soft_wrap=True)


def configured(settings: Settings) -> Table:
    """Each sink of the settings: what it is, where it leads, what it gets."""
    from pipelines.tables import shown, table

    rows = table("sinks")
    for column in ("sink", "kind", "leads to", "gets"):
        rows.add_column(column, overflow="fold")
    for sink in settings.sinks:
        gets = "all alerts"
        if sink.send == "digests":
            gets = f"digests: {', '.join(digest.name for digest in settings.digests)}"
        elif sink.where is not None:
            conditions = sink.where.model_dump(mode="json", by_alias=True, exclude_none=True)
            where = json.dumps(conditions, ensure_ascii=False)[1:-1].replace('"', "")
            gets = f"alerts, {where}" if where else gets
        name = shown(sink.name, "bold")
        rows.add_row(name, sink.kind, shown(sink.build().target), shown(gets))
    return rows


def _systems() -> Table:
    from rich.markup import escape

    from pipelines.tables import table
    from transforms.sinks.base import sinks as discovered

    rows = table("systems that alerts can go to")
    for column in ("kind", "what it is", "what it needs"):
        rows.add_column(column, overflow="fold")
    for kind, sink in discovered().items():
        rows.add_row(
            f"[bold]{kind}[/]", escape(_about(sink)), escape(", ".join(_needs(sink.Settings)))
        )
    return rows


def _example(sink: Any) -> str:
    """A block of YAML that stands in a settings file as it is."""
    import io

    from ruamel.yaml import YAML

    yaml, block = YAML(), io.StringIO()
    yaml.indent(sequence=4, offset=2)
    yaml.dump({"sinks": [{sink.kind: dict(sink.example)}]}, block)
    return block.getvalue()


def _about(sink: Any) -> str:
    """The first line of what its settings say of themselves."""
    return (sink.Settings.__doc__ or "").strip().partition("\n")[0]


def _needs(settings: Any) -> Iterator[str]:
    """The settings that must be given; or what is said to whoever gives none."""
    from pydantic import ValidationError

    from transforms.secrets import SecretRef

    try:
        settings.model_validate({})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] == "missing":
                name = str(detail["loc"][-1])
                secret = settings.model_fields[name].annotation is SecretRef
                yield f"{name} (secret)" if secret else name
            elif detail["type"] == "value_error":
                yield str(detail["ctx"]["error"]).removeprefix("give ").replace("`", "")


def _shared(model: Any) -> set[str]:
    """The settings that it has as all sinks of its sort do, and says nothing of its own about."""
    from transforms.delivery.http import HttpSettings
    from transforms.sinks.base import SinkSettings

    general = [base for base in (SinkSettings, HttpSettings) if issubclass(model, base)]
    return {name for base in general for name in base.model_fields} - {*model.__annotations__}


def _rows(
    schema: dict[str, Any],
    definitions: dict[str, Any],
    above: str = "",
    last: Collection[str] = (),
) -> Iterator[tuple[str, str, str]]:
    """(dotted name, type and default, description) of each setting, required ones first."""
    required = schema.get("required", [])
    for name, field in sorted(
        schema.get("properties", {}).items(),
        key=lambda item: (item[0] not in required, item[0] in last),
    ):
        arms = [arm for arm in field.get("anyOf", [field]) if arm.get("type") != "null"]
        below = [
            row
            for arm in arms
            if "$ref" in arm
            for row in _rows(
                definitions[arm["$ref"].rpartition("/")[2]], definitions, f"{above}{name}."
            )
        ]
        what = " or ".join(dict.fromkeys(map(_type, arms)))
        if name in required:
            what += ", required"
        elif field.get("default") not in (None, "", {}) and not below:
            what += f", default {_value(field['default'])}"
        yield above + name, f"({what})", field.get("description", "")
        yield from below


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " | ".join(map(_value, schema.get("enum") or [schema["const"]]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("format") or schema.get("type", "mapping")
    return {"string": "text", "integer": "number", "object": "mapping"}.get(kind, str(kind))


def _value(value: Any) -> str:
    """As YAML has it: true, 10, text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)
