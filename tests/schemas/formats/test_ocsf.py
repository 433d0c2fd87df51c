"""Events against OCSF's own schema, and against the models that Python's consumers use.

The schema is what schema.ocsf.io exports (Apache-2.0), as the package ocsf-json-schema carries it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from py_ocsf_models.events.findings.compliance_finding import ComplianceFinding
from py_ocsf_models.events.findings.detection_finding import DetectionFinding

from schemas.alert import SEVERITIES, STATUSES, Alert, Subscription
from schemas.entities import Details, Entity, EntityType, Role
from schemas.formats import _ocsf_classes
from schemas.formats._mitre import tactic
from schemas.formats._ocsf_actions import _ACTS, _TABLES
from schemas.formats._ocsf_classes import CATEGORIES, Class
from schemas.formats.ocsf import CLASSES, VERSION, event, ocsf
from schemas.kinds import KINDS, understand
from schemas.wrappers import Repaired, unwrap
from tests.examples import EXAMPLES, encoded
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.strategies import alerts, subscriptions, texts, times

LATER = ("1.6.0", "1.7.0", "1.8.0")
MODELS = {2003: ComplianceFinding, 2004: DetectionFinding}


@functools.cache
def schema(version: str = VERSION) -> dict[str, Any]:
    """What schema.ocsf.io exports, with its extensions."""
    return get_ocsf_schema(version)


@functools.cache
def shapes(version: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """Classes by their ids. Their names are those by which the schema refers to them."""
    return {it["uid"]: (name, it) for name, it in schema(version)["classes"].items()}


@functools.cache
def validator(version: str, uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    whole = OcsfJsonSchemaEmbedded(schema(version))
    return Draft202012Validator(whole.get_class_schema(shapes(version)[uid][0], list(profiles)))


def faults(said: dict[str, Any], version: str = VERSION) -> list[str]:
    """What is wrong with an event: by the schema, by the models, by its own words."""
    uid, profiles = said["class_uid"], tuple(said["metadata"]["profiles"])
    wrong = [
        f"{error.json_path}: {error.message[:200]}"
        for error in validator(version, uid, profiles).iter_errors(said)
    ]
    if model := MODELS.get(uid):
        try:
            model.model_validate(said)
        except ValueError as error:
            wrong.append(str(error))
    wrong += unlike(said, shapes(version)[uid][1])
    for observable in said.get("observables", ()):
        place = observable["name"]
        if place != "raw_data" and observable["value"] not in at(said, place.split(".")):
            wrong.append(f"{observable['value']!r} is not at {place}")
    return wrong


def unlike(place: dict[str, Any], shape: dict[str, Any], path: str = "$") -> Iterator[str]:
    """Where the text beside an id is not the id's caption; of 99 it is the record's own word."""
    for name, value in place.items():
        said = shape["attributes"].get(name, {})
        sibling, enum = said.get("sibling"), said.get("enum")
        if enum and sibling in place and value != 99:
            caption = enum.get(str(value), {}).get("caption")
            if place[sibling] != caption:
                yield f"{path}.{sibling} is {place[sibling]!r}, not {caption!r}"
        inner = schema()["objects"].get(said.get("object_type"))
        if inner and inner["attributes"]:
            for item in value if isinstance(value, list) else (value,):
                yield from unlike(item, inner, f"{path}.{name}")


def at(place: Any, path: list[str]) -> list[Any]:
    """The values at `evidences[].user.name`."""
    if not path:
        return [place]
    value = place.get(path[0].removesuffix("[]"))
    items = value if path[0].endswith("[]") else [value]
    return [found for item in items or () if item is not None for found in at(item, path[1:])]


def said(alert: Alert) -> dict[str, Any]:
    found = msgspec.json.decode(ocsf(alert))
    assert isinstance(found, dict)
    return found


def example(kind: str, **overrides: Any) -> Alert:
    return understand(encoded(EXAMPLES[kind].record(**overrides)))


def made(kind: str = "defender_alert", **fields: Any) -> Alert:
    """An alert that says only this."""
    return Alert(**{"kind": kind, "key": b"\0" * 16, "entity": "it", "raw": b"{}"} | fields)


def mentioning(*entities: Entity, **more: Any) -> Details:
    return Details(entities=entities, **more)


HOST = Entity(type="host", name="shop-vm-1", domain="example.com")
ADA = Entity(type="user", name="ada", domain="example.com", id="S-1-5-21-7", role="actor")
BOB = Entity(type="user", name="bob", domain="example.com", id="S-1-5-21-8", role="target")
STAFF = Entity(type="group", name="staff", role="target")
SHELL = Entity(type="process", name="sh", path="/bin", pid="7", role="actor")
CURL = Entity(type="process", name="curl", pid="0x1f40", parent_pid="7", role="target")
FILE = Entity(type="file", name="x", path="/tmp", hashes=("ab" * 32,), role="target")
KEY = Entity(type="registry", path="HKLM\\Software\\x", role="target")
VALUE = Entity(type="registry", path="HKLM\\Software\\x", name="Run", role="target")
HERE = Entity(type="ip", name="10.1.1.1", port="50000", role="source")
THERE = Entity(type="ip", name="203.0.113.7", port="443", role="target")
MAIL = Entity(type="message", name="Invoice", id="n-1")
EVE = Entity(type="mailbox", name="eve@example.net", role="source")
AUDIT, SYSMON = "Microsoft-Windows-Security-Auditing", "Microsoft-Windows-Sysmon"
CAST = (HOST, ADA, BOB, STAFF, SHELL, CURL, FILE, KEY, VALUE, HERE, THERE, MAIL, EVE)


# What the schema says


every_example = pytest.mark.parametrize("kind", EXAMPLES)


@every_example
def test_every_example_is_as_the_schema_wants_it(kind: str) -> None:
    assert not faults(said(example(kind)))


@every_example
def test_readers_of_later_versions_take_it(kind: str) -> None:
    found = said(example(kind))
    assert not [fault for version in LATER for fault in faults(found, version)]


def test_every_real_record_is_as_the_schema_wants_it(shared: Path) -> None:
    records = (
        raw.body if isinstance(raw, Repaired) else raw
        for file in sorted((shared / "samples").rglob("*.*"))
        if file.name != "INDEX.md"
        for raw in unwrap(file.read_bytes())[:200]  # of a log of thousands of lines
    )
    told = [understand(raw) for raw in records if isinstance(raw, bytes)]
    assert len(told) > 300
    assert not {alert.kind: wrong for alert in told if (wrong := faults(said(alert)))}


@given(alert=alerts())
def test_any_alert_is_as_the_schema_wants_it(alert: Alert) -> None:
    found = said(alert)
    assert not faults(found)
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["metadata"]["uid"] == alert.event_id
    assert found["time"] == alert.event_ms
    assert found["raw_data"].encode() == alert.raw


values = st.one_of(
    texts,
    st.sampled_from(
        [
            *("203.0.113.7", "2001:db8::7", "fe80::1%eth0", "300.1.1.1", "::ffff:192.0.2.1"),
            *("ada@example.com", "ada", "host.example.com", "https://example.com/x?y"),
            *("0", "4", "0x1f40", "99999999999999999999", "-1", "443", "70000"),
            *("aa" * 16, "bb" * 20, "cc" * 32, "dd" * 64, "aabb", "00:11:22:33:44:55"),
            *("unknown", "high", "critical", "true positive", "POST", "GET", "10", "Inbound"),
            *("Healthy", "AWS", "CVE-2026-12345, CVE-2026-1", "Security", "SignInLogs", RESOURCE),
            *("HKLM\\Software", "C:\\Windows\\cmd.exe", "/bin/sh", *_TABLES),
            *("Microsoft-Windows-Sysmon", "Microsoft-Windows-Security-Auditing"),
        ]
    ),
)
entities = st.builds(
    Entity,
    type=st.sampled_from(get_args(EntityType)),
    name=values,
    id=values,
    domain=values,
    role=st.sampled_from(get_args(Role)),
    path=values,
    command_line=values,
    pid=values,
    parent_pid=values,
    port=values,
    hashes=st.lists(values, max_size=2).map(tuple),
    attributes=st.dictionaries(
        st.sampled_from(
            ["OSFamily", "IpAddress", "MacAddress", "type", "value", "city", "country"]
        ),
        values,
        max_size=3,
    ),
)
mentions = st.builds(
    Details,
    entities=st.lists(entities, max_size=6).map(tuple),
    action=st.one_of(st.sampled_from([*_ACTS, "a/b/write", "SecretGet", "Deny"]), texts),
    outcome=st.sampled_from(["", "success", "failure"]),
    related=st.lists(texts, max_size=2).map(tuple),
    attributes=st.dictionaries(
        st.sampled_from(
            [
                *("event_id", "provider", "channel", "table", "category", "correlation_id"),
                *("tenant_id", "cloud", "cve", "remediation", "package", "package_version"),
                *("classification", "owner", "risk_level", "confidence", "confidence_score"),
                *("logon_type", "protocol", "direction", "email_direction", "http_method"),
                *("http_status", "user_agent", "reason", "sent_bytes", "control", "standard"),
                *("labels", "authentication_requirement", "referrer", "internet_message_id"),
                *("authentication_package_name", "cause"),
            ]
        ),
        values,
        max_size=5,
    ),
)
any_alerts = st.builds(
    made,
    kind=st.sampled_from([*CLASSES, "a_kind_of_tomorrow"]),
    title=texts,
    description=texts,
    severity=st.sampled_from(SEVERITIES),
    severity_original=texts,
    status=st.sampled_from(STATUSES),
    status_original=values,
    event_ms=times,
    start_ms=times,
    enqueued_ms=times,
    subscription_id=texts,
    resource_ids=st.lists(values, max_size=2).map(tuple),
    resource=values,
    tactics=st.lists(texts, max_size=2).map(tuple),
    techniques=st.lists(texts, max_size=2).map(tuple),
    vendor=texts,
    product=st.one_of(texts, st.sampled_from(["Microsoft Entra ID", "Microsoft Intune"])),
    alert_type=texts,
    link=texts,
    subscription=st.one_of(st.none(), subscriptions),
)


@given(alert=any_alerts, found=mentions)
def test_so_is_any_alert_of_any_class_whatever_it_mentions(alert: Alert, found: Details) -> None:
    assert not faults(msgspec.to_builtins(event(alert, found)))


@given(
    alert=any_alerts,
    found=mentions,
    cast=st.lists(st.one_of(st.sampled_from(CAST), entities), min_size=5, max_size=13),
    action=st.sampled_from([*_ACTS, ""]),
)
def test_so_is_every_activity(
    alert: Alert, found: Details, cast: list[Entity], action: str
) -> None:
    alert.kind, alert.severity = "xdr", "unknown"  # the kind whose records may be of most classes
    told = msgspec.structs.replace(found, entities=tuple(cast), action=action)
    assert not faults(msgspec.to_builtins(event(alert, told)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("severity_id", 7),
        ("severity", "Dire"),
        ("type_uid", 200402),
        ("status_id", "1"),
        ("time", "2026-03-04T10:13:14Z"),
        ("finding_info", None),
        ("finding_info.uid", None),
        ("forged", "x"),
        ("evidences", [{"name": "nothing"}]),
        ("evidences", [{"src_endpoint": {"ip": "300.1.1.1"}}]),
        ("observables", [{"type_id": 2, "name": "device.ip", "value": "192.0.2.77"}]),
    ],
)
def test_the_validators_refuse_what_is_wrong(path: str, value: Any) -> None:
    found = said(example("defender_alert"))
    assert not faults(found)
    spoiled = copy.deepcopy(found)
    *parents, last = path.split(".")
    place = spoiled
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert faults(spoiled)


@pytest.mark.parametrize("cls", [it for it in vars(_ocsf_classes).values() if type(it) is Class])
def test_classes_have_the_schemas_own_names(cls: Class) -> None:
    shape = shapes(VERSION)[cls.uid][1]
    enum = shape["attributes"]["activity_id"]["enum"]
    assert cls.name == shape["caption"]
    assert {"0": "Unknown", "99": "Other"} | {
        str(number): name for number, name in enumerate(cls.activities, 1)
    } == {number: it["caption"] for number, it in enum.items()}
    category = shape["category_uid"]
    assert category == cls.uid // 1000 % 100
    assert CATEGORIES[category] == shape.get("category_name", "Uncategorized")


# Which class


def test_every_kind_has_its_place_in_the_table() -> None:
    assert set(CLASSES) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "uid"),
    [
        ("defender_alert", 2004),
        ("security_alert", 2004),
        ("iot_alert", 2004),
        ("arm_alert", 2004),
        ("graph_alert_v1", 2004),
        ("graph_alert", 2004),
        ("attack_path", 2004),
        ("security_incident", 2005),
        ("arm_incident", 2005),
        ("graph_incident", 2005),
        ("assessment", 2003),
        ("regulatory_compliance", 2003),
        ("secure_score", 2003),
        ("sub_assessment", 2002),
        ("log_analytics", 0),
        ("syslog", 3002),
    ],
)
def test_a_kind_is_of_its_class(kind: str, uid: int) -> None:
    assert said(example(kind))["class_uid"] == uid


def test_a_kind_that_nobody_told_of_is_a_finding_if_it_looks_like_one() -> None:
    def uid(**fields: Any) -> int:
        return event(made("a_kind_of_tomorrow", **fields), Details())["class_uid"]

    assert uid(severity="low", title="Something was seen") == 2004
    assert uid(severity="low") == 0
    assert uid(title="Something was seen") == 0


@pytest.mark.parametrize(
    ("kind", "action", "attributes", "type_uid"),
    [
        ("security_event", "", {"event_id": "4624", "provider": AUDIT}, 300201),
        ("windows_event", "", {"event_id": "4634", "provider": AUDIT}, 300202),
        ("windows_xml", "", {"event_id": "4688", "provider": AUDIT}, 100701),
        ("security_event", "", {"event_id": "4689"}, 100702),
        ("windows_xml", "", {"event_id": "4726", "provider": AUDIT}, 300106),
        ("windows_xml", "", {"event_id": "4732", "provider": AUDIT}, 300603),
        ("windows_xml", "", {"event_id": "1102", "provider": "Microsoft-Windows-Eventlog"}, 100801),
        ("windows_xml", "", {"event_id": "5156", "provider": AUDIT}, 400101),
        ("windows_xml", "", {"event_id": "1", "provider": SYSMON}, 100701),
        ("windows_xml", "", {"event_id": "1", "provider": "Another"}, 0),
        ("windows_xml", "", {"event_id": "13", "provider": SYSMON}, 20100202),
        ("windows_xml", "", {"event_id": "4688", "provider": "Another"}, 0),
        ("xdr", "ProcessCreated", {"table": "DeviceProcessEvents"}, 100701),
        ("xdr", "FileRenamed", {"table": "DeviceFileEvents"}, 100105),
        ("xdr", "SomethingNew", {"table": "DeviceFileEvents"}, 100199),
        ("xdr", "ImageLoaded", {"table": "DeviceImageLoadEvents"}, 100501),
        ("xdr", "RegistryKeyCreated", {}, 20100101),
        ("xdr", "RegistryValueDeleted", {}, 20100204),
        ("xdr", "ConnectionFailed", {}, 400104),
        ("xdr", "LogonFailed", {}, 300201),
        ("xdr", "", {"table": "DeviceInfo"}, 500101),
        ("xdr", "FileDownloaded", {"table": "CloudAppEvents"}, 600302),
        ("entra_log", "Sign-in activity", {}, 300201),
        ("entra_log", "", {"category": "NonInteractiveUserSignInLogs"}, 300201),
        ("entra_log", "Assigning a license", {}, 300499),
        ("graph_entra", "Add member to group", {}, 300603),
        ("entra_log", "Delete group", {}, 300605),
        ("entra_log", "Reset user password", {}, 300104),
        ("entra_log", "Add member to role.", {}, 300501),
        ("entra_log", "Update application", {}, 300403),
        ("entra_log", "Microsoft Graph Activity", {"http_method": "DELETE"}, 600304),
        ("office_activity", "UserLoggedIn", {}, 300201),
        ("activity_log", "Microsoft.Compute/virtualMachines/write", {}, 600303),
        ("activity_log", "Microsoft.Compute/virtualMachines/start/action", {}, 600399),
        ("activity_log", "x/activate/action", {"category": "Security"}, 200401),
        ("resource_log", "SecretGet", {}, 600302),
        ("resource_log", "Access", {"http_method": "GET", "http_status": "200"}, 400203),
        ("common_security_log", "Deny", {}, 400105),
        ("common_security_log", "Allow", {}, 400106),
        ("resource_log", "Block", {"category": "ApplicationGatewayFirewallLog"}, 400299),
        ("syslog", "Failed password", {}, 300201),
        ("syslog_line", "session closed", {}, 300202),
        ("syslog", "Connection closed", {}, 99),
        ("unknown", "", {}, 0),
    ],
)
def test_an_activity_is_told_by_what_was_done(
    kind: str, action: str, attributes: dict[str, str], type_uid: int
) -> None:
    link = Entity(type="url", name="https://example.com/x", role="target")
    reach = () if action == "SecretGet" else (THERE, link)
    found = mentioning(
        *(HOST, ADA, BOB, STAFF, SHELL, CURL, FILE, HERE, *reach, VALUE),
        action=action,
        attributes=attributes,
    )
    alert = made(kind, product="Microsoft Entra ID", title=action)
    assert event(alert, found)["type_uid"] == type_uid


def test_a_class_of_an_extension_names_it() -> None:
    found = event(made("xdr"), mentioning(HOST, ADA, KEY, action="RegistryKeyCreated"))
    assert found["class_uid"] == 201001
    assert found["metadata"]["extensions"] == [{"name": "win", "uid": "2", "version": VERSION}]


def test_what_a_class_requires_and_a_record_lacks_makes_a_base_event() -> None:
    for action in ("ProcessCreated", "FileCreated", "RegistryValueSet", "LogonSuccess"):
        for entities in ((), (HOST,), (ADA, HERE)):
            found = event(made("xdr"), mentioning(*entities, action=action))
            assert found["class_uid"] in (0, 3002 if ADA in entities else 0)
            assert found["activity_name"] in (action, "Logon")


# What it says


@pytest.mark.parametrize(
    ("status", "activity", "name"),
    [
        ("new", "Create", "New"),
        ("in_progress", "Update", "In Progress"),
        ("resolved", "Close", "Resolved"),
        ("dismissed", "Close", "Suppressed"),
    ],
)
def test_a_status_makes_the_activity(status: str, activity: str, name: str) -> None:
    found = event(made(status=status, status_original=status), Details())
    assert (found["activity_name"], found["status"]) == (activity, name)
    assert found["type_name"] == f"Detection Finding: {activity}"


def test_a_word_that_the_schema_lacks_stands_beside_99() -> None:
    found = event(made(severity_original="Dire", status_original="Parked"), Details())
    assert (found["severity_id"], found["severity"]) == (99, "Dire")
    assert (found["status_id"], found["status"]) == (99, "Parked")
    silent = event(made(severity_original="Unknown"), Details())
    assert (silent["severity_id"], silent["severity"]) == (0, "Unknown")
    assert (silent["status_id"], silent["status"]) == (0, "Unknown")


def test_the_originals_of_translated_words_are_kept() -> None:
    alert = made(severity="high", severity_original="4", status="new", status_original="Active")
    found = event(alert, Details(attributes={"zone": "north"}))
    assert found["unmapped"] == {"severity": "4", "status": "Active", "zone": "north"}


def test_tactics_and_techniques_have_their_ids() -> None:
    alert = made(tactics=("CredentialAccess", "PreAttack"), techniques=("T1059.001", "T1078"))
    assert event(alert, Details())["finding_info"]["attacks"] == [
        {"tactic": {"uid": "TA0006", "name": "Credential Access"}},
        {"tactic": {"name": "PreAttack"}},
        {
            "technique": {"uid": "T1059", "name": "T1059"},
            "sub_technique": {"uid": "T1059.001"},
        },
        {"technique": {"uid": "T1078", "name": "T1078"}},
    ]
    assert tactic("command-and-control") == ("TA0011", "Command and Control")


def test_an_activity_has_them_under_the_profile_security_control() -> None:
    found = event(made("activity_log", tactics=("Impact",)), Details())
    assert found["attacks"] == [{"tactic": {"uid": "TA0040", "name": "Impact"}}]
    assert "security_control" in found["metadata"]["profiles"]


def test_the_subscription_is_the_account_and_what_is_known_of_it_an_enrichment() -> None:
    alert = example("defender_alert")
    alert.subscription = Subscription(
        id=SUBSCRIPTION, name="shop", owner="ada@example.com", tags={"tier": "1"}
    )
    found = said(alert)
    assert found["cloud"]["provider"] == "Azure"
    assert found["cloud"]["account"]["uid"] == SUBSCRIPTION
    assert found["cloud"]["account"]["name"] == "shop"
    assert found["enrichments"] == [
        {
            "name": "cloud.account.uid",
            "value": SUBSCRIPTION,
            "type": "subscription",
            "data": {"name": "shop", "owner": "ada@example.com", "tags": {"tier": "1"}},
        }
    ]
    alert.subscription = Subscription(id=SUBSCRIPTION, known=False)
    assert "enrichments" not in said(alert)


def test_a_resource_of_another_cloud_names_that_cloud() -> None:
    found = event(made("assessment"), Details(attributes={"cloud": "AWS"}))
    assert found["cloud"] == {"provider": "AWS"}


def test_the_cloud_is_of_what_names_a_subscription_a_tenant_or_a_cloud() -> None:
    found = event(made("xdr"), Details(attributes={"tenant_id": "t-1"}))
    assert found["cloud"] == {"provider": "Azure", "org": {"uid": "t-1"}}
    assert found["metadata"]["tenant_uid"] == "t-1"
    nowhere = event(made("windows_event"), Details())
    assert "cloud" not in nowhere
    assert "cloud" not in nowhere["metadata"]["profiles"]


def test_every_sort_of_thing_is_evidence() -> None:
    app = Entity(type="application", name="portal", id="app-1", role="actor")
    found = event(
        made(),
        mentioning(ADA, CURL, FILE, HERE, THERE, KEY, VALUE, MAIL, app, STAFF),
    )
    assert found["evidences"] == [
        {
            "user": {
                "name": "ada",
                "uid": "S-1-5-21-7",
                "domain": "example.com",
                "email_addr": "ada@example.com",
            }
        },
        {
            "process": {
                "pid": 8000,
                "name": "curl",
                "file": {"name": "curl", "type_id": 1, "type": "Regular File"},
                "parent_process": {"pid": 7},
            }
        },
        {
            "file": {
                "name": "x",
                "type_id": 1,
                "type": "Regular File",
                "path": "/tmp/x",
                "hashes": [{"algorithm_id": 3, "algorithm": "SHA-256", "value": "ab" * 32}],
            }
        },
        {"src_endpoint": {"ip": "10.1.1.1", "port": 50000}},
        {"dst_endpoint": {"ip": "203.0.113.7", "port": 443}},
        {"reg_key": {"path": "HKLM\\Software\\x"}},
        {"reg_value": {"path": "HKLM\\Software\\x", "name": "Run"}},
        {"name": "Invoice", "data": {"type": "message", "name": "Invoice", "id": "n-1"}},
        {"actor": {"app_name": "portal", "app_uid": "app-1"}},
        {"name": "staff", "data": {"type": "group", "name": "staff"}},
    ]


@pytest.mark.parametrize(
    ("entity", "evidence"),
    [
        (Entity(type="ip", name="300.1.1.1"), {"src_endpoint": {"name": "300.1.1.1"}}),
        (Entity(type="ip", name="fe80::1%eth0"), {"src_endpoint": {"ip": "fe80::1"}}),
        (
            Entity(type="ip", name="192.0.2.1", port="70000"),
            {"src_endpoint": {"ip": "192.0.2.1"}},
        ),
        (
            Entity(type="file", name="x", hashes=("not hexadecimal",)),
            {"file": {"name": "x", "type_id": 1, "type": "Regular File"}},
        ),
        (
            Entity(type="device", name="plc", role="actor", attributes={"MacAddress": "00-11"}),
            {"src_endpoint": {"name": "plc"}},
        ),
        (
            Entity(type="user", name="ada lovelace@example.com"),
            {"user": {"name": "ada lovelace@example.com"}},
        ),
        (
            Entity(type="process", name="x", pid="99999999999"),
            {"file": {"name": "x", "type_id": 1, "type": "Regular File"}},
        ),
    ],
)
def test_what_a_type_refuses_stays_out_of_its_field(
    entity: Entity, evidence: dict[str, Any]
) -> None:
    assert event(made(), mentioning(entity))["evidences"] == [evidence]


def test_a_process_without_a_number_is_its_file_and_command() -> None:
    started = Entity(type="process", name="curl", command_line="curl -s x")
    assert event(made(), mentioning(started))["evidences"] == [
        {
            "file": {"name": "curl", "type_id": 1, "type": "Regular File"},
            "data": {"command_line": "curl -s x"},
        }
    ]


def test_what_is_attacked_is_a_resource_and_who_attacks_is_evidence() -> None:
    vm = Entity(type="host", name="shop-vm-1", id=RESOURCE)
    attacker = Entity(type="host", name="kali", role="actor")
    mac = {"MacAddress": "00:11:22:33:44:55"}
    plc = Entity(type="device", name="plc-7", role="source", attributes=mac)
    found = event(made(resource_ids=(RESOURCE,)), mentioning(vm, HOST, attacker, plc))
    assert found["resources"] == [
        {
            "uid": RESOURCE,
            "name": "shop-vm-1",
            "group": {"name": "rg-shop"},
            "type": "Microsoft.Compute/virtualMachines",
            "hostname": "shop-vm-1.example.com",
        }
    ]
    assert found["evidences"] == [
        {"src_endpoint": {"hostname": "kali"}},
        {"src_endpoint": {"name": "plc-7", "mac": "00:11:22:33:44:55"}},
    ]
    assert found["device"]["hostname"] == "shop-vm-1"
    assert (found["device"]["type_id"], found["device"]["uid"]) == (6, RESOURCE)


def test_observables_are_each_value_once_and_say_where_it_stands() -> None:
    url = Entity(type="url", name="https://example.com/x")
    again = Entity(type="url", name="HTTPS://example.com/x")
    found = event(made(), mentioning(HERE, HERE, url, again, FILE))["observables"]
    assert [(it["name"], it["type_id"], it["value"]) for it in found] == [
        ("evidences[].src_endpoint.ip", 2, "10.1.1.1"),
        ("evidences[].url.url_string", 6, "https://example.com/x"),
        ("evidences[].file.name", 7, "x"),
        ("evidences[].file.hashes[].value", 8, "ab" * 32),
    ]


def test_what_a_class_has_no_place_for_can_still_be_searched_for() -> None:
    found = event(made("syslog"), mentioning(HERE, FILE))
    assert found["class_uid"] == 0
    assert [(it["name"], it["value"]) for it in found["observables"]] == [
        ("raw_data", "10.1.1.1"),
        ("raw_data", "x"),
        ("raw_data", "ab" * 32),
    ]


def test_an_incident_is_its_owners_or_nobodys() -> None:
    owned = event(made("security_incident"), Details(attributes={"owner": "ada@example.com"}))
    assert owned["assignee"] == {"name": "ada@example.com", "email_addr": "ada@example.com"}
    assert "assignee_group" not in owned
    assert event(made("security_incident"), Details())["assignee_group"]["name"] == "Unassigned"


def test_a_judgement_is_a_verdict() -> None:
    judged = Details(attributes={"classification": "TruePositive"})
    for kind in ("graph_alert", "graph_incident"):
        found = event(made(kind), judged)
        assert (found["verdict_id"], found["verdict"]) == (2, "True Positive")
    assert "incident" in event(made("graph_alert"), judged)["metadata"]["profiles"]


def test_related_alerts_are_named() -> None:
    found = event(made("security_incident"), Details(related=("a1", "a2")))
    assert found["finding_info_list"][0]["related_events"] == [{"uid": "a1"}, {"uid": "a2"}]


def test_a_finding_with_cves_is_a_vulnerability() -> None:
    known = {"cve": "CVE-2026-1234, nonsense", "package": "openssl", "package_version": "3.0.1"}
    found = event(made("sub_assessment", title="OpenSSL"), Details(attributes=known))
    assert found["class_uid"] == 2002
    assert found["vulnerabilities"] == [
        {
            "cve": {"uid": "CVE-2026-1234"},
            "title": "OpenSSL",
            "affected_packages": [{"name": "openssl", "version": "3.0.1"}],
        }
    ]
    assert event(made("sub_assessment"), Details())["class_uid"] == 2003


@pytest.mark.parametrize(
    ("word", "status"), [("Healthy", 1), ("Passed", 1), ("Unhealthy", 3), ("Skipped", 99), ("", 0)]
)
def test_an_assessment_passes_or_fails(word: str, status: int) -> None:
    found = event(made("assessment", status_original=word, title="MFA is on"), Details())
    assert found["compliance"]["status_id"] == status
    assert found["compliance"]["control"] == "MFA is on"


def test_a_logon_says_who_from_where_to_where_and_how() -> None:
    attributes = {"event_id": "4625", "logon_type": "10", "authentication_package_name": "NTLM"}
    found = event(
        made("security_event"),
        mentioning(HOST, ADA, BOB, HERE, outcome="failure", attributes=attributes),
    )
    assert found["user"]["name"] == "bob"
    assert found["actor"]["user"]["name"] == "ada"
    assert found["src_endpoint"]["ip"] == "10.1.1.1"
    assert found["dst_endpoint"]["hostname"] == "shop-vm-1.example.com"
    assert (found["logon_type_id"], found["auth_protocol_id"]) == (10, 1)
    assert (found["status_id"], found["status"]) == (2, "Failure")
    assert found["metadata"]["event_code"] == "4625"


def test_a_call_without_a_source_says_that_it_is_unknown() -> None:
    action = "Microsoft.Compute/virtualMachines/delete"
    found = event(made("activity_log"), mentioning(ADA, action=action))
    assert found["api"] == {"operation": action, "service": {"name": "Microsoft.Compute"}}
    assert found["src_endpoint"] == {"name": "Unknown"}
    assert event(made("activity_log"), mentioning(action=action))["class_uid"] == 0


def test_a_mail_names_sender_and_recipients() -> None:
    found = event(
        made("xdr"),
        mentioning(
            EVE,
            Entity(type="mailbox", name="ada@example.com", role="target"),
            Entity(type="mailbox", name="not an address", role="target"),
            MAIL,
            attributes={"table": "EmailEvents", "email_direction": "Inbound"},
        ),
    )
    assert found["type_name"] == "Email Activity: Receive"
    assert found["email"] == {
        "from": "eve@example.net",
        "to": ["ada@example.com"],
        "subject": "Invoice",
        "uid": "n-1",
    }


def test_times_are_milliseconds_and_the_enqueued_time_is_the_logged_one() -> None:
    alert = made(event_ms=1_772_619_194_987, start_ms=1, end_ms=2, enqueued_ms=3)
    found = event(alert, Details())
    assert (found["time"], found["start_time"], found["end_time"]) == (1_772_619_194_987, 1, 2)
    assert found["metadata"]["logged_time"] == 3
    assert found["metadata"]["original_time"] == "2026-03-04T10:13:14.987Z"
    assert "original_time" not in event(made(event_ms=5, enqueued_ms=5), Details())["metadata"]
