from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.entities import Details, Entity
from schemas.kinds import details, understand
from tests.examples import changed, encoded
from tests.examples._base import SUBSCRIPTION
from tests.examples.sub_assessment import ASSESSMENT, CLUSTER, DIGEST, KEY, REGISTRY, record
from tests.schemas.kinds import reader, samples, told

read = reader(record)


def camel(value: Any) -> Any:
    """As later exports and the API write it."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = {name: camel(item) for name, item in value.items() if name != "$type"}
    return {name[:1].lower() + name[1:]: item for name, item in items.items()}


def test_every_field() -> None:
    alert = read()
    assert told(alert) == {
        "kind": "sub_assessment",
        "entity": f"{ASSESSMENT}/subassessments/{KEY}".lower(),
        "version": "Insert Unhealthy 2026-03-04T10:13:14.9876543Z",
        "title": "Buffer overflow in libshop",
        "description": "A long name overflows a buffer of libshop.",
        "severity": "high",
        "severity_original": "High",
        "status": "new",
        "status_original": "Unhealthy",
        "event_ms": 1772619194987,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (REGISTRY,),
        "resource": "shopimages",
        "product": "Microsoft Defender for Cloud",
        "alert_type": "CVE-2026-0001",
    }


def test_details() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="resource", name="shopimages", id=REGISTRY),
            Entity(
                type="resource",
                name="shopimages.azurecr.io/web/front",
                id=f"sha256:{DIGEST}",
                hashes=(DIGEST,),
            ),
            Entity(type="resource", name="shop-aks", id=CLUSTER),
        ),
        action="Insert",
        related=(ASSESSMENT.lower(),),
        attributes={
            "tenant_id": "33333333-0000-4000-8000-000000000003",
            "cloud": "Azure",
            "snapshot": "false",
            "cause": "Reachable",
            "reason": "The package is in use",
            "remediation": "Update libshop to 2.1.",
            "impact": "Whoever sends a long name may run code.",
            "category": "Packages",
            "cve": "CVE-2026-0001, CVE-2026-0002",
            "cvss": "9.8",
            "assessed_resource_type": "AzureContainerRegistryVulnerability",
            "os": "Linux",
            "os_version": "Debian 12",
            "patchable": "true",
            "package": "libshop",
            "package_version": "2.0",
            "fixed_version": "2.1",
            "fix_status": "FixAvailable",
            "published": "2026-01-02T00:00:00Z",
            "registry": "shopimages.azurecr.io",
            "repository": "web/front",
            "image_tags": "1.0, latest",
            "image_digest": f"sha256:{DIGEST}",
            "cluster": "shop-aks",
            "namespace": "web",
            "controller_kind": "Deployment",
            "controller": "front",
            "pod": "front-6d8f",
            "container": "front",
        },
    )


def test_camel_case_says_the_same() -> None:
    later = understand(encoded(camel(record())))
    assert later.kind == "sub_assessment"
    assert later.key == read().key
    assert msgspec.structs.replace(later, raw=read().raw) == read()
    assert details(later) == details(read())


@pytest.mark.parametrize(
    ("code", "status"),
    [("Unhealthy", "new"), ("Healthy", "resolved"), ("NotApplicable", "dismissed")],
)
def test_status(code: str, status: str) -> None:
    alert = read("Properties.Status.Code", code)
    assert (alert.status, alert.status_original) == (status, code)


def test_what_was_deleted_is_resolved() -> None:
    alert = read("SecurityEventDataEnrichment.Action", "Delete")
    assert (alert.status, alert.status_original) == ("resolved", "Unhealthy")


def test_without_a_time_the_body_is_the_version() -> None:
    one = read("Properties.TimeGenerated")
    other = understand(encoded(changed(record(x=1), "Properties.TimeGenerated", None)))
    assert one.event_ms == other.event_ms == 0
    assert one.key != other.key


def test_the_resource_does_not_end_with_the_finding() -> None:
    """The API writes a resource's id with the sub-assessment's own behind it."""
    image = f"{REGISTRY}/repository/web/imageDigest/1"
    alert = read(
        "Properties.ResourceDetails.Id",
        f"{image}/providers/Microsoft.Security/assessments/key/subAssessments/{KEY}",
    )
    assert alert.resource_ids == (image,)


def test_additional_data_of_a_server() -> None:
    """In the API's older form: no object around it, CVSS by version."""
    alert = read(
        "Properties.AdditionalData",
        {
            "assessedResourceType": "ServerVulnerabilityAssessment",
            "threat": "Backdoor",
            "cvss": {"3.0": {"base": 10}, "2.0": {"base": 7.5}},
            "patchable": False,
            "cve": [{"title": "CVE-2026-0003", "link": "https://example.com"}],
        },
    )
    found = details(alert).attributes
    assert (found["cve"], found["cvss"], found["patchable"]) == ("CVE-2026-0003", "10", "false")
    assert found["threat"] == "Backdoor"


@pytest.mark.parametrize("data", [None, 7, "text", [1], {"cve": 7, "cvss": [], "data": "x"}])
def test_additional_data_that_is_none(data: Any) -> None:
    found = details(read("Properties.AdditionalData", data))
    assert [entity.name for entity in found.entities] == ["shopimages"]


def test_a_real_one(shared: Path) -> None:
    alerts = samples(shared, "mdc_continuous_export")
    (alert,) = [alert for alert in alerts if alert.kind == "sub_assessment"]
    assert (alert.severity, alert.status_original) == ("low", "Unhealthy")
    assert alert.event_ms == 1683885512260
    found = details(alert)
    assert found.hosts == ("sdh-3372",)
    assert found.attributes["rule_id"] == "MSID 54"
    assert found.related == (alert.entity.partition("/subassessments/")[0],)
