from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details
from schemas.kinds import KINDS, details, understand
from tests.examples import changed, encoded, without
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.activity_log import ALERT, CLAIMS, OBJECT_ID, record
from tests.schemas.kinds import read, samples, told

WRITE = "Microsoft.Compute/virtualMachines/write"


def mentioned(event: dict[str, Any]) -> Details:
    return details(read(event))


def rest(**overrides: Any) -> dict[str, Any]:
    """As the REST API lists it."""
    return {
        "authorization": {"action": WRITE, "scope": RESOURCE},
        "caller": "alice@example.com",
        "channels": "Operation",
        "claims": {f"{CLAIMS}/upn": "alice@example.com", OBJECT_ID: "c1", "ipaddr": "198.51.100.7"},
        "correlationId": "b1",
        "description": "",
        "eventDataId": "e1",
        "eventName": {"value": "EndRequest", "localizedValue": "End request"},
        "category": {"value": "Administrative", "localizedValue": "Administrative"},
        "eventTimestamp": "2026-03-04T10:20:00.5Z",
        "httpRequest": {"clientIpAddress": "198.51.100.8", "method": "PUT"},
        "level": "Warning",
        "operationId": "o1",
        "operationName": {"value": WRITE, "localizedValue": "Create a virtual machine"},
        "resourceProviderName": {"value": "Microsoft.Compute"},
        "resourceId": RESOURCE,
        "status": {"value": "Failed", "localizedValue": "Failed"},
        "subStatus": {"value": "Conflict"},
        "subscriptionId": SUBSCRIPTION,
        "properties": {"statusCode": "Conflict"},
    } | overrides


def row(**overrides: Any) -> dict[str, Any]:
    """A row of Log Analytics."""
    return {
        "TenantId": "w1",
        "TimeGenerated": "2026-03-04T10:20:00.5Z",
        "CallerIpAddress": "198.51.100.7",
        "CategoryValue": "Administrative",
        "CorrelationId": "b1",
        "Authorization": encoded({"action": WRITE, "scope": RESOURCE}).decode(),
        "Claims": encoded({f"{CLAIMS}/upn": "alice@example.com"}).decode(),
        "Level": "Informational",
        "OperationNameValue": WRITE,
        "Properties": encoded({"requestbody": '{"properties":{"principalId":"p1"}}'}).decode(),
        "Caller": "alice@example.com",
        "EventDataId": "e2",
        "ActivityStatusValue": "Succeeded",
        "ActivitySubstatusValue": "Created",
        "SubscriptionId": SUBSCRIPTION,
        "OperationName": "Create a virtual machine",
        "ResourceId": RESOURCE,
        "Type": "AzureActivity",
        "_ResourceId": RESOURCE.lower(),
    } | overrides


def test_every_field() -> None:
    raw = encoded(record())
    alert = understand(raw)
    operation = "Microsoft.Security/locations/alerts/activate/action"
    entity = f"bbbbbbbb-1111-4222-8333-444455556666 {operation} {ALERT}".lower()
    assert told(alert) == {
        "kind": "activity_log",
        "entity": entity,
        "version": "Active 2026-03-04T10:20:00.123457+00:00",
        "title": "Suspicious double extension file executed",
        "description": "A process with a double extension ran.",
        "severity": "high",
        "severity_original": "High",
        "status": "new",
        "status_original": "Active",
        "event_ms": 1772619600123,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (ALERT,),
        "resource": "shop-vm-1",
        "tactics": ("Execution", "Persistence"),
        "product": "Azure Activity Log",
        "alert_type": operation,
        "link": "https://portal.azure.com/#blade/7",
    }


