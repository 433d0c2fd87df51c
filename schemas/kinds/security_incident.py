"""Log Analytics export: a row of the SecurityIncident table, one for each change of an incident.

An incident's number is unique in its workspace only; its name is with the workspace's id
(`TenantId`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base
from schemas.kinds._alerts import loose
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import scalar

__all__ = ["KIND"]

NAME = "security_incident"
_OWNER = ("userprincipalname", "email", "assignedto")
_COLUMNS = {
    "incident_number": "IncidentNumber",
    "provider_incident_id": "ProviderIncidentId",
    "workspace_id": "TenantId",
    "classification": "Classification",
    "classification_reason": "ClassificationReason",
    "classification_comment": "ClassificationComment",
    "modified_by": "ModifiedBy",
    "created": "CreatedTime",
    "closed": "ClosedTime",
}
_COUNTS = {"alerts": "alertscount", "bookmarks": "bookmarkscount", "comments": "commentscount"}


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
    fields = Fields(raw)
    owner, more = _lowered(loose(fields, "Owner")), _lowered(loose(fields, "AdditionalData"))
    attributes = {ours: fields.text(theirs) for ours, theirs in _COLUMNS.items()}
    attributes |= {ours: scalar(more.get(theirs)) for ours, theirs in _COUNTS.items()}
    attributes["owner"] = next(filter(None, (scalar(owner.get(name)) for name in _OWNER)), "")
    attributes["owner_id"] = scalar(owner.get("objectid"))
    attributes["products"] = ", ".join(_ids(more.get("alertproductnames")))
    attributes["rules"] = ", ".join(_ids(loose(fields, "RelatedAnalyticRuleIds")))
    labels = _base.values_of(loose(fields, "Labels"), frozenset({"labelname"}))
    attributes["labels"] = ", ".join(labels)
    return Details(
        related=_base.unique(
            (*_ids(loose(fields, "AlertIds")), *_ids(loose(fields, "BookmarkIds")))
        ),
        attributes={
            name: text for name, text in attributes.items() if text and text.lower() != "none"
        },
    )


def _lowered(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {name.lower(): inner for name, inner in value.items()}


def _ids(value: Any) -> list[str]:
    """Of a list, or of one in a text."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [text for item in value if (text := scalar(item))] if isinstance(value, list) else []


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` is `SecurityIncident`; without `Type`: `IncidentName` and `IncidentNumber`",
)
