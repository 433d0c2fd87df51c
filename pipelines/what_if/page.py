"""A comparison as one HTML page that needs nothing else: no script, no file, no network.

Every text is escaped by the template, and what a browser may load is said in the page itself
(Content Security Policy, W3C): nothing.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pipelines.what_if.found import Comparison, SinkChange
from pipelines.what_if.tables import changes, gb, size
from transforms.delivery.line import printable

__all__ = ["page"]

_WIDTH = 1000.0  # of a bar, in its own units
_LEAST = 6.0  # what is there is seen, however little it is
_MOST_LISTED = 200


def page(found: Comparison, made: datetime | None = None) -> str:
    """A whole document.

    made: when, if that shall be told. It holds titles and values of alerts, so it is as
    confidential as they are.
    """
    return _template().render(
        found=found,
        made=made,
        changes=changes(found.names),
        bars={it.name: _bar(it) for it in found.sinks},
        most_listed=_MOST_LISTED,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=lambda n: f"{n:,}",
        time=lambda at: "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}",
        line=lambda text: printable(text, 500),
        size=size,
        gb=gb,
    )
    return environment.get_template("page.html")


def _plain(value: Any) -> Any:
    """Text without control characters; markup, which the template made, is of another type."""
    return printable(value, len(value)) if type(value) is str else value


def _bar(it: SinkChange) -> list[tuple[str, float, float]]:
    """What changes, where it begins, and how wide it is."""
    counts = {"same": it.same, "different": it.different, "only_a": it.only_a, "only_b": it.only_b}
    total = sum(counts.values())
    wide = [(name, max(_LEAST, n / total * _WIDTH)) for name, n in counts.items() if n]
    scale = _WIDTH / sum(width for _, width in wide) if wide else 1.0
    made, at = [], 0.0
    for name, width in wide:
        made.append((name, round(at, 2), round(width * scale, 2)))
        at += width * scale
    return made
