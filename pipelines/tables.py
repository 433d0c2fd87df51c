"""How anything is shown in a terminal: tables of one look, and texts that nobody can trust."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from transforms.delivery.line import printable

__all__ = ["shown", "table"]


def shown(text: str, style: str = "", most: int = 300) -> Text:
    """A text of whatever origin, for a table: no markup, no terminal escapes, one line of at most
    so many characters."""
    return Text(printable(text, most), style)


def table(title: str) -> Table:
    """A table whose figures have room in 80 columns."""
    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        header_style="underline",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
