"""Microsoft Graph: each alert as a microsoft.graph.security.alert (the second generation, v1.0).

Source: "alert resource type", "alertEvidence resource type" and its derived types (learn.microsoft.
com, graph/api/resources/security-alert, security-alertevidence); property names, types and the
members of the enumerations as in Graph's metadata, from which its SDK 1.65 is made. The metadata
require `@odata.type` alone. What Graph's own alerts always have is always there, empty lists among
it; other properties without a value are left out.

    id, providerAlertId      what the alert is about, through all its updates
    severity                 critical is high           status   dismissed is resolved
    createdDateTime          event time; of what says when it was created, that
    lastUpdateDateTime       event time                 first-, lastActivityDateTime
    serviceSource            by the product             detectionSource   by alert type or detector
    category, categories     the first tactic; all      mitreTechniques
    classification, determination, assignedTo, incidentId, tenantId, recommendedActions, …
                             where the record says so
    evidence                 what it mentions, by type; role source (who acts, where it comes from)
                             or destination
    additionalData           event_id (stable for this version of the alert), kind, the words for
                             severity and status, resources, subscription, further attributes

The enumerations are open: what a record does not say is `unknown`; a word of its own that Graph
has not (or not yet) is `unknownFutureValue`. Members after that one (microsoftDefenderForCloud, …)
are written as they are, as for a client that prefers to include unknown members.

A record that is such an alert goes through as it is, but for line breaks between tokens. Records
that are no alerts (an incident, posture, a log's line) become alerts of severity `unknown` if they
have none: additionalData.kind tells what they are, and routing should keep them apart.

Dropped: the record itself and what else only it holds; things that Graph has no evidence type for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats._base import Format
from schemas.formats._mitre import tactic
from schemas.formats._ocsf_objects import Object, integer, resource, said, without_blanks
from schemas.formats._records import digests, rfc3339
from schemas.formats._sides import address, mac_address
from schemas.kinds import details

__all__ = ["FORMATS", "graph"]

_TYPE = "#microsoft.graph.security."
_SEVERITIES = {"informational": "informational", "low": "low", "medium": "medium"} | dict.fromkeys(
    ("high", "critical"), "high"
)
_STATUSES = {
    "new": "new",
    "in_progress": "inProgress",
    "resolved": "resolved",
    "dismissed": "resolved",
}
_CLASSIFICATIONS = {
    "unknown": "unknown",
    "undetermined": "unknown",
    "falsepositive": "falsePositive",
    "truepositive": "truePositive",
    "benignpositive": "informationalExpectedActivity",
    "informationalexpectedactivity": "informationalExpectedActivity",
}
_SOURCES = {  # product without blanks → serviceSource
    "microsoftdefenderforendpoint": "microsoftDefenderForEndpoint",
    "microsoftdefenderadvancedthreatprotection": "microsoftDefenderForEndpoint",
    "microsoftdefenderforidentity": "microsoftDefenderForIdentity",
    "azureadvancedthreatprotection": "microsoftDefenderForIdentity",
    "microsoftdefenderforcloudapps": "microsoftDefenderForCloudApps",
    "microsoftcloudappsecurity": "microsoftDefenderForCloudApps",
    "microsoftdefenderforoffice365": "microsoftDefenderForOffice365",
    "office365advancedthreatprotection": "microsoftDefenderForOffice365",
    "microsoft365defender": "microsoft365Defender",
    "microsoftdefenderxdr": "microsoft365Defender",
    "microsoftentraidprotection": "azureAdIdentityProtection",
    "azureactivedirectoryidentityprotection": "azureAdIdentityProtection",
    "microsoftappgovernance": "microsoftAppGovernance",
    "microsoftdatalossprevention": "dataLossPrevention",
    "microsoftpurviewdatalossprevention": "dataLossPrevention",
    "microsoftdefenderforcloud": "microsoftDefenderForCloud",
    "azuresecuritycenter": "microsoftDefenderForCloud",
    "azuresecuritycenterforiot": "microsoftDefenderForCloud",
    "microsoftdefenderforiot": "microsoftDefenderForCloud",
    "asc": "microsoftDefenderForCloud",
    "azuresentinel": "microsoftSentinel",
    "microsoftsentinel": "microsoftSentinel",
}
_DETECTORS = {  # service source → detectionSource, where it is called something else
    "microsoftDefenderForCloudApps": "cloudAppSecurity",
    "microsoftAppGovernance": "appGovernanceDetection",
    "dataLossPrevention": "microsoftDataLossPrevention",
}
_PLANS = (  # how Defender for Cloud's alert types begin → detectionSource
    ("vm_", "microsoftDefenderForServers"),
    ("storage.", "microsoftDefenderForStorage"),
    ("azuredns_", "microsoftDefenderForDNS"),
    ("sql.", "microsoftDefenderForDatabases"),
    ("cosmosdb_", "microsoftDefenderForDatabases"),
    ("k8s", "microsoftDefenderForContainers"),
    ("network_", "microsoftDefenderForNetwork"),
    ("appservices_", "microsoftDefenderForAppService"),
    ("kv_", "microsoftDefenderForKeyVault"),
    ("arm_", "microsoftDefenderForResourceManager"),
    ("api_", "microsoftDefenderForApiManagement"),
    ("ai.", "microsoftDefenderForAIServices"),
)
_COMPONENTS = {  # Sentinel's kinds of rules
    "scheduledalerts": "scheduledAlerts",
    "nrtalerts": "nrtAlerts",
    "fusion": "builtInMl",
    "mlbehavioranalytics": "builtInMl",
}


def _members(names: str) -> dict[str, str]:
    return {name.lower(): name for name in names.split()}


_DETECTION_SOURCES = _members(
    "unknown microsoftDefenderForEndpoint antivirus smartScreen customTi "
    "microsoftDefenderForOffice365 automatedInvestigation microsoftThreatExperts customDetection "
    "microsoftDefenderForIdentity cloudAppSecurity microsoft365Defender azureAdIdentityProtection "
    "manual microsoftDataLossPrevention appGovernancePolicy appGovernanceDetection "
    "microsoftDefenderForCloud microsoftDefenderForIoT microsoftDefenderForServers "
    "microsoftDefenderForStorage microsoftDefenderForDNS microsoftDefenderForDatabases "
    "microsoftDefenderForContainers microsoftDefenderForNetwork microsoftDefenderForAppService "
    "microsoftDefenderForKeyVault microsoftDefenderForResourceManager "
    "microsoftDefenderForApiManagement nrtAlerts scheduledAlerts "
    "microsoftDefenderThreatIntelligenceAnalytics builtInMl microsoftInsiderRiskManagement "
    "microsoftThreatIntelligence microsoftDefenderForAIServices securityCopilot microsoftSentinel"
) | {  # as advanced hunting calls them
    "edr": "microsoftDefenderForEndpoint",
    "defenderforservers": "microsoftDefenderForServers",
}
_DETERMINATIONS = _members(
    "unknown apt malware securityPersonnel securityTesting unwantedSoftware other "
    "multiStagedAttack compromisedAccount phishing maliciousUserActivity notMalicious "
    "notEnoughDataToValidate confirmedActivity lineOfBusinessApplication"
) | {  # as they were called before
    "compromiseduser": "compromisedAccount",
    "clean": "notMalicious",
    "insufficientdata": "notEnoughDataToValidate",
    "confirmeduseractivity": "confirmedActivity",
}
_VERDICTS = _members("unknown suspicious malicious noThreatsFound")
_REMEDIATIONS = _members(
    "none remediated prevented blocked notFound active pendingApproval declined unremediated "
    "running partiallyRemediated"
)
_SAID = {  # attribute → property of the alert
    "tenant_id": "tenantId",
    "incident_id": "incidentId",
    "incident_link": "incidentWebUrl",
    "detector_id": "detectorId",
    "policy_id": "alertPolicyId",
    "owner": "assignedTo",
    "actor": "actorDisplayName",
    "activity_group": "actorDisplayName",
    "threat": "threatDisplayName",
    "threat_family": "threatFamilyName",
    "remediation": "recommendedActions",
}
_JUDGED = frozenset({"classification", "determination", "detection_source"})
_ROLES = {"actor": ["source"], "source": ["source"], "target": ["destination"]}
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SID = re.compile(r"S-1-\d[\d-]*", re.IGNORECASE)
_MDE = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)
_INT64 = 2**63 - 1
_encode = msgspec.json.Encoder().encode


def graph(alert: Alert) -> bytes:
    """The alert as one JSON object. Raises ValueError when a Graph alert's `raw` is none."""
    if alert.kind == "graph_alert":
        if not (alert.raw.startswith(b"{") and alert.raw.endswith(b"}")):
            raise ValueError("the record is not a JSON object")
        return alert.raw.translate(None, b"\r\n")  # valid JSON has them between tokens only
    found = details(alert)
    seen = found.attributes.get
    service = _SOURCES.get(alert.product.replace(" ", "").lower(), "unknown")
    time = rfc3339(alert.event_ms)
    categories = [_camel(word) for word in alert.tactics if word]
    verdict = seen("classification", "")
    properties = {name: seen(key, "") for key, name in _SAID.items() if seen(key)}
    made: Object = {
        "@odata.type": f"{_TYPE}alert",
        "id": alert.entity,
        "providerAlertId": alert.entity,
        "title": alert.title or alert.alert_type or alert.kind,
        "severity": _SEVERITIES.get(alert.severity, "unknown"),
        "status": _STATUSES.get(alert.status, "unknown"),
        "serviceSource": service,
        "detectionSource": _detection_source(alert, found, service),
        "classification": _word(_CLASSIFICATIONS, verdict),
        "determination": _word(_DETERMINATIONS, seen("determination", "")),
        "mitreTechniques": list(filter(None, alert.techniques)),
        "categories": categories,
        "evidence": _evidence(found, time),
        "comments": [],
        "systemTags": [],
        "additionalData": _additional(alert, found),
        **properties,
        **without_blanks(
            detectorId=seen("detector_id") or alert.alert_type,
            productName=alert.product,
            category=categories[0] if categories else "",
            description=alert.description,
            alertWebUrl=alert.link,
            createdDateTime=_time(seen("created", "")) or time,
            lastUpdateDateTime=time,
            firstActivityDateTime=rfc3339(alert.start_ms),
            lastActivityDateTime=rfc3339(alert.end_ms),
        ),
    }
    return _encode(made)


