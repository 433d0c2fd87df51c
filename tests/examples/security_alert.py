"""A SecurityAlert row as Log Analytics exports it: JSON in strings, no empty columns."""

from __future__ import annotations

from typing import Any

from tests.examples._base import WORKSPACE_SUBSCRIPTION

IDENTITY = ("SystemAlertId",)
VERSION = ("Status", "ProcessingEndTime", "_ItemId")
RESOLVED = {"Status": "Resolved"}


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
