"""The report says what the store says, all of it, and nothing in it can act."""

from __future__ import annotations

import json
import re
import stat
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.report import as_json, keep, report, write_reports
from pipelines.report.model import Report
from pipelines.report.page import page
from pipelines.report.verify import Arrived, Check, Missing, Verification
from pipelines.settings import Settings, load
from schemas.batch import Origin
from schemas.dead_letter import DeadLetter
from schemas.ledger import Owing, Payment, Span
from schemas.receipt import Outcomes
from schemas.runs import Run
from transforms.account import Settled
from transforms.dead_letters import write_dead_letters
from transforms.gaps import Gap, record_gap
from transforms.owed import account_path, put_aside, write
from transforms.state_store import StateStore

SOURCE = "contoso.servicebus.windows.net/defender/$Default"
ORIGIN = Origin(SOURCE, "0")
HOUR = 3_600_000
NOW = int(datetime.now(timezone.utc).timestamp() * 1000)
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=y> {{7*7}} \x1b[2J \u202eback \x00 </style>"
)


def settings(folder: Path, *sinks: str) -> Settings:
    entries = "".join(f"  - {{file: {{folder: {name}}}, name: {name}}}\n" for name in sinks)
    path = folder / "settings.yaml"
    path.write_text(
        "sources: [{event_hubs: {namespace: contoso.servicebus.windows.net, hub: defender, "
        f"retention_hours: 24}}}}]\nsinks:\n{entries}state: state\n"
    )
    return load(path)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    made = StateStore(str(tmp_path / "state"))
    made.prepare()
    return made


def span(first: int, last: int, at_ms: int = NOW, **counts: int) -> Span:
    ended = Outcomes(**counts) if counts else Outcomes(delivered=last - first + 1)
    return Span(first, last, ended.total, ended, at_ms, at_ms)


def settle(
    store: StateStore, sink: str, *spans: Span, origin: Origin = ORIGIN, **changes: Any
) -> None:
    """An account of these receipts; changes: fields that shall say otherwise."""
    total = sum((each.outcomes for each in spans), Outcomes())
    stored = Settled(spans[-1].last, total.total, NOW, total, spans[0].first, "", [*spans])
    stored = msgspec.structs.replace(stored, **changes)
    path = account_path(sink, origin.source, origin.partition)
    store.put(path, msgspec.json.encode(stored))


def owe(store: StateStore, sink: str, *runs: Run, since_ms: int = NOW, paid: Any = None) -> None:
    owing = [Owing(max(run.last for run in runs), [*runs], since_ms)]
    write(store, sink, ORIGIN.source, ORIGIN.partition, owing, paid)


def letter(sequence: int, reason: str = "not JSON", step: str = "parse") -> DeadLetter:
    return DeadLetter(SOURCE, "0", sequence, 0, NOW, step, reason, b"SECRET PAYLOAD")


