"""Defender XDR: rows of the advanced hunting tables, as the streaming API sends them (in
`properties`), as Log Analytics exports its copies of the tables, and as a query returns them.

Source: "Understand the advanced hunting schema" and the tables' pages (learn.microsoft.com,
defender-xdr/advanced-hunting-…-table), "Supported streaming event types". A row's `ReportId` counts
up on a device and starts again, so device and time belong to it. Rows of some tables share theirs:
the URLs of one mail, the adapters of one device, the evidence of one alert. `Timestamp` is the
event's time, `time` that of its arrival in the service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.kinds import _base, _columns, _entities, _mitre, _values, office_activity
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._columns import Columns, account
from schemas.kinds._monitor import outcome
from schemas.kinds._things import address, endpoint, hashes, hostname, resource, things
from schemas.kinds._values import listed, objects, opened, plain

__all__ = ["KIND"]

NAME = "xdr"
_CATEGORY = "AdvancedHunting-"
# Entra's (`AAD…`) have another shape in Log Analytics.
_TABLE = re.compile(
    r"""(?ix) alert(?:info|evidence) | behavior(?:info|entities) | campaigninfo
    | cloud(?:app|audit|dns|policyenforcement|process|storageaggregated)events
    | datasecurity(?:behaviors|events) | device(?:|filecertificate|network)info | devicetvm\w+
    | device(?:|file|imageload|logon|network|process|registry)events | disruptionandresponseevents
    | email(?:|postdelivery)events | email(?:attachment|url)info | entraid(?:|spn)signinevents
    | exposuregraph(?:edges|nodes) | filemaliciouscontentinfo | graphapiauditevents
    | identity(?:|directory|logon|query)events | identity(?:|account)info
    | message(?:|postdelivery)events | messageurlinfo | oauthappinfo | urlclickevents"""
)
# Several rows of these share a `ReportId`, an `AlertId`.
_SHARED = re.compile(
    r"alertevidence|behaviorentities|devicenetworkinfo|email(?:attachment|url)info|messageurlinfo"
    r"|urlclickevents"
)
_PRODUCTS = (  # by how a table's name begins
    (("device",), "Microsoft Defender for Endpoint"),
    (("email", "message", "urlclick", "campaign", "filemal"), "Microsoft Defender for Office 365"),
    (("identity",), "Microsoft Defender for Identity"),
    (("cloudapp", "oauthapp", "behavior"), "Microsoft Defender for Cloud Apps"),
    (("cloud",), "Microsoft Defender for Cloud"),
    (("aad", "entraid"), "Microsoft Entra ID"),
)
_RESOURCE_KEYS = frozenset({"resourceid", "azureid"})


class _Named(_base.Row, kw_only=True, gc=False):
    """The columns by which a row without an envelope is told."""

    Type: str | None = None
    Timestamp: str | None = None
    TimeGenerated: str | None = None
    DeviceId: str | None = None
    ReportId: int | str | None = None
    ReportId_long: int | str | None = None  # so called where tables were queried together
    ReportId_string: int | str | None = None
    AlertId: str | None = None
    ActionType: str | None = None
    NetworkMessageId: str | None = None


class Row(_Named, kw_only=True, gc=False):
    time: datetime | None = None
    category: str | None = None
    properties: msgspec.Raw = ABSENT

    def __post_init__(self) -> None:
        if not _is_row(self.category, self.Type, lambda name: getattr(self, name) is not None):
            raise ValueError("another kind's")


class Told(_Named, kw_only=True, gc=False):
    """The columns that the alert itself needs."""

    BehaviorId: str | None = None
    Title: str | None = None
    Description: str | None = None
    Severity: str | None = None
    Category: str | None = None
    Categories: msgspec.Raw = ABSENT
    AttackTechniques: msgspec.Raw = ABSENT
    ServiceSource: str | None = None
    DetectionSource: str | None = None
    EntityType: str | None = None
    OperationName: str | None = None
    DeliveryAction: str | None = None
    StartTime: str | None = None
    EndTime: str | None = None
    DataAggregationStartTime: str | None = None
    DataAggregationEndTime: str | None = None
    DeviceName: str | None = None
    RecipientEmailAddress: str | None = None
    AccountUpn: str | None = None
    AccountName: str | None = None
    AccountDisplayName: str | None = None
    AzureResourceId: str | None = None
    ResourceID: str | None = None
    ResourceId: str | None = None
    CloudPlatform: str | None = None
    SubscriptionId: str | None = None
    AdditionalFields: msgspec.Raw = ABSENT


def tells(fields: Fields) -> bool:
    return _is_row(fields.text("category"), fields.text("Type"), fields.__contains__)


def _is_row(category: str | None, type: str | None, has: Callable[[str], bool]) -> bool:
    if _is_streamed(category):
        return True
    if type is not None and has("Type") and has("TimeGenerated"):
        return _TABLE.fullmatch(type) is not None
    # A query's result need not say of which table it is.
    return (
        has("Timestamp")
        and any(map(has, ("ReportId", "ReportId_long", "ReportId_string", "AlertId")))
        and any(map(has, ("ActionType", "DeviceId", "AlertId", "NetworkMessageId")))
    )


def _is_streamed(category: str | None) -> bool:
    """Not a column of the same name."""
    return (category or "")[: len(_CATEGORY)].lower() == _CATEGORY.lower()


def read(row: Row, raw: bytes) -> Alert:
    streamed = _is_streamed(row.category)
    columns, repair = _values.object_in(row.properties) if streamed else (raw, "")
    told = _values.struct(Told, columns)
    table = _table(row.category, told.Type)
    entity, version = _identity(table.lower(), told, columns, raw)
    what = told.ActionType or told.EntityType or told.DetectionSource or told.DeliveryAction
    tactics, techniques = _attack(told)
    resources = _resources(told)
    start, end = told.StartTime, told.EndTime
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=_title(table, told),
        description=told.Description or "",
        severity=_base.severity(told.Severity),
        severity_original=told.Severity or "",
        event_ms=_millis(told.Timestamp or told.TimeGenerated) or _base.millis(row.time),
        start_ms=_millis(start or told.DataAggregationStartTime),
        end_ms=_millis(end or told.DataAggregationEndTime),
        subscription_id=_subscription(told, resources),
        resource_ids=resources,
        resource=told.DeviceName
        or _base.short_name(next(iter(resources), ""))
        or told.RecipientEmailAddress
        or told.AccountUpn
        or told.AccountName
        or told.AccountDisplayName
        or "",
        tactics=tactics,
        techniques=techniques,
        product=told.ServiceSource or _product(table.lower()),
        alert_type="/".join(filter(None, (table, what))),
        raw=raw,
        repairs=(repair,) if repair else (),
    )


def _table(category: str | None, type: str | None) -> str:
    return category[len(_CATEGORY) :] if category and _is_streamed(category) else type or ""


def _identity(table: str, told: Told, columns: bytes, raw: bytes) -> tuple[str, str]:
    reports = (told.ReportId, told.ReportId_long, told.ReportId_string)
    report = next((str(it) for it in reports if it not in (None, "")), "")
    about = told.AlertId or told.BehaviorId or ""
    time = told.Timestamp or ""
    if report:
        entity = " ".join(filter(None, (table, told.DeviceId, report, time)))
        return entity, _base.body_hash(columns) if _SHARED.fullmatch(table) else ""
    if about:
        more = [] if table in ("alertinfo", "behaviorinfo") else [_base.body_hash(columns)]
        return about, " ".join(filter(None, (time, *more)))
    return _base.body_hash(raw), ""


def _title(table: str, told: Told) -> str:
    if told.Title:
        return f"{told.Title} ({told.EntityType})" if told.EntityType else told.Title
    what = told.OperationName or told.ActionType or told.DeliveryAction
    return ": ".join(filter(None, (table, what))) or "Defender XDR event"


def _product(table: str) -> str:
    found = (product for begins, product in _PRODUCTS if table.startswith(begins))
    return next(found, "Microsoft Defender XDR")


def _millis(time: str | None) -> int:
    return _base.millis(_base.moment(time)) if time else 0


def _attack(told: Told) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Categories that are tactics, and techniques by their ids."""
    further = b"AttackTechniques" in bytes(told.AdditionalFields)
    if not (told.Category or told.Categories or told.AttackTechniques or further):
        return (), ()  # most tables have none of them
    categories = [told.Category, *_words(told.Categories)]
    techniques = _base.text(told.AttackTechniques) if told.AttackTechniques else ""
    if further:
        more = _base.decoded(told.AdditionalFields)
        if isinstance(more, dict):
            categories.append(_entities.scalar(more.get("Category")))
            techniques = f"{techniques} {_entities.scalar(more.get('AttackTechniques'))}"
    return _mitre.tactics(categories), _base.unique(_mitre.techniques(techniques[:20_000]))


