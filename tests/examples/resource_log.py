"""A resource log record as a diagnostic setting streams it: Key Vault imports a certificate."""

from __future__ import annotations

from typing import Any

from tests.examples._base import SUBSCRIPTION

IDENTITY = ("correlationId",)
VERSION = ("time", "resultType")
RESOLVED = None

VAULT = (
    f"/SUBSCRIPTIONS/{SUBSCRIPTION.upper()}/RESOURCEGROUPS/RG-SHOP/PROVIDERS"
    "/MICROSOFT.KEYVAULT/VAULTS/SHOP-KEYS"
)
SHA1 = "0123456789abcdef0123456789abcdef01234567"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "time": "2026-03-04T10:20:00.1234567Z",
        "category": "AuditEvent",
        "operationName": "CertificateImport",
        "operationVersion": "7.4",
        "resultType": "Success",
        "resultSignature": "OK",
        "resultDescription": "Imported.",
        "level": "Informational",
        "durationMs": "23",
        "callerIpAddress": "198.51.100.7",
        "correlationId": "bbbbbbbb-1111-4222-8333-444455556666",
        "identity": {
            "claim": {
                "oid": "cccccccc-1111-4222-8333-444455556666",
                "appid": "dddddddd-1111-4222-8333-444455556666",
                "upn": "alice@example.com",
                "ipaddr": "198.51.100.7",
            }
        },
        "properties": {
            "id": "https://shop-keys.vault.example.net/certificates/web",
            "clientInfo": "Mozilla/5.0",
            "httpStatusCode": 200,
            "requestUri": "https://shop-keys.vault.example.net/certificates/web/import?v=7",
            "certificateProperties": {"subject": "CN=shop.example.com", "sha1": SHA1},
            "tlsVersion": "TLS1_3",
            "properties": {"tenantId": "22222222-0000-4000-8000-000000000002"},
            "message": "as it was",
        },
        "resourceId": VAULT,
    }
    return record | overrides
