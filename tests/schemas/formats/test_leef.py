from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import leef as module
from schemas.formats.leef import leef
from schemas.kinds import understand
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, encoded, hostile
from tests.strategies import alerts

KNOWN = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production", "Retail")
REQUIRED = ("cat", "devTime", "sev", "externalId")
IBM = {
    *("cat", "devTime", "sev", "src", "dst", "srcPort", "dstPort", "usrName", "srcMAC", "dstMAC"),
    *("identHostName", "resource", "url"),
}
CUSTOM = {
    *(
        "externalId",
        "alertId",
        "title",
        "severity",
        "status",
        "msg",
        "link",
        "startTime",
        "endTime",
    ),
    *("tactics", "techniques", "resourceId", "subscriptionId", "subscriptionName"),
    *("subscriptionOwner", "subscriptionEnvironment", "srcHostName", "targetUsrName", "action"),
    *("outcome", "process", "commandLine", "fileName", "filePath", "fileHash", "protocol"),
    *("sensor", "zone"),
}


def alert(**overrides: Any) -> Alert:
    made = understand(encoded(defender_alert()))
    made.subscription = KNOWN
    return msgspec.structs.replace(made, **overrides)


def parse(line: bytes) -> tuple[list[str], dict[str, str]]:
    """A strict reading by IBM's text: six header fields, and attributes of which each key stands
    once, is a word, and ends at its first equals sign."""
    text = line.decode()
    assert len(text.splitlines()) == 1
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", text)
    *header, attributes = text.split("|", 6)
    assert len(header) == 6
    assert header[0] == "LEEF:2.0"
    assert header[5] == "0x09"
    assert all(header)
    fields: dict[str, str] = {}
    for attribute in attributes.split("\t"):
        key, equals, value = attribute.partition("=")
        assert equals
        assert re.fullmatch(r"[A-Za-z]+", key)
        assert key not in fields
        fields[key] = value
    return header, fields


def test_the_main_attributes() -> None:
    header, fields = parse(leef(alert(), entities=False))
    assert header == [
        *("LEEF:2.0", "Microsoft", "Microsoft Defender for Cloud", "1.0"),
        *("VM_SuspiciousDownload", "0x09"),
    ]
    record = defender_alert()
    assert fields == {
        "cat": "defender_alert",
        "devTime": "1772619194987",
        "sev": "8",
        "externalId": alert().event_id,
        "alertId": record["SystemAlertId"],
        "title": record["AlertDisplayName"],
        "resource": "shop-vm-1",
        "severity": "High",
        "status": "New",
        "resourceId": RESOURCE,
        "subscriptionId": SUBSCRIPTION,
        "subscriptionName": "Shop",
        "subscriptionOwner": "ann@example.com",
        "subscriptionEnvironment": "production",
        "tactics": "Persistence, CredentialAccess",
        "startTime": "1772619072123",
        "endTime": "1772619120500",
        "link": record["AlertUri"],
        "msg": record["Description"],
    }


