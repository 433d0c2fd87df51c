"""Entra's logs: audits, sign-ins, risks, provisioning, Graph activity, and what other services
log for a whole tenant (Intune).

As diagnostic settings stream them, and as rows of Log Analytics (AuditLogs, SigninLogs, AAD…).
Sources: "Interpret the Azure Monitor schema of Microsoft Entra logs", the tables' references
(learn.microsoft.com). Risk detections and risky users come again when their state changes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from schemas.alert import Alert
from schemas.kinds import _base, _entra, _values
from schemas.kinds._base import ABSENT, Fields, Kind

__all__ = ["KIND"]

NAME = "entra_log"
_CATEGORIES = frozenset(
    [
        "auditlogs",
        "signinlogs",
        "noninteractiveusersigninlogs",
        "serviceprincipalsigninlogs",
        "managedidentitysigninlogs",
        "microsoftserviceprincipalsigninlogs",
        "adfssigninlogs",
        "provisioninglogs",
        "riskyusers",
        "userriskevents",
        "riskyserviceprincipals",
        "serviceprincipalriskevents",
        "riskyagents",
        "agentriskevents",
        "b2crequestlogs",
        "microsoftgraphactivitylogs",
        "enrichedoffice365auditlogs",
        "networkaccesstrafficlogs",
        "remotenetworkhealthlogs",
        "customsecurityattributeauditlogs",
    ]
)
_TABLES = _CATEGORIES | {
    "aadnoninteractiveusersigninlogs",
    "aadserviceprincipalsigninlogs",
    "aadmanagedidentitysigninlogs",
    "aadprovisioninglogs",
    "aadriskyusers",
    "aaduserriskevents",
    "aadriskyserviceprincipals",
    "aadserviceprincipalriskevents",
    "aadb2crequestlogs",
    "networkaccesstraffic",
    "aadcustomsecurityattributeauditlogs",
}


class Row(_base.Row, kw_only=True, gc=False):
    time: datetime
    resourceId: Annotated[str, msgspec.Meta(pattern="^/(tenants|TENANTS)/")]
    operationName: str
    category: str
    resultType: str | int | None = None
    resultDescription: str | None = None
    Level: str | int | None = None
    level: None = None  # what has it is read leniently
    properties: msgspec.Raw = ABSENT
    # A row of Log Analytics.
    TimeGenerated: datetime | None = None
    Type: str | None = None
    # What collectors add.
    p_event_time: datetime | None = None


def tells(fields: Fields) -> bool:
    table = fields.text("Type").lower()
    if "TimeGenerated" in fields and table in _TABLES:
        return True
    if "operationName" not in fields:
        return False
    if fields.text("resourceId")[:9].lower() == "/tenants/":
        return True
    category = fields.text("category").lower()
    if category == "auditlogs":  # so do other services call theirs
        return b'"initiatedBy"' in bytes(fields.get("properties") or b"")
    return category in _CATEGORIES


def read(row: Row, raw: bytes) -> Alert:
    if row.TimeGenerated:
        subject, repair = _values.leniently(_entra.Subject, raw), ""
    else:
        subject, repair = _values.part(_entra.Subject, row.properties)
    alert = _entra.understood(
        NAME,
        subject,
        raw,
        time=row.time or row.TimeGenerated or row.p_event_time,
        operation=row.operationName or row.category or row.Type or "",
        level="" if row.Level is None else str(row.Level),
        result="" if row.resultType is None else str(row.resultType),
        reason=row.resultDescription or "",
    )
    if row.resourceId:
        alert.resource_ids = (row.resourceId,)
        alert.subscription_id = _base.subscription_of(row.resourceId)
    if "intune" in (row.resourceId or "").lower():
        alert.product = "Microsoft Intune"
    alert.repairs = (repair,) if repair else ()
    return alert


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    _entra.mentioned,
    told_by="`resourceId` begins with `/tenants/`, or `category` or `Type` is one of Entra's logs",
)