def _words(said: msgspec.Raw) -> tuple[str, ...]:
    """`["Discovery"]`, which may stand in a text; or only `Discovery`."""
    return _base.words(_base.text(said)) if said else ()


def _resources(told: Told) -> tuple[str, ...]:
    named = [told.AzureResourceId, told.ResourceID, told.ResourceId]
    if b"/subscriptions/" in bytes(told.AdditionalFields):
        named += _base.values_of(_base.decoded(told.AdditionalFields), _RESOURCE_KEYS)
    return _base.unique(it for it in named if _base.subscription_of(it))


def _subscription(told: Told, resources: tuple[str, ...]) -> str:
    """Azure's; other clouds' accounts stand in the same column."""
    if told.SubscriptionId and "azure" in (told.CloudPlatform or "azure").lower():
        return told.SubscriptionId.lower()
    return _base.subscription_of(resources[0]) if resources else ""


def details(raw: bytes) -> Details:
    envelope = _columns.read(raw)
    category, inside = envelope.text("category"), envelope.value("properties")
    streamed = _is_streamed(category)
    columns = Columns(inside if isinstance(inside, dict) else {}) if streamed else envelope
    table = _table(category, columns.text("Type"))
    additional = columns.value("AdditionalFields")
    more = Columns(additional if isinstance(additional, dict) else {})
    entities = things(_mentioned(columns, more, table.lower(), additional))
    action = columns.text("OperationName", "ActionType", "DeliveryAction")
    categories = [columns.text("Category"), *listed(columns.value("Categories"))]
    related = _base.unique(
        (columns.text("AlertId"), columns.text("BehaviorId"), *_related(columns))
    )
    ended = _outcome(action, columns)
    columns.omit(*_SAID)
    told = {
        "table": table,
        "tenant_id": envelope.text("tenantId") if streamed else "",
        "category": ", ".join(filter(None, map(_entities.scalar, categories))),
        "user_agent": columns.text("UserAgent", "UserAgentHeader"),
    }
    # What belongs to evidence is an entity, and told with it.
    further = {} if columns.says(*_EVIDENCE) else _columns.facts(more)
    return Details(
        entities=entities,
        action=action,
        outcome=ended,
        related=related,
        attributes=_columns.facts(columns) | further | plain(**told),
    )


