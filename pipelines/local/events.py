"""Events as Microsoft's services put them on a hub, made up: for the demo, tests and benchmarks.

Shapes follow what the services document and emit; every name, id and address is invented (the
addresses are from the ranges reserved for documentation, RFC 5737).
"""

from __future__ import annotations

import datetime
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = [
    "SUBSCRIPTIONS",
    "Made",
    "defender_alert",
    "ot_alert",
    "process",
    "recommendation",
    "security_alert",
    "security_incident",
    "sign_in",
    "varied",
]

SUBSCRIPTIONS = {
    "11111111-aaaa-4aaa-8aaa-000000000001": ("Retail production", "retail-oncall", "production"),
    "11111111-aaaa-4aaa-8aaa-000000000002": ("Retail test", "retail-oncall", "test"),
    "11111111-aaaa-4aaa-8aaa-000000000003": ("Payments production", "payments", "production"),
    "11111111-aaaa-4aaa-8aaa-000000000004": ("Plant floor", "ot-security", "production"),
}
"""Subscription id → name, owner, environment."""

_TENANT = "33333333-aaaa-4aaa-8aaa-000000000003"
_UNKNOWN_SUBSCRIPTION = "99999999-aaaa-4aaa-8aaa-000000000009"

_ALERTS = (
    ("VM_SuspiciousLogin", "Login from a suspicious IP", "High", "InitialAccess", "T1078"),
    ("VM_CryptoMiner", "Digital currency mining behaviour detected", "High", "Execution", "T1496"),
    ("SQL_Injection", "A possible SQL injection", "Medium", "PreAttack", "T1190"),
    ("Storage_TorAccess", "Access from a Tor exit node to a blob", "Medium", "Probing", "T1090"),
    ("K8S_ExposedDashboard", "Exposed Kubernetes dashboard", "Low", "Persistence", "T1133"),
    (
        "KV_UnusualAccess",
        "Unusual user accessed a key vault",
        "Informational",
        "Discovery",
        "T1555",
    ),
)

_HOSTILE = (
    "Line one\r\n<134>1 2026-01-01T00:00:00Z forged forged - - - forged event",
    "CEF:0|Evil|Forged|1.0|1|forged|10|src=203.0.113.9",
    'pipes | equals = backslash \\ quote " bracket ] <script>alert(1)</script>',
    "\x1b[2J\x1b[31mterminal escape\x07 \u2028 separator \u0085 next line",
)


class Made(NamedTuple):
    """A body to publish and what it is: `id` is the alert's own, or None where it has none."""

    body: bytes
    what: str
    id: str | None = None


def _time(at: datetime.datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}0Z"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def defender_alert(rng: random.Random, at: datetime.datetime, **changes: Any) -> dict[str, Any]:
    """A Defender for Cloud alert of continuous export: about 2.6 KB as JSON."""
    kind, title, severity, intent, technique = rng.choice(_ALERTS)
    subscription = rng.choice((*SUBSCRIPTIONS, *SUBSCRIPTIONS, _UNKNOWN_SUBSCRIPTION))
    machine = f"vm-{rng.randrange(40):02d}"
    resource = (
        f"/subscriptions/{subscription}/resourceGroups/rg-{rng.randrange(9)}"
        f"/providers/Microsoft.Compute/virtualMachines/{machine}"
    )
    identity = f"25{rng.randrange(10**17):017d}_{uuid.UUID(int=rng.getrandbits(128), version=4)}"
    address = f"203.0.113.{rng.randrange(1, 255)}"
    return {
        "VendorName": "Microsoft",
        "AlertType": kind,
        "ProductName": "Microsoft Defender for Cloud",
        "StartTimeUtc": _time(at - datetime.timedelta(seconds=90)),
        "EndTimeUtc": _time(at - datetime.timedelta(seconds=80)),
        "TimeGenerated": _time(at),
        "ProcessingEndTime": _time(at),
        "Severity": severity,
        "Status": "New",
        "ProviderAlertStatus": None,
        "ConfidenceLevel": None,
        "ConfidenceScore": None,
        "ConfidenceReasons": None,
        "IsIncident": False,
        "SystemAlertId": identity,
        "CorrelationKey": None,
        "Intent": intent,
        "Techniques": technique,
        "AzureResourceId": resource,
        "WorkspaceId": None,
        "WorkspaceSubscriptionId": None,
        "WorkspaceResourceGroup": None,
        "AgentId": None,
        "CompromisedEntity": machine,
        "AlertDisplayName": title,
        "Description": f"{title} on {machine}, from {address}. " + "Details follow. " * 12,
        "Entities": [
            {"$id": "2", "Address": address, "Asset": False, "Type": "ip"},
            {"$id": "3", "HostName": machine, "AzureID": resource, "OSFamily": "Linux",
             "Asset": True, "Type": "host"},
            {"$id": "4", "Name": f"user{rng.randrange(99)}", "Host": {"$ref": "3"},
             "Asset": False, "Type": "account", "LogonId": "0x427d8dd9"},
            {"$id": "5", "ProcessId": "0x1e99b", "CommandLine": "curl -s http://198.51.100.7/x",
             "Host": {"$ref": "3"}, "Account": {"$ref": "4"}, "Asset": False, "Type": "process"},
        ],
        "ExtendedLinks": [],
        "ResourceIdentifiers": [
            {"$id": "6", "AzureResourceId": resource, "Type": "AzureResource",
             "AzureResourceTenantId": "22222222-bbbb-4bbb-8bbb-000000000000"},
        ],
        "RemediationSteps": ["Check the machine.", "Block the address.", "Change the passwords."],
        "ExtendedProperties": {"resourceType": "Virtual Machine", "Client IP address": address},
        "AlertUri": f"https://portal.azure.com/#blade/Microsoft_Azure_Security/AlertBlade/alertId/"
        f"{identity}/subscriptionId/{subscription}/resourceGroup/rg-1/location/westeurope",
        **changes,
    }  # fmt: skip


