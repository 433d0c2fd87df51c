"""A directory audit as Microsoft Graph returns it: somebody was added to a group."""

from __future__ import annotations

from typing import Any

IDENTITY = ("id",)
VERSION = ("activityDateTime", "result")
RESOLVED = None


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": "Directory_aaaaaaaa_1",
        "category": "GroupManagement",
        "correlationId": "bbbbbbbb-1111-4222-8333-444455556666",
        "result": "success",
        "resultReason": "As asked",
        "activityDisplayName": "Add member to group",
        "activityDateTime": "2026-03-04T10:20:00.1234567Z",
        "loggedByService": "Core Directory",
        "operationType": "Assign",
        "initiatedBy": {
            "app": None,
            "user": {
                "id": "cccccccc-1111-4222-8333-444455556666",
                "displayName": "Alice Example",
                "userPrincipalName": "alice@example.com",
                "ipAddress": "198.51.100.7",
            },
        },
        "targetResources": [
            {
                "id": "dddddddd-1111-4222-8333-444455556666",
                "displayName": "Bob Example",
                "type": "User",
                "userPrincipalName": "bob@example.com",
                "modifiedProperties": [
                    {
                        "displayName": "Group.ObjectID",
                        "oldValue": None,
                        "newValue": '"eeeeeeee-1111-4222-8333-444455556666"',
                    },
                    {
                        "displayName": "Group.DisplayName",
                        "oldValue": None,
                        "newValue": '"Administrators"',
                    },
                ],
            },
            {"id": "eeeeeeee-1111-4222-8333-444455556666", "type": "Group", "groupType": "azureAD"},
        ],
        "additionalDetails": [
            {"key": "User-Agent", "value": "Mozilla/5.0"},
            {"key": "ipaddr", "value": "198.51.100.8"},
        ],
    }
    return record | overrides
