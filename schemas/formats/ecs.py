"""Elastic Common Schema, version 8.17: each alert as one document.

Source: "ECS field reference" and "ECS categorization fields" (elastic.co/docs/reference/ecs); where
a field can hold several things, what Elastic's own integrations (microsoft_defender_cloud,
microsoft_sentinel, m365_defender, azure, o365, windows, system) put there, since dashboards search
by it. All fields but those of the last four lines are ECS's; they are the same in 9.4.

    @timestamp; event.start, .end, .created      event, activity and enqueued times
    event.kind      `alert` for alerts and incidents, `state` for posture, `event` for all else
    event.id        what it is about: the alert's or incident's own id
    event.category, .type      by the record's OCSF class      event.action, .outcome
    event.severity  21 low and informational, 47 medium, 73 high, 99 critical
    event.code      the number of a Windows event; an alert's type
    event.dataset, .module     of the integration that reads such records
    event.provider, .reason, .url, .original     the last is the record as it came
    message         description, else title
    rule            title and type of what was found
    threat          tactics, techniques, activity group
    host            the machine that it happened on
    user, user.target          who did it, and whom it was done to; if nobody did: whom it concerns
    source, destination        the first address, machine or domain of each side
    process, process.parent, file, url, registry, email, group, network, http, user_agent,
    vulnerability, package     the first of each
    related         all addresses, names of machines and accounts, hashes
    observer        vendor, product, OT sensor or firewall
    cloud, organization        subscription, virtual machine, region; tenant
    labels                     the name of the replay, if the alert was replayed
    microsoft       kind, event_id (stable for this version of the alert), severity and status in
                    the record's own words, what is known of the subscription
    azure           resource, tenant_id, subscription_id, correlation_id, as the azure integration
    result, resource           of posture: the evaluation (passed, failed), and of what

An address that is none stays out of fields of the type `ip`, for Elasticsearch would refuse the
document. There is no `data_stream`: which index a document goes to is the sink's to say.
"""

from __future__ import annotations

import functools
import re

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.formats._base import Format
from schemas.formats._mitre import tactic
from schemas.formats._ocsf_objects import (
    Object,
    email_address,
    integer,
    resource,
    said,
    without_blanks,
)
from schemas.formats._records import Nature, digests, nature, preferred, rfc3339, username
from schemas.formats._sides import address, first, mac_address, sides
from schemas.formats.ocsf import CLASSES
from schemas.kinds import details

__all__ = ["FORMATS", "VERSION", "ecs"]

VERSION = "8.17.0"

