from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.entities import Details, Entity
from schemas.kinds import KINDS, _base, details
from tests.examples import changed, encoded, without
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.xdr import ALERT, DEVICE, TABLES, TENANT, evidence, record, row
from tests.schemas.kinds import read, samples, told


def mentioned(record: dict[str, Any]) -> Details:
    return details(read(record))


def said(found: Details) -> list[str]:
    return [
        f"{it.role or '-'} {it.type} {it.full_name or it.path or it.id or it.hashes[0]}"
        for it in found.entities
    ]


def test_every_field() -> None:
    assert told(read(record())) == {
        "kind": "xdr",
        "entity": f"deviceprocessevents {DEVICE} 42 2026-03-04T10:20:00.7654321Z",
        "title": "DeviceProcessEvents: ProcessCreated",
        "event_ms": 1772619600765,  # not when it was received
        "resource": "pc-7.corp.example",
        "product": "Microsoft Defender for Endpoint",
        "alert_type": "DeviceProcessEvents/ProcessCreated",
    }


def test_every_detail() -> None:
    assert mentioned(record()) == Details(
        entities=(
            Entity(type="host", name="pc-7", domain="corp.example", id=DEVICE),
            Entity(
                type="user",
                name="mallory",
                domain="example.com",
                id="aaaaaaaa-0000-4000-8000-00000000000a",
                role="actor",
                attributes={"AccountDomain": "corp", "AccountSid": "S-1-5-21-1-2-3-1105"},
            ),
            Entity(
                type="process",
                name="whoami.exe",
                path="C:\\Windows\\System32",
                command_line="whoami /all",
                pid="4712",
                parent_pid="4711",
                hashes=("b" * 40, "b" * 64, "b" * 32),
                role="target",
                attributes={"FileSize": "73728", "IntegrityLevel": "High"},
            ),
            Entity(
                type="process",
                name="PowerShell.exe",
                path="c:\\windows\\system32",  # which ends in the name, in another case
                command_line="powershell.exe -enc AAAA",
                pid="4711",
                parent_pid="815",
                hashes=("a" * 40, "a" * 64, "a" * 32),
                role="actor",
                attributes={"IntegrityLevel": "High"},
            ),
            Entity(type="process", name="explorer.exe", pid="815"),
        ),
        action="ProcessCreated",
        attributes={
            "machine_group": "Workstations",
            "logon_id": "999",
            "process_posix_session_id": "7",
            "table": "DeviceProcessEvents",
            "tenant_id": TENANT,
        },
    )


