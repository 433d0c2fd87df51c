from __future__ import annotations

import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.fixtures import (
    RESOURCE,
    SUBSCRIPTION,
    WORKSPACE_SUBSCRIPTION,
    encoded,
    security_alert,
)
from tests.schemas.kinds import told

ENTITIES = [{"$id": "2", "Type": "host", "AzureID": RESOURCE}, {"$ref": "2"}, "odd"]


def read(**overrides: object) -> Alert:
    return understand(encoded(security_alert(**overrides)))


def test_every_field() -> None:
    record = security_alert()
    assert told(read()) == {
        "kind": "security_alert",
        "entity": record["SystemAlertId"],
        "version": "New 2026-03-04T10:19:59.1Z cccccccc-1111-4222-8333-444455556666",
        "title": "Sign-in from two continents",
        "description": record["Description"],
        "severity": "medium",
        "severity_original": "Medium",
        "status": "new",
        "status_original": "New",
        "event_ms": 1772619600123,
        "start_ms": 1772617800500,
        "end_ms": 1772618700000,
        "resource": "mallory@corp.example",
        "tactics": ("InitialAccess", "Persistence"),
        "techniques": ("T1078",),
        "product": "Azure Sentinel",
        "alert_type": record["AlertType"],
    }


def test_details() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(
                type="user",
                name="mallory",
                domain="corp.example",
                id="dddddddd-1111-4222-8333-444455556666",
                role="target",
            ),
            Entity(type="ip", name="203.0.113.7", attributes={"CountryCode": "NL"}),
            Entity(type="application", name="Office 365", id="11161"),
            Entity(type="ip", name="198.51.100.9", role="source"),
        ),
        related=("aaaaaaaa-1111-4222-8333-444455556666",),
        attributes={
            "provider": "ASI Scheduled Alerts",
            "component": "Scheduled Alerts",
            "confidence": "High",
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "workspace_subscription_id": WORKSPACE_SUBSCRIPTION,
            "remediation": "Ask the account.\nReset the password.",
        },
    )


def test_entities_of_a_cut_off_column_are_told_as_far_as_they_go() -> None:
    entities = '[{"$id":"2","HostName":"vm-1","Type":"host"},{"$id":"3","Na'
    assert details(read(Entities=entities)).hosts == ("vm-1",)


@pytest.mark.parametrize(
    "overrides",
    [
        {"ResourceId": RESOURCE},
        {"ResourceId": "", "Entities": encoded(ENTITIES).decode()},
        {"ResourceId": None, "Entities": ENTITIES},
        {"Entities": "", "ExtendedProperties": {"EffectiveSubscriptionId": SUBSCRIPTION}},
        {"AlertLink": f"https://portal/#x/subscriptionId/{SUBSCRIPTION}/resourceGroup/y"},
    ],
)
def test_subscription(overrides: dict[str, object]) -> None:
    alert = read(**overrides)
    assert alert.subscription_id == SUBSCRIPTION
    if "ResourceId" in overrides:
        assert alert.resource_ids == (RESOURCE,)


def test_entities_that_do_not_parse_are_left_alone() -> None:
    assert read(Entities='[{"AzureID":"/subscriptions/1').subscription_id == ""


def test_rows_of_older_workspaces() -> None:
    record = security_alert(
        Severity="Low", StartTimeUtc="2026-03-04 09:50:00", EndTimeUtc="2026-03-04 10:00:00"
    )
    for name in ("Type", "_ItemId", "AlertSeverity", "StartTime", "EndTime", "DisplayName"):
        del record[name]
    alert = understand(encoded(record))
    assert (alert.kind, alert.severity, alert.title) == (
        *("security_alert", "low", "Sign-in from two continents"),
    )
    assert (alert.start_ms, alert.end_ms) == (1772617800000, 1772618400000)


def test_without_row_id_and_processing_time_the_body_tells_versions_apart() -> None:
    bare = {"_ItemId": None, "ProcessingEndTime": None}
    assert read(**bare).key == read(**bare).key
    assert read(**bare).key != read(**bare, Description="changed").key


def test_subtechniques_count_as_techniques() -> None:
    assert read(SubTechniques='["T1078.004"]').techniques == ("T1078", "T1078.004")
