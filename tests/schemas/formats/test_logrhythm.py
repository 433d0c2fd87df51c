from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import logrhythm as module
from schemas.formats.logrhythm import logrhythm
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, defender_alert, encoded, hostile
from tests.strategies import alerts
from tests.transforms.sinks.doubles.logrhythm import json_id


def alert(**overrides: object) -> Alert:
    return msgspec.structs.replace(understand(encoded(defender_alert())), **overrides)


def said(made: Alert, **options: Any) -> dict[str, Any]:
    line = logrhythm(made, **options)
    assert json_id(line) == made.event_id
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_main_fields() -> None:
    record = defender_alert()
    found = said(alert(subscription=Subscription(SUBSCRIPTION, "Shop")), entities=False)
    assert json.loads(found.pop("original_message")) == record
    assert found == {
        "whsdp": True,
        "fullyqualifiedbeatname": "webhookbeat_alertbeam",
        "session": alert().event_id,
        "timestamp.iso8601": "2026-03-04T10:13:14.987Z",
        "threatid": record["SystemAlertId"],
        "vmid": "VM_SuspiciousDownload",
        "severity": alert().severity_original,
        "subject": record["AlertDisplayName"],
        "status": alert().status_original,
        "objectname": "shop-vm-1",
        "object": alert().resource_ids[0],
        "tag1": "defender_alert",
        "tag2": "Microsoft Defender for Cloud",
        "tag3": ", ".join(alert().tactics),
        "tag5": SUBSCRIPTION,
        "tag6": "Shop",
        "tag7": alert().link,
        "vendorinfo": record["Description"],
        **({"tag4": ", ".join(alert().techniques)} if alert().techniques else {}),
    }


def test_who_did_what_to_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Details(
        entities=(
            Entity(type="ip", name="203.0.113.7", role="source", port="4444"),
            Entity(type="ip", name="not an address", role="target", port="1"),
            Entity(type="ip", name="2001:db8::1", role="target", port="443"),
            Entity(type="user", name="eve", role="source"),
            Entity(type="user", name="bob", role="target"),
            Entity(type="device", name="hmi", role="source", attributes={"mac": "000d60af1b61"}),
            Entity(type="host", name="plc", role="target"),
            Entity(type="url", name="https://evil.example/x"),
        ),
        action="blocked",
        outcome="ok",
        attributes={"protocol": "tcp"},
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    found = said(alert())
    assert {key: found[key] for key in ("sip", "sport", "dip", "dport")} == {
        "sip": "203.0.113.7",
        "sport": 4444,
        "dip": "2001:db8::1",
        "dport": 443,
    }
    assert (found["login"], found["account"]) == ("eve", "bob")
    assert (found["sname"], found["dname"], found["smac"]) == ("hmi", "plc", "00:0d:60:af:1b:61")
    assert (found["url"], found["action"], found["protname"], found["result"]) == (
        *("https://evil.example/x", "blocked", "tcp", "ok"),
    )


def test_the_log_source_has_the_name_that_it_is_given() -> None:
    assert said(alert(), beat="webhookbeat_x")["fullyqualifiedbeatname"] == "webhookbeat_x"


def test_too_long_the_record_goes_before_the_description_is_cut() -> None:
    whole = logrhythm(alert())
    before = set(json.loads(whole))
    for size in range(len(whole), 200, -7):
        found = said(alert(), max_bytes=size)
        assert len(logrhythm(alert(), max_bytes=size)) <= size
        assert set(found) <= before
        if found.get("vendorinfo") != alert().description:
            assert "original_message" not in found


@given(
    st.text(st.sampled_from('\\"\n\u00e9\u4e2d\U0001f600a'), max_size=400), st.integers(300, 900)
)
def test_a_cut_halves_neither_escape_nor_code_point(text: str, size: int) -> None:
    made = alert(description=text, title="t")
    found = said(made, max_bytes=size, entities=False)
    clean = text.replace("\n", " ")
    assert clean.startswith(found.get("vendorinfo", ""))


@pytest.mark.parametrize("text", hostile())
def test_text_forges_no_field(text: str) -> None:
    made = alert(title=text, description=text, entity=text, link=text, raw=text.encode())
    found = said(made, entities=False)
    assert "forged" not in found
    assert found["whsdp"] is True


@given(alerts(), st.sampled_from([480, 2000, 8000, 100_000]))
def test_any_alert_is_one_flat_object_on_one_line(made: Alert, size: int) -> None:
    line = logrhythm(made, max_bytes=size)
    assert len(line) <= size
    assert len(line.decode().splitlines()) == 1
    assert json_id(line) == made.event_id


def test_lone_surrogates_cannot_break_the_line() -> None:
    assert said(alert(title="a\ud800b"))["subject"] == "a?b"


def test_too_little_room_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"LogRhythm's JSON needs \d+ bytes, not 50"):
        logrhythm(alert(), max_bytes=50)
