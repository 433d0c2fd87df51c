"""A line of syslog that a shipper put into JSON: sudo ran a command."""

from __future__ import annotations

from typing import Any

IDENTITY = ("message",)
VERSION = ("@timestamp",)
RESOLVED = None

LINE = (
    "<85>1 2026-03-04T11:20:00.123+01:00 shop-vm-1.shop.example.com sudo 2117 ID47"
    ' [meta@32473 sequenceId="7" note="a \\"quoted\\] note"] mallory : TTY=pts/0 ; PWD=/tmp ;'
    " USER=root ; COMMAND=/usr/bin/cat /etc/shadow"
)


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "message": LINE,
        "@timestamp": "2026-03-04T10:20:01Z",
        "host": {"name": "shipper-1"},
        "tags": ["linux"],
    }
    return record | overrides
