"""The record itself, and nothing else.

It is as it came but for what the alert names: its `repairs`, and secrets that were `masked`. So it
may hold line breaks, between tokens.
"""

from __future__ import annotations

from schemas.alert import Alert
from schemas.formats._base import Format

__all__ = ["FORMATS", "raw"]


def raw(alert: Alert) -> bytes:
    """The record's JSON object. Raises ValueError when `alert.raw` is none."""
    if not (alert.raw.startswith(b"{") and alert.raw.endswith(b"}")):
        raise ValueError("the record is not a JSON object")
    return alert.raw


FORMATS = (
    Format(
        "raw",
        raw,
        media_type="application/json",
        standard="none: what the source wrote",
        drops="what alertbeam knows beyond the record: its subscription, its event id",
        shortens="never",
    ),
)
