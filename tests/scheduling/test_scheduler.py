"""The scheduler's policy: budget, order, preemption, progress."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane, Sequence, State


def sequence(key: int, prompt: int = 4, lane: Lane = Lane.DEFAULT, arrived_s: float = 0.0) -> Sequence:
    """A sequence whose prompt is its own key, repeated."""
    return Sequence(key=key, prompt_ids=(key,) * prompt, lane=lane, arrived_s=arrived_s)


def run(batch: Batch) -> list[Sequence]:
    """Does what an engine does to the sequences of a batch; returns those that got a token."""
    sampled = list(batch.decodes)
    for s in batch.decodes:
        s.computed_tokens += 1
    for chunk in batch.prefills:
        if chunk.samples:
            sampled.append(chunk.sequence)
        chunk.sequence.computed_tokens += chunk.count
    for s in sampled:
        s.output_ids.append(len(s.output_ids))
    return sampled


def scheduler(blocks: int = 64, block_tokens: int = 4, max_sequences: int = 8, token_budget: int = 32) -> Scheduler:
    """A scheduler with a pool of its own."""
    return Scheduler(BlockPool(blocks, block_tokens), max_sequences=max_sequences, token_budget=token_budget)


def test_decodes_go_before_prefill_and_share_the_budget():
    """A stream that runs gets its token; a long prompt takes what is left of the budget."""
    s = scheduler(token_budget=16)
    s.add(first := sequence(1))
    run(s.plan())
    s.add(second := sequence(2, prompt=100))
    batch = s.plan()
    assert batch.decodes == [first]
    assert [(c.sequence, c.start, c.count) for c in batch.prefills] == [(second, 0, 15)]
    run(batch)
    batch = s.plan()
    assert [(c.start, c.count) for c in batch.prefills] == [(15, 15)]
    assert not batch.prefills[0].samples


def test_lanes_are_served_in_strict_order_then_by_arrival():
    """Priority goes first, flex last, and within a lane whoever came first."""
    s = scheduler(token_budget=64)
    lanes = [(1, Lane.FLEX, 0.0), (2, Lane.DEFAULT, 1.0), (3, Lane.PRIORITY, 2.0), (4, Lane.DEFAULT, 0.5), (5, Lane.PRIORITY, 2.0)]
    for key, lane, arrived_s in lanes:
        s.add(sequence(key, lane=lane, arrived_s=arrived_s))
    assert [c.sequence.key for c in s.plan().prefills] == [3, 5, 4, 2, 1]


def test_a_waiting_live_prompt_goes_before_a_flex_prefill_that_runs():
    """The flex prompt's next chunk gets only what the live prompt leaves."""
    s = scheduler(token_budget=16)
    s.add(flex := sequence(1, prompt=40, lane=Lane.FLEX))
    run(s.plan())
    s.add(live := sequence(2, prompt=10))
    assert [(c.sequence, c.count) for c in s.plan().prefills] == [(live, 10), (flex, 6)]


def test_rows_never_outnumber_the_budget():
    """However many sequences are allowed, every running one's decode fits in every step."""
    s = scheduler(max_sequences=100, token_budget=16)
    for key in range(100):
        s.add(sequence(key, prompt=1))
    run(s.plan())
    assert len(s.plan().decodes) == 16


def test_the_latest_of_the_lowest_lane_is_preempted_and_computes_again():
    """When blocks run out, the last in rank gives up its own and keeps its output."""
    s = scheduler(blocks=4, block_tokens=4)
    s.add(first := sequence(1, prompt=4))
    s.add(second := sequence(2, prompt=4))
    while not s.preemptions_total:
        run(batch := s.plan())
    assert second.state is State.WAITING
    assert second not in batch.decodes
    assert second.computed_tokens == 0
    assert second.output_ids
    assert not batch.admitted
    s.finish(first)
    batch = s.plan()
    assert batch.admitted == [second]
    assert batch.prefills[0].count == second.tokens


def test_nobody_is_admitted_in_a_step_that_preempted():
    """What a preemption frees is not given away in the same step."""
    s = scheduler(blocks=4, block_tokens=4)
    s.add(sequence(1, prompt=4))
    s.add(sequence(2, prompt=4))
    s.add(sequence(3, prompt=1))
    while not s.preemptions_total:
        batch = s.plan()
        run(batch)
    assert not batch.admitted


