"""A SecurityIncident row as Log Analytics exports it."""

from __future__ import annotations

from typing import Any

from tests.examples._base import PORTAL, SUBSCRIPTION

IDENTITY = ("TenantId", "IncidentName")
VERSION = ("LastModifiedTime",)
RESOLVED = {"Status": "Closed", "LastModifiedTime": "2026-03-04T11:00:00Z"}


def record(**overrides: Any) -> dict[str, Any]:
    name = "dddddddd-1111-4222-8333-444455556666"
    record: dict[str, Any] = {
        "TenantId": "22222222-0000-4000-8000-000000000002",
        "TimeGenerated": "2026-03-04T10:30:00.5Z",
        "IncidentName": name,
        "Title": "Sign-in from two continents",
        "Description": "",
        "Severity": "Low",
        "Status": "New",
        "Classification": "TruePositive",
        "ClassificationReason": "SuspiciousActivity",
        "ClassificationComment": "Seen before.",
        "Owner": '{"objectId":"aaaaaaaa-9999-4222-8333-444455556666","email":null,'
        '"assignedTo":"Sam","userPrincipalName":"sam@corp.example"}',
        "ProviderName": "Azure Sentinel",
        "ProviderIncidentId": "41",
        "FirstActivityTime": "2026-03-04T09:50:00.5Z",
        "LastActivityTime": "2026-03-04T10:05:00Z",
        "LastModifiedTime": "2026-03-04T10:29:59.25Z",
        "CreatedTime": "2026-03-04T10:25:00Z",
        "IncidentNumber": 41,
        "ClosedTime": None,
        "RelatedAnalyticRuleIds": '["eeeeeeee-1111-4222-8333-444455556666"]',
        "AlertIds": '["bbbbbbbb-1111-4222-8333-444455556666"]',
        "BookmarkIds": "[]",
        "Comments": "[]",
        "Labels": '[{"labelName":"identity","labelType":"User"}]',
        "ModifiedBy": "sam@corp.example",
        "IncidentUrl": f"{PORTAL}/Microsoft_Azure_Security_Insights/Incident/subscriptions"
        f"/{SUBSCRIPTION}/resourceGroups/rg-monitoring/providers"
        f"/Microsoft.OperationalInsights/workspaces/soc/providers/Microsoft.SecurityInsights"
        f"/Incidents/{name}",
        "AdditionalData": '{"alertsCount":1,"bookmarksCount":0,"commentsCount":2,'
        '"alertProductNames":["Azure Sentinel"],"tactics":["InitialAccess"],'
        '"techniques":["T1078"]}',
        "Type": "SecurityIncident",
    }
    return record | overrides
