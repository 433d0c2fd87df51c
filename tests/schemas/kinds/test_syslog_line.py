from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats.rfc5424 import header, rfc5424
from schemas.kinds import _syslog, details, understand
from schemas.wrappers import unwrap
from tests.examples import encoded
from tests.examples.syslog_line import LINE, record
from tests.fidelity.measure import parsed
from tests.schemas.kinds import told
from tests.strategies import alerts

MESSAGE = "mallory : TTY=pts/0 ; PWD=/tmp ; USER=root ; COMMAND=/usr/bin/cat /etc/shadow"


def read(**overrides: Any) -> Alert:
    return understand(encoded(record(**overrides)))


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "syslog_line",
        "entity": "44970e541abfcc95932322053f1990f2",
        "version": "1772619601000",
        "title": f"sudo: {MESSAGE}",
        "description": MESSAGE,
        "severity": "low",
        "severity_original": "notice",
        "event_ms": 1772619600123,
        "resource": "shop-vm-1.shop.example.com",
        "vendor": "",
        "product": "sudo",
        "alert_type": "authpriv/sudo",
    }


def test_what_it_mentions() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="host", name="shop-vm-1", domain="shop.example.com"),
            Entity(type="process", name="sudo", pid="2117"),
            Entity(type="user", name="mallory", role="actor"),
            Entity(type="user", name="root", role="target"),
            Entity(
                type="process",
                name="cat",
                path="/usr/bin",
                command_line="/usr/bin/cat /etc/shadow",
            ),
        ),
        action="sudo",
        outcome="success",
        attributes={
            "facility": "authpriv",
            "message_id": "ID47",
            "structured_data": '[meta@32473 sequenceId="7" note="a \\"quoted\\] note"]',
            "tty": "pts/0",
            "pwd": "/tmp",
        },
    )


def test_equal_lines_are_one_event_but_for_the_shipper_s_time() -> None:
    other = {"@timestamp": "2026-03-04T10:20:02Z"}
    assert read().key == read(tags=["other"]).key
    assert read().key != read(**other).key
    assert read().entity == read(**other).entity


def line(message: str) -> tuple[str, str, str, str, str, str]:
    its = _syslog.parse(message)
    return (its.facility, its.time, its.host, its.program, its.pid, its.message)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            "<34>1 2026-03-04T10:20:00Z vm su - ID47 - \ufeff'su root' failed",
            ("auth", "2026-03-04T10:20:00Z", "vm", "su", "", "'su root' failed"),
        ),
        ('<165>1 - - - - - [a@1 b="]"][c@1]', ("local4", "", "", "", "", "")),
        (
            "<38>Mar  4 10:20:00 vm sshd[7]: Connection closed by 203.0.113.30",
            ("auth", "Mar  4 10:20:00", "vm", "sshd", "7", "Connection closed by 203.0.113.30"),
        ),
        (
            "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: check pass; user unknown",
            ("", "Jun 14 15:16:01", "combo", "sshd(pam_unix)", "19939", "check pass; user unknown"),
        ),
        (
            "2026-03-04T10:20:00.123456+01:00 vm kernel: [1.5] x",
            ("", "2026-03-04T10:20:00.123456+01:00", "vm", "kernel", "", "[1.5] x"),
        ),
        (
            "<13>2026-03-04T10:20:00+00:00 vm app: x",
            ("user", "2026-03-04T10:20:00+00:00", "vm", "app", "", "x"),
        ),
        ("<13>Mar  4 10:20:00 app[7]: x", ("user", "Mar  4 10:20:00", "", "app", "7", "x")),
        (
            "<189>Mar  4 2026 10:20:00 fw-1 : %ASA-6-302013: Built",
            ("local7", "Mar  4 2026 10:20:00", "fw-1", "", "", ": %ASA-6-302013: Built"),
        ),
        (
            "Mar  4 10:20:00 vm syslogd 1.4.1: restart.",
            ("", "Mar  4 10:20:00", "vm", "syslogd", "", "restart."),
        ),
        ("<13>just a message", ("user", "", "", "", "", "just a message")),
        ("<999>1 - vm a - - - x", ("", "", "vm", "a", "", "x")),
        ("<13>1 - vm a - - [broken x", ("user", "", "", "", "", "1 - vm a - - [broken x")),
        ("<13>", ("user", "", "", "", "", "")),
    ],
)
def test_lines(message: str, parts: tuple[str, ...]) -> None:
    assert line(message) == parts
    assert read(message=message).kind == "syslog_line"