PC, MALLORY = "- host pc-7.corp.example", "actor user mallory@example.com"
BY = ["actor process c:\\windows\\system32\\PowerShell.exe", "- process explorer.exe"]
MAIL = "- message eeeeeeee-1111-4222-8333-444455556666"
ALICE = "target mailbox alice@example.com"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("AlertInfo", []),
        ("AlertEvidence", ["target host pc-7.corp.example"]),
        (
            "DeviceNetworkEvents",
            [
                *(PC, MALLORY, "source ip 10.0.0.7", "target ip 203.0.113.80"),
                *("target url cdn.example.net", *BY),
            ],
        ),
        (
            "DeviceFileEvents",
            [
                *(PC, MALLORY, "actor user corp\\eve", "source ip 10.0.0.9"),
                *("source ip 203.0.113.80", "target url https://cdn.example.net/invoice.zip"),
                "target file C:\\Users\\mallory\\invoice.pdf.exe",
                *("source file C:\\Users\\mallory\\invoice.pdf", *BY),
            ],
        ),
        ("DeviceImageLoadEvents", [PC, MALLORY, "target file C:\\Temp\\evil.dll", *BY]),
        (
            "DeviceRegistryEvents",
            [
                *(PC, MALLORY, "target registry Updater"),
                *("source registry HKEY_CURRENT_USER\\Software\\Old", *BY),
            ],
        ),
        (
            "DeviceLogonEvents",
            [
                *(PC, "source host kiosk-2", "- user corp\\system"),
                *("actor user corp\\administrator", "source ip 10.0.0.66", *BY),
            ],
        ),
        (
            "DeviceEvents",
            [
                *(PC, "source host jump-1", "source host kiosk-2", MALLORY),
                *("target user nt authority\\system", "source ip 10.0.0.33"),
                *("target process C:\\Windows\\System32\\lsass.exe", *BY),
            ],
        ),
        ("DeviceInfo", [PC, "- user CORP\\mallory", "- ip 203.0.113.7"]),
        ("DeviceNetworkInfo", [PC, "- ip 10.0.0.7", "- ip 10.0.0.1"]),  # 999.0.0.1 is none
        (
            "DeviceFileCertificateInfo",
            [
                *(PC, "target url http://crl.example.com/1.crl", f"target file {'e' * 40}"),
                "- other Example Corp",
            ],
        ),
        (
            "EmailEvents",
            [
                *("source ip 198.51.100.25", "source ip 2001:db8::25", "- message Your invoice"),
                "source mailbox offers@mail.example.net",
                *("source mailbox bounce@mail.example.net", ALICE),
            ],
        ),
        (
            "EmailAttachmentInfo",
            [MAIL, ALICE, "target file invoice.zip", "- malware Trojan_ZIP", "- malware Phish"],
        ),
        (
            "EmailUrlInfo",
            [MAIL, "target url https://login.example.net/?x=1", "target domain login.example.net"],
        ),
        ("EmailPostDeliveryEvents", [MAIL, ALICE]),
        (
            "UrlClickEvents",
            [
                *("actor user alice@example.com", "source ip 203.0.113.9", MAIL),
                "target url https://login.example.net/?x=1",
                "target url https://t.example.org/1",
            ],
        ),
        (
            "MessageEvents",
            [
                *("- message /chats/1/messages/2", "source mailbox alice@example.com"),
                "target mailbox bob@example.com",
            ],
        ),
        (
            "IdentityLogonEvents",
            [
                *("source host pc-7.corp.example", "target host dc-1.corp.example"),
                *("target host files-1.corp.example", MALLORY, "target user svc-files@example.com"),
                *("source ip 10.0.0.7", "target ip 10.0.0.1"),
                "target application Active Directory",
            ],
        ),
        (
            "IdentityQueryEvents",
            [
                *("target host dc-1.corp.example", "source ip 10.0.0.7"),
                "target domain internal.corp.example",
            ],
        ),
        ("IdentityInfo", ["- user mallory@example.com"]),
        (
            "CloudAppEvents",
            [
                *("actor application Mail Reader", "source ip 203.0.113.9"),
                "target application Microsoft Exchange Online",
                *("target file https://x.example/a.doc", "target group Sales"),
                *("- ip 203.0.113.10", "target application Box", "target other Hide"),
                *("actor user alice@example.com", ALICE, "- url https://found.example"),
            ],
        ),
        (
            "CloudProcessEvents",
            [
                *("actor user root", "- resource shop-vm-1", "- resource shop/pod/web-1"),
                *("- resource web", "target process /usr/bin/curl", "- process sh"),
            ],
        ),
        ("CloudAuditEvents", ["source ip 203.0.113.9", "- resource shop-vm-1"]),
        ("CloudStorageAggregatedEvents", ["source ip 203.0.113.9"]),
        (
            "AADSignInEventsBeta",
            [
                *("actor user alice@example.com", "source ip 203.0.113.9"),
                "- application Azure Portal",
            ],
        ),
        ("AADSpnSignInEventsBeta", ["actor application deployer"]),
        ("BehaviorInfo", []),
    ],
)
def test_what_a_table_names(table: str, expected: list[str]) -> None:
    assert said(mentioned(TABLES[table])) == expected


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_told_in_every_shape(table: str) -> None:
    streamed = TABLES[table]
    alert = read(streamed)
    assert alert.kind == "xdr"
    assert alert.title
    assert alert.event_ms == 1772619600765
    assert mentioned(streamed).attributes["table"] == table
    hunted = streamed["properties"]
    if "ReportId" in hunted or "AlertId" in hunted:  # as a query returns it
        told = {"ActionType": "x"} | hunted
        assert read(told).kind == "xdr"
        names = [it.name for it in mentioned(told).entities]
        assert names == [it.name for it in mentioned(streamed).entities]
    if not table.startswith("AAD"):  # as Log Analytics exports it
        exported = hunted | {"Type": table, "TimeGenerated": "2026-03-04T10:20:01Z"}
        assert (read(exported).kind, read(exported).title) == ("xdr", alert.title)
        assert read(exported).alert_type == alert.alert_type
        assert mentioned(exported).attributes["table"] == table
        assert said(mentioned(exported)) == said(mentioned(streamed))


def test_every_shape_takes_the_fast_way() -> None:
    streamed = record()
    hunted = streamed["properties"]
    exported = hunted | {"Type": "DeviceProcessEvents", "TimeGenerated": "2026-03-04T10:20:01Z"}
    for it in (streamed, hunted, exported):
        KINDS["xdr"].strict(encoded(it))
    for name in ("Timestamp", "ReportId"):
        with pytest.raises(msgspec.ValidationError):
            KINDS["xdr"].strict(encoded(hunted | {name: None}))
    with pytest.raises(msgspec.ValidationError):
        KINDS["xdr"].strict(encoded(exported | {"Type": "SecurityEvent"}))


