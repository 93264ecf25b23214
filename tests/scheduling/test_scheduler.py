"""The scheduler's policy: budget, order, preemption, progress."""

from pipeline.scheduling.budget import RECOVERY_STEPS
from pipeline.scheduling.sequence import Group, Lane, Sequence, State
from pipeline.scheduling.step import SCORED_CHUNK_TOKENS
from tests.scheduling.running import run, scheduler


def sequence(key: int, prompt: int = 4, lane: Lane = Lane.DEFAULT, arrived_s: float = 0.0) -> Sequence:
    """A sequence whose prompt is its own key, repeated."""
    return Sequence(key=key, prompt_ids=(key,) * prompt, lane=lane, arrived_s=arrived_s)


def test_decodes_go_before_prefill_and_share_the_budget():
    """A stream that runs gets its token; a long prompt takes what is left of the budget."""
    s = scheduler(token_budget=16)
    s.add(first := sequence(1))
    run(s, s.plan(0.0))
    s.add(second := sequence(2, prompt=100))
    batch = s.plan(0.0)
    assert batch.decodes == [first]
    assert [(c.sequence, c.start, c.count) for c in batch.prefills] == [(second, 0, 15)]
    run(s, batch)
    batch = s.plan(0.0)
    assert [(c.start, c.count) for c in batch.prefills] == [(15, 15)]
    assert not batch.prefills[0].samples


def test_lanes_are_served_in_strict_order_then_by_arrival():
    """Priority goes first, flex last, and within a lane whoever came first."""
    s = scheduler(token_budget=64)
    lanes = [(1, Lane.FLEX, 0.0), (2, Lane.DEFAULT, 1.0), (3, Lane.PRIORITY, 2.0), (4, Lane.DEFAULT, 0.5), (5, Lane.PRIORITY, 2.0)]
    for key, lane, arrived_s in lanes:
        s.add(sequence(key, lane=lane, arrived_s=arrived_s))
    assert [c.sequence.key for c in s.plan(0.0).prefills] == [3, 5, 4, 2, 1]


def test_a_waiting_live_prompt_goes_before_a_flex_prefill_that_runs():
    """The flex prompt's next chunk gets only what the live prompt leaves."""
    s = scheduler(token_budget=16)
    s.add(flex := sequence(1, prompt=40, lane=Lane.FLEX))
    run(s, s.plan(0.0))
    s.add(live := sequence(2, prompt=10))
    assert [(c.sequence, c.count) for c in s.plan(0.0).prefills] == [(live, 10), (flex, 6)]


def test_rows_never_outnumber_the_budget():
    """However many sequences are allowed, every running one's decode fits in every step."""
    s = scheduler(max_sequences=100, token_budget=16)
    for key in range(100):
        s.add(sequence(key, prompt=1))
    run(s, s.plan(0.0))
    assert len(s.plan(0.0).decodes) == 16


def test_the_latest_of_the_lowest_lane_is_preempted_and_computes_again():
    """When blocks run out, the last in rank gives up its own and keeps its output."""
    s = scheduler(blocks=4, block_tokens=4)
    s.add(first := sequence(1, prompt=4))
    s.add(second := sequence(2, prompt=4))
    while not s.preemptions_total:
        run(s, batch := s.plan(0.0))
    assert second.state is State.WAITING
    assert second not in batch.decodes
    assert second.computed_tokens == 0
    assert second.output_ids
    assert not batch.admitted
    s.finish(first)
    batch = s.plan(0.0)
    assert batch.admitted == [second]
    assert batch.prefills[0].count == second.tokens


def test_nobody_is_admitted_in_a_step_that_preempted():
    """What a preemption frees is not given away in the same step."""
    s = scheduler(blocks=4, block_tokens=4)
    s.add(sequence(1, prompt=4))
    s.add(sequence(2, prompt=4))
    s.add(sequence(3, prompt=1))
    while not s.preemptions_total:
        batch = s.plan(0.0)
        run(s, batch)
    assert not batch.admitted


