from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.entities import Entity
from schemas.kinds._entities import file, host, merged, resolve, role, user

MD5, SHA1, SHA256 = "0a" * 16, "1b" * 20, "2c" * 32
VM = "/subscriptions/7f3c1e20/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-1"


def one(**fields: Any) -> Entity:
    (found,) = resolve([fields])
    return found


def named(entities: tuple[Entity, ...]) -> list[tuple[str, str]]:
    return [(entity.type, entity.full_name or entity.path or entity.id) for entity in entities]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (
            {"Type": "account", "Name": "ann", "NTDomain": "CORP", "UPNSuffix": "corp.example"},
            Entity(type="user", name="ann", domain="corp.example", attributes={"NTDomain": "CORP"}),
        ),
        (
            {"Type": "account", "Name": "ann", "NTDomain": "CORP", "Sid": "S-1-5-21-7"},
            Entity(type="user", name="ann", domain="CORP", id="S-1-5-21-7"),
        ),
        (
            {"Type": "account", "Name": "ann", "DnsDomain": "corp.example", "AadUserId": "a-1"},
            Entity(type="user", name="ann", domain="corp.example", id="a-1"),
        ),
        (
            {"Type": "host", "HostName": "vm-1", "DnsDomain": "corp.example", "AzureID": VM},
            Entity(type="host", name="vm-1", domain="corp.example", id=VM),
        ),
        (
            {"Type": "host", "NetBiosName": "VM-1", "NTDomain": "CORP", "IsDomainJoined": True},
            Entity(type="host", name="VM-1", domain="CORP", attributes={"IsDomainJoined": "true"}),
        ),
        (
            {"Type": "host", "HostName": "vm-1", "FQDN": "vm-1.corp.example"},
            Entity(type="host", name="vm-1", domain="corp.example"),
        ),
        (
            {"type": "ip", "address": "192.0.2.7", "location": {"countryCode": "nl", "asn": 7}},
            Entity(type="ip", name="192.0.2.7", attributes={"countryCode": "nl", "asn": "7"}),
        ),
        (
            {"Type": "malware", "Name": "Win32/Odd", "Category": "Trojan"},
            Entity(type="malware", name="Win32/Odd", attributes={"Category": "Trojan"}),
        ),
        (
            {"Type": "file", "Name": "x.exe", "Directory": "c:\\temp", "SizeInBytes": 42},
            Entity(type="file", name="x.exe", path="c:\\temp", attributes={"SizeInBytes": "42"}),
        ),
        (
            {"Type": "process", "ProcessId": "0x1f", "CommandLine": "x -t", "ElevationToken": "A"},
            Entity(
                type="process",
                pid="0x1f",
                command_line="x -t",
                attributes={"ElevationToken": "A"},
            ),
        ),
        (
            {"Type": "cloud-application", "SaasId": 11161, "Name": "Office 365", "AppId": 1},
            Entity(type="application", name="Office 365", id="11161", attributes={"AppId": "1"}),
        ),
        (
            {"Type": "dns", "DomainName": "evil.example"},
            Entity(type="domain", name="evil.example"),
        ),
        (
            {"Type": "azure-resource", "ResourceId": VM, "SubscriptionId": "7f3c1e20"},
            Entity(type="resource", name="vm-1", id=VM, attributes={"SubscriptionId": "7f3c1e20"}),
        ),
        (
            {"Type": "filehash", "Algorithm": "SHA256", "Value": SHA256},
            Entity(type="file", hashes=(SHA256,)),
        ),
        (
            {"Type": "filehash", "Algorithm": "SHA256AC", "Value": SHA256},
            Entity(type="other", name=SHA256, attributes={"Algorithm": "SHA256AC"}),
        ),
        (
            {"Type": "registry-key", "Hive": "HKEY_USERS", "Key": "Software\\Run"},
            Entity(type="registry", path="HKEY_USERS\\Software\\Run"),
        ),
        (
            {"Type": "security-group", "DistinguishedName": "CN=Ops", "SID": "S-1-5-32"},
            Entity(type="group", name="CN=Ops", id="S-1-5-32"),
        ),
        (
            {"Type": "url", "Url": "https://evil.example/x"},
            Entity(type="url", name="https://evil.example/x"),
        ),
        (
            {"Type": "mailbox", "MailboxPrimaryAddress": "a@corp.example", "AadId": "a-1"},
            Entity(type="mailbox", name="a@corp.example", id="a-1"),
        ),
        (
            {"Type": "mail-cluster", "Query": "subject:x", "NetworkMessageIds": ["m1", "m2"]},
            Entity(type="other", name="subject:x", attributes={"NetworkMessageIds": "m1, m2"}),
        ),
        (
            {"Type": "nic", "MacAddress": "00:00:5e:00:53:01"},
            Entity(type="other", name="00:00:5e:00:53:01"),
        ),
        (
            {"Type": "amazon-resource", "AmazonResourceId": "arn:aws:s3:::b", "ResourceName": "b"},
            Entity(type="resource", name="b", id="arn:aws:s3:::b"),
        ),
        (
            {"Type": "gcp-resource", "ProjectId": "17", "ResourceName": "cluster-1"},
            Entity(type="resource", name="cluster-1", attributes={"ProjectId": "17"}),
        ),
        (
            {"Type": "K8s-pod", "Name": "web-0"},
            Entity(type="resource", name="web-0"),
        ),
        (
            {"Type": "kubernetes-secret", "Name": "token"},
            Entity(type="resource", name="token"),
        ),
        (
            {"Type": "container", "ContainerId": "cc8ec8"},
            Entity(type="resource", name="cc8ec8", id="cc8ec8"),
        ),
        (
            {"Type": "something-new", "Name": "n", "Odd": 1.5},
            Entity(type="other", name="n", attributes={"Odd": "1.5"}),
        ),
        (
            {"TYPE": "IP", "ADDRESS": "192.0.2.7"},
            Entity(type="ip", name="192.0.2.7"),
        ),
    ],
)
def test_each_type(fields: dict[str, Any], wanted: Entity) -> None:
    assert one(**fields) == wanted
    assert one(**{"$id": "centralus_1", "Asset": False, "Count": 2} | fields) == wanted


