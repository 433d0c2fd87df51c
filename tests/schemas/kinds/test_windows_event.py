from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import changed, encoded, without
from tests.examples.windows_event import IMPHASH, MD5, SHA256, TEXT, record
from tests.fidelity.measure import parsed
from tests.schemas.kinds import told


def read(path: str = "time", value: Any = "2026-03-04T10:20:00.1234567Z") -> Alert:
    return understand(encoded(changed(record(), path, value)))


ENTITIES = (
    Entity(type="host", name="shop-vm-1", domain="shop.example.com"),
    Entity(type="user", name="mallory", domain="SHOP", role="actor"),
    Entity(
        type="process",
        name="rundll32.exe",
        path="C:\\Windows\\System32",
        role="target",
        command_line='rundll32.exe "C:\\tmp\\a & b.dll",Run',
        pid="6272",
        parent_pid="880",
        hashes=(MD5, SHA256),
    ),
    Entity(
        type="process",
        name="explorer.exe",
        path="C:\\Windows",
        role="actor",
        command_line="C:\\Windows\\explorer.exe",
        pid="880",
    ),
)
FACTS = {
    "utc_time": "2026-03-04 10:19:59.987",
    "process_guid": "{7a7a7a7a-0001-0002-0003-000000000001}",
    "logon_id": "0x3e7",
    "imphash": IMPHASH,
    "event_id": "1",
    "channel": "Microsoft-Windows-Sysmon/Operational",
    "provider": "Microsoft-Windows-Sysmon",
}


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "windows_event",
        "entity": "shop-vm-1.shop.example.com/Microsoft-Windows-Sysmon/Operational/120166",
        "version": "1772619600123",
        "title": "1 - Process creation",
        "description": TEXT,
        "severity": "informational",
        "severity_original": "Informational",
        "event_ms": 1772619600123,
        "resource": "shop-vm-1.shop.example.com",
        "product": "Windows",
        "alert_type": "Microsoft-Windows-Sysmon/1",
    }


def test_what_it_mentions() -> None:
    assert details(read()) == Details(
        entities=ENTITIES,
        action="Process creation",
        attributes=FACTS
        | {
            "record_id": "120166",
            "task": "1",
            "opcode": "0",
            "provider_guid": "5770385f-c22a-43e0-bf4c-06f5698ffbd9",
            "execution_process_id": "3272",
            "execution_thread_id": "5036",
        },
    )


def test_without_xml_the_text_tells() -> None:
    alert = understand(encoded(without(record(), "properties.RawXml")))
    found = details(alert)
    assert found.entities == (Entity(type="host", name="shop-vm-1"), *ENTITIES[1:])
    assert found.attributes == FACTS
    assert alert.resource == "shop-vm-1"
    assert alert.title == "1 - Process creation"
    assert alert.severity == "informational"


def test_a_log_that_was_cleared_counts_from_one_again() -> None:
    again = read("time", "2026-03-05T10:20:00Z")
    assert again.entity == read().entity
    assert again.key != read().key


def test_a_failed_audit() -> None:
    xml = record()["properties"]["RawXml"].replace("0x8000000000000000", "0x8010000000000000")
    alert = read("properties.RawXml", xml)
    assert (alert.severity, alert.severity_original) == ("medium", "Audit Failure")
    assert details(alert).outcome == "failure"


@pytest.mark.parametrize(
    ("level", "severity"),
    [(1, "critical"), (2, "high"), (3, "medium"), (5, "informational"), ("7", "unknown")],
)
def test_severity(level: Any, severity: str) -> None:
    xml = record()["properties"]["RawXml"].replace("<Level>4<", f"<Level>{level}<")
    assert read("properties.RawXml", xml).severity == severity
    alert = understand(encoded(without(changed(record(), "properties.Level", level), "level")))
    assert alert.severity_original == "4"  # the event's own level goes before the extension's


@pytest.mark.parametrize("repair", ["json_in_string", "single_quotes"])
def test_properties_in_a_string(repair: str) -> None:
    its = {"ProviderName": "p", "EventId": 7, "RoleInstance": "_vm", "Channel": "c", "Level": 2}
    written = encoded(its).decode() if repair == "json_in_string" else repr(its)
    alert = read("properties", written)
    assert alert.repairs == (repair,)
    assert (alert.title, alert.resource, alert.severity) == ("7 - p", "vm", "high")
    assert details(alert).hosts == ("vm",)


@pytest.mark.parametrize("odd", [None, 7, [], "x", {"RawXml": 7}, {"RawXml": ["<Event>"]}])
def test_odd_properties_are_no_reason_to_fail(odd: Any) -> None:
    alert = read("properties", odd)
    assert alert.kind == "windows_event"
    assert len(alert.entity) == 32
    details(alert)


def test_real_events(shared: Path) -> None:
    found = {}
    for file in (shared / "samples/windows_event_diag").iterdir():
        ((alert,), dead) = parsed(file.read_bytes())
        assert not dead
        found[file.stem.rpartition("__")[2]] = details(alert)
    assert found["Event_5156"].ips == ("1.2.3.4", "5.6.7.8")
    assert found["Event_4719"].users == ("ACME\\Acmesubject$",)
    assert found["event_4648"].users == ("EXAMPLE\\OktaService", "EXAMPLE\\JDO")
    assert [it.pid for it in found["process_operation"].of("process")] == ["80", "5480"]
    assert [it.full_name for it in found["sysmon_11"].of("file")] == [
        "C:\\Windows\\Temp\\__PSScriptPolicyTest_tnklb3sm.oxn.ps1"
    ]
    assert [it.name for it in found["sysmon_13"].of("registry")] == ["FriendlyName"]
    assert len(found["sysmon"].hashes) == 2
    assert all(len(it.hosts) == 1 for it in found.values())
