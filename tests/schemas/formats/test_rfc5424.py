from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, Alert, Subscription
from schemas.formats.cef import cef
from schemas.formats.leef import leef
from schemas.formats.rfc5424 import header, rfc5424, structured
from schemas.kinds import understand
from tests.fixtures import SUBSCRIPTION, defender_alert, encoded, hostile
from tests.strategies import alerts

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


def test_a_message_that_begins_with_a_byte_order_mark_loses_it() -> None:
    """To syslog-ng it is a sign (RFC 5424, 6.4), to rsyslog a character."""
    assert rfc5424("\ufeff\ufeffé\ufeff".encode(), b"") == "é\ufeff".encode()


def parameters(data: str) -> dict[str, str]:
    """Of the one SD-ELEMENT that is ours."""
    element = re.fullmatch(r'\[alert@32473((?: \w+="(?:[^"\\\]]|\\["\\\]])*")+)\]', data)
    assert element
    found = re.findall(r' (\w+)="((?:[^"\\\]]|\\.)*)"', element[1])
    assert len(dict(found)) == len(found)
    return {name: re.sub(r"\\(.)", r"\1", text) for name, text in found}


def test_structured_carries_the_main_fields_and_the_record() -> None:
    made = alert(subscription=Subscription(SUBSCRIPTION, 'Shop "EU" [1]'))
    message = parse(structured(made, hostname="beam-1", facility=4))
    assert message[:6] == ("35", "2026-03-04T10:13:14.987Z", "beam-1", "alertbeam", "-", made.kind)
    assert parameters(message[6]) == {
        "event_id": made.event_id,
        "kind": "defender_alert",
        "severity": "high",
        "status": "new",
        "entity": made.entity,
        "product": "Microsoft Defender for Cloud",
        "alert_type": "VM_SuspiciousDownload",
        "resource": "shop-vm-1",
        "subscription_id": SUBSCRIPTION,
        "subscription_name": 'Shop "EU" [1]',
    }
    assert message[7].encode() == made.raw


def test_a_record_that_does_not_fit_gives_way_to_title_and_description() -> None:
    message = parse(structured(alert(), max_bytes=1500))
    assert message[7] == f"{alert().title}: {alert().description}"
    assert "event_id" in parameters(message[6])


def test_main_fields_that_do_not_fit_leave_the_id() -> None:
    long = dict.fromkeys(("entity", "product", "alert_type"), "\\" * 300)
    message = parse(structured(alert(**long), max_bytes=480))
    assert parameters(message[6]) == {"event_id": alert().event_id}


@given(alerts(), st.sampled_from([480, 1500, 8192]))
def test_any_alert_is_one_message_without_a_forged_parameter(made: Alert, size: int) -> None:
    said = structured(made, hostname="h" * 300, app_name="a" * 60, max_bytes=size)
    assert len(said) <= size
    message = parse(said)
    assert len("".join(message).splitlines()) == 1
    assert message[5] == made.kind
    found = parameters(message[6])
    assert found["event_id"] == made.event_id
    assert len(found) == 1 or {"kind", "severity", "status"} <= set(found)
    assert set(found) <= {
        *("event_id", "kind", "severity", "status", "entity", "product", "alert_type"),
        *("resource", "subscription_id", "subscription_name"),
    }


@pytest.mark.parametrize("say", [cef, leef])
def test_a_format_that_shortens_better_goes_behind_the_header_as_it_is(
    say: Callable[..., bytes],
) -> None:
    head = header(alert())
    line = say(alert(), max_bytes=400 - len(head))
    assert rfc5424(line.replace(b"\t", b" "), head, max_bytes=400) == head + line.replace(
        b"\t", b" "
    )
    assert b"msg=" in line
