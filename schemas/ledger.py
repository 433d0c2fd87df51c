"""The account of one sink and one partition: a settled prefix, and what it adds up to."""

from __future__ import annotations

import msgspec

from schemas.receipt import Outcomes, Receipt
from schemas.runs import Run, count, subtract, union

__all__ = ["IOU", "Ledger", "Owing", "Payment", "Span", "joined"]

_SPAN_MS = 60_000


class Owing(msgspec.Struct, array_like=True):
    """What a batch that ends at event `last` came to owe. since_ms: 0 if it is not known."""

    last: int
    owed: list[Run]
    since_ms: int


class Span(msgspec.Struct, array_like=True):
    """How the records of the events `first..last` ended: the receipts of successive batches.

    since_ms, until_ms: enqueued times of the youngest alert in its first and in its last batch; 0
        where there was none.
    """

    first: int
    last: int
    records: int
    outcomes: Outcomes
    since_ms: int = 0
    until_ms: int = 0


def joined(spans: list[Span], more: list[Span]) -> list[Span]:
    """Both, in order; what follows within a minute of enqueued time is one span."""
    found = [*spans]
    for span in more:
        last = found[-1] if found else None
        if (
            last is None
            or span.first != last.last + 1
            or (last.since_ms and span.until_ms - last.since_ms >= _SPAN_MS)
        ):
            found.append(span)
            continue
        found[-1] = Span(
            last.first,
            span.last,
            last.records + span.records,
            last.outcomes + span.outcomes,
            last.since_ms or span.since_ms,
            max(last.until_ms, span.until_ms),
        )
    return found


class _Open(msgspec.Struct, array_like=True):
    """A batch that has not ended wholly, or ended before an earlier one did."""

    first: int
    last: int
    size: int
    outcomes: Outcomes
    owed: list[Run]
    enqueued_ms: int
    since_ms: int = 0
    offset: str = ""


class Ledger(msgspec.Struct):
    """`position` is the last sequence number up to which every record ended, and was counted.

    Receipts may come in parts and in any order; the position moves over the settled prefix only.
    owing, spans: what settled batches owe, and their receipts, in order, until they are `written`
        where they outlast this. offset: the hub's own position of the event at `position`.
    attempt: of the last receipt.
    """

    position: int
    records: int = 0  # as Parse counted them; `outcomes` is what the sink says of each
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)
    enqueued_ms: int = 0
    open: list[_Open] = []
    owing: list[Owing] = []
    spans: list[Span] = []
    offset: str = ""
    attempt: int = 0

    def add(self, receipt: Receipt) -> None:
        """Count a receipt. What lies at or before the position was counted before."""
        self.attempt = receipt.attempt
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
        entry.enqueued_ms = max(entry.enqueued_ms, receipt.enqueued_ms)
        entry.offset = receipt.offset
        if receipt.owed:
            entry.owed.extend(receipt.owed)
            since_ms = receipt.since_ms or receipt.enqueued_ms
            entry.since_ms = min(entry.since_ms or since_ms, since_ms)

    def advance(self) -> None:
        """Move over every batch that is settled now."""
        while self.open:
            entry = self.open[0]
            if entry.last <= self.position:
                self.open.pop(0)  # one that reached further counted it
                continue
            ended = entry.outcomes.total + entry.outcomes.earlier
            if entry.first > self.position + 1 or ended < entry.size:
                break
            self.open.pop(0)
            first, self.position = self.position + 1, entry.last
            records = entry.size - entry.outcomes.earlier
            outcomes = msgspec.structs.replace(entry.outcomes, earlier=0)
            at_ms = entry.enqueued_ms
            self.records += records
            self.outcomes += outcomes
            self.enqueued_ms = max(self.enqueued_ms, at_ms)
            self.offset = entry.offset
            self.spans.append(Span(first, entry.last, records, outcomes, at_ms, at_ms))
            if entry.owed:
                self.owing.append(Owing(entry.last, union(entry.owed), entry.since_ms))

    def written(self, position: int) -> None:
        """What was up to this position need not be kept here any more."""
        if self.owing:
            self.owing = [entry for entry in self.owing if entry.last > position]
        if self.spans:
            self.spans = [span for span in self.spans if span.last > position]


class Payment(msgspec.Struct):
    """How records ended that were owed: several receipts' together.

    last: the highest event that they were about; enqueued_ms: of the youngest alert. not_routed:
        dead letters that were tried again, and which the sink does not want.
    """

    delivered: list[Run] = []
    dead: list[Run] = []
    last: int = -1
    enqueued_ms: int = 0
    not_routed: list[Run] = []

    def add(self, receipt: Receipt) -> None:
        self.delivered.extend(receipt.delivered)
        self.dead.extend(receipt.dead)
        self.not_routed.extend(receipt.not_routed)
        self.last = max(self.last, receipt.last)
        self.enqueued_ms = max(self.enqueued_ms, receipt.enqueued_ms)


class IOU(msgspec.Struct):
    """The records that a sink is still owed of some events, and how those that were paid ended.

    last: the highest event that it speaks of. since_ms: when the oldest record that is owed was
        enqueued, or somewhat before; 0: not known.
    """

    owed: list[Run]
    last: int = -1
    since_ms: int = 0
    delivered: int = 0
    dead: int = 0

    @property
    def count(self) -> int:
        """Records still owed."""
        return count(self.owed)

    def pay(self, payment: Payment) -> None:
        """Strike out the records that ended. What is not owed (any more) is not counted."""
        before = self.count
        self.owed = subtract(self.owed, payment.delivered)
        undelivered = self.count
        self.owed = subtract(self.owed, payment.dead)
        self.delivered += before - undelivered
        self.dead += undelivered - self.count
        if self.count < before and all(run.first > payment.last for run in self.owed):
            self.since_ms = max(self.since_ms, payment.enqueued_ms)
