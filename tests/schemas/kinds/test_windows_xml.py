from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from schemas.wrappers import unwrap
from tests.examples import encoded
from tests.examples.windows_xml import XML, record
from tests.fidelity.measure import parsed
from tests.schemas.kinds import told


def read(**overrides: Any) -> Alert:
    return understand(encoded(record(**overrides)))


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "windows_xml",
        "entity": "shop-dc-1.shop.example.com/Security/367348",
        "version": "2026-03-04T10:20:00.123456700Z",
        "title": "4625 - An account failed to log on",
        "description": "An account failed to log on.",
        "severity": "medium",
        "severity_original": "Audit Failure",
        "event_ms": 1772619600123,
        "resource": "shop-dc-1.shop.example.com",
        "product": "Windows",
        "alert_type": "Microsoft-Windows-Security-Auditing/4625",
    }


def test_what_it_mentions() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="host", name="shop-dc-1", domain="shop.example.com"),
            Entity(type="user", name="Administrator", domain="SHOP", role="target"),
            Entity(type="host", name="EVIL-PC", role="source"),
            Entity(type="ip", name="203.0.113.30", port="59450", role="source"),
            Entity(
                type="process",
                name="lsass.exe",
                path="C:\\Windows\\System32",
                pid="588",
                role="actor",
            ),
        ),
        action="An account failed to log on",
        outcome="failure",
        attributes={
            "subject_logon_id": "0x0",
            "status": "0xc000006d",
            "sub_status": "0xc000006a",
            "reason": "wrong password",
            "logon_type": "3",
            "logon_type_name": "Network",
            "logon_process_name": "NtLmSsp",
            "authentication_package_name": "NTLM",
            "event_id": "4625",
            "channel": "Security",
            "provider": "Microsoft-Windows-Security-Auditing",
            "record_id": "367348",
            "task": "12544",
            "opcode": "0",
            "provider_guid": "54849625-5478-4994-a5ba-3e3b0328c30d",
            "activity_id": "6C54D781-5C05-0000-8CD7-546C055CD901",
            "execution_process_id": "588",
            "execution_thread_id": "3564",
        },
    )


def test_the_same_event_from_two_forwarders_is_one() -> None:
    assert understand(encoded({"message": XML})).key == read().key
    assert read(message=XML.replace(">367348<", ">367349<")).key != read().key


def test_a_line_is_unwrapped_into_a_record() -> None:
    (piece,) = unwrap(XML.encode())
    assert not isinstance(piece, bytes)
    alert = understand(piece.body)  # type: ignore[union-attr]
    assert (alert.kind, alert.key) == ("windows_xml", read().key)


@pytest.mark.parametrize(
    "message",
    [
        XML,
        "  " + XML,
        "<?xml version='1.0' encoding='UTF-8'?>\n" + XML,
        "<Event>",
        "<evt:Event xmlns:evt='x'><evt:System/></evt:Event>",
    ],
)
def test_what_begins_like_an_event_is_one(message: str) -> None:
    assert read(message=message).kind == "windows_xml"


@pytest.mark.parametrize(
    "overrides",
    [
        {"message": "<Events>"},
        {"message": "an <Event>"},
        {"message": 7},
        {"category": "x"},
        {"Type": "x"},
        {"properties": {}},
    ],
)
def test_other_records_with_a_message_are_not_taken(overrides: dict[str, Any]) -> None:
    assert read(**overrides).kind != "windows_xml"


def test_a_cut_event_is_read_as_far_as_it_goes() -> None:
    cut = XML[: XML.index("<Data Name='SubStatus'>") + 30]
    alert = read(message=cut)
    assert alert.key == read().key
    assert details(alert).users == ("SHOP\\Administrator",)
    in_system = XML[: XML.index("<Computer>")]
    alert = read(message=in_system)
    assert alert.title == "4625 - An account failed to log on"
    assert len(alert.entity) == 32
    assert details(alert).outcome == "failure"


def test_real_events(shared: Path) -> None:
    file = shared / "samples/raw_windows_xml/splunk_security_content__windows.xml.txt"
    alerts, dead = parsed(file.read_bytes())
    assert dead == 5  # dates, which were cut off of texts
    events = [alert for alert in alerts if alert.kind == "windows_xml"]
    assert len(events) == 37
    assert all(alert.event_ms and alert.resource and alert.original for alert in events)
    assert all(alert.repairs == ("text_line",) for alert in events)
    by_id = {alert.title.partition(" ")[0]: details(alert) for alert in events}
    assert by_id["4768"].ips == ("10.0.1.15",)
    assert by_id["4768"].outcome == "failure"
    assert by_id["4771"].attributes["reason"] == "wrong password"
    assert by_id["4776"].hosts[1] == "WIN-HOST-MVELAZ"
    assert by_id["4794"].ips == ("fe80::b907:7694:d740:91bb",)
    assert by_id["1102"].users == ("ATTACKRANGE\\Administrator",)
    assert by_id["4624"].users == ("ELMER_SALAS@ATTACKRANGE.LOCAL",)
    # An event with a wrong tag in its head.
    assert by_id["5141"].users == ("ATTACKRANGE\\Administrator",)