def _word(members: dict[str, str], word: str) -> str:
    """As Graph says an open enumeration's value."""
    folded = word.replace(" ", "").lower()
    return members.get(folded, "unknownFutureValue") if folded else "unknown"


def _camel(word: str) -> str:
    """`Credential Access` → `CredentialAccess`."""
    return "".join(tactic(word)[1].title().split()) if " " in word else word


def _time(text: str) -> str:
    """A time as the record writes it, if Graph can read it."""
    try:
        msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return ""
    return text if text.endswith("Z") else ""


def _detection_source(alert: Alert, found: Details, service: str) -> str:
    seen = found.attributes.get
    if word := seen("detection_source", ""):
        return _word(_DETECTION_SOURCES, word)
    if alert.kind == "iot_alert":
        return "microsoftDefenderForIoT"
    if service == "microsoftDefenderForCloud":
        folded = alert.alert_type.lower()
        return next((plan for start, plan in _PLANS if folded.startswith(start)), service)
    if service == "microsoftSentinel":
        return _COMPONENTS.get(seen("component", "").replace(" ", "").lower(), service)
    return _DETECTORS.get(service, service)


def _additional(alert: Alert, found: Details) -> Object:
    """A Graph dictionary: texts under any names."""
    known = alert.subscription
    more = without_blanks(
        event_id=alert.event_id,
        kind=alert.kind,
        severity=alert.severity_original,
        status=alert.status_original,
        action=found.action,
        outcome=found.outcome,
        resource=alert.resource,
        resource_ids=", ".join(filter(None, alert.resource_ids)),
        related=", ".join(filter(None, found.related)),
        subscription_id=alert.subscription_id,
        subscription_name=known.name if known else "",
        subscription_owner=known.owner if known else "",
        subscription_environment=known.environment if known else "",
    )
    attributes = {
        name: text
        for name, text in found.attributes.items()
        if text and name not in _SAID and name not in _JUDGED and name[:1] != "@"
    }
    return {"@odata.type": f"{_TYPE}dictionary", **attributes, **more}


