"""When a step of texts waits for company."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.pooling.patience import Patience, StepCost

FIXED_S, TOKEN_S = 0.004, 0.00001


def patience(gap_s: float, *, max_wait_s: float = 0.05, arrivals: int = 40) -> tuple[Patience, float]:
    """One that has seen steps of the cost above and arrivals at that gap; with the moment of the last."""
    rule = Patience(max_wait_s)
    for tokens in (10, 200, 50, 400):
        rule.note_step(tokens, FIXED_S + tokens * TOKEN_S)
    for number in range(arrivals):
        rule.note_arrival(number * gap_s)
    return rule, (arrivals - 1) * gap_s


def test_the_fixed_cost_of_a_step_is_found_among_steps_that_differ():
    """The line's value at no tokens; nothing while all steps are alike, since then nobody can tell."""
    cost = StepCost()
    for _ in range(50):
        cost.note(100, 0.01)
    assert cost.fixed_s == 0.0
    for tokens in (10, 500, 250):
        cost.note(tokens, FIXED_S + tokens * TOKEN_S)
    for tokens in range(1, 1_000):
        cost.note(tokens, FIXED_S + tokens * TOKEN_S)
    assert cost.fixed_s == pytest.approx(FIXED_S, rel=0.05)


def test_a_step_waits_while_the_next_arrival_is_worth_more_than_the_delay():
    """One waits a gap of a millisecond for four; four times as many do not, and nobody waits for what comes rarely."""
    rule, now_s = patience(0.001)
    assert rule.waits_until_s(1, now_s) == pytest.approx(now_s + FIXED_S)
    assert rule.waits_until_s(3, now_s) == pytest.approx(now_s + FIXED_S / 3)
    assert rule.waits_until_s(5, now_s) == 0.0
    rare, now_s = patience(0.02)
    assert rare.waits_until_s(1, now_s) == 0.0


def test_nobody_waits_longer_than_the_longest_wait():
    """The first of those who wait has come two milliseconds ago, and two and a half are allowed."""
    rule, now_s = patience(0.001, max_wait_s=0.0025)
    assert rule.waits_until_s(1, now_s - 0.002) == pytest.approx(now_s + 0.0005)
    never, now_s = patience(0.001, max_wait_s=0.0)
    assert never.waits_until_s(1, now_s) <= now_s


def test_a_quiet_night_is_soon_forgotten():
    """After hours without a request a burst is recognised within a few dozen arrivals."""
    rule, now_s = patience(0.0005)
    for number in range(60):
        rule.note_arrival(now_s + 36_000 + number * 0.0005)
    last_s = now_s + 36_000 + 59 * 0.0005
    assert rule.waits_until_s(1, last_s) > last_s


def test_a_worker_that_knows_nothing_does_not_wait():
    """Neither without steps nor without arrivals."""
    assert Patience(0.05).waits_until_s(1, 0.0) == 0.0
    rule = Patience(0.05)
    rule.note_arrival(0.0)
    rule.note_arrival(0.0001)
    assert rule.waits_until_s(1, 0.0001) == 0.0


@settings(max_examples=100, deadline=None)
@given(
    gaps_s=st.lists(st.floats(0, 1), min_size=2, max_size=30),
    steps=st.lists(st.tuples(st.integers(1, 1_000), st.floats(1e-5, 1.0)), max_size=20),
    requests=st.integers(1, 100),
    wait_s=st.floats(0, 0.1),
)
def test_whatever_was_seen_a_wait_ends_in_time(gaps_s, steps, requests, wait_s):
    """The moment is finite and never past the longest wait of the first; what those who wait lose is never more than a step."""
    rule, now_s = Patience(wait_s), 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        rule.note_arrival(now_s)
    for tokens, seconds in steps:
        rule.note_step(tokens, seconds)
    until_s = rule.waits_until_s(requests, now_s)
    assert math.isfinite(until_s)
    assert until_s <= now_s + wait_s
    slowest_s = max((seconds for _, seconds in steps), default=0.0)
    assert requests * max(until_s - now_s, 0.0) <= slowest_s * (1 + 1e-6) + 1e-6
