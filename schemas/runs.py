"""Sets of record addresses, as runs: small however many records lie side by side.

An address is `(sequence, index)`: a hub event's number, and the record's place in that event. A
set is *canonical* if its runs are in order of (index, first) and no two overlap or touch. Sets
are taken in any order and given canonical; where they are canonical, every function is one pass.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

__all__ = [
    "Run",
    "addresses",
    "clip",
    "count",
    "intersect",
    "runs",
    "subtract",
    "union",
]


class Run(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """The records at `index` of each event `first..last`."""

    first: int
    last: int
    index: int

    def __len__(self) -> int:
        return self.last - self.first + 1


_order = attrgetter("index", "first")  # of what is in order already, sorting is one pass


def runs(addresses: Iterable[tuple[int, int]]) -> list[Run]:
    """The set of these `(sequence, index)` addresses, given in any order, repeated or not."""
    found: list[Run] = []
    start = following = place = -1
    for index, sequence in sorted({(index, sequence) for sequence, index in addresses}):
        if sequence != following or index != place:
            if following > start:
                found.append(Run(start, following - 1, place))
            start, place = sequence, index
        following = sequence + 1
    if following > start:
        found.append(Run(start, following - 1, place))
    return found


def union(a: Iterable[Run], b: Iterable[Run] = ()) -> list[Run]:
    """The records of either. Makes any runs canonical, also such as overlap."""
    found: list[Run] = []
    for run in sorted((*a, *b), key=_order):
        if found and run.index == found[-1].index and run.first <= found[-1].last + 1:
            if run.last > found[-1].last:
                found[-1] = Run(found[-1].first, run.last, run.index)
        else:
            found.append(run)
    return found


def subtract(a: Iterable[Run], b: Iterable[Run]) -> list[Run]:
    """The records of `a` that are not in `b`."""
    left: list[Run] = []
    cuts = sorted(b, key=_order)
    at = 0
    for run in sorted(a, key=_order):
        first, last, index = run.first, run.last, run.index
        while at < len(cuts) and (
            cuts[at].index < index or (cuts[at].index == index and cuts[at].last < first)
        ):
            at += 1
        reach = at
        while reach < len(cuts) and cuts[reach].index == index and cuts[reach].first <= last:
            if first < cuts[reach].first:
                left.append(Run(first, cuts[reach].first - 1, index))
            first = max(first, cuts[reach].last + 1)
            reach += 1
        if first == run.first:
            left.append(run)
        elif first <= last:
            left.append(Run(first, last, index))
    return left


def intersect(a: Iterable[Run], b: Iterable[Run]) -> list[Run]:
    """The records of both."""
    a = [*a]
    return subtract(a, subtract(a, b))


def count(a: Iterable[Run]) -> int:
    """How many records."""
    return sum(run.last - run.first + 1 for run in a)


def clip(a: Iterable[Run], first: int, last: int) -> list[Run]:
    """The records of events `first..last`."""
    return [
        run
        if first <= run.first and run.last <= last
        else Run(max(first, run.first), min(run.last, last), run.index)
        for run in sorted(a, key=_order)
        if run.first <= last and first <= run.last
    ]


def addresses(a: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Every `(sequence, index)`, in that order."""
    by_index = itertools.groupby(sorted(a, key=_order), attrgetter("index"))
    return heapq.merge(*(_unfolded([*same]) for _, same in by_index))


def _unfolded(same: list[Run]) -> Iterator[tuple[int, int]]:
    return ((sequence, r.index) for r in same for sequence in range(r.first, r.last + 1))
