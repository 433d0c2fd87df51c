"""Microsoft Graph, security/alerts_v2: an alert with evidence of many types."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE

IDENTITY = ("id",)
VERSION = ("lastUpdateDateTime",)
RESOLVED = {"status": "resolved", "lastUpdateDateTime": "2026-03-04T11:00:00Z"}

_TYPE = "#microsoft.graph.security."
IMAGE = {
    "sha1": "1b" * 20,
    "sha256": "2c" * 32,
    "fileName": "odd.exe",
    "filePath": "C:\\Temp",
    "fileSize": 4096,
    "signer": None,
}
ACCOUNT = {
    "accountName": "ann",
    "domainName": "CORP",
    "userSid": "S-1-5-21-1-2-3-1001",
    "azureAdUserId": "aaaaaaaa-5555-4222-8333-444455556666",
    "userPrincipalName": "ann@corp.example",
    "displayName": "Ann",
}


def evidence(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "@odata.type": f"{_TYPE}{kind}Evidence",
        "createdDateTime": "2026-03-04T10:13:00Z",
        "verdict": "suspicious",
        "remediationStatus": "none",
        "roles": [],
        "tags": [],
    } | fields


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "@odata.type": f"{_TYPE}alert",
        "id": "ed0000000000000000_1",
        "providerAlertId": "bbbbbbbb-5555-4222-8333-444455556666",
        "incidentId": "4711",
        "status": "new",
        "severity": "medium",
        "classification": "unknown",
        "determination": "unknown",
        "serviceSource": "microsoftDefenderForEndpoint",
        "detectionSource": "antivirus",
        "productName": "Microsoft Defender for Endpoint",
        "detectorId": "cccccccc-5555-4222-8333-444455556666",
        "tenantId": "22222222-0000-4000-8000-000000000002",
        "title": "A hidden file was started",
        "description": "Somebody started a hidden file.",
        "recommendedActions": "Look at the machine.",
        "category": "DefenseEvasion",
        "assignedTo": "sam@corp.example",
        "alertWebUrl": "https://security.microsoft.com/alerts/ed0000000000000000_1",
        "incidentWebUrl": "https://security.microsoft.com/incidents/4711",
        "actorDisplayName": "Storm-0000",
        "threatDisplayName": "Odd.A",
        "threatFamilyName": "Odd",
        "mitreTechniques": ["T1564.001", "T1204"],
        "createdDateTime": "2026-03-04T10:13:14.9876543Z",
        "lastUpdateDateTime": "2026-03-04T10:20:00.5Z",
        "resolvedDateTime": None,
        "firstActivityDateTime": "2026-03-04T10:11:12.123Z",
        "lastActivityDateTime": "2026-03-04T10:12:00.5Z",
        "systemTags": ["Defender Experts"],
        "alertPolicyId": "dddddddd-5555-4222-8333-444455556666",
        "investigationState": "running",
        "comments": [{"comment": "Seen.", "createdByDisplayName": "Sam"}],
        "evidence": [
            evidence(
                "device",
                deviceDnsName="pc-1.corp.example",
                mdeDeviceId="ee" * 20,
                osPlatform="Windows11",
                ipInterfaces=["10.0.0.7"],
                loggedOnUsers=[{"accountName": "bob", "domainName": "CORP"}],
                roles=["compromised"],
                vmMetadata={"vmId": "v-1", "cloudProvider": "azure", "resourceId": RESOURCE},
            ),
            evidence("user", userAccount=ACCOUNT, roles=["attacker"]),
            evidence("file", fileDetails=IMAGE, mdeDeviceId="ee" * 20),
            evidence(
                "process",
                processId=4780,
                parentProcessId=668,
                processCommandLine="odd.exe -q",
                imageFile=IMAGE,
                parentProcessImageFile={"fileName": "cmd.exe", "filePath": "C:\\Windows"},
                userAccount=ACCOUNT,
            ),
            evidence("ip", ipAddress="203.0.113.7", countryLetterCode="NL", roles=["source"]),
            evidence("url", url="https://evil.example/x"),
            evidence(
                "analyzedMessage",
                subject="Invoice",
                networkMessageId="m-1",
                p2Sender={"emailAddress": "eve@evil.example", "displayName": "Eve"},
                recipientEmailAddress="ann@corp.example",
                senderIp="203.0.113.8",
                urls=["https://evil.example/y"],
            ),
            evidence("mailbox", primaryAddress="ann@corp.example", upn="ann@corp.example"),
            evidence(
                "registryValue",
                registryHive="HKEY_LOCAL_MACHINE",
                registryKey="SOFTWARE\\Run",
                registryValueName="odd",
                registryValue="odd.exe",
            ),
            evidence("cloudApplication", displayName="Office 365", appId=11161, instanceId=0),
            evidence("azureResource", resourceId=f"{RESOURCE}/extensions/x", resourceName="x"),
            evidence("securityGroup", displayName="Ops", securityGroupId="g-1"),
        ],
    }
    return record | overrides
