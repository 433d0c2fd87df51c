"""Counts do not depend on the order or the grouping in which alerts came."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, STATUSES, Alert, Subscription
from schemas.digest import Digest, Sample, from_json, to_alert, to_json
from transforms.digest import KEYS, Tally, add, digest, digest_key, merge


def alert(number: int = 0, **fields: Any) -> Alert:
    fields = {"kind": "defender_alert", "entity": "e", "event_ms": 1000 + number, **fields}
    return Alert(key=number.to_bytes(16, "big"), **fields)


def test_keys_are_what_the_alert_says_of_itself_and_its_subscription() -> None:
    about = Subscription(
        "s-1", name="Pay", environment="prod", management_group="root", tags={"Team": "red"}
    )
    one = alert(
        severity="high",
        status="new",
        alert_type="VM_X",
        product="Defender",
        resource="vm1",
        tactics=("Impact", "Execution", "Impact"),
        subscription_id="s-1",
        subscription=about,
    )
    by = (*KEYS, "tag:team", "tag:none")
    assert dict(zip(by, digest_key(one, by), strict=True)) == {
        "subscription": "s-1",
        "subscription_name": "Pay",
        "environment": "prod",
        "management_group": "root",
        "severity": "high",
        "status": "new",
        "kind": "defender_alert",
        "alert_type": "VM_X",
        "product": "Defender",
        "resource": "vm1",
        "tactic": "Execution, Impact",
        "tag:team": "red",
        "tag:none": "",
    }


def test_what_an_alert_does_not_have_is_empty() -> None:
    by = ("subscription", "environment", "tag:team", "tactic")
    assert digest_key(alert(), by) == ("", "", "", "")
    assert digest_key(alert(), ()) == ()


def tally(alerts: list[Alert], samples: int) -> Tally:
    return functools.reduce(lambda t, a: add(t, a, samples), alerts, Tally())


ALERTS = st.lists(
    st.builds(
        alert,
        st.integers(0, 20),
        severity=st.sampled_from(SEVERITIES),
        status=st.sampled_from(STATUSES),
        kind=st.sampled_from(["a", "b"]),
        event_ms=st.integers(-5, 5),
        title=st.sampled_from(["x", "y", ""]),
    ),
    max_size=12,
)


@given(ALERTS, ALERTS, ALERTS, st.integers(0, 4))
def test_merging_is_associative_commutative_and_the_same_as_adding(
    a: list[Alert], b: list[Alert], c: list[Alert], samples: int
) -> None:
    x, y, z = (tally(part, samples) for part in (a, b, c))
    left = merge([merge([x, y], samples), z], samples)
    assert left == merge([x, merge([y, z], samples)], samples)
    assert left == merge([z, x, y], samples)
    assert left == merge([tally(a + b + c, samples)], samples) == tally(c + b + a, samples)
    assert merge([x, Tally()], samples) == merge([x], samples)


@given(ALERTS, st.integers(0, 4))
def test_counts_add_up(alerts: list[Alert], samples: int) -> None:
    t = tally(alerts, samples)
    for counts in (t.severities, t.statuses, t.kinds):
        assert sum(counts.values()) == t.total == len(alerts)
    assert len(t.samples) == min(samples, len({a.key for a in alerts}))
    assert [s.id for s in t.samples] == sorted({a.event_id for a in alerts})[:samples]
    if alerts:
        assert t.first_ms == min(a.event_ms for a in alerts)
        assert t.last_ms == max(a.event_ms for a in alerts)


def test_merging_leaves_its_parts_alone() -> None:
    part = tally([alert(1)], 1)
    before = msgspec.msgpack.encode(part)
    add(merge([part, part], 1), alert(0), 1)
    assert msgspec.msgpack.encode(part) == before


def test_a_tally_crosses_stages_as_msgpack() -> None:
    t = tally([alert(1, title="é"), alert(2)], 2)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(t), type=Tally) == t


def made(pane: int = 0, **key: str) -> Digest:
    t = tally([alert(2, title="two", severity="low"), alert(1, title="one", severity="high")], 1)
    by = tuple(key)
    return digest(t, "storms", by, tuple(key.values()), (0, 300_000), pane, "on_time")


def test_a_digest_says_what_was_counted_where_and_when() -> None:
    d = made(subscription="s-1", severity="high")
    assert d.key == {"subscription": "s-1", "severity": "high"}
    assert (d.start_ms, d.end_ms, d.pane, d.timing) == (0, 300_000, 0, "on_time")
    assert (d.total, d.first_ms, d.last_ms) == (2, 1001, 1002)
    assert d.severities == {"low": 1, "high": 1}
    assert d.samples == [Sample(f"{1:032x}", "one")]


def test_a_digest_is_one_line_of_json_and_back() -> None:
    d = made(subscription="s\n1")
    line = to_json(d)
    assert b"\n" not in line
    assert msgspec.json.decode(line)["id"] == d.id
    assert from_json(line) == d


def test_the_id_is_of_the_pane_not_of_what_it_counts() -> None:
    assert made(a="1", b="2").id == made(b="2", a="1").id
    assert len({made(a="1").id, made(a="2").id, made(pane=1, a="1").id, made(b="1").id}) == 4
    fuller = msgspec.structs.replace(made(a="1"), total=9)
    assert fuller.id == made(a="1").id


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ({"subscription": "s-1", "severity": "high"}, "storms: 2 alerts (s-1, high)"),
        ({"subscription": ""}, "storms: 2 alerts"),
        ({}, "storms: 2 alerts"),
    ],
)
def test_a_digest_can_go_where_alerts_go(key: dict[str, str], title: str) -> None:
    d = made(**key)
    a = to_alert(d)
    assert (a.kind, a.event_id, a.title) == ("digest", d.id, title)
    assert (a.severity, a.event_ms, a.start_ms, a.end_ms) == ("high", 1002, 0, 300_000)
    assert a.subscription_id == key.get("subscription", "")
    assert from_json(a.raw) == d
