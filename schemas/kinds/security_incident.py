"""Log Analytics export: a row of the SecurityIncident table, one for each change of an incident.

An incident's number is unique in its workspace only; its name is with the workspace's id
(`TenantId`). Source: real rows; the table's reference (learn.microsoft.com,
azure/azure-monitor/reference/tables/securityincident).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import scalar
from schemas.kinds._values import attributes, first, folded, listed, objects, plain

__all__ = ["KIND"]

NAME = "security_incident"
_OWNER = ("userprincipalname", "email", "assignedto")
_COLUMNS = {
    "incidentnumber": "incident_number",
    "providerincidentid": "provider_incident_id",
    "tenantid": "workspace_id",
    "classification": "classification",
    "classificationreason": "classification_reason",
    "classificationcomment": "classification_comment",
    "modifiedby": "modified_by",
    "createdtime": "created",
    "closedtime": "closed",
}
_COUNTS = {"alertscount": "alerts", "bookmarkscount": "bookmarks", "commentscount": "comments"}


class Row(_base.Row, kw_only=True, gc=False):
    Type: Literal["SecurityIncident"]
    TenantId: str | None
    IncidentName: str
    LastModifiedTime: str | None
    TimeGenerated: datetime | None
    Title: str | None
    Severity: str | None
    Status: str | None
    IncidentUrl: str | None
    # The export leaves empty columns out.
    Description: str | None = None
    ProviderName: str | None = None
    FirstActivityTime: datetime | None = None
    LastActivityTime: datetime | None = None
    AdditionalData: msgspec.Raw = ABSENT


def tells(fields: Fields) -> bool:
    if "Type" in fields:
        return fields.text("Type").lower() == "securityincident"
    return "IncidentName" in fields and "IncidentNumber" in fields


def read(row: Row, raw: bytes) -> Alert:
    name = row.IncidentName
    entity = f"{row.TenantId or ''}/{name}" if name else _base.body_hash(raw)
    version = row.LastModifiedTime or _base.body_hash(raw)
    modified = _base.moment(row.LastModifiedTime or "") or row.TimeGenerated
    word = row.Status or ""
    more = _base.decoded(row.AdditionalData)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=row.Title or "",
        description=row.Description or "",
        severity=_base.severity(row.Severity),
        severity_original=row.Severity or "",
        # Somebody works on an "Active" incident.
        status="in_progress" if word.lower() == "active" else _base.status(word),
        status_original=word,
        event_ms=_base.millis(modified),
        start_ms=_base.millis(row.FirstActivityTime),
        end_ms=_base.millis(row.LastActivityTime),
        subscription_id=_base.subscription_in(row.IncidentUrl),
        tactics=_listed(more, "tactics"),
        techniques=_listed(more, "techniques"),
        product=row.ProviderName or "Microsoft Sentinel",
        link=row.IncidentUrl or "",
        raw=raw,
    )


def _listed(data: Any, name: str) -> tuple[str, ...]:
    found = data.get(name) if isinstance(data, dict) else None
    items = found if isinstance(found, list) else [found]
    return _base.unique(
        word for item in items if isinstance(item, str) for word in _base.words(item)
    )


def details(raw: bytes) -> Details:
    """Whoever works on the incident is an attribute, no entity: nobody who took part in it."""
    fields = folded(raw)
    owner, more = folded(fields.get("owner")), folded(fields.get("additionaldata"))
    labels = _base.values_of(objects(fields.get("labels")), frozenset({"labelname"}))
    known = first(fields, "incidentnumber")
    named = [*_ids(fields.get("alertids")), *_ids(fields.get("bookmarkids"))]
    named.append(first(fields, "providerincidentid"))
    return Details(
        related=_base.unique(name for name in named if name != known),
        attributes=attributes(fields, _COLUMNS)
        | attributes(more, _COUNTS)
        | plain(
            owner=first(owner, *_OWNER),
            owner_id=first(owner, "objectid"),
            products=_ids(more.get("alertproductnames")),
            rules=_ids(fields.get("relatedanalyticruleids")),
            labels=tuple(labels),
        ),
    )


def _ids(value: Any) -> tuple[str, ...]:
    """Of a list, or of texts between commas."""
    return tuple(part.strip() for item in listed(value) for part in scalar(item).split(","))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` is `SecurityIncident`; without `Type`: `IncidentName` and `IncidentNumber`",
)
