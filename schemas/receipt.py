"""How records ended: the figures that the account adds up."""

from __future__ import annotations

import enum

import msgspec

from schemas.runs import Run, runs

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


class Receipt(msgspec.Struct, array_like=True):
    """What one sink did with (a part of) the batch `first..last` of an origin.

    size: records in the whole batch; the batch is settled once its receipts' outcomes add up to it.
    owed: exactly the records that count as owed.
    enqueued_ms: of the youngest alert in it; 0 if it held none.
    since_ms: enqueued time of the oldest alert that is owed; 0: not known, or none is.
    offset: the hub's own position of event `last`; "" where it is not known.
    only: set when the batch paid what was owed: then no position moves, and `delivered`, `dead`
        and `not_routed` (dead letters that were tried again) are the records that ended now.
    attempt: the batch's.
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
    since_ms: int = 0
    offset: str = ""
    not_routed: list[Run] = []
    attempt: int = 0
