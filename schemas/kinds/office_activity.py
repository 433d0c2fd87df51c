"""Office 365 audit records: as the Management Activity API gives them, and as rows of Log
Analytics' OfficeActivity table.

Source: "Office 365 Management Activity API schema" (learn.microsoft.com, office-365-management-api)
and the OfficeActivity table reference. The table calls some columns otherwise (`OfficeId`,
`OfficeWorkload`, `OfficeObjectId`, `Client_IPAddress`, …) and holds lists as texts of JSON.
Times are UTC without saying so. An alert of Microsoft Purview comes in several records
(`AlertTriggered`, `AlertUpdated`) of one `AlertId`, with severity and status; others have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.kinds import _base, _columns, _entities
from schemas.kinds._base import Fields, Kind
from schemas.kinds._columns import Columns
from schemas.kinds._monitor import outcome
from schemas.kinds._things import address, hostname, things
from schemas.kinds._values import objects, opened, plain

__all__ = ["KIND", "mentioned"]

NAME = "office_activity"
_PRODUCTS = {
    "azureactivedirectory": "Microsoft Entra ID",
    "exchange": "Microsoft Exchange Online",
    "microsoftteams": "Microsoft Teams",
    "onedrive": "Microsoft OneDrive",
    "sharepoint": "Microsoft SharePoint Online",
}
_COMMON = ("RecordType", "Operation", "OrganizationId", "UserType")


class Row(_base.Row, kw_only=True, gc=False):
    # Both shapes have these; no other kind has them all.
    RecordType: int | str
    Operation: str
    OrganizationId: str
    UserType: int | str
    Type: Literal["OfficeActivity"] | None = None
    Id: str | None = None
    OfficeId: str | None = None
    SourceRecordId: str | None = None
    item_id: str | None = msgspec.field(name="_ItemId", default=None)
    CreationTime: datetime | None = None
    TimeGenerated: datetime | None = None
    Workload: str | None = None
    OfficeWorkload: str | None = None
    MailboxOwnerUPN: str | None = None
    SourceFileName: str | None = None
    TeamName: str | None = None
    ObjectId: str | None = None
    OfficeObjectId: str | None = None
    AlertId: str | None = None
    Name: str | None = None
    Comments: str | None = None
    Severity: str | None = None
    Status: str | None = None
    DeepLinkUrl: str | None = None


def tells(fields: Fields) -> bool:
    if "Type" in fields:
        return fields.text("Type").lower() == "officeactivity"
    return all(name in fields for name in _COMMON)


def read(row: Row, raw: bytes) -> Alert:
    id = row.Id or row.OfficeId or row.SourceRecordId or row.item_id or _base.body_hash(raw)
    operation, workload = row.Operation or "", row.Workload or row.OfficeWorkload or ""
    alerted = row.AlertId and row.Name
    entity, version = (row.AlertId, id) if alerted else (id, "")
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity or "", version),
        entity=entity or "",
        version=version,
        title=(row.Name if alerted else operation) or workload,
        description=row.Comments or "" if alerted else "",
        severity=_base.severity(row.Severity),
        severity_original=row.Severity or "",
        status=_base.status(row.Status) if alerted else "unknown",
        status_original=row.Status or "" if alerted else "",
        event_ms=_base.millis(row.CreationTime or row.TimeGenerated),
        resource=_main(row.MailboxOwnerUPN, row.SourceFileName, row.ObjectId, row.OfficeObjectId),
        product=_PRODUCTS.get(workload.lower(), workload),
        alert_type="/".join(filter(None, (workload, operation))),
        link=row.DeepLinkUrl or "",
        raw=raw,
    )


def _main(*names: str | None) -> str:
    """The first that is one: of several the first, of a file's address its name, of another
    address the host."""
    for name in names:
        found = (name or "").partition(";")[0].rstrip("/")
        if found and found.lower() not in ("unknown", "not available"):
            host, _, path = found.partition("://")[2].partition("/")
            last = path.rpartition("/")[2]
            return last if "." in last else host or found
    return ""


def details(raw: bytes) -> Details:
    columns = _columns.read(raw)
    columns.omit(*_SAID)
    error, ended = columns.text("LogonError", "ErrorNumber"), outcome(columns.text("ResultStatus"))
    return Details(
        entities=things(mentioned(columns)),
        action=columns.text("Operation"),
        outcome="failure" if error not in ("", "0") else ended,
        related=_base.unique((columns.text("AlertId"), columns.text("InvestigationId"))),
        attributes=_attributes(columns),
    )


# Of these the alert itself tells.
_SAID = (
    *("Id", "OfficeId", "SourceRecordId", "_ItemId", "Type", "CreationTime", "TimeGenerated"),
    *("UserId_", "OrganizationId_", "AlertId", "Name", "Comments", "Severity", "Status"),
    *("DeepLinkUrl",),
)


def _attributes(columns: Columns) -> dict[str, str]:
    agent = columns.text("UserAgent", "ClientInfoString")
    for name, value in _pairs(columns.value("ExtendedProperties")):
        if name.lower() == "useragent" and isinstance(value, str):
            agent = value
        more = opened(value) if name.lower() == "additionaldetails" else None
        if isinstance(more, dict) and isinstance(said := more.get("User-Agent"), str):
            agent = said
    said = plain(user_agent=agent, reason=columns.text("LogonError"))
    return said | _columns.facts(columns)


def mentioned(columns: Columns) -> Iterator[Entity]:
    """What a record names. Also of the one inside a row of Defender's CloudAppEvents."""
    workload = columns.text("Workload", "OfficeWorkload").lower()
    yield from _actor(columns)
    for name in ("ClientIP", "ClientIPAddress", "Client_IPAddress", "ActorIpAddress"):
        yield from address(columns.text(name), "source")
    yield from _directory(columns)
    yield from _mailbox(columns)
    yield from _cmdlet(columns)
    yield from _messages(columns)
    yield from _files(columns, workload)
    yield from _team(columns)
    yield from _machine(columns)
    for key, name in (("AppId", ""), ("ClientAppId", ""), ("ApplicationId", "Application")):
        named = columns.text("ApplicationDisplayName", "ApplicationName") if name else ""
        yield Entity(type="application", id=columns.text(key), name=named)


