"""A CommonSecurityLog row as Log Analytics exports it, made from the table's reference."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("_ItemId",)
VERSION = ()
RESOLVED = None


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "TenantId": "22222222-0000-4000-8000-000000000002",
        "SourceSystem": "OpsManager",
        "TimeGenerated": "2026-03-04T10:20:00.765Z",
        "ReceiptTime": "Mar 04 2026 10:19:58",
        "StartTime": "2026-03-04T10:19:50Z",
        "EndTime": "2026-03-04T10:19:55Z",
        "DeviceVendor": "Example Networks",
        "DeviceProduct": "Firewall",
        "DeviceVersion": "10.1",
        "DeviceEventClassID": "THREAT-9",
        "DeviceEventCategory": "threat",
        "Activity": "Malware download blocked",
        "Message": "A download was blocked.",
        "LogSeverity": "8",
        "OriginalLogSeverity": "high",
        "DeviceAction": "reset-both",
        "SimplifiedDeviceAction": "Deny",
        "EventOutcome": "Success",
        "ExtID": "7001",
        "Computer": "fw-1.corp.example",
        "CollectorHostName": "collector-1",
        "DeviceName": "fw-1",
        "DeviceDnsDomain": "corp.example",
        "DeviceAddress": "10.0.0.254",
        "Protocol": "TCP",
        "SourceHostName": "pc-7",
        "SourceDnsDomain": "corp.example",
        "SourceIP": "10.0.0.7",
        "SourcePort": 50123,
        "SourceTranslatedAddress": "203.0.113.7",
        "SourceTranslatedPort": 61000,
        "SourceMACAddress": "02:00:00:00:00:07",
        "SourceUserName": "mallory",
        "SourceNTDomain": "CORP",
        "SourceUserID": "S-1-5-21-1-2-3-1105",
        "SourceProcessName": "curl",
        "SourceProcessId": 4711,
        "DestinationHostName": "cdn.files.example.net",
        "DestinationIP": "198.51.100.80",
        "DestinationPort": 443,
        "DestinationUserName": "svc@example.net",
        "ProcessName": "sslproxy",
        "ProcessID": 12,
        "FileName": "evil.exe",
        "FilePath": "/tmp/evil.exe",
        "FileHash": "a" * 64,
        "OldFileName": "evil.tmp",
        "RequestURL": "https://cdn.files.example.net/evil.exe",
        "RequestClientApplication": "curl/8",
        "MaliciousIP": "198.51.100.80",
        "RemoteIP": "198.51.100.80",
        "RemotePort": "443",
        "AdditionalExtensions": "PanOSDGl1=7",
        "_ResourceId": RESOURCE,
        "_SubscriptionId": SUBSCRIPTION.upper(),
        "_ItemId": "cccccccc-1111-4222-8333-444455556666",
        "Type": "CommonSecurityLog",
    }
    return record | overrides