_SEVERITIES = {"informational": 21, "low": 21, "medium": 47, "high": 73, "critical": 99}
_DATASETS = {
    **dict.fromkeys(
        ("defender_alert", "arm_alert", "secure_score", "regulatory_compliance", "attack_path"),
        "microsoft_defender_cloud.event",
    ),
    **dict.fromkeys(("assessment", "sub_assessment"), "microsoft_defender_cloud.assessment"),
    **dict.fromkeys(("security_alert", "iot_alert"), "microsoft_sentinel.event"),
    **dict.fromkeys(("security_incident", "arm_incident"), "microsoft_sentinel.incident"),
    **dict.fromkeys(("graph_alert", "graph_alert_v1"), "m365_defender.alert"),
    "graph_incident": "m365_defender.incident",
    "xdr": "m365_defender.event",
    "activity_log": "azure.activitylogs",
    "resource_log": "azure.platformlogs",
    "office_activity": "o365.audit",
    "common_security_log": "cef.log",
}
_CHANNELS = {
    "security": "system.security",
    "application": "system.application",
    "system": "system.system",
    "microsoft-windows-sysmon/operational": "windows.sysmon_operational",
    "microsoft-windows-powershell/operational": "windows.powershell_operational",
}
_ENTRA_KINDS = ("entra_log", "graph_entra")  # their protocols are those of authentication
_ENTRA = (  # by a part of the category
    ("signin", "azure.signinlogs"),
    ("risk", "azure.identity_protection"),
    ("provisioning", "azure.provisioning"),
    ("graphactivity", "azure.graphactivitylogs"),
)
# OCSF class → category, further types, type by activity from 1 on, type of any other activity.
_CATEGORIES: dict[int, tuple[str, tuple[str, ...], tuple[str, ...], str]] = {
    1001: (
        "file",
        (),
        (
            *("creation", "access", "change", "deletion", "change", "change", "change", "access"),
            *("access", "change", "change", "access", "access", "access"),
        ),
        "info",
    ),
    1005: ("library", (), ("start",), "start"),
    1007: ("process", (), ("start", "end", "access", "change", "change"), "info"),
    1008: ("configuration", (), ("deletion", "deletion", "access"), "change"),
    3001: ("iam", ("user",), ("creation", *["change"] * 4, "deletion"), "change"),
    3002: ("authentication", (), ("start", "end", "start", "start", "start", "start"), "info"),
    3004: ("iam", ("admin",), ("creation", "info", "change", "deletion"), "change"),
    3005: ("iam", ("admin",), (), "change"),
    3006: ("iam", ("group",), (*["change"] * 4, "deletion", "creation"), "change"),
    4001: (
        "network",
        ("connection",),
        ("start", "end", "end", "info", "denied", "info", "start"),
        "info",
    ),
    4002: ("web", (), (), "access"),
    4009: ("email", (), (), "info"),
    5001: ("host", (), (), "info"),
    6003: ("api", (), ("creation", "access", "change", "deletion"), "info"),
    201001: ("registry", (), ("creation", "access", "change", "deletion"), "change"),
    201002: ("registry", (), ("access", "change", "change", "deletion"), "change"),
}
_TABLES = (  # Defender XDR's, by how they begin, for rows that no class fits
    ("alertevidence", "threat", "indicator"),
    ("devicefile", "file", "info"),
    ("deviceprocess", "process", "info"),
    ("devicenetworkevents", "network", "info"),
    ("devicelogon", "authentication", "info"),
    ("deviceregistry", "registry", "change"),
    ("deviceimageload", "library", "start"),
    ("devicetvm", "vulnerability", "info"),
    ("device", "host", "info"),
    ("identitylogon", "authentication", "info"),
    ("identity", "iam", "info"),
    ("email", "email", "info"),
    ("message", "email", "info"),
    ("cloudprocess", "process", "info"),
)
_EVALUATIONS = {
    "healthy": "passed",
    "passed": "passed",
    "unhealthy": "failed",
    "failed": "failed",
}
_OUTCOMES = {"passed": "success", "failed": "failure"}
_SYSTEMS = ("windows", "linux", "macos", "android", "ios")
_TRANSPORTS = frozenset({"tcp", "udp", "icmp", "icmpv6", "sctp"})
_DIRECTIONS = frozenset(
    {"ingress", "egress", "inbound", "outbound", "internal", "external", "unknown"}
)
_HIVES = {
    "hkey_local_machine": "HKLM",
    "hkey_current_user": "HKCU",
    "hkey_users": "HKU",
    "hkey_classes_root": "HKCR",
    "hkey_current_config": "HKCC",
}
_PROVIDERS = {"AWS": "aws", "GCP": "gcp"}
_MACHINE = "/virtualmachines/"
_TECHNIQUE = re.compile(r"T\d{4}(\.\d{3})?")
_VERSION = re.compile(r"v[46]$")
_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^/:?#]+)(?::(\d{1,5}))?"
    r"([^?#]*)(?:\?([^#]*))?(?:#(.*))?",
    re.DOTALL,
)
_encode = msgspec.json.Encoder().encode


def ecs(alert: Alert) -> bytes:
    """The alert as one JSON object."""
    found = details(alert)
    what = nature(alert, found)
    seen = found.attributes.get
    made: Object = {"ecs": {"version": VERSION}}
    if alert.event_ms:
        made["@timestamp"] = rfc3339(alert.event_ms)
    if message := alert.description or alert.title:
        made["message"] = message
    made["event"] = _event(alert, found, what)
    source, target = sides(found)
    parts: Object = {
        "rule": _rule(alert, found, what),
        "threat": _threat(alert, found),
        "host": _host(found, what),
        **_people(found),
        "source": _end(first(source, "ip"), first(source, "host", "device")),
        "destination": _end(first(target, "ip"), first(target, "domain")),
        "process": _process(found),
        "file": _file(preferred(found, ("file",), "target", "", "source", "actor")),
        "url": _url(first(found.entities, "url").name),
        "registry": _registry(first(found.entities, "registry")),
        "email": _email(found),
        "group": _named(first(found.entities, "group")),
        "network": None if alert.kind in _ENTRA_KINDS else _network(found),
        **_request(found),
        **(_posture(alert, found) if what == "state" else {}),
        "related": _related(found),
        "observer": without_blanks(
            vendor=alert.vendor,
            product=alert.product,
            name=alert.resource if alert.kind == "common_security_log" else seen("sensor"),
        ),
        "organization": without_blanks(id=seen("tenant_id")),
        **_cloud(alert, found, made["event"]["dataset"]),
        "log": without_blanks(level=alert.severity_original) if what == "event" else None,
        "microsoft": _microsoft(alert),
    }
    made.update({name: part for name, part in parts.items() if part})
    if alert.replay:
        made["labels"] = {"replay": alert.replay}
    return _encode(made)