def test_what_the_record_mentions_stands_on_its_side(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Details(
        entities=(
            Entity(type="ip", name="not an address"),
            Entity(type="ip", name="2001:DB8::7", port="50123"),
            Entity(type="ip", name="10.0.0.7", port="443", role="target"),
            Entity(type="device", name="kali", role="source", attributes={"mac": "000D60AF1B61"}),
            Entity(type="host", name="shop-vm-1", domain="example.com"),
            Entity(type="user", name="ann", domain="example.com"),
            Entity(type="user", name="mallory", role="actor"),
            Entity(type="url", name="https://example.com/?a=b"),
            Entity(type="process", name="sh", path="/bin", command_line="sh -c x=1"),
            Entity(type="file", name="x.exe", path="C:\\temp", hashes=("a" * 40,)),
        ),
        action="Logon",
        outcome="failure",
        attributes={"protocol": "SSH", "sensor": "sensor-1", "zone": "zone-1"},
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    main = parse(leef(alert(), entities=False))[1]
    fields = parse(leef(alert()))[1]
    assert {key: text for key, text in fields.items() if key not in main} == {
        "src": "2001:db8::7",
        "srcPort": "50123",
        "srcMAC": "00:0D:60:AF:1B:61",
        "srcHostName": "kali",
        "dst": "10.0.0.7",
        "dstPort": "443",
        "identHostName": "shop-vm-1.example.com",
        "usrName": "mallory",
        "targetUsrName": "ann@example.com",
        "url": "https://example.com/?a=b",
        "process": "/bin/sh",
        "commandLine": "sh -c x=1",
        "fileName": "x.exe",
        "filePath": "C:\\temp\\x.exe",
        "fileHash": "a" * 40,
        "action": "Logon",
        "outcome": "failure",
        "protocol": "SSH",
        "sensor": "sensor-1",
        "zone": "zone-1",
    }


def test_a_user_of_whom_nothing_more_is_known_is_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Details(entities=(Entity(type="user", name="ann"),))
    monkeypatch.setattr(module, "details", lambda alert: known)
    fields = parse(leef(alert()))[1]
    assert fields["usrName"] == "ann"
    assert "targetUsrName" not in fields


def test_a_resource_that_is_an_address_is_the_destination() -> None:
    assert parse(leef(alert(resource="10.0.0.7"), entities=False))[1]["dst"] == "10.0.0.7"


def test_an_example_says_what_it_mentions() -> None:
    fields = parse(leef(alert()))[1]
    assert fields["src"] == "203.0.113.7"
    assert "svc-web" in fields["usrName"]


@pytest.mark.parametrize(
    ("severity", "number"), zip(SEVERITIES, ["3", "1", "3", "6", "8", "10"], strict=True)
)
def test_severity(severity: str, number: str) -> None:
    assert parse(leef(alert(severity=severity)))[1]["sev"] == number


def test_the_least_that_an_alert_can_be() -> None:
    header, fields = parse(leef(Alert(kind="unknown", key=bytes(16), entity="")))
    assert header[1:5] == ["Microsoft", "unknown", "1.0", "unknown"]
    assert fields == {"cat": "unknown", "devTime": "0", "sev": "3", "externalId": "0" * 32}


def test_what_has_a_meaning_is_replaced() -> None:
    evil = alert(
        product="pipe | back \\",
        alert_type="type|forged",
        title="tab\tsev=10\r\nend\x00",
        description="two = three = four|five",
        resource="C:\\",
    )
    header, fields = parse(leef(evil, entities=False))
    assert header[2] == "pipe / back /"
    assert header[4] == "type/forged"
    assert fields["title"] == "tab sev=10  end"
    assert fields["msg"] == "two = three = four|five"
    assert fields["resource"] == "C:\\ ", "no reader takes it for an escaped delimiter"


@pytest.mark.parametrize("text", hostile())
def test_text_stays_text(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Whatever it says, the line has the same attributes and the same header."""
    types = ("host", "user", "process", "file", "url")
    more = {"path": text, "command_line": text, "hashes": (text,), "domain": text}
    known = Details(
        entities=tuple(
            Entity(type=type, name=text, **more)  # type: ignore[arg-type]
            for type in types
        ),
        action=text,
        attributes=dict.fromkeys(("protocol", "sensor", "zone"), text),
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    fields = ("title", "description", "resource", "entity", "link", "alert_type", "product")
    evil = alert(
        **dict.fromkeys((*fields, "vendor", "subscription_id", "status_original"), text),
        severity_original=text,
        tactics=(text,),
        techniques=(text,),
        resource_ids=(text,),
        subscription=Subscription(text, text, text, text),
    )
    header, found = parse(leef(evil, max_bytes=100_000))
    assert len(header) == 6
    addresses = {"src", "dst", "srcPort", "dstPort", "srcMAC", "dstMAC"}
    others = {"outcome", "srcHostName", "targetUsrName"}
    assert set(found) == (IBM | CUSTOM) - addresses - others
    kept = [c for c in text if c.isprintable() and c != " "]
    assert [c for c in found["msg"] if c.isprintable() and c != " "] == kept


@given(st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\t|=\n\r \\")))
def test_any_text_reads_back(text: str) -> None:
    fields = parse(leef(alert(description=text), entities=False))[1]
    plain = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
    if plain.fullmatch(text):
        assert fields.get("msg", "").rstrip(" ") == text[:1023].strip(" ")


def test_lone_surrogates_cannot_break_the_line() -> None:
    fields = parse(leef(alert(title="a\ud800b", description="\udfff=")))[1]
    assert fields["title"] == "a?b"
    assert fields["msg"] == "?="


def test_values_are_cut() -> None:
    long = "x" * 5000
    header, fields = parse(
        leef(
            alert(product=long, alert_type=long, title=long, description=long, link=long),
            max_bytes=100_000,
        )
    )
    assert (len(header[2]), len(header[4])) == (255, 255)
    assert {len(fields[key]) for key in ("title", "msg", "link")} == {1023}


def test_shortening_drops_the_optional_before_it_cuts() -> None:
    whole = leef(alert())
    order = list(parse(whole)[1])
    assert order[:4] == list(REQUIRED)
    assert order[-1] == "msg"
    for size in range(len(whole), 200, -1):
        line = leef(alert(), max_bytes=size)
        assert len(line) <= size
        header, fields = parse(line)
        assert header == parse(whole)[0]
        assert [key for key in fields if key != "msg"] == order[: len(fields) - ("msg" in fields)]
        if fields.get("msg") != defender_alert()["Description"]:
            assert set(fields) <= {*REQUIRED, "msg"}


def test_too_little_room_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"LEEF needs \d+ bytes for this alert, not 50"):
        leef(alert(), max_bytes=50)


@given(alerts())
def test_any_alert_is_one_line_without_a_forged_attribute(made: Alert) -> None:
    header, fields = parse(leef(made))
    assert header[4] == header[4].strip() != ""
    assert [*fields][:4] == list(REQUIRED)
    assert fields["externalId"] == made.event_id
    assert fields["devTime"] == str(made.event_ms)
    assert fields["cat"] == made.kind
    assert 1 <= int(fields["sev"]) <= 10
    assert set(fields) <= IBM | CUSTOM
    for key, text in fields.items():
        assert 0 < len(text.strip(" ")) <= (255 if key in ("usrName", "identHostName") else 1023)
