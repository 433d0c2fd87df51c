"""What a dry run and a comparison find, as values: JSON for machines, and what the tables and the
page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from transforms.delivery.line import printable
from transforms.read.files.base import Unread

__all__ = [
    "Change",
    "Comparison",
    "DryRun",
    "Example",
    "Field",
    "Flow",
    "Group",
    "Ingest",
    "Load",
    "NotRead",
    "SinkChange",
    "as_json",
    "not_read",
]

Change = Literal["only_a", "only_b", "different"]

_MOST_UNREAD = 1_000  # in the JSON; of others only how many


class Ingest(msgspec.Struct):
    """What a vendor counts. `gb` in the vendor's own: `gb_bytes` each. A day is one of history, in
    UTC, by when the hub took it; what is replayed counts when it is replayed."""

    of: str
    bytes: int
    gb_bytes: int
    gb: float
    days: int
    gb_a_day: float
    largest_day: str
    largest_day_gb: float


class NotRead(msgspec.Struct):
    """Bytes of a file that could not be read; bytes, records -1: how many is not known."""

    file: str
    offset: int
    bytes: int
    records: int
    why: str


class Load(msgspec.Struct):
    """What one sink would get. alerts + not_routed + already + dead: all that are no repeats.

    already: it has them. bytes: as encoded, before compression. requests, seconds: at least.
    bound: what the seconds come from. note: why it would get nothing.
    """

    name: str
    kind: str
    alerts: int = 0
    not_routed: int = 0
    already: int = 0
    dead: int = 0
    shortened: int = 0
    by_kind: dict[str, int] = {}
    by_severity: dict[str, int] = {}
    reasons: dict[str, int] = {}
    bytes: int = 0
    requests: int = 0
    seconds: float = 0.0
    bound: str = ""
    earliest: datetime | None = None
    latest: datetime | None = None
    ingest: Ingest | None = None
    note: str = ""


class Flow(msgspec.Struct):
    """What came of the records before any sink: records = dead + not_chosen + repeats + alerts.

    masked: secrets, in those of the time that was asked for."""

    records: int = 0
    dead: int = 0
    not_chosen: int = 0
    repeats: int = 0
    alerts: int = 0
    masked: int = 0


class DryRun(msgspec.Struct):
    """events: as a hub counts; one holds one or more records. seconds: of the whole replay, at
    least. earliest, latest: event times of the alerts. took: seconds, of the dry run."""

    events: int
    flow: Flow
    by_kind: dict[str, int]
    dead_reasons: dict[str, int]
    earliest: datetime | None
    latest: datetime | None
    days: int
    took: float
    seconds: float
    sinks: list[Load]
    unread: list[NotRead]
    unread_places: int


class Field(msgspec.Struct):
    """A field whose value differs; None: it is not there."""

    name: str
    a: str | None
    b: str | None


class Example(msgspec.Struct):
    """why: why one of the two does not deliver it. fields: what differs where both do."""

    event_id: str
    title: str
    kind: str
    severity: str
    time: datetime | None
    why: str = ""
    fields: list[Field] = []


class Group(msgspec.Struct):
    """Alerts that change alike. rule: what makes it so, as the settings have it."""

    sink: str
    change: Change
    rule: str
    kind: str
    alerts: int = 0
    examples: list[Example] = []


class SinkChange(msgspec.Struct):
    """same + different + only_a: alerts that the first settings deliver; same + different + only_b
    the second. system_a, system_b: "": the sink does not exist there.

    fields: in how many of the `compared` alerts a field differs.
    """

    name: str
    system_a: str
    system_b: str
    same: int = 0
    different: int = 0
    only_a: int = 0
    only_b: int = 0
    bytes_a: int = 0
    bytes_b: int = 0
    ingest_a: Ingest | None = None
    ingest_b: Ingest | None = None
    settings: list[Field] = []
    compared: int = 0
    fields: dict[str, int] = {}

    @property
    def changed(self) -> int:
        return self.different + self.only_a + self.only_b

    @property
    def measured(self) -> bool:
        return self.ingest_a is not None or self.ingest_b is not None


class Comparison(msgspec.Struct):
    """names: what the two settings are called. settings: what differs in them beside the sinks."""

    names: tuple[str, str]
    events: int
    flow_a: Flow
    flow_b: Flow
    earliest: datetime | None
    latest: datetime | None
    settings: list[Field]
    sinks: list[SinkChange]
    groups: list[Group]
    unread: list[NotRead]
    unread_places: int

    @property
    def changed(self) -> int:
        """How many deliveries change."""
        return sum(sink.changed for sink in self.sinks)


def as_json(found: DryRun | Comparison) -> bytes:
    """Indented, with a line's end."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def not_read(found: Sequence[Unread]) -> tuple[list[NotRead], int]:
    """The first of them, and how many there are."""
    listed = [
        NotRead(printable(it.url, 1_000), it.offset, it.size, it.records, printable(it.why))
        for it in found[:_MOST_UNREAD]
    ]
    return listed, len(found)