_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_TYPED_ID = re.compile(rf"([A-Za-z]+)_({_GUID})")
_IS_GUID = re.compile(_GUID)


def _actor(columns: Columns) -> Iterator[Entity]:
    """Who acts: the directory's own word for it has the object id, others only `UserId`."""
    said, key = columns.text("UserId", "UserId_"), columns.text("UserKey")
    sid, display = columns.text("LogonUserSid"), columns.text("LogonUserDisplayName")
    attributes = plain(UserKey=key, LogonUserSid=sid, LogonUserDisplayName=display)
    typed = _TYPED_ID.fullmatch(said)
    for entity in _identity(columns.value("Actor"), "actor"):
        if said and (typed[2] if typed else said).lower() in (entity.full_name.lower(), entity.id):
            yield msgspec.structs.replace(entity, attributes=attributes | entity.attributes)
            said, typed = "", None
        else:
            yield entity
    if typed:
        yield Entity(type="application", id=typed[2], role="actor")
    elif _IS_GUID.fullmatch(said):
        yield Entity(type="user", id=said, role="actor", attributes=attributes)
    else:
        id = key if said and _IS_GUID.fullmatch(key) else ""
        yield _entities.user(said, id=id, role="actor", attributes=attributes)


def _identity(items: Any, role: Role) -> Iterator[Entity]:
    """What `Actor` or `Target` lists of one thing: `{"ID", "Type"}` of a name (1), another id (2),
    a PUID (3), a service principal's name (4), a user's (5); the ids `User_<object id>` and
    `ServicePrincipal_<object id>` tell what it is. An actor may also list its application."""
    found: dict[str, list[str]] = {}
    for item in objects(items):
        if text := _entities.scalar(item.get("ID")):
            found.setdefault(_entities.scalar(item.get("Type")), []).append(text)
    others = [*found.get("0", ()), *found.get("2", ())]
    kind, id = next((it.groups() for it in map(_TYPED_ID.fullmatch, others) if it), ("", ""))
    ids = [text for text in others if _IS_GUID.fullmatch(text) and text != id]
    names, upn = found.get("1", [""]), next(iter(found.get("5", ())), "")
    puid = next(iter(found.get("3", ())), "")
    if upn or kind.lower() == "user":
        if not id and ids:
            id = ids.pop(0)
        attributes = {"PUID": puid} if puid else {}
        yield _entities.user(upn or names[0], id=id, role=role, attributes=attributes)
        if ids:
            yield Entity(type="application", name=names[0] if upn else "", id=ids[0])
    elif kind.lower() == "group":
        yield Entity(type="group", name=names[0], id=id, role=role)
    elif kind.lower() in ("serviceprincipal", "application", ""):
        attributes = {"AppId": ids[0]} if id and ids else {}
        id = id or next(iter(ids), "")
        yield Entity(type="application", name=names[0], id=id, role=role, attributes=attributes)
    else:
        yield Entity(type="other", name=names[0], id=id, role=role, attributes={"Type": kind})