def test_a_newcomer_leaves_every_running_sequence_a_block_to_grow():
    """Room for the newcomer alone is not enough: it would be preempted as soon as the others go on."""
    s = scheduler(blocks=6, block_tokens=4)
    s.add(first := sequence(1, prompt=8))
    run(s, s.plan(0.0))
    s.add(second := sequence(2, prompt=16))
    assert s.pool.blocks_for(second.tokens) == s.pool.free
    assert run(s, s.plan(0.0)) == [first]
    assert second.state is State.WAITING
    s.finish(first)
    assert s.plan(0.0).admitted == [second]


def test_live_work_displaces_flex_when_no_row_is_free():
    """A live request does not wait for a flex sequence to end: the newest flex one makes room."""
    s = scheduler(max_sequences=2)
    s.add(older := sequence(1, lane=Lane.FLEX, arrived_s=1.0))
    s.add(newer := sequence(2, lane=Lane.FLEX, arrived_s=2.0))
    run(s, s.plan(0.0))
    s.add(live := sequence(3, arrived_s=3.0))
    batch = s.plan(0.0)
    assert batch.decodes == [older]
    assert newer.state is State.WAITING
    assert batch.admitted == [live]


def test_nothing_is_displaced_in_vain():
    """Flex work goes on where even all its blocks would not make room."""
    s = scheduler(blocks=8, block_tokens=4)
    s.add(sequence(1, prompt=16, lane=Lane.PRIORITY))
    s.add(flex := sequence(2, prompt=4, lane=Lane.FLEX))
    run(s, s.plan(0.0))
    s.add(sequence(3, prompt=24, lane=Lane.PRIORITY))
    run(s, s.plan(0.0))
    assert flex.state is State.RUNNING
    assert s.preemptions_total == 0


def test_finishing_frees_whatever_the_sequence_holds():
    """Waiting, running or already finished: afterwards it holds nothing."""
    s = scheduler(max_sequences=1)
    s.add(runs := sequence(1))
    s.add(waits := sequence(2))
    run(s, s.plan(0.0))
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


def grouped(n: int, prompt: tuple[int, ...], **fields: object) -> list[Sequence]:
    """The choices of one request."""
    members = [Sequence(key=0, index=i, prompt_ids=prompt, **fields) for i in range(n)]
    for member in members:
        member.group = Group(members)
    return members


def test_a_prompt_that_begins_like_an_earlier_one_computes_the_rest():
    """Full blocks are found while their holder runs and after it ended; the last token is computed even where all are known."""
    s = scheduler()
    first = Sequence(key=1, prompt_ids=tuple(range(12)), salt="")
    s.add(first)
    run(s, s.plan(0.0))
    s.add(longer := Sequence(key=2, prompt_ids=(*range(12), 77, 78), salt=""))
    batch = s.plan(0.0)
    assert [(c.sequence, c.start, c.count) for c in batch.prefills] == [(longer, 12, 2)]
    assert longer.block_table[:3] == first.block_table[:3]
    run(s, batch)
    first_blocks = list(first.block_table)
    s.finish(first)
    s.finish(longer)
    s.add(same := Sequence(key=3, prompt_ids=tuple(range(12)), salt=""))
    batch = s.plan(0.0)
    assert [(c.start, c.count) for c in batch.prefills] == [(8, 4)]
    assert same.block_table[:2] == first_blocks[:2]
    assert (s.prefix_query_tokens_total, s.prefix_hit_tokens_total) == (12 + 14 + 12, 12 + 8)


def test_nothing_is_shared_across_salts_or_without_one():
    """Neither what another tenant computed is found, nor what somebody did who shares nothing."""
    s = scheduler()
    for key, salt in enumerate(("one", None, "two", None)):
        s.add(newcomer := Sequence(key=key, prompt_ids=tuple(range(8)), salt=salt))
        batch = s.plan(0.0)
        assert [(c.start, c.count) for c in batch.prefills] == [(0, 8)]
        run(s, batch)
        s.finish(newcomer)


def test_a_preempted_sequence_computes_again_only_what_was_evicted():
    """Its blocks are the last to be given away again, and what is still there is found."""
    s = scheduler(blocks=6, block_tokens=4)
    s.add(first := Sequence(key=1, prompt_ids=tuple(range(4)), salt=""))
    s.add(second := Sequence(key=2, prompt_ids=tuple(range(10, 20)), salt=""))
    while not s.preemptions_total:
        run(s, s.plan(0.0))
    tokens = second.tokens
    s.finish(first)
    batch = s.plan(0.0)
    (chunk,) = batch.prefills
    assert chunk.sequence is second
    assert chunk.start >= 8
    assert chunk.start + chunk.count == tokens


