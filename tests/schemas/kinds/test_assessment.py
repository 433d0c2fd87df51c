from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import encoded, without
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.assessment import ID, KEY, record
from tests.schemas.kinds import reader, samples, told

read = reader(record)


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "assessment",
        "entity": ID.lower(),
        "version": "Insert Unhealthy 2026-03-04T10:13:14.9876543Z",
        "title": "Disks of machines should be encrypted",
        "description": "What lies on a disk in the clear can be read by who copies it.",
        "severity": "high",
        "severity_original": "High",
        "status": "new",
        "status_original": "Unhealthy",
        "event_ms": 1772619194987,
        "start_ms": 1769932800500,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "shop-vm-1",
        "tactics": ("CredentialAccess", "Collection"),
        "techniques": ("T1005",),
        "product": "Microsoft Defender for Cloud",
        "alert_type": KEY,
        "link": "https://portal.azure.com/#blade/Microsoft_Azure_Security/RecommendationsBlade"
        f"/assessmentKey/{KEY}",
    }


def test_details() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="host", name="shop-vm-1", id=RESOURCE),
            Entity(type="user", id="aaaaaaaa-0000-4000-8000-0000000000f1"),
        ),
        action="Insert",
        related=(f"/subscriptions/{SUBSCRIPTION}/attack-path-1",),
        attributes={
            "tenant_id": "33333333-0000-4000-8000-000000000003",
            "cloud": "Azure",
            "snapshot": "false",
            "assessment_type": "BuiltIn",
            "policy_definition_id": "/providers/Microsoft.Authorization/policyDefinitions/pd-1",
            "cause": "VolumeNotEncrypted",
            "reason": "One of two disks is in the clear",
            "remediation": "1. Stop the machine.<br>2. Encrypt its disks.",
            "category": "Compute, Data",
            "threats": "DataExfiltration, DataSpillage",
            "techniques": "T1005, Data from Local System",
            "user_impact": "Low",
            "implementation_effort": "Moderate",
            "risk_level": "Critical",
            "risk_factors": "Internet exposure",
        },
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("Unhealthy", "new"),
        ("Healthy", "resolved"),
        ("NotApplicable", "dismissed"),
        ("OffByPolicy", "dismissed"),
        ("Odd", "unknown"),
    ],
)
def test_status(code: str, status: str) -> None:
    alert = read("properties.status.code", code)
    assert (alert.status, alert.status_original) == (status, code)


def test_what_was_deleted_is_resolved() -> None:
    alert = read("securityEventDataEnrichment.action", "Delete")
    assert (alert.status, alert.status_original) == ("resolved", "Unhealthy")
    assert alert.key != read().key


def test_a_snapshot_is_no_repeat_of_the_change() -> None:
    snapshot = read("securityEventDataEnrichment.isSnapshot", True)
    assert snapshot.version == "Insert snapshot Unhealthy 2026-03-04T10:13:14.9876543Z"
    assert snapshot.entity == read().entity
    assert snapshot.key != read().key
    assert details(snapshot).attributes["snapshot"] == "true"


def test_the_case_of_an_id_makes_no_other_entity() -> None:
    assert read("id", ID.upper()).key == read().key


def test_without_a_time_of_change_the_body_is_the_version() -> None:
    """As in the published schema, whose states have none."""
    path = "properties.status.statusChangeDate"
    one, other = without(record(), path), without(record(tags={}), path)
    assert understand(encoded(one)).event_ms == 0
    assert understand(encoded(one)).key != understand(encoded(other)).key


@pytest.mark.parametrize(
    ("source", "cloud"), [("Aws", "AWS"), ("gcp", "GCP"), ("OnPremise", "OnPremise")]
)
def test_the_cloud_of_the_resource(source: str, cloud: str) -> None:
    alert = read("properties.resourceDetails.source", source)
    assert details(alert).attributes["cloud"] == cloud


def test_a_resource_of_another_cloud() -> None:
    connector = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-shop/providers/Microsoft.Security"
        "/securityConnectors/aws/securityentitydata/s3-1"
    )
    it = record(id=f"{connector}/providers/Microsoft.Security/assessments/{KEY}")
    it["properties"]["resourceDetails"] = {
        "source": "Aws",
        "id": connector,
        "connectorId": "connector-1",
        "nativeResourceId": "arn:aws:s3:::shop-backup",
    }
    alert = understand(encoded(it))
    assert alert.subscription_id == SUBSCRIPTION
    assert alert.resource_ids == (connector,)
    assert details(alert).entities[0] == Entity(
        type="resource",
        name="s3-1",
        id=connector,
        attributes={"native_id": "arn:aws:s3:::shop-backup", "connector_id": "connector-1"},
    )


def test_a_machine_outside() -> None:
    machine = {"source": "OnPremise", "machineName": "till-3", "vmuuid": "uuid-3"}
    alert = read("properties.resourceDetails", machine)
    assert alert.resource == "till-3"
    assert details(alert).hosts == ("till-3",)


def test_without_details_the_resource_is_what_the_id_is_below() -> None:
    alert = understand(encoded(without(record(), "properties.resourceDetails")))
    assert alert.resource_ids == (RESOURCE,)


def test_the_risk_stands_in_for_a_severity() -> None:
    alert = understand(encoded(without(record(), "properties.metadata")))
    assert (alert.severity, alert.severity_original) == ("critical", "Critical")
    assert alert.title == "Disks of machines should be encrypted"


def test_users_in_a_string() -> None:
    alert = read("properties.additionalData", {"usersWithNoMfaObjectIdList": '["u-1","u-2"]'})
    assert [user.id for user in details(alert).of("user")] == ["u-1", "u-2"]


def test_inner_keys_match_case_blind() -> None:
    status = {"Code": "Healthy", "StatusChangeDate": "2026-03-04T10:13:14.9876543Z"}
    alert = read("properties.status", status)
    assert (alert.status_original, alert.event_ms) == ("Healthy", 1772619194987)
    older = without(record(), "securityEventDataEnrichment")
    del older["assessmentEventDataEnrichment"]
    older["AssessmentEventDataEnrichment"] = {"Action": "Insert", "ApiVersion": "2019-01-01"}
    assert understand(encoded(older)).key == read().key


@pytest.mark.parametrize(
    ("written", "repair"),
    [
        (encoded(record()["properties"]).decode(), "json_in_string"),
        (str(record()["properties"]), "single_quotes"),
    ],
)
def test_properties_in_a_string(written: str, repair: str) -> None:
    alert = read("properties", written)
    assert alert.repairs == (repair,)
    assert alert.key == read().key
    assert details(alert) == details(read())


@pytest.mark.parametrize("properties", ["", "text", "[1]", "{", 7, [], None])
def test_properties_that_are_none(properties: Any) -> None:
    alert = read("properties", properties)
    assert alert.repairs == ()
    assert alert.title == KEY
    assert alert.resource_ids == (RESOURCE,)
    assert details(alert).action == "Insert"


def test_a_real_one(shared: Path) -> None:
    alerts = samples(shared, "mdc_continuous_export")
    (alert,) = [alert for alert in alerts if alert.kind == "assessment"]
    assert (alert.status, alert.status_original) == ("resolved", "Healthy")
    assert alert.version == "Delete Healthy 2023-05-09T13:19:49.3381028Z"
    assert alert.event_ms == 1683638389338
    assert alert.resource == "mbranca-esf"
