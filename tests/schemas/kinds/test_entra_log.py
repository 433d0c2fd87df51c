from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details
from schemas.kinds import details, understand
from tests.examples import changed, encoded, graph_entra, without
from tests.examples.entra_log import TENANT, record
from tests.schemas.kinds import read, samples, told

RISK: dict[str, Any] = {
    "id": "d1",
    "requestId": "r1",
    "correlationId": "c1",
    "riskEventType": "anonymizedIPAddress",
    "riskState": "atRisk",
    "riskLevel": "medium",
    "riskDetail": "none",
    "source": "IdentityProtection",
    "detectionTimingType": "realtime",
    "activity": "signin",
    "ipAddress": "203.0.113.9",
    "location": {"countryOrRegion": "FR"},
    "activityDateTime": "2026-03-04T10:18:00Z",
    "detectedDateTime": "2026-03-04T10:18:01Z",
    "lastUpdatedDateTime": "2026-03-04T10:19:00Z",
    "userId": "u1",
    "userDisplayName": "Alice Example",
    "userPrincipalName": "alice@example.com",
    "additionalInfo": '[{"Key":"alertUrl","Value":"https://x.example.com/7"},'
    '{"Key":"mitreTechniques","Value":"T1090.003,T1078"}]',
}


def mentioned(event: dict[str, Any]) -> Details:
    return details(read(event))


def risk(**properties: Any) -> dict[str, Any]:
    event = without(record(), "resultType")
    return event | {
        "time": "3/4/2026 10:20:35 AM",
        "operationName": "User Risk Detection",
        "category": "UserRiskEvents",
        "resultDescription": None,
        "properties": RISK | properties,
    }


def audit(**properties: Any) -> dict[str, Any]:
    event = without(without(record(), "resultType"), "resultDescription")
    return event | {
        "operationName": "Add member to group",
        "category": "AuditLogs",
        "callerIpAddress": "<null>",
        "properties": graph_entra.record(**properties),
    }


def test_every_field() -> None:
    raw = encoded(record())
    alert = understand(raw)
    assert told(alert) == {
        "kind": "entra_log",
        "entity": "aaaaaaaa-1111-4222-8333-444455556666",
        "version": "1772619600123 - 50074 atRisk -",
        "title": "Sign-in activity",
        "description": "Strong authentication is required.",
        "severity": "high",
        "severity_original": "high",
        "status": "new",
        "status_original": "atRisk",
        "event_ms": 1772619600123,
        "start_ms": 1772619480500,
        "resource_ids": (f"/tenants/{TENANT}/providers/Microsoft.aadiam",),
        "resource": "alice@example.com",
        "product": "Microsoft Entra ID",
        "alert_type": "Sign-in activity",
    }


def test_everything_it_mentions() -> None:
    found = mentioned(record())
    assert found.users == ("alice@example.com",)
    assert found.ips == ("198.51.100.7",)
    assert found.hosts == ("LAPTOP-7",)
    (user,) = found.of("user")
    assert (user.id, user.role) == ("cccccccc-1111-4222-8333-444455556666", "actor")
    assert user.attributes == {"displayName": "Alice Example", "identity": "EXAMPLE Alice"}
    assert [(it.name, it.id, it.role) for it in found.of("application")] == [
        ("Shop App", "dddddddd-1111-4222-8333-444455556666", ""),
        ("Microsoft Graph", "00000003-0000-0000-c000-000000000000", "target"),
    ]
    (device,) = found.of("host")
    assert (device.id, device.role) == ("eeeeeeee-1111-4222-8333-444455556666", "source")
    assert device.attributes["trust_type"] == "Azure AD joined"
    (address,) = found.of("ip")
    assert address.role == "source"
    assert address.attributes == {"city": "Paris", "state": "Paris", "country": "FR"}
    assert (found.action, found.outcome) == ("Sign-in activity", "failure")
    assert found.attributes == {
        "correlation_id": "b2",
        "record_correlation_id": "bbbbbbbb-1111-4222-8333-444455556666",
        "tenant_id": TENANT,
        "home_tenant_id": TENANT,
        "category": "SignInLogs",
        "level": "4",
        "identity": "EXAMPLE Alice",
        "reason": "Strong authentication is required.",
        "error_code": "50074",
        "original_request_id": "o1",
        "session_id": "s1",
        "token_id": "u1",
        "client_app": "Browser",
        "user_agent": "Mozilla/5.0",
        "protocol": "deviceCode",
        "authentication_requirement": "multiFactorAuthentication",
        "conditional_access": "failure",
        "interactive": "true",
        "user_type": "Member",
        "risk_state": "atRisk",
        "risk_level": "high",
        "user_risk_level": "medium",
    }