def _related(columns: Columns) -> Iterator[str]:
    """What an audit record inside the row, or the alert inside that, says that it belongs to."""
    event = columns.value("RawEventData")
    for item in (event, opened(event.get("Data")) if isinstance(event, dict) else None):
        if isinstance(item, dict):
            ids = [item.get("InvestigationId"), item.get("AlertId"), item.get("ProviderAlertId")]
            yield from map(_entities.scalar, ids + listed(item.get("InvestigationIds")))


# Of these the alert itself tells.
_SAID = (
    *("Type", "_ItemId", "Timestamp", "TimeGenerated", "ReportId", "Title", "Description"),
    *("Severity", "AttackTechniques", "ServiceSource", "DataAggregationStartTime"),
    *("DataAggregationEndTime", "AlertId", "BehaviorId", "Categories"),
)
_EVIDENCE = ("EvidenceRole", "EntityRole")


def _outcome(action: str, columns: Columns) -> Literal["", "success", "failure"]:
    said = columns.text("ErrorCode")
    if said:
        return "success" if said == "0" else "failure"
    if action.endswith(("Success", "Succeeded")):
        return "success"
    if action.endswith(("Failed", "Failure")):
        return "failure"
    event = columns.value("RawEventData")
    status = event.get("ResultStatus") if isinstance(event, dict) else None
    return outcome(columns.text("ActionResult"), _entities.scalar(status))


# What a row names


def _mentioned(columns: Columns, more: Columns, table: str, additional: Any) -> Iterator[Entity]:
    if columns.says(*_EVIDENCE):
        known = list(_entities.resolve(additional))
        said = [*_row(columns, more, table, _evidence_role(columns))]
        yield from _joined(known, things(said))
    else:
        yield from _row(columns, more, table, None)


def _evidence_role(columns: Columns) -> Role:
    said = columns.text(*_EVIDENCE).lower()
    return _entities.role(columns.text("EvidenceDirection")) or (
        "target" if said == "impacted" else ""
    )


