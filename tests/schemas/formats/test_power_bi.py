from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
from hypothesis import given

from schemas.alert import Alert, Subscription
from schemas.formats.power_bi import COLUMNS, power_bi
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fixtures import defender_alert
from tests.strategies import alerts

# "Push semantic model limitations", and the types of columns that a dataset may have.
MOST_COLUMNS, MOST_CHARACTERS = 75, 4_000
TYPES = {"Int64", "Double", "Boolean", "DateTime", "String", "Decimal"}


def row(alert: Alert) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(power_bi(alert))
    return said


def test_there_are_no_more_columns_than_a_table_may_have_each_of_a_type_that_there_is() -> None:
    assert len(COLUMNS) <= MOST_COLUMNS
    assert {*COLUMNS.values()} <= TYPES


@given(alerts())
def test_every_value_has_the_type_and_the_length_of_its_column(alert: Alert) -> None:
    said = row(alert)
    assert said["EventId"] == alert.event_id
    for name, value in said.items():
        kind = COLUMNS[name]
        if kind == "DateTime":
            assert value.endswith("Z")
            datetime.datetime.fromisoformat(value[:-1])
        elif kind == "String":
            assert isinstance(value, str)
            assert len(value.encode("utf-16-le")) <= 2 * MOST_CHARACTERS
        else:
            assert type(value) is {"Double": float, "Int64": int, "Boolean": bool}[kind]


def test_every_column_is_filled_by_something() -> None:
    subscription = Subscription(
        "11111111-2222-3333-4444-555555555555", "Contoso", "me", "prod", "root", {"tier": "1"}
    )
    filled: set[str] = set()
    for example in EXAMPLES.values():
        alert = understand(encoded(example.record()))
        alert.enqueued_ms = alert.event_ms + 1_500
        alert.subscription = subscription
        filled |= row(alert).keys()
    assert filled == COLUMNS.keys()


def test_characters_beyond_the_limit_are_cut_and_none_of_them_in_half() -> None:
    alert = understand(encoded(defender_alert()))
    alert.title = "🚨" * 3_000  # two of UTF-16's units each
    assert row(alert)["Title"] == "🚨" * 2_000
    alert.title = "x" + "🚨" * 3_000
    assert row(alert)["Title"] == "x" + "🚨" * 1_999
    alert.title = "é" * 4_001
    assert row(alert)["Title"] == "é" * 4_000


def test_lines_stay_and_what_else_controls_a_terminal_goes() -> None:
    alert = understand(encoded(defender_alert()))
    alert.description = "one\ntwo\x1b[31m\x00\u2028three"
    assert row(alert)["Description"] == "one\ntwo[31m three"


def test_severities_can_be_sorted_and_the_closed_ones_counted() -> None:
    alert = understand(encoded(defender_alert()))
    ranks = {}
    for severity in ("informational", "low", "medium", "high", "critical"):
        ranks[severity] = row(msgspec.structs.replace(alert, severity=severity))["SeverityRank"]
    assert [*ranks.values()] == [1, 2, 3, 4, 5]
    closed = {
        status: row(msgspec.structs.replace(alert, status=status))["Closed"]
        for status in ("unknown", "new", "in_progress", "resolved", "dismissed")
    }
    assert [status for status, is_closed in closed.items() if is_closed] == [
        "resolved",
        "dismissed",
    ]


def test_the_delay_is_told_where_both_times_are_known() -> None:
    alert = understand(encoded(defender_alert()))
    late = msgspec.structs.replace(alert, event_ms=1_790_000_000_000, enqueued_ms=1_790_000_002_500)
    assert row(late)["DelaySeconds"] == 2.5
    assert "DelaySeconds" not in row(msgspec.structs.replace(late, enqueued_ms=0))
