"""Records that hold a line of text: `{"message": "…"}`.

A line that is no JSON is unwrapped as that; shippers (Filebeat, Logstash, Fluent Bit) write the
same with fields of their own around it: `@timestamp`, `host`, `tags`, …
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from schemas.kinds import _base
from schemas.kinds._base import Fields

__all__ = ["Row", "is_text", "message"]


class Row(_base.Row, kw_only=True, gc=False):
    timestamp: datetime | None = msgspec.field(name="@timestamp", default=None)
    # What has one of these has a kind by it, whatever its message.
    Type: None = None
    category: None = None
    operationName: None = None
    properties: None = None
    SystemAlertId: None = None


_TELLING = ("Type", "category", "operationName", "properties", "SystemAlertId", "records", "value")


def is_text(fields: Fields) -> bool:
    """Whether nothing but its message can tell what the record is."""
    return "message" in fields and not any(name in fields for name in _TELLING)


def message(raw: bytes) -> str:
    try:
        return Fields(raw).text("message")
    except (ValueError, RecursionError):
        return ""
