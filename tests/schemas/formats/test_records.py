from __future__ import annotations

from pathlib import Path

import pytest

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats import ocsf
from schemas.formats._records import digests, nature, preferred, rfc3339, username
from schemas.kinds import details, understand
from tests.examples import EXAMPLES, encoded
from tests.fidelity.measure import parsed

STATES = {"assessment", "sub_assessment", "secure_score", "regulatory_compliance", "attack_path"}
INCIDENTS = {"security_incident", "arm_incident", "graph_incident"}
ALERTS = {
    *("defender_alert", "security_alert", "iot_alert", "arm_alert", "graph_alert"),
    *("graph_alert_v1", "activity_log", "common_security_log"),
}


def agrees_with_ocsf(alert: Alert) -> bool:
    found = details(alert)
    expected = {2002: "state", 2003: "state", 2004: "alert", 2005: "incident"}
    cls = ocsf.event(alert, found)["class_uid"]
    told = "state" if alert.kind == "attack_path" else expected.get(cls, "event")
    return nature(alert, found) == told


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_nature_of_every_kind(example: str) -> None:
    alert = understand(encoded(EXAMPLES[example].record()))
    told = nature(alert, details(alert))
    assert told == (
        "state"
        if example in STATES
        else "incident"
        if example in INCIDENTS
        else "alert"
        if example in ALERTS
        else "event"
    )
    assert agrees_with_ocsf(alert)


def test_a_kind_that_nobody_classed_is_an_alert_if_it_looks_like_one() -> None:
    alert = Alert(kind="new_kind", key=bytes(16), entity="e", title="Odd", severity="low")
    assert nature(alert, Details()) == "alert"
    alert.severity = "unknown"
    assert nature(alert, Details()) == "event"


def test_the_nature_of_every_sample_agrees_with_its_class(shared: Path) -> None:
    for file in sorted((shared / "samples").glob("*/*")):
        if file.parent.name != "raw_syslog":  # 4,000 lines alike
            assert all(map(agrees_with_ocsf, parsed(file.read_bytes())[0])), file


def test_times_are_rfc_3339_and_no_time_is_empty() -> None:
    assert rfc3339(1772619194987) == "2026-03-04T10:13:14.987Z"
    assert rfc3339(1000) == "1970-01-01T00:00:01.000Z"
    assert rfc3339(0) == ""


def test_only_hexadecimal_of_a_known_length_is_a_digest() -> None:
    entity = Entity(type="file", hashes=("0a" * 16, "1B" * 20, "z" * 64, "abc", "2c" * 64))
    assert digests(entity) == {"md5": "0a" * 16, "sha1": "1B" * 20, "sha512": "2c" * 64}


def test_a_role_goes_before_the_order_of_the_record() -> None:
    first = Entity(type="user", name="ann", role="target")
    second = Entity(type="user", name="bob", role="actor")
    found = Details(entities=(first, second))
    assert preferred(found, ("user",), "actor", "target") is second
    assert preferred(found, ("user",), "", "target") is first
    assert preferred(found, ("host",), "target") is None


def test_an_account_without_a_name_goes_by_its_id() -> None:
    assert username(Entity(type="user", name="ann", domain="example.com")) == "ann@example.com"
    assert username(Entity(type="user", id="S-1-5-18")) == "S-1-5-18"
