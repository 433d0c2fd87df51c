"""Entra's audits, sign-ins, risk detections: the same fields, however they come.

They stand in `properties` of a diagnostic log's record, are the columns of a Log Analytics row
(PascalCase, objects as text), or a Microsoft Graph object itself. Sources: the Graph resource types
directoryAudit, signIn, riskDetection, riskyUser, provisioningObjectSummary; the tables AuditLogs,
SigninLogs, AADUserRiskEvents, MicrosoftGraphActivityLogs (learn.microsoft.com).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, EntityType, Role
from schemas.kinds import _base, _entities, _monitor, _values
from schemas.kinds._things import address, things
from schemas.kinds._values import Folded, attributes, first, folded, listed, texts

__all__ = ["Subject", "mentioned", "understood"]

_ENTRA = "Microsoft Entra ID"
_PROTECTION = "Microsoft Entra ID Protection"
_STATUSES = {
    "atrisk": "new",
    "confirmedcompromised": "new",
    "remediated": "resolved",
    "dismissed": "dismissed",
    "confirmedsafe": "dismissed",
}
_ATTRIBUTES = {
    "correlationid": "correlation_id",
    "tenantid": "tenant_id",
    "workspaceid": "workspace_id",
    "category": "category",
    "level": "level",
    "identity": "identity",
    "loggedbyservice": "service",
    "operationtype": "operation_type",
    "aadoperationtype": "operation_type",
    "resultdescription": "reason",
    "resultreason": "reason",
    "requestid": "request_id",
    "originalrequestid": "original_request_id",
    "sessionid": "session_id",
    "c_sid": "session_id",
    "uniquetokenidentifier": "token_id",
    "signinactivityid": "token_id",
    "clientappused": "client_app",
    "useragent": "user_agent",
    "authenticationprotocol": "protocol",
    "authenticationrequirement": "authentication_requirement",
    "conditionalaccessstatus": "conditional_access",
    "isinteractive": "interactive",
    "usertype": "user_type",
    "hometenantid": "home_tenant_id",
    "resourceownertenantid": "resource_tenant_id",
    "riskstate": "risk_state",
    "riskdetail": "risk_detail",
    "risklevel": "risk_level",
    "risklevelduringsignin": "risk_level",
    "risklevelaggregated": "user_risk_level",
    "activity": "activity",
    "source": "detection_source",
    "detectiontimingtype": "detection_timing",
    "requestmethod": "http_method",
    "responsestatuscode": "http_status",
    "scopes": "scopes",
}
_PLACE = {"city": "city", "state": "state", "countryorregion": "country"}
_DEVICE = {
    "operatingsystem": "os",
    "browser": "browser",
    "iscompliant": "compliant",
    "ismanaged": "managed",
    "trusttype": "trust_type",
}
_TYPES: dict[str, EntityType] = {
    "user": "user",
    "group": "group",
    "device": "host",
    "application": "application",
    "serviceprincipal": "application",
}


class Subject(_base.Row, kw_only=True, gc=False):
    """What an alert needs of them."""

    id: str | None = None
    activityDisplayName: str | None = None
    activityDateTime: datetime | None = None
    createdDateTime: datetime | None = None
    detectedDateTime: datetime | None = None
    lastUpdatedDateTime: datetime | None = None
    riskLastUpdatedDateTime: datetime | None = None
    result: str | None = None
    resultReason: str | None = None
    riskEventType: str | None = None
    riskLevel: str | None = None
    riskLevelDuringSignIn: str | None = None
    riskState: str | None = None
    riskDetail: str | None = None
    additionalInfo: str | None = None
    userPrincipalName: str | None = None
    servicePrincipalName: str | None = None


def understood(
    kind: str,
    it: Subject,
    raw: bytes,
    *,
    time: datetime | None = None,
    operation: str = "",
    level: str = "",
    result: str = "",
    reason: str = "",
) -> Alert:
    """The alert of a subject, and of what its record says around it."""
    began = it.activityDateTime or it.createdDateTime or it.detectedDateTime
    changed = it.lastUpdatedDateTime or it.riskLastUpdatedDateTime
    entity = it.id or _base.body_hash(raw)
    event_ms = _base.millis(time or it.detectedDateTime or began or changed)
    states = (event_ms, _base.millis(changed), result or it.result, it.riskState, it.riskLevel)
    version = " ".join(str(state or "-") for state in states)
    risk = _risk(it)
    operation = operation or it.activityDisplayName or ""
    title = operation or ("Risky user" if risk else "Sign-in activity")
    info = _pairs(it.additionalInfo) if it.riskEventType else {}
    return Alert(
        kind=kind,
        key=_base.key(kind, entity, version),
        entity=entity,
        version=version,
        title=f"{title}: {it.riskEventType}" if it.riskEventType else title,
        description=reason or it.resultReason or _said(it.riskDetail),
        severity=_risk_severity(risk) if risk else _monitor.level(level),
        severity_original=risk or level,
        status=_STATUSES.get(_said(it.riskState).lower(), "unknown"),
        status_original=_said(it.riskState),
        event_ms=event_ms,
        start_ms=_base.millis(began),
        end_ms=_base.millis(changed),
        resource=it.userPrincipalName or it.servicePrincipalName or "",
        techniques=_base.words(info.get("mitretechniques")),
        product=_PROTECTION if it.riskLevel else _ENTRA,
        alert_type=it.riskEventType or operation,
        link=info.get("alerturl", ""),
        raw=raw,
    )


def _risk(it: Subject) -> str:
    """A risk's level; a sign-in's only where there is a risk: others say "low" as well."""
    if it.riskLevel:
        return it.riskLevel
    return it.riskLevelDuringSignIn or "" if _said(it.riskState) else ""


def _said(risk: str | None) -> str:
    return risk if risk and risk.lower() != "none" else ""


def _risk_severity(risk: str) -> str:
    return "informational" if risk.lower() == "none" else _base.severity(risk)


def _pairs(value: object) -> dict[str, str]:
    """`[{"key": …, "value": …}, …]`, which may stand in a text, as one object."""
    pairs = map(folded, listed(value))
    return {first(pair, "key").lower(): first(pair, "value") for pair in pairs}


def mentioned(raw: bytes) -> Details:
    """What the record says: of itself, and in its `properties`, which go first."""
    around = _values.record(raw)
    inner = folded(around.get("properties"))
    fields = around | inner
    more = attributes(around, {name: f"record_{it}" for name, it in _ATTRIBUTES.items()})
    found = attributes(fields, _ATTRIBUTES)
    found |= {name: text for name, text in more.items() if text not in found.values()}
    status = folded(fields.get("status"))
    found |= attributes(status, {"errorcode": "error_code", "failurereason": "reason"})
    if agent := _pairs(fields.get("additionaldetails")).get("user-agent"):
        found.setdefault("user_agent", agent)
    if changed := _changed(fields):
        found["modified_properties"] = ", ".join(changed)
    return Details(
        entities=things(_entities_of(fields)),
        action=first(fields, "action", "operationname", "activitydisplayname"),
        outcome=_outcome(fields),
        related=tuple(texts(fields, "requestid")) if "riskeventtype" in fields else (),
        attributes=found,
    )


def _outcome(fields: Folded) -> Literal["", "success", "failure"]:
    said = _monitor.outcome(first(fields, "result"))
    if said:
        return said
    done = folded(fields.get("statusinfo") or fields.get("provisioningstatusinfo"))
    code = first(folded(fields.get("status")), "errorcode") or first(fields, "resulttype")
    if code.isdigit():
        return "failure" if code.strip("0") else "success"
    names = ("resulttype", "responsestatuscode", "status")
    return _monitor.outcome(code, first(done, "status"), *texts(fields, *names))


def _entities_of(fields: Folded) -> Iterator[Entity]:
    started = folded(fields.get("initiatedby"))
    if "initiatedby" in fields:
        yield from _initiator(started or {"app": {"displayname": fields.get("identity")}})
    yield from _subject(fields)
    extra = _pairs(fields.get("additionaldetails"))
    place = folded(fields.get("locationdetails") or fields.get("location"))
    for text in texts(fields, "ipaddress", "sourceip"):
        yield from address(text, "source", attributes=attributes(place, _PLACE))
    yield from address(first(fields, "destinationip"), "target")
    yield _entities.host(first(fields, "destinationfqdn"), role="target")
    yield from address(first(folded(started.get("user")), "ipaddress"), "source")
    yield from address(first(fields, "calleripaddress"), "source")
    yield from address(extra.get("ipaddr", ""), "source")
    device = folded(fields.get("devicedetail"))
    yield _entities.host(
        first(device, "displayname"),
        id=first(device, "deviceid"),
        role="source",
        attributes=attributes(device, _DEVICE),
    )
    for target in map(folded, listed(fields.get("targetresources"))):
        yield from _target(target)
    yield _entities.user(extra.get("inviteduseremailaddress", ""), role="target")
    yield from _provisioned(fields)
    for text in texts(fields, "requesturi", "destinationurl"):
        yield Entity(type="url", name=text, role="target")


def _initiator(started: Folded) -> Iterator[Entity]:
    """Who began what an audit tells; a provisioning says so without `user` or `app`."""
    kind = first(started, "initiatortype", "type").lower()
    person = folded(started.get("user")) or (started if kind == "user" else {})
    app = folded(started.get("app")) or (started if kind and kind != "user" else {})
    yield _user(person, "actor")
    yield Entity(
        type="application",
        name=first(app, "displayname", "serviceprincipalname", "name"),
        id=first(app, "serviceprincipalid", "appid", "id"),
        role="actor",
        attributes=attributes(app, {"appid": "appId"}),
    )


def _user(of: Folded, role: Role, name: str = "") -> Entity:
    return _entities.user(
        first(of, "userprincipalname") or name or first(of, "displayname", "name"),
        id=first(of, "id"),
        role=role,
        attributes=attributes(of, {"displayname": "displayName", "identity": "identity"}),
    )


def _subject(fields: Folded) -> Iterator[Entity]:
    """Who signed in, or is at risk; with which application, to which."""
    at_risk = "riskeventtype" in fields or "risklastupdateddatetime" in fields
    role: Role = "target" if at_risk else "actor"
    own = first(fields, "id") if "risklastupdateddatetime" in fields else ""
    principal_name, display = first(fields, "userprincipalname"), first(fields, "userdisplayname")
    if principal_name or display or "userid" in fields:
        person = {
            "userprincipalname": principal_name,
            "displayname": display,
            "identity": first(fields, "identity"),
            "id": first(fields, "userid") or own,
        }
        yield _user(person, role)
        own = ""
    app_id, app = first(fields, "appid"), first(fields, "appdisplayname")
    principal = first(fields, "serviceprincipalname")
    principal_id = first(fields, "serviceprincipalid") or own
    if principal or principal_id:
        yield Entity(
            type="application",
            name=principal or first(fields, "displayname") or app,
            id=principal_id or app_id,
            role=role,
            attributes={"appId": app_id} if app_id else {},
        )
    else:
        yield Entity(type="application", name=app, id=app_id)
    used = next(
        (text for text in texts(fields, "resourceidentity", "resourceid") if text[0] != "/"), ""
    )
    yield Entity(
        type="application", name=first(fields, "resourcedisplayname"), id=used, role="target"
    )


def _target(target: Folded) -> Iterator[Entity]:
    """What was changed, and what its changed properties name: `Group.ObjectID`, …"""
    said = first(target, "type")
    type_ = _TYPES.get(said.lower(), "other")
    properties = [folded(item) for item in listed(target.get("modifiedproperties"))]
    changed = {first(item, "displayname").lower(): _value(item) for item in properties}
    if type_ == "user":
        yield _user(target, "target", changed.get("userprincipalname", ""))
    elif type_ == "host":
        yield _entities.host(first(target, "displayname"), id=first(target, "id"), role="target")
    else:
        known = {"type": said} if type_ == "other" and said else {}
        yield Entity(
            type=type_,
            name=first(target, "displayname"),
            id=first(target, "id"),
            role="target",
            attributes=known,
        )
    for kind in ("group", "role", "serviceprincipal", "user"):
        name = changed.get(f"{kind}.upn") or changed.get(f"{kind}.displayname", "")
        known_as = changed.get(f"{kind}.objectid", "")
        if kind == "user":
            yield _entities.user(name, id=known_as, role="target")
        else:
            yield Entity(type=_TYPES.get(kind, "other"), name=name, id=known_as, role="target")


def _value(changed: Folded) -> str:
    """A changed property's value, the new one if there is one: it is JSON in a text."""
    for text in texts(changed, "newvalue", "oldvalue"):
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            return text
        items = value if isinstance(value, list) else [value]
        plain = next(filter(None, map(_entities.scalar, items)), "")
        if plain:
            return plain
    return ""


def _changed(fields: Folded) -> tuple[str, ...]:
    """The names of the properties that were changed."""
    targets = [fields, *map(folded, listed(fields.get("targetresources")))]
    changes = (item for target in targets for item in listed(target.get("modifiedproperties")))
    return _base.unique(first(folded(item), "displayname") for item in changes)[:64]


def _provisioned(fields: Folded) -> Iterator[Entity]:
    ends: tuple[tuple[str, Role], ...] = (
        ("sourceidentity", "source"),
        ("targetidentity", "target"),
    )
    for end, role in ends:
        it = folded(fields.get(end))
        type_ = _TYPES.get(first(it, "identitytype").lower(), "other")
        name, known_as = first(it, "displayname", "name"), first(it, "id")
        if type_ == "user":
            yield _entities.user(name, id=known_as, role=role)
        else:
            yield Entity(type=type_, name=name, id=known_as, role=role)
    principal = folded(fields.get("serviceprincipal"))
    name, known_as = first(principal, "displayname", "name"), first(principal, "id")
    yield Entity(type="application", name=name, id=known_as)
