"""A Syslog row as Log Analytics exports it: a password was refused."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("_ItemId",)
VERSION = ()
RESOLVED = None

MESSAGE = "Failed password for invalid user mallory from 203.0.113.30 port 40022 ssh2"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "TenantId": "22222222-0000-4000-8000-000000000002",
        "SourceSystem": "Linux",
        "TimeGenerated": "2026-03-04T10:20:03.5Z",
        "Computer": "shop-vm-1",
        "EventTime": "2026-03-04T10:20:00Z",
        "Facility": "authpriv",
        "HostName": "shop-vm-1",
        "SeverityLevel": "notice",
        "SyslogMessage": MESSAGE,
        "ProcessID": "2117",
        "HostIP": "10.1.0.5",
        "ProcessName": "sshd",
        "MG": "00000000-0000-0000-0000-000000000002",
        "CollectorHostName": "collector-1",
        "_ItemId": "ffffffff-1111-4222-8333-444455556666",
        "_ResourceId": RESOURCE,
        "_SubscriptionId": SUBSCRIPTION,
        "Type": "Syslog",
    }
    return record | overrides
