from __future__ import annotations

from pathlib import Path

import pytest

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples.graph_alert_v1 import record
from tests.fixtures import RESOURCE, SUBSCRIPTION
from tests.schemas.kinds import samples, told


def read(**overrides: object) -> Alert:
    return understand(encoded(record(**overrides)))


def mentioned(**overrides: object) -> Details:
    return details(read(**overrides))


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "graph_alert_v1",
        "entity": record()["id"],
        "version": "2026-03-04T10:20:00.5Z",
        "title": "Suspicious download",
        "description": "Somebody fetched a file and started it.",
        "severity": "medium",
        "severity_original": "medium",
        "status": "new",
        "status_original": "newAlert",
        "event_ms": 1772619072123,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "SHOP-VM-1",
        "product": "ASC",
        "alert_type": "SuspiciousDownload",
        "link": "https://portal.azure.com/#alert",
    }


def test_details() -> None:
    found = mentioned()
    assert found.related == ("4711", "d-1")
    assert found.attributes == {
        "tenant_id": record()["azureTenantId"],
        "category": "SuspiciousDownload",
        "provider": "ASC",
        "component": "Detection",
        "activity_group": "Storm-0000",
        "confidence_score": "90",
        "classification": "truePositive",
        "owner": "sam@corp.example",
        "labels": "HVA",
        "links": "https://portal.azure.com/#alert",
        "remediation": "Ask the owner.\nIsolate the machine.",
        "created": "2026-03-04T10:13:14.9876543Z",
        "comments": "1",
    }
    assert [(it.type, it.full_name, it.role, it.port) for it in found.entities] == [
        ("host", "shop-vm-1.corp.example", "", ""),
        ("ip", "10.0.0.7", "source", "40000"),
        ("user", "ann@corp.example", "target", ""),
        ("ip", "203.0.113.9", "source", ""),
        ("file", "/tmp/x.sh", "", ""),
        ("process", "/usr/bin/curl", "", ""),
        ("user", "svc-web", "", ""),
        ("ip", "192.0.2.1", "source", ""),
        ("ip", "203.0.113.7", "target", "80"),
        ("domain", "evil.example", "target", ""),
        ("url", "http://evil.example/x", "target", ""),
        ("registry", "x", "", ""),
        ("malware", "Odd.A", "", ""),
        ("application", "Office 365", "", ""),
        ("ip", "203.0.113.10", "target", ""),
        ("message", "Invoice", "", ""),
        ("ip", "203.0.113.8", "source", ""),
        ("other", "CVE-2026-0001", "", ""),
    ]
    assert found.hashes == ("2c" * 32,)
    process = next(found.of("process"))
    assert (process.pid, process.parent_pid) == ("8000", "1")


def test_states_as_a_string() -> None:
    states = encoded([{"netBiosName": "PC-1"}]).decode()
    alert = read(hostStates=states)
    assert alert.resource == "PC-1"
    assert "PC-1" in details(alert).hosts


def test_a_vendor_whose_fields_were_flattened() -> None:
    flat = record(vendorInformation_provider="MCAS", vendorInformation_subProvider="x")
    del flat["vendorInformation"]
    alert = understand(encoded(flat))
    assert (alert.kind, alert.product, alert.vendor) == ("graph_alert_v1", "MCAS", "Microsoft")
    assert details(alert).attributes["component"] == "x"


def test_an_account_without_a_full_principal_name() -> None:
    state = {"accountName": "pc-1$", "domainName": "WORKGROUP", "userPrincipalName": "pc-1$@PC-1"}
    assert mentioned(userStates=[state], processes=None).users == ("WORKGROUP\\pc-1$",)
    assert mentioned(userStates=[{"userPrincipalName": "a@b"}], processes=None).users == ("a@b",)


@pytest.mark.parametrize(
    ("overrides", "subscription"),
    [
        ({"azureSubscriptionId": None}, SUBSCRIPTION),
        ({"azureSubscriptionId": "", "securityResources": []}, ""),
    ],
)
def test_subscription(overrides: dict[str, object], subscription: str) -> None:
    assert read(**overrides).subscription_id == subscription


def test_without_the_time_of_the_event() -> None:
    assert read(eventDateTime=None).event_ms == 1772619194987


def test_a_category_may_be_a_tactic() -> None:
    assert read(category="InitialAccess").tactics == ("InitialAccess",)


def test_a_real_alert(shared: Path) -> None:
    (alert,) = samples(shared, "graph_alert_v1")
    assert (alert.kind, alert.product, alert.resource) == ("graph_alert_v1", "ASC", "TEST-WINDOW")
    found = details(alert)
    assert found.hosts == ("TEST-WINDOW",)
    assert [it.name for it in found.of("process")] == ["services.exe", "svchost.exe"]