def test_an_iot_device() -> None:
    device, link, address = resolve(
        [
            {
                "$id": "3",
                "Type": "iotdevice",
                "DeviceId": "d-7",
                "DeviceName": "PLC 7",
                "IpAddress": {"$id": "4", "Type": "ip", "Address": "10.7.0.7"},
                "MacAddress": "00:00:5e:00:53:07",
                "Protocols": ["Modbus", "S7"],
                "Sensor": "sensor-1",
                "DevicePageLink": "https://iot.example/d-7",
            }
        ]
    )
    assert device == Entity(
        type="device",
        name="PLC 7",
        id="d-7",
        attributes={
            "IpAddress": "10.7.0.7",
            "MacAddress": "00:00:5e:00:53:07",
            "Protocols": "Modbus, S7",
            "Sensor": "sensor-1",
            "DevicePageLink": "https://iot.example/d-7",
        },
    )
    assert address.name == "10.7.0.7"
    assert link.type == "url"


@pytest.mark.parametrize("kind", ["mail-message", "SubmissionMail"])
def test_a_mail_names_its_sender_recipient_and_urls(kind: str) -> None:
    found = resolve(
        [
            {
                "Type": kind,
                "Subject": "Invoice",
                "NetworkMessageId": "m-1",
                "Sender": "eve@evil.example",
                "SenderIP": "203.0.113.9",
                "Recipient": "ann@corp.example",
                "Urls": ["https://evil.example/x"],
            }
        ]
    )
    assert [(entity.type, entity.name, entity.role) for entity in found] == [
        ("message", "Invoice", ""),
        ("mailbox", "eve@evil.example", "source"),
        ("ip", "203.0.113.9", "source"),
        ("mailbox", "ann@corp.example", "target"),
        ("url", "https://evil.example/x", ""),
    ]
    assert found[0].id == "m-1"


