"""`alertbeam sinks`: which systems alerts can go to, and what each can be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

__all__ = ["sinks"]


def sinks(
    kind: Annotated[str | None, typer.Argument(help="Only this one.", metavar="KIND")] = None,
) -> None:
    """List the systems that alerts can go to, with their settings.

    [dim]$ alertbeam sinks splunk_hec[/dim]
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from transforms.sinks.base import sinks as discovered

    found = discovered()
    if kind is not None and kind not in found:
        raise typer.BadParameter(f"there is no sink {kind!r}; there are: {', '.join(found)}")
    console = Console()
    for name, sink in found.items():
        if kind in (None, name):
            console.print(f"[bold]{name}[/bold]  {escape((sink.Settings.__doc__ or '').strip())}\n")
            table = Table("setting", "type", "default", "", box=None, header_style="dim")
            schema = sink.Settings.model_json_schema(by_alias=True)
            for row in _rows(schema, schema.get("$defs", {})):
                table.add_row(*map(escape, row))
            console.print(table, "")


def _rows(
    schema: dict[str, Any], definitions: dict[str, Any], above: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """(dotted name, type, default, description) of each setting, what must be given first."""
    required = schema.get("required", [])
    for name, field in sorted(
        schema.get("properties", {}).items(), key=lambda item: item[0] not in required
    ):
        arms = [arm for arm in field.get("anyOf", [field]) if arm.get("type") != "null"]
        default = "" if field.get("default") is None else str(field["default"])
        yield (
            above + name,
            " or ".join(dict.fromkeys(map(_type, arms))),
            "required" if name in required else default,
            field.get("description", ""),
        )
        for arm in arms:
            if "$ref" in arm:
                below = definitions[arm["$ref"].rpartition("/")[2]]
                yield from _rows(below, definitions, f"{above}{name}.")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum") or [schema["const"]]))
    if "$ref" in schema:
        return "mapping"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    names = {"string": "text", "integer": "number", "object": "mapping", "boolean": "true | false"}
    kind = str(schema.get("type", "any"))
    return str(schema.get("format") or names.get(kind, kind))