@pytest.mark.parametrize(
    "overrides",
    [
        {"message": "just text"},
        {"message": "2026-03-04T10:20:00Z started"},
        {"message": "Marvellous 4 10:20:00"},
        {"message": ""},
        {"message": 7},
        {"category": "x"},
        {"Type": "x"},
        {"operationName": "x"},
    ],
)
def test_other_records_with_a_message_are_not_taken(overrides: dict[str, Any]) -> None:
    assert read(**overrides).kind != "syslog_line"


@pytest.mark.parametrize(
    ("message", "ms"),
    [
        ("<13>1 2026-03-04T10:20:00.5Z vm a - - - x", 1772619600500),
        ("2026-03-04T11:20:00.123456+01:00 vm a: x", 1772619600123),
        ("2026-03-04T10:20:00 vm a: x", 0),  # no zone
        ("Mar  4 10:20:00 vm a: x", 0),
        ("<13>1 2026-99-99T10:20:00Z vm a - - - x", 0),
        ("<13>x", 0),
    ],
)
def test_a_time_without_year_or_zone_is_none(message: str, ms: int) -> None:
    assert understand(encoded({"message": message})).event_ms == ms
    assert read(message=message).event_ms == (ms or 1772619601000)


@pytest.mark.parametrize(
    "text",
    [
        LINE,
        "Mar  4 10:20:00 vm a: x",
        "2026-03-04T10:20:00+01:00 vm a[1]: x",
        "<13>Mar  4 10:20:00 a: b",
    ],
)
def test_a_line_is_unwrapped_into_a_record(text: str) -> None:
    (piece,) = unwrap(text.encode())
    assert not isinstance(piece, bytes)
    alert = understand(piece.body)  # type: ignore[union-attr]
    assert alert.kind == "syslog_line"
    assert alert.entity == read(message=text).entity


words = st.from_regex(r"[!-Z^-~]{1,20}", fullmatch=True).filter(lambda word: word != "-")
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(st.integers(0, 191), words, words, words, words, texts.filter(lambda it: it[:1] != "\ufeff"))
def test_what_rfc_5424_says_is_read(
    priority: int, host: str, program: str, pid: str, message_id: str, message: str
) -> None:
    time = "2026-03-04T10:20:00.123456Z"
    its = _syslog.parse(f"<{priority}>1 {time} {host} {program} {pid} {message_id} - {message}")
    assert its == _syslog.Line(
        priority=priority,
        facility=its.facility,
        time=time,
        host=host,
        program=program,
        pid=pid,
        message_id=message_id,
        message=message,
    )


@given(alerts())
def test_what_is_sent_is_read(alert: Alert) -> None:
    its = _syslog.parse(rfc5424(b"the message", header(alert)).decode())
    assert its.message.endswith("the message")
    assert _syslog.severity(_syslog.SEVERITIES[its.priority & 7]) == (
        "low" if alert.severity == "unknown" else alert.severity
    )


@given(
    st.lists(st.sampled_from(["<13>", "1 ", "- ", "[", "]", '"', "\\", "a: ", "Mar  4 10:20:00 "]))
)
def test_any_text_is_read_somehow(pieces: list[str]) -> None:
    details(read(message="".join(["<13>", *pieces])))


def test_real_lines(shared: Path) -> None:
    for name, successes in (("Linux", 246), ("OpenSSH", 3)):
        file = shared / f"samples/raw_syslog/loghub__{name}_2k.log"
        found, dead = parsed(file.read_bytes())
        assert (len(found), dead) == (2000, 0)
        assert {alert.kind for alert in found} == {"syslog_line"}
        assert {alert.resource for alert in found} == {"combo" if name == "Linux" else "LabSZ"}
        assert all(alert.original and not alert.event_ms for alert in found)
        assert sum(details(alert).outcome == "success" for alert in found) == successes
