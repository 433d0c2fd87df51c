from __future__ import annotations

import pytest

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import details, understand
from tests.fixtures import SUBSCRIPTION, encoded, security_incident
from tests.schemas.kinds import told


def read(**overrides: object) -> Alert:
    return understand(encoded(security_incident(**overrides)))


def test_every_field() -> None:
    record = security_incident()
    assert told(read()) == {
        "kind": "security_incident",
        "entity": f"{record['TenantId']}/{record['IncidentName']}",
        "version": "2026-03-04T10:29:59.25Z",
        "title": "Sign-in from two continents",
        "severity": "low",
        "severity_original": "Low",
        "status": "new",
        "status_original": "New",
        "event_ms": 1772620199250,
        "start_ms": 1772617800500,
        "end_ms": 1772618700000,
        "subscription_id": SUBSCRIPTION,
        "tactics": ("InitialAccess",),
        "techniques": ("T1078",),
        "product": "Azure Sentinel",
        "link": record["IncidentUrl"],
    }


def test_details() -> None:
    assert details(read()) == Details(
        related=("bbbbbbbb-1111-4222-8333-444455556666",),
        attributes={
            "incident_number": "41",
            "provider_incident_id": "41",
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "classification": "TruePositive",
            "classification_reason": "SuspiciousActivity",
            "classification_comment": "Seen before.",
            "modified_by": "sam@corp.example",
            "created": "2026-03-04T10:25:00Z",
            "alerts": "1",
            "bookmarks": "0",
            "comments": "2",
            "owner": "sam@corp.example",
            "owner_id": "aaaaaaaa-9999-4222-8333-444455556666",
            "products": "Azure Sentinel",
            "rules": "eeeeeeee-1111-4222-8333-444455556666",
            "labels": "identity",
        },
    )


@pytest.mark.parametrize("ids", [["a-1", "a-2"], '["a-1","a-2","A-1"]', "a-1, a-2"])
def test_alert_ids_as_a_list_or_a_string(ids: object) -> None:
    assert details(read(AlertIds=ids)).related == ("a-1", "a-2")


@pytest.mark.parametrize(
    "owner",
    [
        {"ObjectId": "o-1", "Email": "sam@corp.example", "userPrincipalName": None},
        '{"objectId":"o-1","assignedTo":"sam@corp.example"}',
        "{'objectId': 'o-1', 'email': 'sam@corp.example', 'assignedTo': None}",
    ],
)
def test_the_owner_as_an_object_or_a_string(owner: object) -> None:
    said = details(read(Owner=owner)).attributes
    assert (said["owner"], said["owner_id"]) == ("sam@corp.example", "o-1")


@pytest.mark.parametrize(
    ("word", "status"), [("Active", "in_progress"), ("Closed", "resolved"), ("Odd", "unknown")]
)
def test_status(word: str, status: str) -> None:
    assert read(Status=word).status == status


def test_the_same_number_in_another_workspace_is_another_incident() -> None:
    assert read().entity != read(TenantId="another").entity


def test_additional_data_as_an_object() -> None:
    assert read(AdditionalData={"tactics": ["Impact", 7, None]}).tactics == ("Impact",)
    assert read(AdditionalData={"tactics": "Impact"}).tactics == ("Impact",)
    assert read(AdditionalData="[]").tactics == ()


def test_without_a_time_of_change() -> None:
    alert = read(LastModifiedTime="None")
    assert alert.event_ms == 1772620200500
    assert read(LastModifiedTime=None).key != read(LastModifiedTime=None, Title="x").key
