from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import cef as module
from schemas.formats.cef import cef, cef_iot
from schemas.kinds import understand
from tests.examples import EXAMPLES
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, encoded, hostile
from tests.strategies import alerts

LENGTHS = {
    **dict.fromkeys(("cs1", "cs2", "cs3", "cs4", "cs5", "cs6"), 4000),
    **dict.fromkeys(("deviceExternalId", "fileHash"), 255),
    **dict.fromkeys(("act", "outcome"), 63),
    **dict.fromkeys(("app", "proto"), 31),
}
"""In characters; all others 1023."""
LABELS = {
    "c6a2": "Source IPv6 Address",
    "c6a3": "Destination IPv6 Address",
    "cs1": "AzureResourceId",
    "cs2": "AlertId",
    "cs3": "SubscriptionName",
    "cs4": "SubscriptionOwner",
    "cs5": "SubscriptionEnvironment",
    "cs6": "SubscriptionId",
    "flexString1": "MitreTechniques",
    "flexString2": "Status",
}
OWN = {
    *("externalId", "rt", "start", "end", "cat", "msg", "request", "fname", "filePath"),
    *("src", "dst", "spt", "dpt", "shost", "dhost", "smac", "dmac", "suser", "duser", "suid"),
    *("duid", "sproc", "dproc", "spid", "dpid", *LENGTHS, *LABELS),
    *(f"{key}Label" for key in LABELS),
}
"""Every key that this format has."""
IOT = {
    *("msg", "protocol", "severity", "type", "UUID", "start"),
    *("src_ip", "src_mac", "dst_ip", "dst_mac", "cat", "externalId"),
}
KNOWN = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production", "Retail")


def mentioning(
    monkeypatch: pytest.MonkeyPatch, *entities: Entity, **more: Any
) -> Callable[..., dict[str, str]]:
    """The fields of an alert whose record mentions these."""
    known = Details(entities=entities, **more)
    monkeypatch.setattr(module, "details", lambda alert: known)
    return lambda **overrides: parse(cef(alert(**overrides)))[1]


def alert(**overrides: object) -> Alert:
    made = understand(encoded(defender_alert()))
    made.subscription = KNOWN
    return msgspec.structs.replace(made, **overrides)


MAIN = cef(alert(), entities=False)


