"""Sentinel's incidents API: an incident as an Azure resource.

It comes in three forms: with its fields in `properties` (the API, Logic Apps), with
`properties.title` and its like as keys (a table made of it), and with `last_modified_time_utc` and
its like beside `id` (the Python SDK's `as_dict`). Source: REST reference of
Microsoft.SecurityInsights, Incidents 2024-09-01; real incidents in the two latter forms.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base
from schemas.kinds._base import Fields, Kind
from schemas.kinds._entities import resolve, scalar
from schemas.kinds._strings import loads_loosely
from schemas.kinds._values import folded, listed, plain

__all__ = ["KIND"]

NAME = "arm_incident"
_INNER = ("owner", "additionaldata")
_WORKSPACE = re.compile(r"/workspaces/([^/]+)/", re.IGNORECASE)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Row(_base.Row, kw_only=True, gc=False):
    """Only what tells it: the forms name the other fields otherwise."""

    id: str | None
    name: str | None
    type: Literal["Microsoft.SecurityInsights/Incidents", "Microsoft.SecurityInsights/incidents"]


def tells(fields: Fields) -> bool:
    return fields.text("type").lower() == "microsoft.securityinsights/incidents"


class _Incident:
    """An incident's fields, whatever form it has: `lastmodifiedtimeutc`, `owner.email`."""

    def __init__(self, raw: bytes) -> None:
        self.repairs: tuple[str, ...] = ()
        self._fields: dict[str, Any] = {}
        try:
            self._add(_decode(raw), "")
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            pass

    def _add(self, holder: dict[str, Any], prefix: str) -> None:
        for key, value in holder.items():
            name = prefix + key.lower().replace("_", "").removeprefix("properties.")
            if name == "properties" and isinstance(value, str):
                value, repair = loads_loosely(value)
                self.repairs = (repair,) if isinstance(value, dict) else ()
            if isinstance(value, dict) and name == "properties":
                self._add(value, "")
            elif isinstance(value, dict) and name in _INNER:
                self._add(value, f"{name}.")
            elif value is not None:
                self._fields.setdefault(name, value)

    def text(self, *names: str) -> str:
        return next(filter(None, (scalar(self._fields.get(name)) for name in names)), "")

    def items(self, name: str) -> list[Any]:
        return listed(self._fields.get(name))

    def words(self, name: str) -> tuple[str, ...]:
        return _base.unique(map(scalar, self.items(name)))

    def millis(self, *names: str) -> int:
        return _base.millis(_base.moment(self.text(*names)))


def read(row: Row, raw: bytes) -> Alert:
    it = _Incident(raw)
    entity = row.id.lower() if row.id else _base.body_hash(raw)
    version = it.text("lastmodifiedtimeutc", "etag") or _base.body_hash(raw)
    word, status = it.text("severity"), it.text("status")
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=it.text("title"),
        description=it.text("description"),
        severity=_base.severity(word),
        severity_original=word,
        # Somebody works on an "Active" incident.
        status="in_progress" if status.lower() == "active" else _base.status(status),
        status_original=status,
        event_ms=it.millis("lastmodifiedtimeutc", "createdtimeutc"),
        start_ms=it.millis("firstactivitytimeutc"),
        end_ms=it.millis("lastactivitytimeutc"),
        subscription_id=_base.subscription_of(row.id)
        or _base.subscription_in(it.text("incidenturl")),
        tactics=it.words("additionaldata.tactics"),
        techniques=it.words("additionaldata.techniques"),
        product=it.text("providername") or "Microsoft Sentinel",
        link=it.text("incidenturl"),
        raw=raw,
        repairs=it.repairs,
    )


def details(raw: bytes) -> Details:
    it = _Incident(raw)
    workspace = _WORKSPACE.search(it.text("id"))
    number, provider_id = it.text("incidentnumber"), it.text("providerincidentid")
    others = (*map(_alert_id, it.items("alerts")), "" if provider_id == number else provider_id)
    return Details(
        entities=resolve(list(map(_entity, it.items("relatedentities")))),
        related=_base.unique(others),
        attributes=plain(
            incident_number=number,
            workspace=workspace[1] if workspace else "",
            owner=it.text(
                *("owner.userprincipalname", "owner.email", "owner.assignedto", "owner.objectid")
            ),
            labels=[_folded(label).get("labelname") for label in it.items("labels")],
            classification=it.text("classification"),
            classification_reason=it.text("classificationreason"),
            classification_comment=it.text("classificationcomment"),
            alerts=it.text("additionaldata.alertscount"),
            bookmarks=it.text("additionaldata.bookmarkscount"),
            comments=it.text("additionaldata.commentscount"),
            products=it.words("additionaldata.alertproductnames"),
            rules=it.words("relatedanalyticruleids"),
            provider_incident_id=provider_id,
            created=it.text("createdtimeutc"),
            provider_incident_url=it.text("additionaldata.providerincidenturl"),
        ),
    )


def _folded(value: Any) -> dict[str, Any]:
    """An object by its keys in lower case, without `_`."""
    return {name.replace("_", ""): it for name, it in folded(value).items()}


def _alert_id(value: Any) -> str:
    """The id of an alert that a table's incident, or a Logic App's, holds."""
    alert = _folded(value)
    named = scalar(_folded(alert.get("properties")).get("systemalertid"))
    return named or _base.short_name(scalar(alert.get("id")) or scalar(alert.get("name")))


def _entity(value: Any) -> dict[str, Any]:
    """An entity of Sentinel's API (`kind`, `properties`) as alerts list it."""
    entity = _folded(value)
    properties = entity.get("properties")
    more = properties if isinstance(properties, dict) else {}
    return {"type": entity.get("kind"), **more}


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`type` is `Microsoft.SecurityInsights/incidents`",
)
