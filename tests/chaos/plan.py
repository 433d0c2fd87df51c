"""What goes wrong in a plan, and when: made from a seed, the same again each time."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from tests.chaos.ground import TROUBLES
from tests.chaos.victim import POINTS

__all__ = ["KINDS", "Life", "Plan", "Trouble", "plan"]

_RATE = 150  # events a second
_REACHED = 15.0  # seconds until a point must have been passed; machines are slow
_OWES = {  # points that are passed only if a sink is owed something; whether paying must begin
    "IOU half written": False,
    "IOU, no account": False,
    "payment in hand": True,
    "paid, not struck out": True,
    "struck out, not closed": True,
}
_OFTEN = {  # how often a point is passed in a second or two, about; the others once or twice
    "sent, no receipt": 60,
    "receipt, no account": 60,
    "account half written": 30,
    "account, no checkpoint": 30,
    "dead letter half written": 3,
    "dead letter, no receipt": 3,
    "IOU half written": 3,
    "IOU, no account": 3,
    "payment in hand": 3,
    "paid, not struck out": 3,
    "before a write": 120,
    "within a write": 120,
    "after a write": 120,
}
_DISK = ("disk full", "disk read-only", "disk unreachable", "disk slow")
_CLOCK = ("clock ahead", "clock behind")
_HUB = tuple(name for name in TROUBLES if name.startswith("hub"))
_RECEIVER = tuple(name for name in TROUBLES if name.startswith("receiver"))
_SILENT = ("receiver refuses", "receiver hangs", "receiver resets", "receiver takes and resets")
_AT_ONCE = {"hub drops", "hub detaches", "hub cuts a frame", "hub steps back"}  # they do not last


@dataclasses.dataclass
class Trouble:
    """Of a plan's seconds `at..at + seconds`. value: of the clock, seconds; of a slow disk, too."""

    name: str
    at: float
    seconds: float
    sink: str = ""
    value: float = 0.0


@dataclasses.dataclass
class Life:
    """One process of the pipeline, and its end: kill -9 after `seconds`, or at the `nth` passing
    of a named point; SIGTERM ("term"); or SIGTERM, and at once another or a kill -9 after
    `more` seconds.

    owes: a sink that refuses from the beginning; if it `pays`, until something is owed.
    """

    end: str  # "kill", "point", "term", "term, term", "term, kill", "last"
    seconds: float
    point: str = ""
    nth: int = 1
    more: float = 0.0
    owes: str = ""
    pays: bool = False


@dataclasses.dataclass
class Plan:
    """One load, the lives of the pipeline that it meets, and the troubles meanwhile.

    seconds: how long the load lasts at least; it lasts as long as the last life has not begun.
    power: each end is a power failure. planted: a pipeline that forgets what it owes.
    """

    seed: int
    kind: str
    seconds: float
    rate: int
    patience: float
    lives: list[Life]
    troubles: list[Trouble]
    power: bool = False
    planted: bool = False

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def plan(kind: str, seed: int) -> Plan:
    """The plan of a kind and a seed."""
    return KINDS[kind](kind, seed, random.Random(f"{kind} {seed}"))


def _killed(rng: random.Random, points: list[str]) -> Life:
    point = points.pop(rng.randrange(len(points)))
    if point == "at random":
        return Life("kill", round(rng.uniform(0.1, 2.5), 2))
    nth = rng.randint(1, _OFTEN.get(point, 2))
    life = Life("point", _REACHED, point, nth)
    if point in _OWES:
        life.owes = rng.choice(("splunk", "siem", "elastic", "hook"))
        life.pays = _OWES[point]
    return life


def _kills(kind: str, seed: int, rng: random.Random) -> Plan:
    points = [*POINTS, *["at random"] * 8]
    lives = [_killed(rng, points) for _ in range(3)]
    owing = any(life.owes for life in lives)
    return Plan(
        seed,
        kind,
        3.0,
        _RATE,
        1.0 if owing else 5.0,
        [*lives, Life("last", 0)],
        [],
        kind == "power",
    )


def _row(
    rng: random.Random, names: tuple[str, ...], many: int, lasting: tuple[float, float]
) -> list[Trouble]:
    """One after another, with a breath between them."""
    found, at = [], 1.5
    for _ in range(many):
        name = rng.choice(names)
        seconds = 0.0 if name in _AT_ONCE else round(rng.uniform(*lasting), 2)
        found.append(Trouble(name, round(at, 2), seconds))
        at += seconds + rng.uniform(0.4, 1.0)
    return found


