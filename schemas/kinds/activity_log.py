"""The Azure Activity Log: what was done to a subscription's resources, and what befell them.

As a diagnostic setting streams it (`category` a word, `identity` an object), as the REST API tells
it (`category.value`, `eventTimestamp`, `claims`), and as a row of Log Analytics (AzureActivity).
Source: "Azure activity log event schema" (learn.microsoft.com, azure/azure-monitor/platform).
The level of a Security record is always Informational: its severity stands in `properties`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.kinds import _base, _entities, _monitor, _values
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._things import address, hosts, process, resource, things
from schemas.kinds._values import Folded, attributes, first, folded, listed, texts

__all__ = ["KIND"]

NAME = "activity_log"
_CATEGORIES = (
    *("Administrative", "Security", "ServiceHealth", "Alert", "Autoscale", "Recommendation"),
    *("Policy", "ResourceHealth"),
    *("Write", "Delete", "Action"),  # as older settings say instead of Administrative
)
_FOLDED = frozenset(name.lower() for name in _CATEGORIES)
_STATUSES = {"activated": "new"}
_FIELDS = {
    "correlationid": "correlation_id",
    "operationid": "operation_id",
    "eventdataid": "event_data_id",
    "tenantid": "tenant_id",
    "workspaceid": "workspace_id",
    "category": "category",
    "categoryvalue": "category",
    "level": "level",
    "resultsignature": "sub_status",
    "activitysubstatusvalue": "sub_status",
    "substatus": "sub_status",
    "channels": "channels",
    "resourceprovidername": "provider",
    "eventname": "event_name",
}
_PROPERTIES = {
    "eventcategory": "event_category",
    "eventname": "event_name",
    "operationid": "operation_id",
    "statuscode": "status_code",
    "statusmessage": "reason",
    "servicerequestid": "request_id",
    "trackingid": "tracking_id",
    "incidenttype": "incident_type",
    "actiontaken": "action_taken",
    "accountlogonid": "logon_id",
    "recommendationcategory": "recommendation_category",
    "recommendationimpact": "recommendation_impact",
    "healthstatus": "health_status",
    "currenthealthstatus": "health_status",
    "cause": "cause",
    "rulename": "rule",
}
_CLAIMS = {
    "http://schemas.microsoft.com/claims/authnmethodsreferences": "authentication_methods",
    "http://schemas.microsoft.com/identity/claims/tenantid": "home_tenant_id",
}
_EVIDENCE = {"role": "role", "roleassignmentid": "role_assignment_id"}
_ENTRA = "[tT][eE][nN][aA][nN][tT][sS]"


class Row(_base.Row, kw_only=True, gc=False):
    time: datetime
    resourceId: Annotated[str, msgspec.Meta(pattern=f"^/(?!{_ENTRA}/)")]
    operationName: str
    category: Annotated[str, msgspec.Meta(pattern=f"^(?:{'|'.join(_CATEGORIES)})$")]
    correlationId: str | None = None
    resultType: str | None = None
    resultDescription: str | None = None
    level: str | int | None = None
    Level: None = None  # what has it is read leniently
    properties: msgspec.Raw = ABSENT
    # As the REST API says it; objects are read as text.
    eventTimestamp: datetime | None = None
    eventDataId: str | None = None
    eventName: str | None = None
    eventSource: str | None = None
    resourceUri: str | None = None
    subscriptionId: str | None = None
    status: str | None = None
    description: str | None = None
    # A row of Log Analytics.
    TimeGenerated: datetime | None = None
    OperationNameValue: str | None = None
    CategoryValue: str | None = None
    ActivityStatusValue: str | None = None


class Facts(_base.Row, kw_only=True, gc=False):
    """What an alert needs of `properties`: those of the event itself."""

    title: str | None = None
    severity: str | None = None
    Severity: str | None = None
    intent: str | None = None
    compromisedEntity: str | None = None
    recommendationName: str | None = None
    recommendationResourceLink: str | None = None


class Properties(Facts, kw_only=True, gc=False):
    """What a diagnostic setting adds to them, or puts around them."""

    eventName: str | None = None
    eventCategory: str | None = None
    eventProperties: msgspec.Raw = ABSENT


def tells(fields: Fields) -> bool:
    if fields.text("Type").lower() == "azureactivity":
        return True
    if "operationName" not in fields or "TimeGenerated" in fields:
        return False
    if "eventTimestamp" in fields:
        return "eventDataId" in fields or "category" in fields
    if fields.text("resourceId")[:9].lower() == "/tenants/":
        return False
    return "time" in fields and fields.text("category").lower() in _FOLDED


def read(row: Row, raw: bytes) -> Alert:
    properties, repair = _values.part(Properties, row.properties)
    facts: Facts = properties
    if bytes(properties.eventProperties):
        facts, repair = _values.part(Facts, properties.eventProperties)
    category = _word(row.category) or row.CategoryValue or _word(row.eventSource)
    category = properties.eventCategory or category
    operation = row.OperationNameValue or _word(row.operationName)
    status = row.ActivityStatusValue or row.resultType or _word(row.status)
    time = row.time or row.eventTimestamp or row.TimeGenerated
    resources = _base.unique((row.resourceId, row.resourceUri))
    main = resources[0] if resources else ""
    if row.eventDataId:
        entity = row.eventDataId
    elif row.correlationId:
        entity = f"{row.correlationId} {operation} {main}".lower()
    else:
        entity = _base.body_hash(raw)
    version = f"{status} {time.isoformat() if time else ''}"
    said, level = facts.severity or facts.Severity or "", _text(row.level)
    is_alert = category.lower() == "security"
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=facts.title
        or facts.recommendationName
        or (properties.eventName or _word(row.eventName) if is_alert else "")
        or _localized(row.operationName)
        or operation,
        description=row.resultDescription or row.description or "",
        severity=_base.severity(said) if is_alert and said else _monitor.level(level),
        severity_original=said if is_alert and said else level,
        status=_STATUSES.get(status.lower()) or _base.status(status),
        status_original=status,
        event_ms=_base.millis(time),
        subscription_id=_base.subscription_of(main) or (row.subscriptionId or "").lower(),
        resource_ids=resources,
        resource=facts.compromisedEntity or _base.short_name(main),
        tactics=_base.words(facts.intent) if is_alert else (),
        product="Azure Activity Log",
        alert_type=operation,
        link=facts.recommendationResourceLink or "",
        raw=raw,
        repairs=(repair,) if repair and row.TimeGenerated is None else (),  # a column is text
    )


def _text(level: str | int | None) -> str:
    return "" if level is None else str(level)


def _word(said: str | None) -> str:
    """A name, also where the REST API writes `{"value": name, "localizedValue": …}`."""
    return first(folded(said), "value") if said and said[0] == "{" else said or ""


def _localized(name: str | None) -> str:
    """As the REST API and Log Analytics call an operation, for people."""
    return first(folded(name), "localizedvalue") if name and name[0] == "{" else name or ""


def details(raw: bytes) -> Details:
    fields = _plain(_values.record(raw))
    properties = folded(fields.get("properties"))
    properties |= folded(properties.get("eventproperties"))
    identity = folded(fields.get("identity"))
    authorization = folded(identity.get("authorization") or fields.get("authorization"))
    claims = folded(identity.get("claims") or fields.get("claims"))
    evidence = folded(authorization.get("evidence"))
    found = attributes(properties, _PROPERTIES) | attributes(fields, _FIELDS)
    found |= attributes(claims, _CLAIMS) | attributes(evidence, _EVIDENCE)
    caller, principal_type = first(fields, "caller"), first(evidence, "principaltype")
    return Details(
        entities=things(
            (
                *_monitor.principals(claims, caller, principal_type),
                *_mentioned(fields, properties, authorization),
                *_attacked(properties),
            )
        ),
        action=first(fields, "operationnamevalue", "operationname"),
        outcome=_monitor.outcome(first(fields, "activitystatusvalue", "resulttype", "status")),
        related=_base.unique(_related(fields, properties)),
        attributes=found,
    )


def _plain(fields: Folded) -> Folded:
    """With names as the event hub has them: the REST API says `{"value": name, …}`."""
    return {
        name: folded(value).get("value", value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }


def _mentioned(fields: Folded, properties: Folded, authorization: Folded) -> Iterator[Entity]:
    request = folded(fields.get("httprequest"))
    for text in (*texts(fields, "calleripaddress"), *texts(request, "clientipaddress")):
        yield from address(text, "source")
    for text in texts(fields, "resourceid", "resourceuri"):
        yield from resource(text, "target")
    for text in texts(properties, "entity", "ruleuri", "resourcename"):
        yield from resource(text)
    yield from resource(first(authorization, "scope"))
    for policy in map(folded, listed(properties.get("policies"))[:64]):
        for text in texts(policy, "policydefinitionid", "policyassignmentid"):
            yield from resource(text)
    body = folded(properties.get("requestbody"))
    body = folded(body.get("properties")) or body
    principal_type = first(body, "principaltype").lower()
    yield Entity(
        type="application" if principal_type == "serviceprincipal" else "user",
        id=first(body, "principalid"),  # who gets a role
        role="target",
    )
    yield from resource(first(body, "roledefinitionid"))


def _attacked(properties: Folded) -> Iterator[Entity]:
    """What an alert of Defender for Cloud tells of; its names vary with the type of alert."""
    yield process(
        first(properties, "processname"),
        command_line=first(properties, "commandline"),
        pid=first(properties, "processid"),
        parent_pid=first(properties, "parentprocess id", "parentprocessid"),
    )
    yield _entities.user(
        first(properties, "username"),
        first(properties, "domainname"),
        id=first(properties, "usersid"),
        role="target",
    )
    yield from hosts(first(properties, "compromisedentity", "compromisedhost"), "target")
    for name in list(properties)[:256]:
        if "ip" in name or "address" in name:
            yield from address(first(properties, name))


def _related(fields: Folded, properties: Folded) -> Iterator[str]:
    """The event that set off an Activity Log alert; the alert that a Security record is of."""
    yield first(properties, "eventdataid")
    main = first(fields, "resourceid")
    if "/microsoft.security/locations/" in main.lower():
        yield _base.short_name(main)


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` is `AzureActivity`; `operationName`, and a `category` of the Activity Log or"
    " `eventTimestamp`",
)