def unescape(text: str, allowed: dict[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        assert match[1] in allowed, f"escape {match[0]!r}"
        return allowed[match[1]]

    return re.sub(r"\\(.?)", one, text, flags=re.DOTALL)


def parse(line: bytes) -> tuple[list[str], dict[str, str]]:
    """A strict reading of one line of CEF: the seven header fields and the extension."""
    text = line.decode()
    assert len(text.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    parts = re.split(r"(?<!\\)((?:\\\\)*)\|", text, maxsplit=7)
    assert len(parts) == 15, "seven pipes"
    header = [a + b for a, b in zip(parts[:14:2], parts[1:14:2], strict=True)]
    assert header[0] == "CEF:0"
    fields: dict[str, str] = {}
    # A key begins the extension or follows a blank; its = is the only one that is not escaped.
    marks = list(re.finditer(r"(?:^| )([A-Za-z0-9_]+)=", parts[14]))
    assert parts[14].count("=") - len(re.findall(r"\\=", parts[14])) == len(marks)
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        end = following.start() if following else len(parts[14])
        assert mark[1] not in fields
        fields[mark[1]] = unescape(
            parts[14][mark.end() : end], {"\\": "\\", "=": "=", "n": "\n", "r": "\r"}
        )
    return [unescape(field, {"\\": "\\", "|": "|"}) for field in header], fields


def test_the_main_fields() -> None:
    header, fields = parse(cef(alert(), entities=False))
    assert header == [
        *("CEF:0", "Microsoft", "Microsoft Defender for Cloud", "1.0"),
        *("VM_SuspiciousDownload", "Suspicious download by a system account", "8"),
    ]
    record = defender_alert()
    assert fields == {
        "externalId": alert().event_id,
        "rt": "1772619194987",
        "start": "1772619072123",
        "end": "1772619120500",
        "cat": "Persistence, CredentialAccess",
        "dhost": "shop-vm-1",
        "msg": record["Description"],
        "request": record["AlertUri"],
        "cs1": RESOURCE,
        "cs1Label": "AzureResourceId",
        "cs2": record["SystemAlertId"],
        "cs2Label": "AlertId",
        "cs3": "Shop",
        "cs3Label": "SubscriptionName",
        "cs4": "ann@example.com",
        "cs4Label": "SubscriptionOwner",
        "cs5": "production",
        "cs5Label": "SubscriptionEnvironment",
        "cs6": SUBSCRIPTION,
        "cs6Label": "SubscriptionId",
        "flexString2": "New",
        "flexString2Label": "Status",
    }


@pytest.mark.parametrize(
    ("severity", "number"), zip(SEVERITIES, ["3", "1", "3", "6", "8", "10"], strict=True)
)
def test_severity(severity: str, number: str) -> None:
    assert parse(cef(alert(severity=severity)))[0][6] == number


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("10.0.0.7", {"dst": "10.0.0.7"}),
        ("2001:db8::7", {"c6a3": "2001:db8::7", "c6a3Label": "Destination IPv6 Address"}),
        ("10.0.0.7.example", {"dhost": "10.0.0.7.example"}),
        ("ann@example.com", {"duser": "ann@example.com"}),
        ("ann at work @ home", {"dhost": "ann at work @ home"}),
        ("", {}),
    ],
)
def test_resource(resource: str, fields: dict[str, str]) -> None:
    found = parse(cef(alert(resource=resource), entities=False))[1]
    places = ("dst", "c6a3", "c6a3Label", "dhost", "duser")
    assert {name: found[name] for name in places if name in found} == fields


def test_the_least_that_an_alert_can_be() -> None:
    header, fields = parse(cef(Alert(kind="unknown", key=bytes(16), entity="e")))
    assert header[1:] == ["Microsoft", "unknown", "1.0", "unknown", "unknown", "3"]
    assert fields == {"externalId": "0" * 32, "rt": "0", "cs2": "e", "cs2Label": "AlertId"}


def test_what_the_record_mentions_stands_on_its_side(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = mentioning(
        monkeypatch,
        Entity(type="ip", name="203.0.113.7", port="50123"),
        Entity(type="ip", name="2001:db8::7"),
        Entity(type="host", name="kali", role="source", attributes={"MAC": "000D60AF1B61"}),
        Entity(type="user", name="mallory", domain="EVIL", id="S-1-5-21", role="actor"),
        Entity(type="ip", name="10.0.0.7", port="443", role="target"),
        Entity(type="ip", name="2001:db8::1", role="target"),
        Entity(type="device", name="plc-7", attributes={"MacAddress": "00-0d-60-af-1b-62"}),
        Entity(type="user", name="ann", domain="example.com", id="7f3c"),
        Entity(type="process", name="sshd", path="/usr/sbin", pid="0x2a", role="source"),
        Entity(type="process", command_line="rm -rf = /", pid="4711"),
        Entity(type="file", name="x.exe", path="C:\\temp\\", hashes=("a" * 32, "b" * 64)),
        action="Microsoft.Compute/virtualMachines/write",
        outcome="failure",
        attributes={"protocol": "Modbus", "sensor": "sensor-1", "zone": "zone-1"},
    )(resource="")
    main = parse(cef(alert(resource=""), entities=False))[1]
    assert {key: text for key, text in fields.items() if key not in main} == {
        "src": "203.0.113.7",
        "spt": "50123",
        "c6a2": "2001:db8::7",
        "c6a2Label": "Source IPv6 Address",
        "shost": "kali",
        "smac": "00:0D:60:AF:1B:61",
        "suser": "EVIL\\mallory",
        "suid": "S-1-5-21",
        "sproc": "/usr/sbin/sshd",
        "spid": "42",
        "dst": "10.0.0.7",
        "dpt": "443",
        "c6a3": "2001:db8::1",
        "c6a3Label": "Destination IPv6 Address",
        "dhost": "plc-7",
        "dmac": "00:0d:60:af:1b:62",
        "duser": "ann@example.com",
        "duid": "7f3c",
        "dproc": "rm -rf = /",
        "dpid": "4711",
        "fname": "x.exe",
        "filePath": "C:\\temp\\x.exe",
        "fileHash": "b" * 64,
        "act": "Microsoft.Compute/virtualMachines/write",
        "outcome": "failure",
        "app": "Modbus",
        "deviceExternalId": "sensor-1",
    }


def test_of_several_the_first_and_the_main_resource_before_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = mentioning(
        monkeypatch,
        Entity(type="host", name="other-vm", attributes={"MAC": "000D60AF1B61"}),
        Entity(type="host", name="shop-vm-1", attributes={"MAC": "000D60AF1B62"}),
        Entity(type="ip", name="not an address", port="1"),
        Entity(type="ip", name="203.0.113.7"),
        Entity(type="ip", name="203.0.113.8", port="2"),
        Entity(type="file", hashes=("c" * 40,)),
        Entity(type="file", name="first.sh"),
        Entity(type="file", name="second.sh", hashes=("d" * 40,)),
    )()
    assert (fields["dhost"], fields["dmac"]) == ("shop-vm-1", "00:0D:60:AF:1B:62")
    assert fields["src"] == "203.0.113.7"
    assert "spt" not in fields, "another address's port"
    assert fields["fname"] == "first.sh"
    assert "fileHash" not in fields, "another file's hash"


def test_a_file_without_a_name_still_has_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Entity(type="process", name="x", hashes=("e" * 40,))
    assert mentioning(monkeypatch, image)()["fileHash"] == "e" * 40


@pytest.mark.parametrize(("protocol", "key"), [("Modbus", "app"), ("TCP", "proto")])
def test_protocol(monkeypatch: pytest.MonkeyPatch, protocol: str, key: str) -> None:
    assert mentioning(monkeypatch, attributes={"protocol": protocol})()[key] == protocol


def test_an_example_says_what_it_mentions() -> None:
    fields = parse(cef(alert()))[1]
    assert fields["src"] == "203.0.113.7"
    assert fields["dhost"] == "shop-vm-1"
    assert "svc-web" in fields["duser"]


@pytest.mark.parametrize("text", hostile())
def test_entities_stay_text(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    types = ("ip", "host", "user", "process", "file", "device", "mailbox")
    entities = [
        Entity(
            type=type,  # type: ignore[arg-type]
            role=role,  # type: ignore[arg-type]
            **dict.fromkeys(("name", "id", "domain", "path", "command_line"), text),
            **dict.fromkeys(("pid", "port"), text),
            hashes=(text,),
            attributes={"mac": text},
        )
        for type in types
        for role in ("", "source", "target")
    ]
    attributes = dict.fromkeys(("protocol", "sensor"), text)
    fields = mentioning(monkeypatch, *entities, action=text, attributes=attributes)()
    assert set(fields) == {
        *parse(MAIN)[1],
        *("suser", "suid", "duser", "duid", "shost", "sproc", "dproc"),
        *("fname", "filePath", "fileHash", "act", "app", "deviceExternalId"),
    }


@pytest.mark.parametrize("text", hostile())
def test_text_stays_text(text: str) -> None:
    """Whatever it says, the line has the same fields and the same header."""
    fields = ("title", "description", "resource", "entity", "link", "alert_type", "product")
    evil = alert(
        **dict.fromkeys((*fields, "vendor", "subscription_id", "status_original"), text),
        tactics=(text,),
        techniques=(text,),
        resource_ids=(text,),
        subscription=Subscription(text, text, text, text),
    )
    header, found = parse(cef(evil, entities=False))
    assert header[6] == "8"
    assert set(found) == set(parse(cef(alert(techniques=("T1",)), entities=False))[1])
    kept = [c for c in text if c.isprintable()]
    assert [c for c in found["msg"] if c.isprintable() and c != " "] == [
        c for c in kept if c != " "
    ]


any_text = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\\|=\n\r "))


@given(any_text, any_text, any_text)
def test_any_text_reads_back(title: str, description: str, name: str) -> None:
    made = alert(title=title, description=description, subscription=Subscription("s", name))
    header, fields = parse(cef(made))
    plain = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")
    if plain.fullmatch(title) and title.strip():
        assert header[5] == title[:512].strip()
    if plain.fullmatch(description.replace("\n", "").replace("\r", "")):
        assert fields.get("msg", "") == description[:1023].strip(" ")
    if plain.fullmatch(name):
        assert fields.get("cs3", "") == name.strip(" ")


@given(alerts())
def test_any_alert_is_one_line_without_a_forged_field(made: Alert) -> None:
    header, fields = parse(cef(made))
    assert header[6] in ("1", "3", "6", "8", "10")
    assert fields["externalId"] == made.event_id
    assert fields["rt"] == str(made.event_ms)
    assert set(fields) <= OWN
    for key, text in fields.items():
        assert len(text) <= LENGTHS.get(key, 1023)
        assert text.strip(" ") == text != ""
    assert {key: fields[f"{key}Label"] for key in LABELS if key in fields} == {
        key: label for key, label in LABELS.items() if key in fields
    }


def test_lone_surrogates_cannot_break_the_line() -> None:
    header, fields = parse(cef(alert(title="a\ud800b", description="\udfff=")))
    assert header[5] == "a?b"
    assert fields["msg"] == "?="


def test_values_keep_the_dictionary_lengths() -> None:
    long = "x" * 5000
    header, fields = parse(
        cef(
            alert(title=long, product=long, description=long, link=long, resource=long),
            max_bytes=100_000,
            entities=False,
        )
    )
    assert (len(header[2]), len(header[5])) == (63, 512)
    assert {len(fields[name]) for name in ("msg", "request", "dhost")} == {1023}


def test_shortening_drops_the_optional_before_it_cuts() -> None:
    whole = cef(alert())
    order = ["flexString2", "request", "end", "start", "cs5", "cs4", "cs3", "cs6"]
    order += ["cs1", "dhost", "cat", "cs2"]
    before = set(parse(whole)[1])
    for size in range(len(whole), 250, -1):
        header, fields = parse(line := cef(alert(), max_bytes=size))
        assert len(line) <= size
        assert header == parse(whole)[0]
        assert set(fields) <= before
        before = set(fields)
        gone = [name not in fields for name in order]
        assert gone == sorted(gone, reverse=True), "the least important first"
        if fields["msg"] != defender_alert()["Description"]:
            assert all(gone)


@given(
    st.text(st.sampled_from("\\=|\n\ra\u00e9\u4e2d\U0001f600"), max_size=300), st.integers(200, 900)
)
def test_a_cut_halves_neither_escape_nor_code_point(text: str, size: int) -> None:
    made = alert(description=text, title="t")
    _, fields = parse(line := cef(made, max_bytes=size))
    assert len(line) <= size
    assert text.startswith(fields.get("msg", ""))


def test_too_little_room_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"CEF needs \d+ bytes for this alert, not 50"):
        cef(alert(), max_bytes=50)


def iot(monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> tuple[list[str], dict[str, str]]:
    """An alert of Defender for IoT, said as its sensors do."""
    known = Details(
        entities=(
            Entity(type="ip", name="10.1.0.7", role="source"),
            Entity(type="ip", name="10.1.0.9", role="target"),
            Entity(type="device", name="hmi", role="source", attributes={"mac": "000d60af1b61"}),
            Entity(type="device", name="plc", role="target", attributes={"mac": "000d60af1b62"}),
        ),
        attributes={
            "sensor": "sensor|1",
            "protocol": "Modbus",
            "component": "POLICY_VIOLATION",
            "category": "Unauthorized Communication Behavior",
        },
    )
    monkeypatch.setattr(module, "details", lambda alert: known)
    return parse(cef_iot(alert(kind="iot_alert", **overrides)))


def test_an_iot_alert_as_its_sensors_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    header, fields = iot(monkeypatch)
    record = defender_alert()
    assert header == [
        *("CEF:0", "Microsoft Defender for IoT/CyberX", "sensor|1", "unknown"),
        *("Microsoft Defender for IoT Alert", record["AlertDisplayName"], "8"),
    ]
    assert fields == {
        "msg": record["Description"],
        "protocol": "Modbus",
        "severity": "Major",
        "type": "Policy Violation",
        "UUID": record["SystemAlertId"],
        "start": "1772619072123",
        "src_ip": "10.1.0.7",
        "src_mac": "00:0d:60:af:1b:61",
        "dst_ip": "10.1.0.9",
        "dst_mac": "00:0d:60:af:1b:62",
        "cat": "Unauthorized Communication Behavior",
        "externalId": alert(kind="iot_alert").event_id,
    }


@pytest.mark.parametrize(
    ("severity", "said"),
    [
        *(("unknown", ("1", "Warning")), ("informational", ("1", "Warning"))),
        *(("low", ("1", "Warning")), ("medium", ("4", "Minor"))),
        *(("high", ("8", "Major")), ("critical", ("10", "Critical"))),
    ],
)
def test_iot_severity(
    monkeypatch: pytest.MonkeyPatch, severity: str, said: tuple[str, str]
) -> None:
    header, fields = iot(monkeypatch, severity=severity)
    assert (header[6], fields["severity"]) == said


def test_the_example_of_an_iot_alert_says_who_did_it_to_what() -> None:
    made = understand(encoded(EXAMPLES["iot_alert"].record()))
    fields = parse(cef_iot(made))[1]
    assert {"type", "src_ip", "dst_mac", "protocol", "cat", "msg"} <= set(fields)
    assert fields["src_ip"] == parse(cef(made))[1]["src"]


def test_other_alerts_are_said_as_ever() -> None:
    assert cef_iot(alert()) == cef(alert())
    assert cef_iot(alert(), max_bytes=900, entities=False) == cef(
        alert(), max_bytes=900, entities=False
    )


@given(alerts())
def test_any_iot_alert_is_one_line_without_a_forged_field(made: Alert) -> None:
    header, fields = parse(cef_iot(msgspec.structs.replace(made, kind="iot_alert")))
    assert header[6] in ("1", "4", "8", "10")
    assert {"severity", "start"} <= set(fields) <= IOT
    assert fields["externalId"] == made.event_id
