"""A comparison as one HTML page that needs nothing else: no script, no file, no network.

Every text is escaped by the template, and what a browser may load is said in the page itself
(Content Security Policy, W3C): nothing.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path

from jinja2 import Template

from pipelines.pages import bar, template
from pipelines.what_if.found import Comparison, SinkChange
from pipelines.what_if.tables import changes, gb, size

__all__ = ["page"]

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
    return template(Path(__file__).with_name("page.html"), size=size, gb=gb)


def _bar(it: SinkChange) -> list[tuple[str, float, float]]:
    """What changes, where it begins, and how wide it is."""
    counts = {"same": it.same, "different": it.different, "only_a": it.only_a, "only_b": it.only_b}
    return bar(counts, _LEAST)
