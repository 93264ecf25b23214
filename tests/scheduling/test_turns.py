"""Prompts and streams in one step, or in a step each."""

from itertools import pairwise
from random import Random

import pytest

from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.explanation import Closed, ClosedBatch
from pipeline.scheduling.pace import AIM, Targets
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.step_model import Terms
from tests.scheduling.machine import Machine, adaptive, learned

APART = Terms(step=0.005, prefill_tokens=1e-5, decodes=2e-5, kv_tokens=1e-8)
"""An accelerator on which prompts and streams do not hinder each other."""
TOGETHER = APART._replace(mixed=1e-6)
"""One on which they do: 512 tokens of prompts beside 32 streams take 16 ms more."""
SIZES = {"max_sequences": 32, "token_budget": 1_024}


def machine(seconds: Terms, targets: Targets = Targets()) -> Machine:  # noqa: B008 -- frozen
    """One that its policy knows."""
    return Machine(adaptive(targets, **SIZES, model=learned(seconds, steps=200)), seconds=seconds)


def served(one: Machine, until_s: float = 6.0, lane: Lane = Lane.DEFAULT) -> list[ClosedBatch]:
    """Long prompts and outputs, more than there are rows; what came of the last steps."""
    draw = Random(0)

    def arrive() -> None:
        while len(one.scheduler.waiting) < 8:
            one.send(200 + draw.randrange(300), 10 + draw.randrange(40), lane)

    one.run(until_s, arrive)
    return list(one.scheduler.history.read())


def kinds(batch: ClosedBatch) -> tuple[bool, bool]:
    """Whether there were streams in it, and prompts."""
    return any(share.decodes for share in batch.lanes.values()), any(share.prefill_chunks for share in batch.lanes.values())


@pytest.mark.parametrize("lane", [Lane.DEFAULT, Lane.FLEX])
def test_where_they_hinder_each_other_prompts_have_steps_of_their_own(lane):
    """More work is done than by mixing; each step that was parted is of one kind and says so; streams have every other step at least."""
    ours = machine(TOGETHER)
    steps = served(ours, lane=lane)
    mixing = Machine(Scheduler(BlockPool(2_048, 16), **SIZES), seconds=TOGETHER)
    served(mixing, lane=lane)
    parted = [batch for batch in steps if batch.reason is Closed.MIXING]
    assert len(parted) > len(steps) / 4
    assert all(kinds(batch) != (True, True) for batch in parted)
    assert all(kinds(other) == (True, False) for one, other in pairwise(steps) if one in parted and kinds(one) == (False, True))
    assert ours.tokens / ours.now_s > 1.4 * mixing.tokens / mixing.now_s


def test_where_they_do_not_nothing_changes():
    """No step is parted, and whatever can share one does."""
    steps = served(machine(APART))
    assert all(batch.reason is not Closed.MIXING for batch in steps)
    assert sum(kinds(batch) == (True, True) for batch in steps) > len(steps) / 4


def test_what_sharing_costs_is_tried_now_and_then():
    """Prompts that are all too long to share a step by the rule share one now and then, so that a cost that is gone is noticed."""
    one = machine(TOGETHER)

    def arrive() -> None:
        while len(one.scheduler.waiting) < 8:
            one.send(400, 30)

    one.run(2.0, arrive)
    assert any(batch.reason is Closed.MIXING for batch in one.scheduler.history.read())
    one.seconds = APART
    one.run(12.0, arrive)
    assert all(batch.reason is not Closed.MIXING for batch in one.scheduler.history.read()[-100:])


def test_targets_hold_where_steps_are_parted():
    """The gaps between a live stream's tokens stay within the target that a shared step would have met, and so do first tokens."""
    one = machine(TOGETHER, Targets(ttft_s=0.15, tpot_s=0.03))
    draw, arrived, next_s = Random(1), {}, [0.0]

    def arrive() -> None:
        while next_s[0] <= one.now_s:
            arrived[one.send(20 + draw.randrange(200), 30, arrived_s=next_s[0]).key] = next_s[0]
            next_s[0] += draw.expovariate(25.0)
        while one.scheduler.waiting.counts()[Lane.FLEX] < 8:
            one.send(300 + draw.randrange(200), 40, Lane.FLEX)

    one.run(8.0, arrive)
    assert any(batch.reason is Closed.MIXING for batch in one.scheduler.history.read())
    ended = [key for key in arrived if key in one.ended_s]
    ttft_s = sorted(one.first_s[key] - arrived[key] for key in ended)
    tpot_s = sorted((one.ended_s[key] - one.first_s[key]) / 29 for key in ended)
    assert ttft_s[int(0.95 * len(ttft_s))] <= 0.15
    assert tpot_s[int(0.95 * len(tpot_s))] <= 0.03


@pytest.mark.parametrize(("slack_s", "is_let_in"), [(0.008, True), (0.1, False), (-1.0, False)])
def test_on_the_streams_turn_only_who_cannot_wait_is_let_in(slack_s, is_let_in):
    """A live prompt that would be late after it shares the streams' step; one that has time waits, and so does one that is late anyway."""
    one = machine(TOGETHER, Targets(ttft_s=0.2))
    for _ in range(20):
        one.send(8, 200)
    one.step()
    for _ in range(4):
        one.send(200, 10)
    one.step()
    last = one.scheduler.history.last()
    assert (last.reason, kinds(last)) == (Closed.MIXING, (False, True))
    late = one.send(20, 10, Lane.PRIORITY, arrived_s=one.now_s - 0.2 * AIM + slack_s)
    batch = one.step()
    assert len(batch.decodes) >= 20
    assert (late.key in one.first_s) is is_let_in
    assert (one.scheduler.history.last().reason is Closed.MIXING) is not is_let_in
    one.step()
    assert late.key in one.first_s
