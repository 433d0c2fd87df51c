"""How records ended: the figures that the account adds up."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

__all__ = ["Outcome", "Outcomes", "Receipt", "Run", "runs"]


class Outcome(enum.IntEnum):
    """How one record ended for one sink. Every record ends in exactly one."""

    DELIVERED = 0
    NOT_ROUTED = 1
    REPEAT = 2
    DEAD = 3
    OWED = 4


class Outcomes(msgspec.Struct, array_like=True):
    """Counts of records by outcome; `earlier` were settled before a restart and count no more."""

    delivered: int = 0
    not_routed: int = 0
    repeat: int = 0
    dead: int = 0
    owed: int = 0
    earlier: int = 0

    @property
    def total(self) -> int:
        """Records that this run accounts for: everything but `earlier`."""
        return self.delivered + self.not_routed + self.repeat + self.dead + self.owed

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.delivered + other.delivered,
            self.not_routed + other.not_routed,
            self.repeat + other.repeat,
            self.dead + other.dead,
            self.owed + other.owed,
            self.earlier + other.earlier,
        )


class Run(msgspec.Struct, array_like=True, frozen=True, order=True):
    """The records at `index` of each event `first..last`: a compact set of addresses."""

    first: int
    last: int
    index: int

    def __len__(self) -> int:
        return self.last - self.first + 1


def runs(addresses: Iterable[tuple[int, int]]) -> list[Run]:
    """The least runs that hold exactly these `(sequence, index)` addresses, in order."""
    found: list[Run] = []
    for index, sequence in sorted({(index, sequence) for sequence, index in addresses}):
        if found and found[-1].index == index and found[-1].last == sequence - 1:
            found[-1] = Run(found[-1].first, sequence, index)
        else:
            found.append(Run(sequence, sequence, index))
    return sorted(found)


class Receipt(msgspec.Struct, array_like=True):
    """What one sink did with (a part of) the batch `first..last` of an origin.

    size: records in the whole batch; the batch is settled once its receipts' outcomes add up to it.
    owed: exactly the records that count as owed.
    enqueued_ms: of the youngest alert in it; 0 if it held none.
    only: set when the batch paid what was owed: then no position moves, and `delivered` and
        `dead` are the records that ended now.
    """

    source: str
    partition: str
    sink: str
    first: int
    last: int
    size: int
    outcomes: Outcomes
    owed: list[Run]
    enqueued_ms: int = 0
    only: str | None = None
    delivered: list[Run] = []
    dead: list[Run] = []