def _joined(known: list[Entity], said: tuple[Entity, ...]) -> Iterator[Entity]:
    """The same evidence twice: as an entity, and in columns, whose names are preferred."""
    for entity in said:
        place = next((i for i, it in enumerate(known) if _are_one(it, entity)), -1)
        if place < 0:
            yield entity
            continue
        other = known.pop(place)
        fields = {name: getattr(entity, name) or getattr(other, name) for name in _FIELDS}
        fields["hashes"] = tuple(dict.fromkeys((*entity.hashes, *other.hashes)))
        yield Entity(**fields | {"attributes": other.attributes | entity.attributes})
    yield from known


_FIELDS = Entity.__struct_fields__


def _are_one(one: Entity, other: Entity) -> bool:
    if one.type != other.type:
        return False
    ids = {text.lower() for text in (one.id, *one.attributes.values()) if text}
    if other.id and other.id.lower() in ids:
        return True
    same = other.full_name.lower() == one.full_name.lower() or other.name.lower() in ids
    return bool(other.name) and same and other.command_line in ("", one.command_line)


def _row(columns: Columns, more: Columns, table: str, role: Role | None) -> Iterator[Entity]:
    """role: the evidence's, where the row is evidence."""
    yield from _machines(columns, more, table, role)
    yield from _accounts(columns, table, role)
    yield from _addresses(columns, more, table)
    yield from _mail(columns)
    yield from _cloud(columns, table)
    yield from _urls(columns)
    yield from _registry(columns)
    yield from _files(columns, table, role)
    yield from _initiating(columns)
    for name in columns.text("ThreatFamily", "ThreatNames").split(",")[:100]:
        yield Entity(type="malware", name=name.strip())


def _machines(columns: Columns, more: Columns, table: str, role: Role | None) -> Iterator[Entity]:
    where: Role = role or ("source" if table.startswith("identity") else "")
    system = columns.text("OSPlatform")
    yield from hostname(
        columns.text("DeviceName", "HostName"),
        role=where,
        id=columns.text("DeviceId"),
        OSPlatform=system,
    )
    others: tuple[tuple[str, Role], ...] = (
        ("RemoteDeviceName", "source" if table == "devicelogonevents" else "target"),
        ("DestinationDeviceName", "target"),
        ("TargetDeviceName", "target"),
        ("InitiatingProcessRemoteSessionDeviceName", "source"),
        ("ProcessRemoteSessionDeviceName", "source"),
    )
    for name, role_of in others:
        yield from hostname(columns.text(name), role=role_of)
    yield from hostname(more.text("ClientMachine"), role="source")


def _accounts(columns: Columns, table: str, role: Role | None) -> Iterator[Entity]:
    logon = table == "devicelogonevents"  # its process only takes part
    initiating = account(columns, "InitiatingProcess", "" if logon else "actor")
    yield initiating
    yield account(columns, "Request", "actor")
    by_another = (initiating.name or initiating.id) and not logon
    who: Role = "target" if by_another else "" if table.endswith("info") else "actor"
    who = who if role is None else role
    of_app = columns.text("AccountType").lower() in _APPLICATIONS
    yield account(columns, "", who, "application" if of_app else "user")
    yield account(columns, "Target", "target")
    for item in objects(columns.value("LoggedOnUsers")):
        name, domain, sid = (
            _entities.scalar(item.get(key)) for key in ("UserName", "DomainName", "Sid")
        )
        yield _entities.user(name, domain if name else "", id=sid)
    yield Entity(
        type="application",
        name=columns.text("ServicePrincipalName"),
        id=columns.text("ServicePrincipalId"),
        role="actor",
    )


