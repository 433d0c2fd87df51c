"""Microsoft Graph: an alert of the legacy security/alerts, which many providers fed.

Source: "alert resource type" (learn.microsoft.com, graph/api/resources/alert) and the types of its
states. Some collectors write `vendorInformation_provider` for the object's field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.kinds import _alerts, _base, _graph
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import file, host, is_hash, merged, scalar, user

__all__ = ["KIND"]

NAME = "graph_alert_v1"
_STATUSES = {"newalert": "new"}
_EMAIL_ROLES: dict[str, Role] = {"sender": "source", "recipient": "target"}
_ATTRIBUTES = {
    "tenant_id": "azureTenantId",
    "category": "category",
    "provider": "vendorInformation_provider",
    "component": "vendorInformation_subProvider",
    "activity_group": "activityGroupName",
    "confidence": "confidence",
    "feedback": "feedback",
    "owner": "assignedTo",
    "tags": "tags",
    "links": "sourceMaterials",
    "remediation": "recommendedActions",
    "created": "createdDateTime",
    "closed": "closedDateTime",
}


class _Vendor(msgspec.Struct, gc=False):
    provider: str | None = None
    vendor: str | None = None


class Row(_base.Row, kw_only=True, gc=False):
    id: str
    azureTenantId: str
    azureSubscriptionId: str | None = None
    category: str | None = None
    createdDateTime: datetime | None
    description: str | None = None
    eventDateTime: datetime | None = None
    lastModifiedDateTime: str | None = None
    severity: str | None
    status: str | None
    title: str | None
    vendorInformation: _Vendor
    provider: str | None = msgspec.field(name="vendorInformation_provider", default=None)
    vendor: str | None = msgspec.field(name="vendorInformation_vendor", default=None)
    sourceMaterials: msgspec.Raw = ABSENT
    hostStates: msgspec.Raw = ABSENT
    securityResources: msgspec.Raw = ABSENT


def tells(fields: Fields) -> bool:
    return "azureTenantId" in fields and (
        "vendorInformation" in fields or "vendorInformation_provider" in fields
    )


def read(row: Row, raw: bytes) -> Alert:
    entity = row.id or _base.body_hash(raw)
    version = row.lastModifiedDateTime or _base.body_hash(raw)
    word = row.status or ""
    vendor = row.vendorInformation or _Vendor()
    resources = _resources(row.securityResources)
    link = next(iter(_graph.texts(row.sourceMaterials)), "") if bytes(row.sourceMaterials) else ""
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=row.title or row.category or "",
        description=row.description or "",
        severity=_base.severity(row.severity),
        severity_original=row.severity or "",
        status=_STATUSES.get(word.lower()) or _base.status(word),
        status_original=word,
        event_ms=_base.millis(row.eventDateTime or row.createdDateTime),
        subscription_id=(row.azureSubscriptionId or "").lower()
        or next(map(_base.subscription_of, resources), ""),
        resource_ids=resources,
        resource=_machine(row.hostStates) or _base.short_name(next(iter(resources), "")),
        tactics=_graph.tactics(_base.words(row.category)),
        vendor=vendor.vendor or row.vendor or "Microsoft",
        product=vendor.provider or row.provider or "Microsoft Graph",
        alert_type=row.category or "",
        link=link,
        raw=raw,
    )


def _resources(states: msgspec.Raw) -> tuple[str, ...]:
    found = _base.values_of(_base.decoded(states), frozenset({"resource"})) if bytes(states) else ()
    return _base.unique(name for name in found if _base.subscription_of(name))


def _machine(states: msgspec.Raw) -> str:
    """The first of them."""
    for state in _states(_base.decoded(states)) if bytes(states) else ():
        if name := _text(state, "netbiosname", "fqdn"):
            return name
    return ""


def details(raw: bytes) -> Details:
    """Whoever works on the alert is an attribute, no entity: nobody who took part in it."""
    fields = Fields(raw)
    found: list[Entity] = []
    for name, read_state in _READERS.items():
        for state in _states(_alerts.loose(fields, name)):
            found += read_state(state)
    vendor = next(_states(_alerts.loose(fields, "vendorInformation")), {})
    attributes = _graph.attributes(fields, _ATTRIBUTES)
    for ours, theirs in (("provider", "provider"), ("component", "subprovider")):
        if said := _text(vendor, theirs):
            attributes[ours] = said
    comments = _alerts.loose(fields, "comments")
    if isinstance(comments, list):
        attributes["comments"] = str(len(comments))
    ids = (_graph.texts(fields.get(name)) for name in ("incidentIds", "detectionIds"))
    return Details(
        entities=merged(found),
        related=_base.unique(name for each in ids for name in each),
        attributes=attributes,
    )


# States: objects by their fields' names in lower case.

_State = dict[str, Any]


def _states(value: Any) -> Iterator[_State]:
    for item in value if isinstance(value, list) else (value,):
        if isinstance(item, dict):
            yield {name.lower(): inner for name, inner in item.items()}


def _text(state: _State, *names: str) -> str:
    return next(filter(None, (scalar(state.get(name)) for name in names)), "")


def _rest(state: _State, *names: str) -> dict[str, str]:
    """What else a state says, under the names given."""
    found = {name: _text(state, name.lower()) for name in names}
    return {name: text for name, text in found.items() if text}


def _hashes(state: _State) -> tuple[str, ...]:
    told = (_text(it, "hashvalue") for it in _states(state.get("filehash")))
    return tuple(value for value in told if is_hash(value))


def _host(state: _State) -> Iterator[Entity]:
    more = _rest(state, "os", "riskScore", "isAzureAdJoined")
    yield host(_text(state, "fqdn", "netbiosname"), attributes=more)
    for name in ("privateipaddress", "publicipaddress"):
        yield Entity(type="ip", name=_text(state, name))
    if "commandline" in state:  # a collector puts processes here
        yield from _process(state)


def _user(state: _State) -> Iterator[Entity]:
    name, domain = _text(state, "accountname"), _text(state, "domainname")
    principal = _text(state, "userprincipalname")
    if not name or "." in principal.rpartition("@")[2]:
        name = principal or name
    yield user(
        name,
        domain,
        id=_text(state, "aaduserid", "onpremisessecurityidentifier"),
        role=_EMAIL_ROLES.get(_text(state, "emailrole").lower(), ""),
        attributes=_rest(
            state, "onPremisesSecurityIdentifier", "logonId", "logonType", "logonLocation"
        ),
    )
    yield Entity(type="ip", name=_text(state, "logonip"), role="source")


def _file(state: _State) -> Iterator[Entity]:
    yield file(_text(state, "name"), _text(state, "path"), hashes=_hashes(state))


def _process(state: _State) -> Iterator[Entity]:
    image = file(_text(state, "name"), _text(state, "path"))
    yield Entity(
        type="process",
        name=image.name,
        path=image.path,
        command_line=_text(state, "commandline"),
        pid=_text(state, "processid"),
        parent_pid=_text(state, "parentprocessid"),
        hashes=_hashes(state),
        attributes=_rest(state, "parentProcessName", "accountName", "integrityLevel"),
    )
    yield user(_text(state, "accountname"))


def _connection(state: _State) -> Iterator[Entity]:
    more = _rest(state, "protocol", "direction", "applicationName", "status")
    sides: tuple[tuple[str, Role], ...] = (("source", "source"), ("destination", "target"))
    for side, role in sides:
        address, port = _text(state, f"{side}address"), _text(state, f"{side}port")
        yield Entity(type="ip", name=address, port=port, role=role, attributes=more)
        yield Entity(type="ip", name=_text(state, f"nat{side}address"), role=role)
    yield Entity(type="domain", name=_text(state, "destinationdomain"), role="target")
    yield Entity(type="url", name=_text(state, "destinationurl"), role="target")


def _registry(state: _State) -> Iterator[Entity]:
    path = "\\".join(filter(None, (_text(state, "hive"), _text(state, "key"))))
    more = _rest(state, "operation", "valueData", "valueType", "oldValueData")
    yield Entity(type="registry", name=_text(state, "valuename"), path=path, attributes=more)


def _malware(state: _State) -> Iterator[Entity]:
    more = _rest(state, "category", "family", "severity", "wasRunning")
    yield Entity(type="malware", name=_text(state, "name", "family"), attributes=more)


def _application(state: _State) -> Iterator[Entity]:
    yield Entity(type="application", name=_text(state, "destinationservicename"))
    yield Entity(type="ip", name=_text(state, "destinationserviceip"), role="target")


def _message(state: _State) -> Iterator[Entity]:
    yield Entity(
        type="message",
        name=_text(state, "messagesubject"),
        id=_text(state, "networkmessageid", "internetmessageid"),
        attributes=_rest(state, "deliveryAction", "deliveryLocation", "directionality"),
    )
    yield Entity(type="ip", name=_text(state, "connectingip"), role="source")


def _click(state: _State) -> Iterator[Entity]:
    yield Entity(type="domain", name=_text(state, "uridomain"), attributes=_rest(state, "verdict"))


def _vulnerability(state: _State) -> Iterator[Entity]:
    yield Entity(type="other", name=_text(state, "cve"), attributes=_rest(state, "severity"))


def _resource(state: _State) -> Iterator[Entity]:
    yield _alerts.resource(_text(state, "resource"), attributes=_rest(state, "resourceType"))


_READERS: dict[str, Callable[[_State], Iterator[Entity]]] = {
    "hostStates": _host,
    "userStates": _user,
    "fileStates": _file,
    "processes": _process,
    "networkConnections": _connection,
    "registryKeyStates": _registry,
    "malwareStates": _malware,
    "cloudAppStates": _application,
    "messageSecurityStates": _message,
    "uriClickSecurityStates": _click,
    "vulnerabilityStates": _vulnerability,
    "securityResources": _resource,
}

KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`azureTenantId` and `vendorInformation`",
)
