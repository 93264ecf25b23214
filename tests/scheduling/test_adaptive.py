"""The policy that serves: what holds whatever arrives, and what targets do."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scheduling.lengths import ENOUGH
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.sequence import Lane, Sequence, State
from pipeline.scheduling.step_model import StepModel
from tests.scheduling.machine import KNOWN, SECONDS, Machine, adaptive, learned

REQUEST = st.tuples(st.integers(1, 60), st.integers(1, 24), st.sampled_from(Lane), st.sampled_from("abc"), st.floats(0, 0.5))
HINDERED = learned(SECONDS._replace(mixed=1e-4)).to_json()
"""What is learned of a machine on which a prompt beside streams takes long."""
TARGETS = st.builds(Targets, ttft_s=st.none() | st.floats(0.001, 1.0), tpot_s=st.none() | st.floats(0.001, 0.2))


@settings(max_examples=40)
@given(
    requests=st.lists(REQUEST, min_size=1, max_size=20),
    targets=TARGETS,
    blocks=st.integers(8, 24),
    rows=st.integers(1, 6),
    budget=st.integers(1, 64),
    known=st.sampled_from([KNOWN, HINDERED]),
)
def test_everything_ends_and_no_budget_is_exceeded(requests, targets, blocks, rows, budget, known):
    """For any load, whether prompts and streams share steps or take turns: each ends, blocks are conserved, and no step has more than it may."""
    sizes = {"blocks": blocks, "max_sequences": rows, "token_budget": budget}
    machine = Machine(adaptive(targets, **sizes, patience_s=0.2, model=StepModel.from_json(known)))
    coming = sorted(requests, key=lambda request: request[4])
    while coming or machine.scheduler.has_work():
        while coming and coming[0][4] <= machine.now_s:
            prompt, output, lane, tenant, arrived_s = coming.pop(0)
            machine.send(prompt, output, lane, tenant, arrived_s)
        if not machine.scheduler.has_work():
            machine.now_s = coming[0][4]
            continue
        batch = machine.step()
        assert batch.tokens <= budget
        assert batch.sequences <= len(machine.scheduler.running) + len(machine.ended_s) <= rows + len(requests)
        assert len(machine.scheduler.running) <= rows
        assert len({id(s) for s in batch.decodes} | {id(c.sequence) for c in batch.prefills}) == batch.sequences
        machine.scheduler.pool.check(s.block_table for s in machine.scheduler.running)
        assert machine.now_s < 600, "somebody starves"
    assert len(machine.ended_s) == len(requests)


@pytest.mark.parametrize("flood", [Lane.PRIORITY, Lane.DEFAULT])
def test_flex_work_waits_no_longer_than_its_patience_whatever_is_live(flood):
    """Live work that takes every row for ever: flex is served within its patience, a step, and the end of a priority sequence."""
    machine = Machine(adaptive(Targets(ttft_s=0.05), max_sequences=4, patience_s=2.0))
    first, second = (machine.send(40, 8, Lane.FLEX, arrived_s=0.0) for _ in range(2))

    def flooded() -> None:
        while machine.scheduler.waiting.counts()[flood] < 8:
            machine.send(20, 10, flood)

    flooded()
    machine.run(8.0, flooded)
    longest_s = 2.0 + 0.1 + 10 * 0.05
    assert machine.first_s[first.key] <= longest_s
    assert machine.ended_s[second.key] <= machine.ended_s[first.key] + longest_s + 8 * 0.05


@pytest.mark.parametrize("lane", [Lane.DEFAULT, Lane.FLEX])
def test_weights_are_respected_over_a_contended_minute(lane):
    """Three tenants with endless work of different shapes get tokens by their weights, within 5 %."""
    weights = {"a": 3.0, "b": 1.0}
    machine, draw = Machine(adaptive(weights=weights)), Random(0)

    def endless() -> None:
        queued = {tenant: sum(s.tenant == tenant for s in machine.scheduler.waiting) for tenant in "abc"}
        for tenant, prompt in (("a", 30), ("b", 60), ("c", 15)):
            for _ in range(4 - queued[tenant]):
                machine.send(1 + draw.randrange(prompt), 1 + draw.randrange(60), lane, tenant)

    machine.run(60.0, endless)
    per_weight = [machine.served_tokens["a"] / 3, machine.served_tokens["b"], machine.served_tokens["c"]]
    assert max(per_weight) / min(per_weight) < 1.05


def test_who_comes_back_after_a_pause_has_no_credit():
    """A tenant that was away shares from now on; it is not given what it did not ask for."""
    machine = Machine(adaptive(max_sequences=4))
    for _ in range(40):
        machine.send(16, 16, tenant="stays")
    machine.run(2.0)
    before = dict(machine.served_tokens)
    for _ in range(40):
        machine.send(16, 16, tenant="stays")
        machine.send(16, 16, tenant="returns")
    machine.run(machine.now_s + 2.0)
    gained = machine.served_tokens["stays"] - before["stays"]
    assert machine.served_tokens["returns"] == pytest.approx(gained, rel=0.15)


@given(rows=st.integers(1, 8), lane=st.sampled_from([Lane.DEFAULT, Lane.FLEX]), prompt=st.integers(1, 40))
@settings(max_examples=12)
def test_priority_overtakes_within_one_step(rows, lane, prompt):
    """However full the engine is with other lanes' work, the step after a priority request's arrival works on it."""
    machine = Machine(adaptive(Targets(ttft_s=0.1), max_sequences=rows))
    for _ in range(20):
        machine.send(200, 30, lane)
    for _ in range(3):
        machine.step()
    urgent = machine.send(prompt, 4, Lane.PRIORITY)
    batch = machine.step()
    assert urgent in [*batch.decodes, *(chunk.sequence for chunk in batch.prefills)]


def test_flex_decodes_that_were_left_out_go_first_in_the_next_step():
    """They take turns, and keep their blocks meanwhile."""
    machine = Machine(adaptive(Targets(tpot_s=0.009)))
    flex = [machine.send(4, 60, Lane.FLEX) for _ in range(12)]
    for _ in range(3):
        machine.step()
    machine.send(8, 100)
    for _ in range(60):
        machine.step()
    counts = [len(s.output_ids) for s in flex]
    assert max(counts) - min(counts) <= 2
    assert {s.state for s in flex} <= {State.RUNNING, State.FINISHED}
    assert machine.scheduler.preemptions_total == 0


def test_the_most_urgent_prompt_goes_first():
    """Within a tenant it is the earliest deadline, not the earliest arrival."""
    machine = Machine(adaptive(max_sequences=1))
    first = machine.send(4, 1)
    hasty = Sequence(key=99, prompt_ids=(1,) * 4, arrived_s=machine.now_s, deadline_s=machine.now_s + 0.5)
    machine.wanted[99] = 1
    machine.scheduler.add(hasty)
    assert machine.step().admitted == [hasty]
    assert machine.step().admitted == [first]


def test_room_is_kept_for_what_outputs_of_the_lane_came_to():
    """Before enough ended, for all that may come; afterwards for what usually does, so that more run at a time."""
    machine = Machine(adaptive(blocks=40, max_sequences=16))
    for _ in range(16):
        machine.send(16, 160)
    machine.step()
    assert len(machine.scheduler.running) == 3  # eleven blocks each
    for sequence in list(machine.scheduler.waiting) + machine.scheduler.running:
        machine.scheduler.finish(sequence)
    for _ in range(ENOUGH + 4):
        short = machine.send(16, 160)
        machine.wanted[short.key] = 8
    machine.run(5.0)
    for _ in range(16):
        machine.send(16, 160)
    machine.step()
    assert len(machine.scheduler.running) == 16


def test_flex_work_leaves_live_work_room_in_the_cache():
    """It reserves nine tenths at most, but never so little that a long sequence could not run at all."""
    machine = Machine(adaptive(blocks=20))
    for _ in range(10):
        machine.send(32, 16, Lane.FLEX)
    machine.step()
    assert sum(s.reserved_blocks for s in machine.scheduler.running) == 18
    live = machine.send(16, 16)
    machine.step()
    assert live.state is State.RUNNING
    assert machine.scheduler.preemptions_total == 0
    long = Machine(adaptive(blocks=20))
    whole = long.send(300, 20, Lane.FLEX)
    long.step()
    assert whole.state is State.RUNNING
