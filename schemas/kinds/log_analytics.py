"""Log Analytics export: a row of any other table, also of a custom one.

What can be read is what tables usually call so: the standard columns of Azure Monitor Logs
(learn.microsoft.com, azure/azure-monitor/logs/log-standard-columns), the columns that most tables
share, and those of the tables that follow the Advanced Security Information Model (ASIM:
learn.microsoft.com, azure/sentinel/normalization-common-fields). A custom column's ending (`_s`,
`_d`, …) is its type, not its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, EntityType, Role
from schemas.kinds import _base, _columns, _entities
from schemas.kinds._base import Fields, Kind
from schemas.kinds._columns import Columns
from schemas.kinds._monitor import level, outcome
from schemas.kinds._things import endpoint, hashes, hostname, process, resource, things

__all__ = ["KIND"]

NAME = "log_analytics"


class Row(_base.Row, kw_only=True, gc=False):
    Type: str
    TimeGenerated: datetime
    item_id: str | None = msgspec.field(name="_ItemId", default=None)
    resource_id: str | None = msgspec.field(name="_ResourceId", default=None)
    subscription_id: str | None = msgspec.field(name="_SubscriptionId", default=None)
    ResourceId: str | None = None
    Computer: str | None = None
    DvcHostname: str | None = None
    OperationName: str | None = None
    ActionType: str | None = None
    Activity: str | None = None
    EventType: str | None = None
    Category: str | None = None
    Message: str | None = None
    EventMessage: str | None = None
    Severity: str | None = None
    EventSeverity: str | None = None
    SeverityLevel: str | None = None
    Level: str | None = None
    LogLevel: str | None = None
    EventStartTime: datetime | None = None
    EventEndTime: datetime | None = None
    EventVendor: str | None = None
    EventProduct: str | None = None


def tells(fields: Fields) -> bool:
    return "Type" in fields and "TimeGenerated" in fields


def read(row: Row, raw: bytes) -> Alert:
    table = row.Type or ""
    entity = row.item_id or _base.body_hash(raw)
    what = row.OperationName or row.ActionType or row.Activity or row.EventType or row.Category
    word = row.Severity or row.EventSeverity or row.SeverityLevel or row.Level or row.LogLevel
    resources = _base.unique(it for it in (row.resource_id, row.ResourceId) if it and it[0] == "/")
    subscription = row.subscription_id or next(
        filter(None, map(_base.subscription_of, resources)), ""
    )
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, ""),
        entity=entity,
        title=f"{table}: {what}" if what else table,
        description=row.Message or row.EventMessage or "",
        severity=level(word),
        severity_original=word or "",
        event_ms=_base.millis(row.TimeGenerated),
        start_ms=_base.millis(row.EventStartTime),
        end_ms=_base.millis(row.EventEndTime),
        subscription_id=subscription.lower(),
        resource_ids=resources,
        resource=row.Computer or row.DvcHostname or _base.short_name(next(iter(resources), "")),
        vendor=row.EventVendor or "Microsoft",
        product=row.EventProduct or "Azure Monitor Logs",
        alert_type=f"{table}/{what}" if what else table,
        raw=raw,
    )


def details(raw: bytes) -> Details:
    columns = _columns.read(raw)
    columns.omit(*_SAID)
    return Details(
        entities=things(_mentioned(columns)),
        action=columns.text("OperationName", "ActionType", "Activity", "EventType"),
        outcome=outcome(columns.text("EventResult", "ResultType", "Result", "ResultStatus")),
        attributes={"table": columns.text("Type")} | _columns.facts(columns),
    )


# Of these the alert itself tells.
_SAID = (
    *("_ItemId", "TimeGenerated", "_SubscriptionId", "Message", "EventMessage"),
    *("EventStartTime", "EventEndTime", "EventVendor", "EventProduct"),
)

# Columns, the best first where they are about one thing.
_HOSTS: tuple[tuple[tuple[str, ...], Role], ...] = (
    (("Computer", "DvcHostname", "DvcFQDN", "Dvc", "HostName", "Host"), ""),
    (("SrcFQDN", "SrcHostname", "SourceHostName", "SourceComputer"), "source"),
    (("DstFQDN", "DstHostname", "DestinationHostName", "TargetHostname"), "target"),
    (("RemoteHost", "RemoteDeviceName"), ""),
)
_USERS: tuple[tuple[tuple[str, ...], tuple[str, ...], Role], ...] = (
    (
        ("UserPrincipalName", "CallerUpn", "Caller", "Account", "AccountName", "User"),
        ("AccountObjectId", "ObjectIdentity"),
        "actor",
    ),
    (("ActorUsername", "SrcUsername", "SourceUserName"), ("ActorUserId", "SrcUserId"), "actor"),
    (("UserName", "UserId"), (), "actor"),
    (
        ("TargetUsername", "DstUsername", "DestinationUserName", "TargetAccount"),
        ("TargetUserId", "DstUserId"),
        "target",
    ),
)
_ADDRESSES: tuple[tuple[str, str, Role], ...] = (
    ("IPAddress", "", "source"),
    ("CallerIpAddress", "", "source"),
    ("ClientIP", "ClientPort", "source"),
    ("ClientIPAddress", "", "source"),
    ("SourceIP", "SourcePort", "source"),
    ("SrcIpAddr", "SrcPortNumber", "source"),
    ("RemoteIP", "RemotePort", ""),
    ("DestinationIP", "DestinationPort", "target"),
    ("DstIpAddr", "DstPortNumber", "target"),
    ("ComputerIP", "", ""),
    ("HostIP", "", ""),
    ("DvcIpAddr", "", ""),
)
_URLS = ("Url", "Uri", "RequestUri", "RequestURL", "TargetUrl")
_RESOURCES = ("_ResourceId", "ResourceId", "AzureResourceId")
_OTHERS: tuple[tuple[EntityType, tuple[str, ...], tuple[str, ...]], ...] = (
    ("application", ("AppDisplayName", "ApplicationDisplayName"), ("AppId", "ApplicationId")),
    ("domain", ("DnsQuery", "DomainName"), ()),
)


def _mentioned(columns: Columns) -> Iterator[Entity]:
    for names, where in _HOSTS:
        yield from hostname(columns.text(*names), role=where)
    for names, ids, who in _USERS:
        yield _entities.user(columns.text(*names), id=columns.text(*ids), role=who)
    for name, port, where in _ADDRESSES:
        yield from endpoint(columns.text(name), columns.text(port), where)
    for name in _URLS:
        yield Entity(type="url", name=columns.text(name), role="target")
    for prefix, who in (("Acting", "actor"), ("Target", "target"), ("", "")):
        yield from _process(columns, prefix, who)
    for prefix in ("Target", "Src", ""):
        yield from _file(columns, prefix)
    for name in _RESOURCES:
        yield from resource(columns.text(name))
    for kind, names, ids in _OTHERS:
        yield Entity(type=kind, name=columns.text(*names), id=columns.text(*ids))


def _process(columns: Columns, prefix: str, who: Role) -> Iterator[Entity]:
    yield process(
        columns.text(f"{prefix}ProcessName", "Process" if not prefix else ""),
        command_line=columns.text(
            f"{prefix}ProcessCommandLine", "CommandLine" if not prefix else ""
        ),
        pid=columns.text(f"{prefix}ProcessId"),
        role=who,
    )


def _file(columns: Columns, prefix: str) -> Iterator[Entity]:
    name, path = columns.text(f"{prefix}FileName"), columns.text(f"{prefix}FilePath")
    found = [columns.text(f"{prefix}{kind}") for kind in _HASHES]
    found += [columns.text(f"{prefix}File{kind}") for kind in _HASHES]
    yield _entities.file(name or path, path if name else "", hashes=hashes(*found))


_HASHES = ("MD5", "SHA1", "SHA256", "Hash")


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="`Type` and `TimeGenerated`, and no other kind wants it",
    general=True,
)
