"""Defender for Cloud continuous export: an assessment of a virtual machine."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("id",)
VERSION = (
    "properties.status.code",
    "properties.status.statusChangeDate",
    "securityEventDataEnrichment.action",
)
RESOLVED = {"properties.status.code": "Healthy"}

KEY = "4d5e6f70-1111-4222-8333-00000000a551"
ID = f"{RESOURCE}/providers/Microsoft.Security/assessments/{KEY}"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "assessmentEventDataEnrichment": {
            "action": "Insert",
            "apiVersion": "2019-01-01",
            "isSnapshot": False,
        },
        "securityEventDataEnrichment": {
            "action": "Insert",
            "apiVersion": "2019-01-01",
            "isSnapshot": False,
        },
        "tenantId": "33333333-0000-4000-8000-000000000003",
        "type": "Microsoft.Security/assessments",
        "kind": None,
        "location": None,
        "id": ID,
        "name": KEY,
        "tags": None,
        "properties": {
            "resourceDetails": {
                "source": "Azure",
                "id": RESOURCE,
                "resourceName": "shop-vm-1",
                "resourceType": "virtualMachines",
                "resourceProvider": "Microsoft.Compute",
                "nativeResourceId": RESOURCE,
            },
            "displayName": "Disks of machines should be encrypted",
            "status": {
                "code": "Unhealthy",
                "cause": "VolumeNotEncrypted",
                "description": "One of two disks is in the clear",
                "statusChangeDate": "2026-03-04T10:13:14.9876543Z",
                "firstEvaluationDate": "2026-02-01T08:00:00.5Z",
            },
            "additionalData": {
                "kind": "Disk",
                "usersWithNoMfaObjectIdList": ["aaaaaaaa-0000-4000-8000-0000000000f1"],
            },
            "metadata": {
                "displayName": "Disks of machines should be encrypted",
                "assessmentType": "BuiltIn",
                "policyDefinitionId": "/providers/Microsoft.Authorization/policyDefinitions/pd-1",
                "description": "What lies on a disk in the clear can be read by who copies it.",
                "remediationDescription": "1. Stop the machine.<br>2. Encrypt its disks.",
                "categories": ["Compute", "Data"],
                "severity": "High",
                "userImpact": "Low",
                "implementationEffort": "Moderate",
                "threats": ["DataExfiltration", "DataSpillage"],
                "tactics": ["Credential Access", "Collection"],
                "techniques": ["T1005", "Data from Local System"],
            },
            "risk": {
                "level": "Critical",
                "riskFactors": ["Internet exposure"],
                "attackPathsReferences": [f"/subscriptions/{SUBSCRIPTION}/attack-path-1"],
                "isContextualRisk": True,
            },
            "links": {
                "azurePortal": "portal.azure.com/#blade/Microsoft_Azure_Security"
                f"/RecommendationsBlade/assessmentKey/{KEY}"
            },
        },
    }
    return record | overrides
