"""What other settings would change is what their sinks would be sent, against the others'."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.what_if import Comparison, as_json, compare, comparison_tables, page, pair
from schemas.batch import AlertBatch
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, encoded, security_incident
from tests.pipelines.what_if_cases import (
    DIGESTS,
    FILE,
    HEC,
    NOON,
    alert,
    batch,
    in_a_folder,
    made,
    text,
)
from transforms.route import Where, compile_where


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_folder(tmp_path, monkeypatch)


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
        monkeypatch.setattr(pair, "_DIFFED", 5)
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
