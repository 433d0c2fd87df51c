"""Any JSON object that no kind claims: forwarded as it is, and counted.

Of it only a time and an Azure resource are read, where they stand under one of the usual names.
"""

from __future__ import annotations

from datetime import datetime

from schemas.alert import Alert
from schemas.entities import Details
from schemas.kinds import _base
from schemas.kinds._base import Fields, Kind

__all__ = ["KIND", "Row", "read"]

NAME = "unknown"


class Row(_base.Row, kw_only=True, gc=False):
    time: datetime | None = None
    TimeGenerated: datetime | None = None
    resourceId: str | None = None
    id: str | None = None


def tells(fields: Fields) -> bool:
    """Never: it is what is left."""
    return False


def read(row: Row, raw: bytes) -> Alert:
    entity = _base.body_hash(raw)
    resources = tuple(
        item for item in _base.unique((row.resourceId, row.id)) if _base.subscription_of(item)
    )
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, ""),
        entity=entity,
        event_ms=_base.millis(row.time or row.TimeGenerated),
        subscription_id=_base.subscription_of(resources[0]) if resources else "",
        resource_ids=resources,
        resource=_base.short_name(resources[0]) if resources else "",
        raw=raw,
    )


def details(raw: bytes) -> Details:
    """Nothing: whatever it may mention, nobody said where."""
    return Details()


KIND = Kind(NAME, Row, tells, read, details, told_by="no other kind wants it", general=True)
