"""An Entra log record as a diagnostic setting streams it: a sign-in at risk."""

from __future__ import annotations

from typing import Any

IDENTITY = ("properties.id",)
VERSION = ("time", "resultType", "properties.riskState")
RESOLVED = {"properties.riskState": "remediated"}

TENANT = "22222222-0000-4000-8000-000000000003"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "time": "2026-03-04T10:20:00.1234567Z",
        "resourceId": f"/tenants/{TENANT}/providers/Microsoft.aadiam",
        "operationName": "Sign-in activity",
        "operationVersion": "1.0",
        "category": "SignInLogs",
        "tenantId": TENANT,
        "resultType": "50074",
        "resultSignature": "None",
        "resultDescription": "Strong authentication is required.",
        "durationMs": 0,
        "callerIpAddress": "198.51.100.7",
        "correlationId": "bbbbbbbb-1111-4222-8333-444455556666",
        "identity": "EXAMPLE Alice",
        "Level": 4,
        "location": "FR",
        "properties": {
            "id": "aaaaaaaa-1111-4222-8333-444455556666",
            "createdDateTime": "2026-03-04T10:18:00.5+00:00",
            "userDisplayName": "Alice Example",
            "userPrincipalName": "alice@example.com",
            "userId": "cccccccc-1111-4222-8333-444455556666",
            "appId": "dddddddd-1111-4222-8333-444455556666",
            "appDisplayName": "Shop App",
            "ipAddress": "198.51.100.7",
            "status": {"errorCode": 50074, "failureReason": "Strong authentication is required."},
            "clientAppUsed": "Browser",
            "userAgent": "Mozilla/5.0",
            "deviceDetail": {
                "deviceId": "eeeeeeee-1111-4222-8333-444455556666",
                "displayName": "LAPTOP-7",
                "operatingSystem": "Windows 11",
                "browser": "Edge 130",
                "isCompliant": True,
                "isManaged": True,
                "trustType": "Azure AD joined",
            },
            "location": {"city": "Paris", "state": "Paris", "countryOrRegion": "FR"},
            "correlationId": "b2",
            "conditionalAccessStatus": "failure",
            "originalRequestId": "o1",
            "isInteractive": True,
            "riskDetail": "none",
            "riskLevelAggregated": "medium",
            "riskLevelDuringSignIn": "high",
            "riskState": "atRisk",
            "resourceDisplayName": "Microsoft Graph",
            "resourceId": "00000003-0000-0000-c000-000000000000",
            "homeTenantId": TENANT,
            "tenantId": TENANT,
            "authenticationRequirement": "multiFactorAuthentication",
            "userType": "Member",
            "uniqueTokenIdentifier": "u1",
            "sessionId": "s1",
            "authenticationProtocol": "deviceCode",
            "servicePrincipalId": "",
        },
    }
    return record | overrides
