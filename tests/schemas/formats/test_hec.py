from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import hec as module
from schemas.formats.hec import Shape, hec, hub_source
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, defender_alert, encoded, hostile
from tests.strategies import alerts

CIM = {
    *("id", "type", "signature", "signature_id", "severity", "severity_id", "app", "description"),
    *("src", "dest", "dest_type", "user", "vendor_account"),
}
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


def test_cim_puts_the_fields_of_the_data_model_before_the_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Details(
        entities=(
            Entity(type="ip", name="203.0.113.7"),
            Entity(type="user", name="ann", domain="example.com"),
            Entity(type="user", name="mallory", role="actor"),
        )
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    made = alert(techniques=("T1059.004", "T1105"))
    record = defender_alert()
    said = json.loads(hec(made, shape="cim", index="security"))
    assert said["event"] == {
        "id": record["SystemAlertId"],
        "type": "alert",
        "signature": record["AlertDisplayName"],
        "signature_id": "VM_SuspiciousDownload",
        "severity": "high",
        "severity_id": "High",
        "app": "Microsoft Defender for Cloud",
        "description": record["Description"],
        "src": "203.0.113.7",
        "dest": "shop-vm-1",
        "dest_type": "Microsoft.Compute/virtualMachines",
        "user": "mallory",
        "vendor_account": SUBSCRIPTION,
        "body": record,
    }
    assert list(said["event"])[-1] == "body"
    assert made.raw in hec(made, shape="cim")
    assert said["fields"]["mitre_technique_id"] == ["T1059.004", "T1105"]
    assert said["fields"]["event_id"] == made.event_id
    assert (said["time"], said["index"]) == (1772619194.987, "security")


@pytest.mark.parametrize(
    ("entities", "src", "dest"),
    [
        ((), None, None),
        ((Entity(type="ip", name="none"), Entity(type="ip", name="10.0.0.7")), "10.0.0.7", None),
        ((Entity(type="host", name="kali", role="source"),), "kali", None),
        ((Entity(type="device", name="plc"), Entity(type="ip", name="::1")), "::1", "plc"),
        ((Entity(type="ip", name="10.0.0.7", role="target"),), None, "10.0.0.7"),
    ],
)
def test_cim_sides(
    monkeypatch: pytest.MonkeyPatch,
    entities: tuple[Entity, ...],
    src: str | None,
    dest: str | None,
) -> None:
    monkeypatch.setattr(module, "details", lambda alert: Details(entities=entities))
    event = json.loads(hec(alert(resource="", resource_ids=()), shape="cim"))["event"]
    assert (event.get("src"), event.get("dest")) == (src, dest)
    assert "dest_type" not in event


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        *(("defender_alert", "alert"), ("security_incident", "alert"), ("iot_alert", "alert")),
        *(("activity_log", "event"), ("unknown", "event")),
    ],
)
def test_cim_tells_alerts_from_other_events(kind: str, type: str) -> None:
    assert json.loads(hec(alert(kind=kind), shape="cim"))["event"]["type"] == type


@given(alerts(), st.sampled_from(["body_wrapped", "raw", "cim"]))
def test_any_alert_is_one_event_without_a_forged_field(made: Alert, shape: Shape) -> None:
    said = json.loads(hec(made, shape=shape), object_pairs_hook=_once)
    assert set(said) <= {"sourcetype", "time", "event", "fields"}
    assert said["fields"]["event_id"] == made.event_id
    event = said["event"]
    record = json.loads(made.raw)
    if shape == "cim":
        assert event.pop("body") == record
        assert set(event) <= CIM
        assert all(isinstance(text, str) and text for text in event.values())
        assert event["severity"] == made.severity
    else:
        assert (event if shape == "raw" else event["body"]) == record


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs), "a key stands twice"
    return dict(pairs)


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
    hub = "ns.servicebus.windows.net/hub"
    assert hub_source(f"{hub}/$Default") == f"eventhub://{hub};"
    assert hub_source("file:///data/events.avro") == "file:///data/events.avro"
