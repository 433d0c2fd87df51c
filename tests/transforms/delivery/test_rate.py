from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.delivery.rate import Bucket, Pace, least
from transforms.sinks.base import Rate


def test_of_two_rates_the_lower_holds_of_each():
    both = least(Rate(records=10, requests=5), Rate(records=20, bytes=7))
    assert both == Rate(records=10, requests=5, bytes=7)


@given(
    rate=st.floats(0.5, 1000),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=50),
    late=st.floats(0, 3),
)
def test_the_mean_rate_is_kept_whatever_the_requests_hold(rate, sizes, late):
    now = 100.0
    bucket = Bucket(Rate(records=rate), now)
    began = now
    for size in sizes:
        now = max(now, bucket.ready_at(now)) + late / len(sizes)
        bucket.take(now, size, 0)
    before_last = sum(sizes[:-1])
    burst = max(rate, 1.0)
    assert before_last <= rate * (now - began) + burst + max(sizes)


def test_each_kind_of_limit_makes_the_next_request_wait():
    for rate, cost in (
        (Rate(records=10), (20, 0)),
        (Rate(requests=0.5), (1, 0)),
        (Rate(bytes=100), (1, 200)),
    ):
        bucket = Bucket(rate, 0.0)
        assert bucket.ready_at(0.0) == 0.0
        bucket.take(0.0, *cost)
        assert bucket.ready_at(0.0) > 0.5
        assert bucket.ready_at(60.0) == 60.0


def test_without_limits_nothing_waits():
    bucket = Bucket(Rate(), 0.0)
    for _ in range(100):
        bucket.take(0.0, 10**6, 10**9)
    assert bucket.ready_at(0.0) == 0.0


def test_the_pace_is_that_of_the_time_in_which_there_was_something_to_send():
    pace = Pace(500)
    now = 0.0
    for _ in range(50):
        now += 60  # idle
        pace.busy(now)
        now += 0.1
        pace.note(20, now)
    assert pace.per_second == pytest.approx(200, rel=0.01)
