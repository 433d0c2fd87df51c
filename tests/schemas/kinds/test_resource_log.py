from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details
from schemas.kinds import details, understand
from tests.examples import encoded, without
from tests.examples._base import SUBSCRIPTION
from tests.examples.resource_log import SHA1, VAULT, record
from tests.schemas.kinds import read, samples, told


def mentioned(event: dict[str, Any]) -> Details:
    return details(read(event))


def log(provider: str, **overrides: Any) -> dict[str, Any]:
    """A record of another service."""
    id = f"/SUBSCRIPTIONS/{SUBSCRIPTION}/RESOURCEGROUPS/RG/PROVIDERS/{provider}/ONE"
    event = {"time": "2026-03-04T10:20:00Z", "resourceId": id, "category": "Some", **overrides}
    return {"operationName": "Do", **event}


def test_every_field() -> None:
    raw = encoded(record())
    alert = understand(raw)
    assert told(alert) == {
        "kind": "resource_log",
        "entity": "bbbbbbbb-1111-4222-8333-444455556666",
        "version": alert.version,
        "title": "CertificateImport",
        "description": "Imported.",
        "severity": "informational",
        "severity_original": "Informational",
        "event_ms": 1772619600123,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (VAULT,),
        "resource": "SHOP-KEYS",
        "product": "Azure Key Vault",
        "alert_type": "AuditEvent/CertificateImport",
    }
    assert len(alert.version) == 32


def test_everything_it_mentions() -> None:
    found = mentioned(record())
    assert found.users == ("alice@example.com",)
    assert found.ips == ("198.51.100.7",)
    assert found.hosts == ()
    assert found.urls == (record()["properties"]["requestUri"],)
    assert found.hashes == (SHA1,)
    assert [(it.name, it.id) for it in found.of("resource")] == [
        ("SHOP-KEYS", VAULT),
        ("web", "https://shop-keys.vault.example.net/certificates/web"),
    ]
    (user,) = found.of("user")
    assert (user.id, user.role) == ("cccccccc-1111-4222-8333-444455556666", "actor")
    assert [it.id for it in found.of("application")] == ["dddddddd-1111-4222-8333-444455556666"]
    assert [it.name for it in found.of("other")] == ["CN=shop.example.com"]
    assert (found.action, found.outcome) == ("CertificateImport", "success")
    assert found.attributes == {
        "category": "AuditEvent",
        "level": "Informational",
        "correlation_id": "bbbbbbbb-1111-4222-8333-444455556666",
        "tenant_id": "22222222-0000-4000-8000-000000000002",
        "result": "Success",
        "sub_status": "OK",
        "request_uri": record()["properties"]["requestUri"],
        "http_status": "200",
        "user_agent": "Mozilla/5.0",
        "tls_version": "TLS1_3",
    }


def test_what_the_http_status_says_goes_before_the_word() -> None:
    """To Key Vault it is a success to have said no."""
    event = record(resultSignature="Forbidden", properties={"httpStatusCode": 403})
    assert mentioned(event).outcome == "failure"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"resultType": "Failed"}, "failure"),
        ({"statusText": "Success", "statusCode": 206}, "success"),
        ({"statusText": "AuthenticationFailed", "statusCode": "404"}, "failure"),
        ({"properties": {"httpStatus": 307}}, "success"),
        ({"properties": {"action": "Block"}}, "failure"),
        ({"properties": {"action": "Allow"}}, "success"),
        ({"properties": {"action": "Matched"}}, ""),
        ({"properties": {"succeeded": "true"}}, "success"),
        ({"properties": {"succeeded": False}}, "failure"),
        ({}, ""),
    ],
)
def test_outcomes(fields: dict[str, Any], outcome: str) -> None:
    assert mentioned(log("MICROSOFT.X/Y", **fields)).outcome == outcome


def test_storage() -> None:
    event = log(
        "Microsoft.Storage/storageAccounts",
        callerIpAddress="198.51.100.7:39221",
        identity={
            "type": "OAuth",
            "requester": {"appId": "a1", "objectId": "o1", "upn": "alice@example.com"},
        },
        uri="https://one.blob.example.net/box/secret.txt?x=1",
        properties={"accountName": "one", "objectKey": "/one/box/secret.txt"},
    )
    assert read(event).product == "Azure Storage"
    found = mentioned(event)
    (address,) = found.of("ip")
    assert (address.name, address.port, address.role) == ("198.51.100.7", "39221", "source")
    assert [(it.full_name, it.id) for it in found.of("user")] == [("alice@example.com", "o1")]
    assert [it.id for it in found.of("application")] == ["a1"]
    assert [it.name for it in found.of("resource")] == ["ONE", "secret.txt"]
    assert found.attributes["account"] == "one"


