"""Keys that Flink lays evenly over a step's subtasks, however many there are.

Flink hashes a key into one of 128 groups, of which each subtask has a range. A hub has few
partitions: four keys of two subtasks are even in three cases of eight. So keys are chosen here by
their group. Were they hashed otherwise one day, they would be as uneven as others.

Source: Flink's KeyGroupRangeAssignment and MathUtils, Beam's FlinkKey and FlinkKeyUtils (a key is
its coder's bytes); held on a Flink by tests/engines/test_streaming.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import mmh3

__all__ = ["GROUPS", "group", "spread_names", "spread_numbers"]

GROUPS = 128
"""Of keys; what a job is told as its greatest parallelism."""

_MASK = 0xFFFFFFFF


def spread_names(names: Sequence[str], before: int = 0) -> list[str]:
    """A key for each, that begins with it. before: how many names have had theirs already."""
    turn = int(f"{before % GROUPS:07b}"[::-1], 2)  # 0, 64, 32, 96, 16: any few of these lie apart
    places = [(place + turn) % GROUPS for place in _places(len(names))]
    return [
        next(key for key in (f"{name}#{n}" for n in count()) if group(_string(key)) == place)
        for name, place in zip(names, places, strict=True)
    ]


def spread_numbers(upto: int) -> list[int]:
    """A key for each of 0, 1, 2 and so on, that leaves it as the rest when divided by `upto`."""
    return [
        next(key for key in count(number, upto) if group(_varint(key)) == place)
        for number, place in enumerate(_places(upto))
    ]


def group(key: bytes) -> int:
    """Which one a key has that is so encoded."""
    code = mmh3.hash64(key, signed=False)[0] & _MASK  # FlinkKey.hashCode
    code = code * 0xCC9E2D51 & _MASK  # MathUtils.murmurHash
    code = _rotated(code, 15) * 0x1B873593 & _MASK
    code = (_rotated(code, 13) * 5 + 0xE6546B64) & _MASK ^ 4
    code ^= code >> 16
    code = code * 0x85EBCA6B & _MASK
    code ^= code >> 13
    code = code * 0xC2B2AE35 & _MASK
    code ^= code >> 16
    return min(code, (1 << 32) - code) % GROUPS  # as signed, without its sign


def _places(number: int) -> list[int]:
    """So many groups, as far from each other as they can be."""
    return [(2 * n + 1) * GROUPS // (2 * number) for n in range(number)]


def _rotated(code: int, bits: int) -> int:
    return (code << bits | code >> (32 - bits)) & _MASK


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _varint(len(encoded)) + encoded
