"""What the alerts of Defender and Sentinel mention, whichever way they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import Details, Entity
from schemas.kinds import _alerts
from schemas.kinds._base import Fields
from tests.examples._base import RESOURCE

MD5 = "0a" * 16


def mentioned(**fields: Any) -> Details:
    return _alerts.mentioned(Fields(json.dumps(fields).encode()))


def named_in(**properties: Any) -> list[tuple[str, str, str]]:
    found = mentioned(ExtendedProperties=properties).entities
    return [(entity.type, entity.full_name, entity.role) for entity in found]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("Compromised Host", "vm-1", [("host", "vm-1", "")]),
        ("machine name", "vm-1.corp.example", [("host", "vm-1.corp.example", "")]),
        ("User Name", "CORP\\ann", [("user", "CORP\\ann", "")]),
        ("user name", "ann@corp.example", [("user", "ann@corp.example", "")]),
        (
            "Account List",
            "CORP\\ann\nCORP\\bob",
            [("user", "CORP\\ann", ""), ("user", "CORP\\bob", "")],
        ),
        ("User Names", '["ann",""]', [("user", "ann", "")]),
        ("Client IP address", "192.0.2.7", [("ip", "192.0.2.7", "source")]),
        ("attacker source IP", "IP Address: 192.0.2.7", [("ip", "192.0.2.7", "source")]),
        ("Victim IP", "192.0.2.7", [("ip", "192.0.2.7", "target")]),
        (
            "Source IPs",
            '["192.0.2.7","2001:db8::7"]',
            [("ip", "192.0.2.7", "source"), ("ip", "2001:db8::7", "source")],
        ),
        ("Full Source Address", '["192.0.2.7:"]', [("ip", "192.0.2.7", "source")]),
        ("clientIpAddress", "192.0.2.7:443", [("ip", "192.0.2.7", "source")]),
        ("Client IP location", "Amsterdam", []),
        ("Remote Address", "?", []),
        ("Management URL", "https://192.0.2.7:8443", [("url", "https://192.0.2.7:8443", "")]),
        ("Client application", "SSMS", [("application", "SSMS", "")]),
        ("Suspicious domain", "evil.example", [("domain", "evil.example", "")]),
        ("User Domain", "corp.example", []),
        ("File Path", "/tmp/x.sh", [("file", "/tmp/x.sh", "")]),
        ("file md5", MD5, [("file", "", "")]),
        ("User Name", "-", []),
        (
            "Custom Details",
            '{"Source IP":["192.0.2.7"],"User Name":["ann"]}',
            [("ip", "192.0.2.7", "source"), ("user", "ann", "")],
        ),
        ("Total IP Entities", "2", []),
        ("client ip", ["192.0.2.7", 7, None], [("ip", "192.0.2.7", "source")]),
        ("Query", "SigninLogs | where IPAddress == '192.0.2.7'", []),
    ],
)
def test_what_extended_properties_name(
    name: str, value: Any, wanted: list[tuple[str, str, str]]
) -> None:
    assert named_in(**{name: value}) == wanted


def test_a_process_stands_in_several_properties() -> None:
    found = mentioned(
        ExtendedProperties=json.dumps(
            {
                "Suspicious Process": "c:\\temp\\x.exe",
                "Suspicious Command Line": "x.exe -t",
                "Suspicious Process Id": "0x240",
                "Parent Process": "c:\\windows\\cmd.exe",
                "Parent Process Id": "0x10",
            }
        )
    ).entities
    assert found == (
        Entity(
            type="process",
            name="x.exe",
            path="c:\\temp",
            command_line="x.exe -t",
            pid="0x240",
            parent_pid="0x10",
        ),
        Entity(type="process", name="cmd.exe", path="c:\\windows", pid="0x10"),
    )


def test_a_user_has_the_domain_and_sid_beside_it() -> None:
    found = mentioned(
        ExtendedProperties={"user name": "ann", "domain name": "CORP", "User SID": "S-1-5-21-7"}
    )
    assert found.entities == (Entity(type="user", name="ann", domain="CORP", id="S-1-5-21-7"),)


def test_entities_and_properties_are_told_once() -> None:
    found = mentioned(
        Entities=[
            {"$id": "1", "Type": "host", "HostName": "vm-1", "AzureID": RESOURCE},
            {"$id": "2", "Type": "process", "CommandLine": "x -t", "ProcessId": "7"}
            | {"ImageFile": {"Type": "file", "Name": "x"}},
        ],
        ExtendedProperties={"Compromised Host": "VM-1", "Command line": "x -t"},
        AzureResourceId=RESOURCE.lower(),
        CompromisedEntity="vm-1",
    )
    assert [(entity.type, entity.name) for entity in found.entities] == [
        *(("host", "vm-1"), ("process", "x"), ("file", "x")),
    ]
    assert found.entities[0].role == "target"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"CompromisedEntity": "ann@corp.example"}, [("user", "ann@corp.example")]),
        ({"CompromisedEntity": "192.0.2.7"}, [("ip", "192.0.2.7")]),
        ({"CompromisedEntity": RESOURCE}, [("host", "shop-vm-1")]),
        (
            {"CompromisedEntity": RESOURCE.replace("virtualMachines", "disks")},
            [("resource", "shop-vm-1")],
        ),
        (
            {
                "CompromisedEntity": "vm-1",
                "ExtendedProperties": {"resourceType": "Virtual Machine"},
            },
            [("host", "vm-1")],
        ),
        ({"CompromisedEntity": "Pay-as-you-go"}, [("other", "Pay-as-you-go")]),
        ({"CompromisedEntity": None}, []),
    ],
)
def test_the_compromised_entity(fields: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    found = mentioned(**fields).entities
    assert [(entity.type, entity.full_name) for entity in found] == wanted
    assert all(entity.role == "target" for entity in found)


def test_the_resources_are_told_too() -> None:
    disk = RESOURCE.replace("virtualMachines", "disks")
    found = mentioned(
        ResourceId=RESOURCE, ResourceIdentifiers=[{"AzureResourceId": disk}, {"AadTenantId": "x"}]
    )
    assert found.entities == (
        Entity(type="host", name="shop-vm-1", id=RESOURCE),
        Entity(type="resource", name="shop-vm-1", id=disk),
    )


def test_other_alerts_are_related() -> None:
    found = mentioned(
        SystemAlertId="a-1",
        VendorOriginalId="v-1",
        Entities=[
            {"Type": "alerts", "SystemAlertIds": ["a-2", "A-1", 7]},
            {"type": "security-alert", "systemAlertId": "a-3"},
        ],
    )
    assert found.related == ("v-1", "a-2", "7", "a-3")
    assert mentioned(SystemAlertId="a-1", VendorOriginalId="A-1").related == ()


def test_further_facts() -> None:
    found = mentioned(
        ProviderName="MDATP",
        ConfidenceLevel="Unknown",
        IsIncident=False,
        TenantId="w-1",
        RemediationSteps=["One.", "Two."],
        ExtendedProperties={"ActionTaken": "Blocked"},
    )
    assert found.action == "Blocked"
    assert found.attributes == {
        "provider": "MDATP",
        "workspace_id": "w-1",
        "remediation": "One.\nTwo.",
    }


def test_what_is_left_of_broken_properties_is_read() -> None:
    broken = '{"User Name":"ann","Query":"where a'  # cut off
    assert [it.name for it in mentioned(ExtendedProperties=broken).entities] == ["ann"]
    assert mentioned(ExtendedProperties="none", RemediationSteps="Ask.").attributes == {
        "remediation": "Ask."
    }


names = st.sampled_from(
    [
        *(
            "User Name",
            "Compromised Host",
            "Client IP",
            "Source IPs",
            "url",
            "file hash",
            "File Path",
        ),
        *("Command line", "Parent Process", "Custom Details", "domain name", "resourceType"),
    ]
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
        st.sampled_from(["192.0.2.7", "::", "a\\b", "[", '["x"]', '{"Client IP":"1.2.3.4"}', MD5]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=6), values, values)
def test_any_alert_has_details(properties: Any, entities: Any, compromised: Any) -> None:
    found = mentioned(
        ExtendedProperties=properties, Entities=entities, CompromisedEntity=compromised
    )
    assert len(found.entities) == len(set(map(repr, found.entities)))


def test_addresses_are_found_in_linear_time() -> None:
    for hostile in ("a" * 200_000, ":" * 20_000, "1." * 10_000, "f:" * 10_000):
        assert list(_alerts.addresses(hostile)) == []
