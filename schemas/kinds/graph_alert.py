"""Microsoft Graph: an alert of security/alerts_v2, as Defender XDR keeps it.

Source: "alert resource type" (learn.microsoft.com, graph/api/resources/security-alert).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _graph
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import resolve, scalar
from schemas.kinds._mitre import tactics
from schemas.kinds._values import first, folded, listed, value_of

__all__ = ["KIND"]

NAME = "graph_alert"
_TYPE = "#microsoft.graph.security.alert"
_ATTRIBUTES = {
    "tenantid": "tenant_id",
    "incidentid": "incident_id",
    "incidentweburl": "incident_link",
    "category": "category",
    "servicesource": "provider",
    "detectionsource": "detection_source",
    "detectorid": "detector_id",
    "alertpolicyid": "policy_id",
    "classification": "classification",
    "determination": "determination",
    "assignedto": "owner",
    "actordisplayname": "activity_group",
    "threatdisplayname": "threat",
    "threatfamilyname": "threat_family",
    "investigationstate": "investigation",
    "systemtags": "system_tags",
    "lastupdatedatetime": "updated",
    "resolveddatetime": "closed",
}


class Row(_base.Row, kw_only=True, gc=False):
    odata_type: Literal["#microsoft.graph.security.alert"] | None = msgspec.field(
        name="@odata.type", default=None
    )
    id: str
    providerAlertId: str
    status: str | None
    severity: str | None
    serviceSource: str
    title: str | None
    createdDateTime: datetime | None
    lastUpdateDateTime: str | None
    detectorId: str | None = None
    productName: str | None = None
    description: str | None = None
    category: str | None = None
    alertWebUrl: str | None = None
    firstActivityDateTime: datetime | None = None
    lastActivityDateTime: datetime | None = None
    mitreTechniques: msgspec.Raw = ABSENT
    evidence: msgspec.Raw = ABSENT


class _Device(msgspec.Struct, gc=False):
    deviceDnsName: str | None = None


_devices = msgspec.json.Decoder(list[_Device]).decode


def tells(fields: Fields) -> bool:
    if "@odata.type" in fields:
        return fields.text("@odata.type").lower() == _TYPE
    return "serviceSource" in fields and "providerAlertId" in fields


def read(row: Row, raw: bytes) -> Alert:
    entity = row.id or _base.body_hash(raw)
    version = row.lastUpdateDateTime or _base.body_hash(raw)
    resources = _graph.resources(row.evidence)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=row.title or "",
        description=row.description or "",
        severity=_base.severity(row.severity),
        severity_original=row.severity or "",
        status=_base.status(row.status),
        status_original=row.status or "",
        event_ms=_base.millis(row.createdDateTime),
        start_ms=_base.millis(row.firstActivityDateTime),
        end_ms=_base.millis(row.lastActivityDateTime),
        subscription_id=next(map(_base.subscription_of, resources), ""),
        resource_ids=resources,
        resource=_device(row.evidence) or _base.short_name(next(iter(resources), "")),
        tactics=tactics(_base.words(row.category)),
        techniques=_base.unique(map(scalar, listed(value_of(row.mitreTechniques)))),
        product=row.productName or _graph.product(row.serviceSource) or "Microsoft Defender XDR",
        alert_type=row.detectorId or "",
        link=row.alertWebUrl or "",
        raw=raw,
    )


def _device(evidence: msgspec.Raw) -> str:
    """The first machine among the evidence."""
    if b"deviceDnsName" not in bytes(evidence):
        return ""
    try:
        return next((it.deviceDnsName for it in _devices(evidence) if it.deviceDnsName), "")
    except msgspec.DecodeError:
        return ""


def details(raw: bytes) -> Details:
    """Whoever works on the alert is an attribute, no entity: nobody who took part in it."""
    fields = folded(raw)
    related = _base.unique((first(fields, "provideralertid"), first(fields, "incidentid")))
    own = first(fields, "id").lower()
    return Details(
        entities=resolve(fields.get("evidence")),
        related=tuple(name for name in related if name.lower() != own),
        attributes=_graph.attributes(fields, _ATTRIBUTES),
    )


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by=f"`@odata.type` is `{_TYPE}`; without it: `serviceSource` and `providerAlertId`",
)
