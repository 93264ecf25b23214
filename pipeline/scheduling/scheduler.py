"""Which sequences run in a step, and how many tokens of each. Policy only: no tensor, no clock.

One token budget per step and no phases: the one pending token of every running sequence first, then chunks of prefill
with what is left, so that a long prompt never holds up a stream. Order is by lane, then by arrival. The scheme is that of
Sarathi-Serve (chunked prefill piggybacking on decodes) with vLLM's preemption by recompute, which finds most of what it
computed before in the cache of prefixes.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence as Seq
from operator import attrgetter

from pipeline.scheduling.batch import Batch, Chunk
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.budget import Budget
from pipeline.scheduling.explanation import Closed, ClosedBatch, History, lane_shares, tenant_tokens
from pipeline.scheduling.reuse import reusable
from pipeline.scheduling.sequence import Sequence, State

SCORED_CHUNK_TOKENS = 128
"""Longest chunk of a prompt whose tokens are scored: each of them has logits over the whole vocabulary."""

_rank = attrgetter("rank")


class Scheduler:
    """Owns the two queues, the rows of running sequences and the blocks that they hold.

    Progress: the running sequence of the best rank is never preempted in favour of another and can take every other's
    blocks, and waiting sequences are admitted strictly in order. So each sequence whose tokens fit the pool ends, as long
    as the lanes above it leave room.
    """

    def __init__(self, pool: BlockPool, *, max_sequences: int, token_budget: int):
        self.pool = pool
        self.budget = Budget(tokens=token_budget, sequences=max_sequences)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.waiting_tokens = 0
        self.preemptions_total = 0
        self.prefix_query_tokens_total = 0
        self.prefix_hit_tokens_total = 0
        self._rows = list(range(self.budget.sequences - 1, -1, -1))
        self._arrivals = 0
        self.history = History()
        self.closed: Closed | None = None
        self._steps = 0
        self._planned_s = 0.0

    def has_work(self) -> bool:
        """Tells whether any sequence is unfinished."""
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence. All its tokens together, outputs included, must fit the pool."""
        self._arrivals += 1
        sequence.rank = (sequence.lane, sequence.arrived_s, self._arrivals)
        self._enqueue(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Ends a sequence, queued or running, and frees what it holds."""
        if sequence.state is State.RUNNING:
            self._release(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
            self.waiting_tokens -= sequence.tokens
        sequence.state = State.FINISHED

    def discard(self, sequences: Seq[Sequence]) -> list[int]:
        """Ends sequences whose content nobody may use again; returns the blocks of theirs that are free now."""
        blocks = [block for sequence in sequences for block in sequence.block_table]
        for sequence in sequences:
            sequence.salt = None
            self.finish(sequence)
        return self.pool.forget(blocks)

    def plan(self, now_s: float) -> Batch:
        """Plans one step. The sequences in it keep their rows and blocks at least until the next plan.

        Nobody is admitted in a step that preempts: what was freed goes to those for whom it was freed.
        """
        self.budget.pass_step()
        self._planned_s = now_s
        preemptions_before = self.preemptions_total
        self._displace()
        batch = Batch([], [], [], [])
        self._plan_decodes(batch)
        self._plan_prefills(batch, admits=self.preemptions_total == preemptions_before)
        return batch

    def advance(self, batch: Batch) -> None:
        """Takes note that a batch, or a part of one, was computed."""
        for sequence in batch.decodes:
            sequence.computed_tokens += 1
        for chunk in batch.prefills:
            chunk.sequence.computed_tokens += chunk.count
            self._keep_pages(chunk.sequence)

    def close(self, batch: Batch, measured_s: float) -> None:
        """Writes down what a step was and how long it took."""
        if not batch.sequences:
            return
        assert self.closed is not None, "a batch is planned before it closes"  # noqa: S101 -- our bug, not outside input
        self._steps += 1
        self.history.add(
            ClosedBatch(
                number=self._steps,
                started_s=self._planned_s,
                reason=self.closed,
                lanes=lane_shares(batch, Counter(sequence.lane for sequence in self.waiting)),
                tenants=tenant_tokens(batch),
                kv_blocks_used=self.pool.used,
                kv_blocks_total=self.pool.total,
                token_budget=self.budget.tokens,
                predicted_s=None,
                measured_s=measured_s,
            )
        )

    def relieve(self) -> None:
        """Answers a shortage of memory: smaller steps for a while, and fewer sequences, of which the last in rank wait."""
        self.budget.halve()
        while len(self.running) > self.budget.sequences:
            self._preempt(self.running[-1])

    def _plan_decodes(self, batch: Batch) -> None:
        block_tokens = self.pool.block_tokens
        for sequence in [s for s in self.running if s.pending_tokens == 1]:
            if sequence.state is not State.RUNNING:  # preempted for the sake of one before it
                continue
            if sequence.computed_tokens == len(sequence.block_table) * block_tokens:
                if not self._free_a_block_for(sequence):
                    continue  # it keeps what it has and waits for those before it
                self._keep_pages(sequence)
                sequence.block_table += self.pool.allocate(1)
                batch.grown.append(sequence)
            batch.decodes.append(sequence)

    def _plan_prefills(self, batch: Batch, *, admits: bool) -> None:
        budget = self.budget.tokens - len(batch.decodes)
        pending = deque(s for s in self.running if s.pending_tokens > 1)
        while budget and (sequence := self._next_prefill(pending, admits=admits)):
            if sequence.state is State.WAITING:
                self._admit(sequence, batch)
            if sequence.pending_tokens == 1:
                batch.decodes.append(sequence)
                budget -= 1
                continue
            count = min(budget, sequence.pending_tokens)
            if sequence.unscored_tokens > 0:
                count = min(count, SCORED_CHUNK_TOKENS)
            batch.prefills.append(Chunk(sequence, sequence.computed_tokens, count))
            budget -= count
        self.closed = self._reason(budget)

    def _reason(self, left_tokens: int) -> Closed:
        if not left_tokens:
            return Closed.BUDGET
        if not self.waiting:
            return Closed.QUEUE_EMPTY
        return Closed.MAX_SEQUENCES if len(self.running) >= self.budget.sequences else Closed.KV_BLOCKS

    def _next_prefill(self, pending: deque[Sequence], *, admits: bool) -> Sequence | None:
        """Takes the better in rank of the first running prefill and the first waiting sequence; one that does not fit holds back those behind it."""
        head = self.waiting[0] if admits and self.waiting else None
        if head and not (pending and pending[0].rank < head.rank) and self._fits(head) and not head.awaits_donor():
            return head
        return pending.popleft() if pending else None

    def _fits(self, sequence: Sequence) -> bool:
        """Tells whether there is a row and room for all that `sequence` has now, and a block to grow for each that runs."""
        if len(self.running) >= self.budget.sequences:
            return False
        needed = self.pool.blocks_for(sequence.tokens) + len(self.running) - self.pool.free
        return needed <= 0 or needed <= self.pool.held(reusable(sequence, self.pool).blocks)

    def _admit(self, sequence: Sequence, batch: Batch) -> None:
        del self.waiting[0]
        self.waiting_tokens -= sequence.tokens
        sequence.state = State.RUNNING
        sequence.row = self._rows.pop()
        insort(self.running, sequence, key=_rank)
        batch.admitted.append(sequence)
        begins = reusable(sequence, self.pool)
        self.pool.share(begins.blocks)  # before anything is evicted
        own = self.pool.allocate(self.pool.blocks_for(sequence.tokens) - len(begins.blocks))
        sequence.block_table = begins.blocks + own
        sequence.pages = begins.pages
        sequence.computed_tokens = begins.tokens
        if begins.source is not None:
            batch.copies.append((begins.source, own[0]))
        if sequence.salt is not None:
            self.prefix_query_tokens_total += sequence.tokens
            self.prefix_hit_tokens_total += begins.tokens

    def _displace(self) -> None:
        """Preempts the last of the lower lanes where the first waiting sequence finds no room otherwise."""
        if not self.waiting:
            return
        head = self.waiting[0]
        if not self.running or self.running[-1].lane <= head.lane or head.awaits_donor() or self._fits(head):
            return
        lower = [s for s in self.running if s.lane > head.lane]
        if self.pool.blocks_for(head.tokens) + len(self.running) - len(lower) > self.pool.free + self.pool.freed_by(s.block_table for s in lower):
            return  # preempting them all would not help
        while lower and not self._fits(head):
            self._preempt(lower.pop())

    def _free_a_block_for(self, sequence: Sequence) -> bool:
        while not self.pool.free:
            last = self.running[-1]
            if last is sequence:
                return False
            self._preempt(last)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._release(sequence)
        sequence.computed_tokens = 0
        self.preemptions_total += 1
        self._enqueue(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._keep_pages(sequence)
        self.running.remove(sequence)
        self.pool.release(reversed(sequence.block_table))
        self._rows.append(sequence.row)
        sequence.block_table, sequence.pages, sequence.row = [], [], -1

    def _keep_pages(self, sequence: Sequence) -> None:
        """Lets the full blocks of a sequence be found, those that cannot be yet."""
        if sequence.salt is None:
            return
        pages, block_tokens = sequence.pages, self.pool.block_tokens
        for number in range(len(pages), sequence.computed_tokens // block_tokens):
            parent = pages[-1] if pages else sequence.salt
            pages.append(self.pool.prefixes.keep(sequence.block_table[number], parent, sequence.page(number, block_tokens)))

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.state = State.WAITING
        self.waiting_tokens += sequence.tokens
        insort(self.waiting, sequence, key=_rank)
