"""Defender for Cloud continuous export: a vulnerability in an image, as a sub-assessment."""

from __future__ import annotations

from typing import Any

from tests.examples._base import SUBSCRIPTION

IDENTITY = ("Id",)
VERSION = (
    "Properties.Status.Code",
    "Properties.TimeGenerated",
    "SecurityEventDataEnrichment.Action",
)
RESOLVED = {"Properties.Status.Code": "Healthy"}

REGISTRY = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers"
    "/Microsoft.ContainerRegistry/registries/shopimages"
)
CLUSTER = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers"
    "/Microsoft.ContainerService/managedClusters/shop-aks"
)
ASSESSMENT = (
    f"{REGISTRY}/providers/Microsoft.Security/assessments/4d5e6f70-1111-4222-8333-00000000a552"
)
KEY = "5e6f7081-1111-4222-8333-00000000b001"
DIGEST = "0123456789abcdef" * 4


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "$type": "subAssessmentEvent",
        "SubAssessmentEventDataEnrichment": {
            "$type": "subAssessmentEventDataEnrichment",
            "Action": "Insert",
            "ApiVersion": "2020-01-01",
            "IsSnapshot": False,
        },
        "SecurityEventDataEnrichment": {
            "$type": "subAssessmentEventDataEnrichment",
            "Action": "Insert",
            "ApiVersion": "2020-01-01",
            "IsSnapshot": False,
        },
        "TenantId": "33333333-0000-4000-8000-000000000003",
        "Type": "Microsoft.Security/assessments/subAssessments",
        "Id": f"{ASSESSMENT}/subassessments/{KEY}",
        "Name": KEY,
        "Properties": {
            "$type": "response/subAssessmentProperties",
            "Id": "CVE-2026-0001",
            "DisplayName": "Buffer overflow in libshop",
            "Status": {
                "$type": "status",
                "Code": "Unhealthy",
                "Severity": "High",
                "Cause": "Reachable",
                "Description": "The package is in use",
            },
            "Remediation": "Update libshop to 2.1.",
            "Impact": "Whoever sends a long name may run code.",
            "Category": "Packages",
            "Description": "A long name overflows a buffer of libshop.",
            "TimeGenerated": "2026-03-04T10:13:14.9876543Z",
            "ResourceDetails": {
                "$type": "resourceDetails/azure",
                "Source": "Azure",
                "Id": REGISTRY,
            },
            "AdditionalData": {
                "$type": "additionalData/general",
                "AssessedResourceType": "AzureContainerRegistryVulnerability",
                "Data": {
                    "ArtifactDetails": {
                        "RegistryHost": "shopimages.azurecr.io",
                        "RepositoryName": "web/front",
                        "Digest": f"sha256:{DIGEST}",
                        "Tags": ["1.0", "latest"],
                    },
                    "SoftwareDetails": {
                        "OsDetails": {"OsPlatform": "Linux", "OsVersion": "Debian 12"},
                        "PackageName": "libshop",
                        "Version": "2.0",
                        "FixedVersion": "2.1",
                        "FixStatus": "FixAvailable",
                        "Patchable": True,
                    },
                    "VulnerabilityDetails": {
                        "Cve": [
                            {"Title": "CVE-2026-0001", "Link": "https://example.com/1"},
                            {"Title": "CVE-2026-0002", "Link": "https://example.com/2"},
                        ],
                        "Cvss": {"2.0": {"Base": 7.5}, "3.0": {"Base": 9.8}},
                        "PublishedDate": "2026-01-02T00:00:00Z",
                    },
                    "ClusterName": "shop-aks",
                    "ClusterResourceId": CLUSTER,
                    "Namespace": "web",
                    "ControllerKind": "Deployment",
                    "ControllerName": "front",
                    "PodName": "front-6d8f",
                    "ContainerName": "front",
                },
            },
        },
    }
    return record | overrides