class TestTheModel:
    def test_it_is_the_account_of_each_sink_by_partition(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(5, 9, delivered=3, repeat=2), span(10, 19, owed=10))
        settle(store, "siem", span(0, 3), origin=Origin(SOURCE, "10"))
        settle(store, "siem", span(0, 1), origin=Origin(SOURCE, "9"))
        owe(store, "siem", Run(10, 19, 0), paid=Payment([Run(10, 13, 0)], [Run(14, 14, 0)]))
        made = report(settings(tmp_path, "siem", "other"), store)
        siem, other = made.sinks
        assert [(p.partition, p.first, p.last, p.events) for p in siem.partitions] == [
            ("0", 5, 19, 15), ("9", 0, 1, 2), ("10", 0, 3, 4),
        ]  # fmt: skip
        assert msgspec.to_builtins(siem.partitions[0].counts) == {
            "in": 15, "delivered": 7, "not_routed": 0, "repeat": 2, "dead": 1, "owed": 5,
        }  # fmt: skip
        assert (siem.counts.records, siem.holds, siem.kind) == (21, True, "file")
        assert (other.counts.records, other.holds, other.partitions) == (0, True, [])
        assert made.holds

    def test_a_sum_that_does_not_hold_is_a_fault(self, store: StateStore, tmp_path: Path) -> None:
        settle(store, "siem", span(0, 9), records=11)
        made = report(settings(tmp_path, "siem"), store)
        assert not made.holds and not made.sinks[0].holds
        assert made.sinks[0].partitions[0].faults[0] == "1 records have no outcome"
        assert "The account does not hold." in page(made)

    def test_receipts_with_a_hole_are_a_fault_and_a_gap_explains_it(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(0, 9), span(20, 29))
        made = report(settings(tmp_path, "siem"), store)
        assert made.sinks[0].partitions[0].faults == ["events 10 to 19 have no receipt"]
        record_gap(store, ORIGIN, Gap(10, 19, NOW, "the hub had them no more"))
        made = report(settings(tmp_path, "siem"), store)
        (account,) = made.sinks[0].partitions
        assert (account.faults, account.events, account.never_read) == ([], 20, 10)
        assert made.holds
        assert [(gap.first, gap.last, gap.events) for gap in made.gaps] == [(10, 19, 10)]
        assert "10 events were never read." in page(made)
        assert "Nothing is lost" not in page(made)

    def test_a_sink_that_the_settings_do_not_name_any_more_is_told_too(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "old", span(0, 9))
        made = report(settings(tmp_path, "siem"), store)
        assert [(s.name, s.configured, s.counts.records) for s in made.sinks] == [
            ("siem", True, 0), ("old", False, 10),
        ]  # fmt: skip
        assert "no longer set up" in page(made)

    def test_an_account_whose_begin_is_not_known_says_so(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(100, 109), began=-1, records=500, outcomes=Outcomes(500))
        made = report(settings(tmp_path, "siem"), store)
        assert (made.holds, made.sinks[0].partitions[0].first) == (True, None)
        assert "? – 109" in page(made)

    def test_what_is_owed_has_a_margin_until_the_hub_deletes_it(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(0, 9, owed=10))
        now_ms = int(datetime.now(timezone.utc).timestamp() * 1000)  # the suite takes minutes
        owe(store, "siem", Run(0, 9, 0), since_ms=now_ms - 20 * HOUR)
        put_aside(store, SOURCE, "0", 0, 3, b"")
        (debt,) = report(settings(tmp_path, "siem"), store).owed
        assert (debt.records, debt.aside) == (10, 4)
        assert debt.margin_seconds == pytest.approx(4 * 3600, abs=60)
        assert "another 4 h" in page(report(settings(tmp_path, "siem"), store))

    def test_what_the_hub_has_deleted_already_is_told(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(0, 9, owed=10))
        owe(store, "siem", Run(0, 9, 0), since_ms=NOW - 30 * HOUR)
        made = report(settings(tmp_path, "siem"), store)
        assert made.owed[0].margin_seconds is not None and made.owed[0].margin_seconds < 0
        assert 'class="bad-text">deleted since' in page(made)

    def test_dead_letters_are_counted_by_reason_with_a_few_examples(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        write_dead_letters(store, [letter(n) for n in range(9)])
        write_dead_letters(store, [letter(20, "too large", "siem")])
        dead = report(settings(tmp_path, "siem"), store).dead
        assert [(d.step, d.reason, d.records) for d in dead] == [
            ("parse", "not JSON", 9), ("siem", "too large", 1),
        ]  # fmt: skip
        assert [one.sequence for one in dead[0].examples] == [0, 1, 2, 3, 4]

    def test_reasons_without_end_become_one(self, store: StateStore, tmp_path: Path) -> None:
        write_dead_letters(store, [letter(n, f"reason {n}") for n in range(150)])
        dead = report(settings(tmp_path, "siem"), store).dead
        assert len(dead) == 101
        assert (dead[-1].reason, dead[-1].records) == ("", 50)
        assert len(dead[-1].examples) == 5

    def test_the_timeline_has_all_records_in_at_most_200_buckets(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        spans = [span(n * 10, n * 10 + 9, NOW + n * 7 * 60_000) for n in range(1_000)]
        spans.insert(500, Span(4_995, 4_999, 0, Outcomes()))
        spans[499] = span(4_990, 4_994, 0, delivered=10)
        settle(store, "siem", *spans)
        line = report(settings(tmp_path, "siem"), store).timeline
        buckets = line.sinks["siem"]
        assert line.bucket_seconds == 3600
        assert sum(bucket.counts.records for bucket in buckets) == 10_000
        assert len(buckets) <= 200
        assert all(bucket.at.timestamp() % 3600 == 0 for bucket in buckets)

    def test_a_partition_without_any_alert_does_not_stretch_it(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(0, 9))
        settle(store, "siem", span(0, 9, 0, dead=10), origin=Origin(SOURCE, "1"))
        line = report(settings(tmp_path, "siem"), store).timeline
        assert line.bucket_seconds == 60
        (bucket,) = line.sinks["siem"]
        assert (bucket.counts.records, bucket.counts.dead) == (20, 10)

    @pytest.mark.parametrize("stretch", [0, 1, 60, 10_000, 40_000_000])
    def test_a_bucket_is_as_wide_as_the_time_asks_for(
        self, store: StateStore, tmp_path: Path, stretch: int
    ) -> None:
        spans = [span(n, n, NOW + n * stretch * 1_000) for n in range(500)]
        settle(store, "siem", *spans)
        buckets = report(settings(tmp_path, "siem"), store).timeline.sinks["siem"]
        assert sum(bucket.counts.records for bucket in buckets) == 500
        assert len(buckets) <= 200 or stretch == 40_000_000  # 600 years

    def test_a_store_that_holds_nothing_makes_a_report(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        made = report(settings(tmp_path, "siem"), store)
        assert made.holds
        assert "None: every event" in page(made)

    def test_no_setting_but_names_is_in_it(
        self, store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = "Endpoint=sb://h;SharedAccessKeyName=k;SharedAccessKey=s3cr3t"
        monkeypatch.setenv("HUB_NAME", hub)
        monkeypatch.setenv("TOKEN_NAME", "t0k3n")
        path = tmp_path / "settings.yaml"
        path.write_text(
            "sources: [{event_hubs: {hub: defender, connection_string: env:HUB_NAME}}]\n"
            "sinks: [{splunk_hec: {url: 'https://s:8088', token: env:TOKEN_NAME}}]\nstate: state\n"
        )
        loaded = load(path)
        assert report(loaded, store).sources == ["h/defender/$Default"]
        monkeypatch.delenv("HUB_NAME")  # as on an auditor's machine
        made = report(loaded, store)
        assert made.sources == ["defender"]
        for text in (as_json(made).decode(), page(made)):
            assert not re.search("TOKEN_NAME|HUB_NAME|8088|s3cr3t|t0k3n", text)


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
        self.acting += [
            f"{n}={v}" for n, v in attrs if n == "href" and not (v or "").startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements that do not close as they opened"


def full(store: StateStore, folder: Path, sinks: int = 12, hostile: str = HOSTILE) -> Report:
    """A report with something in every part of it."""
    names = ["splunk", *(f"sink-{n}" for n in range(1, sinks))]
    for number, name in enumerate(names):
        spans = [
            span(
                n * 100, n * 100 + 99, NOW - (200 - n) * 600_000,
                delivered=60 + (n * 7 + number) % 30, not_routed=5 + number, repeat=n % 9,
                dead=int(n % 23 == 0), owed=40 * (number % 4 == 1 and 80 < n < 110),
            )
            for n in range(200)
        ]  # fmt: skip
        settle(store, name, *spans)
        settle(store, name, *spans, origin=Origin(hostile, hostile))
    if sinks > 1:
        owe(store, "sink-1", Run(8_100, 8_139, 0), since_ms=NOW - 20 * HOUR)
    record_gap(store, ORIGIN, Gap(10, 19, NOW, hostile, ("splunk",)))
    write_dead_letters(store, [letter(n, hostile, hostile) for n in range(3)])
    partition = {"source": hostile, "partition": hostile, "next": 3, "error": hostile}
    store.put("status.json", msgspec.json.encode({"partitions": [partition], "sinks": {}}))
    store.put("aside/digests/splunk/x.json", b"{}")
    check = Check(hostile, 3, [hostile], [hostile])
    missing = Missing("ab" * 16, hostile, hostile, 1, 0)
    arrived = Arrived(hostile, 9, 8, 7, 6, 5, 4, 3, [missing], [hostile])
    return report(
        settings(folder, *names), store, Verification(False, [check], [arrived], [hostile])
    )


class TestThePage:
    def test_hostile_texts_stay_texts(self, store: StateStore, tmp_path: Path) -> None:
        text = page(full(store, tmp_path))
        look = _Look()
        look.feed(text)
        assert not look.open
        assert not look.acting
        assert not look.tags & {"script", "img", "link", "iframe", "object", "form", "base"}
        assert text.count("<style>") == text.count("</style>") == 1
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "{{7*7}}" in text and "49 " not in text.partition("{{7*7}}")[0][-10:]
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", text)

    def test_it_loads_nothing(self, store: StateStore, tmp_path: Path) -> None:
        text = page(full(store, tmp_path))
        assert "default-src 'none'" in text
        assert not re.search(r"https?://|url\(|@import", text)

    def test_payloads_are_not_in_it(self, store: StateStore, tmp_path: Path) -> None:
        made = full(store, tmp_path)
        assert "SECRET PAYLOAD" not in page(made)
        assert b"SECRET PAYLOAD" not in as_json(made)

    def test_every_sink_has_a_bar_a_timeline_and_a_row(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        text = page(full(store, tmp_path))
        for name in ("splunk", "sink-11"):
            assert f'aria-label="{name}: how its records ended"' in text
            assert f'aria-label="{name} over time"' in text
        assert text.count('preserveAspectRatio="none"') == 24

    def test_what_there_is_little_of_is_seen_in_the_bar(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(0, 9, delivered=10_000_000, dead=1))
        text = page(report(settings(tmp_path, "siem"), store))
        bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" width="([\d.]+)"', text)
        assert [name for name, _, _ in bars] == ["delivered", "dead"]
        assert float(bars[1][2]) > 2
        assert float(bars[1][1]) + float(bars[1][2]) == pytest.approx(1000, abs=0.1)

    def test_a_verdict_is_as_good_as_the_worst_of_it(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        settle(store, "siem", span(0, 9))
        assert "<strong>Nothing is lost.</strong>" in page(
            report(settings(tmp_path, "siem"), store)
        )
        settle(store, "siem", span(0, 9, owed=10))
        owe(store, "siem", Run(0, 9, 0))
        said = page(report(settings(tmp_path, "siem"), store))
        assert "<strong>Nothing is lost; 10 records are still owed.</strong>" in said
        failed = Verification(False, [Check("a statement", 1, ["a fault"])])
        said = page(report(settings(tmp_path, "siem"), store, failed))
        assert "<strong>The account does not hold.</strong>" in said


class TestFiles:
    def test_json_and_page_are_kept_for_their_owner_alone(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        path = write_reports(settings(tmp_path, "siem"), store)
        assert path.parent == store.folder / "reports"
        assert path.read_text().startswith("<!doctype html>")
        beside = path.with_suffix(".json")
        assert json.loads(beside.read_bytes())["holds"] is True
        assert {stat.S_IMODE(each.stat().st_mode) for each in (path, beside)} == {0o600}

    def test_the_last_thirty_are_kept(self, store: StateStore, tmp_path: Path) -> None:
        made = report(settings(tmp_path, "siem"), store)
        for n in range(33):
            later = made.made + timedelta(seconds=n)
            last = keep(store, msgspec.structs.replace(made, made=later))
        names = [*store.list("reports")]
        assert len(names) == 60
        assert names[-2].endswith(last.name)

    def test_what_the_json_says_can_be_read_back_whole(
        self, store: StateStore, tmp_path: Path
    ) -> None:
        made = full(store, tmp_path)
        assert msgspec.json.decode(as_json(made), type=Report) == made
