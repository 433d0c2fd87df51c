from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import changed, encoded, without
from tests.examples._base import WORKSPACE_SUBSCRIPTION
from tests.examples.arm_incident import ID, RULE, URL, flattened, from_sdk, record
from tests.schemas.kinds import reader, samples, told

read = reader(record)


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "arm_incident",
        "entity": ID.lower(),
        "version": "2026-03-04T10:20:00.1234567Z",
        "title": "Sign-in from two continents",
        "description": "One account signed in from two continents within minutes.",
        "severity": "medium",
        "severity_original": "Medium",
        "status": "in_progress",
        "status_original": "Active",
        "event_ms": 1772619600123,
        "start_ms": 1772617800500,
        "end_ms": 1772618700000,
        "subscription_id": WORKSPACE_SUBSCRIPTION,
        "tactics": ("InitialAccess", "Persistence"),
        "techniques": ("T1078",),
        "product": "Azure Sentinel",
        "link": URL,
    }


ATTRIBUTES = {
    "incident_number": "4711",
    "workspace": "shop-logs",
    "owner": "erin@example.com",
    "labels": "travel",
    "classification": "TruePositive",
    "classification_reason": "SuspiciousActivity",
    "classification_comment": "The password was stolen.",
    "alerts": "1",
    "bookmarks": "0",
    "comments": "2",
    "products": "Azure Sentinel",
    "rules": RULE,
    "provider_incident_id": "815",
    "created": "2026-03-04T10:19:00Z",
    "provider_incident_url": "https://security.microsoft.com/incidents/815",
}


def test_details() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="user", name="mallory", domain="example.com"),
            Entity(type="ip", name="203.0.113.7"),
        ),
        related=("bbbbbbbb-1111-4222-8333-444455556666", "815"),
        attributes=ATTRIBUTES,
    )


def test_a_tables_row_says_the_same() -> None:
    alert = understand(encoded(flattened()))
    assert msgspec.structs.replace(alert, raw=read().raw) == read()
    found = details(alert)
    assert found.attributes == ATTRIBUTES
    assert found.related == ("bbbbbbbb-1111-4222-8333-444455556666", "815")


def test_the_sdks_form_says_the_same() -> None:
    alert = understand(encoded(from_sdk()))
    assert alert.entity == read().entity
    assert (alert.title, alert.description) == (read().title, read().description)
    assert (alert.severity, alert.status) == ("medium", "in_progress")
    assert (alert.event_ms, alert.start_ms, alert.end_ms) == (
        *(read().event_ms, read().start_ms, read().end_ms),
    )
    assert (alert.tactics, alert.link) == (read().tactics, URL)
    assert alert.product == "Microsoft Sentinel"  # it does not say
    assert details(alert).attributes == {
        name: value
        for name, value in ATTRIBUTES.items()
        if name not in ("provider_incident_id", "provider_incident_url", "created")
    } | {"created": "2026-03-04T10:19:00.000000+00:00"}


@pytest.mark.parametrize(
    ("word", "status"),
    [("New", "new"), ("Active", "in_progress"), ("Closed", "resolved"), ("Odd", "unknown")],
)
def test_status(word: str, status: str) -> None:
    alert = read("properties.status", word)
    assert (alert.status, alert.status_original) == (status, word)


def test_without_a_time_of_change() -> None:
    path = "properties.lastModifiedTimeUtc"
    alert = understand(encoded(without(record(), path)))
    assert alert.version == '"0100-0000"'
    assert alert.event_ms == 1772619540000  # when it was made
    bare = without(without(record(), path), "etag")
    other = without(without(record(x=1), path), "etag")
    assert understand(encoded(bare)).key != understand(encoded(other)).key


def test_an_incident_of_another_workspace_is_another() -> None:
    assert read("id", ID.replace("shop-logs", "other-logs")).entity != read().entity


@pytest.mark.parametrize("owner", [None, "erin", [], {"assignedTo": "Erin Example"}])
def test_owners(owner: Any) -> None:
    found = details(read("properties.owner", owner)).attributes.get("owner")
    assert found == ("Erin Example" if isinstance(owner, dict) else None)


def test_properties_in_a_string() -> None:
    alert = read("properties", encoded(record()["properties"]).decode())
    assert alert.repairs == ("json_in_string",)
    assert alert.key == read().key
    assert details(alert) == details(read())


@pytest.mark.parametrize("value", [None, 7, "x", [7, None, "x", {"properties": 7}, {}], {}])
def test_alerts_and_entities_that_are_none(value: Any) -> None:
    it = changed(record(), "properties.alerts", value)
    it = changed(it, "properties.relatedEntities", value)
    found = details(understand(encoded(it)))
    assert found.entities == ()
    assert found.related == ("815",)


def test_deep_nesting_is_not_fatal() -> None:
    raw = b'{"properties":' * 300 + b"{}" + b"}" * 300
    alert = understand(b'{"type":"Microsoft.SecurityInsights/Incidents","id":"/x",' + raw[1:])
    assert alert.kind == "arm_incident"
    assert details(alert) == Details()


def test_real_ones(shared: Path) -> None:
    alerts = list(samples(shared, "arm_incident_api", "sentinel_incident_sdk"))
    assert {alert.kind for alert in alerts} == {"arm_incident"}
    assert len({alert.entity for alert in alerts}) == len(alerts) == 6
    assert all(alert.event_ms and alert.title and alert.version for alert in alerts)
    assert {alert.status for alert in alerts} == {"new", "in_progress"}
    numbers = [details(alert).attributes["incident_number"] for alert in alerts]
    assert sorted(numbers) == ["14", "60915", "60916", "60917", "60918", "60919"]
