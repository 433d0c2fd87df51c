"""Microsoft Graph: Entra's directory audits, sign-ins, risk detections, risky users and apps, as
the API returns them and collectors forward them.

Source: the Graph resource types directoryAudit, signIn, riskDetection, riskyUser,
servicePrincipalRiskDetection, riskyServicePrincipal, provisioningObjectSummary
(learn.microsoft.com, graph/api/resources).
"""

from __future__ import annotations

from datetime import datetime

from schemas.alert import Alert
from schemas.kinds import _entra
from schemas.kinds._base import Fields, Kind

__all__ = ["KIND"]

NAME = "graph_entra"
_TYPES = frozenset(
    f"#microsoft.graph.{name}"
    for name in (
        *("directoryaudit", "signin", "riskdetection", "riskyuser", "riskyuserhistoryitem"),
        *("serviceprincipalriskdetection", "riskyserviceprincipal", "provisioningobjectsummary"),
    )
)
# Each of them has all names of one of these.
_SHAPES = (
    ("activityDisplayName", "loggedByService"),
    ("createdDateTime", "appId", "ipAddress", "status"),
    ("riskLevel", "riskState", "riskDetail"),
    ("activityDateTime", "provisioningAction", "targetIdentity"),
)


class Row(_entra.Subject, kw_only=True, gc=False):
    """Strictly: a directory audit."""

    id: str
    activityDateTime: datetime
    activityDisplayName: str
    loggedByService: str
    # Rows of Log Analytics and other logs have these.
    TimeGenerated: None = None
    operationName: None = None


def tells(fields: Fields) -> bool:
    if fields.text("@odata.type").lower() in _TYPES:
        return True
    if "id" not in fields or "operationName" in fields or "TimeGenerated" in fields:
        return False
    return any(all(name in fields for name in names) for names in _SHAPES)


def read(row: Row, raw: bytes) -> Alert:
    return _entra.understood(NAME, row, raw)


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    _entra.mentioned,
    told_by="`@odata.type` is one of Entra's, or the fields are an audit's, a sign-in's, a risk's",
)
