"""`alertbeam schema`: what editors need to help with a settings file."""

from __future__ import annotations

import json

import typer

__all__ = ["schema"]


def schema() -> None:
    """Print the JSON Schema of settings files, for editors.

    [dim]$ alertbeam schema > settings.schema.json[/dim]

    and as the first line of settings.yaml:

    [dim]# yaml-language-server: $schema=settings.schema.json[/dim]
    """
    from pipelines.settings import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
