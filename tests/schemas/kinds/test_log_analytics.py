from __future__ import annotations

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import _base, details, understand
from tests.examples import encoded
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.log_analytics import record
from tests.schemas.kinds import told


def test_every_field() -> None:
    assert told(understand(encoded(record()))) == {
        "kind": "log_analytics",
        "entity": "cccccccc-1111-4222-8333-444455556666",
        "title": "Gateway_CL: FileUploaded",
        "description": "A file was uploaded.",
        "severity": "medium",
        "severity_original": "Medium",
        "event_ms": 1772619600765,
        "start_ms": 1772619590000,
        "end_ms": 1772619595000,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "gw-1.corp.example",
        "vendor": "Example",
        "product": "Gateway",
        "alert_type": "Gateway_CL/FileUploaded",
    }


def test_every_detail() -> None:
    assert details(understand(encoded(record()))) == Details(
        entities=(
            Entity(type="host", name="gw-1", domain="corp.example"),
            Entity(type="host", name="pc-7", role="source"),
            Entity(type="host", name="files-1", domain="corp.example", role="target"),
            Entity(
                type="user", name="mallory", domain="CORP", id="S-1-5-21-1-2-3-1105", role="actor"
            ),
            Entity(type="user", name="svc", domain="example.com", role="target"),
            Entity(type="ip", name="10.0.0.7", port="50123", role="source"),
            Entity(type="ip", name="198.51.100.80", port="443", role="target"),
            Entity(type="url", name="https://files.example.net/up", role="target"),
            Entity(
                type="process",
                name="up.exe",
                path="C:\\Tools",
                command_line="up.exe a",
                pid="4711",
                role="actor",
            ),
            Entity(type="file", name="a.zip", path="C:\\Temp", hashes=("a" * 64,)),
            Entity(type="resource", name="shop-vm-1", id=RESOURCE),
            Entity(type="application", id="dddddddd-0000-4000-8000-00000000000d"),
            Entity(type="domain", name="files.example.net"),
        ),
        action="FileUploaded",
        outcome="success",
        attributes={
            "table": "Gateway_CL",
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "category": "Audit",
            "event_severity": "Medium",
            "bytes_d": "1024",
        },
    )


def test_a_row_of_which_only_the_table_is_known() -> None:
    alert = understand(encoded({"TimeGenerated": "2026-03-04T10:20:00Z", "Type": "Heartbeat"}))
    assert (alert.kind, alert.title, alert.alert_type) == (
        *("log_analytics", "Heartbeat", "Heartbeat"),
    )
    assert alert.event_ms == 1772619600000
    assert alert.entity == _base.body_hash(alert.raw)
    assert details(alert) == Details(attributes={"table": "Heartbeat"})


@pytest.mark.parametrize("missing", ["Type", "TimeGenerated"])
def test_a_row_says_its_table_and_its_time(missing: str) -> None:
    row = {"TimeGenerated": "2026-03-04T10:20:00Z", "Type": "Heartbeat", "Computer": "pc-7"}
    del row[missing]
    assert understand(encoded(row)).kind != "log_analytics"


@pytest.mark.parametrize(
    ("columns", "severity"),
    [
        ({"Level": "Error"}, "medium"),
        ({"Level": 4}, "informational"),
        ({"SeverityLevel": "warning"}, "low"),
        ({"Severity": "High", "Level": "Informational"}, "high"),
        ({"LogLevel": "chatty"}, "unknown"),
    ],
)
def test_levels_are_severities(columns: dict[str, object], severity: str) -> None:
    row = {"TimeGenerated": "2026-03-04T10:20:00Z", "Type": "AppTraces"} | columns
    assert understand(encoded(row)).severity == severity


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"Account": "CORP\\alice"}, "user CORP\\alice"),
        ({"UserPrincipalName": "alice@example.com"}, "user alice@example.com"),
        ({"CallerIpAddress": "203.0.113.9:443"}, "ip 203.0.113.9"),
        ({"clientIP_s": "203.0.113.9"}, "ip 203.0.113.9"),
        ({"Computer": "10.0.0.7"}, "ip 10.0.0.7"),
        ({"requestUri_s": "/login"}, "url /login"),
        ({"ResourceId": RESOURCE}, "resource shop-vm-1"),
        ({"ResourceId": "00000003-0000-0000-c000-000000000000"}, None),
        ({"IPAddress": "unknown", "Computer": "-"}, None),
    ],
)
def test_usual_columns_are_read_in_any_table(columns: dict[str, str], expected: str | None) -> None:
    row = {"TimeGenerated": "2026-03-04T10:20:00Z", "Type": "AzureDiagnostics"} | columns
    found = details(understand(encoded(row))).entities
    assert [f"{it.type} {it.full_name}" for it in found] == ([expected] if expected else [])
