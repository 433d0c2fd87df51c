"""Whether alertbeam takes a command line that stands in a deployment, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from pipelines.cli import app

__all__ = ["parsed"]


def parsed(command: Sequence[str]) -> dict[str, Any]:
    """What each option and argument of `alertbeam …` is. Typer's own exception: it takes it not."""
    name, *arguments = command
    assert name == "alertbeam", command
    found: Any = typer.main.get_command(app)
    context = found.context_class(found, info_name=name)
    while hasattr(found, "resolve_command"):
        name, found, arguments = found.resolve_command(context, arguments)
        context = found.context_class(found, info_name=name, parent=context)
    return dict(found.make_context(name, [*arguments], parent=context.parent).params)
