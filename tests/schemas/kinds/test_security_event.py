from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.security_event import record
from tests.fidelity.measure import parsed
from tests.schemas.kinds import told


def read(**overrides: Any) -> Alert:
    return understand(encoded(record(**overrides)))


def more(**overrides: Any) -> Details:
    return details(read(**overrides))


def bare(table: str, **columns: Any) -> dict[str, Any]:
    """A row of another table."""
    own = {"TenantId": "t", "TimeGenerated": "2026-03-04T10:20:00Z", "Computer": "shop-vm-1"}
    return own | {"Type": table} | columns


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "security_event",
        "entity": "eeeeeeee-1111-4222-8333-444455556666",
        "title": "4688 - A new process has been created",
        "severity": "informational",
        "severity_original": "8",
        "event_ms": 1772619600123,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "shop-vm-1.shop.example.com",
        "product": "Windows",
        "alert_type": "Microsoft-Windows-Security-Auditing/4688",
    }


def test_what_a_row_mentions() -> None:
    assert more() == Details(
        entities=(
            Entity(type="host", name="shop-vm-1", domain="shop.example.com", id=RESOURCE),
            Entity(
                type="user",
                name="mallory",
                domain="SHOP",
                id="S-1-5-21-1-2-3-1104",
                role="actor",
            ),
            Entity(
                type="process",
                name="whoami.exe",
                path="C:\\Windows\\System32",
                role="target",
                command_line="whoami.exe /all",
                pid="6699",
                parent_pid="16",
            ),
            Entity(
                type="process",
                name="cmd.exe",
                path="C:\\Windows\\System32",
                role="actor",
                pid="16",
            ),
        ),
        action="A new process has been created",
        outcome="success",
        attributes={
            "account_type": "User",
            "mandatory_label": "S-1-16-12288",
            "subject_logon_id": "0x3e7",
            "task": "13312",
            "token_elevation_type": "%%1936",
            "event_id": "4688",
            "channel": "Security",
            "provider": "Microsoft-Windows-Security-Auditing",
            "record_id": "4711",
        },
    )


def test_a_row_s_own_id_names_it() -> None:
    assert read().key == read(TimeCollected="later", EventOriginId="x").key
    assert read().key != read(_ItemId="another").key


def test_without_it_the_event_s_own_id_and_the_content_do() -> None:
    alert = read(_ItemId=None)
    assert alert.entity == "dddddddd-1111-4222-8333-444455556666/4711"
    assert alert.key == read(_ItemId=None).key
    assert alert.key != read(_ItemId=None, CommandLine="x").key


def test_what_names_the_machine_names_no_event() -> None:
    """`EventOriginId` of WindowsEvent."""
    one, two = (
        understand(encoded(bare("WindowsEvent", EventID=number, EventOriginId="vm", Provider="p")))
        for number in (1, 2)
    )
    assert one.kind == two.kind == "security_event"
    assert one.entity != two.entity
    assert "vm" not in (one.entity, two.entity)


@pytest.mark.parametrize(
    ("columns", "severity", "original"),
    [
        ({"Level": "8"}, "informational", "8"),
        ({"Level": "16"}, "medium", "Audit Failure"),
        ({"Level": 0, "Keywords": "0x8010000000000000"}, "medium", "Audit Failure"),
        ({"Level": "4"}, "informational", "4"),
        ({"Level": None, "EventLevelName": "Error"}, "high", "Error"),
        ({"Level": None, "EventLevel": 3}, "medium", "3"),
        ({"Level": "odd"}, "unknown", "odd"),
        ({"Level": None}, "unknown", ""),
    ],
)
def test_severity(columns: dict[str, Any], severity: str, original: str) -> None:
    alert = read(**({"Keywords": ""} | columns))
    assert (alert.severity, alert.severity_original) == (severity, original)


def test_a_failed_logon_says_why() -> None:
    found = more(
        EventID=4625,
        Level="16",
        Keywords="",
        LogonType=10,
        Status="0xc000006d",
        SubStatus="0xc0000064",
        TargetUserName="admin",
        TargetDomainName="SHOP",
        TargetAccount="SHOP\\admin",
        Account="SHOP\\admin",
        IpAddress="203.0.113.30",
        IpPort="0",
        WorkstationName="EVIL-PC",
    )
    assert found.outcome == "failure"
    assert found.action == "An account failed to log on"
    assert found.users == ("SHOP\\mallory", "SHOP\\admin")
    assert Entity(type="ip", name="203.0.113.30", role="source") in found.entities
    assert Entity(type="host", name="EVIL-PC", role="source") in found.entities
    assert found.attributes["logon_type_name"] == "RemoteInteractive"
    assert found.attributes["reason"] == "the user name does not exist"


