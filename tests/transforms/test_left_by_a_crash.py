"""Copies of one alert lie on two partitions, and a crash leaves one of them unsettled."""

from __future__ import annotations

import pytest

from schemas.batch import NOBODY, TO_DIGESTS
from tests.transforms.test_deduplicate import keyed, left, repeats
from transforms.deduplicate import Seen, Unsettled, deduplicate_batch

MARK = Unsettled(mark=0)  # the event 0 may have been read before the crash, and no later one


def marked(only: str = NOBODY) -> Seen:
    """After warming up with a copy of the alert 1 on another partition."""
    seen = Seen(100, 0)
    deduplicate_batch(keyed(1, only=only), seen)
    return seen


@pytest.mark.parametrize("only", [NOBODY, TO_DIGESTS])
def test_what_had_been_read_and_not_settled_passes_although_a_copy_was_seen(only: str) -> None:
    passed, _ = deduplicate_batch(keyed(1), marked(only), MARK)
    (again,) = passed.alerts
    assert again.counted, "in the digests, with the copy"


def test_what_had_not_been_read_before_the_crash_is_a_repeat_of_it() -> None:
    passed, _ = deduplicate_batch(keyed(2, 1), marked(), MARK)
    assert left(passed) == left(keyed(2))
    assert repeats(passed) == [1]


def test_once_it_passed_the_next_copy_is_a_repeat() -> None:
    seen = marked()
    deduplicate_batch(keyed(1), seen, MARK)
    assert repeats(deduplicate_batch(keyed(1), seen, MARK)[0]) == [0]


def test_while_only_some_sinks_have_settled_it_no_copy_is_a_repeat_of_it() -> None:
    seen = marked()
    partly = Unsettled(partly=0, mark=0)
    deduplicate_batch(keyed(1), seen, partly)
    assert repeats(deduplicate_batch(keyed(1), seen, MARK)[0]) == []
