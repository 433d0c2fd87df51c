"""Findings of OCSF 1.5.0: what Defender, Sentinel and their like concluded."""

from __future__ import annotations

import re

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats._ocsf_classes import COMPLIANCE, DETECTION, INCIDENT, VULNERABILITY, Event
from schemas.formats._ocsf_objects import (
    Object,
    attacks,
    device,
    email_address,
    evidence,
    integer,
    named,
    resource,
    without_blanks,
)

__all__ = [
    "alerted",
    "at_risk",
    "compliance",
    "detection",
    "incident",
    "secured",
    "serious",
    "vulnerability",
]

_PROTECTION = "Microsoft Entra ID Protection"
_CVE = re.compile(r"CVE-\d{4}-\d{4,}", re.IGNORECASE)
_CREATE, _UPDATE, _CLOSE = 1, 2, 3
_ACTIVITIES = {
    "new": _CREATE,
    "in_progress": _UPDATE,
    "resolved": _CLOSE,
    "dismissed": _CLOSE,
}
_STATUSES = {
    "new": (1, "New"),
    "in_progress": (2, "In Progress"),
    "dismissed": (3, "Suppressed"),
    "resolved": (4, "Resolved"),
}
_INCIDENT_STATUSES = _STATUSES | {"dismissed": (5, "Closed")}
_VERDICTS = {
    "falsepositive": (1, "False Positive"),
    "truepositive": (2, "True Positive"),
    "benignpositive": (5, "Benign"),
    "informationalexpectedactivity": (5, "Benign"),
    "unknown": (0, "Unknown"),
    "undetermined": (0, "Unknown"),
}
_RESULTS = {
    "healthy": (1, "Pass"),
    "passed": (1, "Pass"),
    "unhealthy": (3, "Fail"),
    "failed": (3, "Fail"),
}
_CONFIDENCES = {"low": (1, "Low"), "medium": (2, "Medium"), "high": (3, "High")}
_GRADES = {**_CONFIDENCES, "critical": (4, "Critical")}


def detection(alert: Alert, found: Details) -> Event:
    body = _finding(alert, found) | {"is_alert": True}
    artifacts = [
        made
        for entity in found.entities
        if entity.type not in ("resource", "malware")
        and not _affected(entity)
        and (made := evidence(entity))
    ]
    if artifacts:
        body["evidences"] = artifacts
    malware = [it.name or it.id for it in found.of("malware")]
    if malware:
        body["malware"] = [{"name": name, "classification_ids": [0]} for name in malware]
    host = next(filter(_affected, found.entities), None)
    if host and (where := device(host)):
        body["device"] = where
    body |= _remediation(found)
    word = found.attributes.get("risk_level", "")
    if known := _GRADES.get(word.lower()):
        body["risk_level_id"], body["risk_level"] = known
    judged = _judgement(found)
    body |= judged
    return Event(DETECTION, _activity(alert), body, ("incident",) if judged else ())


def alerted(alert: Alert, found: Details) -> Event | None:
    """A record that is an alert among others that are none: it has a severity."""
    return detection(alert, found) if alert.title and alert.severity != "unknown" else None


def serious(alert: Alert, found: Details) -> Event | None:
    """Of records that all have a severity, those at the upper end."""
    return detection(alert, found) if alert.severity in ("high", "critical") else None


def secured(alert: Alert, found: Details) -> Event | None:
    """An alert of Defender for Cloud, as the Activity Log notes it."""
    security = found.attributes.get("category", "").lower() == "security"
    return detection(alert, found) if security else None


def at_risk(alert: Alert, found: Details) -> Event | None:
    """What Entra ID Protection detected, or says of a user."""
    return detection(alert, found) if alert.product == _PROTECTION else None


def incident(alert: Alert, found: Details) -> Event:
    """The schema wants an assignee: an incident that is nobody's is the group Unassigned's."""
    info = _info(alert, found)
    body = {
        "finding_info_list": [info],
        "assignee_group": {"name": "Unassigned"},
        **_status(alert, _INCIDENT_STATUSES),
        **_judgement(found),
    }
    if "assignee" in body:
        del body["assignee_group"]
    if alert.description:
        body["desc"] = alert.description
    if alert.link:
        body["src_url"] = alert.link
    if techniques := info.get("attacks"):
        body["attacks"] = techniques
    if priority := _GRADES.get(alert.severity):
        body["priority_id"], body["priority"] = priority
    return Event(INCIDENT, _activity(alert), body)


