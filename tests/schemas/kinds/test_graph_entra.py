from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.kinds import details, understand
from tests.examples import encoded, without
from tests.examples.graph_entra import record
from tests.schemas.kinds import read, samples, told

RISKY: dict[str, Any] = {
    "id": "u1",
    "userDisplayName": "Alice Example",
    "userPrincipalName": "alice@example.com",
    "riskLevel": "medium",
    "riskState": "confirmedCompromised",
    "riskDetail": "adminConfirmedUserCompromised",
    "riskLastUpdatedDateTime": "2026-03-04T10:20:00Z",
    "isDeleted": False,
}
SIGN_IN: dict[str, Any] = {
    "id": "i1",
    "createdDateTime": "2026-03-04T10:20:00Z",
    "userId": "u1",
    "userPrincipalName": "alice@example.com",
    "appId": "a1",
    "appDisplayName": "Shop App",
    "resourceId": "x1",
    "resourceDisplayName": "Microsoft Graph",
    "ipAddress": "198.51.100.7",
    "location": {"city": "Berlin", "countryOrRegion": "DE"},
    "status": {"errorCode": 50126, "failureReason": "Invalid username or password."},
    "deviceDetail": {"operatingSystem": "Windows 11", "deviceId": "d1"},
    "riskState": "none",
    "riskLevelDuringSignIn": "none",
}


def test_every_field() -> None:
    raw = encoded(record())
    alert = understand(raw)
    assert told(alert) == {
        "kind": "graph_entra",
        "entity": "Directory_aaaaaaaa_1",
        "version": "1772619600123 - success - -",
        "title": "Add member to group",
        "description": "As asked",
        "event_ms": 1772619600123,
        "start_ms": 1772619600123,
        "product": "Microsoft Entra ID",
        "alert_type": "Add member to group",
    }


def test_everything_it_mentions() -> None:
    found = details(read(record()))
    assert found.users == ("alice@example.com", "bob@example.com")
    assert found.ips == ("198.51.100.7", "198.51.100.8")
    assert [(it.name, it.id, it.role) for it in found.of("group")] == [
        ("Administrators", "eeeeeeee-1111-4222-8333-444455556666", "target")
    ]
    assert (found.action, found.outcome) == ("Add member to group", "success")
    assert found.attributes == {
        "correlation_id": "bbbbbbbb-1111-4222-8333-444455556666",
        "category": "GroupManagement",
        "service": "Core Directory",
        "operation_type": "Assign",
        "reason": "As asked",
        "user_agent": "Mozilla/5.0",
        "modified_properties": "Group.ObjectID, Group.DisplayName",
    }


def test_a_sign_in() -> None:
    alert = read(SIGN_IN)
    assert (alert.kind, alert.entity, alert.title) == ("graph_entra", "i1", "Sign-in activity")
    assert (alert.event_ms, alert.resource) == (1772619600000, "alice@example.com")
    assert (alert.severity, alert.status_original) == ("unknown", "")
    found = details(alert)
    assert found.users == ("alice@example.com",)
    assert found.outcome == "failure"
    assert [it.id for it in found.of("host")] == ["d1"]
    assert [it.name for it in found.of("application")] == ["Shop App", "Microsoft Graph"]
    assert found.attributes["reason"] == "Invalid username or password."


def test_a_risky_user() -> None:
    alert = read(RISKY)
    assert (alert.kind, alert.entity, alert.title) == ("graph_entra", "u1", "Risky user")
    assert (alert.severity, alert.status) == ("medium", "new")
    assert alert.event_ms == alert.end_ms == 1772619600000
    assert alert.description == "adminConfirmedUserCompromised"
    assert alert.product == "Microsoft Entra ID Protection"
    (user,) = details(alert).of("user")
    assert (user.full_name, user.id, user.role) == ("alice@example.com", "u1", "target")


def test_a_risky_application() -> None:
    event = {name: value for name, value in RISKY.items() if not name.startswith("user")}
    alert = read(event | {"displayName": "Builder", "appId": "a1"})
    (app,) = details(alert).of("application")
    assert (app.name, app.id, app.attributes) == ("Builder", "u1", {"appId": "a1"})


def test_a_risk_detection() -> None:
    event = without(RISKY, "riskLastUpdatedDateTime") | {
        "@odata.type": "#microsoft.graph.riskDetection",
        "riskEventType": "unlikelyTravel",
        "detectedDateTime": "2026-03-04T10:20:00Z",
        "lastUpdatedDateTime": "2026-03-04T10:25:00Z",
        "requestId": "r1",
    }
    alert = read(event)
    assert (alert.kind, alert.alert_type) == ("graph_entra", "unlikelyTravel")
    assert (alert.event_ms, alert.end_ms) == (1772619600000, 1772619900000)
    assert details(alert).related == ("r1",)


@pytest.mark.parametrize("event", [record(), SIGN_IN, RISKY])
def test_log_records_of_the_same_are_another_kind(event: dict[str, Any]) -> None:
    row = event | {"TimeGenerated": "2026-03-04T10:20:00Z", "Type": "SigninLogs"}
    assert read(row).kind == "entra_log"
    assert read(event | {"operationName": "x", "resourceId": "/tenants/t/x"}).kind == "entra_log"
    assert read(without(event, "id")).kind == "unknown"


def test_the_odata_type_tells_what_has_little_else() -> None:
    assert read({"@odata.type": "#microsoft.graph.riskyUser"}).kind == "graph_entra"
    assert read({"@odata.type": "#microsoft.graph.user"}).kind == "unknown"


def test_real_objects(shared: Path) -> None:
    for alert in samples(shared, "graph_entra"):
        assert alert.kind == "graph_entra"
        assert alert.event_ms
        assert alert.title
        assert details(alert).entities
