"""Defender for Cloud continuous export: the score of a secure score control."""

from __future__ import annotations

from typing import Any

from tests.examples._base import SUBSCRIPTION

IDENTITY = ("id",)
VERSION = (
    "properties.score.current",
    "properties.score.max",
    "properties.unhealthyResourceCount",
    "securityEventDataEnrichment.action",
)
RESOLVED = None

SCORE = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Security/secureScores/ascScore"
CONTROL = "6f708192-1111-4222-8333-00000000c001"
_DEFINITIONS = "/providers/Microsoft.Security"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "securityEventDataEnrichment": {
            "action": "Insert",
            "apiVersion": "2020-01-01",
            "isSnapshot": False,
        },
        "tenantId": "33333333-0000-4000-8000-000000000003",
        "id": f"{SCORE}/secureScoreControls/{CONTROL}",
        "name": CONTROL,
        "type": "Microsoft.Security/secureScores/secureScoreControls",
        "properties": {
            "displayName": "Lock management ports",
            "healthyResourceCount": 5,
            "unhealthyResourceCount": 3,
            "notApplicableResourceCount": 1,
            "score": {"max": 8, "current": 4.57, "percentage": 0.5713},
            "definition": {
                "id": f"{_DEFINITIONS}/secureScoreControlDefinitions/{CONTROL}",
                "name": CONTROL,
                "type": "Microsoft.Security/secureScoreControlDefinitions",
                "properties": {
                    "source": {"sourceType": "BuiltIn"},
                    "displayName": "Lock management ports",
                    "maxScore": 8,
                    "assessmentDefinitions": [
                        {"id": f"{_DEFINITIONS}/assessmentMetadata/key-1"},
                        {"id": f"{_DEFINITIONS}/assessmentMetadata/key-2"},
                    ],
                },
            },
            "weight": 9,
        },
    }
    return record | overrides


def overall() -> dict[str, Any]:
    """The score of the whole subscription. Synthetic: from the REST reference."""
    return record(
        id=SCORE,
        name="ascScore",
        type="Microsoft.Security/secureScores",
        properties={
            "displayName": "ASC score",
            "score": {"max": 58, "current": 41.5, "percentage": 0.7155},
            "weight": 1161,
        },
    )
