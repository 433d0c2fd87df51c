"""A SecurityAlert row as Log Analytics exports it: JSON in strings, no empty columns."""

from __future__ import annotations

from typing import Any

from msgspec.json import encode

from tests.examples._base import WORKSPACE_SUBSCRIPTION

IDENTITY = ("SystemAlertId",)
VERSION = ("Status", "ProcessingEndTime", "_ItemId")
RESOLVED = {"Status": "Resolved"}

ENTITIES = [
    {
        "$id": "2",
        "Name": "mallory",
        "UPNSuffix": "corp.example",
        "AadUserId": "dddddddd-1111-4222-8333-444455556666",
        "Type": "account",
    },
    {"$id": "3", "Address": "203.0.113.7", "Location": {"CountryCode": "NL"}, "Type": "ip"},
    {"$id": "4", "SaasId": 11161, "Name": "Office 365", "Type": "cloud-application"},
]
PROPERTIES = {
    "Query Period": "05:00:00",
    "Data Sources": '["SigninLogs"]',
    "Custom Details": '{"Client IP":["198.51.100.9"]}',
}


def record(**overrides: Any) -> dict[str, Any]:
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
        "ConfidenceLevel": "High",
        "RemediationSteps": '["Ask the account.","Reset the password."]',
        "ExtendedProperties": encode(PROPERTIES).decode(),
        "Entities": encode(ENTITIES).decode(),
        "SourceSystem": "Detection",
        "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
        "WorkspaceResourceGroup": "rg-monitoring",
        "ProductName": "Azure Sentinel",
        "ProductComponentName": "Scheduled Alerts",
        "CompromisedEntity": "mallory@corp.example",
        "Status": "New",
        "Tactics": "InitialAccess,Persistence",
        "Techniques": '["T1078"]',
        "_ItemId": "cccccccc-1111-4222-8333-444455556666",
        "Type": "SecurityAlert",
        "TenantId": "22222222-0000-4000-8000-000000000002",
    }
    return record | overrides
