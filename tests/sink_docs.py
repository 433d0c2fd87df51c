"""Makes `docs/sinks/index.md`, and what of each sink's page comes from the code.

    python -m tests.docs

A page is written by hand but for what stands between its marks: the settings, from the models,
and what the contract suite holds the sink to, from the doubles that it runs against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.commands.sinks import _about, _rows, _shared
from tests.transforms.sinks.doubles import DOUBLES, PROPERTIES, matrix
from transforms.sinks.base import sinks

__all__ = ["HEADINGS", "PAGES", "index_page", "page", "pages"]

PAGES = Path(__file__).parent.parent / "docs" / "sinks"
HEADINGS = (
    "Set it up",
    "Settings",
    "Find the alerts",
    "Limits",
    "During an outage",
    "Tested against",
)
"""What every page has, in this order."""


def page(kind: str) -> str:
    """The page as it is, with what the code says now between its marks."""
    text = (PAGES / f"{kind}.md").read_text(encoding="utf-8")
    for name, lines in (("settings", _settings(kind)), ("tested", _tested(kind))):
        made = "\n".join(["", "", *lines, "", ""])
        text = re.sub(rf"(?s)(?<=<!-- {name} -->).*(?=<!-- /{name} -->)", lambda _, m=made: m, text)
    return text


def pages() -> dict[str, str]:
    """Every page by its name."""
    return {f"{kind}.md": page(kind) for kind in sinks()} | {"index.md": index_page()}


def _settings(kind: str) -> Iterator[str]:
    model = sinks()[kind].Settings
    schema = model.model_json_schema(by_alias=True)
    yield "| setting | | |"
    yield "|---|---|---|"
    for setting, what, about in _rows(schema, schema.get("$defs", {}), last=_shared(model)):
        yield f"| `{setting}` | {_cell(what)} | {_cell(about)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _tested(kind: str) -> Iterator[str]:
    for name, double in DOUBLES.items():
        if double.kind == kind:
            yield f"- `{name}`: {double.system}: all but {len(double.lacks)} of the"
            yield f"  [{len(PROPERTIES)} properties](index.md)"
            for lacked, why in double.lacks.items():
                yield f"  - not *{lacked}*: {why}"


def index_page() -> str:
    lines = [
        "# Where alerts can go",
        "",
        "| | what it is |",
        "|---|---|",
        *(f"| [`{kind}`]({kind}.md) | {_cell(_about(sink))} |" for kind, sink in sinks().items()),
        "",
        "`alertbeam sinks KIND --example` prints a block for the settings file, `alertbeam sinks",
        "test NAME` sends one marked test alert, and says how to find it.",
        "",
        "## What each is held to",
        "",
        "One suite, over all of them: `make contract`. Made by `python -m tests.docs` from what it",
        "runs; a test compares. ● tested; a letter: this system cannot have it, and why stands",
        "below.",
        "",
    ]
    lines += [f"{number}. **{name}**: {what}" for number, (name, what) in _numbered()]
    lines += ["", f"| sink | {' | '.join(str(n) for n, _ in _numbered())} |"]
    lines += ["|---|" + ":-:|" * len(PROPERTIES)]
    reasons: dict[str, str] = {}
    held = {(each.sink, each.property): each.exempt for each in matrix()}
    for name in DOUBLES:
        cells = []
        for _, (wanted, _) in _numbered():
            why = held[name, wanted]
            cells.append(reasons.setdefault(why, _letters(len(reasons))) if why else "●")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += ["", *(f"- {letter}: {why}" for why, letter in reasons.items())]
    lines += ["", "## Against what", "", "| sink | tested against |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(double.system)} |" for name, double in DOUBLES.items()]
    return "\n".join(lines) + "\n"


def _numbered() -> Iterator[tuple[int, tuple[str, str]]]:
    return enumerate(PROPERTIES.items(), 1)


def _letters(number: int) -> str:
    """a, b, … z, aa, ab, …"""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)
