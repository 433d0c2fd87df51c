"""Sentinel's incidents API: an incident, with its alerts and entities as a Logic App gets it."""

from __future__ import annotations

from typing import Any

from tests.examples._base import WORKSPACE_SUBSCRIPTION

IDENTITY = ("id",)
VERSION = ("properties.lastModifiedTimeUtc",)
RESOLVED = {
    "properties.status": "Closed",
    "properties.lastModifiedTimeUtc": "2026-03-05T08:00:00Z",
}

WORKSPACE = (
    f"/subscriptions/{WORKSPACE_SUBSCRIPTION}/resourceGroups/rg-monitoring/providers"
    "/Microsoft.OperationalInsights/workspaces/shop-logs"
)
INSIGHTS = f"{WORKSPACE}/providers/Microsoft.SecurityInsights"
NAME = "dddddddd-1111-4222-8333-444455556666"
ID = f"{INSIGHTS}/Incidents/{NAME}"
URL = f"https://portal.azure.com/#asset/Microsoft_Azure_Security_Insights/Incident{ID}"
RULE = f"{INSIGHTS}/alertRules/rule-7"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": ID,
        "name": NAME,
        "etag": '"0100-0000"',
        "type": "Microsoft.SecurityInsights/Incidents",
        "properties": {
            "title": "Sign-in from two continents",
            "description": "One account signed in from two continents within minutes.",
            "severity": "Medium",
            "status": "Active",
            "classification": "TruePositive",
            "classificationReason": "SuspiciousActivity",
            "classificationComment": "The password was stolen.",
            "owner": {
                "objectId": "aaaaaaaa-0000-4000-8000-0000000000f4",
                "email": "erin@example.com",
                "assignedTo": "Erin Example",
                "userPrincipalName": "erin@example.com",
            },
            "labels": [{"labelName": "travel", "labelType": "User"}],
            "firstActivityTimeUtc": "2026-03-04T09:50:00.5Z",
            "lastActivityTimeUtc": "2026-03-04T10:05:00Z",
            "lastModifiedTimeUtc": "2026-03-04T10:20:00.1234567Z",
            "createdTimeUtc": "2026-03-04T10:19:00Z",
            "incidentNumber": 4711,
            "additionalData": {
                "alertsCount": 1,
                "bookmarksCount": 0,
                "commentsCount": 2,
                "alertProductNames": ["Azure Sentinel"],
                "tactics": ["InitialAccess", "Persistence"],
                "techniques": ["T1078"],
                "providerIncidentUrl": "https://security.microsoft.com/incidents/815",
            },
            "relatedAnalyticRuleIds": [RULE],
            "incidentUrl": URL,
            "providerName": "Azure Sentinel",
            "providerIncidentId": "815",
            "alerts": [
                {
                    "id": f"{INSIGHTS}/Entities/bbbbbbbb-1111-4222-8333-444455556666",
                    "name": "bbbbbbbb-1111-4222-8333-444455556666",
                    "type": "Microsoft.SecurityInsights/Entities",
                    "kind": "SecurityAlert",
                    "properties": {"systemAlertId": "bbbbbbbb-1111-4222-8333-444455556666"},
                }
            ],
            "relatedEntities": [
                {
                    "id": f"{INSIGHTS}/Entities/entity-1",
                    "name": "entity-1",
                    "type": "Microsoft.SecurityInsights/Entities",
                    "kind": "Account",
                    "properties": {"accountName": "mallory", "upnSuffix": "example.com"},
                },
                {
                    "id": f"{INSIGHTS}/Entities/entity-2",
                    "name": "entity-2",
                    "type": "Microsoft.SecurityInsights/Entities",
                    "kind": "Ip",
                    "properties": {"address": "203.0.113.7"},
                },
            ],
        },
    }
    return record | overrides


def flattened() -> dict[str, Any]:
    """The same as a table's row: no more than keys, one level deep but for lists."""
    nested = record()
    row = {name: value for name, value in nested.items() if name != "properties"}
    for name, value in nested["properties"].items():
        if isinstance(value, dict):
            row |= {f"properties.{name}.{inner}": it for inner, it in value.items()}
        elif name not in ("alerts", "relatedEntities"):
            row[f"properties.{name}"] = value
    row["Alerts"] = [{"ID": "bbbbbbbb-1111-4222-8333-444455556666", "Name": "Sign-in"}]
    return row


def from_sdk() -> dict[str, Any]:
    """The same as the Python SDK writes it."""
    return {
        "additional_properties": {},
        "id": ID,
        "name": NAME,
        "type": "Microsoft.SecurityInsights/Incidents",
        "system_data": None,
        "etag": '"0100-0000"',
        "additional_data": {
            "additional_properties": {},
            "alerts_count": 1,
            "bookmarks_count": 0,
            "comments_count": 2,
            "alert_product_names": ["Azure Sentinel"],
            "tactics": ["InitialAccess", "Persistence"],
        },
        "classification": "TruePositive",
        "classification_comment": "The password was stolen.",
        "classification_reason": "SuspiciousActivity",
        "created_time_utc": "2026-03-04T10:19:00.000000+00:00",
        "description": "One account signed in from two continents within minutes.",
        "first_activity_time_utc": "2026-03-04T09:50:00.500000+00:00",
        "incident_url": URL,
        "incident_number": 4711,
        "labels": [{"additional_properties": {}, "label_name": "travel", "label_type": "User"}],
        "last_activity_time_utc": "2026-03-04T10:05:00.000000+00:00",
        "last_modified_time_utc": "2026-03-04T10:20:00.123456+00:00",
        "owner": {
            "additional_properties": {},
            "assigned_to": "Erin Example",
            "email": "erin@example.com",
            "object_id": "aaaaaaaa-0000-4000-8000-0000000000f4",
            "user_principal_name": "erin@example.com",
        },
        "related_analytic_rule_ids": [RULE],
        "severity": "Medium",
        "status": "Active",
        "title": "Sign-in from two continents",
    }
