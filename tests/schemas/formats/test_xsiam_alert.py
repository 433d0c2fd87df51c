from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats import xsiam_alert as module
from schemas.formats.xsiam_alert import xsiam_alert
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fixtures import SUBSCRIPTION, defender_alert, hostile
from tests.strategies import alerts

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def alert(**overrides: Any) -> Alert:
    return msgspec.structs.replace(understand(encoded(defender_alert())), **overrides)


def said(made: Alert, **options: Any) -> dict[str, Any]:
    """An alert in the API's form: its required fields, of their types."""
    parsed: dict[str, Any] = json.loads(xsiam_alert(made, **options))
    for name in ("product", "vendor", "alert_name"):
        assert parsed[name]
        assert not CONTROL.search(parsed[name])
    for name in ("local_ip", "remote_ip"):
        assert not parsed[name] or ipaddress.IPv4Address(parsed[name])
    for name in ("local_ip_v6", "remote_ip_v6"):
        assert ipaddress.IPv6Address(parsed.get(name, "::"))
    for name in ("local_port", "remote_port"):
        assert 0 <= parsed[name] <= 65535
    assert type(parsed["event_timestamp"]) is int
    assert parsed["severity"] in {"Informational", "Low", "Medium", "High", "Unknown"}
    assert not CONTROL.search(parsed["alert_description"].replace("\n", ""))
    return parsed


def found(monkeypatch: pytest.MonkeyPatch, *entities: Entity) -> None:
    monkeypatch.setattr(module, "details", lambda _: Details(entities=entities))


def test_an_alert() -> None:
    record = defender_alert()
    assert said(alert()) == {
        "product": "Microsoft Defender for Cloud",
        "vendor": "Microsoft",
        "local_ip": "203.0.113.7",
        "local_port": 0,
        "remote_ip": "",
        "remote_port": 0,
        "event_timestamp": 1772619194987,
        "severity": "High",
        "alert_name": record["AlertDisplayName"],
        "action_status": "Reported",
        "alert_description": "\n".join(
            [
                f"Description: {record['Description']}",
                "Severity: High",
                "Status: New",
                f"Link: {record['AlertUri']}",
                "Time: 2026-03-04 10:13:14 GMT",
                "Activity: 2026-03-04 10:11:12 to 2026-03-04 10:12:00",
                "Resource: shop-vm-1",
                f"Subscription: {SUBSCRIPTION}",
                "Tactics: Persistence, CredentialAccess",
                "Machines: shop-vm-1",
                "Accounts: SHOP-VM-1\\svc-web",
                "Addresses: 203.0.113.7",
                f"Hashes: {'0a' * 16}",
                "Remediation: Ask the machine's owner. Isolate the machine.",
                f"Resources: {alert().resource_ids[0]}",
                "Type: VM_SuspiciousDownload",
                "Kind: defender_alert",
                f"Id: {record['SystemAlertId']}",
                f"Event: {alert().event_id}",
            ]
        ),
    }


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("unknown", "Unknown"),
        ("informational", "Informational"),
        ("low", "Low"),
        ("medium", "Medium"),
        ("high", "High"),
        ("critical", "High"),
    ],
)
def test_severities(word: str, wanted: str) -> None:
    assert said(alert(severity=word))["severity"] == wanted


def test_both_ends_with_their_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    found(
        monkeypatch,
        Entity(type="ip", name="10.1.2.3", role="source", port="50123"),
        Entity(type="ip", name="2001:db8::1", role="target", port="443"),
    )
    made = said(alert())
    assert (made["local_ip"], made["local_port"]) == ("10.1.2.3", 50123)
    assert (made["remote_ip"], made["remote_ip_v6"], made["remote_port"]) == (
        "",
        "2001:db8::1",
        443,
    )
    assert "local_ip_v6" not in made


def test_no_address_is_made_up_and_what_stands_there_instead_can_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found(monkeypatch, Entity(type="ip", name="not an address", port="http"))
    made = said(alert())
    assert (made["local_ip"], made["remote_ip"]) == ("", "")
    assert (made["local_port"], made["remote_port"]) == (0, 0)
    made = said(alert(), unknown="0.0.0.0")
    assert (made["local_ip"], made["remote_ip"]) == ("0.0.0.0", "0.0.0.0")


def test_a_resource_that_is_an_address_is_where_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch)
    assert said(alert(resource="10.0.0.9"))["remote_ip"] == "10.0.0.9"


def test_an_alert_that_names_nothing_still_has_what_is_required() -> None:
    made = said(Alert(kind="unknown", key=b"k" * 16, entity="", raw=b"{}", enqueued_ms=17))
    assert made["alert_name"] == made["product"] == "unknown"
    assert made["vendor"] == "Microsoft"
    assert made["event_timestamp"] == 17


@pytest.mark.parametrize("text", hostile())
def test_no_text_begins_a_line_of_the_description(text: str) -> None:
    forged = f"{text}\nEvent: {'0' * 32}\r\nEvent: {'0' * 32}"
    made = said(alert(title=forged, description=forged, resource=forged, entity=forged))
    lines = made["alert_description"].split("\n")
    assert lines[-1] == f"Event: {alert().event_id}"
    assert [line for line in lines if line.startswith("Event: ")] == lines[-1:]


@pytest.mark.parametrize("most", [10, 60, 300, 1_000, 24_000])
def test_the_last_lines_stand_whatever_is_cut_before_them(most: int) -> None:
    long = "ünïcödé\n" * 20_000
    made = said(alert(description=long), most=most)
    assert made["alert_description"].split("\n")[-2:] == [
        f"Id: {alert().entity}",
        f"Event: {alert().event_id}",
    ]
    kept = len(made["alert_description"].encode())
    assert kept <= max(most, 120)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_has_the_form(name: str) -> None:
    said(understand(encoded(EXAMPLES[name].record())))


@given(alert=alerts())
def test_any_alert_has_the_form(alert: Alert) -> None:
    made = said(alert)
    assert made["alert_description"].endswith(f"Event: {alert.event_id}")
