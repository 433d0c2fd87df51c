"""Defender for Cloud: an attack path, from an entry point over weak resources to a target.

It names no time. No real export is known; source: "Retrieve attack path data with the Azure
Resource Graph API" (learn.microsoft.com, defender-for-cloud/attack-path-api) for the older form;
for that of Exposure Management, which nobody documents, `riskLevel`, `riskFactors`, `entryPoint`,
`target`, `attackPathSteps`, `mITRETacticsAndTechniques`, `attackStory`, `isPartialAttackPath`,
as public queries and clients of Resource Graph read them. A record has one form or the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, EntityType, Role
from schemas.kinds import _arm, _base
from schemas.kinds._arm import Enrichment
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import host, merged, scalar, user
from schemas.kinds._mitre import mitre
from schemas.kinds._things import numeric
from schemas.kinds._values import folded, listed, plain, struct, value_of

__all__ = ["KIND"]

NAME = "attack_path"
_TYPES = ("microsoft.security/attackpaths", "microsoft.security/locations/attackpaths")
_ACTIONS = {"insert": "new", "delete": "resolved"}
_ASSESSMENT = "/providers/microsoft.security/assessments/"
# By the end of a node's type: `microsoft.compute/virtualmachines`, `managedidentity`.
_ENDS: tuple[tuple[EntityType, tuple[str, ...]], ...] = (
    ("host", ("machine", "machines", "device")),
    ("application", ("serviceprincipal", "identity", "application")),
    ("user", ("user",)),
)


class _Properties(msgspec.Struct, gc=False):
    displayName: str | None
    description: str | None = None
    attackPathType: str | None = None
    AttackPathID: str | None = None
    refreshInterval: str | None = None
    manualRemediationSteps: msgspec.Raw = ABSENT
    assessments: msgspec.Raw = ABSENT  # by the internal id of the node that they are of
    graphComponent: msgspec.Raw = ABSENT  # entities, connections, insights
    # The older form.
    potentialImpact: str | None = None
    riskCategories: msgspec.Raw = ABSENT
    entryPointEntityInternalID: str | None = None
    targetEntityInternalID: str | None = None
    # That of Exposure Management.
    riskLevel: str | None = None
    riskFactors: msgspec.Raw = ABSENT
    entryPoint: msgspec.Raw = ABSENT
    target: msgspec.Raw = ABSENT
    attackPathSteps: msgspec.Raw = ABSENT
    mITRETacticsAndTechniques: msgspec.Raw = ABSENT
    attackStory: str | None = None
    isPartialAttackPath: bool | None = None
    status: str | None = None


class Row(_base.Row, kw_only=True, gc=False):
    securityEventDataEnrichment: Enrichment
    id: str | None
    name: str | None
    type: Literal["microsoft.security/attackpaths", "Microsoft.Security/attackPaths"]
    tenantId: str | None = None
    location: str | None = None
    subscriptionId: str | None = None
    properties: _Properties | str | None


def tells(fields: Fields) -> bool:
    return fields.text("type").lower() in _TYPES


def read(row: Row, raw: bytes) -> Alert:
    it, repairs = _arm.properties(row.properties, _Properties)
    action = (row.securityEventDataEnrichment or _arm.empty(Enrichment)).action or ""
    entity = (row.id or "").lower() or it.AttackPathID or _base.body_hash(raw)
    impact = it.potentialImpact or ""  # a word of the scale, or what would be lost
    word = it.riskLevel or (impact if _base.severity(impact) != "unknown" else "")
    version = _arm.version(
        row.securityEventDataEnrichment, word or impact, f"{_base.crc32(raw):08x}"
    )
    nodes = _nodes(it)
    named = (node.azure_id for node in nodes)
    tactics, techniques = mitre(value_of(it.mITRETacticsAndTechniques))
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=it.displayName or row.name or "",
        description=it.description or it.attackStory or "",
        severity=_base.severity(word),
        severity_original=word,
        status=_base.status(it.status) if it.status else _ACTIONS.get(action.lower(), "unknown"),
        status_original=it.status or action,
        subscription_id=(row.subscriptionId or "").lower() or _base.subscription_of(row.id),
        resource_ids=_base.unique(filter(_base.subscription_of, named)),
        resource=_named(nodes, "target") or _named(nodes, "source"),
        tactics=tactics,
        techniques=techniques,
        product=_arm.PRODUCT,
        alert_type=it.attackPathType or "",
        raw=raw,
        repairs=repairs,
    )


class _Node:
    """A node of the path's graph: its fields by name in lower case, and its part."""

    __slots__ = ("_fields", "_ids", "role")

    def __init__(self, value: Any, role: Role) -> None:
        self._fields = {"name": value} if isinstance(value, str) else folded(value)
        self._ids = folded(self._fields.get("entityidentifiers"))
        self.role = role

    def text(self, *names: str) -> str:
        return next(filter(None, (scalar(self._fields.get(name)) for name in names)), "")

    @property
    def azure_id(self) -> str:
        said = scalar(self._ids.get("azureresourceid"))
        return said or self.text("azureresourceid", "resourceid", "id")

    @property
    def name(self) -> str:
        said = self.text("entityname", "name", "displayname")
        return said or _base.short_name(self.azure_id)

    def entity(self) -> Entity:
        name, kind = self.name, self.text("entitytype", "resourcetype", "type")
        others = map(scalar, map(self._ids.get, ("principaloid", "objectid", "appid")))
        known: dict[str, Any] = {
            "id": self.azure_id or next(filter(None, others), ""),
            "role": self.role,
            "attributes": {"type": kind} if kind else {},
        }
        is_a = next((it for it, ends in _ENDS if kind.lower().endswith(ends)), None)
        if is_a == "host":
            return host(name, **known)
        if is_a == "user":
            return user(name, **known)
        if is_a is None:
            is_a = "ip" if numeric(name) else "resource" if self.azure_id else "other"
        return Entity(type=is_a, name=name, **known)