def test_an_application_gateway_tells_paths_only() -> None:
    event = log(
        "MICROSOFT.NETWORK/APPLICATIONGATEWAYS",
        properties={
            "clientIP": "198.51.100.7",
            "host": "shop.example.com",
            "requestUri": "/cart",
            "sslEnabled": "on",
            "serverRouted": "10.0.0.4:443",
            "transactionId": "t1",
            "httpMethod": "GET",
        },
    )
    found = mentioned(without(event, "time") | {"timeStamp": "2026-03-04T10:20:00+00:00"})
    assert found.urls == ("https://shop.example.com/cart",)
    assert found.hosts == ("shop.example.com",)
    assert [(it.name, it.port, it.role) for it in found.of("ip")] == [
        *(("198.51.100.7", "", "source"), ("10.0.0.4", "443", "target")),
    ]
    assert found.attributes["transaction_id"] == "t1"
    assert found.attributes["http_method"] == "GET"


def test_a_web_application_firewall() -> None:
    event = log(
        "MICROSOFT.CDN/PROFILES",
        properties={
            "clientIP": "198.51.100.7",
            "socketIP": "198.51.100.8",
            "requestUri": "https://shop.example.com:443/?q=x",
            "ruleName": "SQLI-1",
            "policy": "shop",
            "action": "Block",
            "host": "shop.example.com",
            "trackingReference": "r1",
        },
    )
    alert = read(event)
    assert (alert.product, alert.description) == ("Azure Front Door", "SQLI-1")
    found = details(alert)
    assert found.outcome == "failure"
    assert found.ips == ("198.51.100.7", "198.51.100.8")
    assert found.attributes == {
        "category": "Some",
        "tracking_reference": "r1",
        "request_uri": "https://shop.example.com:443/?q=x",
        "rule": "SQLI-1",
        "policy": "shop",
        "action_taken": "Block",
    }


def test_databases() -> None:
    event = log(
        "MICROSOFT.DBFORMYSQL/SERVERS",
        LogicalServerName="shop-db",
        SubscriptionId=SUBSCRIPTION,
        properties={"event_subclass": "CONNECT", "ip": "10.0.0.7", "user": "web", "db": "shop"},
    )
    found = mentioned(event)
    assert (found.hosts, found.users, found.ips) == (("shop-db",), ("web",), ("10.0.0.7",))
    assert (found.action, found.attributes["database"]) == ("CONNECT", "shop")
    event = log(
        "MICROSOFT.SQL/SERVERS",
        properties={
            "action_name": "BATCH COMPLETED",
            "server_principal_name": "web",
            "client_ip": "10.0.0.7",
            "host_name": "shop-vm-1",
            "statement": "select 1",
        },
    )
    found = mentioned(event)
    assert (found.action, found.users, found.ips) == ("BATCH COMPLETED", ("web",), ("10.0.0.7",))
    assert [(it.name, it.role) for it in found.of("host")] == [("shop-vm-1", "source")]


def test_kubernetes_logs_an_object_in_a_string() -> None:
    inner = {
        "kind": "Event",
        "verb": "delete",
        "user": {"username": "alice@example.com"},
        "sourceIPs": ["10.0.0.7", "10.0.0.8"],
        "objectRef": {"resource": "pods", "namespace": "shop", "name": "cart-1"},
        "responseStatus": {"code": 403},
        "requestURI": "/api/v1/pods",
    }
    properties = {"log": encoded(inner).decode(), "stream": "stdout"}
    event = log("MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS", properties=properties)
    assert read(event).product == "Azure Kubernetes Service"
    found = mentioned(event)
    assert (found.action, found.outcome) == ("delete", "failure")
    assert (found.users, found.ips) == (("alice@example.com",), ("10.0.0.7", "10.0.0.8"))
    pod = list(found.of("resource"))[1]
    assert (pod.name, pod.attributes) == ("cart-1", {"resource": "pods", "namespace": "shop"})


def test_azure_firewall_says_it_in_words() -> None:
    message = "TCP request from 10.0.0.7:50123 to shop.example.com:443. Action: Deny"
    found = mentioned(log("MICROSOFT.NETWORK/AZUREFIREWALLS", properties={"msg": message}))
    (source,) = found.of("ip")
    assert (source.name, source.port, source.role) == ("10.0.0.7", "50123", "source")
    assert found.hosts == ("shop.example.com",)
    assert found.outcome == "failure"


TUPLES = [
    "1772619600,10.0.0.7,203.0.113.9,50123,443,T,O,A,B,,,,",
    "1772619660,198.51.100.7,10.0.0.7,50124,22,T,I,D,B,,,,",
]


