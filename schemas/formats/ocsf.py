"""Open Cybersecurity Schema Framework, version 1.5.0: each alert as an event of the fitting class.

Source: schema.ocsf.io/1.5.0, with its extension `win`. This version, for it is what py-ocsf-models
and the readers of AWS Security Hub's findings know; later 1.x versions only add to it, so their
readers take it too.

What every event has: `metadata.uid` is the event id, stable for this version of the alert; `time`,
`metadata.logged_time` (enqueued) and all others are epoch milliseconds; `raw_data` is the alert's
record, whole; `unmapped` are the facts of `schemas.entities.Details.attributes`, and a severity's
and status's original words; a replayed alert has the label `replay:NAME` among `metadata.labels`.
Beside an id of 99 stands the record's own word; 0 is for what it does not say. `observables` name
where a value stands: in `raw_data` if the class has no other place.
`cloud.account` is the subscription, whose `type_id` is 99, since 13 (Azure Subscription) is unknown
to readers of versions before 1.4; what is known of it is an enrichment.

Of a finding, the machines that something was done to are among `resources`, the first is `device`;
all else is in `evidences`. Where a class requires what a record lacks (a process's id, an actor)
the event is of the next class that fits, at last a Base Event.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._base import Format
from schemas.formats._ocsf_actions import (
    acted,
    called,
    directory,
    flow,
    of_table,
    requested,
    signed_in,
)
from schemas.formats._ocsf_activities import unclassed
from schemas.formats._ocsf_classes import CATEGORIES, Event
from schemas.formats._ocsf_findings import (
    alerted,
    at_risk,
    compliance,
    detection,
    incident,
    secured,
    serious,
    vulnerability,
)
from schemas.formats._ocsf_objects import Object, attacks, named, observables
from schemas.kinds import details

__all__ = ["CLASSES", "FORMATS", "VERSION", "event", "ocsf"]

VERSION = "1.5.0"

Maker = Callable[[Alert, Details], Event | None]

CLASSES: dict[str, tuple[Maker, ...]] = {
    **dict.fromkeys(
        (
            *("defender_alert", "security_alert", "iot_alert", "arm_alert", "graph_alert_v1"),
            *("graph_alert", "attack_path"),
        ),
        (detection,),
    ),
    **dict.fromkeys(("security_incident", "arm_incident", "graph_incident"), (incident,)),
    **dict.fromkeys(("assessment", "regulatory_compliance", "secure_score"), (compliance,)),
    "sub_assessment": (vulnerability, compliance),
    **dict.fromkeys(("entra_log", "graph_entra"), (at_risk, signed_in, acted, directory, called)),
    "activity_log": (secured, called),
    "resource_log": (requested, flow, called),
    "office_activity": (alerted, acted, directory, called),
    **dict.fromkeys(
        ("security_event", "windows_event", "windows_xml", "syslog", "syslog_line"), (acted,)
    ),
    "xdr": (alerted, acted, of_table),
    "common_security_log": (serious, flow),
    **dict.fromkeys(("log_analytics", "unknown"), ()),
}
"""By kind the classes that its records may be of, the first that fits; after them Base Event. A
kind that is not here is a Detection Finding if its record has a severity and a title."""

_SEVERITIES = {
    "informational": (1, "Informational"),
    "low": (2, "Low"),
    "medium": (3, "Medium"),
    "high": (4, "High"),
    "critical": (5, "Critical"),
}
_OUTCOMES = {"success": (1, "Success"), "failure": (2, "Failure")}
_EPOCH = datetime(1970, 1, 1)
_FINDINGS = 2
_OF_EXTENSIONS = 100_000
_encode = msgspec.json.Encoder().encode


def ocsf(alert: Alert) -> bytes:
    """The alert as one JSON object."""
    return _encode(event(alert, details(alert)))


def event(alert: Alert, found: Details) -> Object:
    """An alert, and what it mentions, as an event; its parts may be shared: not to be changed."""
    said = _of_class(alert, found)
    cls, activity = said.cls, said.activity
    if 0 < activity <= len(cls.activities):
        caption = activity_name = cls.activities[activity - 1]
    else:
        caption = "Other" if activity else "Unknown"
        activity_name = (found.action if activity else "") or caption
    profiles = [*said.profiles]
    made: Object = {
        "category_uid": (category := cls.uid // 1000 % 100),
        "category_name": CATEGORIES[category],
        "class_uid": cls.uid,
        "class_name": cls.name,
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": cls.uid * 100 + activity,
        "type_name": f"{cls.name}: {caption}",
        "time": alert.event_ms,
        **named("severity", _SEVERITIES.get(alert.severity), alert.severity_original),
        **named("status", _OUTCOMES.get(found.outcome), alert.status_original),
        "metadata": _metadata(alert, found, profiles),
    }
    attributes = found.attributes
    if reason := attributes.get("reason"):
        made["status_detail"] = reason
    if message := alert.title or alert.description:
        made["message"] = message
    if alert.start_ms:
        made["start_time"] = alert.start_ms
    if alert.end_ms:
        made["end_time"] = alert.end_ms
    if cls.uid > _OF_EXTENSIONS:
        made["metadata"]["extensions"] = [{"name": "win", "uid": "2", "version": VERSION}]
    if cloud := _cloud(alert, found):
        made["cloud"] = cloud
        profiles.append("cloud")
    if category != _FINDINGS and (techniques := attacks(alert)):
        made["attacks"] = techniques
        profiles.append("security_control")
    made |= said.body
    if seen := observables(made, found):
        made["observables"] = seen
    if enrichments := _enrichments(alert):
        made["enrichments"] = enrichments
    if unmapped := _unmapped(alert, found, made):
        made["unmapped"] = unmapped
    if alert.raw:
        made["raw_data"] = alert.raw.decode("utf-8", "replace")
        made["raw_data_size"] = len(alert.raw)
    return made


def _of_class(alert: Alert, found: Details) -> Event:
    makers = CLASSES.get(alert.kind)
    if makers is None:
        finding = alert.title and alert.severity != "unknown"
        makers = (detection,) if finding else ()
    for maker in makers:
        if said := maker(alert, found):
            return said
    return unclassed(found)


def _metadata(alert: Alert, found: Details, profiles: list[str]) -> Object:
    """With the list of profiles, which may grow."""
    attributes = found.attributes
    product = {"name": alert.product or alert.kind, "vendor_name": alert.vendor or "Unknown"}
    made: Object = {
        "version": VERSION,
        "uid": alert.event_id,
        "product": product,
        "profiles": profiles,
        "log_name": attributes.get("table") or attributes.get("channel") or alert.kind,
    }
    number = attributes.get("event_id", "")
    if code := (number if number.isdigit() else "") or found.action or alert.alert_type:
        made["event_code"] = code
    if alert.event_ms and alert.event_ms != alert.enqueued_ms:
        made["original_time"] = _iso(alert.event_ms)
    if alert.enqueued_ms:
        made["logged_time"] = alert.enqueued_ms
    if uid := attributes.get("correlation_id"):
        made["correlation_uid"] = uid
    if uid := attributes.get("tenant_id"):
        made["tenant_uid"] = uid
    if labels := attributes.get("labels"):
        made["labels"] = labels.split(", ")
    if alert.replay:
        made["labels"] = [*made.get("labels", ()), f"replay:{alert.replay}"]
    return made


def _iso(millis: int) -> str:
    return (_EPOCH + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds") + "Z"


def _cloud(alert: Alert, found: Details) -> Object | None:
    """Of a record that names a subscription, a tenant or a cloud."""
    cloud, tenant = found.attributes.get("cloud", ""), found.attributes.get("tenant_id", "")
    made: Object = {"provider": cloud if cloud in ("AWS", "GCP") else "Azure"}
    if uid := alert.subscription_id:
        known = alert.subscription
        made["account"] = {
            "uid": uid,
            "name": (known.name if known else "") or uid,
            "type_id": 99,
            "type": "Azure Subscription",
        }
    if tenant:
        made["org"] = {"uid": tenant}
    return made if len(made) > 1 or cloud else None


def _enrichments(alert: Alert) -> list[Object]:
    known = alert.subscription
    if known is None or not known.known:
        return []
    data = {
        "name": known.name,
        "owner": known.owner,
        "environment": known.environment,
        "management_group": known.management_group,
        "tags": known.tags,
    }
    return [
        {
            "name": "cloud.account.uid",
            "value": known.id,
            "type": "subscription",
            "data": {name: value for name, value in data.items() if value},
        }
    ]


def _unmapped(alert: Alert, found: Details, made: Object) -> Object:
    unmapped: Object = dict(found.attributes)
    for name, word in (("severity", alert.severity_original), ("status", alert.status_original)):
        if word and word.lower() != made[name].lower():
            unmapped[name] = word
    return unmapped


FORMATS = (
    Format(
        "ocsf",
        ocsf,
        media_type="application/json",
        standard="OCSF 1.5.0 (schema.ocsf.io), with its extension win 1.5.0",
        drops="nothing: raw_data is the record",
        shortens="never",
    ),
)