def compliance(alert: Alert, found: Details) -> Event:
    body = _finding(alert, found)
    attributes = found.attributes
    body["compliance"] = without_blanks(
        control=attributes.get("control") or alert.title,
        standards=[name] if (name := attributes.get("standard")) else None,
        category=attributes.get("category"),
        desc=alert.description,
        status_details=[cause] if (cause := attributes.get("cause")) else None,
    ) | named("status", _RESULTS.get(alert.status_original.lower()), alert.status_original)
    return Event(COMPLIANCE, _activity(alert), body | _remediation(found))


def vulnerability(alert: Alert, found: Details) -> Event | None:
    """A finding that names CVEs; of any other (a baseline's rule) nothing."""
    attributes = found.attributes
    named = [name.strip() for name in attributes.get("cve", "").split(",")]
    known = [name for name in named if _CVE.fullmatch(name)]
    if not known:
        return None
    shared: Object = _remediation(found) | without_blanks(
        title=alert.title, desc=alert.description, severity=alert.severity_original
    )
    if attributes.get("package") and attributes.get("package_version"):
        shared["affected_packages"] = [
            without_blanks(
                name=attributes["package"],
                version=attributes["package_version"],
                fixed_in_version=attributes.get("fixed_version"),
            )
        ]
    body = _finding(alert, found)
    body["vulnerabilities"] = [{"cve": {"uid": name.upper()}, **shared} for name in known]
    return Event(VULNERABILITY, _activity(alert), body)


def _finding(alert: Alert, found: Details) -> Object:
    body: Object = {"finding_info": _info(alert, found), **_status(alert, _STATUSES)}
    if resources := _resources(alert, found):
        body["resources"] = resources
    if word := found.attributes.get("confidence", ""):
        body |= named("confidence", _CONFIDENCES.get(word.lower()), word)
    score = integer(found.attributes.get("confidence_score", ""))
    if score is not None:
        body["confidence_score"] = score
    return body


def _remediation(found: Details) -> Object:
    text = found.attributes.get("remediation")
    return {"remediation": {"desc": text}} if text else {}


def _activity(alert: Alert) -> int:
    return _ACTIVITIES.get(alert.status, _CREATE)


def _status(alert: Alert, statuses: dict[str, tuple[int, str]]) -> Object:
    return named("status", statuses.get(alert.status), alert.status_original)


def _info(alert: Alert, found: Details) -> Object:
    info: Object = {
        "uid": alert.entity,
        "title": alert.title or alert.alert_type or alert.kind,
        "product": {
            "name": alert.product or alert.kind,
            "vendor_name": alert.vendor or "Unknown",
        },
    }
    if alert.description:
        info["desc"] = alert.description
    if alert.alert_type:
        info["types"] = [alert.alert_type]
        info["analytic"] = {
            "uid": alert.alert_type,
            "name": alert.alert_type,
            "type_id": 0,
            "type": "Unknown",
        }
    if alert.event_ms:
        created = _activity(alert) == _CREATE
        info["created_time" if created else "modified_time"] = alert.event_ms
    if alert.start_ms:
        info["first_seen_time"] = alert.start_ms
    if alert.end_ms:
        info["last_seen_time"] = alert.end_ms
    if techniques := attacks(alert):
        info["attacks"] = techniques
    if alert.link:
        info["src_url"] = alert.link
    if found.related:
        info["related_events"] = [{"uid": uid} for uid in found.related]
        info["related_events_count"] = len(found.related)
    return info


def _affected(entity: Entity) -> bool:
    return entity.type in ("host", "device") and entity.role not in ("actor", "source")


def _resources(alert: Alert, found: Details) -> list[Object]:
    """The resources, and the machines that something was done to; each once."""
    made: dict[str, Object] = {}
    places: dict[str, str] = {}
    for uid in alert.resource_ids:
        if it := resource(uid):
            made[uid.lower()] = it
            places.setdefault(it["name"].lower(), uid.lower())
    for entity in found.entities:
        if entity.type == "resource":
            if it := resource(entity.name, entity.id):
                made.setdefault(it["uid"].lower(), it)
        elif _affected(entity):
            name = entity.full_name
            place = entity.id.lower()
            if place not in made:
                place = places.get(entity.name.lower(), place or name.lower())
            if it := made.get(place) or resource(name, entity.id):
                named = name and entity.type == "host"
                made[place] = {**it, "hostname": name} if named else it
    if not made and (it := resource(alert.resource)):
        return [it]
    return list(made.values())


def _judgement(found: Details) -> Object:
    """Whose it is, and what people found it to be: of the profile `incident`."""
    body: Object = {}
    if word := found.attributes.get("classification", ""):
        known = _VERDICTS.get(word.replace(" ", "").lower())
        body |= named("verdict", known, word)
    if owner := found.attributes.get("owner", ""):
        body["assignee"] = without_blanks(name=owner, email_addr=email_address(owner))
    return body
