from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import FORMATS
from schemas.formats import servicenow as module
from schemas.formats.servicenow import servicenow_event, servicenow_incident
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fidelity.measure import parsed
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, hostile
from tests.strategies import alerts

# "Event field format for event collection" (ServiceNow docs, release Brazil); time_of_event and
# severity as facts of the API, metric_name and event_class as the table's dictionary has them.
EVENT = {
    **dict.fromkeys(("source", "node", "type", "resource", "metric_name", "event_class"), 100),
    "message_key": 1024,
    "description": 4000,
    "time_of_event": 40,
    "severity": 1,
    "resolution_state": 7,
}
INCIDENT = {
    "short_description": 160,
    "description": 4000,
    "correlation_id": 100,
    "correlation_display": 100,
    "category": 40,
    "close_code": 40,
    "close_notes": 4000,
    "work_notes": 4000,
}
CODES = {
    "impact": {"1", "2", "3"},
    "urgency": {"1", "2", "3"},
    "severity": {"1", "2", "3"},
    "state": {"1", "2", "3", "6", "7", "8"},
}
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def event(alert: Alert) -> dict[str, Any]:
    """A record by ServiceNow's form: every value a text of at most its length, on one line."""
    record: dict[str, Any] = json.loads(servicenow_event(alert))
    info = record.pop("additional_info")
    for name, text in record.items():
        assert isinstance(text, str)
        assert 0 < len(text) <= EVENT[name], name
        if name not in ("description", "message_key"):
            assert not CONTROL.search(text), name
    assert not CONTROL.search(record.get("description", "").replace("\n", ""))
    assert record["severity"] in "012345"
    assert (record["severity"] == "0") == (record["resolution_state"] == "Closing")
    if "time_of_event" in record:
        assert TIME.fullmatch(record["time_of_event"])
    facts = json.loads(info)
    assert facts
    assert all(isinstance(text, str) and text for text in facts.values())
    assert len(info.encode()) <= 16_000
    return record | {"additional_info": facts}