@pytest.mark.parametrize("table", ["AADUserRiskEvents", "SecurityEvent", "DeviceAppCrash"])
def test_other_tables_of_log_analytics_are_not_its_own(table: str) -> None:
    exported = record()["properties"] | {"Type": table, "TimeGenerated": "2026-03-04T10:20:01Z"}
    assert read(exported).kind != "xdr"


def test_a_result_that_unites_tables_has_typed_columns() -> None:
    columns = record()["properties"]
    columns["ReportId_long"] = columns.pop("ReportId")
    columns["ReportId_string"] = ""
    columns["AdditionalFields_string"] = columns.pop("AdditionalFields")
    columns["AdditionalFields_dynamic"] = None
    alert = read(columns)
    assert alert.entity == f"{DEVICE} 42 2026-03-04T10:20:00.7654321Z"
    assert alert.title == "ProcessCreated"
    assert details(alert).attributes["process_posix_session_id"] == "7"
    assert said(details(alert))[:2] == [PC, MALLORY]


def test_alerts() -> None:
    for table in ("AlertInfo", "AlertEvidence"):
        alert = read(TABLES[table])
        assert (alert.severity, alert.severity_original) == ("medium", "Medium")
        assert alert.tactics == ("Discovery",)
        assert alert.techniques == ("T1033", "T1059.001")
        assert alert.product == "Microsoft Defender for Endpoint"
        assert alert.entity == ALERT
        assert details(alert).related == (ALERT,)
        assert details(alert).attributes["category"] == "Discovery"
    assert read(TABLES["AlertInfo"]).title == "Suspicious discovery"
    assert read(TABLES["AlertEvidence"]).title == "Suspicious discovery (Machine)"
    assert read(TABLES["AlertInfo"]).version == "2026-03-04T10:20:00.7654321Z"


def test_categories_that_are_no_tactics_are_none() -> None:
    behaviour = read(TABLES["BehaviorInfo"])
    assert behaviour.tactics == ("InitialAccess",)
    assert behaviour.description == "Two continents within minutes"
    assert (behaviour.start_ms, behaviour.end_ms) == (1772614800000, 1772618400000)
    assert details(behaviour).attributes["category"] == "InitialAccess, SuspiciousActivity"


def test_an_identity_event_may_tell_tactics_and_techniques() -> None:
    alert = read(TABLES["IdentityLogonEvents"])
    assert (alert.tactics, alert.techniques) == (("CredentialAccess",), ("T1558.003",))


def test_a_report_id_starts_again() -> None:
    later = changed(record(), "properties.Timestamp", "2026-04-04T10:20:00Z")
    elsewhere = changed(record(), "properties.DeviceId", "e" * 40)
    entities = {read(it).entity for it in (record(), later, elsewhere, record())}
    assert len(entities) == 3


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("AlertEvidence", "EntityType"),
        ("DeviceNetworkInfo", "MacAddress"),
        ("EmailUrlInfo", "Url"),
        ("EmailAttachmentInfo", "FileName"),
        ("UrlClickEvents", "ActionType"),
    ],
)
def test_rows_that_share_an_id_are_not_repeats(table: str, column: str) -> None:
    one, repeat = TABLES[table], TABLES[table] | {"time": "2026-03-04T11:00:00Z"}
    other = changed(one, f"properties.{column}", "another")
    assert read(one).key == read(repeat).key  # the envelope is not the row
    assert read(one).key != read(other).key
    assert read(one).entity == read(other).entity


def test_without_a_time_of_its_own_it_is_when_it_was_received() -> None:
    alert = read(without(record(), "properties.Timestamp"))
    assert alert.event_ms == 1772619900123
    exported = record()["properties"] | {"Type": "DeviceEvents"}
    del exported["Timestamp"]
    exported["TimeGenerated"] = "2026-03-04 10:20:01.5"
    assert read(exported).event_ms == 1772619601500


@pytest.mark.parametrize("additional", ['{"Count":"1"}', {"Count": "1"}])
def test_additional_fields_are_text_or_an_object(additional: Any) -> None:
    found = mentioned(changed(record(), "properties.AdditionalFields", additional))
    assert found.attributes["count"] == "1"


def test_properties_in_a_string_are_repaired() -> None:
    streamed = TABLES["AlertInfo"]
    text = record() | {"properties": json.dumps(streamed["properties"])}
    single = record() | {"properties": str(streamed["properties"])}
    for it, repair in ((text, "json_in_string"), (single, "single_quotes")):
        alert = read(it)
        assert (alert.entity, alert.severity) == (ALERT, "medium")
        assert alert.repairs == (repair,)
        assert alert.raw == encoded(it)
        assert details(alert).related == (ALERT,)