def test_choices_share_the_prompts_blocks_and_copy_the_last():
    """One computes the prompt; the others wait for it, then share its full blocks, copy the begun one and compute one token each."""
    s = scheduler()
    members = grouped(3, tuple(range(10)))
    for member in members:
        s.add(member)
    batch = s.plan(0.0)
    assert batch.admitted == members[:1]
    run(s, batch)
    batch = s.plan(0.0)
    assert batch.decodes == members
    assert batch.prefills == []
    assert {tuple(m.block_table[:2]) for m in members} == {tuple(members[0].block_table[:2])}
    assert len({m.block_table[2] for m in members}) == 3
    assert batch.copies == [(members[0].block_table[2], m.block_table[2]) for m in members[1:]]
    assert [m.computed_tokens for m in members] == [10, 9, 9]
    s.pool.check([m.block_table for m in members])


def test_a_choice_computes_the_prompt_itself_when_no_other_has_it():
    """Those that had it are gone, and nothing is found: it begins at the beginning."""
    s = scheduler()
    members = grouped(2, tuple(range(10)))
    for member in members:
        s.add(member)
    run(s, s.plan(0.0))
    s.finish(members[0])
    batch = s.plan(0.0)
    assert [(c.sequence, c.start, c.count) for c in batch.prefills] == [(members[1], 0, 10)]
    assert batch.copies == []


def test_tokens_that_are_to_be_scored_are_computed_in_small_chunks_whatever_is_known():
    """Finding them would give no log-probabilities, and each has logits over the whole vocabulary."""
    prompt = tuple(range(SCORED_CHUNK_TOKENS + 40))
    s = scheduler(blocks=200, token_budget=1_024)
    s.add(Sequence(key=0, prompt_ids=prompt, salt=""))
    run(s, s.plan(0.0))
    scored = Sequence(key=1, prompt_ids=prompt, salt="")
    scored.group = Group([scored], scores_prompt=True)
    s.add(scored)
    batch = s.plan(0.0)
    assert [(c.start, c.count) for c in batch.prefills] == [(0, SCORED_CHUNK_TOKENS)]
    scored.group.scored_tokens = SCORED_CHUNK_TOKENS
    run(s, batch)
    s._preempt(scored)
    assert [(c.start, c.count) for c in s.plan(0.0).prefills] == [(SCORED_CHUNK_TOKENS, 40)]


def test_a_shortage_of_memory_halves_steps_and_makes_the_last_in_rank_wait():
    """Flex work goes first; the budget comes back step by step, and with it those who waited."""
    s = scheduler(max_sequences=4, token_budget=16)
    lanes = (Lane.FLEX, Lane.DEFAULT, Lane.FLEX, Lane.DEFAULT)
    for key, lane in enumerate(lanes):
        s.add(sequence(key, lane=lane))
    run(s, s.plan(0.0))
    s.relieve()
    assert [q.lane for q in s.running] == [Lane.DEFAULT, Lane.DEFAULT]
    assert s.budget.tokens == 8
    for _ in range(10):
        s.relieve()
    assert (s.budget.tokens, s.budget.sequences, len(s.running)) == (1, 1, 1)
    for _ in range(RECOVERY_STEPS * 6):
        run(s, s.plan(0.0))
    assert (s.budget.tokens, s.budget.sequences) == (16, 4)


def test_what_is_discarded_is_neither_found_nor_kept():
    """A sequence that failed leaves nothing for others; blocks that others hold stay theirs."""
    s = scheduler()
    s.add(bad := Sequence(key=0, prompt_ids=tuple(range(10)), salt=""))
    run(s, s.plan(0.0))
    s.add(other := Sequence(key=1, prompt_ids=tuple(range(10)), salt=""))
    run(s, s.plan(0.0))
    own = set(bad.block_table) - set(other.block_table)
    assert set(s.discard([bad])) == own
    assert bad.state is State.FINISHED
    s.pool.check([other.block_table])
    s.add(late := Sequence(key=2, prompt_ids=tuple(range(10)), salt=""))
    run(s, s.plan(0.0))
    assert not set(late.block_table) & set(other.block_table)
