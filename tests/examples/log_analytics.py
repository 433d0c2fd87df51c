"""A row of another table as Log Analytics exports it: here a custom one after ASIM."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("_ItemId",)
VERSION = ()
RESOLVED = None


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "TenantId": "22222222-0000-4000-8000-000000000002",
        "TimeGenerated": "2026-03-04T10:20:00.765Z",
        "EventStartTime": "2026-03-04T10:19:50Z",
        "EventEndTime": "2026-03-04T10:19:55Z",
        "OperationName": "FileUploaded",
        "Category": "Audit",
        "EventMessage": "A file was uploaded.",
        "EventSeverity": "Medium",
        "EventVendor": "Example",
        "EventProduct": "Gateway",
        "EventResult": "Success",
        "Computer": "gw-1.corp.example",
        "SrcHostname": "pc-7",
        "SrcIpAddr": "10.0.0.7",
        "SrcPortNumber": 50123,
        "DstHostname": "files-1.corp.example",
        "DstIpAddr": "198.51.100.80",
        "DstPortNumber": 443,
        "ActorUsername": "CORP\\mallory",
        "ActorUserId": "S-1-5-21-1-2-3-1105",
        "TargetUsername": "svc@example.com",
        "Url_s": "https://files.example.net/up",
        "ActingProcessName": "C:\\Tools\\up.exe",
        "ActingProcessId": "4711",
        "ActingProcessCommandLine": "up.exe a",
        "TargetFileName": "a.zip",
        "TargetFilePath": "C:\\Temp\\a.zip",
        "TargetFileSHA256": "a" * 64,
        "AppId_g": "dddddddd-0000-4000-8000-00000000000d",
        "DnsQuery": "files.example.net",
        "Bytes_d": 1024,
        "_ResourceId": RESOURCE,
        "_SubscriptionId": SUBSCRIPTION,
        "_ItemId": "cccccccc-1111-4222-8333-444455556666",
        "Type": "Gateway_CL",
    }
    return record | overrides
