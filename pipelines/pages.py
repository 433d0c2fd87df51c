"""How anything is shown on a page: one self-contained document, in which no text can act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from transforms.delivery.line import printable

__all__ = ["WIDTH", "bar", "template"]

WIDTH = 1000.0
"""Of a chart, in its own units."""


def template(file: Path, **filters: Callable[[Any], Any]) -> Template:
    """A template whose every text is escaped, and has no control characters."""
    environment = Environment(
        loader=FileSystemLoader(file.parent),
        autoescape=True,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "number": lambda n: "–" if n is None else f"{n:,}",
            "time": lambda at: "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}",
            "line": lambda text: printable(text, 500),
            **filters,
        }
    )
    return environment.get_template(file.name)


def _plain(value: Any) -> Any:
    """Text without control characters; markup, which the template made, is of another type."""
    return printable(value, len(value)) if type(value) is str else value


def bar(counts: Mapping[str, int], least: float) -> list[tuple[str, float, float]]:
    """What there is any of, where it begins, and how wide it is: at least so much that it is
    seen."""
    values = {name: n for name, n in counts.items() if n > 0}
    total = sum(values.values())
    wide = {name: max(least, n / total * WIDTH) for name, n in values.items()}
    scale = WIDTH / sum(wide.values()) if wide else 1.0
    found, at = [], 0.0
    for name, width in wide.items():
        found.append((name, round(at, 2), round(width * scale, 2)))
        at += width * scale
    return found
