"""Microsoft Graph, security/incidents: an incident with its alerts expanded."""

from __future__ import annotations

from typing import Any

from tests.examples.graph_alert import record as graph_alert

IDENTITY = ("tenantId", "id")
VERSION = ("lastUpdateDateTime",)
RESOLVED = {"status": "resolved", "lastUpdateDateTime": "2026-03-04T11:00:00Z"}


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "@odata.type": "#microsoft.graph.security.incident",
        "id": "4711",
        "tenantId": "22222222-0000-4000-8000-000000000002",
        "incidentWebUrl": "https://security.microsoft.com/incidents/4711",
        "redirectIncidentId": None,
        "displayName": "A hidden file on two machines",
        "description": "",
        "summary": "Two machines ran the same hidden file.",
        "createdDateTime": "2026-03-04T10:14:00Z",
        "lastUpdateDateTime": "2026-03-04T10:20:00.5Z",
        "assignedTo": "sam@corp.example",
        "classification": "truePositive",
        "determination": "malware",
        "status": "active",
        "severity": "high",
        "priorityScore": 80,
        "customTags": ["plant"],
        "systemTags": ["Defender Experts"],
        "resolvingComment": None,
        "recommendedActions": None,
        "comments": [],
        "alerts": [
            graph_alert(),
            {
                "id": "ed0000000000000000_2",
                "category": "Malware",
                "mitreTechniques": None,
                "firstActivityDateTime": None,
                "lastActivityDateTime": "2026-03-04T10:15:00Z",
                "evidence": [],
            },
        ],
    }
    return record | overrides
