from __future__ import annotations

from typing import Any

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import changed, encoded, without
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.attack_path import ASSESSMENT, NAME, VAULT, legacy, record
from tests.schemas.kinds import reader, told

read = reader(record)


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "attack_path",
        "entity": f"/subscriptions/{SUBSCRIPTION}/providers/microsoft.security/attackpaths/{NAME}",
        "version": "Insert High d50dd605",
        "title": "Machine on the internet can read a vault",
        "description": "A machine that the internet reaches may read all secrets of a vault.",
        "severity": "high",
        "severity_original": "High",
        "status": "new",
        "status_original": "Insert",
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (VAULT, RESOURCE),
        "resource": "shop-secrets",
        "tactics": ("InitialAccess", "CredentialAccess"),
        "techniques": ("T1190",),
        "product": "Microsoft Defender for Cloud",
        "alert_type": "InternetExposedVmToVault",
    }


NODES = (
    Entity(
        type="host",
        name="shop-vm-1",
        id=RESOURCE,
        role="source",
        attributes={"type": "microsoft.compute/virtualmachines"},
    ),
    Entity(
        type="resource",
        name="shop-secrets",
        id=VAULT,
        role="target",
        attributes={"type": "microsoft.keyvault/vaults"},
    ),
    Entity(
        type="application",
        name="shop-identity",
        id="aaaaaaaa-0000-4000-8000-0000000000f2",
        attributes={"type": "managedidentity"},
    ),
    Entity(
        type="user",
        name="alice",
        domain="example.com",
        id="aaaaaaaa-0000-4000-8000-0000000000f3",
        attributes={"type": "user"},
    ),
    Entity(type="ip", name="203.0.113.9", attributes={"type": "ipaddress"}),
)


def test_details() -> None:
    assert details(read()) == Details(
        entities=NODES,
        action="Insert",
        related=(ASSESSMENT.lower(),),
        attributes={
            "tenant_id": "33333333-0000-4000-8000-000000000003",
            "location": "westeurope",
            "snapshot": "false",
            "attack_path_id": NAME,
            "entry_point": "shop-vm-1",
            "target": "shop-secrets",
            "steps": "2",
            "partial": "false",
            "story": "An attacker enters the machine and reads the vault as its identity.",
            "risk_level": "High",
            "risk_factors": "Internet exposure, Weak authorization",
            "refresh_interval": "06:00:00",
            "remediation": "Close the port.\nTake the identity's rights.",
        },
    )


def test_the_older_form() -> None:
    alert = understand(encoded(legacy()))
    assert (alert.kind, alert.entity) == ("attack_path", read().entity)
    assert alert.title == read().title
    assert alert.alert_type == "InternetExposedVmToVault"
    assert alert.resource == "shop-secrets"
    assert set(alert.resource_ids) == {VAULT, RESOURCE}
    assert (alert.severity, alert.severity_original) == ("unknown", "")  # it has no such word
    found = details(alert)
    assert [(node.name, node.role) for node in found.entities] == [
        (node.name, node.role) for node in NODES
    ]
    assert found.attributes == {
        "tenant_id": "33333333-0000-4000-8000-000000000003",
        "location": "westeurope",
        "snapshot": "false",
        "attack_path_id": NAME,
        "entry_point": "shop-vm-1",
        "target": "shop-secrets",
        "potential_impact": "Sensitive data exposure",
        "risk_categories": "Data exposure, Compute abuse",
        "refresh_interval": "06:00:00",
        "remediation": "Close the port.",
    }


def test_an_impact_that_is_a_severity() -> None:
    alert = understand(encoded(legacy(potentialImpact="Medium")))
    assert (alert.severity, alert.severity_original) == ("medium", "Medium")


@pytest.mark.parametrize(
    "type_",
    [
        *("microsoft.security/attackpaths", "Microsoft.Security/attackPaths"),
        *("microsoft.security/locations/attackpaths", "MICROSOFT.SECURITY/ATTACKPATHS"),
    ],
)
def test_types(type_: str) -> None:
    assert read("type", type_).kind == "attack_path"


def test_without_an_id_the_path_has_its_own() -> None:
    assert read("id").entity == NAME
    assert read("id").subscription_id == SUBSCRIPTION
    assert understand(encoded(without(record(), "subscriptionId"))).subscription_id == SUBSCRIPTION


@pytest.mark.parametrize(
    ("action", "status"), [("Insert", "new"), ("Write", "unknown"), ("Delete", "resolved")]
)
def test_status(action: str, status: str) -> None:
    alert = read("securityEventDataEnrichment.action", action)
    assert (alert.status, alert.status_original) == (status, action)


def test_a_status_that_it_names() -> None:
    alert = read("properties.status", "Resolved")
    assert (alert.status, alert.status_original) == ("resolved", "Resolved")


def test_an_exact_repeat_only_is_a_repeat() -> None:
    assert read().key == read().key
    assert read("properties.attackStory", "Another way").key != read().key
    assert read("properties.attackStory", "Another way").entity == read().entity


@pytest.mark.parametrize(
    "mitre",
    [
        {"Initial Access": ["T1190"], "CredentialAccess": []},
        '["Initial Access","CredentialAccess","Exploit Public-Facing Application (T1190)"]',
        "InitialAccess, Credential Access, T1190",
        [{"tactic": "InitialAccess", "technique": "T1190"}, {"tactic": "CredentialAccess"}],
    ],
)
def test_tactics_and_techniques_in_whatever_holds_them(mitre: Any) -> None:
    alert = read("properties.mITRETacticsAndTechniques", mitre)
    assert (alert.tactics, alert.techniques) == (("InitialAccess", "CredentialAccess"), ("T1190",))


def test_entry_point_and_target_by_name_only() -> None:
    it = changed(record(), "properties.entryPoint", "Internet")
    it = changed(it, "properties.target", encoded({"name": "shop-secrets"}).decode())
    found = details(understand(encoded(it)))
    assert found.attributes["entry_point"] == "Internet"
    assert found.attributes["target"] == "shop-secrets"
    assert Entity(type="other", name="Internet", role="source") in found.entities


@pytest.mark.parametrize("value", [None, 7, "{", [], [7, None, "x"], {"entities": 7}, {"a": []}])
def test_graphs_that_are_none(value: Any) -> None:
    it = read("properties.graphComponent", value)
    assert it.resource_ids == (VAULT,)
    assert [entity.name for entity in details(it).entities] == ["shop-vm-1", "shop-secrets"]
