"""No real row in export shape was found: these are made from the table's reference."""

from __future__ import annotations

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.common_security_log import record
from tests.schemas.kinds import told


def test_every_field() -> None:
    assert told(understand(encoded(record()))) == {
        "kind": "common_security_log",
        "entity": "cccccccc-1111-4222-8333-444455556666",
        "title": "Malware download blocked",
        "description": "A download was blocked.",
        "severity": "high",
        "severity_original": "8",
        "event_ms": 1772619600765,
        "start_ms": 1772619590000,
        "end_ms": 1772619595000,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "fw-1.corp.example",
        "vendor": "Example Networks",
        "product": "Firewall",
        "alert_type": "THREAT-9",
    }


def test_every_detail() -> None:
    assert details(understand(encoded(record()))) == Details(
        entities=(
            Entity(
                type="host",
                name="pc-7",
                domain="corp.example",
                role="source",
                attributes={"MACAddress": "02:00:00:00:00:07"},
            ),
            Entity(type="ip", name="10.0.0.7", port="50123", role="source"),
            Entity(type="ip", name="203.0.113.7", port="61000", role="source"),
            Entity(
                type="user", name="mallory", domain="CORP", id="S-1-5-21-1-2-3-1105", role="actor"
            ),
            Entity(type="process", name="curl", pid="4711", role="actor"),
            Entity(type="host", name="cdn", domain="files.example.net", role="target"),
            Entity(type="ip", name="198.51.100.80", port="443", role="target"),
            Entity(type="user", name="svc", domain="example.net", role="target"),
            Entity(type="host", name="fw-1", domain="corp.example"),
            Entity(type="ip", name="10.0.0.254"),
            Entity(type="process", name="sslproxy", pid="12"),
            Entity(type="file", name="evil.exe", path="/tmp", hashes=("a" * 64,), role="target"),
            Entity(type="file", name="evil.tmp", role="source"),
            Entity(type="url", name="https://cdn.files.example.net/evil.exe", role="target"),
            Entity(type="resource", name="shop-vm-1", id=RESOURCE),
        ),
        action="reset-both",
        outcome="success",
        related=("7001",),
        attributes={
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "source_system": "OpsManager",
            "receipt_time": "Mar 04 2026 10:19:58",
            "device_version": "10.1",
            "category": "threat",
            "original_log_severity": "high",
            "simplified_device_action": "Deny",
            "collector_host_name": "collector-1",
            "protocol": "TCP",
            "user_agent": "curl/8",
            "additional_extensions": "PanOSDGl1=7",
        },
    )


@pytest.mark.parametrize(
    ("written", "severity"),
    [
        ("0", "low"),
        ("3", "low"),
        (4, "medium"),
        ("6", "medium"),
        ("7", "high"),
        ("9", "critical"),
        ("10", "critical"),
        ("11", "unknown"),
        ("-1", "unknown"),
        ("¹", "unknown"),
        ("Medium", "medium"),
        ("Very-High", "critical"),
        ("Unknown", "unknown"),
        (None, "unknown"),
    ],
)
def test_severity_is_a_word_or_a_number_of_cef(written: object, severity: str) -> None:
    alert = understand(encoded(record(LogSeverity=written)))
    assert alert.severity == severity
    assert alert.severity_original == ("" if written is None else str(written))


def test_empty_columns_are_left_out_by_the_export() -> None:
    row = {"Type": "CommonSecurityLog", "TimeGenerated": "2026-03-04T10:20:00Z"}
    alert = understand(encoded(row))
    assert (alert.title, alert.vendor, alert.event_ms) == (
        *("CommonSecurityLog", "", 1772619600000),
    )
    assert details(alert).entities == ()


def test_a_host_that_is_called_by_its_address_is_one() -> None:
    alert = understand(encoded(record(SourceHostName="10.0.0.7")))
    assert "10.0.0.7" not in details(alert).hosts
    assert "10.0.0.7" in details(alert).ips
