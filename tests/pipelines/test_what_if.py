"""What a replay would do, and what other settings would change, is what the sinks would be sent."""

from __future__ import annotations

import gc
import io
import itertools
import json
import re
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipelines import what_if
from pipelines.settings import Settings, load
from pipelines.what_if import (
    Comparison,
    as_json,
    compare,
    comparison_tables,
    dry_run,
    dry_run_tables,
    page,
)
from schemas.batch import AlertBatch, Batch, Origin, Record
from schemas.formats import FORMATS
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, defender_alert, encoded, hostile, security_incident
from transforms.delivery.parcel import Parcel
from transforms.enrich import enrich_batch
from transforms.parse import parse_batch
from transforms.read.files.base import Unread
from transforms.route import Where, compile_where
from transforms.sinks.base import sinks
from transforms.write import parcels

ORIGIN = Origin("replay/march", "0")
NOON = 1_772_625_600_000  # 2026-03-04T12:00:00Z
DAY = 86_400_000
HEC = {"url": "https://splunk.example.com:8088", "token": "env:HEC_TOKEN"}
SENTINEL = {
    "endpoint": "https://alertbeam-x1y2.westeurope-1.ingest.monitor.azure.com",
    "rule": "dcr-000a00a000a00000a000000aa000a0aa",
}
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=y> {{7*7}} \x1b[2J \u202eback \x00 </style>"
)
FILE = {"file": {"folder": "archive"}}
DIGESTS = [{"name": "storms", "window": {"fixed": "5m"}}]

numbers = itertools.count()


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HEC_TOKEN", "ONE_PLACE", "TWO_PLACE", "XSIAM_API_KEY", "XSIAM_COLLECTOR_KEY"):
        monkeypatch.setenv(name, "a-token-for-tests-only")


def made(*sinks: dict[str, Any], **more: Any) -> Settings:
    """Settings with these sinks."""
    path = Path(f"settings-{next(numbers)}.yaml")
    hub = {"event_hubs": {"namespace": "contoso.servicebus.windows.net", "hub": "defender"}}
    path.write_text(
        json.dumps({"sources": [hub], "sinks": [*sinks], "state": "state", **more}), "utf-8"
    )
    return load(path)


def alert(number: int = 0, **changes: Any) -> bytes:
    """A different alert for each number."""
    return encoded(defender_alert(**{"SystemAlertId": f"id-{number}", **changes}))


def batch(bodies: Iterable[bytes], at: int = NOON, first: int = 0) -> Batch:
    records = [Record(n, 0, at, body) for n, body in enumerate(bodies, first)]
    return Batch(ORIGIN, first, first + len(records) - 1, None, records)


def text(tables: Iterable[Any]) -> str:
    console = Console(file=io.StringIO(), width=220)
    for each in tables:
        console.print(each)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(shown: str, *begin: str) -> list[str]:
    """The first row of a table that begins so."""
    rows = (line.split() for line in shown.splitlines())
    return next(cells for cells in rows if tuple(cells[: len(begin)]) == begin)


