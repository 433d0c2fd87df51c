"""Azure resource logs: what any Azure resource's diagnostic settings stream.

The top level is common to all services, `properties` is each service's own. Its fields are known
here by the names that the services use for addresses, accounts, hosts, URLs and results: Key
Vault, Storage, Application Gateway, Front Door, web application and other firewalls, SQL, MySQL,
Kubernetes, App Service, network flows. Sources: "Common and service-specific schemas for Azure
resource logs", the services' references of their logs, "Flow logging for network security
groups", "Virtual network flow logs" (learn.microsoft.com).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.kinds import _base, _entities, _monitor, _values
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._things import address, hosts, resource, things
from schemas.kinds._values import Folded, attributes, first, folded, listed, texts

__all__ = ["KIND"]

NAME = "resource_log"
_PRODUCTS = {
    "microsoft.apimanagement/service": "Azure API Management",
    "microsoft.cdn/profiles": "Azure Front Door",
    "microsoft.cognitiveservices/accounts": "Azure AI Services",
    "microsoft.containerservice/managedclusters": "Azure Kubernetes Service",
    "microsoft.dbformysql/servers": "Azure Database for MySQL",
    "microsoft.dbformysql/flexibleservers": "Azure Database for MySQL",
    "microsoft.dbforpostgresql/servers": "Azure Database for PostgreSQL",
    "microsoft.dbforpostgresql/flexibleservers": "Azure Database for PostgreSQL",
    "microsoft.documentdb/databaseaccounts": "Azure Cosmos DB",
    "microsoft.eventhub/namespaces": "Azure Event Hubs",
    "microsoft.keyvault/managedhsms": "Azure Key Vault",
    "microsoft.keyvault/vaults": "Azure Key Vault",
    "microsoft.logic/workflows": "Azure Logic Apps",
    "microsoft.network/applicationgateways": "Azure Application Gateway",
    "microsoft.network/azurefirewalls": "Azure Firewall",
    "microsoft.network/bastionhosts": "Azure Bastion",
    "microsoft.network/frontdoors": "Azure Front Door",
    "microsoft.network/networksecuritygroups": "Azure Network Watcher",
    "microsoft.network/networkwatchers": "Azure Network Watcher",
    "microsoft.network/publicipaddresses": "Azure DDoS Protection",
    "microsoft.sql/servers": "Azure SQL",
    "microsoft.storage/storageaccounts": "Azure Storage",
    "microsoft.web/sites": "Azure App Service",
}
_PROVIDER = re.compile(r"/providers/([^/]+/[^/]+)", re.IGNORECASE)
_OPERATIONS = ("event_subclass", "action_name", "verb")
_SOURCES = (
    *("calleripaddress", "clientip", "clientipaddress", "client_ip", "socketip", "sourceip"),
    *("source_addr", "sourceaddress", "srcip", "src_ip", "ip", "ipaddress", "remoteip", "cip"),
    *("requesteripaddress", "userip"),
)
_TARGETS = (
    *("originip", "serverrouted", "destinationip", "destip", "dst_ip", "destinationaddress"),
    *("backendip", "serverip"),
)
_HOSTS = (
    *("logicalservername", "servername", "server_instance_name", "host", "hostname", "host_name"),
    *("originalhost", "endpoint", "originname", "cshost", "fqdn", "computer", "computername"),
)
_USERS = (
    *("user", "username", "user_name", "userprincipalname", "upn", "cusername", "caller"),
    *("server_principal_name", "session_server_principal_name", "principalname"),
)
_URLS = ("uri", "requesturi", "requesturl", "url", "targeturl", "probeurl", "originurl")
_ATTRIBUTES = {
    "category": "category",
    "level": "level",
    "correlationid": "correlation_id",
    "tenantid": "tenant_id",
    "workspaceid": "workspace_id",
    "transactionid": "transaction_id",
    "trackingreference": "tracking_reference",
    "requestid": "request_id",
    "clientrequestid": "client_request_id",
    "activityid": "activity_id",
    "functioninvocationid": "invocation_id",
    "healthprobeid": "health_probe_id",
    "instanceid": "instance_id",
    "hostinstanceid": "instance_id",
    "accountname": "account",
    "flowlogguid": "flow_log_id",
    "aclid": "acl_id",
    "macaddress": "mac_address",
    "resulttype": "result",
    "resultsignature": "sub_status",
    "statustext": "result",
    "requesturi": "request_uri",
    "httpmethod": "http_method",
    "method": "http_method",
    "httpverb": "http_method",
    "httpstatus": "http_status",
    "httpstatuscode": "http_status",
    "statuscode": "http_status",
    "useragent": "user_agent",
    "useragentheader": "user_agent",
    "clientinfo": "user_agent",
    "rulename": "rule",
    "ruleid": "rule",
    "rule": "rule",
    "policy": "policy",
    "policyid": "policy",
    "action": "action_taken",
    "protocol": "protocol",
    "tlsversion": "tls_version",
    "db": "database",
    "database_name": "database",
    "statement": "statement",
    "sql_text": "statement",
    "functionname": "function",
}
_MESSAGE = re.compile(  # Azure Firewall's
    r"from ([0-9a-fA-F.:\[\]]+?):(\d+) to ([^\s:]+|\[[^\]]+\]):(\d+)\.? Action: (\w+)"
)
_TUPLE_TIMES = re.compile(rb'"(\d{10}|\d{13}),[0-9a-fA-F.:]+,')
_MOST_FLOWS = 10_000


class Row(_base.Row, kw_only=True, gc=False):
    time: str  # services write it in their own ways
    resourceId: str
    category: str
    operationName: str
    correlationId: str | None = None
    resultDescription: str | None = None
    level: str | int | None = None
    Level: None = None  # what has it is read leniently
    properties: msgspec.Raw = ABSENT
    # As some services and Log Analytics call them.
    timeStamp: str | None = None
    TimeGenerated: str | None = None
    resource_id: str | None = msgspec.field(name="_ResourceId", default=None)
    targetResourceID: str | None = None
    SubscriptionId: str | None = None


class Properties(_base.Row, kw_only=True, gc=False):
    """What an alert needs of `properties`."""

    message: str | None = None
    msg: str | None = None
    ruleName: str | None = None


def tells(fields: Fields) -> bool:
    return any(name in fields for name in ("category", "operationName")) and any(
        name in fields for name in ("time", "timeStamp", "TimeGenerated")
    )


def read(row: Row, raw: bytes) -> Alert:
    properties, repair = _values.part(Properties, row.properties)
    main = row.resourceId or row.resource_id or row.targetResourceID or ""
    resources = _base.unique(item for item in (main, row.targetResourceID) if item)
    content = _base.body_hash(raw)
    entity = row.correlationId or content
    level = "" if row.level is None else str(row.level)
    operation, category = row.operationName or "", row.category or ""
    began, ended = _flow_times(operation, category, raw)
    provider = found[1] if (found := _PROVIDER.search(main)) else ""
    subscription = _base.subscription_of(main) or (row.SubscriptionId or "").lower()
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, content),
        entity=entity,
        version=content,
        title=operation or category,
        description=row.resultDescription
        or properties.message
        or properties.msg
        or properties.ruleName
        or "",
        severity=_monitor.level(level),
        severity_original=level,
        event_ms=_millis(row.time or row.timeStamp or row.TimeGenerated),
        start_ms=began,
        end_ms=ended,
        subscription_id=subscription,
        resource_ids=resources,
        resource=_base.short_name(main),
        product=_PRODUCTS.get(provider.lower()) or provider or "Azure",
        alert_type="/".join(filter(None, (category, operation))),
        raw=raw,
        repairs=(repair,) if repair else (),
    )


def _millis(written: str | None) -> int:
    if not written:
        return 0
    # "T07: 45: 44Z" has been seen.
    return _base.millis(_base.moment(written) or _base.moment(written.replace(": ", ":")))


def _flow_times(operation: str, category: str, raw: bytes) -> tuple[int, int]:
    """When the first and the last flow of a flow log were; not decoded: there may be thousands."""
    if "flow" not in operation.lower() + category.lower():
        return 0, 0
    times = [int(found[1].ljust(13, b"0")) for found in _TUPLE_TIMES.finditer(raw)]
    return (min(times), max(times)) if times else (0, 0)


def details(raw: bytes) -> Details:
    around = _values.record(raw)
    inner = folded(around.get("properties"))
    inner = folded(inner.get("properties")) | inner  # as of a vault that was changed
    kubernetes = folded(inner.get("log"))
    fields = kubernetes | inner | around
    flows = [flow for text in _tuples(fields) if len(flow := text.split(",")) > 7]
    entities = (
        *_principals(fields.get("identity"), fields),
        *_addresses(fields, flows),
        *_things(fields, inner),
    )
    return Details(
        entities=things(entities),
        action=first(fields, *_OPERATIONS, "operationname", "category"),
        outcome=_outcome(fields, flows),
        attributes=attributes(fields, _ATTRIBUTES),
    )


def _outcome(fields: Folded, flows: list[list[str]]) -> Literal["", "success", "failure"]:
    if flows:
        decided = {flow[7] for flow in flows}
        return "" if len(decided) > 1 else "failure" if decided == {"D"} else "success"
    status = folded(fields.get("responsestatus"))
    # First the HTTP status: to Key Vault it is a Success that it said 403.
    codes = texts(fields | status, "httpstatuscode", "httpstatus", "statuscode", "code")
    words = texts(fields, "resulttype", "statustext", "succeeded", "action", "metricresponsetype")
    message = _MESSAGE.search(first(fields, "msg"))
    said = message[5] if message else first(fields, "resultsignature")
    return _monitor.outcome(*codes, *words, said)


def _principals(identity: Any, fields: Folded) -> Iterator[Entity]:
    """Who called: the claims of a token, a Storage requester, a plain name."""
    said = folded(identity)
    claims = folded(said.get("claim") or said.get("claims") or said.get("requester"))
    yield from _monitor.principals(claims)
    if isinstance(identity, str) and not said:
        yield _entities.user(identity, role="actor")
    for text in texts(fields, *_USERS):
        yield _entities.user(text, role="actor")
    yield _entities.user(first(folded(fields.get("user")), "username"), role="actor")


def _addresses(fields: Folded, flows: list[list[str]]) -> Iterator[Entity]:
    for text in texts(fields, *_SOURCES):
        yield from address(text, "source")
    for text in listed(fields.get("sourceips"))[:64]:
        yield from address(_entities.scalar(text), "source")
    for text in texts(fields, *_TARGETS):
        yield from address(text, "target")
    for text in texts(fields, "eventipaddress"):
        yield from address(text)
    for found in map(_MESSAGE.search, texts(fields, "msg")):
        if found:
            yield from address(f"[{found[1]}]:{found[2]}", "source")
            yield from hosts(f"{found[3]}:{found[4]}", "target")
    ends: dict[tuple[str, Role], None] = {}
    for flow in flows:
        source, target = flow[1:3]
        if len(flows) == 1:
            source, target = f"[{source}]:{flow[3]}", f"[{target}]:{flow[4]}"
        if "source_addr" not in fields:  # a collector's, which has put it right
            ends[source, "source"] = None
        ends[target, "target"] = None
    for text, role in ends:
        yield from address(text, role)


def _tuples(fields: Folded) -> Iterator[str]:
    """A flow log's flows, `time,source,target,port,port,protocol,direction,decision,…`: singly,
    or in groups by rule and by interface."""
    left = _MOST_FLOWS
    for name, value in fields.items():
        if name.startswith("flow.") and isinstance(value, str):
            yield value
    waiting = [fields.get("flows"), folded(fields.get("flowrecords")).get("flows")]
    while waiting:
        for group in map(folded, listed(waiting.pop())):
            waiting += [group.get("flows"), group.get("flowgroups")]
            for item in listed(group.get("flowtuples"), left):
                if isinstance(item, str):
                    left -= 1
                    yield item


def _things(fields: Folded, inner: Folded) -> Iterator[Entity]:
    for text in texts(fields, *_HOSTS):
        if "/" not in text:
            yield from hosts(text, "source" if text == first(fields, "host_name") else "")
    website = first(fields, "host", "originalhost", "hostname")
    for text in texts(fields, *_URLS):
        if "://" not in text and website and text[0] == "/":
            scheme = "http" if first(fields, "sslenabled").lower() == "off" else "https"
            text = f"{scheme}://{website}{text}"
        yield Entity(type="url", name=text, role="target")
    for text in texts(fields, "resourceid", "_resourceid", "targetresourceid"):
        yield from resource(text, "target")
    known_as = first(inner, "id")
    is_of_vault = known_as.startswith("https://")  # a key, a secret, a certificate
    for text in (*([known_as] if is_of_vault else ()), *texts(fields, "objectkey")):
        yield Entity(type="resource", name=_entities.last_part(text), id=text, role="target")
    certificate = folded(inner.get("certificateproperties"))
    yield Entity(
        type="other",
        name=first(certificate, "subject"),
        hashes=tuple(filter(_entities.is_hash, texts(certificate, "sha1", "sha256"))),
    )
    about = folded(fields.get("objectref"))
    yield Entity(
        type="resource",
        name=first(about, "name"),
        role="target",
        attributes=attributes(about, {"resource": "resource", "namespace": "namespace"}),
    )


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`time`, and `category` or `operationName`",
    general=True,
)
