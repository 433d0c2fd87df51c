"""An Activity Log record as a diagnostic setting streams it: an alert of Defender for Cloud."""

from __future__ import annotations

from typing import Any

from tests.examples._base import PORTAL, RESOURCE, SUBSCRIPTION

IDENTITY = ("correlationId", "operationName", "resourceId")
VERSION = ("resultType", "time")
RESOLVED = {"resultType": "Resolved"}

ALERT = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers/Microsoft.Security"
    "/locations/westeurope/alerts/2518_aaaaaaaa-1111-4222-8333-444455556666"
)
CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
OBJECT_ID = "http://schemas.microsoft.com/identity/claims/objectidentifier"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "time": "2026-03-04T10:20:00.1234567Z",
        "resourceId": ALERT,
        "operationName": "Microsoft.Security/locations/alerts/activate/action",
        "category": "Security",
        "resultType": "Active",
        "resultSignature": "Active.",
        "resultDescription": "A process with a double extension ran.",
        "durationMs": 0,
        "callerIpAddress": "198.51.100.7:443",
        "correlationId": "bbbbbbbb-1111-4222-8333-444455556666",
        "identity": {
            "authorization": {
                "scope": RESOURCE,
                "action": "Microsoft.Security/locations/alerts/activate/action",
                "evidence": {"role": "Owner", "principalType": "User", "roleAssignmentId": "7a"},
            },
            "claims": {
                f"{CLAIMS}/upn": "alice@example.com",
                OBJECT_ID: "cccccccc-1111-4222-8333-444455556666",
                "name": "Alice Example",
                "appid": "dddddddd-1111-4222-8333-444455556666",
                "ipaddr": "2001:db8::7",
                "http://schemas.microsoft.com/claims/authnmethodsreferences": "pwd,mfa",
            },
        },
        "level": "Informational",
        "location": "global",
        "properties": {
            "eventCategory": "Security",
            "eventName": "Suspicious double extension file executed",
            "operationId": "eeeeeeee-1111-4222-8333-444455556666",
            "eventProperties": {
                "processName": r"c:\temp\invoice.pdf.exe",
                "commandLine": r"c:\temp\invoice.pdf.exe -q",
                "processId": "6988",
                "parentProcess id": "512",
                "userName": "bob",
                "domainName": "SHOP",
                "UserSID": "S-1-5-21-7",
                "accountLogonId": "0x2r4",
                "compromisedEntity": "shop-vm-1",
                "Attacker source IP": "203.0.113.9",
                "ActionTaken": "Detected",
                "intent": "Execution, Persistence",
                "Severity": "High",
                "recommendationResourceLink": f"{PORTAL}/7",
            },
        },
    }
    return record | overrides
