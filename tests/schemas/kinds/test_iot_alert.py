from __future__ import annotations

from typing import Any

import pytest

import schemas.kinds
from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, recognise, understand
from tests.examples import encoded
from tests.examples.iot_alert import ENTITIES, HUB, PROPERTIES, record
from tests.fixtures import SUBSCRIPTION, WORKSPACE_SUBSCRIPTION, defender_alert, security_alert
from tests.schemas.kinds import told

MAC = "00:00:5e:00:53:07"


def read(**overrides: object) -> Alert:
    return understand(encoded(record(**overrides)))


def mentioned(**overrides: object) -> Details:
    return details(read(**overrides))


def properties(**overrides: object) -> str:
    return encoded(PROPERTIES | overrides).decode()


def exported(**overrides: object) -> dict[str, Any]:
    """As continuous export would write it."""
    return defender_alert(
        ProductName="Microsoft Defender for IoT",
        Entities=ENTITIES,
        ExtendedProperties=PROPERTIES,
        AzureResourceId=HUB,
        **overrides,
    )


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "iot_alert",
        "entity": record()["SystemAlertId"],
        "version": "New 2026-03-04T10:19:59.1Z cccccccc-7777-4222-8333-444455556666",
        "title": "Unauthorized PLC Programming",
        "description": record()["Description"],
        "severity": "high",
        "severity_original": "High",
        "status": "new",
        "status_original": "New",
        "event_ms": 1772619600123,
        "start_ms": 1772617800500,
        "end_ms": 1772618700000,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (HUB,),
        "resource": "PLC 7",
        "tactics": ("Persistence",),
        "techniques": ("T0839",),
        "product": "Azure Security Center for IoT",
        "alert_type": "IoT_UnauthorizedPLCProgramming",
        "link": record()["AlertLink"],
    }


def test_details() -> None:
    found = mentioned()
    assert found.related == (record()["VendorOriginalId"],)
    assert found.attributes == {
        "provider": "IoTSecurity",
        "component": "POLICY_VIOLATION",
        "workspace_id": record()["TenantId"],
        "workspace_subscription_id": WORKSPACE_SUBSCRIPTION,
        "remediation": "Ask the plant.",
        "sensor": "sensor-north-1",
        "site": "Plant North",
        "zone": "Packaging",
        "protocol": "Modbus",
        "port": "502",
        "source_device": "Laptop 3",
        "source_ip": "10.7.0.99",
        "destination_device": "PLC 7",
        "destination_mac": MAC,
        "device_id": "plc-7-id",
        "category": "Unauthorized programming",
        "is_new": "True",
        "management_uri": PROPERTIES["AlertManagementUri"],
    }
    assert [(it.type, it.full_name, it.role) for it in found.entities] == [
        ("device", "PLC 7", "target"),
        ("resource", "h", ""),
        ("ip", "10.7.0.7", ""),
        ("ip", "10.7.0.99", "source"),
        ("device", "Laptop 3", "source"),
    ]
    assert found.hosts == ("PLC 7", "Laptop 3")
    assert found.entities[0].attributes["MacAddress"] == MAC


def test_a_device_is_known_by_its_address() -> None:
    found = mentioned(
        CompromisedEntity="",
        ExtendedProperties=properties(
            SourceDevice="", SourceDeviceAddress="10.7.0.7", DestinationDevice=None
        ),
    )
    assert [(it.name, it.role) for it in found.of("device")] == [("PLC 7", "source")]
    assert found.attributes["source_ip"] == "10.7.0.7"


def test_a_device_without_a_name_has_its_mac() -> None:
    found = mentioned(
        Entities="[]",
        CompromisedEntity="",
        ExtendedProperties=properties(DestinationDevice="", SourceDevice="10.7.0.99"),
    )
    assert tuple(found.of("ip", "device")) == (
        Entity(type="ip", name="10.7.0.99", role="source"),
        Entity(type="device", name=MAC, role="target", attributes={"MacAddress": MAC}),
    )


def test_sensor_and_protocol_may_stand_at_the_device_only() -> None:
    said = mentioned(ExtendedProperties="{}").attributes
    assert (said["sensor"], said["zone"], said["site"]) == (
        *("sensor-north-1", "Packaging", "Plant North"),
    )
    assert said["protocol"] == "Modbus, S7"


def test_the_agent_on_a_device_names_users_and_addresses() -> None:
    found = mentioned(
        ExtendedProperties={
            "Full Source Address": '["10.165.12.18:"]',
            "User Names": '["mallory"]',
            "DeviceId": "linux-1",
        }
    )
    assert found.users == ("mallory",)
    assert "10.165.12.18" in found.ips
    assert found.attributes["device_id"] == "linux-1"


@pytest.mark.parametrize(
    "overrides",
    [
        {"ProviderName": None},
        {"ProductName": "Microsoft Defender for IoT", "ProviderName": "x"},
        {"ProductName": None},
        {"ProductName": ""},
        {"Type": None},
    ],
)
def test_product_or_provider_tell(overrides: dict[str, object]) -> None:
    assert read(**overrides).kind == "iot_alert"


@pytest.mark.parametrize(
    "overrides",
    [{"ProductName": "x", "ProviderName": "y"}, {"ProductName": "Patriot", "ProviderName": None}],
)
def test_other_products_are_other_kinds(overrides: dict[str, object]) -> None:
    assert read(**overrides).kind == "security_alert"


def test_continuous_export_is_understood_too() -> None:
    alert = understand(encoded(exported()))
    assert (alert.kind, alert.severity, alert.resource_ids) == ("iot_alert", "high", (HUB,))
    assert alert.title == "Suspicious download by a system account"
    assert (alert.event_ms, alert.start_ms, alert.end_ms) == (
        *(1772619194987, 1772619072123, 1772619120500),
    )
    assert alert.tactics == ("Persistence", "CredentialAccess")
    assert alert.link == exported()["AlertUri"]
    assert details(alert).attributes["sensor"] == "sensor-north-1"
    assert understand(encoded(exported(RemediationSteps=[]))).key != alert.key


@pytest.mark.parametrize(("usual", "other"), [(security_alert, record), (defender_alert, exported)])
def test_a_kind_with_the_same_columns_hands_it_over(usual: Any, other: Any) -> None:
    schemas.kinds._hints.clear()
    wanted = understand(encoded(other()))
    schemas.kinds._hints.clear()
    understand(encoded(usual()))
    first = next(iter(usual()))
    raw = encoded({first: other()[first]} | other())
    alert = recognise(raw)
    assert alert is not None
    assert (alert.kind, alert.entity) == ("iot_alert", wanted.entity)


def test_the_subscription_may_stand_elsewhere() -> None:
    effective = {"EffectiveSubscriptionId": SUBSCRIPTION.upper()}
    assert read(ResourceId=None, ExtendedProperties=effective).subscription_id == SUBSCRIPTION
    link = f"https://portal/#x/subscriptionId/{SUBSCRIPTION}/y"
    assert read(ResourceId=None, AlertLink=link).subscription_id == SUBSCRIPTION
    assert read(ResourceId=None).subscription_id == ""