def incident(alert: Alert, **options: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(servicenow_incident(alert, **options))
    for name, text in record.items():
        assert isinstance(text, str)
        if name in CODES:
            assert text in CODES[name]
        else:
            assert 0 < len(text) <= INCIDENT[name], name
    assert not CONTROL.search(record["short_description"])
    assert not CONTROL.search(record.get("description", "").replace("\n", ""))
    assert (record.get("state") == "6") == ("close_code" in record) == ("close_notes" in record)
    return record


def alert(**overrides: Any) -> Alert:
    made = understand(encoded(defender_alert()))
    made.subscription = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production")
    return msgspec.structs.replace(made, **overrides)


def example(name: str, **overrides: Any) -> Alert:
    return understand(encoded(EXAMPLES[name].record(**overrides)))


def test_an_event() -> None:
    record = defender_alert()
    assert event(alert()) == {
        "source": "Microsoft Defender for Cloud",
        "event_class": "22222222-0000-4000-8000-000000000002",
        "node": "shop-vm-1",
        "resource": "curl",
        "type": "defender_alert",
        "metric_name": "VM_SuspiciousDownload",
        "message_key": record["SystemAlertId"],
        "severity": "2",
        "resolution_state": "New",
        "time_of_event": "2026-03-04 10:13:14",
        "description": f"{record['AlertDisplayName']}\n{record['Description']}",
        "additional_info": {
            "severity": "High",
            "status": "New",
            "link": record["AlertUri"],
            "activity": "2026-03-04 10:11:12 to 2026-03-04 10:12:00",
            "resource": "shop-vm-1",
            "subscription": f"{SUBSCRIPTION} (Shop; ann@example.com)",
            "tactics": "Persistence, CredentialAccess",
            "machines": "shop-vm-1",
            "accounts": "SHOP-VM-1\\svc-web",
            "addresses": "203.0.113.7",
            "hashes": "0a" * 16,
            "remediation": "Ask the machine's owner.\nIsolate the machine.",
            "resources": RESOURCE,
            "type": "VM_SuspiciousDownload",
            "kind": "defender_alert",
            "id": record["SystemAlertId"],
            "event": alert().event_id,
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "workspace_subscription_id": "99999999-0000-4000-8000-000000000001",
            "resource_type": "Virtual Machine",
        },
    }


def test_an_incident() -> None:
    record = defender_alert()
    assert incident(alert()) == {
        "short_description": record["AlertDisplayName"],
        "description": "\n".join(
            [
                f"Description: {record['Description']}",
                "Severity: High",
                "Status: New",
                f"Link: {record['AlertUri']}",
                "Time: 2026-03-04 10:13:14 GMT",
                "Activity: 2026-03-04 10:11:12 to 2026-03-04 10:12:00",
                "Resource: shop-vm-1",
                f"Subscription: {SUBSCRIPTION} (Shop; ann@example.com)",
                "Tactics: Persistence, CredentialAccess",
                "Machines: shop-vm-1",
                "Accounts: SHOP-VM-1\\svc-web",
                "Addresses: 203.0.113.7",
                f"Hashes: {'0a' * 16}",
                "Remediation: Ask the machine's owner.",
                "    Isolate the machine.",
                f"Resources: {RESOURCE}",
                "Type: VM_SuspiciousDownload",
                "Kind: defender_alert",
                f"Id: {record['SystemAlertId']}",
                f"Event: {alert().event_id}",
            ]
        ),
        "correlation_id": record["SystemAlertId"],
        "correlation_display": "Microsoft Defender for Cloud",
        "impact": "1",
        "urgency": "2",
        "severity": "1",
        "category": "security",
        "state": "1",
    }


def test_a_security_incident_has_no_state_of_ours_but_says_what_became_of_it() -> None:
    made = incident(alert(status="resolved", status_original="Resolved"), table="sn_si_incident")
    assert not {"state", "category", "close_code", "close_notes"} & set(made)
    assert made["work_notes"] == "Microsoft Defender for Cloud: Resolved, 2026-03-04 10:13:14 GMT"
    named = FORMATS["servicenow_security_incident"].say(alert())
    assert named == servicenow_incident(alert(), table="sn_si_incident")


@pytest.mark.parametrize(
    ("word", "event_severity", "priority"),
    [
        ("critical", "1", ("1", "1", "1")),
        ("high", "2", ("1", "2", "1")),
        ("medium", "3", ("2", "2", "2")),
        ("low", "4", ("2", "3", "3")),
        ("informational", "5", ("3", "3", "3")),
        ("unknown", "4", ("3", "3", "3")),
    ],
)
def test_severities(word: str, event_severity: str, priority: tuple[str, str, str]) -> None:
    assert event(alert(severity=word))["severity"] == event_severity
    made = incident(alert(severity=word))
    assert (made["impact"], made["urgency"], made["severity"]) == priority


def test_a_line_of_a_log_that_says_no_severity_is_information() -> None:
    assert event(example("xdr"))["severity"] == "5"


@pytest.mark.parametrize("status", ["resolved", "dismissed"])
def test_what_is_resolved_clears_and_closes(status: str) -> None:
    cleared = event(alert(status=status))
    assert (cleared["severity"], cleared["resolution_state"]) == ("0", "Closing")
    made = incident(alert(status=status))
    assert made["state"] == "6"
    assert made["close_code"] == (
        "Solution provided" if status == "resolved" else "No resolution provided"
    )


def test_a_healthy_resource_clears() -> None:
    record = EXAMPLES["assessment"].record()
    unhealthy = event(understand(encoded(record)))
    record["properties"]["status"]["code"] = "Healthy"
    healthy = event(understand(encoded(record)))
    assert (unhealthy["severity"], healthy["severity"]) == ("2", "0")
    assert unhealthy["message_key"] == healthy["message_key"]


@pytest.mark.parametrize("name", [name for name, it in EXAMPLES.items() if it.RESOLVED])
def test_the_key_stays_through_updates(name: str) -> None:
    before = EXAMPLES[name].record()
    after = msgspec.json.decode(encoded(before))
    for path, value in EXAMPLES[name].RESOLVED.items():
        place = after
        *parents, last = path.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
    first, last = understand(encoded(before)), understand(encoded(after))
    assert first.event_id != last.event_id
    assert event(first)["message_key"] == event(last)["message_key"]
    assert event(last)["severity"] == "0"
    assert incident(first)["correlation_id"] == incident(last)["correlation_id"]


def test_a_key_that_is_too_long_ends_in_a_hash_of_the_whole() -> None:
    keys = {event(alert(entity="x" * 2000 + end))["message_key"] for end in ("1", "2")}
    assert len(keys) == 2
    assert {len(key) for key in keys} == {1024}
    ids = {incident(alert(entity="x" * 150 + end))["correlation_id"] for end in ("1", "2")}
    assert len(ids) == 2
    assert {len(key) for key in ids} == {100}
    assert event(alert(entity="x" * 1024))["message_key"] == "x" * 1024


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_becomes_a_record(name: str) -> None:
    assert event(example(name))["type"] == name
    assert f"Kind: {name}" in incident(example(name))["description"]


@pytest.mark.parametrize(
    ("name", "node", "resource"),
    [
        ("sub_assessment", "shopimages", "Microsoft.ContainerRegistry/registries"),
        ("security_event", "shop-vm-1.shop.example.com", "whoami.exe"),
        ("entra_log", "LAPTOP-7", "alice@example.com"),
        ("iot_alert", "PLC 7", "Microsoft.Devices/IotHubs"),
    ],
)
def test_which_node_and_what_of_it(name: str, node: str, resource: str) -> None:
    made = event(example(name))
    assert (made["node"], made["resource"]) == (node, resource)


def test_what_must_be_there_is_there_where_the_title_is_blank() -> None:
    blank = alert(title=" \x00", alert_type="\n", product="\u2028")
    assert incident(blank)["short_description"] == "defender_alert"
    assert event(blank)["source"] == "defender_alert"


def test_times_of_0_are_left_out() -> None:
    made = event(alert(event_ms=0, start_ms=0, end_ms=0))
    assert "time_of_event" not in made
    assert "activity" not in made["additional_info"]
    description = incident(alert(event_ms=0, start_ms=0, end_ms=0))["description"]
    assert "Time:" not in description
    assert "1970" not in description


def test_long_texts_are_cut_to_their_fields() -> None:
    long = "x" * 10_000
    made = event(alert(title=long, description=long, product=long, resource=long, alert_type=long))
    assert len(made["description"]) == 4000
    assert {len(made[name]) for name in ("source", "metric_name")} == {100}
    record = incident(alert(title=long, description=long))
    assert len(record["short_description"]) == 160
    assert "Severity: High\n" in record["description"]  # one long fact leaves room for others


@pytest.mark.parametrize("character", ['"', "\\", "\x01", "\U0001f600"])
def test_the_longest_record_is_within_its_bytes(character: str) -> None:
    long = character * 20_000
    texts = ("entity", "title", "description", "resource", "product", "alert_type", "link")
    longest = alert(**dict.fromkeys(texts, long), status="resolved", status_original=long)
    for name in ("servicenow_event", "servicenow_incident", "servicenow_security_incident"):
        assert len(FORMATS[name].say(longest)) <= (FORMATS[name].max_bytes or 0)


def test_what_does_not_fit_beside_the_rest_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Details(
        entities=(Entity(type="host", name="pc-1"),),
        attributes={f"name_{n}": "v" * 300 for n in range(200)},
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    facts = event(alert())["additional_info"]
    assert facts["machines"] == "pc-1"
    assert "name_0" in facts
    assert "name_199" not in facts


@pytest.mark.parametrize("text", [*hostile(), "a\nSeverity: Informational\nStatus: Resolved"])
def test_hostile_text_forges_no_fact(text: str) -> None:
    made = alert(title=text, description=text, resource=text, alert_type=text)
    facts = incident(made)["description"].split("\n")
    assert [line for line in facts if line.startswith("Severity: ")] == ["Severity: High"]
    assert [line for line in facts if line.startswith("Status: ")] == ["Status: New"]
    event(made)


@given(alerts())
def test_any_alert_becomes_records_within_their_limits(alert: Alert) -> None:
    event(alert)
    incident(alert)
    incident(alert, table="sn_si_incident")


def test_every_sample_becomes_records_within_their_limits(shared: Path) -> None:
    for file in sorted((shared / "samples").glob("*/*")):
        for alert in parsed(file.read_bytes())[0]:
            event(alert)
            incident(alert)
