"""Defender for Cloud continuous export: an assessment under a control of a standard."""

from __future__ import annotations

from typing import Any

from tests.examples._base import SUBSCRIPTION

IDENTITY = ("id",)
VERSION = (
    "properties.state",
    "properties.passedResources",
    "properties.failedResources",
    "properties.skippedResources",
    "properties.unsupportedResources",
    "securityEventDataEnrichment.action",
)
RESOLVED = {"properties.state": "Passed"}

STANDARD = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Security"
    "/regulatoryComplianceStandards/Shop-benchmark"
)
CONTROL = f"{STANDARD}/regulatoryComplianceControls/NS.7"
KEY = "4d5e6f70-1111-4222-8333-00000000a551"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "securityEventDataEnrichment": {
            "action": "Write",
            "apiVersion": "2019-01-01-preview",
            "isSnapshot": False,
            "interval": "00:00:00",
        },
        "tenantId": "33333333-0000-4000-8000-000000000003",
        "id": f"{CONTROL}/regulatoryComplianceAssessments/{KEY}",
        "name": KEY,
        "type": "Microsoft.Security/regulatoryComplianceStandards/regulatoryComplianceControls"
        "/regulatoryComplianceAssessments",
        "properties": {
            "description": "Disks of machines should be encrypted",
            "state": "Failed",
            "scope": "Subscription",
            "passedResources": 4,
            "failedResources": 2,
            "skippedResources": 1,
            "unsupportedResources": 0,
            "assessmentType": "AssessmentResult",
            "assessmentDetailsLink": "https://portal.azure.com/#blade/Microsoft_Azure_Security"
            f"/RecommendationsBlade/assessmentKey/{KEY}/initiativeId/Shop-benchmark",
        },
    }
    return record | overrides


def control() -> dict[str, Any]:
    """Synthetic: from the REST reference."""
    return record(
        id=CONTROL,
        name="NS.7",
        type="Microsoft.Security/regulatoryComplianceStandards/regulatoryComplianceControls",
        properties={
            "description": "Networks are parted by what they serve.",
            "state": "Passed",
            "passedAssessments": 3,
            "failedAssessments": 0,
            "skippedAssessments": 2,
            "unsupportedAssessments": 0,
        },
    )


def standard() -> dict[str, Any]:
    """Synthetic: from the REST reference."""
    return record(
        id=STANDARD,
        name="Shop-benchmark",
        type="Microsoft.Security/regulatoryComplianceStandards",
        properties={
            "state": "Unsupported",
            "passedControls": 0,
            "failedControls": 0,
            "skippedControls": 0,
            "unsupportedControls": 12,
        },
    )