def test_everything_it_mentions() -> None:
    found = mentioned(record())
    assert found.users == ("alice@example.com", "SHOP\\bob")
    assert found.ips == ("2001:db8::7", "198.51.100.7", "203.0.113.9")
    assert found.hosts == ("shop-vm-1",)
    assert [(it.name, it.id, it.role) for it in found.of("resource")] == [
        (ALERT.rpartition("/")[2], ALERT, "target"),
        ("shop-vm-1", RESOURCE, ""),
    ]
    alice, bob = found.of("user")
    assert (alice.id, alice.role) == ("cccccccc-1111-4222-8333-444455556666", "actor")
    assert alice.attributes == {"displayName": "Alice Example"}
    assert (bob.id, bob.role) == ("S-1-5-21-7", "target")
    (app,) = found.of("application")
    assert app.id == "dddddddd-1111-4222-8333-444455556666"
    (process,) = found.of("process")
    assert (process.full_name, process.pid, process.parent_pid, process.command_line) == (
        *(r"c:\temp\invoice.pdf.exe", "6988", "512", r"c:\temp\invoice.pdf.exe -q"),
    )
    assert found.action == "Microsoft.Security/locations/alerts/activate/action"
    assert found.outcome == ""
    assert found.related == ("2518_aaaaaaaa-1111-4222-8333-444455556666",)
    assert found.attributes == {
        "event_category": "Security",
        "event_name": "Suspicious double extension file executed",
        "operation_id": "eeeeeeee-1111-4222-8333-444455556666",
        "action_taken": "Detected",
        "logon_id": "0x2r4",
        "correlation_id": "bbbbbbbb-1111-4222-8333-444455556666",
        "category": "Security",
        "level": "Informational",
        "sub_status": "Active.",
        "authentication_methods": "pwd,mfa",
        "role": "Owner",
        "role_assignment_id": "7a",
    }


def test_the_rest_shape() -> None:
    alert = read(rest())
    assert (alert.kind, alert.entity) == ("activity_log", "e1")
    assert (alert.title, alert.alert_type) == ("Create a virtual machine", WRITE)
    assert (alert.severity, alert.severity_original) == ("low", "Warning")
    assert (alert.status, alert.status_original) == ("unknown", "Failed")
    assert alert.event_ms == 1772619600500
    assert alert.subscription_id == SUBSCRIPTION
    assert alert.resource_ids == (RESOURCE,)
    found = details(alert)
    assert (found.action, found.outcome) == (WRITE, "failure")
    assert found.users == ("alice@example.com",)
    assert found.ips == ("198.51.100.7", "198.51.100.8")
    assert found.attributes["category"] == "Administrative"
    assert found.attributes["sub_status"] == "Conflict"
    assert found.attributes["provider"] == "Microsoft.Compute"


def test_an_older_rest_shape_names_its_category_otherwise() -> None:
    event = without(without(rest(), "category"), "resourceId")
    alert = read(event | {"eventSource": {"value": "Security"}, "resourceUri": RESOURCE})
    assert (alert.kind, alert.resource_ids) == ("activity_log", (RESOURCE,))
    assert alert.title == "EndRequest"


def test_a_row_of_log_analytics() -> None:
    alert = read(row())
    assert (alert.kind, alert.entity) == ("activity_log", "e2")
    assert (alert.title, alert.alert_type) == ("Create a virtual machine", WRITE)
    assert alert.event_ms == 1772619600500
    assert alert.resource_ids == (RESOURCE,)
    assert alert.repairs == ()  # its columns are text
    found = details(alert)
    assert found.users == ("alice@example.com",)
    assert (found.action, found.outcome) == (WRITE, "success")
    assert [it.id for it in found.of("user")] == ["", "p1"]


def test_the_level_of_a_security_record_is_not_its_severity() -> None:
    assert read(record()).severity == "high"
    properties = {"severity": "Low"}
    assert read(record(properties=properties)).severity == "low"
    assert read(rest(category={"value": "Security"}, properties=properties)).severity == "low"
    assert read(rest(properties=properties)).severity_original == "Warning"
    # The category says Administrative, always, as the documentation has it.
    assert read(record(category="Administrative")).severity == "high"


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ("Critical", "critical"),
        ("Error", "medium"),
        ("Warning", "low"),
        ("Informational", "informational"),
        ("Information", "informational"),
        ("Verbose", "informational"),
        (4, "informational"),
        ("odd", "unknown"),
    ],
)
def test_levels(level: Any, severity: str) -> None:
    alert = read(record(category="Administrative", properties={}, level=level))
    assert (alert.severity, alert.severity_original) == (severity, str(level))


@pytest.mark.parametrize(
    ("status", "ours", "outcome"),
    [
        ("Active", "new", ""),
        ("Activated", "new", ""),
        ("In Progress", "in_progress", ""),
        ("Resolved", "resolved", ""),
        ("Succeeded", "unknown", "success"),
        ("Success", "unknown", "success"),
        ("Failure", "unknown", "failure"),
        ("Start", "unknown", ""),
    ],
)
def test_statuses(status: str, ours: str, outcome: str) -> None:
    alert = read(record(resultType=status))
    assert (alert.status, alert.status_original) == (ours, status)
    assert details(alert).outcome == outcome


