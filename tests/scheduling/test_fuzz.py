"""The scheduler under any load: every sequence ends exactly once, blocks are conserved, and nobody computes on another's tokens."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Group, Lane, Sequence, State
from tests.scheduling.running import run

BLOCK_TOKENS = 4
STEMS = (tuple(range(20)), (*range(7), *range(50, 63)), (3,) * 20)
"""Prompts begin like one of these, so that some share much, some a little."""


@dataclass
class Wanted:
    """A request as it will come: when, with which prompt, for whom, how many tokens of how many choices, and when it is cancelled."""

    step: int
    stem: int
    prompt_tokens: int
    output_tokens: int
    choices: int
    lane: Lane
    salt: str | None
    cancelled_after: int | None
    scores_prompt: bool
    members: list[Sequence] = field(default_factory=list)

    def arrive(self, key: int) -> list[Sequence]:
        """Makes its sequences."""
        prompt = STEMS[self.stem][: self.prompt_tokens]
        self.members = [
            Sequence(key=key, index=i, prompt_ids=prompt, lane=self.lane, arrived_s=float(self.step), salt=self.salt) for i in range(self.choices)
        ]
        group = Group(list(self.members), scores_prompt=self.scores_prompt)
        for member in self.members:
            member.group = group
        return self.members


class Memory:
    """What a KV cache would hold: which token was written at each place of each block."""

    def __init__(self) -> None:
        self.tokens: dict[tuple[int, int], int] = {}

    def compute(self, batch: Batch) -> None:
        """Copies and writes as an engine would, then checks that each sequence sees nothing but its own tokens."""
        for source, target in batch.copies:
            for place in range(BLOCK_TOKENS):
                self.tokens[target, place] = self.tokens.get((source, place), -1)
        spans = [(s, s.computed_tokens, 1) for s in batch.decodes] + [(c.sequence, c.start, c.count) for c in batch.prefills]
        for sequence, start, count in spans:
            for position in range(start, start + count):
                self.tokens[self._slot(sequence, position)] = sequence.token_ids(position, 1)[0]
        for sequence, start, count in spans:
            assert [self.tokens[self._slot(sequence, p)] for p in range(start + count)] == list(sequence.token_ids(0, start + count))

    def _slot(self, sequence: Sequence, position: int) -> tuple[int, int]:
        return sequence.block_table[position // BLOCK_TOKENS], position % BLOCK_TOKENS


WANTED = st.builds(
    Wanted,
    step=st.integers(0, 30),
    stem=st.integers(0, len(STEMS) - 1),
    prompt_tokens=st.integers(1, 20),
    output_tokens=st.integers(1, 20),
    choices=st.integers(1, 4),
    lane=st.sampled_from(Lane),
    salt=st.sampled_from(["one", "two", None]),
    cancelled_after=st.none() | st.integers(0, 15),
    scores_prompt=st.booleans(),
)


@given(
    requests=st.lists(WANTED, min_size=1, max_size=12),
    blocks=st.integers(10, 24),
    rows=st.integers(1, 6),
    budget=st.integers(1, 24),
    shortages=st.sets(st.integers(0, 60), max_size=3),
    failures=st.sets(st.integers(0, 11), max_size=2),
)
def test_every_sequence_ends_exactly_once_and_blocks_are_conserved(requests, blocks, rows, budget, shortages, failures):
    """For any mix of arrivals, choices, shared prompts, lanes, cancels, failures and shortages: nobody starves and nobody ends twice."""
    s = Scheduler(BlockPool(blocks, BLOCK_TOKENS), max_sequences=rows, token_budget=budget)
    memory = Memory()
    ended: Counter[Sequence] = Counter()
    total = sum(request.choices for request in requests)
    step = 0
    while ended.total() < total:
        for key, request in enumerate(requests):
            if request.step == step:
                for member in request.arrive(key):
                    s.add(member)
            if request.cancelled_after is not None and request.step + request.cancelled_after == step:
                for member in request.members:
                    if member.state is not State.FINISHED:
                        s.finish(member)
                        ended[member] += 1
        if step in shortages:
            s.relieve()
        preemptions = s.preemptions_total
        batch = s.plan(0.0)
        assert batch.tokens <= s.budget.tokens <= budget
        assert batch.sequences <= len(s.running) <= min(rows, s.budget.sequences)
        assert len({q.row for q in s.running}) == len(s.running)
        assert len(set(batch.decodes)) == len(batch.decodes)
        assert all(chunk.count > 0 for chunk in batch.prefills)
        if s.has_work():
            assert batch.tokens > 0 or s.preemptions_total > preemptions, "a step without work makes room for the next"
        memory.compute(batch)
        for chunk in batch.prefills:
            group = chunk.sequence.group
            group.scored_tokens = max(group.scored_tokens, min(chunk.start + chunk.count, len(chunk.sequence.prompt_ids) - 1))
        for q in run(s, batch):
            if q.state is State.FINISHED:  # with another choice, that failed
                continue
            if q.group.scores_prompt:
                assert q.unscored_tokens == 0, "nobody gets a token before the prompt is scored"
            if len(q.output_ids) == requests[q.key].output_tokens:
                s.finish(q)
                ended[q] += 1
            elif q.key in failures and len(q.output_ids) == 1:
                gone = [m for m in requests[q.key].members if m.state is not State.FINISHED]
                s.discard(gone)
                ended.update(gone)
        s.pool.check(q.block_table for q in s.running)
        assert s.waiting_tokens == sum(q.tokens for q in s.waiting)
        step += 1
        assert step < 20_000, "somebody starves"
    assert set(ended.values()) == {1}
    assert s.pool.used == 0
    assert not s.has_work()
    s.pool.check([])