def _ended(rng: random.Random, troubles: list[Trouble], terms: int) -> list[Life]:
    """Lives that are ended by SIGTERM in the midst of one of these troubles."""
    lives: list[Life] = []
    since = 0.0
    for trouble in sorted(rng.sample(troubles, min(terms, len(troubles))), key=lambda t: t.at):
        at = trouble.at + rng.uniform(0.0, max(0.1, trouble.seconds))
        end = rng.choice(("term", "term", "term, term", "term, kill"))
        if at > since + 1.0:
            more = round(rng.uniform(0.0, 0.5), 2)
            lives.append(Life(end, round(at - since, 2), more=more))
            since = at
    return [*lives, Life("last", 0)]


def _hub(kind: str, seed: int, rng: random.Random) -> Plan:
    troubles = _row(rng, _HUB, 9, (0.3, 1.2))
    return _made(kind, seed, troubles, _ended(rng, troubles, rng.randint(0, 1)))


def _receivers(kind: str, seed: int, rng: random.Random) -> Plan:
    troubles = _row(rng, (*_RECEIVER, "folder away"), 9, (0.3, 1.8))
    for trouble in troubles:
        if trouble.name != "folder away":
            trouble.sink = rng.choice(("splunk", "siem", "elastic", "hook"))
            if trouble.sink == "siem" and trouble.name not in _SILENT:
                trouble.name = rng.choice(_SILENT)
    return _made(kind, seed, troubles, _ended(rng, troubles, rng.randint(0, 1)), 1.0)


def _disk(kind: str, seed: int, rng: random.Random) -> Plan:
    troubles = _row(rng, _DISK, 7, (0.3, 1.5))
    for trouble in troubles:
        trouble.value = 0.1 if trouble.name == "disk slow" else 0.0
    return _made(kind, seed, troubles, _ended(rng, troubles, rng.randint(0, 1)))


def _clocks(kind: str, seed: int, rng: random.Random) -> Plan:
    troubles = _row(rng, _CLOCK, 5, (0.5, 3.0))
    for trouble in troubles:
        hours = rng.choice((0.01, 1, 5, 30))
        trouble.value = 3600.0 * (hours if trouble.name == "clock ahead" else -hours)
    return _made(kind, seed, troubles, _ended(rng, troubles, rng.randint(0, 1)))


def _terms(kind: str, seed: int, rng: random.Random) -> Plan:
    """SIGTERM again and again, and what may come in the midst of a drain."""
    lives = [
        Life(
            rng.choice(("term", "term, term", "term, kill")),
            round(rng.uniform(0.3, 2.5), 2),
            more=round(rng.uniform(0.0, 0.6), 2),
        )
        for _ in range(4)
    ]
    return Plan(seed, kind, 3.0, _RATE, 5.0, [*lives, Life("last", 0)], [])


def _all(kind: str, seed: int, rng: random.Random) -> Plan:
    """A bit of everything, and kill -9 in the midst of it."""
    troubles: list[Trouble] = []
    for make in (_hub, _receivers, _disk, _clocks):
        troubles += rng.sample(make(kind, seed, rng).troubles, 3)
    rng.shuffle(troubles)
    at = 1.5
    for trouble in troubles:
        trouble.at = round(at, 2)
        at += trouble.seconds * rng.uniform(0.5, 1.0) + rng.uniform(0.2, 0.8)
    lives = _ended(rng, troubles, 2)
    lives.insert(rng.randrange(len(lives)), Life("kill", round(rng.uniform(0.5, 3.0), 2)))
    return _made(kind, seed, troubles, lives, 1.0)


def _made(
    kind: str, seed: int, troubles: list[Trouble], lives: list[Life], patience: float = 5.0
) -> Plan:
    last = max(trouble.at + trouble.seconds for trouble in troubles)
    return Plan(seed, kind, round(last + 2.0, 2), _RATE, patience, lives, troubles)


KINDS = {
    "kill": _kills,
    "all": _all,
    "power": _kills,
    "receivers": _receivers,
    "hub": _hub,
    "disk": _disk,
    "term": _terms,
    "clock": _clocks,
}
"""Makers of plans, by name."""
