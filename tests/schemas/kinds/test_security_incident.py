from __future__ import annotations

import msgspec
import pytest

from schemas.alert import Alert
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, encoded, security_incident


def read(**overrides: object) -> Alert:
    return understand(encoded(security_incident(**overrides)))


def test_every_field() -> None:
    record = security_incident()
    assert msgspec.structs.asdict(read()) == {
        "kind": "security_incident",
        "key": bytes.fromhex("a863f92054e28a8826c2aca3e98466aa"),
        "entity": f"{record['TenantId']}/{record['IncidentName']}",
        "version": "2026-03-04T10:29:59.25Z",
        "title": "Sign-in from two continents",
        "description": "",
        "severity": "low",
        "severity_original": "Low",
        "status": "new",
        "status_original": "New",
        "event_ms": 1772620199250,
        "start_ms": 1772617800500,
        "end_ms": 1772618700000,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (),
        "resource": "",
        "tactics": ("InitialAccess",),
        "techniques": ("T1078",),
        "vendor": "Microsoft",
        "product": "Azure Sentinel",
        "alert_type": "",
        "link": record["IncidentUrl"],
        "raw": encoded(record),
        "original": b"",
        "repairs": (),
        "masked": 0,
        "sequence": 0,
        "index": 0,
        "enqueued_ms": 0,
        "subscription": None,
    }


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