def process_list() -> list[Any]:
    return [
        {"$id": "2", "Type": "host", "HostName": "vm-1"},
        {
            "$id": "3",
            "Type": "process",
            "ProcessId": "7",
            "CommandLine": "x -t",
            "Host": {"$ref": "2"},
            "Account": {"$id": "4", "Type": "account", "Name": "ann", "NTDomain": "CORP"},
            "ImageFile": {
                "$id": "5",
                "Type": "file",
                "Name": "x.exe",
                "Directory": "c:\\temp",
                "FileHashes": [
                    {"$ref": "6"},
                    {"$id": "7", "Type": "filehash", "Algorithm": "SHA1", "Value": SHA1},
                    {"$id": "8", "Type": "filehash", "Algorithm": "SHA256AC", "Value": SHA256},
                ],
            },
            "ParentProcess": {"$id": "9", "ProcessId": "1", "Type": "process"},
        },
        {"$id": "6", "Type": "filehash", "Algorithm": "MD5", "Value": MD5},
        {"$ref": "5"},
        {"$ref": "99"},
        {"$id": "10", "Type": "process", "CommandLine": "y", "ParentProcess": {"$ref": "3"}},
        {"$id": "11", "Type": "file", "Name": "copy.exe", "FileHashes": [{"$ref": "7"}]},
    ]


def test_a_process_has_image_account_host_and_parent() -> None:
    found = resolve(process_list())
    assert named(found) == [
        ("host", "vm-1"),
        ("process", "c:\\temp\\x.exe"),
        ("user", "CORP\\ann"),
        ("file", "c:\\temp\\x.exe"),
        ("process", ""),
        ("file", "copy.exe"),
    ]
    process, image, child, copy = found[1], found[3], found[4], found[5]
    assert (process.pid, process.parent_pid, process.command_line) == ("7", "1", "x -t")
    assert process.attributes == {"Host": "vm-1", "Account": "CORP\\ann"}
    assert process.hashes == image.hashes == (MD5, SHA1)
    assert image.attributes == {"SHA256AC": SHA256}
    assert (child.command_line, child.parent_pid) == ("y", "7")
    assert copy.hashes == (SHA1,)  # of an entity that another one holds


def test_a_process_written_in_two_ways_is_one() -> None:
    ways = (
        Entity(type="process", name="x.exe", path="c:\\temp", pid="7", command_line=".\\x.exe -t"),
        Entity(type="process", name="X.exe", pid="7", command_line="x.exe -t"),
        Entity(type="process", name="x.exe", pid="8", command_line="x.exe -t"),
    )
    assert merged(ways) == (ways[0], ways[2])


def test_a_list_may_be_a_string() -> None:
    assert resolve(json.dumps(process_list())) == resolve(process_list())
    before, _, _ = json.dumps(process_list()).partition('"CommandLine"')
    assert resolve(before) == resolve(process_list()[:1])  # cut off
    assert resolve(process_list()[0]) == resolve(process_list()[:1])