class TestADryRun:
    def test_every_record_is_counted_once_before_the_sinks_and_once_at_each(self) -> None:
        bodies = [alert(n, Severity="High" if n % 3 else "Low") for n in range(30)]
        bodies += [bodies[0], bodies[1], b"no alert at all", encoded(security_incident())]
        it = dry_run(
            [batch(bodies[:20]), batch(bodies[20:], first=20)],
            made(FILE, {"syslog": {"address": "h:1"}, "where": {"severity": "low"}}),
            lambda alert: alert.title != "Sign-in from two continents",
        )
        assert msgspec.to_builtins(it.flow) == {
            "records": 34, "dead": 1, "not_chosen": 1, "repeats": 2, "alerts": 30, "masked": 0,
        }  # fmt: skip
        assert it.events == 34
        archive, siem = it.sinks
        assert (archive.alerts, archive.not_routed, siem.alerts, siem.not_routed) == (30, 0, 10, 20)
        assert (siem.by_kind, siem.by_severity) == ({"defender_alert": 10}, {"low": 10})
        assert archive.by_severity == {"high": 20, "low": 10}
        assert [*it.dead_reasons.values()] == [1]

    def test_bytes_are_those_of_what_the_sink_would_be_sent(self) -> None:
        given, bodies = made({"splunk_hec": HEC}), [alert(n) for n in range(5)]
        (splunk,) = dry_run([batch(bodies)], given).sinks
        sink = given.sinks[0].build()
        sent = [sink.encode(_marked(body, n), *_at()) for n, body in enumerate(bodies)]
        assert splunk.bytes == sum(map(len, sent))

    def test_alerts_are_marked_as_the_replays(self) -> None:
        seen: list[str] = []
        given = made(FILE)
        dry_run([batch([alert()])], given, name="march", skip=lambda b, _: _look(b, seen))
        assert seen == ["march"]

    def test_what_a_sink_has_already_is_not_sent_again(self) -> None:
        def skip(batch: AlertBatch, sink: str) -> AlertBatch:
            return msgspec.structs.replace(batch, alerts=batch.alerts[sink == "b" :])

        given = made({**FILE, "name": "a"}, {**FILE, "name": "b"})
        a, b = dry_run([batch([alert(n) for n in range(4)])], given, skip=skip).sinks
        assert (a.alerts, a.already, b.alerts, b.already) == (4, 0, 3, 1)

    def test_where_is_asked_of_what_is_enriched_already(self) -> None:
        Path("s.json").write_text(json.dumps([{"id": SUBSCRIPTION, "environment": "prod"}]))
        given = made(FILE, subscriptions={"file": "s.json"})
        bodies = [alert(), alert(), alert(1, Severity="Low")]
        where = Where.model_validate({"environment": "prod", "severity": "high"})
        it = dry_run([batch(bodies)], given, where=where)
        assert (it.flow.alerts, it.flow.not_chosen, it.flow.repeats) == (1, 1, 1)
        assert compare([batch(bodies)], given, made(FILE), where=where).flow_b.not_chosen == 2

    def test_only_the_sinks_that_are_asked_for(self) -> None:
        given = made({**FILE, "name": "a"}, {**FILE, "name": "b"})
        (b,) = dry_run([batch([alert()])], given, sinks=["b"]).sinks
        assert (b.name, b.alerts) == ("b", 1)

    def test_a_sink_of_digests_says_why_it_gets_nothing(self) -> None:
        given = made(FILE, {**FILE, "name": "counts", "send": "digests"}, digests=DIGESTS)
        it = dry_run([batch([alert()])], given)
        assert [(sink.name, sink.alerts, bool(sink.note)) for sink in it.sinks] == [
            ("file", 1, False), ("counts", 0, True),
        ]  # fmt: skip
        assert "it gets digests" in text(dry_run_tables(it))

    def test_what_cannot_be_encoded_would_be_a_dead_letter(self) -> None:
        given = made({"syslog": {"address": "h:1", "format": "cef", "max_bytes": 480}})
        bodies = [alert(0), alert(1, AlertType="x" * 600)]
        (siem,) = dry_run([batch(bodies)], given).sinks
        assert siem.alerts + siem.dead == 2
        assert siem.dead == sum(siem.reasons.values()) >= 1
        assert all(reason.startswith("cannot be encoded") for reason in siem.reasons)

    def test_what_is_too_large_is_said_shorter_as_the_engine_does(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = made({"xsiam": _example_of("xsiam")})
        bodies = [alert(0), alert(1, Description="long " * 1_010_000)]
        (xsiam,) = dry_run([batch(bodies)], given).sinks
        assert (xsiam.alerts, xsiam.shortened, xsiam.dead) == (2, 1, 0)
        assert xsiam.bytes < 5_010_000
        monkeypatch.setattr(type(given.sinks[0].build()), "shrink", lambda *_: None)
        (xsiam,) = dry_run([batch(bodies)], given).sinks
        assert (xsiam.alerts, xsiam.dead) == (1, 1)
        assert "larger than" in next(iter(xsiam.reasons))

    def test_time_is_what_the_slowest_limit_asks_for(self) -> None:
        def seconds(**sink: Any) -> tuple[float, str]:
            given = made({"splunk_hec": {**HEC, **sink}})
            bodies = [alert(n) for n in range(40)]
            it = dry_run([batch(bodies)], given, clock=iter((0.0, 2.0)).__next__)
            assert it.seconds == it.sinks[0].seconds
            return it.seconds, it.sinks[0].bound

        assert seconds() == (2.0, "the speed of this machine")
        assert seconds(rate={"records": 4}) == (10.0, "4 records/s, its limit")
        # Some 3 KB an alert: a request of 10 KB holds three.
        assert seconds(max_bytes=10_000, rate={"requests": 0.5})[0] == 28.0
        assert seconds(rate={"records": 4, "bytes": 1_000})[1] == "1,000 bytes/s, its limit"

    def test_time_is_never_less_than_the_rate_at_which_is_read(self) -> None:
        it = dry_run([batch([alert(n) for n in range(40)])], made(FILE), rate=4)
        assert (it.seconds, it.sinks[0].bound) == (10.0, "4 records/s, as asked for")

    def test_a_limit_of_the_system_counts_too(self) -> None:
        entry = {"xsiam_alerts": _example_of("xsiam_alerts")}
        it = dry_run([batch([alert(n) for n in range(30)])], made(entry))
        assert "its limit" in it.sinks[0].bound

    def test_times_are_those_of_the_events(self) -> None:
        bodies = [
            alert(0, TimeGenerated="2026-03-01T00:00:00Z"),
            alert(1, TimeGenerated="2026-03-03T00:00:00Z"),
        ]
        it = dry_run([batch(bodies)], made(FILE))
        assert [f"{at:%m-%d}" for at in (it.earliest, it.latest) if at] == ["03-01", "03-03"]
        assert it.sinks[0].earliest == it.earliest

    def test_what_is_unread_is_told_also_if_it_comes_up_only_now(self) -> None:
        unread: list[Unread] = []

        def batches() -> Iterator[Batch]:
            yield batch([alert()])
            unread.append(Unread("/history/\x1b[2Ja.avro", 7, -1, "bad\nblock"))

        it = dry_run(batches(), made(FILE), unread=unread)
        assert (it.unread_places, it.unread[0].why) == (1, "bad block")
        shown = text(dry_run_tables(it))
        assert "could not be read: 1" in shown and "\x1b[2J" not in shown

    def test_nothing_is_sent_and_nothing_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = made(FILE, {"splunk_hec": HEC}, {"syslog": {"address": "127.0.0.1:9"}})
        before = sorted(Path().rglob("*"))
        monkeypatch.setattr("socket.socket.connect", _refuse)
        dry_run([batch([alert(), b"dead"])], given)
        compare([batch([alert(), b"dead"])], given, made(FILE))
        assert [path for path in sorted(Path().rglob("*")) if path.suffix != ".yaml"] == [
            path for path in before if path.suffix != ".yaml"
        ]

    def test_progress_is_told_of_each_batch(self) -> None:
        seen: list[int] = []
        rows = [batch([alert(n)], first=n) for n in range(3)]
        dry_run(rows, made(FILE), progress=lambda batch: seen.append(batch.first))
        compare(rows, made(FILE), made(FILE), progress=lambda batch: seen.append(batch.first))
        assert seen == [0, 1, 2] * 2

    def test_memory_does_not_grow_with_history(self) -> None:
        given = made(
            FILE, {"splunk_hec": HEC, "where": {"severity": "low"}}, deduplicate={"horizon": "1s"}
        )
        other = made(FILE, {"splunk_hec": {**HEC, "index": "i"}}, deduplicate={"horizon": "1s"})

        def held(count: int, run: Any) -> int:
            """Bytes that are held when the last batch is through."""
            kept = 0

            def rows() -> Iterator[Batch]:
                nonlocal kept
                for n in range(0, count, 50):
                    yield batch([alert(n + k) for k in range(50)], NOON + n * 1000, n)
                gc.collect()
                kept, _ = tracemalloc.get_traced_memory()

            gc.collect()
            tracemalloc.start()
            assert run(rows()).events == count
            tracemalloc.stop()
            return kept

        for run in (lambda rows: dry_run(rows, given), lambda rows: compare(rows, given, other)):
            held(200, run)  # caches fill
            assert held(900, run) - held(200, run) < 20_000


class TestIngest:
    def test_splunk_counts_the_event_as_it_is_indexed(self) -> None:
        for shape in ("body_wrapped", "raw", "cim"):
            given = made({"splunk_hec": {**HEC, "event_shape": shape, "index": "security"}})
            bodies = [alert(n, Description='é\n\t"') for n in range(3)]
            (splunk,) = dry_run([batch(bodies)], given).sinks
            sink = given.sinks[0].build()
            events = [
                json.loads(sink.encode(_marked(body, n), *_at()))["event"]
                for n, body in enumerate(bodies)
            ]
            assert splunk.ingest is not None
            assert splunk.ingest.bytes == sum(
                len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())
                for event in events
            )
            assert splunk.ingest.gb == splunk.ingest.bytes / 2**30
            assert splunk.ingest.bytes < splunk.bytes

    def test_sentinel_counts_the_text_of_the_columns(self) -> None:
        given = made({"sentinel": SENTINEL})
        body = alert(0, Description='é\n\t"')
        (sentinel,) = dry_run([batch([body])], given).sinks
        cells = json.loads(given.sinks[0].build().encode(_marked(body, 0), *_at())).values()
        said = [
            cell if isinstance(cell, str)
            else json.dumps(cell, separators=(",", ":"), ensure_ascii=False)
            for cell in cells if cell is not None
        ]  # fmt: skip
        assert sentinel.ingest is not None
        assert sentinel.ingest.bytes == sum(len(cell.encode()) for cell in said)
        assert sentinel.ingest.gb == sentinel.ingest.bytes / 1e9

    def test_a_day_is_one_of_history(self) -> None:
        rows = [
            batch([alert(n) for n in range(4)]),
            batch([alert(n) for n in range(4, 6)], NOON + DAY, 4),
        ]
        it = dry_run(rows, made({"splunk_hec": HEC, "where": {"severity": "high"}}))
        (splunk,) = it.sinks
        assert (it.days, splunk.ingest) != (2, None)
        assert splunk.ingest is not None
        assert splunk.ingest.gb_a_day == pytest.approx(splunk.ingest.gb / 2)
        assert splunk.ingest.largest_day == "2026-03-04"
        assert splunk.ingest.largest_day_gb == pytest.approx(splunk.ingest.gb * 4 / 6, rel=0.01)

    def test_records_of_any_day_do_not_fill_the_memory(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(what_if, "_MOST_DAYS", 5)
        rows = [batch([alert(n)], n * DAY, n) for n in range(20)]
        it = dry_run(rows, made({"splunk_hec": HEC}))
        (splunk,) = it.sinks
        assert splunk.ingest is not None and splunk.ingest.bytes > 20 * 2_000
        assert it.days == 5
        volume = what_if._Volume(what_if._VENDORS["splunk_hec"])
        dry_run(rows, made({"splunk_hec": HEC}), progress=lambda each: volume.add(_sent(each)))
        assert len(volume._days) == 5
        assert volume.ingest(5).bytes > 20 * 2_000

    def test_other_systems_have_no_figure_of_it(self) -> None:
        assert dry_run([batch([alert()])], made(FILE)).sinks[0].ingest is None


class TestAComparison:
    def test_the_same_settings_change_nothing_and_are_encoded_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given, encodings = made(FILE), []
        sink = type(given.sinks[0].build())
        encode = sink.encode
        monkeypatch.setattr(sink, "encode", lambda *a: encodings.append(1) or encode(*a))
        it = compare([batch([alert(n) for n in range(9)])], given, made(FILE))
        assert (it.changed, it.sinks[0].same, it.groups, it.settings) == (0, 9, [], [])
        assert it.sinks[0].bytes_a == it.sinks[0].bytes_b > 0
        assert len(encodings) == 9
        assert "Nothing would change." in page(it)

    def test_a_stricter_rule_is_told_with_the_condition_that_keeps_alerts_out(self) -> None:
        rule = {"kind": "defender_*", "severity": {"at_least": "medium"}}
        bodies = [alert(0), alert(1, Severity="Low"), encoded(security_incident(Severity="High"))]
        it = compare([batch(bodies)], made(FILE), made({**FILE, "where": rule}))
        (sink,) = it.sinks
        assert (sink.same, sink.different, sink.only_a, sink.only_b) == (1, 0, 2, 0)
        assert [(g.change, g.rule, g.kind, g.alerts) for g in it.groups] == [
            ("only_a", "where kind: [defender_*]", "security_incident", 1),
            ("only_a", "where severity: {at_least: medium}", "defender_alert", 1),
        ]
        low = it.groups[1].examples[0]
        assert low.why == "severity is low, wanted is {at_least: medium}"
        assert (low.severity, low.event_id) == ("low", understand(bodies[1]).event_id)
        assert sink.bytes_b < sink.bytes_a

    def test_a_wider_rule_is_told_the_other_way_round(self) -> None:
        rule = {"any": [{"severity": "high"}, {"status": "resolved"}], "all": [{"status": "new"}]}
        bodies = [alert(0), alert(1, Severity="Low"), alert(2, Status="Resolved")]
        it = compare([batch(bodies)], made({**FILE, "where": rule}), made(FILE))
        assert [(g.change, g.rule, g.alerts) for g in it.groups] == [
            ("only_b", "where any: [{severity: [high]}, {status: [resolved]}]", 1),
            ("only_b", "where status: [new]", 1),
        ]

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.sampled_from(["Low", "Medium", "High"]), st.booleans()), max_size=25),
        st.lists(st.sampled_from(["low", "medium", "high"]), min_size=1, unique=True),
        st.lists(st.sampled_from(["new", "resolved"]), min_size=1, unique=True),
        st.integers(1, 9),
    )
    def test_counts_are_those_of_asking_each_rule_of_each_alert(
        self, rows: list[tuple[str, bool]], severities: list[str], statuses: list[str], cut: int
    ) -> None:
        bodies = [
            alert(n, Severity=severity, Status="New" if new else "Resolved")
            for n, (severity, new) in enumerate(rows)
        ]
        a, b = {"severity": severities}, {"not": {"status": statuses}}
        batches = [batch(bodies[n : n + cut], first=n) for n in range(0, len(bodies), cut)]
        it = compare(batches, made({**FILE, "where": a}), made({**FILE, "where": b}))
        wanted = [compile_where(Where.model_validate(where)) for where in (a, b)]
        truth = Counter(tuple(w(understand(body)) for w in wanted) for body in bodies)
        (sink,) = it.sinks
        assert (sink.same, sink.only_a, sink.only_b, sink.different) == (
            truth[True, True], truth[True, False], truth[False, True], 0,
        )  # fmt: skip
        assert sum(group.alerts for group in it.groups) == sink.changed

    def test_what_is_said_otherwise_is_told_by_field(self) -> None:
        one, two = {**HEC, "index": "main"}, {**HEC, "index": "security", "host": "beam"}
        it = compare(
            [batch([alert(n) for n in range(7)])], made({"splunk_hec": one}),
            made({"splunk_hec": two}), examples=2,
        )  # fmt: skip
        (sink,), (group,) = it.sinks, it.groups
        assert (sink.different, sink.compared, sink.fields) == (7, 7, {"host": 7, "index": 7})
        assert (group.rule, group.alerts, len(group.examples)) == ("index, host", 7, 2)
        fields = {field.name: (field.a, field.b) for field in group.examples[0].fields}
        assert fields == {"index": ("main", "security"), "host": (None, "beam")}

    def test_another_format_is_another_form(self) -> None:
        syslog = {"address": "h:1", "format": "cef"}
        leef = {**syslog, "format": "leef"}
        it = compare([batch([alert()])], made({"syslog": syslog}), made({"syslog": leef}))
        (group,) = it.groups
        assert (group.change, group.rule) == ("different", "format, max_bytes")
        fields = {field.name: field for field in group.examples[0].fields}
        assert (fields["version"].a, fields["version"].b) == ("CEF:0", "LEEF:2.0")
        assert fields["rt"].b is None

    def test_other_subscriptions_change_what_is_said_and_who_gets_it(self) -> None:
        for name, environment in (("a", "test"), ("b", "prod")):
            Path(f"{name}.json").write_text(
                json.dumps([{"id": SUBSCRIPTION, "name": "Shop", "environment": environment}])
            )
        sinks = (
            {**FILE, "name": "all"},
            {**FILE, "name": "prod", "where": {"environment": "prod"}},
            {**FILE, "name": "test", "where": {"environment": "test"}},
        )
        a, b = (made(*sinks, subscriptions={"file": f"{name}.json"}) for name in "ab")
        it = compare([batch([alert()])], a, b)
        every, prod, test = it.sinks
        assert (every.different, prod.only_b, test.only_a) == (1, 1, 1)
        groups = {group.sink: group for group in it.groups}
        assert groups["all"].rule == "subscriptions"
        (field,) = groups["all"].examples[0].fields
        assert (field.name, field.a, field.b) == ("subscription.environment", "test", "prod")
        assert groups["prod"].examples[0].why == "environment is test, wanted is [prod]"
        assert groups["test"].examples[0].why == "environment is prod, wanted is [test]"
        assert [field.name for field in it.settings] == ["subscriptions.file"]
        back = compare([batch([alert()])], b, a)
        assert [sink.changed for sink in back.sinks] == [1, 1, 1]

    def test_secrets_are_not_shown_by_settings_that_stop_masking_them(self) -> None:
        key = "AccountKey=" + "Zm9vYmFyYmF6cXV4" * 4
        body = alert(0, AlertDisplayName=f"found {key}", Description=f"in a script: {key}")
        kept, open_ = made(FILE), made(FILE, mask=False)
        for a, b in ((kept, open_), (open_, kept)):
            it = compare([batch([body])], a, b)
            assert it.sinks[0].different == 1
            assert it.groups[0].rule == "mask"
            assert it.groups[0].examples[0].fields
            for said in (as_json(it).decode(), page(it), text(comparison_tables(it))):
                assert "Zm9v" not in said
            assert "another one" in page(it)

    def test_a_sink_that_only_one_has(self) -> None:
        a = made({**FILE, "name": "old"})
        b = made(
            {**FILE, "name": "new"}, {**FILE, "name": "counts", "send": "digests"}, digests=DIGESTS
        )
        it = compare([batch([alert(), alert(1)])], a, b)
        assert [(s.name, s.system_a, s.system_b, s.only_a, s.only_b) for s in it.sinks] == [
            ("old", "file", "", 2, 0), ("new", "", "file", 0, 2),
        ]  # fmt: skip
        assert {group.rule for group in it.groups} == {"no such sink takes alerts"}
        named = {field.name: (field.a, field.b) for field in it.settings}
        assert named["sinks.counts"] == (None, "file, which gets digests")
        assert named["digests[0].name"] == (None, "storms")
        assert "file, no more" in page(it) and "new: file" in page(it)

    def test_a_longer_horizon_tells_more_repeats(self) -> None:
        rows = [batch([alert()]), batch([alert()], NOON + 5_000, 1)]
        a, b = (made(FILE, deduplicate={"horizon": each}) for each in ("1s", "1h"))
        it = compare(rows, a, b)
        assert (it.flow_a.repeats, it.flow_b.repeats) == (0, 1)
        (group,) = it.groups
        assert (group.change, group.rule) == ("only_a", "deduplicate: it is an exact repeat")
        assert it.settings[0].name == "deduplicate.horizon"

    def test_what_only_one_can_encode(self) -> None:
        syslog = {"address": "h:1", "format": "cef", "max_bytes": 480}
        body = alert(0, AlertType="x" * 600)
        it = compare(
            [batch([body])], made({"syslog": syslog}),
            made({"syslog": {**syslog, "max_bytes": 8192}}),
        )  # fmt: skip
        (group,) = it.groups
        assert (group.change, group.rule) == ("only_b", "it cannot be encoded")
        assert group.examples[0].why.startswith("cannot be encoded")

    def test_the_same_history_gives_the_same_bytes(self) -> None:
        a = made(FILE, {"splunk_hec": HEC, "where": {"severity": "high"}})
        b = made({"file": {"folder": "archive", "format": "ecs"}}, {"splunk_hec": HEC})
        bodies = [alert(n, Severity="High" if n % 2 else "Low") for n in range(40)]
        said = {as_json(compare([batch(bodies)], a, b)) for _ in range(2)}
        parts = [batch(bodies[n : n + 7], first=n) for n in range(0, 40, 7)]
        assert said == {as_json(compare(parts, a, b))}
        again = msgspec.json.decode(next(iter(said)), type=Comparison)
        assert [sink.changed for sink in again.sinks] == [40, 20]

    def test_fields_of_many_alerts_are_compared_in_samples(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(what_if, "_DIFFED", 5)
        bodies = [alert(n) for n in range(600)]
        it = compare(
            [batch(bodies)], made({"splunk_hec": HEC}), made({"splunk_hec": {**HEC, "index": "i"}})
        )
        (sink,) = it.sinks
        also = sum(not understand(body).key[0] for body in bodies[5:])
        assert (sink.different, sink.compared) == (600, 5 + also)
        assert sink.fields == {"index": sink.compared}

    def test_secrets_of_settings_are_compared_and_not_shown(self) -> None:
        one = {"url": "https://hooks.example.com/s3cr3t/1", "secret": "env:ONE_PLACE"}
        two = {"url": "https://hooks.example.com/s3cr3t/2", "secret": "env:TWO_PLACE"}
        (webhook,) = compare([], made({"webhook": one}), made({"webhook": two})).sinks
        fields = {field.name: (field.a, field.b) for field in webhook.settings}
        assert fields["url"] == (
            "https://hooks.example.com",
            "https://hooks.example.com (another one)",
        )
        assert fields["secret"] == ("a secret", "a secret (another one)")

    def test_a_callers_own_enrichment_is_used(self) -> None:
        def owned(by: str) -> Any:
            def enrich(batch: AlertBatch) -> AlertBatch:
                for each in batch.alerts:
                    each.resource = by
                return batch

            return enrich

        given, same = made(FILE), owned("x")
        it = compare([batch([alert()])], given, given, enrich=(owned("a"), owned("b")))
        assert it.groups[0].examples[0].fields[0].name == "resource"
        assert compare([batch([alert()])], given, given, enrich=(same, same)).changed == 0


class TestFields:
    @pytest.mark.parametrize("form", sorted(FORMATS))
    def test_a_change_of_an_alert_is_found_by_field_in_every_format(self, form: str) -> None:
        it = understand(alert())
        other = msgspec.structs.replace(
            it, raw=alert(0, AlertDisplayName="Another"), title="Another"
        )
        one, two = (FORMATS[form].say(each) for each in (it, other))
        found = what_if._differences(what_if._fields(one), what_if._fields(two))
        assert found, form
        assert len(what_if._fields(one)) > 3, form
        assert any("Another" in (field.b or "") for field in found)

    @given(
        st.sampled_from([b"", b"<13>", b"CEF:0|", b"<1>x LEEF:2.0|", b'{"a":1}', b'<1>1 [a b="']),
        st.one_of(st.binary(max_size=300), st.sampled_from(hostile()).map(str.encode)),
    )
    def test_any_bytes_have_fields(self, begin: bytes, payload: bytes) -> None:
        fields = what_if._fields(begin + payload)
        assert fields or not payload.strip()
        for field in what_if._differences(fields, {}):
            assert field.name.isprintable() and (field.a or "").isprintable()

    @pytest.mark.parametrize("piece", [b"a" * 64, b'a="', b"a=\\", b"|", b'b="c" ', b"{", b"[]"])
    def test_no_text_takes_long(self, piece: bytes) -> None:
        began = time.process_time()
        for begin in (b"<13>", b"CEF:0|", b"LEEF:2.0|", b""):
            what_if._fields(begin + piece * (100_000 // len(piece)))
        assert time.process_time() - began < 10

    def test_depth_without_end_is_a_text(self) -> None:
        assert [*what_if._fields(b'{"a":' * 100_000)] == ["text"]

    def test_a_long_text_is_shown_where_it_differs(self) -> None:
        (field,) = what_if._differences({"x": "a" * 900 + "b"}, {"x": "a" * 900 + "c"})
        assert field.a is not None and field.b is not None
        assert field.a.endswith("b") and field.b.endswith("c") and len(field.a) < 210

    def test_a_hostile_title_does_not_make_a_record_another_language(self) -> None:
        title = "CEF:0|Evil|Evil|1|1|forged|10|externalId=1"
        fields = what_if._fields(FORMATS["ndjson"].say(understand(alert(AlertDisplayName=title))))
        assert fields["title"] == title


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
        bar = what_if._bar(what_if.SinkChange("s", "file", "file", same=1_000_000, only_a=1))
        assert [name for name, _, _ in bar] == ["same", "only_a"]
        assert bar[1][2] > 5
        assert bar[1][1] + bar[1][2] == pytest.approx(1000, abs=0.1)

    def test_it_says_what_could_not_be_read(self) -> None:
        assert "Not all of history could be read." in page(full())
        assert "could not be read" not in page(compare([batch([alert()])], made(FILE), made(FILE)))


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


def _example_of(kind: str) -> dict[str, Any]:
    return dict(sinks()[kind].example)


def _sent(batch: Batch) -> list[Parcel]:
    sink = made({"splunk_hec": HEC}).sinks[0].build()
    return parcels(sink, parse_batch(batch)[0], -1)


def _refuse(*_: Any) -> None:
    raise AssertionError("it connects")


def _look(batch: AlertBatch, seen: list[str]) -> AlertBatch:
    seen += [each.replay for each in batch.alerts]
    return batch


def _at() -> tuple[str, str]:
    return ORIGIN.source, ORIGIN.partition


def _marked(body: bytes, sequence: int) -> Any:
    """The alert as a run without a subscriptions file has it at a sink."""
    parsed, _ = parse_batch(batch([body], first=sequence))
    (it,) = enrich_batch(parsed, {}).alerts
    return it