# What happened.


def _event(alert: Alert, found: Details, what: Nature) -> Object:
    categories, types = _categories(alert, found, what)
    dataset = _dataset(alert, found, categories)
    seen = found.attributes.get
    number = seen("event_id", "")
    evaluation = _EVALUATIONS.get(alert.status_original.lower(), "") if what == "state" else ""
    made = without_blanks(
        id=alert.entity,
        kind="alert" if what == "incident" else what,
        category=categories,
        type=types,
        action=found.action,
        outcome=found.outcome or _OUTCOMES.get(evaluation),
        severity=_SEVERITIES.get(alert.severity),
        code=number if number.isdigit() or what == "event" else alert.alert_type,
        dataset=dataset,
        module=dataset.partition(".")[0],
        provider=seen("provider") or alert.product,
        created=rfc3339(alert.enqueued_ms),
        start=rfc3339(alert.start_ms),
        end=rfc3339(alert.end_ms),
        reason=seen("reason"),
        url=alert.link,
        original=alert.raw.decode("utf-8", "replace"),
    )
    if alert.start_ms and alert.end_ms >= alert.start_ms:
        made["duration"] = (alert.end_ms - alert.start_ms) * 1_000_000
    return made


def _dataset(alert: Alert, found: Details, categories: list[str]) -> str:
    if known := _DATASETS.get(alert.kind):
        return known
    seen = found.attributes.get
    if alert.kind in _ENTRA_KINDS:
        told = seen("category", "").lower()
        if alert.product.endswith("Protection"):
            told = "risk"
        elif categories == ["authentication"]:
            told = "signin"
        return next((name for word, name in _ENTRA if word in told), "azure.auditlogs")
    if alert.kind in ("security_event", "windows_event", "windows_xml"):
        return _CHANNELS.get(seen("channel", "").lower(), "windows.forwarded")
    if alert.kind in ("syslog", "syslog_line"):
        return "system.auth" if seen("facility", "").startswith("auth") else "system.syslog"
    return "azure.eventhub"


def _categories(alert: Alert, found: Details, what: Nature) -> tuple[list[str], list[str]]:
    if what == "state":
        vulnerable = found.attributes.get("cve")
        return ["vulnerability" if vulnerable else "configuration"], ["info"]
    if what != "event":
        malware = any(found.of("malware"))
        return ["intrusion_detection", "malware"] if malware else ["intrusion_detection"], ["info"]
    for maker in CLASSES.get(alert.kind, ()):
        event = maker(alert, found)
        if event and event.cls.uid in _CATEGORIES:
            category, more, types, other = _CATEGORIES[event.cls.uid]
            known = 0 < event.activity <= len(types)
            return [category], [*more, types[event.activity - 1] if known else other]
    table = found.attributes.get("table", "").lower() if alert.kind == "xdr" else ""
    for start, category, kind in _TABLES:
        if table.startswith(start):
            return [category], [kind]
    return [], []


def _rule(alert: Alert, found: Details, what: Nature) -> Object:
    seen = found.attributes.get
    if what == "event":
        return without_blanks(name=seen("rule"))
    if what == "incident":
        rules = seen("rules", "")
        return without_blanks(id=rules.split(", ") if rules else None)
    return without_blanks(
        name=alert.title,
        id=alert.alert_type,
        category=seen("category"),
        ruleset=seen("standard"),
    )


def _threat(alert: Alert, found: Details) -> Object:
    tactics = [tactic(word) for word in alert.tactics if word]
    told = [word.upper() for word in alert.techniques]
    techniques = [word for word in told if _TECHNIQUE.fullmatch(word)]
    technique = without_blanks(
        id=list(dict.fromkeys(word.partition(".")[0] for word in techniques)),
        subtechnique=without_blanks(id=[word for word in techniques if "." in word]),
    )
    made = without_blanks(
        tactic=without_blanks(
            id=[uid for uid, _ in tactics if uid], name=[name for _, name in tactics]
        ),
        technique=technique,
        group=without_blanks(name=found.attributes.get("activity_group")),
    )
    if "tactic" in made or "technique" in made:
        made["framework"] = "MITRE ATT&CK"
    return made


# Who and what.