def test_accounts_that_stand_only_in_columns_put_together() -> None:
    found = details(
        understand(
            encoded(
                bare(
                    "SecurityEvent",
                    EventID=8002,
                    EventSourceName="Microsoft-Windows-AppLocker",
                    Account="NT AUTHORITY\\SYSTEM",
                    SubjectAccount="-\\-",
                    TargetUser="S-1-5-18",
                    FilePath="%SYSTEM32%\\CSCRIPT.EXE",
                    FileHash="AB" * 32,
                    ProcessId="None",
                )
            )
        )
    )
    assert found.users == ("NT AUTHORITY\\SYSTEM",)
    assert found.hashes == ("AB" * 32,)
    assert [(it.type, it.name, it.id) for it in found.entities] == [
        ("host", "shop-vm-1", ""),
        ("user", "", "S-1-5-18"),
        ("user", "SYSTEM", ""),
        ("file", "CSCRIPT.EXE", ""),
    ]


XML = "<Data Name='User'>SHOP\\mallory</Data><Data Name='Image'>C:\\x.exe</Data>"


@pytest.mark.parametrize(
    "data",
    [
        f"<EventData>{XML}</EventData>",
        f'<DataItem type="System.XmlData" time="t"><EventData>{XML}</EventData></DataItem>',
        f"<Event><System><EventID>1</EventID></System><EventData>{XML}</EventData></Event>",
        {"User": "SHOP\\mallory", "Image": "C:\\x.exe"},
        {"Inner": {"User": "SHOP\\mallory", "Image": "C:\\x.exe"}},
        '{"User":"SHOP\\\\mallory","Image":"C:\\\\x.exe"}',
        "{'User': 'SHOP\\\\mallory', 'Image': 'C:\\\\x.exe'}",
    ],
)
@pytest.mark.parametrize("column", ["EventData", "RawEventData", "EventData_dynamic"])
def test_event_data_comes_in_many_ways(column: str, data: Any) -> None:
    row = bare("WindowsEvent", EventID=1, Provider="Microsoft-Windows-Sysmon", **{column: data})
    found = details(understand(encoded(row)))
    assert found.users == ("SHOP\\mallory",)
    assert [it.full_name for it in found.of("process")] == ["C:\\x.exe"]


def test_values_without_names_are_numbered() -> None:
    row = bare("SecurityEvent", EventID=412, EventSourceName="AD FS Auditing", EventData=["a", "-"])
    found = details(understand(encoded(row)))
    assert found.attributes["param1"] == "a"
    assert "param2" not in found.attributes
    assert found.action == "412"
    row = bare("Event", EventID=7, Source="x", ParameterXml="<Param>a</Param><Param>b</Param>")
    assert details(understand(encoded(row))).attributes["param2"] == "b"


def test_a_row_of_the_event_table() -> None:
    alert = understand(
        encoded(
            bare(
                "Event",
                EventID=3,
                Source="Microsoft-Windows-Sysmon",
                EventLog="Microsoft-Windows-Sysmon/Operational",
                EventLevelName="Information",
                RenderedDescription="Network connection detected:\r\nRuleName: -\r\n"
                "Image: C:\\x.exe\r\nSourceIp: 10.0.0.4\r\nSourcePort: 50000\r\n"
                "DestinationIp: 198.51.100.9\r\nDestinationPort: 443\r\n"
                "DestinationHostname: c2.example.net",
            )
        )
    )
    assert alert.title == "3 - Network connection"
    assert alert.alert_type == "Microsoft-Windows-Sysmon/3"
    found = details(alert)
    assert found.ips == ("10.0.0.4", "198.51.100.9")
    assert found.hosts == ("shop-vm-1", "c2.example.net")
    assert found.attributes["channel"] == "Microsoft-Windows-Sysmon/Operational"


def test_an_event_that_is_not_known_is_called_as_it_calls_itself() -> None:
    assert read(EventID=9999, Activity="9999 - Something odd.").title == "9999 - Something odd"
    alert = read(EventID=412, Activity="412", EventSourceName="AD FS Auditing")
    assert alert.title == "412 - AD FS Auditing"
    assert alert.alert_type == "AD FS Auditing/412"


def test_other_rows_of_these_names_are_not_taken() -> None:
    assert understand(encoded({"Type": "Event", "Computer": "x"})).kind != "security_event"


def test_real_rows(shared: Path) -> None:
    folder = shared / "samples/la_windows_rows"
    alerts, dead = parsed((folder / "otrf_goldensaml__WindowsEvents.jsonl").read_bytes())
    assert (len(alerts), dead) == (26, 0)
    assert {alert.kind for alert in alerts} == {"security_event"}
    assert {alert.subscription_id for alert in alerts} == {"00000000-0000-0000-0000-000000000000"}
    logon = details(alerts[2])
    assert logon.users == ("wardog@SIMULANDLABS.COM",)
    assert logon.ips == ("192.168.2.5",)
    assert logon.attributes["logon_type_name"] == "Network"
    assert details(alerts[1]).users == ("SIMULANDLABS\\adfsadmin",)
    pipe = details(alerts[10])
    assert [it.pid for it in pipe.of("process")] == ["5692"]
    ((allowed,), _) = parsed((folder / "stixshifter__loganalytics__DATA2.json").read_bytes())
    assert allowed.title == "8002 - A file was allowed to run"
    assert details(allowed).ips == ("111.11.11.111",)
    assert len(details(allowed).hashes) == 1
