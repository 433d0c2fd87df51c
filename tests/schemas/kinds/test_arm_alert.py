from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import changed, encoded, without
from tests.examples._base import PORTAL, RESOURCE, SUBSCRIPTION
from tests.examples.arm_alert import NAME, STORAGE, older, record
from tests.schemas.kinds import reader, samples, told

read = reader(record)


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "arm_alert",
        "entity": NAME,
        "version": "Active 2026-03-04T10:13:14.5Z 8e262c24",
        "title": "Suspected brute force attack",
        "description": "Somebody tried many passwords.",
        "severity": "medium",
        "severity_original": "Medium",
        "status": "new",
        "status_original": "Active",
        "event_ms": 1772619194987,
        "start_ms": 1772619072123,
        "end_ms": 1772619120500,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "shop-vm-1",
        "tactics": ("PreAttack", "CredentialAccess"),
        "techniques": ("T1110", "T1110.001"),
        "product": "Microsoft Defender for Cloud",
        "alert_type": "SQL.VM_BruteForce",
        "link": f"{PORTAL}/Microsoft_Azure_Security/AlertBlade/alertId/{NAME}"
        f"/subscriptionId/{SUBSCRIPTION}/resourceGroup/rg-shop/location/westeurope",
    }


def test_details() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="host", name="shop-vm-1", id=RESOURCE, role="target"),
            Entity(
                type="ip",
                name="203.0.113.7",
                role="source",
                attributes={"countryCode": "NL", "asn": "64500", "Protocol": "Tcp"},
            ),
            Entity(type="user", name="svc-web", domain="SHOP", attributes={"host": "shop-vm-1"}),
        ),
        related=("0a1b2c3d-1111-4222-8333-444455556667",),
        attributes={
            "component": "Databases",
            "correlation_key": "a2V5",
            "resource_type": "SQL Server 2022",
            "remediation": "Ask the machine's owner.\nClose the port.",
            "location": "westeurope",
        },
    )


def test_the_older_version_of_the_api() -> None:
    alert = understand(encoded(older()))
    assert (alert.kind, alert.entity) == ("arm_alert", NAME)
    assert alert.title == "Much data left a storage account"
    assert (alert.severity, alert.severity_original) == ("high", "High")
    assert (alert.status, alert.status_original) == ("new", "Active")
    assert (alert.event_ms, alert.start_ms) == (1772619194103, 1772619072700)
    assert alert.resource_ids == (STORAGE,)
    assert alert.resource == "shopdata"
    assert alert.tactics == ("Exfiltration",)
    assert alert.alert_type == "Storage.Blob_DataExfiltration"
    found = details(alert)
    assert found.ips == ("203.0.113.8",)
    assert list(found.of("resource", "other")) == [
        Entity(type="resource", name="shopdata", id=STORAGE, role="target")
    ]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Active", "new"),
        ("InProgress", "in_progress"),
        ("Resolved", "resolved"),
        ("Dismissed", "dismissed"),
        ("Odd", "unknown"),
    ],
)
def test_status(word: str, status: str) -> None:
    assert read("properties.status", word).status == status


def test_the_same_alert_by_the_export_has_the_same_entity() -> None:
    """Its `SystemAlertId`."""
    assert read("id", "/subscriptions/s/another").entity == NAME


def test_an_alert_without_its_own_id_has_a_name() -> None:
    assert read("properties.systemAlertId").entity == NAME
    nameless = changed(without(record(), "name"), "properties.systemAlertId", None)
    assert understand(encoded(nameless)).entity == record()["id"].lower()


@pytest.mark.parametrize("lost", [(), ("id",), ("id", "properties.resourceIdentifiers")])
def test_the_subscription_is_never_the_workspaces(lost: tuple[str, ...]) -> None:
    it = record()
    for path in lost:
        it = changed(it, path, None)
    assert understand(encoded(it)).subscription_id == SUBSCRIPTION


def test_inner_keys_match_case_blind() -> None:
    it = record()
    it["properties"] = {name.upper(): value for name, value in it["properties"].items()}
    alert = understand(encoded(it))
    assert alert.entity == NAME
    assert alert.event_ms == read().event_ms
    assert details(alert) == details(read())


def test_properties_in_a_string() -> None:
    alert = read("properties", encoded(record()["properties"]).decode())
    assert alert.repairs == ("json_in_string",)
    assert (alert.title, alert.resource_ids) == (read().title, read().resource_ids)
    assert details(alert) == details(read())


@pytest.mark.parametrize("properties", ["", "text", "[1]", "{", 7, [], None])
def test_properties_that_are_none(properties: Any) -> None:
    alert = read("properties", properties)
    assert (alert.entity, alert.title) == (NAME, NAME)
    assert details(alert) == Details(attributes={"location": "westeurope"})


def test_an_answer_of_the_api(shared: Path) -> None:
    (alert,) = samples(shared, "arm_alert_api")
    assert alert.kind == "arm_alert"
    assert alert.event_ms == 1582465678000
    assert alert.techniques[:3] == ("T1059", "T1053", "T1072")
    found = details(alert)
    assert [(it.type, it.name, it.role) for it in found.entities] == [
        ("ip", "192.0.2.1", ""),
        ("host", "vm1", "target"),
    ]
