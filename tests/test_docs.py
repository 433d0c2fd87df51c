"""The pages that are made from the code are what the code makes now."""

from __future__ import annotations

import re
from typing import Any

import pytest

from schemas.kinds import KINDS
from tests import docs, sink_docs
from tests.examples import EXAMPLES
from transforms.sinks.base import sinks

RECORD = EXAMPLES["security_alert"].record()


@pytest.mark.parametrize("name", sorted(set(KINDS) & set(EXAMPLES)))
def test_a_kinds_page_says_where_its_fields_come_from(name: str) -> None:
    """`python -m tests.docs` makes it anew."""
    assert (docs.DOCS / f"kinds/{name}.md").read_text(encoding="utf-8") == docs.kind_page(name)


def test_the_indexes_are_up_to_date() -> None:
    for page, text in (("kinds/README.md", docs.index_page()), ("formats.md", docs.formats_page())):
        assert (docs.DOCS / page).read_text(encoding="utf-8") == text


def test_there_is_a_page_a_kind() -> None:
    there = {path.stem for path in (docs.DOCS / "kinds").glob("*.md")} - {"README"}
    assert there == set(EXAMPLES)


@pytest.mark.parametrize("kind", sinks())
def test_a_sinks_page_says_what_its_settings_are_and_what_it_is_held_to(kind: str) -> None:
    text = (sink_docs.PAGES / f"{kind}.md").read_text(encoding="utf-8")
    headings = re.findall("(?m)^## (.+)$", text)
    assert tuple(each for each in headings if each in sink_docs.HEADINGS) == sink_docs.HEADINGS
    assert text == sink_docs.page(kind)
    assert "| `patience` |" in text
    assert f"`{kind}" in text.partition("<!-- tested -->")[2]


def test_the_table_of_sinks_is_what_the_contract_suite_runs() -> None:
    assert (sink_docs.PAGES / "index.md").read_text(encoding="utf-8") == sink_docs.index_page()


def test_there_is_a_page_a_sink() -> None:
    assert {path.stem for path in sink_docs.PAGES.glob("*.md")} == {*sinks(), "index"}


@pytest.mark.parametrize(
    ("field", "first"),
    [
        ("severity", "`AlertSeverity`"),
        ("title", "`DisplayName`"),
        ("event time", "`TimeGenerated`"),
    ],
)
def test_where_a_field_comes_from_is_found_out(field: str, first: str) -> None:
    assert docs.sources(RECORD)[field][0] == first


def test_what_is_read_instead_is_found_out_too() -> None:
    titles = docs.sources(RECORD)["title"]
    assert titles[:2] == ["`DisplayName`", "`AlertName`"]


def test_a_value_is_changed_wherever_it_stands() -> None:
    record: dict[str, Any] = {"a": [{"b": '{"c": [1, 2]}'}], "d": None, "e": "{no"}
    paths = list(docs.leaves(record))
    assert docs._shown(paths) == ["`a[].b.c[]`", "`e`"]
    assert docs.changed(record, paths[1], 7)["a"] == [{"b": '{"c": [1, 7]}'}]
    assert docs.changed(record, paths[2], docs._TAKEN) == {"a": record["a"], "d": None}
