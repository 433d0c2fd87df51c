from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from schemas.wrappers import unwrap
from tests.examples import changed, encoded
from tests.examples._base import SUBSCRIPTION
from tests.examples.secure_score import CONTROL, SCORE, overall, record

SCOPE = f"/subscriptions/{SUBSCRIPTION}"


def read(path: str = "", value: Any = None) -> Alert:
    return understand(encoded(changed(record(), path, value) if path else record()))


def test_every_field() -> None:
    alert = read()
    assert msgspec.structs.asdict(alert) | {"key": b"", "raw": b""} == {
        "kind": "secure_score",
        "key": b"",
        "entity": f"{SCORE}/secureScoreControls/{CONTROL}".lower(),
        "version": "Insert score_current=4.57 score_max=8 weight=9 healthy_resources=5"
        " unhealthy_resources=3 not_applicable_resources=1",
        "title": "Secure score: Lock management ports",
        "description": "",
        "severity": "unknown",
        "severity_original": "",
        "status": "unknown",
        "status_original": "",
        "event_ms": 0,
        "start_ms": 0,
        "end_ms": 0,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (SCOPE,),
        "resource": SUBSCRIPTION,
        "tactics": (),
        "techniques": (),
        "vendor": "Microsoft",
        "product": "Microsoft Defender for Cloud",
        "alert_type": CONTROL,
        "link": "",
        "raw": b"",
        "original": b"",
        "repairs": (),
        "masked": 0,
        "sequence": 0,
        "index": 0,
        "enqueued_ms": 0,
        "subscription": None,
    }
    assert alert.raw == encoded(record())


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
    file = next((shared / "samples/mdc_continuous_export").iterdir())
    alerts = [understand(it) for it in unwrap(file.read_bytes()) if isinstance(it, bytes)]
    (alert,) = [alert for alert in alerts if alert.kind == "secure_score"]
    assert alert.title == "Secure score: Apply system updates"
    found = details(alert).attributes
    assert (found["score_current"], found["score_max"], found["weight"]) == ("0", "6", "3")
    assert found["unhealthy_resources"] == "3"
    assert len(found["assessments"].split(", ")) == 12
