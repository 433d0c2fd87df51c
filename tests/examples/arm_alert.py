"""Defender for Cloud's alerts API: a security alert."""

from __future__ import annotations

from typing import Any

from tests.examples._base import PORTAL, RESOURCE, SUBSCRIPTION, WORKSPACE_SUBSCRIPTION

IDENTITY = ("properties.systemAlertId",)
VERSION = ("properties.status", "properties.processingEndTimeUtc", "properties.description")
RESOLVED = {"properties.status": "Resolved"}

STORAGE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers"
    "/Microsoft.Storage/storageAccounts/shopdata"
)
NAME = "2517000000000000002_0a1b2c3d-1111-4222-8333-444455556667"


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers/Microsoft.Security"
        f"/locations/westeurope/alerts/{NAME}",
        "name": NAME,
        "type": "Microsoft.Security/Locations/alerts",
        "properties": {
            "version": "2022-01-01",
            "alertType": "SQL.VM_BruteForce",
            "systemAlertId": NAME,
            "productComponentName": "Databases",
            "alertDisplayName": "Suspected brute force attack",
            "description": "Somebody tried many passwords.",
            "severity": "Medium",
            "intent": "PreAttack, CredentialAccess",
            "startTimeUtc": "2026-03-04T10:11:12.1234567Z",
            "endTimeUtc": "2026-03-04T10:12:00.5Z",
            "resourceIdentifiers": [
                {"$id": "centralus_1", "azureResourceId": RESOURCE, "type": "AzureResource"},
                {
                    "$id": "centralus_2",
                    "workspaceId": "22222222-0000-4000-8000-000000000002",
                    "workspaceSubscriptionId": WORKSPACE_SUBSCRIPTION,
                    "type": "LogAnalytics",
                },
            ],
            "remediationSteps": ["Ask the machine's owner.", "Close the port."],
            "vendorName": "Microsoft",
            "status": "Active",
            "extendedLinks": [
                {"Category": "threat_reports", "Href": "https://example.com/r", "Type": "webLink"}
            ],
            "alertUri": f"{PORTAL}/Microsoft_Azure_Security/AlertBlade/alertId/{NAME}"
            f"/subscriptionId/{SUBSCRIPTION}/resourceGroup/rg-shop/location/westeurope",
            "timeGeneratedUtc": "2026-03-04T10:13:14.9876543Z",
            "productName": "Microsoft Defender for Cloud",
            "processingEndTimeUtc": "2026-03-04T10:13:14.5Z",
            "entities": [
                {
                    "$id": "centralus_3",
                    "hostName": "shop-vm-1",
                    "azureID": RESOURCE,
                    "type": "host",
                },
                {
                    "$id": "centralus_4",
                    "address": "203.0.113.7",
                    "location": {"countryCode": "NL", "asn": 64500},
                    "type": "ip",
                },
                {
                    "$id": "centralus_5",
                    "sourceAddress": {"$ref": "centralus_4"},
                    "protocol": "Tcp",
                    "type": "network-connection",
                },
                {
                    "$id": "centralus_6",
                    "name": "svc-web",
                    "ntDomain": "SHOP",
                    "host": {"$ref": "centralus_3"},
                    "type": "account",
                },
            ],
            "isIncident": False,
            "correlationKey": "a2V5",
            "extendedProperties": {
                "resourceType": "SQL Server 2022",
                "EffectiveSubscriptionId": SUBSCRIPTION,
            },
            "compromisedEntity": "shop-vm-1",
            "techniques": ["T1110"],
            "subTechniques": ["T1110.001"],
            "instanceId": "0a1b2c3d-1111-4222-8333-444455556667",
        },
    }
    return record | overrides


def older() -> dict[str, Any]:
    """As the API's version 2019-01-01 names the fields. Synthetic."""
    return record(
        properties={
            "vendorName": "Microsoft",
            "alertDisplayName": "Much data left a storage account",
            "alertName": "Storage.Blob_DataExfiltration",
            "detectedTimeUtc": "2026-03-04T10:11:12.7Z",
            "description": "Somebody read an unusual amount of data.",
            "remediationSteps": "Ask the owner.",
            "reportedSeverity": "High",
            "compromisedEntity": "shopdata",
            "associatedResource": STORAGE,
            "subscriptionId": SUBSCRIPTION,
            "instanceId": "0a1b2c3d-1111-4222-8333-444455556667",
            "state": "Active",
            "reportedTimeUtc": "2026-03-04T10:13:14.1036441Z",
            "extendedProperties": {"killChainIntent": "Exfiltration"},
            "entities": [{"$id": "centralus_1", "address": "203.0.113.8", "type": "ip"}],
        }
    )
