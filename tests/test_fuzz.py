"""A short run of `python -m tests.fuzz`; `make fuzz` mutates a million events."""

from __future__ import annotations

import random

from tests import fuzz


def test_no_mutated_event_crashes_takes_long_or_is_lost() -> None:
    result = fuzz.fuzz(1_000_000, random.randrange(2**32), seconds=10)
    assert result.events > 1_000
    assert result.dead > result.events // 100
    assert result.alerts > result.events // 10
    assert result.slowest < fuzz.SLOW, result.slowest_event
    assert result.grown < 32 * 2**20


def test_a_seed_gives_the_same_events() -> None:
    bodies = fuzz.corpus()
    one, same = random.Random(7), random.Random(7)
    assert [fuzz.mutated(one, bodies) for _ in range(50)] == [
        fuzz.mutated(same, bodies) for _ in range(50)
    ]
