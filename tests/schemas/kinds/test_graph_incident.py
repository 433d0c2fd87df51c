from __future__ import annotations

from pathlib import Path

import pytest

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples.graph_incident import record
from tests.fixtures import RESOURCE, SUBSCRIPTION
from tests.schemas.kinds import samples, told


def read(**overrides: object) -> Alert:
    return understand(encoded(record(**overrides)))


def mentioned(**overrides: object) -> Details:
    return details(read(**overrides))


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "graph_incident",
        "entity": f"{record()['tenantId']}/4711",
        "version": "2026-03-04T10:20:00.5Z",
        "title": "A hidden file on two machines",
        "description": "Two machines ran the same hidden file.",
        "severity": "high",
        "severity_original": "high",
        "status": "new",
        "status_original": "active",
        "event_ms": 1772619600500,
        "start_ms": 1772619072123,
        "end_ms": 1772619300000,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE, f"{RESOURCE}/extensions/x"),
        "resource": "shop-vm-1",
        "tactics": ("DefenseEvasion",),
        "techniques": ("T1564.001", "T1204"),
        "product": "Microsoft Defender XDR",
        "link": record()["incidentWebUrl"],
    }


def test_details() -> None:
    found = mentioned()
    assert found.related == (
        "ed0000000000000000_1",
        "bbbbbbbb-5555-4222-8333-444455556666",
        "ed0000000000000000_2",
    )
    assert found.attributes == {
        "tenant_id": record()["tenantId"],
        "incident_id": "4711",
        "classification": "truePositive",
        "determination": "malware",
        "owner": "sam@corp.example",
        "priority": "80",
        "labels": "plant",
        "system_tags": "Defender Experts",
        "summary": "Two machines ran the same hidden file.",
        "created": "2026-03-04T10:14:00Z",
        "comments": "0",
        "alerts": "2",
    }
    assert found.hosts == ("pc-1.corp.example",)
    assert found.users == ("CORP\\bob", "ann@corp.example", "eve@evil.example")


def test_an_incident_that_was_merged_into_another_one() -> None:
    merged = {"status": "redirected", "redirectIncidentId": "4700", "alerts": []}
    alert = read(**merged)
    assert (alert.status, alert.status_original) == ("resolved", "redirected")
    found = details(alert)
    assert found.related == ("4700",)
    assert found.attributes["redirect_incident_id"] == "4700"


@pytest.mark.parametrize(
    ("word", "status"),
    [("inProgress", "in_progress"), ("awaitingAction", "in_progress"), ("resolved", "resolved")],
)
def test_status(word: str, status: str) -> None:
    assert read(status=word).status == status


def test_without_its_alerts() -> None:
    bare = record()
    del bare["alerts"]
    alert = understand(encoded(bare))
    assert (alert.start_ms, alert.end_ms, alert.resource_ids) == (0, 0, ())
    assert details(alert).entities == ()
    assert read(alerts="odd").tactics == ()
    assert mentioned(alerts=[None, "odd", {"id": 7}]).related == ("7",)


def test_the_same_id_in_another_tenant_is_another_incident() -> None:
    assert read().entity != read(tenantId="another").entity


def test_an_incident_is_told_without_its_type() -> None:
    rest = record()
    del rest["@odata.type"]
    assert understand(encoded(rest)).kind == "graph_incident"


def test_without_a_time_of_change() -> None:
    assert read(lastUpdateDateTime=None).event_ms == 1772619240000


def test_real_incidents(shared: Path) -> None:
    found = list(samples(shared, "graph_incident"))
    assert [(alert.kind, alert.status, alert.title) for alert in found] == [
        ("graph_incident", "resolved", "Credential theft investigation"),
        ("graph_incident", "resolved", "Merged endpoint incident"),
    ]
    assert details(found[1]).related == ("incident-1",)