# Evidence.


def _evidence(found: Details, time: str) -> list[Object]:
    listed = []
    for entity in found.entities:
        make = _MAKERS.get(entity.type)
        if made := make(entity) if make else None:
            kind, properties = made
            listed.append(_piece(kind, time, entity) | properties)
    return listed


def _piece(kind: str, time: str, entity: Entity) -> Object:
    """What evidence of every type has."""
    made: Object = {
        "@odata.type": f"{_TYPE}{kind}Evidence",
        "verdict": _word(_VERDICTS, said(entity, "verdict", "lastverdict")),
        "remediationStatus": _remediation(said(entity, "remediationstatus")),
        "roles": _ROLES.get(entity.role, []),
        "detailedRoles": [],
        "tags": [],
    }
    if time:
        made["createdDateTime"] = time
    return made


def _remediation(word: str) -> str:
    return _word(_REMEDIATIONS, word) if word else "none"


Piece = tuple[str, Object] | None


def _device(entity: Entity) -> Piece:
    uid = entity.id
    is_azure = uid[:15].lower() == "/subscriptions/"
    made = without_blanks(
        deviceDnsName=entity.full_name,
        hostName=entity.name,
        dnsDomain=entity.domain if "." in entity.domain else "",
        ntDomain="" if "." in entity.domain else entity.domain,
        mdeDeviceId=uid if _MDE.fullmatch(uid) else "",
        azureAdDeviceId=uid if _GUID.fullmatch(uid) else "",
        osPlatform=said(entity, "osplatform", "osfamily", "operatingsystem", "os"),
        version=said(entity, "osversion", "version"),
        lastIpAddress=address(said(entity, "lastipaddress", "ipaddress", "ip"))[1],
        vmMetadata=is_azure
        and {
            "cloudProvider": "azure",
            "resourceId": uid,
            "subscriptionId": uid[15:].partition("/")[0],
        },
    )
    return ("device", made) if made else None