@pytest.mark.parametrize(
    ("level", "state", "severity", "original"),
    [
        ("high", "atRisk", "high", "high"),
        ("medium", "remediated", "medium", "medium"),
        ("low", "none", "informational", "4"),  # there is no risk, whatever the level says
        ("none", "none", "informational", "4"),
        ("hidden", "atRisk", "unknown", "hidden"),
    ],
)
def test_the_severity_of_a_sign_in(level: str, state: str, severity: str, original: str) -> None:
    event = changed(record(), "properties.riskLevelDuringSignIn", level)
    alert = read(changed(event, "properties.riskState", state))
    assert (alert.severity, alert.severity_original) == (severity, original)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("atRisk", "new"),
        ("confirmedCompromised", "new"),
        ("remediated", "resolved"),
        ("dismissed", "dismissed"),
        ("confirmedSafe", "dismissed"),
        ("unknownFutureValue", "unknown"),
    ],
)
def test_the_status_of_a_risk(state: str, status: str) -> None:
    alert = read(risk(riskState=state))
    assert (alert.status, alert.status_original) == (status, state)


def test_a_risk_detection() -> None:
    alert = read(risk())
    assert alert.title == "User Risk Detection: anonymizedIPAddress"
    assert alert.alert_type == "anonymizedIPAddress"
    assert (alert.severity, alert.status) == ("medium", "new")
    assert (alert.entity, alert.event_ms) == ("d1", 1772619635000)
    assert (alert.start_ms, alert.end_ms) == (1772619480000, 1772619540000)
    assert alert.techniques == ("T1090.003", "T1078")
    assert alert.link == "https://x.example.com/7"
    assert alert.product == "Microsoft Entra ID Protection"
    assert alert.description == ""
    found = details(alert)
    assert [(it.full_name, it.id, it.role) for it in found.of("user")] == [
        ("alice@example.com", "u1", "target")
    ]
    assert found.related == ("r1",)  # the sign-in
    assert found.ips == ("203.0.113.9", "198.51.100.7")
    assert found.attributes["detection_source"] == "IdentityProtection"


def test_an_update_of_a_risk_is_of_the_same_detection() -> None:
    before, after = read(risk()), read(risk(lastUpdatedDateTime="2026-03-04T11:00:00Z"))
    assert before.entity == after.entity
    assert before.key != after.key


def test_a_risky_user() -> None:
    event = risk() | {"operationName": "Risky user", "category": "RiskyUsers"}
    event["properties"] = {
        "id": "u1",
        "userPrincipalName": "alice@example.com",
        "riskLevel": "none",
        "riskState": "remediated",
        "riskDetail": "userPerformedSecuredPasswordReset",
        "riskLastUpdatedDateTime": "2026-03-04T10:19:00Z",
    }
    alert = read(event)
    assert (alert.entity, alert.title) == ("u1", "Risky user")
    assert (alert.severity, alert.severity_original) == ("informational", "none")
    assert (alert.status, alert.end_ms) == ("resolved", 1772619540000)
    assert alert.description == "userPerformedSecuredPasswordReset"
    (user,) = details(alert).of("user")
    assert (user.full_name, user.id) == ("alice@example.com", "u1")


def test_an_audit() -> None:
    alert = read(audit())
    assert (alert.title, alert.description) == ("Add member to group", "As asked")
    assert (alert.severity, alert.severity_original) == ("informational", "4")
    assert (alert.status, alert.status_original) == ("unknown", "")
    found = details(alert)
    assert found.users == ("alice@example.com", "bob@example.com")
    assert [it.role for it in found.of("user")] == ["actor", "target"]
    assert [(it.name, it.id) for it in found.of("group")] == [
        ("Administrators", "eeeeeeee-1111-4222-8333-444455556666")
    ]
    assert found.ips == ("198.51.100.7", "198.51.100.8")
    assert found.outcome == "success"
    assert found.attributes["category"] == "GroupManagement"
    assert found.attributes["record_category"] == "AuditLogs"
    assert found.attributes["modified_properties"] == "Group.ObjectID, Group.DisplayName"


