"""The account of one sink and one partition: a settled prefix, and what it adds up to."""

from __future__ import annotations

import msgspec

from schemas.receipt import Outcomes, Receipt, Run

__all__ = ["IOU", "Ledger"]


class _Open(msgspec.Struct, array_like=True):
    """A batch that has not ended wholly, or ended before an earlier one did."""

    first: int
    last: int
    size: int
    outcomes: Outcomes
    owed: list[Run]
    enqueued_ms: int


class Ledger(msgspec.Struct):
    """`position` is the last sequence number up to which every record ended, and was counted.

    Receipts may come in parts and in any order; the position moves over the settled prefix only.
    """

    position: int
    records: int = 0  # as Parse counted them; `outcomes` is what the sink says of each
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)
    enqueued_ms: int = 0
    open: list[_Open] = []

    def add(self, receipt: Receipt) -> None:
        """Count a receipt. What lies at or before the position was counted before."""
        if receipt.last <= self.position:
            return
        for entry in self.open:
            if entry.first == receipt.first and entry.last == receipt.last:
                break
        else:
            entry = _Open(receipt.first, receipt.last, receipt.size, Outcomes(), [], 0)
            self.open.append(entry)
            self.open.sort(key=lambda e: e.first)
        entry.outcomes += receipt.outcomes
        entry.owed.extend(receipt.owed)
        entry.enqueued_ms = max(entry.enqueued_ms, receipt.enqueued_ms)

    def advance(self) -> list[Run]:
        """Move over every batch that is settled now; what they owe. Order is by sequence."""
        owed: list[Run] = []
        while self.open:
            entry = self.open[0]
            if entry.last <= self.position:
                self.open.pop(0)  # one that reached further counted it
                continue
            ended = entry.outcomes.total + entry.outcomes.earlier
            if entry.first > self.position + 1 or ended < entry.size:
                break
            self.open.pop(0)
            self.position = entry.last
            self.records += entry.size - entry.outcomes.earlier
            self.outcomes += msgspec.structs.replace(entry.outcomes, earlier=0)
            self.enqueued_ms = max(self.enqueued_ms, entry.enqueued_ms)
            owed.extend(sorted(entry.owed))
        return owed


class IOU(msgspec.Struct):
    """Exactly the records of a range that a sink is still owed, and how those paid ended."""

    owed: list[Run]
    delivered: int = 0
    dead: int = 0

    @property
    def count(self) -> int:
        """Records still owed."""
        return sum(len(run) for run in self.owed)

    def pay(self, delivered: list[Run], dead: list[Run]) -> None:
        """Strike out the records that ended now. What is not owed (any more) is not counted."""
        before = self.count
        self.owed = subtract(self.owed, delivered)
        self.delivered += before - self.count
        before = self.count
        self.owed = subtract(self.owed, dead)
        self.dead += before - self.count


def subtract(runs: list[Run], minus: list[Run]) -> list[Run]:
    """The records of `runs` that are not in `minus`."""
    left = list(runs)
    for cut in minus:
        pieces: list[Run] = []
        for run in left:
            if run.index != cut.index or cut.last < run.first or cut.first > run.last:
                pieces.append(run)
                continue
            if run.first < cut.first:
                pieces.append(Run(run.first, cut.first - 1, run.index))
            if run.last > cut.last:
                pieces.append(Run(cut.last + 1, run.last, run.index))
        left = pieces
    return sorted(left)
