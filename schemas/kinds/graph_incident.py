"""Microsoft Graph: an incident of security/incidents; its alerts, if the request expanded them.

Source: "incident resource type" (learn.microsoft.com, graph/api/resources/security-incident). An
incident's id is unique in its tenant only. One that was merged into another one is `redirected`
to that one's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base, _graph
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import resolve
from schemas.kinds._mitre import tactics
from schemas.kinds._values import Folded, first, folded, objects

__all__ = ["KIND"]

NAME = "graph_incident"
_TYPE = "#microsoft.graph.security.incident"
# To the other words of alerts: the incident no longer stands for itself; somebody waits.
_STATUSES = {"redirected": "resolved", "awaitingaction": "in_progress"}
_ATTRIBUTES = {
    "tenantid": "tenant_id",
    "id": "incident_id",
    "redirectincidentid": "redirect_incident_id",
    "classification": "classification",
    "determination": "determination",
    "assignedto": "owner",
    "priorityscore": "priority",
    "customtags": "labels",
    "systemtags": "system_tags",
    "summary": "summary",
    "resolvingcomment": "resolving_comment",
    "createddatetime": "created",
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
        tactics=tactics(word for it in alerts for word in _base.words(it.category)),
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
    fields = folded(raw)
    alerts = list(map(folded, objects(fields.get("alerts"))))
    attributes = _graph.attributes(fields, _ATTRIBUTES)
    if alerts:
        attributes["alerts"] = str(len(alerts))
    return Details(
        entities=resolve([alert.get("evidence") for alert in alerts]),
        related=_base.unique((first(fields, "redirectincidentid"), *_ids(alerts))),
        attributes=attributes,
    )


def _ids(alerts: list[Folded]) -> Iterator[str]:
    for alert in alerts:
        yield first(alert, "id")
        yield first(alert, "provideralertid")


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by=f"`@odata.type` is `{_TYPE}`; without it: `incidentWebUrl` and `displayName`",
)