def test_an_audit_of_what_an_app_did() -> None:
    app = {"appId": "a1", "displayName": "Sync", "servicePrincipalId": "s1"}
    found = mentioned(audit(initiatedBy={"app": app}, result="failure"))
    (actor,) = [it for it in found.entities if it.role == "actor"]
    assert (actor.type, actor.name, actor.id) == ("application", "Sync", "s1")
    assert actor.attributes == {"appId": "a1"}
    assert found.outcome == "failure"
    found = mentioned(audit(initiatedBy={}))
    assert [it.name for it in found.entities if it.role == "actor"] == ["EXAMPLE Alice"]


def test_what_an_audit_is_about() -> None:
    targets: list[dict[str, Any]] = [
        {"type": "Device", "id": "d1", "displayName": "LAPTOP-7"},
        {"type": "ServicePrincipal", "id": "s1", "displayName": "Shop App"},
        {"type": "Policy", "id": "p1", "displayName": "MFA for all"},
        {
            "type": "User",
            "id": "u9",
            "modifiedProperties": [
                {"displayName": "UserPrincipalName", "oldValue": "[]", "newValue": '["c@e.com"]'},
                {"displayName": "Role.ObjectID", "oldValue": '"r1"', "newValue": None},
                {"displayName": "Role.DisplayName", "oldValue": '"Reader"', "newValue": '""'},
                {"displayName": "Note", "oldValue": None, "newValue": "not JSON"},
            ],
        },
    ]
    found = mentioned(audit(targetResources=targets, additionalDetails=None))
    assert [(it.type, it.name, it.id) for it in found.entities if it.role == "target"] == [
        ("host", "LAPTOP-7", "d1"),
        ("application", "Shop App", "s1"),
        ("other", "MFA for all", "p1"),
        ("user", "c", "u9"),
        ("other", "Reader", "r1"),
    ]


def test_an_application_signs_in() -> None:
    properties = {
        "id": "i1",
        "appId": "a1",
        "servicePrincipalName": "Builder",
        "servicePrincipalId": "s1",
        "resourceDisplayName": "Azure Storage",
        "resourceId": "x1",
        "status": {"errorCode": 0},
    }
    event = record(category="ServicePrincipalSignInLogs", resultType="0", properties=properties)
    alert = read(event)
    assert alert.resource == "Builder"
    found = details(alert)
    assert [(it.name, it.id, it.role) for it in found.of("application")] == [
        *(("Builder", "s1", "actor"), ("Azure Storage", "x1", "target")),
    ]
    assert found.users == ()
    assert found.outcome == "success"


def test_graph_activity() -> None:
    event = without(without(record(), "resultType"), "resultDescription") | {
        "operationName": "Microsoft Graph Activity",
        "category": "MicrosoftGraphActivityLogs",
        "resultSignature": "403",
        "properties": {
            "userId": "u1",
            "appId": "a1",
            "ipAddress": "198.51.100.7",
            "requestUri": "https://graph.example.com/v1.0/me",
            "requestMethod": "GET",
            "responseStatusCode": 403,
        },
    }
    found = mentioned(event)
    assert found.urls == ("https://graph.example.com/v1.0/me",)
    assert found.outcome == "failure"
    assert [it.id for it in found.of("user")] == ["u1"]
    assert found.attributes["http_status"] == "403"


def test_provisioning() -> None:
    person = {"id": "w1", "displayName": "Carol", "identityType": "user"}
    properties = {
        "id": "p1",
        "action": "Create",
        "initiatedBy": {
            "id": "",
            "name": "Azure AD Provisioning Service",
            "initiatorType": "system",
        },
        "sourceIdentity": person,
        "targetIdentity": person | {"id": "t1", "displayName": "carol@example.com"},
        "servicePrincipal": {"id": "s1", "name": "HR"},
        "statusInfo": {"status": "failure"},
    }
    event = without(record(), "resultType") | {"category": "ProvisioningLogs"}
    found = mentioned(event | {"properties": properties})
    assert (found.action, found.outcome) == ("Create", "failure")
    assert [(it.full_name, it.role) for it in found.of("user")] == [
        *(("Carol", "source"), ("carol@example.com", "target")),
    ]
    assert [it.name for it in found.of("application")] == ["Azure AD Provisioning Service", "HR"]