def security_alert(rng: random.Random, at: datetime.datetime, **changes: Any) -> dict[str, Any]:
    """A row of Log Analytics' SecurityAlert table, as data export writes it."""
    kind, title, severity, intent, technique = rng.choice(_ALERTS)
    identity = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    subscription = rng.choice((*SUBSCRIPTIONS,))
    return {
        "TimeGenerated": _time(at),
        "DisplayName": title,
        "AlertName": title,
        "AlertSeverity": severity,
        "Description": f"{title}. " * 4,
        "ProviderName": "ASI Scheduled Alerts",
        "VendorName": "Microsoft",
        "VendorOriginalId": identity,
        "SystemAlertId": identity,
        "ResourceId": f"/subscriptions/{subscription}/resourcegroups/rg-1/providers"
        "/microsoft.operationalinsights/workspaces/soc",
        "AlertType": kind,
        "IsIncident": 0,
        "StartTime": _time(at - datetime.timedelta(minutes=5)),
        "EndTime": _time(at),
        "ProcessingEndTime": _time(at),
        "ExtendedProperties": json.dumps({"Query Period": "00:05:00"}),
        "Entities": json.dumps([{"$id": "2", "Name": "admin", "Type": "account"}]),
        "SourceSystem": "Detection",
        "ProductName": "Azure Sentinel",
        "ProductComponentName": "Scheduled Alerts",
        "Status": "New",
        "Tactics": intent,
        "Techniques": json.dumps([technique]),
        "_ItemId": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "Type": "SecurityAlert",
        "TenantId": "33333333-cccc-4ccc-8ccc-000000000000",
        **changes,
    }


def security_incident(rng: random.Random, at: datetime.datetime, **changes: Any) -> dict[str, Any]:
    """A row of Log Analytics' SecurityIncident table: one comes at each change."""
    name = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    subscription = rng.choice((*SUBSCRIPTIONS,))
    return {
        "TenantId": "33333333-cccc-4ccc-8ccc-000000000000",
        "TimeGenerated": _time(at),
        "IncidentName": name,
        "Title": "Several alerts on one machine",
        "Description": "",
        "Severity": rng.choice(("High", "Medium", "Low")),
        "Status": "New",
        "Classification": "",
        "Owner": {"objectId": None, "email": None, "assignedTo": None, "userPrincipalName": None},
        "ProviderName": "Azure Sentinel",
        "ProviderIncidentId": str(rng.randrange(10**6)),
        "LastModifiedTime": _time(at),
        "CreatedTime": _time(at),
        "IncidentNumber": rng.randrange(10**6),
        "AlertIds": [str(uuid.UUID(int=rng.getrandbits(128), version=4))],
        "IncidentUrl": f"https://portal.azure.com/#asset/Microsoft_Azure_Security_Insights/Incident"
        f"/subscriptions/{subscription}/resourceGroups/rg-1/providers"
        f"/Microsoft.OperationalInsights/workspaces/soc/providers/Microsoft.SecurityInsights"
        f"/Incidents/{name}",
        "AdditionalData": {"alertsCount": 1, "tactics": ["Execution"], "techniques": []},
        "SourceSystem": "Azure",
        "Type": "SecurityIncident",
        **changes,
    }


def ot_alert(rng: random.Random, at: datetime.datetime) -> dict[str, Any]:
    """A SecurityAlert row of Defender for IoT."""
    details = {"Protocol": "Modbus", "SensorId": "plant-sensor-1", "SourceDevice": "PLC 7"}
    return security_alert(
        rng,
        at,
        ProductName="Azure Security Center for IoT",
        ProviderName="IoTSecurity",
        DisplayName="Unauthorized PLC programming",
        AlertName="Unauthorized PLC programming",
        ExtendedProperties=json.dumps(details),
    )


def recommendation(rng: random.Random, at: datetime.datetime) -> dict[str, Any]:
    """Defender for Cloud continuous export: an assessment."""
    subscription = rng.choice((*SUBSCRIPTIONS,))
    name = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    of = f"/subscriptions/{subscription}"
    return {
        "tenantId": _TENANT,
        "type": "Microsoft.Security/assessments",
        "id": f"{of}/providers/Microsoft.Security/assessments/{name}",
        "name": name,
        "properties": {
            "resourceDetails": {"id": of, "source": "Azure"},
            "displayName": "MFA should be enabled",
            "status": {"code": "Unhealthy", "statusChangeDate": _time(at)},
            "metadata": {"displayName": "MFA should be enabled", "severity": "High"},
        },
        "securityEventDataEnrichment": {"action": "Insert", "isSnapshot": False},
    }


