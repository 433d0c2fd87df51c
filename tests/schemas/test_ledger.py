"""The position stands at the end of the settled prefix, and every sum is exact, whatever the
order and the parts in which receipts come."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import IOU, Ledger, Owing, Payment
from schemas.receipt import Outcome, Outcomes, Receipt
from schemas.runs import Run, runs

Address = tuple[int, int]


def unfold(found: list[Run]) -> list[Address]:
    return [(sequence, r.index) for r in found for sequence in range(r.first, r.last + 1)]


def receipt(
    first: int,
    last: int,
    size: int,
    outcomes: Outcomes,
    owed: list[Run] | None = None,
    enqueued_ms: int = 0,
) -> Receipt:
    return Receipt("hub", "0", "siem", first, last, size, outcomes, owed or [], enqueued_ms)


class Story(NamedTuple):
    """Batches that tile a partition from around `position` on, and their receipts, shuffled."""

    position: int
    sizes: dict[int, int]  # a batch's last sequence number → its records
    receipts: list[tuple[Receipt, dict[Address, Outcome]]]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    position = draw(st.integers(-1, 20))
    first = max(0, position + 1 - draw(st.integers(0, 4)))  # perhaps the first one straddles
    sizes = {}
    receipts = []
    for _ in range(draw(st.integers(0, 5))):
        last = max(first, position) + draw(st.integers(1, 6))
        addresses = draw(st.sets(st.tuples(st.integers(first, last), st.integers(0, 2))))
        ended = {address: draw(st.sampled_from(Outcome)) for address in sorted(addresses)}
        parts: list[dict[Address, Outcome]] = [{} for _ in range(draw(st.integers(1, 3)))]
        for address, outcome in ended.items():
            draw(st.sampled_from(parts))[address] = outcome
        for part in parts:
            counted = {a: outcome for a, outcome in part.items() if a[0] > position}
            counts = Outcomes(*(list(counted.values()).count(o) for o in Outcome))
            counts.earlier = len(part) - len(counted)
            owed = [address for address, outcome in counted.items() if outcome is Outcome.OWED]
            enqueued_ms = max((sequence for sequence, _ in part), default=0)
            made = receipt(first, last, len(ended), counts, runs(owed), enqueued_ms)
            receipts.append((made, part))
        sizes[last] = len(ended)
        first = last + 1
    return Story(position, sizes, draw(st.permutations(receipts)))


@given(stories())
def test_the_position_is_the_settled_prefix_and_the_sums_are_exact(story: Story) -> None:
    ledger = Ledger(story.position)
    came: dict[int, dict[Address, Outcome]] = {}
    for made, part in story.receipts:
        came.setdefault(made.last, {}).update(part)
        ledger.add(made)
        ledger.advance()
        owed = [address for entry in ledger.owing for address in unfold(entry.owed)]

        position = story.position
        settled: dict[Address, Outcome] = {}
        for last, size in story.sizes.items():
            if last not in came or len(came[last]) < size:
                break
            position = last
            settled |= came[last]
        counted = {a: outcome for a, outcome in settled.items() if a[0] > story.position}
        assert ledger.position == position
        assert ledger.records == ledger.outcomes.total == len(counted)
        assert ledger.outcomes == Outcomes(
            *(list(counted.values()).count(outcome) for outcome in Outcome)
        )
        assert sorted(owed) == sorted(a for a, o in counted.items() if o is Outcome.OWED)
        assert ledger.enqueued_ms == max((sequence for sequence, _ in settled), default=0)
    assert not ledger.open, "all receipts came, and yet something is open"


@given(stories(), st.data())
def test_what_is_owed_comes_batch_by_batch_in_order_until_it_is_written(
    story: Story, data: st.DataObject
) -> None:
    ledger = Ledger(story.position)
    came: list[Owing] = []
    written = -1
    for made, _ in story.receipts:
        ledger.add(made)
        ledger.advance()
        came += [entry for entry in ledger.owing if entry not in came]
        assert ledger.owing == [entry for entry in came if entry.last > written]
        if data.draw(st.booleans()):
            written = max(written, data.draw(st.integers(-1, ledger.position)))
            ledger.written(written)
    lasts = [entry.last for entry in came]
    assert lasts == sorted(set(lasts))
    assert all(run.last <= entry.last for entry in came for run in entry.owed)
    assert all(entry.owed == runs(unfold(entry.owed)) for entry in came)


def test_what_is_owed_says_since_when() -> None:
    """By its oldest record; where that is not said, about: the youngest of the batch."""
    ledger = Ledger(-1)
    for first, size, since_ms in ((0, 2, 70), (0, 2, 40), (10, 1, 0), (20, 2, 90)):
        part = receipt(first, first + 9, size, Outcomes(owed=1), [Run(first, first, 0)], 99)
        part.since_ms = since_ms
        ledger.add(part)
    ledger.add(receipt(20, 29, 2, Outcomes(delivered=1), enqueued_ms=50))
    ledger.advance()
    assert [entry.since_ms for entry in ledger.owing] == [40, 99, 90]


@given(stories())
def test_a_receipt_at_or_before_the_position_changes_nothing(story: Story) -> None:
    ledger = Ledger(story.position)
    for made, _ in story.receipts:
        ledger.add(made)
        ledger.advance()
    before = msgspec.msgpack.encode(ledger)
    for made, _ in story.receipts:
        ledger.add(made)
        ledger.advance()
    assert msgspec.msgpack.encode(ledger) == before


overlapping = st.tuples(
    st.sampled_from([(0, 8), (0, 4), (5, 8), (5, 12), (9, 12)]), st.integers(0, 2)
)


@given(st.lists(overlapping, max_size=20))
def test_the_position_never_goes_back_even_where_batches_overlap(
    came: list[tuple[tuple[int, int], int]],
) -> None:
    ledger = Ledger(-1)
    for (first, last), delivered in came:
        before = ledger.position
        ledger.add(receipt(first, last, 2, Outcomes(delivered=delivered)))
        ledger.advance()
        assert ledger.position >= before


def test_a_batch_within_a_wider_one_that_is_settled_is_counted_with_that() -> None:
    ledger = Ledger(-1)
    ledger.add(receipt(0, 8, 2, Outcomes(delivered=1)))
    ledger.add(receipt(0, 4, 1, Outcomes(delivered=1)))
    ledger.add(receipt(0, 8, 2, Outcomes(delivered=1)))
    ledger.advance()
    assert (ledger.position, ledger.records, ledger.open) == (8, 2, [])


@given(stories())
def test_a_ledger_goes_on_where_its_byte_form_was_taken(story: Story) -> None:
    ledger, kept = Ledger(story.position), Ledger(story.position)
    for made, _ in story.receipts:
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=Ledger)
        for one in (ledger, kept):
            one.add(made)
            one.advance()
        assert ledger == kept


def test_a_batch_without_records_settles_by_its_receipt() -> None:
    ledger = Ledger(9)
    ledger.add(receipt(10, 14, 0, Outcomes()))
    ledger.advance()
    assert (ledger.position, ledger.records, ledger.owing) == (14, 0, [])


def test_a_straddling_batch_counts_only_what_lies_beyond_the_position() -> None:
    ledger = Ledger(5)
    ledger.add(receipt(1, 10, 10, Outcomes(delivered=3, owed=2, earlier=5), [Run(9, 10, 0)]))
    ledger.advance()
    assert [entry.owed for entry in ledger.owing] == [[Run(9, 10, 0)]]
    assert (ledger.position, ledger.records) == (10, 5)
    assert ledger.outcomes == Outcomes(delivered=3, owed=2)


def test_more_ends_than_records_show_as_a_sum_that_does_not_hold() -> None:
    ledger = Ledger(-1)
    ledger.add(receipt(0, 4, 5, Outcomes(delivered=5, dead=1)))
    ledger.advance()
    assert ledger.position == 4
    assert (ledger.records, ledger.outcomes.total) == (5, 6)


def test_fewer_ends_than_records_hold_the_position() -> None:
    ledger = Ledger(-1)
    ledger.add(receipt(0, 4, 5, Outcomes(delivered=4)))
    ledger.add(receipt(5, 9, 5, Outcomes(delivered=5)))
    ledger.advance()
    assert (ledger.position, ledger.records) == (-1, 0)


def test_a_gap_holds_the_position() -> None:
    ledger = Ledger(-1)
    ledger.add(receipt(1, 4, 1, Outcomes(delivered=1)))
    ledger.advance()
    assert ledger.position == -1


# ------------------------------------------------------------------------------ what is owed

owed_sets = st.sets(st.tuples(st.integers(0, 15), st.integers(0, 2)), max_size=25).map(runs)


@given(owed_sets, st.lists(st.tuples(owed_sets, owed_sets), max_size=4))
def test_paying_an_iou_is_striking_addresses_out_of_a_set(
    owed: list[Run], payments: list[tuple[list[Run], list[Run]]]
) -> None:
    iou = IOU(owed)
    left = set(unfold(owed))
    delivered = dead = 0
    for sent, refused in payments:
        iou.pay(Payment(sent, refused))
        delivered += len(left & set(unfold(sent)))
        left -= set(unfold(sent))
        dead += len(left & set(unfold(refused)))
        left -= set(unfold(refused))
        assert iou.owed == runs(left)
        assert (iou.count, iou.delivered, iou.dead) == (len(left), delivered, dead)
    assert iou.count + iou.delivered + iou.dead == len(unfold(owed))


def test_paying_twice_pays_once() -> None:
    iou = IOU([Run(1, 10, 0)])
    iou.pay(Payment([Run(2, 4, 0)]))
    iou.pay(Payment([Run(2, 4, 0)], [Run(3, 3, 0)]))
    assert (iou.owed, iou.delivered, iou.dead) == ([Run(1, 1, 0), Run(5, 10, 0)], 3, 0)


def test_receipts_of_payments_make_one_payment() -> None:
    payment = Payment()
    for first in (10, 0):
        made = receipt(first, first + 9, 2, Outcomes(delivered=1, dead=1), [], first + 5)
        made.delivered, made.dead = [Run(first, first, 0)], [Run(first + 1, first + 1, 0)]
        payment.add(made)
    iou = IOU([Run(0, 19, 0)])
    iou.pay(payment)
    assert (iou.count, iou.delivered, iou.dead) == (16, 2, 2)
    assert (payment.last, payment.enqueued_ms) == (19, 15)


def test_since_when_it_is_owed_moves_on_as_the_oldest_is_paid() -> None:
    iou = IOU([Run(0, 99, 0), Run(5, 5, 1)], since_ms=1_000)
    iou.pay(Payment([Run(0, 9, 0)], last=9, enqueued_ms=1_009))
    assert iou.since_ms == 1_000, "5.1 is older"
    iou.pay(Payment([Run(5, 5, 1)], last=5, enqueued_ms=1_005))
    assert iou.since_ms == 1_005
    iou.pay(Payment([Run(50, 59, 0)], last=59, enqueued_ms=1_059))
    assert iou.since_ms == 1_005
    iou.pay(Payment([Run(10, 49, 0)], last=49, enqueued_ms=1_049))
    assert iou.since_ms == 1_049
    iou.pay(Payment([Run(0, 9, 0)], last=9, enqueued_ms=2_000))
    assert iou.since_ms == 1_049, "nothing was paid"
