"""Ingest, by which vendors charge, is not what is sent to them. What they count:

    Splunk     the event as it is indexed (`_raw`), uncompressed; not `time`, `source` and the like
               ("About the Splunk Enterprise license usage report view", whose GB are 2^30 bytes)
    Sentinel   the text of a row's columns without their names, in GB of 10^9 bytes ("Azure Monitor
               Logs cost calculations and options")

Of other systems nothing is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from pipelines.what_if.counts import DAY_MS, MOST_DAYS
from pipelines.what_if.found import Ingest
from pipelines.what_if.way import alert_of
from transforms.capture import utc
from transforms.delivery.parcel import Parcel

__all__ = ["Volume", "volume_of"]


class _Event(msgspec.Struct):
    event: msgspec.Raw = msgspec.Raw(b"")


_hec = msgspec.json.Decoder(_Event).decode
_row = msgspec.json.Decoder(dict[str, Any]).decode


def _splunk(payload: bytes) -> int:
    return len(_hec(payload).event)


def _sentinel(payload: bytes) -> int:
    return sum(
        len(value.encode() if isinstance(value, str) else msgspec.json.encode(value))
        for value in _row(payload).values()
        if value is not None
    )


class _Vendor(NamedTuple):
    of: str
    gb_bytes: int
    count: Callable[[bytes], int]


_VENDORS = {
    "splunk_hec": _Vendor("events as indexed (_raw), uncompressed; GB of 2^30", 2**30, _splunk),
    "sentinel": _Vendor("text of the columns that are sent; GB of 10^9", 10**9, _sentinel),
}


class Volume:
    """What a vendor would count, by day."""

    def __init__(self, vendor: _Vendor) -> None:
        self._vendor = vendor
        self._days: Counter[int] = Counter()

    def add(self, sent: Iterable[Parcel]) -> None:
        for parcel in sent:
            day = alert_of(parcel).enqueued_ms // DAY_MS
            if day not in self._days and len(self._days) >= MOST_DAYS:
                day = max(self._days)
            self._days[day] += self._vendor.count(parcel.payload)

    def ingest(self, days: int) -> Ingest:
        of, unit, _ = self._vendor
        total = sum(self._days.values())
        largest = max(self._days, key=lambda day: (self._days[day], -day), default=0)
        return Ingest(
            of, total, unit, total / unit, days, total / unit / max(days, 1),
            f"{utc(largest * DAY_MS):%Y-%m-%d}" if total else "", self._days[largest] / unit,
        )  # fmt: skip


def volume_of(kind: str) -> Volume | None:
    """None: nothing is known of how that system's vendor counts."""
    vendor = _VENDORS.get(kind)
    return Volume(vendor) if vendor else None