def _thing(entity: Entity) -> Piece:
    number = address(said(entity, "ipaddress", "ip"))[1]
    made = without_blanks(
        deviceId=entity.id,
        deviceName=entity.name,
        deviceType=said(entity, "devicetype"),
        deviceSubType=said(entity, "devicesubtype"),
        devicePageLink=said(entity, "devicepagelink"),
        ipAddress=number and {"@odata.type": f"{_TYPE}ipEvidence", "ipAddress": number},
        macAddress=mac_address(entity),
        manufacturer=said(entity, "manufacturer", "vendor"),
        model=said(entity, "model"),
        operatingSystem=said(entity, "operatingsystem"),
        serialNumber=said(entity, "serialnumber"),
        protocols=list(filter(None, said(entity, "protocols").split(", "))),
        purdueLayer=said(entity, "purduelayer"),
        sensor=said(entity, "sensor"),
        site=said(entity, "site"),
        zone=said(entity, "zone"),
        source=said(entity, "source"),
    )
    return ("ioTDevice", made) if made else None


def _account(entity: Entity) -> Object:
    name = entity.full_name
    uid = entity.id
    return without_blanks(
        accountName=entity.name,
        domainName=entity.domain,
        userPrincipalName=name if "@" in name else "",
        azureAdUserId=uid if _GUID.fullmatch(uid) else "",
        userSid=uid if _SID.fullmatch(uid) else said(entity, "usersid", "accountsid"),
        displayName=said(entity, "displayname", "fullname", "accountdisplayname"),
    )


def _user(entity: Entity) -> Piece:
    account = _account(entity)
    return ("user", {"userAccount": account}) if account else None


def _mailbox(entity: Entity) -> Piece:
    name = entity.full_name
    made = without_blanks(
        primaryAddress=name, displayName=said(entity, "displayname"), upn=said(entity, "upn")
    )
    return ("mailbox", made) if name else None


def _group(entity: Entity) -> Piece:
    uid = entity.id
    made = without_blanks(
        displayName=entity.name,
        securityGroupId="" if _SID.fullmatch(uid) else uid,
        sid=uid if _SID.fullmatch(uid) else "",
    )
    return ("securityGroup", made) if made else None


def _ip(entity: Entity) -> Piece:
    number = address(entity.name)[1]
    country = said(entity, "countrylettercode", "countrycode", "country")
    location = without_blanks(
        city=said(entity, "city"),
        state=said(entity, "state"),
        countryName=said(entity, "countryname") or country,
    )
    made = without_blanks(
        ipAddress=number,
        countryLetterCode=country if len(country) == 2 else "",
        location=location,
    )
    return ("ip", made) if number else None


