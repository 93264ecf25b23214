"""Which sequences run in a step, and how many tokens of each. Policy only: no tensor, no clock.

One token budget per step and no phases: the one pending token of every running sequence first, then chunks of prefill
with what is left, so that a long prompt never holds up a stream. Order is by lane, then by arrival. The scheme is that of
Sarathi-Serve (chunked prefill piggybacking on decodes) with vLLM's preemption by recompute.
"""

from bisect import insort
from collections import deque
from operator import attrgetter

from pipeline.scheduling.batch import Batch, Chunk
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.sequence import Sequence, State

_rank = attrgetter("rank")


class Scheduler:
    """Owns the two queues, the rows of running sequences and the blocks that they hold.

    Progress: the running sequence of the best rank is never preempted in favour of another and can take every other's
    blocks, and waiting sequences are admitted strictly in order. So each sequence whose tokens fit the pool ends, as long
    as the lanes above it leave room.
    """

    def __init__(self, pool: BlockPool, *, max_sequences: int, token_budget: int):
        self.pool = pool
        self.token_budget = token_budget
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.waiting_tokens = 0
        self.preemptions_total = 0
        # Not more rows than budget: then every running sequence's decode fits in every step.
        self._rows = list(range(min(max_sequences, token_budget) - 1, -1, -1))
        self._arrivals = 0

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
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
            self.waiting_tokens -= sequence.tokens
        sequence.state = State.FINISHED

    def plan(self) -> Batch:
        """Plans one step. The sequences in it keep their rows and blocks at least until the next plan.

        Nobody is admitted in a step that preempts: what was freed goes to those for whom it was freed.
        """
        preemptions_before = self.preemptions_total
        self._displace()
        decodes, grown = self._plan_decodes()
        admits = self.preemptions_total == preemptions_before
        prefills, admitted = self._plan_prefills(self.token_budget - len(decodes), admits=admits)
        return Batch(decodes, prefills, admitted, grown)

    def _plan_decodes(self) -> tuple[list[Sequence], list[Sequence]]:
        decodes: list[Sequence] = []
        grown: list[Sequence] = []
        block_tokens = self.pool.block_tokens
        for sequence in [s for s in self.running if s.pending_tokens == 1]:
            if sequence.state is not State.RUNNING:  # preempted for the sake of one before it
                continue
            if sequence.computed_tokens == len(sequence.block_table) * block_tokens:
                if not self._free_a_block_for(sequence):
                    continue  # it keeps what it has and waits for those before it
                sequence.block_table += self.pool.allocate(1)
                grown.append(sequence)
            decodes.append(sequence)
        return decodes, grown

    def _plan_prefills(self, budget: int, *, admits: bool) -> tuple[list[Chunk], list[Sequence]]:
        prefills: list[Chunk] = []
        admitted: list[Sequence] = []
        pending = deque(s for s in self.running if s.pending_tokens > 1)
        while budget and (sequence := self._next_prefill(pending, admits=admits)):
            if sequence.state is State.WAITING:
                self._admit(sequence)
                admitted.append(sequence)
            count = min(budget, sequence.pending_tokens)
            prefills.append(Chunk(sequence, sequence.computed_tokens, count))
            budget -= count
        return prefills, admitted

    def _next_prefill(self, pending: deque[Sequence], *, admits: bool) -> Sequence | None:
        """Takes the better in rank of the first running prefill and the first waiting sequence; one that does not fit holds back those behind it."""
        head = self.waiting[0] if admits and self.waiting else None
        if head and self._fits(head) and not (pending and pending[0].rank < head.rank):
            return head
        return pending.popleft() if pending else None

    def _fits(self, sequence: Sequence) -> bool:
        """Tells whether there is a row and room for all that `sequence` has now, and a block to grow for each that runs."""
        return bool(self._rows) and self.pool.blocks_for(sequence.tokens) + len(self.running) <= self.pool.free

    def _admit(self, sequence: Sequence) -> None:
        del self.waiting[0]
        self.waiting_tokens -= sequence.tokens
        sequence.state = State.RUNNING
        sequence.row = self._rows.pop()
        sequence.block_table = self.pool.allocate(self.pool.blocks_for(sequence.tokens))
        insort(self.running, sequence, key=_rank)

    def _displace(self) -> None:
        """Preempts the last of the lower lanes where the first waiting sequence finds no room otherwise."""
        if not self.waiting:
            return
        head = self.waiting[0]
        lower = [s for s in self.running if s.lane > head.lane]
        if not lower or self._fits(head):
            return
        held = sum(len(s.block_table) for s in lower)
        if self.pool.blocks_for(head.tokens) + len(self.running) - len(lower) > self.pool.free + held:
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
        self.running.remove(sequence)
        self._release(sequence)
        sequence.computed_tokens = 0
        self.preemptions_total += 1
        self._enqueue(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.block_table)
        self._rows.append(sequence.row)
        sequence.block_table = []
        sequence.row = -1

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.state = State.WAITING
        self.waiting_tokens += sequence.tokens
        insort(self.waiting, sequence, key=_rank)
