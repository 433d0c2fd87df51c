"""Defender for Cloud: a sub-assessment, which is one finding under an assessment: a vulnerability
in an image or on a machine, a baseline's rule.

Source: a real continuous export (PascalCase, `$type` on every object); REST reference
SubAssessments 2019-01-01-preview (camelCase), which later exports follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import _arm, _base
from schemas.kinds._arm import Assessed, Enrichment
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import is_hash, merged, scalar
from schemas.kinds._values import leniently, plain, struct, value_of

__all__ = ["KIND"]

NAME = "sub_assessment"

# Where additional data stands, in lower case, and what is told of it; REST reference and
# "Container vulnerability assessments REST API" (learn.microsoft.com, defender-for-cloud).
_HOLDERS = ("data", "artifactdetails", "softwaredetails", "vulnerabilitydetails", "osdetails")
_FACTS = {
    "assessedresourcetype": "assessed_resource_type",
    "osname": "os",
    "osplatform": "os",
    "osversion": "os_version",
    "ruletype": "rule_type",
    "azid": "rule_id",
    "threat": "threat",
    "query": "query",
    "patchable": "patchable",
    "packagename": "package",
    "version": "package_version",
    "installedversion": "package_version",
    "fixedversion": "fixed_version",
    "fixstatus": "fix_status",
    "publishedtime": "published",
    "publisheddate": "published",
    "registryhost": "registry",
    "repositoryname": "repository",
    "tags": "image_tags",
    "imagedigest": "image_digest",
    "digest": "image_digest",
    "cveid": "cve",
    "clustername": "cluster",
    "namespace": "namespace",
    "controllerkind": "controller_kind",
    "controllername": "controller",
    "podname": "pod",
    "containername": "container",
}


class _Status(msgspec.Struct, gc=False):
    Code: str | None
    Severity: str | None = None
    Cause: str | None = None
    Description: str | None = None


class _Properties(msgspec.Struct, kw_only=True, gc=False):
    Id: str | None = None  # the vulnerability's
    DisplayName: str | None
    Status: _Status
    Remediation: str | None = None
    Impact: str | None = None
    Category: str | None = None
    Description: str | None = None
    TimeGenerated: str | None
    ResourceDetails: msgspec.Raw = ABSENT
    AdditionalData: msgspec.Raw = ABSENT


class Row(_base.Row, kw_only=True, gc=False):
    SubAssessmentEventDataEnrichment: msgspec.Raw = ABSENT
    SecurityEventDataEnrichment: msgspec.Raw = ABSENT
    TenantId: str | None = None
    Type: Literal["Microsoft.Security/assessments/subAssessments"]
    Id: str | None
    Name: str | None
    Properties: _Properties | str | None


def tells(fields: Fields) -> bool:
    return fields.text("Type").lower() == "microsoft.security/assessments/subassessments"


def read(row: Row, raw: bytes) -> Alert:
    it, repairs = _arm.properties(row.Properties, _Properties)
    status = it.Status or _arm.empty(_Status)
    enrichment = _enrichment(row)
    entity = row.Id.lower() if row.Id else _base.body_hash(raw)
    version = _arm.version(enrichment, status.Code, it.TimeGenerated or _base.body_hash(raw))
    assessed = _assessed(it)
    resource = _resource(row, assessed)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=it.DisplayName or row.Name or "",
        description=it.Description or "",
        severity=_base.severity(status.Severity),
        severity_original=status.Severity or "",
        status=_arm.state(status.Code, enrichment),
        status_original=status.Code or "",
        event_ms=_base.millis(_base.moment(it.TimeGenerated or "")),
        subscription_id=_base.subscription_of(row.Id) or _base.subscription_of(resource),
        resource_ids=_base.unique((resource,)),
        resource=assessed.name or _base.short_name(resource),
        product=_arm.PRODUCT,
        alert_type=it.Id or row.Name or "",
        raw=raw,
        repairs=repairs,
    )


def _enrichment(row: Row) -> Enrichment:
    named = row.SecurityEventDataEnrichment or row.SubAssessmentEventDataEnrichment
    return leniently(Enrichment, bytes(named))


def _assessed(it: _Properties) -> Assessed:
    return leniently(Assessed, bytes(it.ResourceDetails))


def _resource(row: Row, assessed: Assessed) -> str:
    return assessed.azure_id or _arm.scope(row.Id)


def details(raw: bytes) -> Details:
    row = struct(Row, raw)
    it, _ = _arm.properties(row.Properties, _Properties)
    status = it.Status or _arm.empty(_Status)
    enrichment, assessed = _enrichment(row), _assessed(it)
    more = _flat(value_of(it.AdditionalData))
    facts: dict[str, Any] = {"cve": _cves(more.get("cve")), "cvss": _score(more.get("cvss"))}
    for name, ours in _FACTS.items():
        facts[ours] = facts.get(ours) or more.get(name)
    attributes = plain(
        tenant_id=row.TenantId,
        cloud=assessed.cloud,
        snapshot=enrichment.isSnapshot,
        cause=status.Cause,
        reason=status.Description,
        remediation=it.Remediation,
        impact=it.Impact,
        category=it.Category,
        **facts,
    )
    thing = _arm.thing(assessed, _resource(row, assessed))
    assessment, found, _ = (row.Id or "").lower().rpartition("/subassessments/")
    return Details(
        entities=merged([thing, *_images(attributes), *_clusters(more)]),
        action=enrichment.action or "",
        related=(assessment,) if found else (),
        attributes=attributes,
    )


def _flat(data: Any) -> dict[str, Any]:
    """Additional data as one object, its keys in lower case."""
    found: dict[str, Any] = {}
    waiting = [data]
    while waiting:
        holder = waiting.pop()
        for name, value in holder.items() if isinstance(holder, dict) else ():
            if name.lower() in _HOLDERS:
                waiting.append(value)
            else:
                found.setdefault(name.lower(), value)
    return found


def _cves(listed: Any) -> Any:
    """`[{"title": "CVE-2019-12345", "link": …}]` as the titles."""
    if not isinstance(listed, list):
        return listed
    return [title for each in listed for title in _base.values_of(each, frozenset({"title"}))]


def _score(cvss: Any) -> str:
    """The base score: `{"3.0": {"base": 9.8}}`, of the highest version."""
    if not isinstance(cvss, dict):
        return scalar(cvss)
    versions = [value for _, value in sorted(cvss.items()) if isinstance(value, dict)]
    newest = versions[-1] if versions else cvss
    return next((scalar(value) for name, value in newest.items() if name.lower() == "base"), "")


def _images(attributes: dict[str, str]) -> Iterator[Entity]:
    digest = attributes.get("image_digest", "")
    name = "/".join(filter(None, (attributes.get("registry"), attributes.get("repository"))))
    hexadecimal = digest.rpartition(":")[2]
    hashes = (hexadecimal,) if is_hash(hexadecimal) else ()
    yield Entity(type="resource", name=name, id=digest, hashes=hashes)


def _clusters(more: dict[str, Any]) -> Iterator[Entity]:
    name, cluster = scalar(more.get("clustername")), scalar(more.get("clusterresourceid"))
    yield Entity(type="resource", name=name or _base.short_name(cluster), id=cluster)


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` is `Microsoft.Security/assessments/subAssessments`",
)
