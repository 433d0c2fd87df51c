"""Outcomes add up, and runs hold exactly the addresses they were made of."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.receipt import Outcome, Outcomes, Receipt, Run, runs

addresses = st.sets(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60)
outcomes = st.builds(Outcomes, *[st.integers(0, 1000)] * 6)


def unfold(found: list[Run]) -> list[tuple[int, int]]:
    return [(sequence, r.index) for r in found for sequence in range(r.first, r.last + 1)]


def test_the_outcomes_stand_in_the_order_of_their_numbers() -> None:
    """Counts are kept in lists by outcome, and become fields by position."""
    assert tuple(outcome.name.lower() for outcome in Outcome) == Outcomes.__struct_fields__[:5]
    assert [*Outcome] == [0, 1, 2, 3, 4]


@given(outcomes, outcomes)
def test_outcomes_add_field_by_field(one: Outcomes, other: Outcomes) -> None:
    both = one + other
    for field in Outcomes.__struct_fields__:
        assert getattr(both, field) == getattr(one, field) + getattr(other, field)
    assert both.total == one.total + other.total


@given(outcomes)
def test_what_was_settled_earlier_counts_no_more(some: Outcomes) -> None:
    ended = some.delivered + some.not_routed + some.repeat + some.dead + some.owed
    assert some.total == ended == sum(msgspec.structs.astuple(some)) - some.earlier


@given(outcomes, addresses)
def test_a_receipt_survives_its_byte_form(counts: Outcomes, owed: set[tuple[int, int]]) -> None:
    receipt = Receipt("hub/$Default", "3", "siem", 1, 30, 99, counts, runs(owed), 5, "siem")
    packed = msgspec.msgpack.encode(receipt)
    assert msgspec.msgpack.decode(packed, type=Receipt) == receipt
