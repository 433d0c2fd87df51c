"""Microsoft's types of security entities: which of their fields says what.

Sources: "Microsoft Sentinel entity types reference" (learn.microsoft.com, azure/sentinel/
entities-reference); "alertEvidence resource type" and its derived types (graph/api/resources/
security-alertevidence); Defender for Cloud's types for Kubernetes, AWS, Google and storage, and
the key `IpAdresses`, from real alerts.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.entities import EntityType, Role

__all__ = [
    "ALERTS",
    "HELD",
    "INSIDE",
    "NO_ENTITIES",
    "ROLES",
    "SAID_ROLES",
    "UNTOLD",
    "Shape",
    "known",
    "shape",
]


class Shape(NamedTuple):
    """The fields, in lower case and the best first, that hold what of an entity."""

    type: EntityType
    name: tuple[str, ...] = ("name", "displayname")
    id: tuple[str, ...] = ("id",)
    domain: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


_OTHER = Shape("other", ("name", "displayname", "friendlyname", "fullname", "login"))
_RESOURCE = Shape("resource", ("resourcename", "name", "displayname"), ("resourceid", "id"))
_REGISTRY = ("key", "registrykey")
# Types in lower case, without `-`, `_` and blanks.
_SHAPES = {
    "account": Shape(
        "user",
        ("userprincipalname", "upn", "name", "accountname", "fullname", "displayname"),
        ("aaduserid", "azureaduserid", "objectguid", "sid", "usersid", "puid"),
        ("upnsuffix", "dnsdomain", "ntdomain", "domainname"),
    ),
    "host": Shape(
        "host",
        ("hostname", "devicednsname", "fqdn", "fullname", "netbiosname", "name"),
        ("azureid", "mdatpdeviceid", "mdedeviceid", "azureaddeviceid", "omsagentid"),
        ("dnsdomain", "ntdomain"),
    ),
    "ip": Shape("ip", ("address", "ipaddress"), ()),
    "malware": Shape("malware"),
    "file": Shape("file", ("name", "filename"), (), (), ("directory", "path", "filepath")),
    "process": Shape("process", ("name",), ()),
    "cloudapplication": Shape(
        "application", ("name", "displayname", "instancename"), ("saasid", "saasappid", "appid")
    ),
    "oauthapplication": Shape(
        "application", ("name", "displayname"), ("oauthappid", "appid", "objectid")
    ),
    "serviceprincipal": Shape(
        "application", ("serviceprincipalname", "name"), ("serviceprincipalobjectid", "appid")
    ),
    "aiagent": Shape("application", ("agentname",), ("agentid",)),
    "dns": Shape("domain", ("domainname",), ()),
    "domain": Shape("domain", ("domainname", "name"), ()),
    "activedirectorydomain": Shape("domain", ("activedirectorydomainname", "name"), ()),
    "azureresource": _RESOURCE,
    "amazonresource": Shape(
        "resource", ("resourcename", "name"), ("amazonresourceid", "arn", "resourceid")
    ),
    "gcpresource": Shape("resource", ("resourcename", "name"), ("fullresourcename", "resourceid")),
    "registrykey": Shape("registry", (), (), (), _REGISTRY),
    "registryvalue": Shape("registry", ("name", "registryvaluename"), (), (), _REGISTRY),
    "securitygroup": Shape(
        "group",
        ("distinguishedname", "name", "displayname", "friendlyname"),
        ("sid", "objectguid", "securitygroupid"),
    ),
    "url": Shape("url", ("url",), ()),
    "iotdevice": Shape("device", ("devicename", "name", "deviceid"), ("deviceid",)),
    "nic": Shape("other", ("macaddress",), ()),
    "mailbox": Shape(
        "mailbox",
        ("mailboxprimaryaddress", "primaryaddress", "emailaddress", "upn", "displayname"),
        ("aadid", "externaldirectoryobjectid"),
    ),
    "mailcluster": Shape("other", ("query", "clusterby"), ()),
    "mailmessage": Shape("message", ("subject",), ("networkmessageid", "internetmessageid")),
    "submissionmail": Shape("message", ("subject",), ("networkmessageid", "submissionid")),
    "teamsmessage": Shape("message", ("subject", "threadname"), ("messageid", "threadid")),
    "container": Shape("resource", ("name", "containerid"), ("containerid",)),
    "containerimage": Shape("resource", ("imageid", "name"), ("digestimage", "digest", "imageid")),
    "containerregistry": Shape("resource", ("registry", "name")),
    "cloudlogonsession": Shape("other", (), ("sessionid",)),
    "cloudlogonrequest": Shape("other", (), ("requestid",)),
}
_RESOURCES = ("k8s", "blob", "container", "storage", "fileshare", "database")
_ALIASES = {
    "user": "account",
    "machine": "host",
    "device": "host",
    "ipaddress": "ip",
    "dnsresolution": "dns",
    "analyzedmessage": "mailmessage",
    "mailboxcluster": "mailcluster",
    "awsresource": "amazonresource",
    "googlecloudresource": "gcpresource",
    "group": "securitygroup",
}
ALERTS = frozenset({"alert", "alerts", "securityalert"})
NO_ENTITIES = ALERTS | {"networkconnection", "hostlogonsession"}
HELD = {
    "host": "host",
    "account": "account",
    "useraccount": "account",
    "loggedonusers": "account",
    "filedetails": "file",
    "imagefile": "file",
    "parentprocessimagefile": "file",
    "files": "file",
    "parentprocess": "process",
    "processes": "process",
    "filehashes": "filehash",
    "hosturl": "url",
    "referrerurl": "url",
    "url": "url",
    "urls": "url",
    "sourceref": "url",
    "devicepagelink": "url",
    "ipaddress": "ip",
    "ipadresses": "ip",
    "ipaddresses": "ip",
    "ipinterfaces": "ip",
    "lastipaddress": "ip",
    "lastexternalipaddress": "ip",
    "dnsserverip": "ip",
    "hostipaddress": "ip",
    "podip": "ip",
    "senderip": "ip",
    "sourceaddress": "ip",
    "destinationaddress": "ip",
    "key": "registrykey",
    "cluster": "k8scluster",
    "namespace": "k8snamespace",
    "pod": "k8spod",
    "controller": "k8scontroller",
    "serviceaccount": "k8sserviceaccount",
    "image": "containerimage",
    "registry": "containerregistry",
    "blobcontainer": "blobcontainer",
    "vmmetadata": "azureresource",
    "storageresource": "azureresource",
    "iothub": "azureresource",
    "relatedazureresourceids": "azureresource",
    "nics": "nic",
    "iotdevice": "iotdevice",
    "sender": "mailbox",
    "senderfromaddress": "mailbox",
    "p1sender": "mailbox",
    "p2sender": "mailbox",
    "submitter": "mailbox",
    "recipient": "mailbox",
    "recipients": "mailbox",
    "recipientemailaddress": "mailbox",
    "forwardedrecipients": "mailbox",
    "suspiciousrecipients": "mailbox",
}
"""What an entity holds, or refers to, under a key: its type where it does not say so itself."""

INSIDE = {"account": "useraccount", "file": "filedetails"}
"""Where Graph puts an entity's own fields."""

