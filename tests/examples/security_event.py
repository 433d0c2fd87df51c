"""A SecurityEvent row as Log Analytics exports it: a process was created."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("_ItemId",)
VERSION = ()
RESOLVED = None


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "TenantId": "22222222-0000-4000-8000-000000000002",
        "TimeGenerated": "2026-03-04T10:20:00.1234567Z",
        "SourceSystem": "OpsManager",
        "Account": "SHOP\\mallory",
        "AccountType": "User",
        "Computer": "shop-vm-1.shop.example.com",
        "EventSourceName": "Microsoft-Windows-Security-Auditing",
        "Channel": "Security",
        "Task": 13312,
        "Level": "8",
        "Keywords": "0x8020000000000000",
        "EventID": 4688,
        "Activity": "4688 - A new process has been created.",
        "CommandLine": "whoami.exe /all",
        "NewProcessId": "0x1a2b",
        "NewProcessName": "C:\\Windows\\System32\\whoami.exe",
        "ParentProcessName": "C:\\Windows\\System32\\cmd.exe",
        "ProcessId": "0x10",
        "Process": "whoami.exe",
        "SubjectAccount": "SHOP\\mallory",
        "SubjectDomainName": "SHOP",
        "SubjectLogonId": "0x3e7",
        "SubjectUserName": "mallory",
        "SubjectUserSid": "S-1-5-21-1-2-3-1104",
        "TargetDomainName": "-",
        "TargetUserName": "-",
        "TargetUserSid": "S-1-0-0",
        "TokenElevationType": "%%1936",
        "EventData": "<EventData><Data Name='MandatoryLabel'>S-1-16-12288</Data></EventData>",
        "SourceComputerId": "0c7a8afd-0000-4000-8000-000000000003",
        "EventOriginId": "dddddddd-1111-4222-8333-444455556666",
        "EventRecordId": 4711,
        "MG": "00000000-0000-0000-0000-000000000001",
        "TimeCollected": "2026-03-04T10:20:09.1Z",
        "ManagementGroupName": "AOI-22222222-0000-4000-8000-000000000002",
        "_ItemId": "eeeeeeee-1111-4222-8333-444455556666",
        "_ResourceId": RESOURCE,
        "_SubscriptionId": SUBSCRIPTION,
        "Type": "SecurityEvent",
    }
    return record | overrides