def test_a_newcomer_leaves_every_running_sequence_a_block_to_grow():
    """Room for the newcomer alone is not enough: it would be preempted as soon as the others go on."""
    s = scheduler(blocks=6, block_tokens=4)
    s.add(first := sequence(1, prompt=8))
    run(s.plan())
    s.add(second := sequence(2, prompt=16))
    assert s.pool.blocks_for(second.tokens) == s.pool.free
    assert run(s.plan()) == [first]
    assert second.state is State.WAITING
    s.finish(first)
    assert s.plan().admitted == [second]


def test_live_work_displaces_flex_when_no_row_is_free():
    """A live request does not wait for a flex sequence to end: the newest flex one makes room."""
    s = scheduler(max_sequences=2)
    s.add(older := sequence(1, lane=Lane.FLEX, arrived_s=1.0))
    s.add(newer := sequence(2, lane=Lane.FLEX, arrived_s=2.0))
    run(s.plan())
    s.add(live := sequence(3, arrived_s=3.0))
    batch = s.plan()
    assert batch.decodes == [older]
    assert newer.state is State.WAITING
    run(batch)
    assert s.plan().admitted == [live]


def test_nothing_is_displaced_in_vain():
    """Flex work goes on where even all its blocks would not make room."""
    s = scheduler(blocks=8, block_tokens=4)
    s.add(sequence(1, prompt=16, lane=Lane.DEFAULT))
    s.add(flex := sequence(2, prompt=4, lane=Lane.FLEX))
    run(s.plan())
    s.add(sequence(3, prompt=24, lane=Lane.PRIORITY))
    s.running[0].lane = Lane.PRIORITY  # as if it had come with the same right
    run(s.plan())
    assert flex.state is State.RUNNING
    assert s.preemptions_total == 0


def test_finishing_frees_whatever_the_sequence_holds():
    """Waiting, running or already finished: afterwards it holds nothing."""
    s = scheduler(max_sequences=1)
    s.add(runs := sequence(1))
    s.add(waits := sequence(2))
    run(s.plan())
    assert s.waiting_tokens == 4
    s.finish(waits)
    s.finish(runs)
    s.finish(runs)
    assert not s.has_work()
    assert s.pool.used == 0
    assert s.waiting_tokens == 0


def test_token_ids_are_read_across_the_border_of_prompt_and_output():
    """A preempted sequence computes its prompt and its output again as one."""
    s = Sequence(key=1, prompt_ids=(1, 2, 3), output_ids=[4, 5])
    assert list(s.token_ids(0, 2)) == [1, 2]
    assert list(s.token_ids(2, 2)) == [3, 4]
    assert list(s.token_ids(3, 2)) == [4, 5]


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 24), st.integers(1, 20), st.sampled_from(Lane), st.none() | st.integers(0, 15)),
    min_size=1,
    max_size=20,
)


@given(arrivals=ARRIVALS, blocks=st.integers(11, 24), rows=st.integers(1, 6), budget=st.integers(1, 24))
def test_every_sequence_ends_exactly_once_whatever_arrives_and_is_cancelled(arrivals, blocks, rows, budget):
    """For any mix of arrivals, lanes and cancels: the budget holds, blocks are conserved, nobody starves, nobody ends twice."""
    s = Scheduler(BlockPool(blocks, 4), max_sequences=rows, token_budget=budget)
    wanted = {
        key: (step, sequence(key, prompt, lane, float(step)), outputs, cancel) for key, (step, prompt, outputs, lane, cancel) in enumerate(arrivals)
    }
    ended: Counter[int] = Counter()
    step = 0
    while len(ended) < len(wanted):
        for key, (arrives, seq, _, cancel) in wanted.items():
            if arrives == step:
                s.add(seq)
            if cancel is not None and arrives + cancel == step and key not in ended:
                s.finish(seq)
                ended[key] += 1
        preemptions = s.preemptions_total
        batch = s.plan()
        assert batch.tokens <= budget
        assert batch.sequences <= rows
        assert len({q.row for q in s.running}) == len(s.running)
        for q in s.running:
            assert s.pool.blocks_for(q.tokens) <= len(q.block_table) or q not in batch.decodes
        if s.has_work():
            assert batch.tokens > 0 or s.preemptions_total > preemptions, "a step without work makes room for the next"
        for q in run(batch):
            if len(q.output_ids) == wanted[q.key][2]:
                s.finish(q)
                ended[q.key] += 1
        tables = [block for q in s.running for block in q.block_table]
        assert len(tables) == len(set(tables)) == s.pool.used
        assert s.waiting_tokens == sum(q.tokens for q in s.waiting)
        step += 1
        assert step < 5_000, "somebody starves"
    assert set(ended.values()) == {1}
    assert s.pool.used == 0
    assert not s.has_work()