ROLES: dict[str, Role] = {
    "sender": "source",
    "senderfromaddress": "source",
    "senderip": "source",
    "p1sender": "source",
    "p2sender": "source",
    "sourceaddress": "source",
    "submitter": "actor",
    "recipient": "target",
    "recipients": "target",
    "recipientemailaddress": "target",
    "destinationaddress": "target",
}
"""The role of what stands under a key."""

SAID_ROLES: dict[str, Role] = {
    "attacker": "actor",
    "source": "source",
    "destination": "target",
    "attacked": "target",
    "compromised": "target",
    "scanned": "target",
    "edited": "target",
}
"""Ours for Microsoft's evidence roles; the others say what became of a thing, not its part."""

UNTOLD = frozenset(
    {
        *("$id", "$type", "@odata.type", "type", "asset", "count", "role", "roles"),
        *("filehashes", "md5", "sha1", "sha256", "imagefile", "parentprocess"),
        *("processid", "parentprocessid", "commandline", "processcommandline"),
        *("hive", "registryhive", "useraccount", "filedetails"),
    }
)
"""Fields that are no attributes: they say something else of the entity, or nothing."""


def known(said: str) -> str:
    """A type, or the name of Graph's type of evidence, as the tables here spell it."""
    folded = said.lower().replace("-", "").replace("_", "").replace(" ", "")
    if folded.startswith("#"):
        folded = folded.rpartition(".")[2]
        if not folded.endswith("evidence"):
            return ""  # of a value inside of evidence
        folded = folded[: -len("evidence")]
    return _ALIASES.get(folded, folded.replace("kubernetes", "k8s"))


def shape(kind: str) -> Shape:
    """Of a `known` type; of any other one too."""
    found = _SHAPES.get(kind)
    if found is None:
        found = _RESOURCE if kind.startswith(_RESOURCES) else _OTHER
    return found