def _host(found: Details, what: Nature) -> Object:
    roles: tuple[Role, ...] = ("", "target", "actor", "source")
    if what != "event":
        roles = ("target", "", "actor", "source")
    entity = preferred(found, ("host", "device"), *roles)
    if entity is None:
        return {}
    addresses = address(said(entity, "ipaddress", "ip", "lastipaddress"))[1]
    return without_blanks(
        name=entity.full_name or entity.id,
        hostname=entity.name,
        domain=entity.domain,
        id=entity.id,
        ip=[addresses] if addresses else None,
        mac=[mac] if (mac := _mac(entity)) else None,
        os=_system(said(entity, "osfamily", "osplatform", "operatingsystem", "os")),
    )


@functools.lru_cache(256)
def _system(name: str) -> Object:
    folded = name.lower()
    kind = next((word for word in _SYSTEMS if word in folded), "")
    return without_blanks(name=name, type=kind)


def _people(found: Details) -> Object:
    """Who did it, and whom it was done to."""
    who = preferred(found, ("user", "mailbox"), "actor", "source")
    whom = preferred(found, ("user", "mailbox"), "target", "")
    one = who or whom
    if one is None:
        return {}
    made = _user(one)
    if who and whom and (target := _user(whom)):
        made["target"] = target
    return {"user": made}


def _user(entity: Entity) -> Object:
    return without_blanks(
        name=entity.name or entity.id,
        id=entity.id,
        domain=entity.domain,
        email=email_address(entity.full_name),
        full_name=said(entity, "displayname", "fullname", "accountdisplayname"),
    )


def _named(entity: Entity) -> Object:
    return without_blanks(name=entity.name, id=entity.id, domain=entity.domain)


def _end(ip: Entity, host: Entity) -> Object:
    """One end of a connection."""
    number = address(ip.name)[1]
    name = host.full_name
    if not number and not name:
        return {}
    made = without_blanks(address=number or name, ip=number, domain=name, mac=_mac(host))
    port = integer(ip.port or host.port, 65535)
    if port is not None:
        made["port"] = port
    if ip.attributes:
        country = said(ip, "countrycode", "countrylettercode", "country")
        geo = without_blanks(
            city_name=said(ip, "city"),
            region_name=said(ip, "state"),
            country_name=said(ip, "countryname") or (country if len(country) > 2 else ""),
            country_iso_code=country.upper() if len(country) == 2 else "",
        )
        if geo:
            made["geo"] = geo
    return made


def _mac(entity: Entity) -> str:
    """As RFC 7042 writes it: `00-00-5E-00-53-07`."""
    return mac_address(entity).replace(":", "-").upper() if entity.attributes else ""


def _process(found: Details) -> Object:
    one = preferred(found, ("process",), "target", "actor", "source", "")
    if one is None:
        return {}
    made = _image(one)
    number = integer(one.parent_pid)
    above = next(
        (
            it
            for it in found.of("process")
            if it is not one
            and (integer(it.pid) == number if number is not None else it.role == "actor")
        ),
        None,
    )
    parent = _image(above) if above else {}
    if number is not None:
        parent["pid"] = number
    if parent:
        made["parent"] = parent
    return made


def _image(entity: Entity) -> Object:
    made = without_blanks(
        name=entity.name,
        executable=entity.full_name if entity.path else "",
        command_line=entity.command_line,
        entity_id=entity.id,
        hash=digests(entity),
    )
    number = integer(entity.pid)
    if number is not None:
        made["pid"] = number
    return made


def _file(entity: Entity | None) -> Object:
    if entity is None:
        return {}
    return without_blanks(
        name=entity.name,
        path=entity.full_name if entity.path else "",
        directory=entity.path,
        size=integer(said(entity, "filesize", "sizeinbytes"), 2**63 - 1),
        hash=digests(entity),
    )


def _url(text: str) -> Object:
    made = without_blanks(original=text, full=text)
    if parts := _URL.fullmatch(text):
        scheme, domain, port, path, query, fragment = parts.groups()
        made |= without_blanks(
            scheme=scheme.lower(),
            domain=domain,
            port=integer(port or "", 65535),
            path=path,
            query=query,
            fragment=fragment,
        )
    return made


def _registry(entity: Entity) -> Object:
    hive, _, key = entity.path.partition("\\")
    short = _HIVES.get(hive.lower(), hive)
    data = said(entity, "registryvalue", "value", "registryvaluedata", "valuedata", "data")
    return without_blanks(
        hive=short,
        key=key,
        value=entity.name,
        path="\\".join(filter(None, (short, key, entity.name))),
        data=without_blanks(
            strings=[data] if data else None, type=said(entity, "valuetype", "registryvaluetype")
        ),
    )


