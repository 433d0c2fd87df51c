"""Microsoft Graph: an incident of security/incidents; its alerts, if the request expanded them.

Source: "incident resource type" (learn.microsoft.com, graph/api/resources/security-incident). An
incident's id is unique in its tenant only. One that was merged into another one is `redirected`
to that one's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _graph
from schemas.kinds._alerts import loose
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import resolve, scalar

__all__ = ["KIND"]

NAME = "graph_incident"
_TYPE = "#microsoft.graph.security.incident"
# To the other words of alerts: the incident no longer stands for itself; somebody waits.
_STATUSES = {"redirected": "resolved", "awaitingaction": "in_progress"}
_ATTRIBUTES = {
    "tenant_id": "tenantId",
    "incident_id": "id",
    "redirect_incident_id": "redirectIncidentId",
    "classification": "classification",
    "determination": "determination",
    "owner": "assignedTo",
    "priority": "priorityScore",
    "tags": "customTags",
    "system_tags": "systemTags",
    "summary": "summary",
    "resolving_comment": "resolvingComment",
    "remediation": "recommendedActions",
    "created": "createdDateTime",
}


class Row(_base.Row, kw_only=True, gc=False):
    odata_type: Literal["#microsoft.graph.security.incident"] | None = msgspec.field(
        name="@odata.type", default=None
    )
    id: str
    tenantId: str | None = None
    incidentWebUrl: str
    displayName: str
    description: str | None = None
    summary: str | None = None
    createdDateTime: datetime | None
    lastUpdateDateTime: str | None
    status: str | None
    severity: str | None
    alerts: msgspec.Raw = ABSENT


class _Expanded(msgspec.Struct, gc=False):
    category: str | None = None
    mitreTechniques: list[str] | None = None
    firstActivityDateTime: datetime | None = None
    lastActivityDateTime: datetime | None = None


_expanded = msgspec.json.Decoder(list[_Expanded]).decode


def tells(fields: Fields) -> bool:
    if "@odata.type" in fields:
        return fields.text("@odata.type").lower() == _TYPE
    return "incidentWebUrl" in fields and "displayName" in fields


def read(row: Row, raw: bytes) -> Alert:
    entity = f"{row.tenantId or ''}/{row.id}" if row.id else _base.body_hash(raw)
    version = row.lastUpdateDateTime or _base.body_hash(raw)
    modified = _base.moment(row.lastUpdateDateTime or "") or row.createdDateTime
    word = row.status or ""
    alerts = _alerts_of(row.alerts)
    resources = _graph.resources(row.alerts)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=row.displayName or "",
        description=row.description or row.summary or "",
        severity=_base.severity(row.severity),
        severity_original=row.severity or "",
        status=_STATUSES.get(word.lower()) or _base.status(word),
        status_original=word,
        event_ms=_base.millis(modified),
        start_ms=min(
            filter(None, (_base.millis(it.firstActivityDateTime) for it in alerts)), default=0
        ),
        end_ms=max((_base.millis(it.lastActivityDateTime) for it in alerts), default=0),
        subscription_id=next(map(_base.subscription_of, resources), ""),
        resource_ids=resources,
        resource=_base.short_name(next(iter(resources), "")),
        tactics=_graph.tactics(word for it in alerts for word in _base.words(it.category)),
        techniques=_base.unique(name for it in alerts for name in it.mitreTechniques or ()),
        product="Microsoft Defender XDR",
        link=row.incidentWebUrl or "",
        raw=raw,
    )


def _alerts_of(raw: msgspec.Raw) -> list[_Expanded]:
    if not bytes(raw):
        return []
    try:
        return _expanded(raw)
    except msgspec.DecodeError:
        return []


def details(raw: bytes) -> Details:
    """Whoever works on the incident is an attribute, no entity: nobody who took part in it."""
    fields = Fields(raw)
    alerts = loose(fields, "alerts")
    alerts = [it for it in alerts if isinstance(it, dict)] if isinstance(alerts, list) else []
    lowered = [{name.lower(): value for name, value in alert.items()} for alert in alerts]
    attributes = _graph.attributes(fields, _ATTRIBUTES)
    comments = loose(fields, "comments")
    if isinstance(comments, list):
        attributes["comments"] = str(len(comments))
    if alerts:
        attributes["alerts"] = str(len(alerts))
    return Details(
        entities=resolve([alert.get("evidence") for alert in lowered]),
        related=_base.unique((fields.text("redirectIncidentId"), *_ids(lowered))),
        attributes=attributes,
    )


def _ids(alerts: list[dict[str, Any]]) -> Iterator[str]:
    for alert in alerts:
        yield scalar(alert.get("id"))
        yield scalar(alert.get("provideralertid"))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by=f"`@odata.type` is `{_TYPE}`; without it: `incidentWebUrl` and `displayName`",
)