def test_flows_of_a_network_security_group() -> None:
    properties = {
        "Version": 2,
        "flows": [{"rule": "R1", "flows": [{"mac": "000D", "flowTuples": TUPLES}]}],
    }
    event = log(
        "MICROSOFT.NETWORK/NETWORKSECURITYGROUPS",
        operationName="NetworkSecurityGroupFlowEvents",
        properties=properties,
    )
    alert = read(event)
    assert (alert.start_ms, alert.end_ms) == (1772619600000, 1772619660000)
    found = details(alert)
    assert [(it.name, it.role) for it in found.of("ip")] == [
        *(("10.0.0.7", "source"), ("203.0.113.9", "target"), ("198.51.100.7", "source")),
    ]
    assert found.outcome == ""  # one each


def test_flows_of_a_virtual_network() -> None:
    flow = "1772619600123,10.0.0.7,203.0.113.9,50123,443,6,O,D,NX,0,0,0,0"
    groups = [{"rule": "R1", "flowTuples": [flow]}]
    event = {
        "time": "2026-03-04T10:21:00Z",
        "flowLogGUID": "g1",
        "macAddress": "000D",
        "category": "FlowLogFlowEvent",
        "operationName": "FlowLogFlowEvent",
        "targetResourceID": VAULT,
        "flowRecords": {"flows": [{"aclID": "a1", "flowGroups": groups}]},
    }
    alert = read(event)
    assert alert.resource_ids == (VAULT,)
    assert alert.start_ms == alert.end_ms == 1772619600123
    found = details(alert)
    assert [(it.name, it.port) for it in found.of("ip")] == [
        *(("10.0.0.7", "50123"), ("203.0.113.9", "443")),
    ]
    assert found.outcome == "failure"
    assert found.attributes["mac_address"] == "000D"


def test_many_flows_are_not_all_told() -> None:
    tuples = [TUPLES[0].replace("10.0.0.7", f"10.0.{n // 256}.{n % 256}") for n in range(12_000)]
    event = log("X/Y", properties={"flows": [{"flows": [{"flowTuples": tuples}]}]})
    assert len(mentioned(event).ips) == 10_001


@pytest.mark.parametrize(
    ("written", "repair"),
    [
        ('{"message":"It\'s up","ip":"10.0.0.7"}', "json_in_string"),
        ("{'message':'It\\'s up','ip':'10.0.0.7'}", "single_quotes"),
        ("{'message':'It's up','ip':'10.0.0.7'}", "unescaped_quotes"),
    ],
)
def test_properties_in_a_string_are_read_and_named(written: str, repair: str) -> None:
    alert = read(log("MICROSOFT.WEB/SITES", properties=written))
    assert alert.description == "It's up"
    assert alert.repairs == (repair,)
    assert json.loads(alert.raw)["properties"] == written
    assert details(alert).ips == ("10.0.0.7",)


def test_properties_that_nobody_can_read_are_left() -> None:
    alert = read(log("MICROSOFT.WEB/SITES", properties="{never 'an' object"))
    assert (alert.title, alert.repairs) == ("Do", ())
    assert [it.type for it in details(alert).entities] == ["resource"]


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("2026-03-04T10:20:00.1234567Z", 1772619600123),
        ("2026-03-04T10: 20: 00.1234567Z", 1772619600123),
        ("03/04/2026 10:20:00", 1772619600000),
        ("2026-03-04T12:20:00+02:00", 1772619600000),
        ("some time", 0),
    ],
)
def test_times_as_services_write_them(written: str, ms: int) -> None:
    assert read(log("MICROSOFT.WEB/SITES", time=written)).event_ms == ms


def test_the_level_is_its_severity_under_either_spelling() -> None:
    assert read(log("X/Y", level="Error")).severity == "medium"
    assert read(log("X/Y", Level="Error")).severity == "medium"
    assert read(log("X/Y", Level=3)).severity_original == "3"
    assert read(log("X/Y")).severity == "unknown"


def test_products_have_names_and_others_their_provider() -> None:
    assert read(log("MICROSOFT.KEYVAULT/VAULTS")).product == "Azure Key Vault"
    assert read(log("MICROSOFT.FOO/BARS")).product == "MICROSOFT.FOO/BARS"
    assert read(without(log("X/Y"), "resourceId")).product == "Azure"


def test_real_records(shared: Path) -> None:
    for alert in samples(shared, "diagnostic_logs"):
        assert alert.kind == "resource_log"
        assert alert.event_ms
        assert alert.title
        assert details(alert).entities