def _addresses(columns: Columns, more: Columns, table: str) -> Iterator[Entity]:
    inbound = more.text("direction").lower() == "in" or table == "devicelogonevents"
    inbound = inbound or columns.text("ActionType").lower().startswith("inbound")
    local: Role = "target" if inbound else "source"
    remote: Role = "source" if inbound else "target"
    said: tuple[tuple[str, str, Role], ...] = (
        ("LocalIP", "LocalPort", local),
        ("RemoteIP", "RemotePort", remote),
        ("IPAddress", "Port", "source"),
        ("DestinationIPAddress", "DestinationPort", "target"),
        ("RequestSourceIP", "RequestSourcePort", "source"),
        ("InitiatingProcessRemoteSessionIP", "", "source"),
        ("ProcessRemoteSessionIP", "", "source"),
        ("FileOriginIP", "", "source"),
        ("SenderIPv4", "", "source"),
        ("SenderIPv6", "", "source"),
        ("PublicIP", "", ""),
    )
    for name, port, role in said:
        yield from endpoint(columns.text(name), columns.text(port), role)
    for name in ("IPAddresses", "DnsAddresses", "DefaultGateways", "IPv4Dhcp", "IPv6Dhcp"):
        for item in listed(columns.value(name)):
            one = item.get("IPAddress") if isinstance(item, dict) else item
            yield from address(_entities.scalar(one))


def _mail(columns: Columns) -> Iterator[Entity]:
    message = {
        name: text
        for name in ("InternetMessageId", "EmailClusterId")
        if (text := columns.text(name))
    }
    yield Entity(
        type="message",
        name=columns.text("Subject", "EmailSubject"),
        id=columns.text("NetworkMessageId", "TeamsMessageId"),
        attributes=message,
    )
    yield _mailbox(columns, "source", "SenderFromAddress", "SenderEmailAddress", of="Sender")
    yield _mailbox(columns, "source", "SenderMailFromAddress")
    yield _mailbox(columns, "target", "RecipientEmailAddress", of="Recipient")
    for item in objects(columns.value("RecipientDetails")):
        recipient = Columns(item)
        yield _mailbox(recipient, "target", "RecipientSmtpAddress", of="Recipient")


def _mailbox(columns: Columns, role: Role, *names: str, of: str = "") -> Entity:
    display = columns.text(f"{of}DisplayName") if of else ""
    return Entity(
        type="mailbox",
        name=columns.text(*names),
        id=columns.text(f"{of}ObjectId") if of else "",
        role=role,
        attributes={"DisplayName": display} if display else {},
    )


_APPLICATIONS = ("application", "serviceprincipal")
_ACTIVITY_ROLES: dict[str, Role] = {"actor": "actor", "target object": "target"}


def _cloud(columns: Columns, table: str) -> Iterator[Entity]:
    yield Entity(
        type="application",
        name=columns.text("Application"),
        id=columns.text("ApplicationId"),
        role="target" if table.startswith(("cloudapp", "identity")) else "",
    )
    yield Entity(type="application", id=columns.text("OAuthApplicationId", "OAuthAppId"))
    for name in ("AzureResourceId", "ResourceId"):
        yield from resource(columns.text(name))
    for name in ("AwsResourceName", "GcpFullResourceName", "KubernetesResource"):
        said = columns.text(name)
        yield Entity(type="resource", name=_base.short_name(said), id=said)
    yield Entity(type="resource", name=columns.text("CloudResource"))
    yield Entity(
        type="resource", name=columns.text("ContainerName"), id=columns.text("ContainerId")
    )
    of_app = columns.text("AccountType").lower() in _APPLICATIONS
    for item in objects(columns.value("ActivityObjects")):
        yield from _activity_object(Columns(item), of_app)
    event = columns.value("RawEventData")
    if isinstance(event, dict) and "Workload" in event and "Operation" in event:
        yield from office_activity.mentioned(Columns(event))
        investigated = opened(event.get("Data"))  # an automated investigation's alert
        if isinstance(investigated, dict):
            yield from _entities.resolve(investigated.get("Entities"))


def _activity_object(item: Columns, by_app: bool) -> Iterator[Entity]:
    role = _ACTIVITY_ROLES.get(item.text("Role").lower(), "")
    kind, name, id = item.text("Type").lower(), item.text("Name"), item.text("Id")
    if by_app and kind == "account" and role == "actor":
        yield Entity(type="application", name=name, id=id, role=role)
    elif kind in ("account", "user"):
        yield _entities.user(name, id=id, role=role)
    elif kind in ("group", "team"):
        yield Entity(type="group", name=name, id=id, role=role)
    elif kind in ("file", "folder"):
        yield _entities.file(name, id=id, role=role)
    elif kind in ("service", "application", "app"):
        yield Entity(type="application", name=name, id=id, role=role)
    elif kind in ("ip address", "ip"):
        yield from address(name, role)
    elif id:
        yield Entity(type="other", name=name, id=id, role=role, attributes={"Type": kind})


