"""Recomputes the account from the objects behind it, and from what truly arrived.

Nothing here trusts a sum: receipts must tile each range and add up, every record that is counted
as dead must lie in a dead letter, every one that is owed in an IOU, and the checkpoint must not
be ahead of any sink.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from pipelines.report.accounts import owed_of
from schemas.batch import Origin
from schemas.ledger import Span
from schemas.receipt import Outcomes
from schemas.runs import Run, clip, count, subtract, union
from transforms.account import Settled, receipts, settled
from transforms.dead_letters import read_dead_letters
from transforms.gaps import gaps
from transforms.state_store import StateStore, place, unplace

__all__ = [
    "Arrived",
    "Check",
    "Letters",
    "Missing",
    "Verification",
    "letters",
    "never_read",
    "receipt_faults",
    "verify",
]

_PARSE = "parse"


class Check(msgspec.Struct):
    """checked: of how many accounts (a sink's of a partition), or partitions. faults, notes: one
    sentence each; notes are no faults."""

    what: str
    checked: int = 0
    faults: list[str] = []
    notes: list[str] = []


class Missing(msgspec.Struct):
    """An alert that a sink must have and has not, by the address of one of its records."""

    id: str
    source: str
    partition: str
    sequence: int
    index: int


class Arrived(msgspec.Struct):
    """What a receiver has, against what it must have.

    lines, ids: how many it has, and how many different ones. expected: ids that it must have.
    twice: ids that came more than once: at least once is what is promised.
    excused: expected ids that are not there, and need not be: a copy is dead or owed.
    early: ids of events that are not settled yet, or of before the account began.
    undecided: unexpected ids that may be of events which the hub has deleted.
    """

    sink: str
    lines: int
    ids: int
    expected: int = 0
    twice: int = 0
    excused: int = 0
    early: int = 0
    undecided: int = 0
    missing: list[Missing] = []
    unexpected: list[str] = []

    @property
    def holds(self) -> bool:
        return not (self.missing or self.unexpected)


class Verification(msgspec.Struct):
    """unchecked: what could not be looked at, and why: one sentence each."""

    holds: bool
    checks: list[Check]
    arrived: list[Arrived] = []
    unchecked: list[str] = []


# ----------------------------------------------------------------------------- receipts


def never_read(store: StateStore, sink: str, origin: Origin) -> list[Run]:
    """The events of a partition that are in gaps, for this sink."""
    found = gaps(store, origin)
    return union(Run(g.first, g.last, 0) for g in found if not g.sinks or sink in g.sinks)


def receipt_faults(stored: Settled, spans: Iterable[Span], missing: Iterable[Run]) -> list[str]:
    """What is wrong with the receipts of an account: each event up to its position has one, but
    for those that were never read, and together they are the account."""
    spans, missing = [*spans], [*missing]
    if stored.began < 0:  # an older version wrote it, and no receipts
        began = min((span.first for span in spans), default=stored.position + 1)
    else:
        began = stored.began
    faults = []
    reached = began - 1
    for span in (*spans, None):
        first = span.first if span else stored.position + 1
        if first > reached + 1:
            for hole in subtract([Run(reached + 1, first - 1, 0)], missing):
                faults.append(f"events {_range(hole.first, hole.last)} have no receipt")
        if span is None:
            break
        if first <= reached:
            if first < began:
                faults.append(f"a receipt begins at event {first:,}, the account at {began:,}")
            else:
                last = min(reached, span.last)
                faults.append(f"events {_range(first, last)} have more than one receipt")
        if span.records != span.outcomes.total:
            faults.append(
                f"events {_range(first, span.last)} held {span.records:,} records, and "
                f"{span.outcomes.total:,} ended"
            )
        reached = max(reached, span.last)
    if reached > stored.position:
        faults.append(
            f"receipts reach event {reached:,}, the account only event {stored.position:,}"
        )
    if stored.began >= 0:
        faults += _sum_faults(stored, spans)
    return faults


def _sum_faults(stored: Settled, spans: Iterable[Span]) -> Iterator[str]:
    records, outcomes = 0, Outcomes()
    for span in spans:
        records += span.records
        outcomes += span.outcomes
    if records != stored.records:
        yield f"the receipts are of {records:,} records, the account is of {stored.records:,}"
    for name in ("delivered", "not_routed", "repeat", "dead", "owed"):
        said, found = getattr(stored.outcomes, name), getattr(outcomes, name)
        if said != found:
            words = name.replace("_", " ")
            yield f"the receipts say {found:,} {words}, the account {said:,}"


def _range(first: int, last: int) -> str:
    return f"{first:,} to {last:,}" if last > first else f"{first:,}"


# ------------------------------------------------------------------------ the whole store

Letters = dict[Origin, dict[str, list[tuple[int, int]]]]
"""Addresses of dead letters, in order, by partition and step."""


def letters(store: StateStore) -> Letters:
    """All there are."""
    found: Letters = {}
    for letter in read_dead_letters(store):
        steps = found.setdefault(Origin(letter.source, letter.partition), {})
        steps.setdefault(letter.step, []).append((letter.sequence, letter.index))
    for steps in found.values():
        for addresses in steps.values():
            addresses.sort()
    return found


def verify(store: StateStore, sinks: Iterable[str]) -> list[Check]:
    """Everything that the store itself can tell, of every account in it. sinks: those whose least
    position is the checkpoint."""
    tiled = Check("Receipts tile every range, and add up to the account", faults=[], notes=[])
    dead = Check("Every dead record lies in a dead letter", faults=[], notes=[])
    owed = Check("What is owed stands in IOUs, or was paid", faults=[], notes=[])
    found = letters(store)
    for sink in sorted({unplace(path)[1] for path in store.list("accounts")}):
        for origin in sorted(settled(store, sink)):
            row = receipts(store, sink, origin)
            if row is None:
                continue
            stored, spans = row
            where = f"{sink}, {origin}"
            for check in (tiled, dead, owed):
                check.checked += 1
            tiled.faults += [
                f"{where}: {fault}"
                for fault in receipt_faults(stored, spans, never_read(store, sink, origin))
            ]
            if stored.began < 0:
                tiled.notes.append(
                    f"{where}: an older version began it, and kept no receipts before event "
                    f"{spans[0].first if spans else stored.position + 1:,}"
                )
            steps = found.get(origin, {})
            addresses = sorted({*steps.get(_PARSE, ()), *steps.get(sink, ())})
            _dead(dead, where, store, sink, origin, stored, spans, addresses)
            _owed(owed, where, store, sink, origin, stored)
    return [tiled, dead, owed, _checkpoints(store, [*sinks])]


def _dead(
    check: Check,
    where: str,
    store: StateStore,
    sink: str,
    origin: Origin,
    stored: Settled,
    spans: Iterable[Span],
    addresses: list[tuple[int, int]],
) -> None:
    """A letter is on disk before its record counts. One that counts nowhere was left by a crash
    just then, and the record ended otherwise when it was read again; it loses nothing."""

    def inside(first: int, last: int) -> int:
        return bisect_right(addresses, (last, 1 << 62)) - bisect_left(addresses, (first, -1))

    fewer = []
    for span in spans:
        there = inside(span.first, span.last)
        if there < span.outcomes.dead:
            fewer.append(
                f"{where}: of events {_range(span.first, span.last)} {span.outcomes.dead:,} "
                f"records are dead, and {there:,} have a dead letter"
            )
    paid = owed_of(store, sink, origin, stored.position)
    counted = stored.outcomes.dead + paid.dead
    there = inside(max(stored.began, 0), stored.position)
    # Letters that were tried again, and delivered, are gone, and count as dead no more.
    (check.faults if there < counted else check.notes).extend(fewer)
    if there < counted:
        check.faults.append(
            f"{where}: {counted:,} records are dead, and {there:,} have a dead letter"
        )
    elif there > counted:
        check.notes.append(
            f"{where}: {there - counted:,} dead letters are of records that ended otherwise later"
        )


def _owed(
    check: Check, where: str, store: StateStore, sink: str, origin: Origin, stored: Settled
) -> None:
    found = owed_of(store, sink, origin, stored.position)
    ended = found.delivered + found.dead + found.not_routed + found.count
    if ended != stored.outcomes.owed:
        check.faults.append(
            f"{where}: {stored.outcomes.owed:,} records came to be owed, but {found.count:,} are "
            f"owed, {found.delivered:,} were delivered and {found.dead:,} are dead since"
        )
    if count(union(found.runs)) != found.count:
        check.faults.append(f"{where}: {found.count - count(union(found.runs)):,} are owed twice")
    outside = subtract(found.runs, clip(found.runs, max(stored.began, 0), stored.position))
    if outside:
        check.faults.append(
            f"{where}: {count(outside):,} records are owed of events before the account began"
        )


def _checkpoints(store: StateStore, sinks: list[str]) -> Check:
    """It is written after the accounts, and said again from them: a crash may leave it behind."""
    check = Check("No checkpoint is ahead of a sink", faults=[], notes=[])
    positions: dict[Origin, list[int]] = {}
    for sink in sinks:
        for origin, entry in settled(store, sink).items():
            positions.setdefault(origin, []).append(entry.position)
    for origin, found in sorted(positions.items()):
        check.checked += 1
        names = origin.source.split("/")
        data = store.get(place("checkpoints", *names, "checkpoint", origin.partition))
        if data is None:
            continue
        said = int(msgspec.json.decode(data, type=dict[str, str])["sequencenumber"])
        if said > min(found):
            check.faults.append(
                f"{origin}: the checkpoint is event {said:,}, but a sink settled only event "
                f"{min(found):,}"
            )
        elif said < min(found):
            check.notes.append(
                f"{origin}: the checkpoint is {min(found) - said:,} events behind the sinks"
            )
    return check
