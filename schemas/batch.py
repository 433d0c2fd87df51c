"""The unit that flows: a run of one partition's events, before and after parsing.

A batch covers the sequence numbers `first..last` of its origin without a gap, also where the hub
itself skipped numbers, so that ranges of successive batches tile the partition. One hub event
may hold many records; `(sequence, index)` is a record's address for ever.
"""

from __future__ import annotations

import msgspec

from schemas.alert import Alert
from schemas.receipt import Outcome, Run

__all__ = ["NOBODY", "TO_DIGESTS", "AlertBatch", "Batch", "Dropped", "Origin", "Record"]

NOBODY = ""
"""`only` of a batch that is re-read to mark what was seen: no sink gets it."""

TO_DIGESTS = "/digests"
"""`only` of a batch that is re-read for the digests alone, which a crash kept from telling what
they had counted of it; it marks what was seen, too. No sink's name holds a slash."""


class Origin(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Where records come from.

    source: `namespace.servicebus.windows.net/hub/consumer_group`, or a file's URL.
    partition: the hub's partition id; `"0"` for a file.
    """

    source: str
    partition: str

    def __str__(self) -> str:
        return f"{self.source}/{self.partition}"


class Record(msgspec.Struct, array_like=True, gc=False):
    """One hub event as it was read: `index` is 0 until Parse unwraps it; that of the first record
    in the body where the body is not the whole event (a dead letter that is tried again)."""

    sequence: int
    index: int
    enqueued_ms: int
    body: bytes


class Dropped(msgspec.Struct, array_like=True, gc=False):
    """A record that left the batch before any sink: its outcome holds for every sink."""

    sequence: int
    index: int
    outcome: Outcome


class Batch(msgspec.Struct, array_like=True):
    """50-200 events of one partition, as read.

    only: the one sink that this batch is addressed to (or `NOBODY`, or `TO_DIGESTS`); None: every
        sink.
    wanted: the records that this batch is about, where it pays a debt; None: all.
    offset: the hub's own position of event `last`, as checkpoints of its SDK hold it; "" where it
        is not known.
    retried: it is of dead letters: all that one holds now shares its address, and is routed.
    attempt: at reading the partition (`transforms.attempts`); 0 but on clusters.
    """

    origin: Origin
    first: int
    last: int
    only: str | None
    records: list[Record]
    wanted: list[Run] | None = None
    offset: str = ""
    retried: bool = False
    attempt: int = 0


class AlertBatch(msgspec.Struct, array_like=True):
    """A parsed batch. `size` records are in it; `len(alerts) + len(dropped)` stays that."""

    origin: Origin
    first: int
    last: int
    only: str | None
    size: int
    alerts: list[Alert]
    dropped: list[Dropped]
    offset: str = ""
    retried: bool = False
    attempt: int = 0
