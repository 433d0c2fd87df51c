"""What is the same for all Windows events: XML, names, entities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import Entity
from schemas.kinds import _windows
from tests.strategies import texts

SECURITY = "Microsoft-Windows-Security-Auditing"
SYSMON = "Microsoft-Windows-Sysmon"


def event(event_id: str, provider: str = SECURITY, **data: str) -> _windows.Event:
    return _windows.Event(event_id=event_id, provider=provider, data=_windows.facts(data))


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&#39;")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), texts, max_size=5))
def test_values_come_out_of_xml_as_they_went_in(data: dict[str, str]) -> None:
    values = "".join(f"<Data Name='{name}'>{escaped(text)}</Data>" for name, text in data.items())
    xml = f"<Event><System><EventID>7</EventID></System><EventData>{values}</EventData></Event>"
    assert _windows.parse(xml).data == _windows.facts(data)


@pytest.mark.parametrize(
    ("xml", "values"),
    [
        ("<Data Name='a'>&lt;&#65;&#x42;&amp;lt;</Data>", {"a": "<AB&lt;"}),
        ("<Data Name='a'>&#xD800;&#9999999;&nbsp;</Data>", {"a": "\ufffd\ufffd&nbsp;"}),
        ('<Data\n Name = "a b">x</Data>', {"a_b": "x"}),
        ("<Data Name='a'>1</Data><Data Name='A'>2</Data>", {"a": "1"}),
        ("<x:Data Name='a'>1</x:Data><Data>2</Data><Data Name='e'/>", {"a": "1", "param1": "2"}),
        ("<UserData><My xmlns='x'><UserName>u</UserName></My></UserData>", {"user_name": "u"}),
        ("<Data Name='a'><![CDATA[<b>&amp;]]></Data>", {"a": "<b>&amp;"}),
        ("<Data Name='a'>-</Data><Data Name='b'>S-1-0-0</Data><Data Name='c'> </Data>", {}),
        ("<!-- <Data Name='a'>1</Data> -->", {"a": "1"}),
        ("<Data Name='a'>1</Date><Data Name='b'>2", {}),
    ],
)
def test_xml(xml: str, values: dict[str, str]) -> None:
    assert _windows.values(xml) == values


def test_entities_of_a_document_type_are_nothing() -> None:
    xml = (
        "<!DOCTYPE Event [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'><!ENTITY f SYSTEM 'file:///x'>]>"
        "<Event><System><EventID>1</EventID></System>"
        "<EventData><Data Name='x'>&b;&f;</Data></EventData></Event>"
    )
    assert _windows.parse(xml).data == {"x": "&b;&f;"}


@given(
    st.lists(st.sampled_from(["<", ">", "</", "Data", " Name='", "'", "&#", ";", "System", "a"]))
)
def test_any_text_is_read_somehow(pieces: list[str]) -> None:
    xml = "".join(pieces)
    _windows.details(_windows.parse(f"<Event>{xml}</System>{xml}"))
    _windows.parse(xml, whole=False)


@pytest.mark.parametrize(
    ("level", "keywords", "outcome"),
    [
        ("0", "0x8020000000000000", "success"),
        ("0", "0x8010000000000000", "failure"),
        ("0", "-9218868437227405312", "failure"),  # as a signed number
        ("8", "", "success"),
        ("16", "", "failure"),
        ("4", "Audit Failure", "failure"),
        ("4", "0x8000000000000000", ""),
        ("4", "odd", ""),
        ("", "9" * 5000, ""),
    ],
)
def test_outcome(level: str, keywords: str, outcome: str) -> None:
    assert _windows.outcome(level, keywords) == outcome


def test_a_member_is_added_to_a_group() -> None:
    found = _windows.details(
        event(
            "4732",
            SubjectUserName="mallory",
            SubjectDomainName="SHOP",
            MemberName="CN=Bob\\, the other,OU=x,DC=shop",
            MemberSid="S-1-5-21-1-2-3-1105",
            TargetUserName="Administrators",
            TargetDomainName="Builtin",
            TargetSid="S-1-5-32-544",
        )
    )
    assert found.entities == (
        Entity(type="user", name="mallory", domain="SHOP", role="actor"),
        Entity(
            type="group",
            name="Administrators",
            domain="Builtin",
            id="S-1-5-32-544",
            role="target",
        ),
        Entity(type="user", name="Bob, the other", id="S-1-5-21-1-2-3-1105", role="target"),
    )
    assert found.action == "A member was added to a security-enabled local group"


def test_an_account_that_acts_on_itself_is_one() -> None:
    names = {"SubjectUserName": "bob", "TargetUserName": "BOB"}
    domains = {"SubjectDomainName": "SHOP", "TargetDomainName": "shop"}
    found = _windows.details(event("4723", **names, **domains))
    assert found.entities == (Entity(type="user", name="bob", domain="SHOP", role="actor"),)


def test_a_sid_that_a_forwarder_resolved_is_a_name() -> None:
    found = _windows.details(event("4672", SubjectUserSid="SHOP\\mallory"))
    assert found.entities == (Entity(type="user", name="mallory", domain="SHOP", role="actor"),)


def test_who_logged_the_event_counts_where_nobody_else_is_named() -> None:
    it = event("4104", "Microsoft-Windows-PowerShell", ScriptBlockText="ls")
    it.user_id = "S-1-5-21-1-2-3-1104"
    assert _windows.details(it).entities == (Entity(type="user", id=it.user_id, role="actor"),)
    it.provider = SYSMON
    assert _windows.details(it).entities == ()


@pytest.mark.parametrize(
    ("it", "entities"),
    [
        (
            event("11", SYSMON, Image="C:\\x.exe", TargetFilename="C:\\t\\y.dll", Hash="MD5=x"),
            [
                Entity(type="process", name="x.exe", path="C:", role="actor"),
                Entity(type="file", name="y.dll", path="C:\\t", role="target"),
            ],
        ),
        (
            event(
                "7", SYSMON, Image="C:\\x.exe", ImageLoaded="C:\\y.dll", Hashes="MD5=" + "a" * 32
            ),
            [
                Entity(type="process", name="x.exe", path="C:", role="actor"),
                Entity(type="file", name="y.dll", path="C:", role="target", hashes=("a" * 32,)),
            ],
        ),
        (
            event(
                "22",
                SYSMON,
                QueryName="c2.example.net",
                QueryResults="type:  5 x.example.net;::ffff:198.51.100.9;2001:db8::1;",
            ),
            [
                Entity(type="domain", name="c2.example.net"),
                Entity(type="ip", name="198.51.100.9"),
                Entity(type="ip", name="2001:db8::1"),
            ],
        ),
        (
            event("12", SYSMON, TargetObject="HKU\\a\\b"),
            [Entity(type="registry", path="HKU\\a\\b", role="target")],
        ),
        (
            event("13", SYSMON, TargetObject="HKU\\a\\b", Details="1"),
            [Entity(type="registry", path="HKU\\a", name="b", role="target")],
        ),
        (
            event("10", SYSMON, SourceImage="C:\\x.exe", SourceProcessId="4", TargetImage="y"),
            [
                Entity(type="process", name="x.exe", path="C:", pid="4", role="actor"),
                Entity(type="process", name="y", role="target"),
            ],
        ),
        (
            event("4657", ObjectName="\\REGISTRY\\x", ObjectValueName="v", NewValue="1"),
            [Entity(type="registry", path="\\REGISTRY\\x", name="v", role="target")],
        ),
        (
            event("4663", ObjectType="File", ObjectName="C:\\t\\a.txt"),
            [Entity(type="file", name="a.txt", path="C:\\t", role="target")],
        ),
        (
            event("5145", ShareName="\\\\*\\C$", RelativeTargetName="t\\a.txt"),
            [Entity(type="file", name="a.txt", path="\\\\*\\C$\\t", role="target")],
        ),
        (
            event("7045", "Service Control Manager", ServiceName="s", ImagePath="C:\\s.exe -k"),
            [Entity(type="other", name="s", command_line="C:\\s.exe -k")],
        ),
        (
            event(
                "1116",
                "Microsoft-Windows-Windows Defender",
                **{"Threat Name": "EICAR", "Path": "file:_C:\\e.com; file:_C:\\f.com"},
            ),
            [
                Entity(type="file", name="e.com", path="C:", role="target"),
                Entity(type="file", name="f.com", path="C:", role="target"),
                Entity(type="malware", name="EICAR"),
            ],
        ),
        (
            event("59", "Microsoft-Windows-Bits-Client", url="https://x.example.net/a"),
            [Entity(type="url", name="https://x.example.net/a")],
        ),
        (event("4648", TargetServerName="localhost"), []),
    ],
)
def test_things(it: _windows.Event, entities: list[Entity]) -> None:
    assert list(_windows.details(it).entities) == entities


def test_data_that_is_called_like_the_event_s_own_is_kept() -> None:
    it = event("104", "Microsoft-Windows-Eventlog", Channel="Application")
    it.channel = "System"
    found = _windows.details(it).attributes
    assert (found["channel"], found["data_channel"]) == ("System", "Application")


@pytest.mark.parametrize(
    ("provider", "event_id", "text", "title"),
    [
        (SECURITY, "4624", "whatever", "4624 - An account was successfully logged on"),
        (SECURITY.lower(), "4624", "", "4624 - An account was successfully logged on"),
        ("x", "1", "One thing.\r\nAnother", "1 - One thing"),
        ("x", "1", "", "1 - x"),
        ("x", "", "", "x"),
        ("", "", "", ""),
    ],
)
def test_titles(provider: str, event_id: str, text: str, title: str) -> None:
    assert _windows.title(provider, event_id, text) == title
