"""Whether nothing was lost, what came twice and might, and whether the account agrees."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from pipelines.report import SinkAccount
from schemas.batch import Origin
from schemas.runs import addresses
from tests.chaos.ground import SINKS, Ground
from tests.chaos.traffic import Place, Traffic
from transforms import owed
from transforms.account import settled
from transforms.dead_letters import read_dead_letters
from transforms.hand_over import marks
from transforms.owed import debts

__all__ = ["Death", "Verdict", "judge", "through"]

_NEVER_TWICE = {"elastic"}  # there, ids tell a repeat
_SHOWN = 5


@dataclasses.dataclass
class Death:
    """Where everything stood when a process had died: what was in flight, nobody knows.

    positions: of each sink, by partition. owed: to each sink. published: by partition. marks: up
        to where anything may have been read; a repeat may pass up to there.
    """

    positions: dict[str, dict[str, int]]
    owed: dict[str, set[Place]]
    published: dict[str, int]
    marks: dict[str, int]

    @classmethod
    def now(cls, ground: Ground, traffic: Traffic) -> Death:
        published = {str(n): last for n, last in enumerate(list(traffic.published))}
        owed._answers.clear()  # tokens may have been undone, too
        return cls(
            {sink: ground.positions(sink) for sink in SINKS},
            {
                sink: {
                    Place(debt.partition, *address)
                    for debt in debts(ground.store, sink)
                    for address in addresses(debt.iou.owed)
                }
                for sink in SINKS
            },
            published,
            {name.rpartition("/")[2]: mark for name, mark in marks(ground.store).items()},
        )

    @property
    def size(self) -> dict[str, int]:
        """How many events, of all partitions, may have been on their way to each sink."""
        return {
            sink: sum(
                max(0, last - positions.get(partition, -1))
                for partition, last in self.published.items()
            )
            + len(self.owed[sink])
            for sink, positions in self.positions.items()
        }

    def in_flight(self, sink: str, place: Place) -> bool:
        """Whether the record may have been on its way to the sink."""
        position = self.positions[sink].get(place.partition, -1)
        fresh = position < place.sequence <= self.published[place.partition]
        return fresh or place in self.owed[sink]

    def unsettled(self, place: Place) -> bool:
        """Whether the record lay behind its partition's checkpoint: a repeat may pass then."""
        behind = any(self.in_flight(sink, place) for sink in SINKS)
        ahead = self.published[place.partition] < place.sequence
        return behind or (ahead and place.sequence <= self.marks.get(place.partition, -1))


@dataclasses.dataclass
class Verdict:
    """wrong: what must not be, a line each. twice: more than once, by sink. passed: repeats that
    the deduplication let through, by sink. beyond: of both, what no death in flight explains."""

    wrong: list[str]
    twice: dict[str, int]
    passed: dict[str, int]
    beyond: dict[str, int]


def through(ground: Ground, traffic: Traffic) -> bool:
    """Whether every sink has settled everything, and is owed nothing."""
    owed._answers.clear()
    for sink in SINKS:
        found = settled(ground.store, sink)
        for partition, last in enumerate(traffic.published):
            entry = found.get(Origin(ground.source, str(partition)))
            if last >= 0 and (entry is None or entry.position < last):
                return False
        if any(debt.iou.owed for debt in debts(ground.store, sink)):
            return False
    return True


def judge(
    ground: Ground,
    traffic: Traffic,
    deaths: list[Death],
    may_repeat: set[str],
    settled_well: bool,
    crashed: bool,
) -> Verdict:
    """Compare what was published, what arrived, and the account.

    may_repeat: sinks whose receiver was in a trouble after which nobody knows what it took.
    settled_well: whether everything was through in time; if not, only what is missing matters.
    crashed: whether a process died, or a shift may have failed in one: then repeats may pass.
    """
    verdict = Verdict([], {}, {}, {})
    wrong = verdict.wrong.append
    arrived = ground.ids()
    owed._answers.clear()
    accounts = ground.accounts()
    copies = sum(len(places) - 1 for places in traffic.places.values())
    for sink, where in SINKS.items():
        wanted, found = traffic.wanted(where), arrived[sink]
        if missing := wanted - found.keys():
            wrong(f"{sink}: {len(missing)} lost: {_where(missing, traffic)}")
        if others := found.keys() - wanted:
            wrong(f"{sink}: {len(others)} that it must not have: {sorted(others)[:_SHOWN]}")
        _twice(sink, found, traffic, deaths, sink in may_repeat, verdict)
        if settled_well:
            _account(sink, accounts[sink], wanted, found, copies, traffic, crashed, verdict)
    dead = Counter(
        Place(letter.partition, letter.sequence, letter.index)
        for letter in read_dead_letters(ground.store)
    )
    if missed := traffic.dead - dead.keys():
        wrong(f"{len(missed)} dead letters are missing: {sorted(missed)[:_SHOWN]}")
    if more := dead.keys() - traffic.dead:
        wrong(f"{len(more)} dead letters that are none: {sorted(more)[:_SHOWN]}")
    if settled_well:
        _counts(ground, len(traffic.severity), max(verdict.passed.values()), verdict)
    return verdict