def _nodes(it: _Properties) -> list[_Node]:
    """Entry point and target first, then what lies between."""
    roles: dict[str, Role] = {it.entryPointEntityInternalID or "": "source"}
    roles |= {it.targetEntityInternalID or "": "target", "": ""}
    found = [
        _Node(value_of(it.entryPoint), "source"),
        _Node(value_of(it.target), "target"),
    ]
    for graph in listed(value_of(it.graphComponent)):
        for value in listed(folded(graph).get("entities")):
            node = _Node(value, "")
            node.role = roles.get(node.text("entityinternalid"), "")
            found.append(node)
    return sorted(found, key=lambda node: ("source", "target", "").index(node.role))


def _named(nodes: list[_Node], role: Role) -> str:
    return next((node.name for node in nodes if node.role == role and node.name), "")


def details(raw: bytes) -> Details:
    row = struct(Row, raw)
    it, _ = _arm.properties(row.properties, _Properties)
    enrichment = row.securityEventDataEnrichment or _arm.empty(Enrichment)
    nodes = _nodes(it)
    steps = listed(value_of(it.attackPathSteps))
    remediation = map(scalar, listed(value_of(it.manualRemediationSteps)))
    return Details(
        entities=merged(node.entity() for node in nodes),
        action=enrichment.action or "",
        related=_base.unique(_assessments(value_of(it.assessments))),
        attributes=plain(
            tenant_id=row.tenantId,
            location=row.location,
            snapshot=enrichment.isSnapshot,
            attack_path_id=it.AttackPathID,
            entry_point=_named(nodes, "source"),
            target=_named(nodes, "target"),
            steps=len(steps) or None,
            partial=it.isPartialAttackPath,
            story=it.attackStory,
            potential_impact=it.potentialImpact,
            risk_level=it.riskLevel,
            risk_factors=it.riskFactors,
            risk_categories=it.riskCategories,
            refresh_interval=it.refreshInterval,
            remediation="\n".join(remediation),
        ),
    )


def _assessments(value: Any) -> Iterator[str]:
    """Ids of assessments, as they name themselves to us."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += reversed(item.values())
        elif isinstance(item, list):
            waiting += reversed(item)
        elif isinstance(item, str) and _ASSESSMENT in item.lower():
            yield item.lower()


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`type` is `Microsoft.Security/attackPaths`, or with `/locations` between",
)
