"""Times, words and resources as every kind reads them."""

from __future__ import annotations

import calendar
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, STATUSES
from schemas.kinds import _base

AT = 1_772_619_194_000  # 2026-03-04T10:13:14Z


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("2026-03-04T10:13:14Z", AT),
        ("2026-03-04T10:13:14", AT),
        ("2026-03-04 10:13:14", AT),
        (" 2026-03-04 10:13:14+00:00 ", AT),
        ("2026-03-04T12:13:14+02:00", AT),
        ("2026-03-04T05:13:14-0500", AT),
        ("2026-03-04t10:13:14z", AT),
        ("2026-03-04T10:13:14.9Z", AT + 900),
        ("2026-03-04T10:13:14.98Z", AT + 980),
        ("2026-03-04T10:13:14.987654Z", AT + 987),
        ("2026-03-04T10:13:14.9876543Z", AT + 987),
        ("2026-03-04T10:13:14.987654321Z", AT + 987),
        ("2026-03-04 10:13:14.987654321", AT + 987),
        ("3/4/2026 10:13", AT - 14_000),
        ("03/04/2026 10:13:14", AT),
        ("3/4/2026 10:13:14 AM", AT),
        ("3/4/2026 10:13 PM", AT - 14_000 + 12 * 3_600_000),
        ("2026-03-04", AT - 36_794_000),
        ("2026-03-04T10:13Z", AT - 14_000),
        ("1772619194", AT),
        ("1772619194987", AT + 987),
        ("None", 0),
        ("", 0),
        ("   ", 0),
        ("null", 0),
        ("yesterday", 0),
        ("2026-02-30T00:00:00Z", 0),
        ("12345", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00", 0),
        ("9999-12-31T23:59:59.9999999Z", 0),
        ("\u0662\u0660\u0662\u0666", 0),
    ],
)
def test_times_are_read_as_azure_writes_them(written: str, ms: int) -> None:
    assert _base.millis(_base.moment(written)) == ms


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)),
    st.integers(0, 9),
    st.sampled_from("T "),
    st.sampled_from(["Z", "+00:00", ""]),
)
def test_any_time_survives_any_spelling(
    time: datetime, digits: int, between: str, zone: str
) -> None:
    fraction = f"{time.microsecond:06d}000"[:digits]
    written = f"{time:%Y-%m-%d}{between}{time:%H:%M:%S}{'.' if digits else ''}{fraction}{zone}"
    wanted = calendar.timegm(time.timetuple()) * 1000 + int(fraction[:3].ljust(3, "0"))
    assert _base.millis(_base.moment(written)) == wanted


@given(st.text(max_size=40))
def test_no_text_is_fatal(text: str) -> None:
    _base.millis(_base.moment(text))
    assert _base.severity(text) in SEVERITIES
    assert _base.status(text) in STATUSES
    assert isinstance(_base.words(text), tuple)
    _base.subscription_of(text)
    _base.subscription_in(text)
    _base.short_name(text)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("Persistence, CredentialAccess", ("Persistence", "CredentialAccess")),
        ("Persistence,persistence;Impact", ("Persistence", "Impact")),
        ('["T1059", "T1078.004"]', ("T1059", "T1078.004")),
        ("Lateral Movement", ("Lateral Movement",)),
        ("PreAttack", ("PreAttack",)),
        ("Unknown", ()),
        ("Unknown, Probing", ("Probing",)),
        ("[]", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_words(listed: str | None, words: tuple[str, ...]) -> None:
    assert _base.words(listed) == words


@pytest.mark.parametrize(
    ("word", "severity"),
    [("High", "high"), ("INFORMATIONAL", "informational"), ("7", "unknown"), (None, "unknown")],
)
def test_severity(word: str | None, severity: str) -> None:
    assert _base.severity(word) == severity


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("New", "new"),
        ("Active", "new"),
        ("InProgress", "in_progress"),
        ("Resolved", "resolved"),
        ("Dismissed", "dismissed"),
        ("Pending", "unknown"),
        (None, "unknown"),
    ],
)
def test_status(word: str | None, status: str) -> None:
    assert _base.status(word) == status


@pytest.mark.parametrize(
    ("written", "subscription"),
    [
        ("/subscriptions/AB-1/resourceGroups/x", "ab-1"),
        ("/SUBSCRIPTIONS/AB-1", "ab-1"),
        ("/tenants/AB-1", ""),
        ("arn:aws:ec2:eu:1:instance/i-1", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_subscription_of_a_resource(written: str | None, subscription: str) -> None:
    assert _base.subscription_of(written) == subscription


@pytest.mark.parametrize(
    ("url", "subscription"),
    [
        ("https://portal/#blade/alertId/1/subscriptionId/AB-1/resourceGroup/x", "ab-1"),
        ("https://portal/#asset/Incident/subscriptions/AB-1/resourceGroups/x", "ab-1"),
        ("https://portal/#x/resourceId/%2fsubscriptions%2fAB-1%2fresourcegroups", "ab-1"),
        ("https://portal/?a=b", ""),
        (None, ""),
    ],
)
def test_subscription_in_a_link(url: str | None, subscription: str) -> None:
    assert _base.subscription_in(url) == subscription


@pytest.mark.parametrize(
    ("name", "short"),
    [("vm-1", "vm-1"), ("/subscriptions/1/x/vm-1/", "vm-1"), ("", ""), (None, "")],
)
def test_short_name(name: str | None, short: str) -> None:
    assert _base.short_name(name) == short


def test_fields_are_found_by_their_name_and_as_they_stand() -> None:
    fields = _base.Fields(b'{"A":"1","a":"2","N":null,"n":"3","B":false,"F":1.50,"O":{ }}')
    assert not fields.asked
    assert [fields.text(name) for name in ("Zz", "")] == ["", ""]
    assert not fields.asked
    assert [fields.text(name) for name in ("A", "a", "N", "n")] == ["1", "2", "", "3"]
    assert [fields.text(name) for name in ("b", "f", "o")] == ["false", "1.50", "{ }"]
    assert "N" not in fields
    assert "b" in fields
    assert fields.asked


def test_fields_that_are_null_were_asked_for_too() -> None:
    fields = _base.Fields(b'{"A":null}')
    assert "a" not in fields
    assert fields.asked


def test_a_memo_is_asked_once_and_bounded() -> None:
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text.upper()

    memo = _base.Memo(make, most=2, longest=3)
    assert [memo[text] for text in ("a", "a", "long", "long", "b", "c", "c", "a")] == [
        *("A", "A", "LONG", "LONG", "B", "C", "C", "A")
    ]
    assert made == ["a", "long", "long", "b", "c", "a"]
    assert len(memo) <= 2


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (rb'"{\"a\":1}"', {"a": 1}),
        (rb'"[\"x\"]"', ["x"]),
        (b'"plain"', None),
        (b'"{broken"', None),
        (b"", None),
        (b"null", None),
        (b'"' + b"[" * 5000 + b'"', None),
    ],
)
def test_json_inside_a_string_is_read(raw: bytes, value: object) -> None:
    assert _base.decoded(msgspec.Raw(raw)) == value
