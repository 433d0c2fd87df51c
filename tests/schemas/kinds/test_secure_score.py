from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples._base import SUBSCRIPTION
from tests.examples.secure_score import CONTROL, SCORE, overall, record
from tests.schemas.kinds import reader, samples, told

SCOPE = f"/subscriptions/{SUBSCRIPTION}"

read = reader(record)


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "secure_score",
        "entity": f"{SCORE}/secureScoreControls/{CONTROL}".lower(),
        "version": "Insert score_current=4.57 score_max=8 weight=9 healthy_resources=5"
        " unhealthy_resources=3 not_applicable_resources=1",
        "title": "Secure score: Lock management ports",
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (SCOPE,),
        "resource": SUBSCRIPTION,
        "product": "Microsoft Defender for Cloud",
        "alert_type": CONTROL,
    }


def test_details() -> None:
    assert details(read()) == Details(
        entities=(Entity(type="resource", name=SUBSCRIPTION, id=SCOPE),),
        action="Insert",
        attributes={
            "score_current": "4.57",
            "score_max": "8",
            "weight": "9",
            "healthy_resources": "5",
            "unhealthy_resources": "3",
            "not_applicable_resources": "1",
            "tenant_id": "33333333-0000-4000-8000-000000000003",
            "snapshot": "false",
            "score_percentage": "0.5713",
            "control": CONTROL,
            "assessments": "key-1, key-2",
        },
    )


def test_the_overall_score() -> None:
    alert = understand(encoded(overall()))
    assert (alert.kind, alert.entity) == ("secure_score", SCORE.lower())
    assert (alert.title, alert.alert_type) == ("Secure score: ASC score", "ascScore")
    assert alert.resource_ids == (SCOPE,)
    assert alert.version == "Insert score_current=41.5 score_max=58 weight=1161"
    assert details(alert).attributes == {
        "score_current": "41.5",
        "score_max": "58",
        "weight": "1161",
        "tenant_id": "33333333-0000-4000-8000-000000000003",
        "snapshot": "false",
        "score_percentage": "0.7155",
    }


def test_an_unchanged_score_is_a_repeat() -> None:
    same = record()
    same["properties"]["displayName"] = "Another language"
    assert understand(encoded(same)).key == read().key
    assert read("properties.score.current", 5).key != read().key
    assert read("properties.healthyResourceCount", 6).key != read().key


def test_numbers_in_strings() -> None:
    assert read("properties.score", {"max": "8", "current": "4.57"}).key == read().key


def test_without_numbers_the_body_is_the_version() -> None:
    one, other = read("properties"), understand(encoded(record(properties=None, x=1)))
    assert one.entity == other.entity
    assert one.key != other.key


@pytest.mark.parametrize("definition", [None, 7, "text", {"properties": 7}, {"properties": {}}])
def test_a_definition_that_is_none(definition: Any) -> None:
    assert "assessments" not in details(read("properties.definition", definition)).attributes


def test_a_real_one(shared: Path) -> None:
    alerts = samples(shared, "mdc_continuous_export")
    (alert,) = [alert for alert in alerts if alert.kind == "secure_score"]
    assert alert.title == "Secure score: Apply system updates"
    found = details(alert).attributes
    assert (found["score_current"], found["score_max"], found["weight"]) == ("0", "6", "3")
    assert found["unhealthy_resources"] == "3"
    assert len(found["assessments"].split(", ")) == 12
