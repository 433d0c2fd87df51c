"""Defender for Cloud continuous export: an attack path. Synthetic: no real one is known; made from
the fields of "Retrieve attack path data with the Azure Resource Graph API" and of public clients
of Resource Graph, in the envelope of the other exports."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("id",)
VERSION = ("properties.riskLevel", "securityEventDataEnrichment.action", "properties.displayName")
RESOLVED = {"securityEventDataEnrichment.action": "Delete"}

NAME = "70819203-1111-4222-8333-00000000d001"
VAULT = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers"
    "/Microsoft.KeyVault/vaults/shop-secrets"
)
ASSESSMENT = f"{RESOURCE}/providers/Microsoft.Security/assessments/key-1"
_GRAPH = {
    "entities": [
        {
            "entityInternalId": "node-1",
            "entityName": "shop-vm-1",
            "entityType": "compute.virtualmachine",
            "entityIdentifiers": {"azureResourceId": RESOURCE},
        },
        {
            "entityInternalId": "node-2",
            "entityName": "shop-identity",
            "entityType": "managedidentity",
            "entityIdentifiers": {"principalOid": "aaaaaaaa-0000-4000-8000-0000000000f2"},
        },
        {
            "entityInternalId": "node-3",
            "entityName": "alice@example.com",
            "entityType": "user",
            "entityIdentifiers": {"objectId": "aaaaaaaa-0000-4000-8000-0000000000f3"},
        },
        {"entityInternalId": "node-4", "entityName": "203.0.113.9", "entityType": "ipaddress"},
        {
            "entityInternalId": "node-5",
            "entityName": "shop-secrets",
            "entityType": "keyvault",
            "entityIdentifiers": {"azureResourceId": VAULT},
        },
    ],
    "connections": [
        {"sourceEntityInternalId": "node-1", "targetEntityInternalId": "node-2"},
        {"sourceEntityInternalId": "node-2", "targetEntityInternalId": "node-5"},
    ],
    "insights": [],
}


def record(**overrides: Any) -> dict[str, Any]:
    """In the form of Exposure Management."""
    record: dict[str, Any] = {
        "securityEventDataEnrichment": {
            "action": "Insert",
            "apiVersion": "2023-01-01",
            "isSnapshot": False,
        },
        "id": f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Security/attackPaths/{NAME}",
        "name": NAME,
        "type": "microsoft.security/attackpaths",
        "tenantId": "33333333-0000-4000-8000-000000000003",
        "location": "westeurope",
        "subscriptionId": SUBSCRIPTION,
        "properties": {
            "displayName": "Machine on the internet can read a vault",
            "description": "A machine that the internet reaches may read all secrets of a vault.",
            "attackPathType": "InternetExposedVmToVault",
            "AttackPathID": NAME,
            "refreshInterval": "06:00:00",
            "manualRemediationSteps": ["Close the port.", "Take the identity's rights."],
            "riskLevel": "High",
            "riskFactors": ["Internet exposure", "Weak authorization"],
            "entryPoint": {"name": "shop-vm-1", "type": "microsoft.compute/virtualmachines"},
            "target": {
                "name": "shop-secrets",
                "type": "microsoft.keyvault/vaults",
                "azureResourceId": VAULT,
            },
            "attackPathSteps": [{"stepId": 1}, {"stepId": 2}],
            "mITRETacticsAndTechniques": ["Initial Access", "CredentialAccess", "T1190"],
            "attackStory": "An attacker enters the machine and reads the vault as its identity.",
            "isPartialAttackPath": False,
            "status": None,
            "assessments": {"node-1": [{"id": ASSESSMENT}]},
            "graphComponent": _GRAPH,
        },
    }
    return record | overrides


def legacy(**overrides: Any) -> dict[str, Any]:
    """In the older, documented form."""
    return record(
        properties={
            "displayName": "Machine on the internet can read a vault",
            "description": "A machine that the internet reaches may read all secrets of a vault.",
            "attackPathType": "InternetExposedVmToVault",
            "manualRemediationSteps": "Close the port.",
            "refreshInterval": "06:00:00",
            "potentialImpact": "Sensitive data exposure",
            "riskCategories": ["Data exposure", "Compute abuse"],
            "entryPointEntityInternalID": "node-1",
            "targetEntityInternalID": "node-5",
            "assessments": {},
            "graphComponent": [_GRAPH],
            "AttackPathID": NAME,
        }
        | overrides
    )
