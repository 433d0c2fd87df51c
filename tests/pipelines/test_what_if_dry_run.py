"""What a replay would do, and what vendors would count, is what the sinks would be sent."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.what_if import compare, counts, dry_run, dry_run_tables, ingest
from schemas.batch import AlertBatch, Batch
from tests.fixtures import SUBSCRIPTION, encoded, security_incident
from tests.pipelines.what_if_cases import (
    DAY,
    DIGESTS,
    FILE,
    HEC,
    NOON,
    ORIGIN,
    SENTINEL,
    alert,
    batch,
    in_a_folder,
    made,
    text,
)
from transforms.delivery.parcel import Parcel
from transforms.enrich import enrich_batch
from transforms.parse import parse_batch
from transforms.read.files.base import Unread
from transforms.route import Where
from transforms.sinks.base import sinks
from transforms.write import parcels


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_folder(tmp_path, monkeypatch)


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
        for module in (counts, ingest):
            monkeypatch.setattr(module, "MOST_DAYS", 5)
        rows = [batch([alert(n)], n * DAY, n) for n in range(20)]
        it = dry_run(rows, made({"splunk_hec": HEC}))
        (splunk,) = it.sinks
        assert splunk.ingest is not None and splunk.ingest.bytes > 20 * 2_000
        assert it.days == 5
        volume = ingest.volume_of("splunk_hec")
        assert volume is not None
        dry_run(rows, made({"splunk_hec": HEC}), progress=lambda each: volume.add(_sent(each)))
        assert len(volume._days) == 5
        assert volume.ingest(5).bytes > 20 * 2_000

    def test_other_systems_have_no_figure_of_it(self) -> None:
        assert dry_run([batch([alert()])], made(FILE)).sinks[0].ingest is None


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
