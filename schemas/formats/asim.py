"""Microsoft Sentinel: a row of the normalized alert table, or of a table of one's own.

`asim` is a row of ASimAlertEventLogs, schema AlertEvent 0.1. Sources: "ASIM Alert schema reference"
and "ASIM common schema fields" (learn.microsoft.com, azure/sentinel/normalization-schema-alert,
normalization-common-fields); "ASimAlertEventLogs" (azure-monitor/reference/tables); where these
leave a choice, Microsoft's own parser of Defender XDR.

    EventUid, AlertId        what the alert is about, through all its updates
    EventType, EventSubType  Alert; Threat, of posture Compliance Violation
    EventSeverity            critical is High, unknown is Informational
    AlertStatus              Active, Closed        AlertVerdict   what people found it to be
    AttackTactics, AttackTechniques   names; ids    RuleName       the alert's type
    Dvc…                     the machine, else the resource; the first address
    User…, Process…, File…, Url, Registry…, Email…   the first of each
    IndicatorType            of the first entity
    AdditionalFields         event_id (stable for this version of the alert), kind, all entities,
                             attributes, resources, subscription; of a replayed alert `replay`

EventSchema, Hostname and IpAddr belong to the schema but are no columns of the table: its parser
adds them, and a data collection rule that does not declare them lets them fall. The schema is made
for alerts. Records of another nature become rows of the same shape (a log's line has no
EventSubType; EventOriginalType tells what it is): route here what shall be found among alerts.

`sentinel_row` is a row of a custom table (`…_CL`) with the columns of `COLUMNS`: what alertbeam
understood, and the record itself in RawEvent. It keeps clear of the names that are reserved. Of a
replayed alert Attributes have AlertbeamReplay, a name that no attribute can have: tables that there
are would not have a column for it.

For both, "Logs Ingestion API in Azure Monitor" and "Azure Monitor service limits": a call takes
1 MB, a field 64 KB (32 KB in Sentinel's data lake, and by the older Data Collector API), counted in
bytes of UTF-8 ("The string data type", Kusto). So fields are cut to 32 KB at a code point; lists
and objects lose their last items. Of a row that is still too long all fields are cut shorter.
TimeGenerated is the event time; where that is more than two days old the service puts the time of
arrival instead ("Standard columns in Azure Monitor Logs"). `sentinel_row` has it in EventTime too.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats._base import Format
from schemas.formats._mitre import tactic
from schemas.formats._ocsf_objects import Object, integer, said, without_blanks
from schemas.formats._records import Nature, digests, nature, preferred, rfc3339, username
from schemas.formats._sides import address, first, mac_address, sides
from schemas.formats._text import cut
from schemas.kinds import details

__all__ = ["COLUMNS", "FORMATS", "asim", "sentinel_row"]

_SEVERITIES = {"low": "Low", "medium": "Medium", "high": "High", "critical": "High"}
_STATUSES = {
    "new": "Active",
    "in_progress": "Active",
    "resolved": "Closed",
    "dismissed": "Closed",
}
_VERDICTS = {
    "truepositive": "True Positive",
    "falsepositive": "False Positive",
    "benignpositive": "Benign Positive",
    "informationalexpectedactivity": "Benign Positive",
    "undetermined": "Unknown",
    "unknown": "Unknown",
}
_SUBTYPES: dict[Nature, str] = {
    "alert": "Threat",
    "incident": "Threat",
    "state": "Compliance Violation",
}
_OUTCOMES = {"success": "Success", "failure": "Failure"}
_METHODS = (  # by a part of what a record says of its product and detector
    ("antivirus", "Antivirus"),
    ("automatedinvestigation", "Automated Investigation"),
    ("dataloss", "Data Loss Prevention"),
    ("threatintelligence", "Threat Intelligence"),
    ("scheduledalerts", "Scheduled Alerts"),
    ("edr", "EDR"),
    ("defenderforendpoint", "EDR"),
    ("advancedthreatprotection", "EDR"),
    ("defenderforidentity", "Behavioral Analytics"),
    ("protection", "Behavioral Analytics"),  # Entra ID's
    ("cloudapp", "Cloud Application Security"),
)
_INDICATORS = {
    "ip": "Ip",
    "user": "User",
    "process": "Process",
    "registry": "Registry",
    "url": "Url",
    "host": "Host",
    "device": "Host",
    "resource": "Cloud Resource",
    "application": "Application",
    "file": "File",
    "message": "Email",
    "mailbox": "Mailbox",
}
_CATEGORIES = {
    word.replace(" ", "").lower(): word
    for word in (
        *("Malware", "Ransomware", "Trojan", "Virus", "Worm", "Adware", "Spyware", "Rootkit"),
        *("Cryptominor", "Phishing", "Spam", "MaliciousUrl", "Spoofing"),  # [sic]
        "Security Policy Violation",
    )
}
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SID = re.compile(r"S-1-\d[\d-]*", re.IGNORECASE)
_MDE = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)

_FIELD = 32 * 1024  # bytes
_ROW = 1_000_000
_SHORTER = (_FIELD, 8_000, 2_000, 500)  # at the last any row is short enough
_encode = msgspec.json.Encoder().encode

COLUMNS = {
    "TimeGenerated": "datetime",
    "EventTime": "datetime",
    "EnqueuedTime": "datetime",
    "StartTime": "datetime",
    "EndTime": "datetime",
    "EventId": "string",
    "Kind": "string",
    "Nature": "string",
    "EntityId": "string",
    "Version": "string",
    "AlertName": "string",
    "AlertType": "string",
    "Description": "string",
    "Severity": "string",
    "SeverityOriginal": "string",
    "Status": "string",
    "StatusOriginal": "string",
    "Vendor": "string",
    "Product": "string",
    "AlertLink": "string",
    "Tactics": "dynamic",
    "Techniques": "dynamic",
    "SubscriptionId": "string",
    "SubscriptionName": "string",
    "SubscriptionOwner": "string",
    "SubscriptionEnvironment": "string",
    "ManagementGroup": "string",
    "SubscriptionTags": "dynamic",
    "ResourceName": "string",
    "ResourceIds": "dynamic",
    "Hosts": "dynamic",
    "Users": "dynamic",
    "IpAddresses": "dynamic",
    "Urls": "dynamic",
    "Hashes": "dynamic",
    "Entities": "dynamic",
    "Action": "string",
    "Outcome": "string",
    "RelatedIds": "dynamic",
    "Attributes": "dynamic",
    "RawEvent": "string",
    "RawEventBytes": "int",
}
"""The columns of `sentinel_row`, for the table and the stream of a data collection rule. What is
empty is left out of a row. RawEventBytes is how long the record was before it was cut."""


def asim(alert: Alert) -> bytes:
    """The alert as one JSON object of at most 1 MB."""
    found = details(alert)
    seen = found.attributes.get
    what = nature(alert, found)
    start = alert.start_ms or alert.event_ms
    uid = alert.entity
    message = alert.description or alert.title
    rule = alert.alert_type if what in ("alert", "state") else seen("rule", "")
    verdict = seen("classification", "").replace(" ", "").lower()
    fields: Object = {
        "TimeGenerated": rfc3339(alert.event_ms),
        "EventCount": 1,
        "EventStartTime": rfc3339(start),
        "EventEndTime": rfc3339(max(alert.end_ms, start)),
        "EventType": "Alert",
        "EventSubType": _SUBTYPES.get(what),
        "EventResult": _OUTCOMES.get(found.outcome, "NA"),
        "EventSeverity": _SEVERITIES.get(alert.severity, "Informational"),
        "EventOriginalSeverity": alert.severity_original,
        "EventOriginalType": alert.alert_type or alert.kind,
        "EventOriginalSubType": found.action,
        "EventResultDetails": seen("reason"),
        "EventUid": uid,
        "EventMessage": message,
        "EventProduct": alert.product or alert.kind,
        "EventVendor": alert.vendor or "Unknown",
        "EventSchema": "AlertEvent",
        "EventSchemaVersion": "0.1",
        "EventReportUrl": alert.link,
        "EventOwner": alert.subscription.owner if alert.subscription else "",
        "AlertId": uid,
        "AlertName": alert.title,
        "AlertDescription": message,
        "AlertStatus": _STATUSES.get(alert.status),
        "AlertOriginalStatus": alert.status_original,
        "AlertVerdict": _VERDICTS.get(verdict),
        "AttackTactics": ", ".join(tactic(word)[1] for word in alert.tactics if word),
        "AttackTechniques": ", ".join(filter(None, alert.techniques)),
        "AttackRemediationSteps": seen("remediation"),
        "DetectionMethod": _method(alert, found, what),
        "Rule": rule,
        "RuleName": rule,
        **_threat(found),
        **_indicator(found),
        **_device(alert, found),
        **_user(found),
        **_things(found),
        "AdditionalFields": _additional(alert, found),
    }
    return _row(fields)


def _method(alert: Alert, found: Details, what: Nature) -> str:
    """Only where the record tells it."""
    if what == "state":
        return "Cloud Security Posture Management"
    if what == "event":
        return ""
    seen = found.attributes.get
    told = f"{seen('detection_source', '')} {seen('component', '')} {alert.product}"
    told = told.replace(" ", "").lower()
    return next((method for word, method in _METHODS if word in told), "")


def _threat(found: Details) -> Object:
    seen = found.attributes.get
    malware = first(found.entities, "malware")
    word = said(malware, "category") or seen("category", "")
    score = integer(seen("confidence_score", ""), 100)
    made = without_blanks(
        ThreatId=malware.id,
        ThreatName=malware.name or seen("threat"),
        ThreatCategory=_CATEGORIES.get(word.replace(" ", "").lower())
        or ("Malware" if malware.name else ""),
        ThreatOriginalCategory=word,
        ThreatOriginalConfidence=seen("confidence"),
        ThreatOriginalRiskLevel=seen("risk_level"),
    )
    if score is not None:
        made["ThreatConfidence"] = score
    return made


def _indicator(found: Details) -> Object:
    one = next((it for it in found.entities if it.type in _INDICATORS), None)
    if one is None:
        return {}
    return {
        "IndicatorType": _INDICATORS[one.type],
        "IndicatorAssociation": "Targeted" if one.role == "target" else "Associated",
    }


def _device(alert: Alert, found: Details) -> Object:
    seen = found.attributes.get
    entity = preferred(found, ("host", "device"), "target", "", "actor", "source")
    known = alert.subscription
    made: Object = {
        "DvcScopeId": alert.subscription_id,
        "DvcScope": known.name if known else "",
        "DvcZone": seen("zone"),
    }
    number = first(sides(found)[1], "ip").name or first(found.entities, "ip").name
    uid = entity.id if entity else ""
    if entity:
        number = said(entity, "ipaddress", "ip", "lastipaddress") or number
        made |= {
            "DvcHostname": entity.name,
            "Hostname": entity.name,
            "DvcDomain": entity.domain,
            "DvcDomainType": entity.domain and ("FQDN" if "." in entity.domain else "Windows"),
            "DvcFQDN": entity.full_name if "." in entity.full_name else "",
            "DvcMacAddr": mac_address(entity).upper(),
            "DvcOs": said(entity, "osfamily", "osplatform", "operatingsystem", "os"),
            "DvcOsVersion": said(entity, "osversion", "version"),
        }
    elif alert.resource:
        made["DvcDescription"] = alert.resource
    uid = uid or (alert.resource_ids[0] if alert.resource_ids else "")
    if uid:
        made |= {"DvcId": uid, "DvcIdType": _id_type(uid, entity)}
    if ip := address(number)[1]:
        made |= {"DvcIpAddr": ip, "IpAddr": ip}
    return made


def _id_type(uid: str, entity: Entity | None) -> str:
    if uid[:15].lower() == "/subscriptions/":
        return "AzureResourceId"
    if entity and entity.type == "device":
        return "MD4IoTid"
    return "MDEid" if _MDE.fullmatch(uid) else "Other"


def _user(found: Details) -> Object:
    entity = preferred(found, ("user", "mailbox"), "actor", "", "target", "source")
    if entity is None:
        return {}
    seen = found.attributes.get
    made: Object = {"UserScopeId": seen("tenant_id"), "UserSessionId": seen("session_id")}
    if uid := entity.id:
        kind = "GUID" if _GUID.fullmatch(uid) else "SID" if _SID.fullmatch(uid) else "Other"
        made |= {"UserId": uid, "UserIdType": kind}
    if entity.name:
        name = entity.full_name
        kind = "UPN" if "@" in name else "Windows" if "\\" in name else "Simple"
        made |= {"Username": name, "User": name, "UsernameType": kind}
    return made


def _things(found: Details) -> Object:
    process = preferred(found, ("process",), "target", "actor", "source", "")
    file = preferred(found, ("file",), "target", "", "source", "actor")
    registry = first(found.entities, "registry")
    message = first(found.entities, "message")
    made: Object = {
        "Url": first(found.entities, "url").name,
        "RegistryKey": registry.path,
        "RegistryValue": registry.name,
        "RegistryValueData": said(
            registry, "registryvalue", "value", "registryvaluedata", "valuedata", "data"
        ),
        "RegistryValueType": said(registry, "valuetype", "registryvaluetype"),
        "EmailMessageId": message.id,
        "EmailSubject": message.name,
    }
    if process:
        number = integer(process.pid)
        made |= {
            "ProcessId": process.pid if number is None else str(number),
            "ProcessName": process.full_name,
            "ProcessCommandLine": process.command_line,
            "ProcessFileCompany": said(process, "versioninfocompanyname", "publisher"),
        }
    if known := file or process:
        hashes = digests(known)
        made |= {
            "FileSHA1": hashes.get("sha1"),
            "FileSHA256": hashes.get("sha256"),
            "FileMD5": hashes.get("md5"),
        }
    if file:
        made |= {
            "FileName": file.name,
            "FilePath": file.full_name if file.path else "",
            "FileSize": said(file, "filesize", "sizeinbytes"),  # the table's column is a string
        }
    return made


def _additional(alert: Alert, found: Details) -> Object:
    known = alert.subscription
    return without_blanks(
        event_id=alert.event_id,
        replay=alert.replay,
        kind=alert.kind,
        version=alert.version,
        resource_ids=list(filter(None, alert.resource_ids)),
        related=list(found.related),
        subscription=known
        and without_blanks(
            owner=known.owner,
            environment=known.environment,
            management_group=known.management_group,
            tags=known.tags,
        ),
        attributes=found.attributes,
        entities=[_entity(it) for it in found.entities],
    )


def _entity(entity: Entity) -> Object:
    return without_blanks(
        type=entity.type,
        name=entity.full_name,
        id=entity.id,
        role=entity.role,
        command_line=entity.command_line,
        pid=entity.pid,
        port=entity.port,
        hashes=list(entity.hashes),
        attributes=entity.attributes,
    )


def sentinel_row(alert: Alert) -> bytes:
    """The alert as one JSON object of at most 1 MB."""
    found = details(alert)
    mark = {"AlertbeamReplay": alert.replay} if alert.replay else {}
    known = alert.subscription
    time = rfc3339(alert.event_ms)
    fields: Object = {
        "TimeGenerated": time,
        "EventTime": time,
        "EnqueuedTime": rfc3339(alert.enqueued_ms),
        "StartTime": rfc3339(alert.start_ms),
        "EndTime": rfc3339(alert.end_ms),
        "EventId": alert.event_id,
        "Kind": alert.kind,
        "Nature": nature(alert, found),
        "EntityId": alert.entity,
        "Version": alert.version,
        "AlertName": alert.title,
        "AlertType": alert.alert_type,
        "Description": alert.description,
        "Severity": alert.severity,
        "SeverityOriginal": alert.severity_original,
        "Status": alert.status,
        "StatusOriginal": alert.status_original,
        "Vendor": alert.vendor,
        "Product": alert.product,
        "AlertLink": alert.link,
        "Tactics": list(alert.tactics),
        "Techniques": list(alert.techniques),
        "SubscriptionId": alert.subscription_id,
        "ResourceName": alert.resource,
        "ResourceIds": list(alert.resource_ids),
        "Hosts": list(found.hosts),
        "Users": list(dict.fromkeys(username(it) for it in found.of("user", "mailbox"))),
        "IpAddresses": list(found.ips),
        "Urls": list(found.urls),
        "Hashes": list(found.hashes),
        "Entities": [_entity(it) for it in found.entities],
        "Action": found.action,
        "Outcome": found.outcome,
        "RelatedIds": list(found.related),
        "Attributes": mark | found.attributes if mark else found.attributes,
        "RawEvent": alert.raw.decode("utf-8", "replace"),
        "RawEventBytes": len(alert.raw),
    }
    if known:
        fields |= {
            "SubscriptionName": known.name,
            "SubscriptionOwner": known.owner,
            "SubscriptionEnvironment": known.environment,
            "ManagementGroup": known.management_group,
            "SubscriptionTags": known.tags,
        }
    return _row(fields)


# Shortening.


def _row(fields: Object) -> bytes:
    """Without blanks; each field, and the whole, within the limits of the service."""
    kept = {name: value for name, value in fields.items() if value}
    row = _encode(kept)
    if len(row) <= _FIELD:  # then no field is longer
        return row
    for most in _SHORTER:
        row = _encode({name: _shortened(value, most) for name, value in kept.items()})
        if len(row) <= _ROW:
            break
    return row


def _shortened(value: Any, most: int) -> Any:
    """A value of at most so many bytes: text is cut; of lists and objects the first items stay, in
    an object the value that does not fit is shortened itself."""
    if isinstance(value, str):
        return cut(value, most) if len(value) * 4 > most else value
    if isinstance(value, (int, float)) or len(_encode(value)) <= most:
        return value
    room = most - 2  # its brackets
    if isinstance(value, list):
        items = []
        for item in value:
            room -= len(_encode(item)) + 1
            if room < 0:
                break
            items.append(item)
        return items
    made = {}
    for name, inner in value.items():
        left = room - len(_encode(name)) - 2
        # In JSON a character may take six bytes.
        kept = _shortened(inner, left // 6 if isinstance(inner, str) else left)
        size = len(_encode(kept))
        if size <= left:
            made[name] = kept
            room = left - size
    return made


_LIMITS = (
    "fields are cut to 32 KB of UTF-8, lists and objects lose their last items; of a row that is "
    "still longer than 1 MB all fields are cut shorter"
)
FORMATS = (
    Format(
        "asim",
        asim,
        media_type="application/json",
        standard="Microsoft Sentinel: ASIM AlertEvent schema 0.1, table ASimAlertEventLogs",
        drops="the record itself and what else only it holds",
        shortens=_LIMITS,
        max_bytes=_ROW,
    ),
    Format(
        "sentinel_row",
        sentinel_row,
        media_type="application/json",
        standard="Azure Monitor: Logs Ingestion API (2023-01-01); the columns are our own",
        drops="of a record over 32 KB what is cut off; RawEventBytes tells",
        shortens=_LIMITS,
        max_bytes=_ROW,
    ),
)