def _counts(ground: Ground, alerts: int, passed: int, verdict: Verdict) -> None:
    """What the digests counted: nothing less than there was; more only where a pane says so."""
    panes = ground.digests()
    counted = sum(pane["total"] for pane in panes)
    recounts = any(pane.get("recounts") is not None for pane in panes)
    if counted < alerts or (counted > alerts + passed and not recounts):
        told = ", though no pane says that it counts again" if counted > alerts else ""
        verdict.wrong.append(f"digests: {counted} counted of {alerts} alerts{told}")


def _twice(
    sink: str,
    found: Counter[str],
    traffic: Traffic,
    deaths: list[Death],
    may_repeat: bool,
    verdict: Verdict,
) -> None:
    twice = {identity: count - 1 for identity, count in found.items() if count > 1}
    verdict.twice[sink] = sum(twice.values())
    unexplained = [
        identity
        for identity in twice
        if not may_repeat
        and not any(
            death.in_flight(sink, place) or (len(traffic.places[identity]) > 1
                                             and death.unsettled(place))
            for death in deaths
            for place in traffic.places[identity]
        )
    ]  # fmt: skip
    verdict.beyond[sink] = len(unexplained)
    if unexplained:
        verdict.wrong.append(
            f"{sink}: {len(unexplained)} twice that were not in flight: "
            f"{_where(unexplained, traffic)}"
        )


def _account(
    sink: str,
    account: SinkAccount,
    wanted: set[str],
    found: Counter[str],
    copies: int,
    traffic: Traffic,
    crashed: bool,
    verdict: Verdict,
) -> None:
    outcomes: Any = account.outcomes
    wrong = verdict.wrong.append
    verdict.passed[sink] = copies - outcomes.repeat
    if not account.holds:
        wrong(f"{sink}: the sum does not hold: {account.records} in, {outcomes}")
    if account.records != traffic.records:
        wrong(f"{sink}: {account.records} records in the account, {traffic.records} published")
    if outcomes.dead != len(traffic.dead):
        wrong(f"{sink}: {outcomes.dead} dead in the account, {len(traffic.dead)} planted")
    if outcomes.owed:
        wrong(f"{sink}: {outcomes.owed} still owed")
    most = len(wanted) + max(0, copies - outcomes.repeat)
    if not len(wanted) <= outcomes.delivered <= most:
        wrong(
            f"{sink}: {outcomes.delivered} delivered in the account, {len(wanted)} wanted, "
            f"{copies - outcomes.repeat} repeats passed"
        )
    if sink not in _NEVER_TWICE and outcomes.delivered > sum(found.values()):
        wrong(f"{sink}: {outcomes.delivered} delivered, but {sum(found.values())} arrived")
    if outcomes.repeat > copies:
        wrong(f"{sink}: {outcomes.repeat} repeats in the account, {copies} published")
    if outcomes.repeat < copies and not crashed:
        wrong(f"{sink}: {copies - outcomes.repeat} repeats passed, though nothing crashed")


def _where(ids: Any, traffic: Traffic) -> str:
    some = sorted(ids, key=lambda identity: traffic.places[identity])[:_SHOWN]
    told = (
        f"{identity[:8]} at "
        + " and ".join(f"{p.partition}/{p.sequence}" for p in traffic.places[identity])
        for identity in some
    )
    return "; ".join(told)
