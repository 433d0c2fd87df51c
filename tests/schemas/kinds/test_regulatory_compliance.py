from __future__ import annotations

from pathlib import Path

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import encoded
from tests.examples._base import SUBSCRIPTION
from tests.examples.regulatory_compliance import CONTROL, KEY, STANDARD, control, record, standard
from tests.schemas.kinds import reader, samples, told

SCOPE = f"/subscriptions/{SUBSCRIPTION}"

read = reader(record)


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "regulatory_compliance",
        "entity": f"{CONTROL}/regulatoryComplianceAssessments/{KEY}".lower(),
        "version": "Write Failed passed=4 failed=2 skipped=1 unsupported=0",
        "title": "Disks of machines should be encrypted",
        "description": "Disks of machines should be encrypted",
        "status": "new",
        "status_original": "Failed",
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (SCOPE,),
        "resource": SUBSCRIPTION,
        "product": "Microsoft Defender for Cloud",
        "alert_type": KEY,
        "link": "https://portal.azure.com/#blade/Microsoft_Azure_Security/RecommendationsBlade"
        f"/assessmentKey/{KEY}/initiativeId/Shop-benchmark",
    }


def test_details() -> None:
    assert details(read()) == Details(
        entities=(Entity(type="resource", name=SUBSCRIPTION, id=SCOPE),),
        action="Write",
        attributes={
            "passed": "4",
            "failed": "2",
            "skipped": "1",
            "unsupported": "0",
            "tenant_id": "33333333-0000-4000-8000-000000000003",
            "snapshot": "false",
            "standard": "Shop-benchmark",
            "control": "NS.7",
            "assessment": KEY,
            "assessment_type": "AssessmentResult",
            "scope": "Subscription",
        },
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("Failed", "new"),
        ("failed", "new"),
        ("Passed", "resolved"),
        ("Skipped", "dismissed"),
        ("Unsupported", "dismissed"),
        ("Odd", "unknown"),
    ],
)
def test_status(state: str, status: str) -> None:
    alert = read("properties.state", state)
    assert (alert.status, alert.status_original) == (status, state)


def test_a_control() -> None:
    alert = understand(encoded(control()))
    assert (alert.kind, alert.entity) == ("regulatory_compliance", CONTROL.lower())
    assert alert.title == "Shop-benchmark NS.7"
    assert alert.description == "Networks are parted by what they serve."
    assert alert.alert_type == "Shop-benchmark/NS.7"
    assert alert.version == "Write Passed passed=3 failed=0 skipped=2 unsupported=0"
    found = details(alert).attributes
    assert (found["standard"], found["control"], found["passed"]) == ("Shop-benchmark", "NS.7", "3")
    assert "assessment" not in found


def test_a_standard() -> None:
    alert = understand(encoded(standard()))
    assert (alert.kind, alert.entity) == ("regulatory_compliance", STANDARD.lower())
    assert (alert.title, alert.alert_type) == ("Shop-benchmark", "Shop-benchmark")
    assert alert.status == "dismissed"
    assert details(alert).attributes["unsupported"] == "12"


@pytest.mark.parametrize(
    "type_",
    ["regulatoryComplianceStandard", "regulatoryComplianceControl", "REGULATORYCOMPLIANCE"],
)
def test_types_as_the_api_writes_them(type_: str) -> None:
    assert read("type", f"Microsoft.Security/{type_}").kind == "regulatory_compliance"


def test_without_state_and_numbers_the_body_is_the_version() -> None:
    one, other = read("properties"), understand(encoded(record(properties=None, x=1)))
    assert one.entity == other.entity
    assert one.key != other.key


def test_a_real_one(shared: Path) -> None:
    alerts = samples(shared, "mdc_continuous_export")
    (alert,) = [alert for alert in alerts if alert.kind == "regulatory_compliance"]
    assert (alert.status, alert.status_original) == ("dismissed", "Skipped")
    assert alert.version == "Write Skipped passed=0 failed=0 skipped=1"
    found = details(alert).attributes
    assert (found["control"], found["standard"]) == ("LT.5", "Microsoft-cloud-security-benchmark")
