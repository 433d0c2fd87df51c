from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, Alert
from schemas.formats.cef import cef
from schemas.formats.rfc5424 import header, rfc5424
from schemas.kinds import understand
from tests.fixtures import defender_alert, encoded, hostile

PRINTABLE = r"[!-~]"
MESSAGE = re.compile(
    rf"<(\d{{1,3}})>1 (\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z) ({PRINTABLE}{{1,255}}) "
    rf"({PRINTABLE}{{1,48}}) ({PRINTABLE}{{1,128}}) ({PRINTABLE}{{1,32}}) "
    r'(-|(?:\[[^\s=\]"]{1,32}(?: [^\s=\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\])+) (.*)',
    re.DOTALL,
)


def alert(**overrides: object) -> Alert:
    return msgspec.structs.replace(understand(encoded(defender_alert())), **overrides)


def parse(message: bytes) -> tuple[str, ...]:
    found = MESSAGE.fullmatch(message.decode())
    assert found
    return found.groups()


def test_the_whole_message() -> None:
    head = header(
        alert(),
        hostname="beam-1.example.com",
        procid="17",
        msgid="alert",
        data={"alert@32473": {"id": "1", "title": 'say "hi" [x] \\'}},
    )
    assert rfc5424(b"CEF:0|\xc3\xa9", head) == (
        b"<131>1 2026-03-04T10:13:14.987Z beam-1.example.com alertbeam 17 alert "
        rb'[alert@32473 id="1" title="say \"hi\" [x\] \\"] ' + b"CEF:0|\xc3\xa9"
    )
    assert header(alert()) == b"<131>1 2026-03-04T10:13:14.987Z - alertbeam - - - "


@pytest.mark.parametrize(("severity", "number"), zip(SEVERITIES, [5, 6, 5, 4, 3, 2], strict=True))
def test_priority(severity: str, number: int) -> None:
    made = alert(severity=severity)
    assert parse(rfc5424(b"", header(made, facility=23)))[0] == str(23 * 8 + number)
    assert parse(rfc5424(b"", header(made, facility=0)))[0] == str(number)


@pytest.mark.parametrize("facility", [-1, 24])
def test_an_impossible_facility_is_an_error(facility: int) -> None:
    with pytest.raises(ValueError, match="facility"):
        header(alert(), facility=facility)


def test_names_are_cut_to_their_lengths() -> None:
    long = "x" * 300
    head = header(alert(), hostname=long, app_name=long, procid=long, msgid=long)
    assert [len(name) for name in parse(rfc5424(b"", head))[2:6]] == [255, 48, 128, 32]


@pytest.mark.parametrize("text", hostile())
def test_text_stays_text(text: str) -> None:
    names = header(alert(), hostname=text, app_name=text, procid=text, msgid=text)
    assert parse(rfc5424(b"m", names))[7] == "m"
    data = header(alert(), data={text: {text: text}})
    assert parse(rfc5424(b"m", data))[7] == "m"
    message = rfc5424(text.encode(), header(alert())).decode()
    assert len(message.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", message)


@given(st.text(st.characters(exclude_categories=("Cs",))), st.integers(60, 120))
def test_a_message_is_cut_at_a_code_point(text: str, size: int) -> None:
    head = header(alert())
    found = rfc5424(text.encode(), head, max_bytes=size)
    assert len(found) <= size
    whole = rfc5424(text.encode(), head)
    assert whole.decode().startswith(found.decode())
    if len(whole) > size:
        assert size - len(found) < 4


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert rfc5424(b"a\xffb", b"") == "a\ufffdb".encode()


def test_a_format_that_shortens_better_is_asked_for_the_room_that_is_left() -> None:
    head = header(alert())
    message = rfc5424(cef(alert(), max_bytes=400 - len(head)), head, max_bytes=400)
    assert len(message) <= 400
    assert b" msg=" in message
