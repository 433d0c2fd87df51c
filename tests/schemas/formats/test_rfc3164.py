from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, Alert
from schemas.formats.rfc3164 import header, rfc3164
from schemas.kinds import understand
from tests.fixtures import defender_alert, encoded, hostile
from tests.strategies import alerts

PACKET = re.compile(
    r"<(\d|[1-9]\d|1[0-8]\d|19[01])>"
    r"((?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?: [1-9]|[12]\d|3[01]) "
    r"\d\d:\d\d:\d\d) ([!-~]+) ([A-Za-z0-9]{1,32}): "
    r'((?:\w+="(?:[^"\\]|\\["\\])*" )+)(.*)'
)


def alert(**overrides: object) -> Alert:
    return msgspec.structs.replace(understand(encoded(defender_alert())), **overrides)


def parse(packet: bytes) -> tuple[str, str, str, str, dict[str, str], str]:
    found = PACKET.fullmatch(packet.decode())
    assert found, packet
    pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)" ', found[5])
    assert len(dict(pairs)) == len(pairs)
    fields = {name: re.sub(r"\\(.)", r"\1", text) for name, text in pairs}
    return (*found.groups()[:4], fields, found[6])


def test_the_whole_packet() -> None:
    made = alert(raw=b'{"a": "b"}')
    priority, time, host, tag, fields, message = parse(
        rfc3164(made, hostname="beam-1.example.com", facility=4, tag="beam")
    )
    assert (priority, time, host, tag) == ("35", "Mar  4 10:13:14", "beam-1", "beam")
    assert [*fields][:4] == ["event_id", "kind", "severity", "status"]
    assert fields["event_id"] == made.event_id
    assert fields["entity"] == made.entity
    assert message == '{"a": "b"}'


@pytest.mark.parametrize(("severity", "number"), zip(SEVERITIES, [5, 6, 5, 4, 3, 2], strict=True))
def test_priority(severity: str, number: int) -> None:
    made = alert(severity=severity)
    assert parse(rfc3164(made, facility=23))[0] == str(23 * 8 + number)
    with pytest.raises(ValueError, match="facility"):
        rfc3164(made, facility=24)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("beam", "beam"),
        ("beam.example.com", "beam"),
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::1"),
        ("a b\n<13>", "ab<13>"),
        ("", "alertbeam"),
        ("é", "alertbeam"),
    ],
)
def test_a_host_bears_no_domain(name: str, host: str) -> None:
    assert parse(rfc3164(alert(), hostname=name))[2] == host


@pytest.mark.parametrize(
    ("tag", "said"), [("alert-beam", "alertbeam"), ("x" * 40, "x" * 32), ("[]", "alertbeam")]
)
def test_a_tag_is_of_letters_and_digits(tag: str, said: str) -> None:
    assert parse(rfc3164(alert(), tag=tag))[3] == said


def test_without_a_tag_the_message_follows_the_host() -> None:
    assert header(alert(), hostname="h") == b"<131>Mar  4 10:13:14 h "


def test_a_record_that_does_not_fit_gives_way_to_title_and_description() -> None:
    packet = rfc3164(alert(raw=b"x" * 2000))
    assert len(packet) <= 1024
    assert parse(packet)[5].startswith(f"{alert().title}: ")


def test_fields_leave_a_quarter_of_the_room_to_the_message() -> None:
    long = dict.fromkeys(("entity", "product", "alert_type", "resource"), "\\" * 300)
    fields, message = parse(rfc3164(alert(**long, raw=b"x" * 2000)))[4:]
    assert fields["event_id"] == alert().event_id
    assert message.startswith(alert().title)


@pytest.mark.parametrize("text", hostile())
def test_text_stays_text(text: str) -> None:
    made = alert(title=text, description=text, entity=text, product=text)
    fields, message = parse(rfc3164(made, hostname=text, tag=text or "x"))[4:]
    assert fields["event_id"] == made.event_id
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", message)


@given(alerts(), st.sampled_from([480, 1024, 8000]))
def test_any_alert_is_one_packet_with_its_id(made: Alert, size: int) -> None:
    packet = rfc3164(made, hostname="h" * 300, tag="t" * 60, max_bytes=size)
    assert len(packet) <= size
    assert len(packet.decode().splitlines()) == 1
    assert parse(packet)[4]["event_id"] == made.event_id
