"""Targets are about records in the log: what comes before the engine and after it is taken off before anything is planned."""

import pytest

from pipeline.scheduling.pace import AIM, MOST_TRANSIT, Pace, Targets
from pipeline.scheduling.transit import LONGEST_S, REMEMBERED, Transit

TARGET_S = 0.2


def paced(*outbound_s: float, ttft_s: float | None = TARGET_S) -> tuple[Pace, Transit]:
    """A pace at time 1, where first tokens have taken so long on their way out."""
    transit = Transit()
    for seconds in outbound_s:
        transit.observe_outbound(seconds)
    pace = Pace(Targets(ttft_s=ttft_s), transit)
    pace.pass_time(1.0)
    return pace, transit


def test_what_half_of_them_stayed_within_is_known():
    """None seen takes nothing; old ones are forgotten."""
    _, transit = paced()
    assert transit.outbound_s == 0.0
    for number in range(1, 101):
        transit.observe_outbound(number / 1_000)
    assert transit.outbound_s == pytest.approx(0.069)
    for _ in range(REMEMBERED):
        transit.observe_outbound(0.001)
    assert transit.outbound_s == 0.001


def test_a_record_that_waited_for_the_end_of_a_step_is_taken_to_have_come_in_its_middle():
    """Half of the time in which nobody looked is not the way's; where that is more than all of it, the way takes nothing."""
    transit = Transit()
    transit.observe_inbound(0.06, 0.04)
    assert transit.inbound_s == pytest.approx(0.04)
    for _ in range(2):
        transit.observe_inbound(0.01, 0.04)
    assert transit.inbound_s == 0.0


def test_a_record_that_was_held_up_tells_nothing_of_the_way():
    """It waited for a worker, or its clock is another."""
    transit = Transit()
    transit.observe_inbound(0.03, 0.0)
    for _ in range(REMEMBERED):
        transit.observe_inbound(LONGEST_S + 0.1, 0.0)
    assert transit.inbound_s == 0.03


def test_both_ways_are_taken_off_a_target():
    """So each leaves less slack."""
    pace, transit = paced(0.05)
    transit.observe_inbound(0.02, 0.0)
    assert pace.slack_s(1.0) == pytest.approx((TARGET_S - 0.07) * AIM)


def test_slack_is_what_the_way_out_leaves():
    """A request that just came has the target less the way out, and is due when that is over though the target is not."""
    pace, transit = paced(0.05)
    assert pace.slack_s(1.0) == pytest.approx((TARGET_S - 0.05) * AIM)
    assert pace.due_s(1.0) == pytest.approx(1.0 + TARGET_S - 0.05)
    for _ in range(REMEMBERED):
        transit.observe_outbound(0.1)
    assert pace.slack_s(1.0) == pytest.approx((TARGET_S - 0.1) * AIM)


def test_steps_become_shorter_by_the_way_out():
    """What flex work may fill for the sake of arrivals follows it."""
    near, _ = paced(0.0)
    far, _ = paced(0.08)
    for pace in (near, far):
        pace.observe_first_token(0.02, 0.01, alone=True)
    assert far.arrival_limit_s < near.arrival_limit_s - 0.07


def test_a_wait_that_breaks_the_target_on_its_way_out_is_trimmed():
    """In the engine it was in time."""
    near, _ = paced(0.0)
    far, _ = paced(0.08)
    for pace in (near, far):
        before_s = pace.arrival_limit_s
        pace.observe_first_token(0.15, 0.0, alone=True)
        assert (pace.arrival_limit_s < before_s * 0.8) == (pace is far)


def test_a_log_that_is_too_slow_leaves_half_the_target():
    """The rest of the miss is not flex work's to make up."""
    pace, _ = paced(5.0)
    assert pace.slack_s(1.0) == pytest.approx(TARGET_S * (1.0 - MOST_TRANSIT) * AIM)


def test_without_a_target_the_way_out_limits_nothing():
    """However long it is."""
    pace, _ = paced(5.0, ttft_s=None)
    assert pace.slack_s(0.0) == pace.arrival_limit_s == float("inf")
    assert pace.due_s(0.0) == float("inf")