@pytest.mark.parametrize(
    "category",
    [
        *("Administrative", "ServiceHealth", "Alert", "Autoscale", "Recommendation", "Policy"),
        *("ResourceHealth", "Write", "delete", "ACTION"),
    ],
)
def test_categories(category: str) -> None:
    assert read(record(category=category)).kind == "activity_log"


def test_what_has_another_category_or_belongs_to_the_tenant_is_another_kind() -> None:
    assert read(record(category="AuditEvent")).kind == "resource_log"
    assert read(record(category="Policy", resourceId="/tenants/t1/x")).kind == "entra_log"
    assert read(record(category="Policy", resourceId="/TENANTS/t1/x")).kind == "entra_log"
    management = "/providers/Microsoft.Management/managementGroups/g1"
    assert read(record(resourceId=management)).kind == "activity_log"


def test_health_and_advice_have_titles_of_their_own() -> None:
    properties: dict[str, Any] = {"title": "Network trouble in Europe", "trackingId": "NA0F-BJG"}
    event = record(category="ServiceHealth", properties=properties)
    assert read(event).title == "Network trouble in Europe"
    assert mentioned(event).attributes["tracking_id"] == "NA0F-BJG"
    event = record(category="Recommendation", properties={"recommendationName": "Use zones"})
    assert read(event).title == "Use zones"
    event = record(category="Administrative", properties={})
    assert read(event).title == event["operationName"]


def test_policies_are_resources() -> None:
    policies = [{"policyDefinitionId": "/x/definitions/d1", "policyAssignmentId": "/x/as/a1/"}]
    found = mentioned(record(properties={"policies": encoded(policies).decode()}))
    assert [it.name for it in found.of("resource")][2:] == ["d1", "a1"]


@pytest.mark.parametrize(
    ("written", "repair"),
    [
        ('{"eventName":"It is","Severity":"Low"}', "json_in_string"),
        ("{'eventName':'It is','Severity':'Low','userName':None}", "single_quotes"),
        ('{"eventName":"It is","Severity":"Low","why":"say "hi" to"}', "unescaped_quotes"),
    ],
)
def test_properties_in_a_string_are_read_and_named(written: str, repair: str) -> None:
    alert = read(record(properties=written))
    assert (alert.title, alert.severity) == ("It is", "low")
    assert alert.repairs == (repair,)
    assert json.loads(alert.raw)["properties"] == written
    assert details(alert).attributes["event_name"] == "It is"


def test_who_acted_where_no_user_did() -> None:
    claims = {"appid": "a1", OBJECT_ID: "s1", "idtyp": "app"}
    (app,) = mentioned(changed(record(), "identity.claims", claims)).of("application")
    assert (app.id, app.role, app.attributes) == ("s1", "actor", {"appId": "a1"})
    caller = "99999999-9999-4999-8999-999999999999"
    found = mentioned(rest(caller=caller, claims={}))
    assert [(it.id, it.role) for it in found.of("user")] == [(caller, "actor")]
    found = mentioned(rest(caller="Microsoft.Insights/alertRules", claims={}))
    assert found.users == ("Microsoft.Insights/alertRules",)


def test_operations_are_told_apart_by_resource_and_their_steps_by_result() -> None:
    start = read(record(category="Administrative", resultType="Start"))
    end = read(record(category="Administrative", resultType="Success"))
    other = read(record(category="Administrative", resultType="Start", resourceId=RESOURCE))
    assert start.entity == end.entity != other.entity
    assert len({start.key, end.key, other.key}) == 3


def test_real_records(shared: Path) -> None:
    for alert in samples(shared, "activity_log"):
        # Panther has blobs' logs among them.
        assert alert.kind == "activity_log" or "Storage" in alert.alert_type + alert.product
        assert alert.entity
        assert alert.event_ms
        assert alert.title
        assert details(alert).entities


def test_a_real_alert(shared: Path) -> None:
    file = shared / "samples/activity_log/sekoia__azure-activity-logs__security.json"
    alert = understand(file.read_bytes().strip())
    assert (alert.severity, alert.status) == ("high", "new")
    assert alert.title == "Suspicious double extension file executed"
    assert details(alert).users == ("example\\user1",)
    assert KINDS["activity_log"].told_by
