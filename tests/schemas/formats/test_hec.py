from __future__ import annotations

import json

import msgspec
import pytest

from schemas.alert import Alert, Subscription
from schemas.formats.hec import hec, hub_source
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, defender_alert, encoded, hostile

KNOWN = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production", "Retail")


def alert(**overrides: object) -> Alert:
    made = understand(encoded(defender_alert()))
    made.sequence, made.enqueued_ms, made.subscription = 4711, 1_772_619_195_001, KNOWN
    return msgspec.structs.replace(made, **overrides)


def test_body_wrapped_is_as_the_add_on_writes_it() -> None:
    said = hec(alert(), source="ns.servicebus.windows.net/hub;", index="security", host="beam-1")
    assert json.loads(said) == {
        "source": "ns.servicebus.windows.net/hub;",
        "sourcetype": "mscs:azure:eventhub",
        "index": "security",
        "host": "beam-1",
        "time": 1772619194.987,
        "event": {
            "body": defender_alert(),
            "x-opt-sequence-number": 4711,
            "x-opt-enqueued-time": 1772619195001,
        },
        "fields": {
            "event_id": alert().event_id,
            "subscription_id": SUBSCRIPTION,
            "subscription_name": "Shop",
            "subscription_owner": "ann@example.com",
            "subscription_environment": "production",
            "subscription_management_group": "Retail",
        },
    }
    assert alert().raw in said


def test_raw_is_the_record_alone() -> None:
    said = json.loads(hec(alert(subscription=None), shape="raw", sourcetype=""))
    assert said == {
        "time": 1772619194.987,
        "event": defender_alert(),
        "fields": {"event_id": alert().event_id},
    }


def test_an_unknown_subscription_is_marked() -> None:
    fields = json.loads(hec(alert(subscription=Subscription("s-1", known=False))))["fields"]
    assert fields["subscription_id"] == "s-1"
    assert fields["subscription_known"] == "false"
    assert "subscription_name" not in fields


@pytest.mark.parametrize(("ms", "time"), [(5, "0.005"), (1000, "1.000"), (1050, "1.050")])
def test_time_has_milliseconds(ms: int, time: str) -> None:
    assert f'"time":{time},'.encode() in hec(alert(event_ms=ms))


def test_without_a_time_splunk_takes_its_own() -> None:
    assert b'"time"' not in hec(alert(event_ms=0))


@pytest.mark.parametrize("shape", ["body_wrapped", "raw"])
@pytest.mark.parametrize("text", hostile())
def test_text_stays_text(text: str, shape: str) -> None:
    record = defender_alert(AlertDisplayName=text, Description=text)
    evil = understand(encoded(record))
    evil.subscription = Subscription(text, text, text, text, text)
    said = json.loads(hec(evil, shape=shape, source=text, index=text, host=text))  # type: ignore[arg-type]
    event = said["event"]["body"] if shape == "body_wrapped" else said["event"]
    assert event == record
    assert said["fields"]["subscription_owner"] == text
    assert said["source"] == text


@pytest.mark.parametrize("raw", [b"", b"42", b'"x"', b'{"a":1', b"[1]"])
def test_what_is_no_object_cannot_be_said(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        hec(alert(raw=raw))


def test_source() -> None:
    assert hub_source("ns.servicebus.windows.net/hub/$Default") == "ns.servicebus.windows.net/hub;"
    assert hub_source("file:///data/events.avro") == "file:///data/events.avro"
