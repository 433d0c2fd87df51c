from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert
from schemas.formats._shortened import shortened
from tests.strategies import alerts

LEAST = 58  # bytes of the mark and the id


def alert(**fields: Any) -> Alert:
    return Alert(kind="defender_alert", key=bytes(range(16)), entity="e-1", **fields)


@given(alerts(), st.integers(LEAST, 5000))
def test_it_is_valid_json_on_one_line_within_the_room_and_keeps_the_id(
    made: Alert, most: int
) -> None:
    said = shortened(made, most)
    assert len(said) <= most
    read = json.loads(said.decode())
    assert (read.pop("shortened"), read.pop("id")) == (True, made.event_id)
    assert len(said.decode().splitlines()) == 1
    assert all(isinstance(value, str) and value for value in read.values())


@given(alerts(), st.integers(-10, LEAST - 1))
def test_where_not_even_the_id_fits_it_cannot_be_said(made: Alert, most: int) -> None:
    with pytest.raises(ValueError, match=f"needs {LEAST} bytes, not {most}"):
        shortened(made, most)


def test_with_room_enough_every_main_field_is_there() -> None:
    fields = {
        "title": "Sign-in from two continents",
        "description": 'It said "hello"',
        "severity": "high",
        "status": "new",
        "alert_type": "VM_SuspectSignIn",
        "product": "Defender",
        "resource": "vm-1",
        "subscription_id": "1111",
        "link": "https://portal.azure.com/#x",
    }
    assert json.loads(shortened(alert(event_ms=1_790_000_000_001, **fields), 10_000)) == {
        "shortened": True,
        "id": "000102030405060708090a0b0c0d0e0f",
        "kind": "defender_alert",
        "entity": "e-1",
        "time": "2026-09-21T14:13:20.001Z",
        **fields,
    }


def test_title_and_description_share_the_room_and_are_cut_at_a_code_point() -> None:
    said = shortened(alert(title="ü" * 5000, description='"🚨' * 5000), 1000)
    read = json.loads(said)
    assert 990 < len(said) <= 1000
    assert set(read["title"]) == {"ü"}
    assert 200 < len(read["title"]) < 250
    assert set(read["description"]) == {'"', "🚨"}


def test_a_link_or_an_id_is_whole_or_left_out() -> None:
    made = alert(title="t", link="https://x/" * 20, resource="vm-1", description="d" * 500)
    read = json.loads(shortened(made, 500))
    assert "link" not in read, "it fits, but would leave little for anything else"
    assert (read["resource"], read["title"]) == ("vm-1", "t")
    assert len(read["description"]) > 250
    assert json.loads(shortened(made, 1000))["link"] == made.link


def test_no_control_character_and_no_line_break_gets_through() -> None:
    said = shortened(alert(title="a\x1b[31m\nb\u2028c\x85d\x00"), 500).decode()
    assert json.loads(said)["title"] == "a[31m b c d"