def _urls(columns: Columns) -> Iterator[Entity]:
    said = [
        *(columns.text(name) for name in ("RemoteUrl", "Url", "RequestUri", "FileOriginUrl")),
        columns.text("FileOriginReferrerUrl"),
    ]
    for name in ("UrlChain", "CrlDistributionPointUrls"):
        said += map(_entities.scalar, listed(columns.value(name)))
    for text in said:
        yield Entity(type="url", name=text, role="target")
    for name in ("UrlDomain", "QueryTarget", "DnsQuery"):
        yield Entity(type="domain", name=columns.text(name), role="target")


def _registry(columns: Columns) -> Iterator[Entity]:
    said = {
        name: text
        for name in ("RegistryValueData", "RegistryValueType", "PreviousRegistryValueData")
        if (text := columns.text(name))
    }
    for prefix, role, attributes in (("", "target", said), ("Previous", "source", {})):
        yield Entity(
            type="registry",
            name=columns.text(f"{prefix}RegistryValueName"),
            path=columns.text(f"{prefix}RegistryKey"),
            role=role,  # type: ignore[arg-type]
            attributes=attributes,
        )


def _files(columns: Columns, table: str, role: Role | None) -> Iterator[Entity]:
    """What the action was done to: a file, or the process that it is the image of."""
    image = _image(columns.text("FileName", "ProcessName"), columns.text("FolderPath"))
    found = hashes(*(columns.text(name) for name in ("SHA1", "SHA256", "MD5")))
    line, pid = columns.text("ProcessCommandLine"), columns.text("ProcessId")
    to: Role = "target" if role is None else role
    columns.omit("ProcessName")
    size = {"FileSize": text} if (text := columns.text("FileSize")) else {}
    if line or pid or table == "deviceprocessevents" or columns.text("EntityType") == "Process":
        parent = "ParentProcessId" if table.startswith("cloud") else "InitiatingProcessId"
        yield Entity(
            type="process",
            name=image.name,
            path=image.path,
            command_line=line,
            pid=pid,
            parent_pid=columns.text(parent) if table.endswith("processevents") else "",
            hashes=found,
            role=to,
            attributes=size | columns.rest("Process"),
        )
    else:
        yield msgspec.structs.replace(image, hashes=found, role=to, attributes=size)
    yield Entity(
        type="process", name=columns.text("ParentProcessName"), pid=columns.text("ParentProcessId")
    )
    before = columns.text("PreviousFileName")
    folder = columns.text("PreviousFolderPath")
    yield msgspec.structs.replace(_image(before, folder if before else ""), role="source")
    for name in ("Signer", "Issuer"):
        yield Entity(
            type="other",
            name=columns.text(name),
            hashes=hashes(columns.text(f"{name}Hash")),
            attributes={"Type": f"{name} certificate"},
        )


def _initiating(columns: Columns) -> Iterator[Entity]:
    """The process that did it, and its parent. Where only its number is known, that is a fact."""
    if not columns.says(*(f"InitiatingProcess{name}" for name in _NAMING)):
        return
    said = {
        name: columns.text(f"InitiatingProcess{name}")
        for name in ("FileName", "FolderPath", "CommandLine", "Id", "ParentId", "ParentFileName")
    }
    image = _image(said["FileName"], said["FolderPath"])
    yield Entity(
        type="process",
        name=image.name,
        path=image.path,
        command_line=said["CommandLine"],
        pid=said["Id"],
        parent_pid=said["ParentId"],
        hashes=hashes(
            *(columns.text(f"InitiatingProcess{name}") for name in ("SHA1", "SHA256", "MD5"))
        ),
        role="actor",
        attributes=columns.rest("InitiatingProcess"),
    )
    yield Entity(type="process", name=said["ParentFileName"], pid=said["ParentId"])


_NAMING = ("FileName", "FolderPath", "CommandLine", "ParentFileName", "SHA1", "SHA256", "MD5")


def _image(name: str, path: str) -> Entity:
    """A file; its name may stand in the path too, in another case."""
    if name and path[-len(name) :].lower() == name.lower() and path[: -len(name)][-1:] in "\\/":
        path = path[: -len(name)][:-1]
    return _entities.file(name, path)


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by=(
        "`category` begins with `AdvancedHunting-`; or `Type` is one of the tables; or `Timestamp` "
        "and `ReportId` or `AlertId`"
    ),
)
