"""The page and the tables say what was found; hostile texts stay texts there."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.what_if import (
    Comparison,
    SinkChange,
    as_json,
    compare,
    comparison_tables,
    dry_run,
    dry_run_tables,
    page,
)
from pipelines.what_if.page import _bar
from tests.fixtures import SUBSCRIPTION, encoded, security_incident
from tests.pipelines.what_if_cases import (
    FILE,
    HEC,
    SENTINEL,
    alert,
    batch,
    in_a_folder,
    made,
    text,
)
from transforms.read.files.base import Unread

HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=y> {{7*7}} \x1b[2J \u202eback \x00 </style>"
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_folder(tmp_path, monkeypatch)


class _Look(HTMLParser):
    """Which elements there are, and attributes that could act."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.acting: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.acting += [n for n, _ in attrs if n.startswith("on") or n in ("src", "srcset")]
        self.acting += [f"href={v}" for n, v in attrs if n == "href" and v != "#unread"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements that do not close as they opened"


def full() -> Comparison:
    """A comparison with something in every part of it."""
    evil = HOSTILE.replace("\x00", "")
    Path("b.json").write_text(json.dumps([{"id": SUBSCRIPTION, "name": evil, "owner": evil}]))
    high = {"severity": {"at_least": "high"}, "product": [evil, "Microsoft*"]}
    a = made(FILE, {"splunk_hec": {**HEC, "host": evil}}, {"sentinel": SENTINEL})
    b = made(
        FILE, {"splunk_hec": {**HEC, "source": evil}, "where": high},
        {"syslog": {"address": "h:1", "format": "cef"}}, {"sentinel": SENTINEL},
        subscriptions={"file": "b.json"},
    )  # fmt: skip
    bodies = [
        alert(n, Severity="High" if n % 3 else "Low", AlertDisplayName=HOSTILE, ProductName=HOSTILE)
        for n in range(30)
    ]
    bodies.append(encoded(security_incident(Title=HOSTILE)))
    unread = [Unread(f"/history/{HOSTILE}", 7, -1, HOSTILE)]
    return compare([batch(bodies)], a, b, names=(HOSTILE, "other.yaml"), unread=unread)


class TestThePage:
    def test_hostile_texts_stay_texts(self) -> None:
        said = page(full())
        look = _Look()
        look.feed(said)
        assert not look.open and not look.acting
        assert not look.tags & {"script", "img", "link", "iframe", "object", "form", "base"}
        assert said.count("<style>") == said.count("</style>") == 1
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in said and "{{7*7}}" in said
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", said)

    def test_it_loads_nothing(self) -> None:
        said = page(full())
        assert "default-src 'none'" in said
        assert not re.search(r"url\(|@import|<[^>]*https?://", said)

    def test_every_sink_has_a_bar_and_every_group_can_be_folded_out(self) -> None:
        it = full()
        said = page(it)
        for sink in it.sinks:
            assert f'aria-label="{sink.name}: what would change"' in said
        assert said.count("<details") == len(it.groups) > 3
        for change in ("only_a", "only_b", "different"):
            assert f'class="key {change}"' in said

    def test_little_is_seen_in_a_bar_too(self) -> None:
        bar = _bar(SinkChange("s", "file", "file", same=1_000_000, only_a=1))
        assert [name for name, _, _ in bar] == ["same", "only_a"]
        assert bar[1][2] > 5
        assert bar[1][1] + bar[1][2] == pytest.approx(1000, abs=0.1)

    def test_it_says_what_could_not_be_read(self) -> None:
        assert "Not all of history could be read." in page(full())
        assert "could not be read" not in page(compare([batch([alert()])], made(FILE), made(FILE)))


def row(shown: str, *begin: str) -> list[str]:
    """The first row of a table that begins so."""
    rows = (line.split() for line in shown.splitlines())
    return next(cells for cells in rows if tuple(cells[: len(begin)]) == begin)


class TestTheTerminal:
    def test_hostile_texts_do_nothing_there(self) -> None:
        it = full()
        shown = text(comparison_tables(it))
        assert "\x1b" not in shown and "\x00" not in shown and "\u202e" not in shown
        it.names = "[bold red]x[/]", "y"
        assert "[bold red]x[/]" in text(comparison_tables(it))

    def test_a_dry_run_is_shown_by_sink(self) -> None:
        given = made(FILE, {"splunk_hec": HEC, "where": {"severity": "low"}})
        it = dry_run([batch([alert(n) for n in range(1200)])], given)
        shown = text(dry_run_tables(it))
        assert row(shown, "file")[:5] == ["file", "1,200", "0", "0", "0"]
        assert row(shown, "splunk_hec")[:5] == ["splunk_hec", "0", "1,200", "0", "0"]
        assert row(shown, "defender_alert") == ["defender_alert", "1,200", "1,200"]
        assert row(shown, "1,200")[:5] == ["1,200", "0", "0", "0", "1,200"]
        json.loads(as_json(it))

    def test_a_comparison_is_shown_by_sink_and_group(self) -> None:
        bodies = [alert(n, Severity="Low" if n % 4 else "High") for n in range(40)]
        it = compare([batch(bodies)], made(FILE), made({**FILE, "where": {"severity": "high"}}))
        shown = text(comparison_tables(it))
        assert row(shown, "file")[:5] == ["file", "10", "0", "30", "0"]
        assert "severity is low, wanted is [high]" in shown
