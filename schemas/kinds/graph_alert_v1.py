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
from schemas.kinds._entities import file, host, merged, scalar, user
from schemas.kinds._mitre import tactics
from schemas.kinds._things import hashes, process
from schemas.kinds._values import Folded, first, folded, listed, objects, value_of

__all__ = ["KIND"]

NAME = "graph_alert_v1"
_STATUSES = {"newalert": "new"}
_EMAIL_ROLES: dict[str, Role] = {"sender": "source", "recipient": "target"}
_ATTRIBUTES = {
    "azuretenantid": "tenant_id",
    "category": "category",
    "vendorinformation_provider": "provider",
    "vendorinformation_subprovider": "component",
    "activitygroupname": "activity_group",
    "confidence": "confidence_score",
    "feedback": "classification",
    "assignedto": "owner",
    "tags": "labels",
    "sourcematerials": "links",
    "createddatetime": "created",
    "closeddatetime": "closed",
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
    links = map(scalar, listed(value_of(row.sourceMaterials)))
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
        tactics=tactics(_base.words(row.category)),
        vendor=vendor.vendor or row.vendor or "Microsoft",
        product=vendor.provider or row.provider or "Microsoft Graph",
        alert_type=row.category or "",
        link=next(links, ""),
        raw=raw,
    )


def _resources(states: msgspec.Raw) -> tuple[str, ...]:
    found = _base.values_of(value_of(states), frozenset({"resource"}))
    return _base.unique(name for name in found if _base.subscription_of(name))


def _machine(states: msgspec.Raw) -> str:
    """The first of them."""
    names = (first(state, "netbiosname", "fqdn") for state in _states(value_of(states)))
    return next(filter(None, names), "")


def details(raw: bytes) -> Details:
    """Whoever works on the alert is an attribute, no entity: nobody who took part in it."""
    fields = folded(raw)
    found: list[Entity] = []
    for name, read_state in _READERS.items():
        for state in _states(fields.get(name.lower())):
            found += read_state(state)
    for name, value in folded(fields.get("vendorinformation")).items():
        fields[f"vendorinformation_{name}"] = value
    ids = (fields.get(name) for name in ("incidentids", "detectionids"))
    return Details(
        entities=merged(found),
        related=_base.unique(scalar(id) for each in ids for id in listed(each)),
        attributes=_graph.attributes(fields, _ATTRIBUTES),
    )


def _states(value: Any) -> Iterator[Folded]:
    return map(folded, objects(value))


def _rest(state: Folded, *names: str) -> dict[str, str]:
    """What else a state says, under the names given."""
    found = {name: first(state, name.lower()) for name in names}
    return {name: text for name, text in found.items() if text}


def _hashes(state: Folded) -> tuple[str, ...]:
    return hashes(*(first(it, "hashvalue") for it in _states(state.get("filehash"))))


def _host(state: Folded) -> Iterator[Entity]:
    more = _rest(state, "os", "riskScore", "isAzureAdJoined")
    yield host(first(state, "fqdn", "netbiosname"), attributes=more)
    for name in ("privateipaddress", "publicipaddress"):
        yield Entity(type="ip", name=first(state, name))
    if "commandline" in state:  # a collector puts processes here
        yield from _process(state)


def _user(state: Folded) -> Iterator[Entity]:
    name, domain = first(state, "accountname"), first(state, "domainname")
    principal = first(state, "userprincipalname")
    if not name or "." in principal.rpartition("@")[2]:
        name = principal or name
    yield user(
        name,
        domain,
        id=first(state, "aaduserid", "onpremisessecurityidentifier"),
        role=_EMAIL_ROLES.get(first(state, "emailrole").lower(), ""),
        attributes=_rest(
            state, "onPremisesSecurityIdentifier", "logonId", "logonType", "logonLocation"
        ),
    )
    yield Entity(type="ip", name=first(state, "logonip"), role="source")


def _file(state: Folded) -> Iterator[Entity]:
    yield file(first(state, "name"), first(state, "path"), hashes=_hashes(state))


def _process(state: Folded) -> Iterator[Entity]:
    yield process(
        first(state, "name"),
        first(state, "path"),
        command_line=first(state, "commandline"),
        pid=first(state, "processid"),
        parent_pid=first(state, "parentprocessid"),
        hashes=_hashes(state),
        attributes=_rest(state, "parentProcessName", "accountName", "integrityLevel"),
    )
    yield user(first(state, "accountname"))


def _connection(state: Folded) -> Iterator[Entity]:
    more = _rest(state, "protocol", "direction", "applicationName", "status")
    sides: tuple[tuple[str, Role], ...] = (("source", "source"), ("destination", "target"))
    for side, role in sides:
        address, port = first(state, f"{side}address"), first(state, f"{side}port")
        yield Entity(type="ip", name=address, port=port, role=role, attributes=more)
        yield Entity(type="ip", name=first(state, f"nat{side}address"), role=role)
    yield Entity(type="domain", name=first(state, "destinationdomain"), role="target")
    yield Entity(type="url", name=first(state, "destinationurl"), role="target")


def _registry(state: Folded) -> Iterator[Entity]:
    path = "\\".join(filter(None, (first(state, "hive"), first(state, "key"))))
    more = _rest(state, "operation", "valueData", "valueType", "oldValueData")
    yield Entity(type="registry", name=first(state, "valuename"), path=path, attributes=more)


def _malware(state: Folded) -> Iterator[Entity]:
    more = _rest(state, "category", "family", "severity", "wasRunning")
    yield Entity(type="malware", name=first(state, "name", "family"), attributes=more)


def _application(state: Folded) -> Iterator[Entity]:
    yield Entity(type="application", name=first(state, "destinationservicename"))
    yield Entity(type="ip", name=first(state, "destinationserviceip"), role="target")


def _message(state: Folded) -> Iterator[Entity]:
    yield Entity(
        type="message",
        name=first(state, "messagesubject"),
        id=first(state, "networkmessageid", "internetmessageid"),
        attributes=_rest(state, "deliveryAction", "deliveryLocation", "directionality"),
    )
    yield Entity(type="ip", name=first(state, "connectingip"), role="source")


def _click(state: Folded) -> Iterator[Entity]:
    yield Entity(type="domain", name=first(state, "uridomain"), attributes=_rest(state, "verdict"))


def _vulnerability(state: Folded) -> Iterator[Entity]:
    yield Entity(type="other", name=first(state, "cve"), attributes=_rest(state, "severity"))


def _resource(state: Folded) -> Iterator[Entity]:
    yield _alerts.resource(first(state, "resource"), attributes=_rest(state, "resourceType"))


_READERS: dict[str, Callable[[Folded], Iterator[Entity]]] = {
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
