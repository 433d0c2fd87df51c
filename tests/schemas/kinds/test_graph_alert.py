from __future__ import annotations

from pathlib import Path

import pytest

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples.graph_alert import evidence, record
from tests.fixtures import RESOURCE, SUBSCRIPTION
from tests.schemas.kinds import samples, told

SHA1, SHA256 = "1b" * 20, "2c" * 32


def read(**overrides: object) -> Alert:
    return understand(encoded(record(**overrides)))


def mentioned(**overrides: object) -> Details:
    return details(read(**overrides))


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "graph_alert",
        "entity": "ed0000000000000000_1",
        "version": "2026-03-04T10:20:00.5Z",
        "title": "A hidden file was started",
        "description": "Somebody started a hidden file.",
        "severity": "medium",
        "severity_original": "medium",
        "status": "new",
        "status_original": "new",
        "event_ms": 1772619194987,
        "start_ms": 1772619072123,
        "end_ms": 1772619120500,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE, f"{RESOURCE}/extensions/x"),
        "resource": "pc-1.corp.example",
        "tactics": ("DefenseEvasion",),
        "techniques": ("T1564.001", "T1204"),
        "product": "Microsoft Defender for Endpoint",
        "alert_type": record()["detectorId"],
        "link": record()["alertWebUrl"],
    }


def test_details() -> None:
    found = mentioned()
    assert found.related == (record()["providerAlertId"], "4711")
    assert found.attributes == {
        "tenant_id": record()["tenantId"],
        "incident_id": "4711",
        "incident_link": record()["incidentWebUrl"],
        "category": "DefenseEvasion",
        "provider": "microsoftDefenderForEndpoint",
        "detection_source": "antivirus",
        "detector_id": record()["detectorId"],
        "policy_id": record()["alertPolicyId"],
        "owner": "sam@corp.example",
        "activity_group": "Storm-0000",
        "threat": "Odd.A",
        "threat_family": "Odd",
        "investigation": "running",
        "system_tags": "Defender Experts",
        "remediation": "Look at the machine.",
        "updated": "2026-03-04T10:20:00.5Z",
        "comments": "1",
    }
    assert [(it.type, it.full_name or it.path, it.role) for it in found.entities] == [
        ("host", "pc-1.corp.example", "target"),
        ("ip", "10.0.0.7", ""),
        ("user", "CORP\\bob", ""),
        ("resource", "shop-vm-1", ""),
        ("user", "ann@corp.example", "actor"),
        ("file", "C:\\Temp\\odd.exe", ""),
        ("process", "C:\\Temp\\odd.exe", ""),
        ("file", "C:\\Windows\\cmd.exe", ""),
        ("ip", "203.0.113.7", "source"),
        ("url", "https://evil.example/x", ""),
        ("message", "Invoice", ""),
        ("mailbox", "ann@corp.example", "target"),
        ("ip", "203.0.113.8", "source"),
        ("url", "https://evil.example/y", ""),
        ("mailbox", "eve@evil.example", "source"),
        ("registry", "odd", ""),
        ("application", "Office 365", ""),
        ("resource", "x", ""),
        ("group", "Ops", ""),
    ]
    process = next(found.of("process"))
    assert (process.pid, process.parent_pid, process.command_line) == (
        *("4780", "668", "odd.exe -q"),
    )
    assert process.hashes == (SHA1, SHA256)
    assert found.hashes == (SHA1, SHA256)
    assert found.users == ("CORP\\bob", "ann@corp.example", "eve@evil.example")


def test_an_alert_is_told_without_its_type() -> None:
    rest = record()
    del rest["@odata.type"]
    assert understand(encoded(rest)).kind == "graph_alert"
    assert read(**{"@odata.type": "#microsoft.graph.security.other"}).kind != "graph_alert"


@pytest.mark.parametrize(
    ("word", "status"),
    [("new", "new"), ("inProgress", "in_progress"), ("unknownFutureValue", "unknown")],
)
def test_status(word: str, status: str) -> None:
    assert (read(status=word).status, read(status=word).status_original) == (status, word)


@pytest.mark.parametrize(
    ("source", "product"),
    [
        ("microsoftDefenderForCloud", "Microsoft Defender for Cloud"),
        ("microsoftDefenderForIoT", "Microsoft Defender for IoT"),
        ("azureAdIdentityProtection", "Microsoft Entra ID Protection"),
        ("microsoftSentinel", "Microsoft Sentinel"),
        ("unknown", "Microsoft Defender XDR"),
    ],
)
def test_product(source: str, product: str) -> None:
    assert read(productName=None, serviceSource=source).product == product


@pytest.mark.parametrize("category", ["Malware", "Ransomware", None, ""])
def test_a_category_that_is_no_tactic(category: str | None) -> None:
    assert read(category=category).tactics == ()


def test_techniques_as_a_string() -> None:
    assert read(mitreTechniques='["T1059"]').techniques == ("T1059",)
    assert read(mitreTechniques="T1059").techniques == ("T1059",)
    assert read(mitreTechniques=None).techniques == ()


def test_resources_are_only_those_that_evidence_names_so() -> None:
    odd = [
        evidence("azureResource", resourceId=RESOURCE),
        evidence("azureResource", ResourceID=RESOURCE.upper()),
        evidence("process", processCommandLine='x "resourceId":"/subscriptions/1/y"'),
        evidence("url", url="/subscriptions/2"),
        evidence("kubernetesCluster", cloudResource={"resourceId": "/subscriptions/3/a\\b"}),
    ]
    alert = read(evidence=odd)
    assert alert.resource_ids == (RESOURCE, "/subscriptions/3/a\\b")
    assert alert.resource == "shop-vm-1"
    assert read(evidence="none").resource_ids == ()
    assert read(evidence=[{"deviceDnsName": 7}]).resource == ""


def test_an_alert_that_its_provider_calls_the_same_is_not_related() -> None:
    assert mentioned(providerAlertId=record()["id"].upper(), incidentId=None).related == ()


def test_real_alerts(shared: Path) -> None:
    found = list(samples(shared, "graph_alert_v2"))
    assert {alert.kind for alert in found} == {"graph_alert"}
    assert all(alert.event_ms and alert.start_ms is not None for alert in found)
    hosts = {name for alert in found for name in details(alert).hosts}
    assert hosts == {"tempDns", "host1.example.com"}