def sign_in(rng: random.Random, at: datetime.datetime) -> dict[str, Any]:
    """Entra: a sign-in, as diagnostic settings stream it."""
    ident = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return {
        "time": _time(at),
        "resourceId": f"/tenants/{_TENANT}/providers/Microsoft.aadiam",
        "operationName": "Sign-in activity",
        "category": "SignInLogs",
        "resultType": "0",
        "callerIpAddress": "203.0.113.7",
        "properties": {
            "id": ident,
            "createdDateTime": _time(at),
            "userPrincipalName": "ann@contoso.example",
            "ipAddress": "203.0.113.7",
            "status": {"errorCode": 0},
        },
    }


def process(rng: random.Random, at: datetime.datetime) -> dict[str, Any]:
    """Defender XDR streaming: a process that was started."""
    return {
        "time": _time(at),
        "tenantId": _TENANT,
        "operationName": "Publish",
        "category": "AdvancedHunting-DeviceProcessEvents",
        "properties": {
            "Timestamp": _time(at),
            "DeviceId": "0123456789abcdef0123456789abcdef01234567",
            "DeviceName": "shop-vm-1.contoso.example",
            "ReportId": rng.randrange(1 << 30),
            "ActionType": "ProcessCreated",
            "FileName": "curl",
            "FolderPath": "/usr/bin/curl",
            "ProcessCommandLine": "curl -s http://203.0.113.7/x",
            "AccountName": "svc-web",
        },
    }


def _unknown(rng: random.Random, at: datetime.datetime) -> dict[str, Any]:
    return {"made_by": "a service that nobody knows yet", "number": rng.random()}


_SIGNED = (
    "azcopy https://shop.blob.core.windows.net/x?sv=2024&sig=aGFsZiBhIGZhbHNlIHNpZ25hdHVyZQ%3D"
)
_BOM = b"\xef\xbb\xbf"
_MALFORMED = (
    b"",
    b"this is not JSON",
    b'{"SystemAlertId": "cut off in the mid',
    b"\xff\xfe{\x00}\x00",
    b"[" * 10_000,
    b"42",
    b'{"records": []}',
)


_OTHERS = (
    ("recommendation", recommendation),
    ("sign-in", sign_in),
    ("process", process),
    ("OT alert", ot_alert),
    ("unknown kind", _unknown),
)


def varied(count: int, seed: int = 1, now: datetime.datetime | None = None) -> Iterator[Made]:
    """`count` events: mostly alerts, with repeats of them, status updates, wrappers, hostile
    texts, secrets, broken ones, and events of other kinds. The same seed makes the same events
    (times apart)."""
    rng = random.Random(seed)
    now = now or datetime.datetime.now(datetime.timezone.utc)
    recent: list[Made] = []
    for number in range(count):
        at = now - datetime.timedelta(seconds=rng.uniform(0, 600))
        lot = rng.random()
        if lot < 0.10 and recent:
            made = rng.choice(recent)
            yield made._replace(what="repeat")
            continue
        if lot < 0.15 and recent:
            before = json.loads(rng.choice(recent).body)
            before.update(
                Status=rng.choice(("InProgress", "Resolved", "Dismissed")),
                ProcessingEndTime=_time(now),
            )
            yield Made(_json(before), "status update", before["SystemAlertId"])
            continue
        if lot < 0.16:
            yield Made(_MALFORMED[number % len(_MALFORMED)], "malformed")
            continue
        if lot < 0.20:
            what, make = rng.choice(_OTHERS)
            yield Made(_json(make(rng, at)), what)
            continue
        if lot < 0.22:
            good = [security_alert(rng, at), security_alert(rng, at)]
            yield Made(_json({"records": [good[0], None, good[1]]}), "records, one of them bad")
            continue
        if lot < 0.225:
            alert = defender_alert(rng, at, Description=_SIGNED)
            yield Made(_json(alert), "secret in it", alert["SystemAlertId"])
            continue
        if lot < 0.23:
            pair = _json(defender_alert(rng, at)) + _json(security_incident(rng, at))
            yield Made(_BOM + pair, "needs repair")
            continue
        if lot < 0.24:
            alert = defender_alert(rng, at, Description=rng.choice(_HOSTILE))
            yield Made(_json(alert), "hostile text", alert["SystemAlertId"])
            continue
        if lot < 0.34:
            alert = security_alert(rng, at)
            yield Made(_json(alert), "SecurityAlert", alert["SystemAlertId"])
            continue
        if lot < 0.40:
            yield Made(_json(security_incident(rng, at)), "SecurityIncident")
            continue
        alert = defender_alert(rng, at)
        made = Made(_json(alert), "Defender alert", alert["SystemAlertId"])
        recent.append(made)
        del recent[:-200]
        yield made