def _directory(columns: Columns) -> Iterator[Entity]:
    """What an operation on the directory is about."""
    yield from _identity(columns.value("Target"), "target")
    changed: dict[str, str] = {}
    for item in objects(columns.value("ModifiedProperties")):
        name = _entities.scalar(item.get("Name")).lower()
        for value in (item.get("NewValue"), item.get("OldValue")):
            if isinstance(value, str) and (text := value.strip().strip('"')):
                changed.setdefault(name, text)
    yield _entities.user(
        changed.get("user.upn", ""), id=changed.get("user.objectid", ""), role="target"
    )
    for kind, what in (("group", "group"), ("role", "other")):
        names, id = ("displayname", "wellknownobjectname"), changed.get(f"{kind}.objectid", "")
        name = next(filter(None, (changed.get(f"{kind}.{each}") for each in names)), "")
        more = {"Type": "Role"} if kind == "role" else {}
        yield Entity(type=what, name=name, id=id, role="target", attributes=more)  # type: ignore[arg-type]
    for kind in ("serviceprincipal", "application"):
        name, id = changed.get(f"{kind}.displayname", ""), changed.get(f"{kind}.objectid", "")
        more = {"AppId": app} if (app := changed.get(f"{kind}.appid", "")) else {}
        yield Entity(type="application", name=name, id=id, role="target", attributes=more)


def _mailbox(columns: Columns) -> Iterator[Entity]:
    owner, sid = columns.text("MailboxOwnerUPN"), columns.text("MailboxOwnerSid")
    yield Entity(
        type="mailbox",
        name=owner,
        id=columns.text("MailboxGuid"),
        role="target",
        attributes={"MailboxOwnerSid": sid} if sid else {},
    )
    for name in ("SendAsUserSmtp", "SendOnBehalfOfUserSmtp"):
        yield Entity(type="mailbox", name=columns.text(name))


_MAILBOXES = ("forwardingsmtpaddress", "forwardingaddress", "forwardto", "redirectto", "mailbox")
_USERS = ("user", "member", "trustee", "grantaccessrightsto")


def _cmdlet(columns: Columns) -> Iterator[Entity]:
    """The people and mailboxes among an Exchange cmdlet's parameters."""
    on_mailbox = "mailbox" in columns.text("Operation").lower()
    for name, value in _pairs(columns.value("Parameters")):
        text = value.strip() if isinstance(value, str) else ""
        if name.lower() in _MAILBOXES or (name.lower() == "identity" and on_mailbox):
            for each in text.split(";")[:100]:
                yield Entity(type="mailbox", name=each.removeprefix("smtp:"), role="target")
        elif name.lower() in _USERS:
            yield _entities.user(text, role="target")


def _messages(columns: Columns) -> Iterator[Entity]:
    listed = objects(columns.value("Folders"))
    items = [it for folder in listed for it in objects(folder.get("FolderItems"))]
    for item in (
        *objects(columns.value("Item")),
        *objects(columns.value("AffectedItems")),
        *items,
    ):
        yield Entity(
            type="message",
            name=_entities.scalar(item.get("Subject")),
            id=_entities.scalar(item.get("InternetMessageId")),
            role="target",
        )


def _files(columns: Columns, workload: str) -> Iterator[Entity]:
    folder = columns.text("SourceRelativeUrl")
    yield _file(columns.text("SourceFileName"), folder, "target")
    yield _file(columns.text("DestinationFileName"), columns.text("DestinationRelativeUrl"), "")
    yield Entity(type="url", name=columns.text("Site_Url", "SiteUrl"), role="target")
    what = columns.text("ObjectId", "OfficeObjectId")
    if what.startswith(("https://", "http://")) and workload in ("sharepoint", "onedrive"):
        yield Entity(type="url", name=what, role="target")
    shared = columns.text("TargetUserOrGroupName")
    if columns.text("TargetUserOrGroupType").lower().endswith("group"):
        yield Entity(type="group", name=shared, role="target")
    else:
        yield _entities.user(shared, role="target")


def _file(name: str, path: str, role: Role) -> Entity:
    return _entities.file(name, path if name else "", role=role)


def _team(columns: Columns) -> Iterator[Entity]:
    yield Entity(type="group", name=columns.text("TeamName"), id=columns.text("TeamGuid"))
    for member in objects(columns.value("Members")):
        yield _entities.user(_entities.scalar(member.get("UPN")), role="target")


def _machine(columns: Columns) -> Iterator[Entity]:
    yield from hostname(columns.text("ClientMachineName"), role="source")
    said = {name.lower(): value for name, value in _pairs(columns.value("DeviceProperties"))}
    name, id, system = (_entities.scalar(said.get(key)) for key in ("displayname", "id", "os"))
    yield from hostname(name or columns.text("DeviceName"), id=id, OS=system)


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """A list of `{"Name", "Value"}`."""
    for item in objects(value):
        if isinstance(name := item.get("Name"), str):
            yield name, item.get("Value")


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by=(
        "`Type` is `OfficeActivity`; without `Type`: `RecordType`, `Operation`, `OrganizationId`, "
        "`UserType`"
    ),
)
