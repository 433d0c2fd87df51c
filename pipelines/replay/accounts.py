"""The accounts of one replay: how far each of its sinks is, and what it is owed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam

from pipelines.report.accounts import SinkAccount, owed_of
from pipelines.runners import choose
from schemas.batch import Origin
from schemas.receipt import Outcomes, Receipt
from schemas.runs import clip
from transforms.account import Account, Settled, begin, settled, wait_until_written
from transforms.owed import debts
from transforms.read.files.base import RECORDS
from transforms.read.history import Owing
from transforms.read.plan import Plan, origin
from transforms.state_store import StateStore

__all__ = ["Accounts"]


class Accounts(NamedTuple):
    """What a replay's sinks have settled, as the store has it now."""

    store: StateStore
    name: str
    sinks: tuple[str, ...]

    def begin(self, lane: int) -> None:
        """To be said before the first record of a lane is read."""
        begin(self.store, self.sinks, origin(self.name, lane), -1)

    def enter(self, found: Mapping[str, Sequence[Receipt]]) -> None:
        """Add receipts, by sink and in the order of their events, to what is settled. Those that
        were added before change nothing."""
        if not any(found.values()):
            return
        pipeline = beam.Pipeline(runner=choose("DirectRunner").runner)
        for sink, receipts in found.items():
            _ = (
                pipeline
                | f"Told of {sink}" >> beam.Create(receipts, reshuffle=False)
                | f"Account for {sink}" >> Account(sink, self.sinks, self.store)
            )
        pipeline.run().wait_until_finish()
        wait_until_written()

    def position(self, lane: int) -> int:
        """The last address of a lane that every sink has settled."""
        at = origin(self.name, lane)
        found = [settled(self.store, sink).get(at) for sink in self.sinks]
        return min((entry.position if entry else -1 for entry in found), default=-1)

    def place(self, lane: int) -> str:
        """Where the part of the least position can be read on from."""
        at = origin(self.name, lane)
        entries = [settled(self.store, sink).get(at) for sink in self.sinks]
        known = [entry for entry in entries if entry is not None]
        return min(known, key=lambda entry: entry.position).offset if known else ""

    def unfinished(self, plan: Plan) -> list[int]:
        """The lanes that are not through."""
        return [lane for lane in range(plan.lanes) if self.position(lane) + 1 < plan.end(lane)]

    def parts_done(self, plan: Plan, lane: int) -> int:
        return min((self.position(lane) + 1) // RECORDS, plan.parts(lane))

    def lanes(self, sink: str) -> Iterator[tuple[Origin, Settled]]:
        """What a sink has settled of each lane."""
        source = origin(self.name, 0).source
        for at, entry in settled(self.store, sink).items():
            if at.source == source:
                yield at, entry

    def sums(self) -> list[SinkAccount]:
        """Each sink's account of this replay alone."""
        found = []
        for sink in self.sinks:
            records, outcomes = 0, Outcomes()
            for at, entry in self.lanes(sink):
                records += entry.records
                outcomes += entry.outcomes
                paid = owed_of(self.store, sink, at, entry.position)
                outcomes += Outcomes(
                    paid.delivered, paid.not_routed, 0, paid.dead,
                    -(paid.delivered + paid.not_routed + paid.dead),
                )  # fmt: skip
            found.append(SinkAccount(sink, records, outcomes))
        return found

    def debts(self, lanes: Iterable[int], patience: float) -> list[Owing]:
        """What sinks are owed of these lanes, up to where every sink is.

        patience: see `Owing`.
        """
        found = []
        for lane in lanes:
            at = origin(self.name, lane)
            for sink in self.sinks:
                runs = [
                    run
                    for debt in debts(self.store, sink)
                    if (debt.source, debt.partition) == (at.source, at.partition)
                    for run in debt.iou.owed
                ]
                if runs := clip(runs, 0, self.position(lane)):
                    found.append(Owing(self.name, lane, sink, tuple(runs), patience))
        return found
