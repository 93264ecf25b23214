"""The bucket: what it lets through, and when."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.quota.bucket import Bucket

STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 12)), min_size=1, max_size=60)


def test_a_full_bucket_gives_its_burst_at_once_and_then_its_rate():
    """Ten at once, and one per second after that."""
    bucket = Bucket(interval_s=1.0, burst_s=10.0)
    for _ in range(10):
        assert bucket.wait_s(1, 100.0) == 0.0
        bucket.take(1, 100.0)
    assert bucket.wait_s(1, 100.0) == pytest.approx(1.0)
    assert bucket.wait_s(3, 100.5) == pytest.approx(2.5)
    assert bucket.wait_s(1, 101.0) == 0.0


def test_what_is_more_than_the_bucket_goes_when_it_is_full_and_is_paid_off():
    """Thirty through a bucket of ten: at once from a full one, and then nothing for twenty seconds."""
    bucket = Bucket(interval_s=1.0, burst_s=10.0)
    assert bucket.wait_s(30, 0.0) == 0.0
    bucket.take(30, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(21.0)
    assert bucket.wait_s(30, 5.0) == pytest.approx(25.0)


def test_what_is_given_back_can_be_taken_again_but_a_full_bucket_keeps_none_of_it():
    """Half of eight is given back; later, far too much."""
    bucket = Bucket(interval_s=1.0, burst_s=10.0)
    bucket.take(10, 0.0)
    bucket.take(-4, 0.0)
    assert bucket.wait_s(4, 0.0) == 0.0
    assert bucket.wait_s(5, 0.0) == pytest.approx(1.0)
    bucket.take(-1_000, 1.0)
    bucket.take(10, 1.0)
    assert bucket.wait_s(1, 1.0) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_stretch_of_time_lets_through_more_than_its_rate_and_a_burst(steps):
    """Between any two moments: at most the burst, what the rate gives meanwhile, and nothing else; who waits as told gets in."""
    bucket, now_s, let_through = Bucket(interval_s=0.5, burst_s=6.0), 0.0, []
    for pause_s, amount in steps:
        now_s += pause_s
        wait_s = bucket.wait_s(amount, now_s)
        if wait_s:
            assert bucket.wait_s(amount, now_s + wait_s * 0.99 - 1e-6) > 0.0
            now_s += wait_s
            assert bucket.wait_s(amount, now_s) == 0.0
        bucket.take(amount, now_s)
        let_through.append((now_s, amount))
    for first in range(len(let_through)):
        for last in range(first, len(let_through)):
            amount = sum(amount for _, amount in let_through[first : last + 1])
            seconds = let_through[last][0] - let_through[first][0]
            assert amount <= (6.0 + seconds) / 0.5 + 1e-6
