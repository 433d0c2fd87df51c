"""Avro files in the layout of Event Hubs Capture: read and written here, whatever is in them.

Source: Microsoft's "Event Hubs Capture" documentation and its Avro schema.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fastavro

from schemas.batch import Record

__all__ = ["CAPTURE_SCHEMA", "read_capture", "row", "write_capture"]

_MAP = {"type": "map", "values": ["long", "double", "string", "bytes"]}
CAPTURE_SCHEMA = {
    "type": "record",
    "name": "EventData",
    "namespace": "Microsoft.ServiceBus.Messaging",
    "fields": [
        {"name": "SequenceNumber", "type": "long"},
        {"name": "Offset", "type": "string"},
        {"name": "EnqueuedTimeUtc", "type": "string"},
        {"name": "SystemProperties", "type": _MAP},
        {"name": "Properties", "type": _MAP},
        {"name": "Body", "type": ["null", "bytes"]},
    ],
}
_PARSED = fastavro.parse_schema(CAPTURE_SCHEMA)
_ENQUEUED = "x-opt-enqueued-time"
_END_MS = 253_402_300_799_999  # the last that a date can say: the year 9999


def utc(ms: int) -> datetime.datetime:
    """A time that a date can say, nearest to this one."""
    seconds = min(max(ms, 0), _END_MS) / 1000
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def row(record: Record, properties: Mapping[str, Any] = {}) -> dict[str, Any]:
    """A record as Capture writes it."""
    at = utc(record.enqueued_ms)
    return {
        "SequenceNumber": record.sequence,
        "Offset": "",
        "EnqueuedTimeUtc": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "SystemProperties": {_ENQUEUED: record.enqueued_ms},
        "Properties": dict(properties),
        "Body": record.body,
    }


def write_capture(rows: Iterable[dict[str, Any]]) -> bytes:
    """A whole file."""
    buffer = io.BytesIO()
    fastavro.writer(buffer, _PARSED, rows, codec="deflate")
    return buffer.getvalue()


def read_capture(data: bytes) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The records of a file that this module wrote, each with its properties."""
    for found in fastavro.reader(io.BytesIO(data)):
        assert isinstance(found, dict)
        ms = found["SystemProperties"][_ENQUEUED]
        yield Record(found["SequenceNumber"], 0, ms, found["Body"]), found["Properties"]