def test_a_row_of_log_analytics() -> None:
    row = {
        "TenantId": "w1",
        "TimeGenerated": "2026-03-04T10:20:00Z",
        "ResourceId": f"/tenants/{TENANT}/providers/Microsoft.aadiam",
        "OperationName": "Sign-in activity",
        "Category": "SignInLogs",
        "ResultType": "0",
        "Id": "i1",
        "CreatedDateTime": "2026-03-04T10:18:00Z",
        "UserPrincipalName": "alice@example.com",
        "UserId": "u1",
        "IPAddress": "198.51.100.7",
        "LocationDetails": '{"city":"Paris"}',
        "DeviceDetail": '{"deviceId":"d1","displayName":"LAPTOP-7"}',
        "Status": '{"errorCode":0}',
        "Level": "4",
        "Type": "SigninLogs",
    }
    alert = read(row)
    assert (alert.kind, alert.entity, alert.repairs) == ("entra_log", "i1", ())
    assert (alert.event_ms, alert.start_ms) == (1772619600000, 1772619480000)
    found = details(alert)
    assert (found.users, found.hosts) == (("alice@example.com",), ("LAPTOP-7",))
    assert found.outcome == "success"
    (address,) = found.of("ip")
    assert address.attributes == {"city": "Paris"}
    assert read(without(row, "ResourceId") | {"Type": "AADUserRiskEvents"}).kind == "entra_log"


def test_what_collectors_made_of_it() -> None:
    """Names in lower case, numbers as text, another time."""
    event = {name.lower(): value for name, value in record(Level="4", resultType=50074).items()}
    event["p_event_time"] = event.pop("time").replace("T", " ")
    alert = read(event)
    assert (alert.kind, alert.event_ms) == ("entra_log", 1772619600123)
    assert alert.version.split()[2] == "50074"


@pytest.mark.parametrize("category", ["SignInLogs", "noninteractiveusersigninlogs", "RiskyUsers"])
def test_its_categories_tell_it_without_a_tenant(category: str) -> None:
    assert read(record(category=category, resourceId="redacted")).kind == "entra_log"


def test_others_have_audit_logs_too() -> None:
    elsewhere = "/subscriptions/s1/resourceGroups/g/providers/Microsoft.HealthcareApis/services/x"
    event = record(category="AuditLogs", resourceId=elsewhere)
    assert read(event).kind == "resource_log"
    assert read(audit() | {"resourceId": elsewhere}).kind == "entra_log"


def test_other_services_of_the_tenant() -> None:
    event = record(resourceId=f"/TENANTS/{TENANT}/PROVIDERS/MICROSOFT.INTUNE", category="Devices")
    alert = read(event)
    assert (alert.kind, alert.product) == ("entra_log", "Microsoft Intune")


def test_the_level_counts_under_either_spelling() -> None:
    event = without(audit(), "Level")
    assert read(event | {"level": "Warning"}).severity == "low"
    assert read(event | {"Level": 2}).severity == "medium"
    assert read(event).severity == "unknown"


def test_properties_in_a_string_are_read_and_named() -> None:
    properties = encoded(record()["properties"]).decode()
    alert = read(record(properties=properties))
    assert (alert.entity, alert.severity) == ("aaaaaaaa-1111-4222-8333-444455556666", "high")
    assert alert.repairs == ("json_in_string",)
    assert json.loads(alert.raw)["properties"] == properties
    assert details(alert).users == ("alice@example.com",)
    alert = read(record(properties=str(record()["properties"])))
    assert (alert.repairs, alert.severity) == (("single_quotes",), "high")


@pytest.mark.parametrize("folder", ["entra_logs", "la_auditlogs"])
def test_real_records(shared: Path, folder: str) -> None:
    for alert in samples(shared, folder):
        assert alert.kind == "entra_log"
        assert alert.event_ms
        assert alert.title
        assert details(alert).entities