@pytest.mark.parametrize("properties", [None, [], "none", 7, {}])
def test_no_properties_are_never_fatal(properties: Any) -> None:
    alert = read(record(properties=properties))
    assert (alert.kind, alert.event_ms) == ("xdr", 1772619900123)
    assert alert.title == "DeviceProcessEvents"
    assert details(alert).entities == ()


PROCESS = {
    "$id": "1",
    "ProcessId": "4712",
    "CommandLine": "whoami /all",
    "ImageFile": {
        "$id": "2",
        "Directory": "C:\\Windows",
        "Name": "whoami.exe",
        "FileHashes": [{"$id": "3", "Algorithm": "SHA1", "Value": "b" * 40}],
        "Host": {"$id": "4", "HostName": "pc-7", "Type": "host"},
        "Type": "file",
    },
    "ParentProcess": {"$id": "5", "ProcessId": "4711", "Type": "process"},
    "Type": "process",
}


def test_evidence_is_one_thing_in_columns_and_as_an_entity() -> None:
    found = mentioned(
        evidence(
            "Process",
            encoded(PROCESS).decode(),
            FileName="whoami.exe",
            FolderPath="C:\\Windows",
            SHA1="b" * 40,
            SHA256="b" * 64,
            ProcessCommandLine="whoami /all",
        )
    )
    process, *others = found.entities
    assert process == Entity(
        type="process",
        name="whoami.exe",
        path="C:\\Windows",
        command_line="whoami /all",
        pid="4712",
        parent_pid="4711",
        hashes=("b" * 40, "b" * 64),
        role="target",
        attributes=process.attributes,
    )
    assert [it.type for it in others] == ["file", "host"]


def test_a_person_of_two_names_is_one_by_the_id() -> None:
    account = {"Name": "jdoe", "NTDomain": "CORP", "AadUserId": "7" * 36, "Type": "account"}
    found = mentioned(
        evidence("User", account, AccountUpn="jane@example.com", AccountObjectId="7" * 36)
    )
    (jane,) = found.entities
    assert (jane.full_name, jane.id, jane.role) == ("jane@example.com", "7" * 36, "target")
    alice = [it for it in mentioned(TABLES["CloudAppEvents"]).entities if it.type == "user"]
    assert [(it.full_name, it.attributes["DisplayName"]) for it in alice] == [
        ("alice@example.com", "Alice Example")
    ]


def test_a_cloud_resource_is_named_by_its_evidence() -> None:
    additional = {"ResourceId": RESOURCE, "Type": "azure-resource"}
    alert = read(evidence("CloudResource", json.dumps(additional)))
    assert alert.resource_ids == (RESOURCE,)
    assert (alert.subscription_id, alert.resource) == (SUBSCRIPTION, "shop-vm-1")
    amazon = evidence("CloudResource", "", SubscriptionId="123456789012", CloudPlatform="Amazon")
    assert read(amazon).subscription_id == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"ActionType": "InboundConnectionAccepted"},
        {"AdditionalFields": '{"direction":"In"}'},
    ],
)
def test_who_connects_is_the_source(changes: dict[str, Any]) -> None:
    streamed = TABLES["DeviceNetworkEvents"]
    inbound = row("DeviceNetworkEvents", **streamed["properties"] | changes)
    roles = {it.name: it.role for it in mentioned(inbound).of("ip")}
    assert roles == {"10.0.0.7": "target", "203.0.113.80": "source"}


def test_a_process_of_which_only_the_number_is_known_is_a_fact() -> None:
    found = mentioned(
        row("DeviceEvents", DeviceName="pc-7", ReportId=1, InitiatingProcessId=7, SHA1="-")
    )
    assert said(found) == ["- host pc-7"]
    assert found.attributes["initiating_process_id"] == "7"


def test_how_it_went() -> None:
    outcomes = {table: mentioned(it).outcome for table, it in TABLES.items()}
    assert {table: it for table, it in outcomes.items() if it} == {
        "DeviceNetworkEvents": "success",
        "DeviceLogonEvents": "failure",
        "EmailPostDeliveryEvents": "success",
        "IdentityLogonEvents": "success",
        "CloudAppEvents": "success",
        "AADSignInEventsBeta": "failure",
        "AADSpnSignInEventsBeta": "success",
    }


def test_real_rows_are_dated_by_their_own_time(shared: Path) -> None:
    keys = set()
    records = 0
    for alert in samples(shared, "xdr_hunting_rows", "xdr_streaming"):
        columns = json.loads(alert.raw)
        columns = columns.get("properties", columns)
        assert alert.kind == "xdr"
        assert alert.event_ms == _base.millis(_base.moment(columns["Timestamp"]))
        assert details(alert).entities or "AlertInfo" in alert.alert_type
        keys.add(alert.key)
        records += 1
    assert records == 65
    assert len(keys) == 64  # one is another one with changed addresses