def _url(entity: Entity) -> Piece:
    return ("url", {"url": entity.name}) if entity.name else None


def _domain(entity: Entity) -> Piece:
    return ("dns", {"domainName": entity.name}) if entity.name else None


def _details_of_file(entity: Entity) -> Object:
    hashes = digests(entity)
    made = without_blanks(
        fileName=entity.name,
        filePath=entity.path,
        sha1=hashes.get("sha1"),
        sha256=hashes.get("sha256"),
        md5=hashes.get("md5"),
        filePublisher=said(entity, "filepublisher", "publisher", "versioninfocompanyname"),
    )
    size = integer(said(entity, "filesize", "sizeinbytes"), _INT64)
    return made | {"fileSize": size} if size is not None else made


def _file(entity: Entity) -> Piece:
    file = _details_of_file(entity)
    return ("file", {"fileDetails": file}) if file else None


def _process(entity: Entity) -> Piece:
    made = without_blanks(
        processCommandLine=entity.command_line, imageFile=_details_of_file(entity)
    )
    for name, text in (("processId", entity.pid), ("parentProcessId", entity.parent_pid)):
        number = integer(text, _INT64)
        if number is not None:
            made[name] = number
    return ("process", made) if made else None


def _registry(entity: Entity) -> Piece:
    hive, _, key = entity.path.partition("\\")
    made = without_blanks(registryHive=hive, registryKey=key)
    if not entity.name:
        return ("registryKey", made) if made else None
    made |= without_blanks(
        registryValueName=entity.name,
        registryValue=said(
            entity, "registryvalue", "value", "registryvaluedata", "valuedata", "data"
        ),
        registryValueType=said(entity, "valuetype", "registryvaluetype"),
    )
    return "registryValue", made


def _message(entity: Entity) -> Piece:
    made = without_blanks(
        subject=entity.name,
        networkMessageId=entity.id,
        internetMessageId=said(entity, "internetmessageid"),
        recipientEmailAddress=said(entity, "recipientemailaddress", "recipient"),
        senderIp=address(said(entity, "senderip"))[1],
        deliveryAction=said(entity, "deliveryaction"),
        deliveryLocation=said(entity, "deliverylocation"),
        urn=said(entity, "urn"),
    )
    return ("analyzedMessage", made) if made else None


def _application(entity: Entity) -> Piece:
    number = integer(entity.id, _INT64)
    made = without_blanks(displayName=entity.name)
    if number is not None:
        return "cloudApplication", made | {"appId": number}
    made |= without_blanks(appId=entity.id)
    return ("oauthApplication", made) if made else None


def _resource(entity: Entity) -> Piece:
    it = resource(entity.name, entity.id)
    if it is None:
        return None
    uid, name = it["uid"], entity.name or it["name"]
    kind = it.get("type") or said(entity, "resourcetype", "type")
    named = without_blanks(resourceName=name, resourceType=kind)
    if uid.startswith("arn:"):
        return "amazonResource", named | {"amazonResourceId": uid}
    if uid.startswith(("//", "projects/")):
        return "googleCloudResource", named | {"fullResourceName": uid}
    return "azureResource", named | {"resourceId": uid}


def _malware(entity: Entity) -> Piece:
    made: Object = {"name": entity.name or entity.id, "files": [], "processes": []}
    if not made["name"]:
        return None
    return "malware", made | without_blanks(category=said(entity, "category"))


_MAKERS: dict[str, Callable[[Entity], Piece]] = {
    "host": _device,
    "device": _thing,
    "user": _user,
    "mailbox": _mailbox,
    "group": _group,
    "ip": _ip,
    "url": _url,
    "domain": _domain,
    "file": _file,
    "process": _process,
    "registry": _registry,
    "message": _message,
    "application": _application,
    "resource": _resource,
    "malware": _malware,
}


FORMATS = (
    Format(
        "graph",
        graph,
        media_type="application/json",
        standard="Microsoft Graph v1.0: microsoft.graph.security.alert",
        drops="the record itself and what else only it holds (a Graph alert: nothing); things "
        "that Graph has no type of evidence for",
        shortens="never",
    ),
)