def _email(found: Details) -> Object:
    message = first(found.entities, "message")
    if not message.name and not message.id:
        return {}
    sender = preferred(found, ("mailbox", "user"), "source", "actor")
    receivers = [
        it.full_name for it in found.of("mailbox", "user") if it.role == "target" and it.name
    ]
    made = without_blanks(
        subject=message.name,
        local_id=message.id,
        message_id=message.attributes.get("InternetMessageId"),
        direction=found.attributes.get("email_direction", "").lower(),
        to=without_blanks(address=receivers),
    )
    if sender and sender.name:
        made["from"] = {"address": [sender.full_name]}
    return made


def _network(found: Details) -> Object:
    word = _VERSION.sub("", found.attributes.get("protocol", "").lower())
    name = "transport" if word in _TRANSPORTS else "protocol"
    direction = found.attributes.get("direction", "").lower()
    return without_blanks(
        **{"iana_number" if word.isdecimal() else name: word},
        direction=direction if direction in _DIRECTIONS else "",
    )


def _request(found: Details) -> Object:
    seen = found.attributes.get
    request = without_blanks(method=seen("http_method"), referrer=seen("referrer"))
    response = without_blanks(status_code=integer(seen("http_status", ""), 999))
    return {
        "http": without_blanks(request=request, response=response),
        "user_agent": without_blanks(original=seen("user_agent")),
    }


def _related(found: Details) -> Object:
    people: dict[str, None] = {}
    for it in found.of("user", "mailbox"):
        people.update(dict.fromkeys(filter(None, (username(it), it.name))))
    domains = [it.name for it in found.of("domain") if it.name]
    return without_blanks(
        hosts=[*found.hosts, *domains],
        ip=list(dict.fromkeys(filter(None, (address(it)[1] for it in found.ips)))),
        user=list(people),
        hash=list(found.hashes),
    )


# Where: posture, cloud.


def _posture(alert: Alert, found: Details) -> Object:
    seen = found.attributes.get
    made: Object = {
        "result": without_blanks(evaluation=_EVALUATIONS.get(alert.status_original.lower())),
    }
    it = resource(alert.resource, alert.resource_ids[0] if alert.resource_ids else "")
    if it:
        made["resource"] = without_blanks(id=it["uid"], name=it["name"], type=it.get("type"))
    if cves := seen("cve", ""):
        score = _score(seen("cvss", ""))
        made["vulnerability"] = without_blanks(
            id=cves.split(", "),
            description=alert.description,
            severity=alert.severity_original,
            reference=alert.link,
            category=[word] if (word := seen("category")) else None,
            scanner=without_blanks(vendor=alert.vendor),
            score={"base": score} if score is not None else None,
        )
        made["package"] = without_blanks(
            name=seen("package"),
            version=seen("package_version"),
        )
    return made


def _score(text: str) -> float | None:
    """From 0 to 10."""
    return float(text) if re.fullmatch(r"\d(\.\d{1,3})?|10(\.0)?", text, re.ASCII) else None


def _cloud(alert: Alert, found: Details, dataset: str) -> Object:
    seen = found.attributes.get
    known = alert.subscription
    it = resource("", alert.resource_ids[0]) if alert.resource_ids else None
    cloud = without_blanks(
        account=without_blanks(id=alert.subscription_id, name=known.name if known else ""),
        instance={"id": it["uid"], "name": it["name"]}
        if it and _MACHINE in it["uid"].lower()
        else None,
        region=seen("location"),
    )
    if cloud or dataset.startswith(("azure.", "microsoft_defender_cloud.")):
        cloud["provider"] = _PROVIDERS.get(seen("cloud", ""), "azure")
    azure = without_blanks(
        subscription_id=alert.subscription_id,
        tenant_id=seen("tenant_id"),
        correlation_id=seen("correlation_id"),
        resource=it
        and without_blanks(
            id=it["uid"],
            name=it["name"] if it["name"] != it["uid"] else "",
            group=it.get("group", {}).get("name"),
            provider=it.get("type"),
        ),
    )
    return {"cloud": cloud, "azure": azure}


def _microsoft(alert: Alert) -> Object:
    known = alert.subscription
    return without_blanks(
        kind=alert.kind,
        event_id=alert.event_id,
        severity=alert.severity_original,
        status=alert.status_original,
        subscription=known
        and without_blanks(
            owner=known.owner,
            environment=known.environment,
            management_group=known.management_group,
            tags=[f"{name}={value}" for name, value in known.tags.items()],
        ),
    )


FORMATS = (
    Format(
        "ecs",
        ecs,
        media_type="application/json",
        standard="Elastic Common Schema 8.17",
        drops="nothing: the record is in event.original as it came",
        shortens="never",
    ),
)
