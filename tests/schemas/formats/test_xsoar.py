from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given

from schemas.alert import Alert
from schemas.formats.xsoar import VERSION, xsoar
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fixtures import defender_alert, hostile
from tests.strategies import alerts


def alert(**overrides: Any) -> Alert:
    return msgspec.structs.replace(understand(encoded(defender_alert())), **overrides)


def said(made: Alert) -> dict[str, Any]:
    """An incident in XSOAR's form."""
    incident: dict[str, Any] = json.loads(xsoar(made))
    assert incident["name"].strip()
    assert "\n" not in incident["name"]
    assert len(incident["name"].encode()) <= 250
    assert incident["severity"] in (0, 0.5, 1, 2, 3, 4)
    assert len(incident["details"].encode()) <= 10_000
    types = [label["type"] for label in incident["labels"]]
    assert len({*types}) == len(types)
    assert all(label.keys() == {"type", "value"} and label["value"] for label in incident["labels"])
    assert all("\n" not in label["value"] for label in incident["labels"])
    if "occurred" in incident:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", incident["occurred"])
    assert json.loads(incident["rawJSON"]) == json.loads(made.raw)
    return incident


def test_an_incident() -> None:
    record, made = defender_alert(), alert()
    incident = said(made)
    labels = {label["type"]: label["value"] for label in incident["labels"]}
    assert incident["name"] == record["AlertDisplayName"]
    assert incident["severity"] == 3
    assert incident["occurred"] == "2026-03-04T10:13:14.987Z"
    assert json.loads(incident["rawJSON"]) == record
    assert labels["Id"] == record["SystemAlertId"]
    assert labels["Status"] == "New"
    assert labels["Accounts"] == "SHOP-VM-1\\svc-web"
    assert labels[VERSION] == f"{made.event_id} {made.event_ms} {made.enqueued_ms}"
    assert "Description" not in labels
    assert incident["details"].startswith(f"Description: {record['Description']}\nSeverity: High\n")
    assert incident["details"].endswith(f"\nEvent: {made.event_id}")


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("unknown", 0),
        ("informational", 0.5),
        ("low", 1),
        ("medium", 2),
        ("high", 3),
        ("critical", 4),
    ],
)
def test_severities(word: str, number: float) -> None:
    assert said(alert(severity=word))["severity"] == number


def test_a_time_that_is_not_known_is_left_out() -> None:
    assert "occurred" not in said(alert(event_ms=0))


@pytest.mark.parametrize("text", hostile())
def test_no_text_forges_a_version(text: str) -> None:
    forged = f"{text}\nEvent: {'0' * 32}"
    incident = said(alert(title=forged, description=forged, resource=forged, entity=forged))
    lines = incident["details"].split("\n")
    assert [line for line in lines if line.startswith("Event: ")] == [f"Event: {alert().event_id}"]
    (version,) = (label["value"] for label in incident["labels"] if label["type"] == VERSION)
    assert version.split(" ")[0] == alert().event_id


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_has_the_form(name: str) -> None:
    said(understand(encoded(EXAMPLES[name].record())))


@given(alert=alerts())
def test_any_alert_has_the_form(alert: Alert) -> None:
    said(alert)
