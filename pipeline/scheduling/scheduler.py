"""Which sequences run in a step, and how many tokens of each: the queue, those that run, and the policy that picks. No tensor, no clock.

One token budget per step and no phases. Where room is short, the last in rank gives way and computes again later what of it is not
found in the cache of prefixes, as in vLLM.
"""

from collections.abc import Sequence as Seq

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.budget import Budget
from pipeline.scheduling.explanation import Closed, ClosedBatch, Composition, History, lane_shares, tenant_tokens
from pipeline.scheduling.policy import FirstCome, Policy
from pipeline.scheduling.residents import Residents
from pipeline.scheduling.sequence import Sequence, State
from pipeline.scheduling.step import Step
from pipeline.scheduling.waiting import Waiting


class Scheduler:
    """Knows every sequence from its arrival to its end.

    Progress: the running sequence of the best rank is never preempted in favour of another and can take every other's
    blocks, and a waiting sequence that finds no room holds back those behind it. So each sequence whose tokens fit the pool
    ends, as long as the policy serves its lane.
    """

    def __init__(self, pool: BlockPool, *, max_sequences: int, token_budget: int, policy: Policy | None = None):
        self.pool = pool
        self.policy = policy or FirstCome()
        self.budget = Budget(tokens=token_budget, sequences=max_sequences)
        self.waiting = Waiting(self.policy.weights)
        self.history = History()
        self.closed: Closed | None = None
        self.preemptions_total = 0
        self.prefix_query_tokens_total = 0
        self.prefix_hit_tokens_total = 0
        self._residents = Residents(pool, rows=self.budget.sequences, expected_tokens=self.policy.expected_tokens, flex_share=self.policy.flex_share)
        self._arrivals = 0
        self._steps = 0
        self._planned_s = 0.0
        self._decodes: Composition = {}

    @property
    def running(self) -> list[Sequence]:
        """Sequences with a row, by rank."""
        return self._residents.running

    @property
    def waiting_tokens(self) -> int:
        """Tokens of those that wait."""
        return self.waiting.tokens

    def has_work(self) -> bool:
        """Tells whether any sequence is unfinished."""
        return bool(self.running or len(self.waiting))

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence. All its tokens together, outputs included, must fit the pool."""
        self._arrivals += 1
        sequence.rank = (sequence.lane, sequence.arrived_s, self._arrivals)
        sequence.urgency = (self.policy.arrive(sequence), self._arrivals)
        self.waiting.enter(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Ends a sequence, queued or running, and frees what it holds."""
        if sequence.state is State.FINISHED:
            return
        self.policy.end(sequence, self._planned_s)
        if sequence.state is State.RUNNING:
            self._residents.release(sequence)
        else:
            self.waiting.remove(sequence)
        self.waiting.leave(sequence)
        sequence.state = State.FINISHED

    def discard(self, sequences: Seq[Sequence]) -> list[int]:
        """Ends sequences whose content nobody may use again; returns the blocks of theirs that are free now."""
        blocks = [block for sequence in sequences for block in sequence.block_table]
        for sequence in sequences:
            sequence.salt = None
            self.finish(sequence)
        return self.pool.forget(blocks)

    def plan(self, now_s: float) -> Batch:
        """Plans one step. The sequences in it keep their rows and blocks at least until the next plan."""
        self.budget.pass_step()
        self._steps += 1
        self._planned_s = now_s
        step = Step(self._steps, now_s, self._residents, self.waiting, self.budget)
        self.closed = self.policy.fill(step)
        self._decodes = step.charge_decodes()
        self.preemptions_total += len(step.preempted)
        for sequence in step.batch.admitted:
            if sequence.salt is not None:
                self.prefix_query_tokens_total += sequence.tokens
                self.prefix_hit_tokens_total += sequence.computed_tokens
        return step.batch

    def advance(self, batch: Batch) -> None:
        """Takes note that a batch, or a part of one, was computed."""
        for sequence in batch.decodes:
            sequence.computed_tokens += 1
        for chunk in batch.prefills:
            chunk.sequence.computed_tokens += chunk.count
            self._residents.keep_pages(chunk.sequence)

    def close(self, batch: Batch, measured_s: float, *, is_whole: bool = True) -> None:
        """Writes down what a step was and how long it took. Where not `is_whole`, parts of it failed or were tried again."""
        if not batch.sequences:
            return
        assert self.closed is not None, "a batch is planned before it closes"  # noqa: S101 -- our bug, not outside input
        self.history.add(
            ClosedBatch(
                number=self._steps,
                started_s=self._planned_s,
                reason=self.closed,
                lanes=lane_shares(self._decodes, batch.prefills, self.waiting.counts()),
                tenants=tenant_tokens(self._decodes, batch.prefills),
                kv_blocks_used=self.pool.used,
                kv_blocks_total=self.pool.total,
                token_budget=self.budget.tokens,
                predicted_s=self.policy.predicted_s(),
                measured_s=measured_s,
            )
        )
        self.policy.observe(batch, self._planned_s, measured_s, is_whole=is_whole)

    def relieve(self) -> None:
        """Answers a shortage of memory: smaller steps for a while, and fewer sequences, of which the last in rank wait."""
        self.budget.halve()
        while len(self.running) > self.budget.sequences:
            self._preempt(self.running[-1])

    def _preempt(self, sequence: Sequence) -> None:
        self._residents.release(sequence)
        sequence.computed_tokens = 0
        sequence.state = State.WAITING
        self.waiting.push(sequence)
        self.preemptions_total += 1
