"""`alertbeam sinks`: which systems alerts can go to, and what each can be told."""

from __future__ import annotations

import json
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
            schema = sink.Settings.model_json_schema(by_alias=True)
            table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            for setting, what, about in _rows(schema, schema.get("$defs", {})):
                table.add_row(f"  {setting}", f"{escape(about)} [dim]{escape(what)}[/dim]".strip())
            console.print(f"[bold]{name}[/bold]: {escape(sink.Settings.__doc__ or '')}", table, "")


def _rows(
    schema: dict[str, Any], definitions: dict[str, Any], above: str = ""
) -> Iterator[tuple[str, str, str]]:
    """(dotted name, type and default, description) of each setting, required ones first."""
    required = schema.get("required", [])
    for name, field in sorted(
        schema.get("properties", {}).items(), key=lambda item: item[0] not in required
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
        elif field.get("default") is not None and not below:
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