def evidence(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@odata.type": f"#microsoft.graph.security.{kind}Evidence", "roles": []} | fields


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        (
            evidence("device", deviceDnsName="pc-1.corp.example", mdeDeviceId="d1"),
            [("host", "pc-1.corp.example")],
        ),
        (
            evidence(
                "user",
                userAccount={"@odata.type": "#microsoft.graph.security.userAccount"}
                | {"accountName": "ann", "domainName": "CORP", "userSid": "S-1"},
            ),
            [("user", "CORP\\ann")],
        ),
        (
            evidence(
                "user", userAccount={"accountName": "a", "userPrincipalName": "ann@x.example"}
            ),
            [("user", "ann@x.example")],
        ),
        (evidence("ip", ipAddress="192.0.2.7"), [("ip", "192.0.2.7")]),
        (evidence("url", url="https://x.example"), [("url", "https://x.example")]),
        (
            evidence("file", fileDetails={"fileName": "x.exe", "filePath": "C:\\T", "sha1": SHA1}),
            [("file", "C:\\T\\x.exe")],
        ),
        (
            evidence("registryKey", registryHive="HKEY_USERS", registryKey="console"),
            [("registry", "HKEY_USERS\\console")],
        ),
        (evidence("mailbox", primaryAddress="a@x.example"), [("mailbox", "a@x.example")]),
        (
            evidence(
                "analyzedMessage",
                subject="Invoice",
                p1Sender={"emailAddress": "eve@evil.example"},
                recipientEmailAddress="ann@x.example",
            ),
            [
                ("message", "Invoice"),
                ("mailbox", "ann@x.example"),
                ("mailbox", "eve@evil.example"),
            ],
        ),
        (evidence("oauthApplication", appId="a-1", displayName="App"), [("application", "App")]),
        (evidence("servicePrincipal", servicePrincipalName="sp"), [("application", "sp")]),
        (evidence("azureResource", resourceId=VM), [("resource", "vm-1")]),
        (evidence("amazonResource", resourceName="b"), [("resource", "b")]),
        (evidence("googleCloudResource", fullResourceName="//x/y"), [("resource", "y")]),
        (
            evidence("kubernetesPod", name="web-0", podIp=evidence("ip", ipAddress="10.1.0.7")),
            [("resource", "web-0"), ("ip", "10.1.0.7")],
        ),
        (
            evidence("container", name="web", image=evidence("containerImage", imageId="i:1")),
            [("resource", "web"), ("resource", "i:1")],
        ),
        (
            evidence(
                "networkConnection",
                sourceAddress=evidence("ip", ipAddress="10.1.0.7"),
                destinationAddress=evidence("ip", ipAddress="192.0.2.7"),
            ),
            [("ip", "10.1.0.7"), ("ip", "192.0.2.7")],
        ),
        (evidence("ioTDevice", deviceName="PLC 7", deviceId="d-7"), [("device", "PLC 7")]),
        (evidence("securityGroup", displayName="Ops"), [("group", "Ops")]),
        (evidence("malware", name="Odd", category="Trojan"), [("malware", "Odd")]),
        (evidence("dns", domainName="x.example"), [("domain", "x.example")]),
        (evidence("gitHubUser", login="octo"), [("other", "octo")]),
    ],
)
def test_each_type_of_graphs_evidence(item: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert named(resolve([item])) == wanted


def test_the_role_that_evidence_has() -> None:
    found = resolve(
        [
            evidence("ip", ipAddress="192.0.2.7", roles=["contextual", "attacker"]),
            evidence("url", url="https://x.example", roles=["suspicious"]),
        ]
    )
    assert [entity.role for entity in found] == ["actor", ""]


@pytest.mark.parametrize(
    "value", [None, "", "None", "[{", '[{"Type":"ip"', 7, True, "7", '"x"', "[" * 5000, "\ud800"]
)
def test_of_anything_else_there_are_none(value: Any) -> None:
    assert resolve(value) == ()


def test_of_repeated_ids_the_last_fitting_one_before_is_meant() -> None:
    first, second, account = (
        {"$id": "5", "Type": "host", "HostName": "vm-1"},
        {"$id": "5", "Type": "host", "HostName": "vm-2"},
        {"$id": "6", "Type": "account", "Name": "ann", "Host": {"$ref": "5"}},
    )
    dns = {"$id": "5", "Type": "dns", "DomainName": "x.example"}
    assert resolve([first, account, second])[1].attributes == {"Host": "vm-1"}
    assert resolve([first, second, account])[2].attributes == {"Host": "vm-2"}
    assert resolve([first, dns, account])[2].attributes == {"Host": "vm-1"}
    assert resolve([account, first])[0].attributes == {"Host": "vm-1"}
    assert resolve([account, dns])[0].attributes == {}


def test_references_may_form_a_cycle() -> None:
    found = resolve(
        [
            {"$id": "1", "Type": "process", "ProcessId": "1", "ParentProcess": {"$ref": "2"}}
            | {"CommandLine": "a"},
            {"$id": "2", "Type": "process", "ProcessId": "2", "ParentProcess": {"$ref": "1"}}
            | {"CommandLine": "b"},
            {"$id": "3", "Type": "process", "CommandLine": "c", "ParentProcess": {"$ref": "3"}},
        ]
    )
    assert [(entity.pid, entity.parent_pid) for entity in found] == [
        *(("1", "2"), ("2", "1"), ("", "")),
    ]


def test_the_misspelled_addresses_of_a_domain() -> None:
    ip = {"$id": "6", "Address": "192.0.2.7", "Type": "ip"}
    for fields in ({"IpAdresses": [ip]}, {"IpAddress": [ip]}, {"ipAddresses": ["192.0.2.7"]}):
        found = resolve([{"Type": "dns", "DomainName": "x.example"} | fields])
        assert named(found) == [("domain", "x.example"), ("ip", "192.0.2.7")]


def test_the_ends_of_a_connection_have_roles_and_ports() -> None:
    source, target = resolve(
        [
            {"$id": "1", "Type": "ip", "Address": "192.0.2.7"},
            {
                "Type": "network-connection",
                "SourceAddress": {"$ref": "1"},
                "DestinationAddress": {"$id": "2", "Type": "ip", "Address": "192.0.2.8"},
                "DestinationPort": 502,
                "Protocol": "Tcp",
            },
        ]
    )
    assert (source.role, source.port, source.attributes) == ("source", "", {"Protocol": "Tcp"})
    assert (target.role, target.port) == ("target", "502")


def test_things_of_kubernetes_and_storage_tell_what_they_are_in() -> None:
    found = resolve(
        [
            {"$id": "1", "Type": "azure-resource", "ResourceId": "/subscriptions/1/c/aks"},
            {"$id": "2", "Type": "K8s-cluster", "CloudResource": {"$ref": "1"}},
            {"$id": "3", "Type": "K8s-namespace", "Name": "shop", "Cluster": {"$ref": "2"}},
            {"$id": "4", "Type": "K8s-pod", "Name": "web-0", "Namespace": {"$ref": "3"}},
            {"Type": "container", "Name": "web", "Pod": {"$ref": "4"}},
            {"Type": "blob", "Name": "x.txt", "Url": "https://st.blob.example/x.txt"},
        ]
    )
    assert named(found) == [
        ("resource", "aks"),  # a cluster has no name but its resource's
        ("resource", "shop"),
        ("resource", "web-0"),
        ("resource", "web"),
        ("resource", "x.txt"),
        ("url", "https://st.blob.example/x.txt"),
    ]
    assert [entity.attributes for entity in found[2:4]] == [{"Namespace": "shop"}, {"Pod": "web-0"}]


def test_a_registry_value_has_its_keys_path() -> None:
    found = resolve(
        [
            {"$id": "1", "Type": "registry-key", "Hive": "HKEY_USERS", "Key": "console"},
            {"Type": "registry-value", "Name": "x", "Value": "7", "Key": {"$ref": "1"}},
        ]
    )
    assert found[1] == Entity(
        type="registry",
        name="x",
        path="HKEY_USERS\\console",
        attributes={"Value": "7"},
    )


def test_a_hosts_users_and_addresses_are_told() -> None:
    found = resolve(
        [
            {
                "Type": "host",
                "HostName": "vm-1",
                "LastIpAddress": "10.0.0.7",
                "LoggedOnUsers": [{"AccountName": "ann", "DomainName": "CORP"}],
            }
        ]
    )
    assert named(found) == [("host", "vm-1"), ("ip", "10.0.0.7"), ("user", "CORP\\ann")]


def test_the_alerts_of_a_list_are_no_entities() -> None:
    assert resolve([{"Type": "alerts", "DisplayName": "x", "SystemAlertIds": ["7"]}]) == ()


def test_of_keys_that_differ_only_in_case_the_first_with_a_value_counts() -> None:
    assert one(TYPE="HOST", HostName=None, hostname="vm-1", HOSTNAME="vm-2", Tag="x", tag="y") == (
        Entity(type="host", name="vm-1", attributes={"Tag": "x"})
    )
    for other in ("vm-1", "vm-2"):  # the same keys, another type
        assert one(TYPE="process", HostName=other, hostname=None, CommandLine="x") == Entity(
            type="process", command_line="x", attributes={"HostName": other}
        )


def test_names_are_taken_apart() -> None:
    assert user("CORP\\ann") == Entity(type="user", name="ann", domain="CORP")
    assert user("ann@corp.example", "CORP") == user("ann", "corp.example")
    assert user("AWS:1/us/i-4\\").name == "AWS:1/us/i-4\\"
    assert user("ann@vm-1").name == "ann@vm-1"
    assert host("vm-1.corp.example.") == host("vm-1", "corp.example")
    assert host("10.0.0.7").name == "10.0.0.7"
    assert host("a b.c").name == "a b.c"
    assert file("c:\\temp\\x.exe") == file("x.exe", "c:\\temp") == file("x.exe", "c:\\temp\\x.exe")
    assert file("/x") == file("x", "/")
    assert file("c:\\temp\\").name == "c:\\temp\\"
    assert role(["Odd", "Attacked"]) == "target"


def test_what_has_only_a_name_is_the_thing_of_that_name() -> None:
    weak, strong = host("VM-1"), host("vm-1", id=VM, attributes={"a": "1"})
    assert merged([weak, strong]) == (msgspec.structs.replace(strong, name="VM-1"),)
    assert merged([strong, host("vm-1", id="other"), weak])[0] == strong
    assert merged([weak, user("vm-1")]) == (weak, user("vm-1"))
    twice = merged(
        [
            Entity(type="ip", name="192.0.2.7", attributes={"a": "1"}),
            Entity(type="ip", name="192.0.2.7", role="source", attributes={"a": "2", "b": "3"}),
        ]
    )
    assert twice == (
        Entity(type="ip", name="192.0.2.7", role="source", attributes={"a": "1", "b": "3"}),
    )


keys = st.sampled_from(
    [
        *("$id", "$ref", "Type", "type", "Name", "HostName", "Address", "Url", "Key", "Hive"),
        *("Host", "Account", "ImageFile", "ParentProcess", "FileHashes", "IpAdresses", "Files"),
        *("SourceAddress", "Value", "ProcessId", "CommandLine", "Sender", "Urls", "Location"),
    ]
)
types = st.sampled_from(
    [
        *("account", "host", "ip", "file", "process", "filehash", "dns", "network-connection"),
        *("registry-value", "registry-key", "mail-message", "K8s-pod", "iotdevice", "odd", ""),
    ]
)
leaves = st.one_of(
    st.sampled_from(["1", "2", "3", "x", MD5]),
    types,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=20,
)
typed = st.builds(
    lambda fields, said: fields | {"Type": said}, st.dictionaries(keys, anything), types
)


@given(st.one_of(anything, st.lists(st.one_of(typed, anything), max_size=6)))
@example([{"Type": "host", "Type ": 1, "HostName": "a" * 10_000 + "."}])
def test_any_graph_has_an_end(value: Any) -> None:
    found = resolve(value)
    assert len(found) == len(set(map(repr, found)))
    assert merged(found) == found
    for entity in found:
        assert entity.name or entity.id or entity.path or entity.hashes or entity.command_line
        msgspec.msgpack.decode(msgspec.msgpack.encode(entity), type=Entity)
