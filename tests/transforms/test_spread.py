"""Keys lie evenly in Flink's key groups, and so over any number of subtasks."""

from __future__ import annotations

from collections import Counter

import pytest
from apache_beam.coders import VarIntCoder
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.spread import GROUPS, group, spread_names, spread_numbers


@pytest.mark.parametrize(("partitions", "subtasks"), [(4, 2), (4, 4), (8, 3), (10, 5), (32, 4)])
def test_partitions_are_even_over_subtasks(partitions: int, subtasks: int) -> None:
    names = [f"hub.example/alerts/{n}" for n in range(partitions)]
    keys = spread_names(names)
    assert all(key.startswith(name) for key, name in zip(keys, names, strict=True))
    assert _uneven([_of(key, subtasks) for key in keys], subtasks) <= 1


@given(st.integers(2, 12), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_partitions_that_are_added_do_not_pile_up(subtasks: int, added: list[int]) -> None:
    keys: list[str] = []
    for number in added:
        keys += spread_names([f"hub/{len(keys) + n}" for n in range(number)], len(keys))
    assert len({*keys}) == len(keys)
    assert _uneven([_of(key, subtasks) for key in keys], subtasks) <= 1 + len(added)


@settings(max_examples=10)
@given(st.integers(1, 40))
def test_shards_keep_their_number(shards: int) -> None:
    assert [key % shards for key in spread_numbers(shards)] == [*range(shards)]


@pytest.mark.parametrize("subtasks", [2, 3, 4, 7, 8])
def test_shards_are_even_over_subtasks(subtasks: int) -> None:
    groups = [group(VarIntCoder().encode(key)) for key in spread_numbers(2 * subtasks)]
    assert _uneven([each * subtasks // GROUPS for each in groups], subtasks) == 0


def _uneven(found: list[int], subtasks: int) -> int:
    loads = Counter(found)
    return max(loads.values()) - min(loads[n] for n in range(subtasks))


def _of(key: str, subtasks: int) -> int:
    """Flink's: which subtask has this key."""
    return group(bytes([len(key)]) + key.encode()) * subtasks // GROUPS
