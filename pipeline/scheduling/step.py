"""One step in the making: a policy says what goes into it, and this is what can be said.

Whatever a policy does, blocks are conserved, the budget is kept, nobody is in a batch twice, and nobody in it is preempted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from pipeline.scheduling.batch import Batch, Chunk
from pipeline.scheduling.budget import Budget
from pipeline.scheduling.explanation import Closed, Composition
from pipeline.scheduling.residents import Residents
from pipeline.scheduling.sequence import Lane, Sequence, State
from pipeline.scheduling.waiting import Waiting

SCORED_CHUNK_TOKENS = 128
"""Longest chunk of a prompt whose tokens are scored: each of them has logits over the whole vocabulary."""


class Step:
    """What may be put into a step, and what that leaves.

    Attributes:
        number: Counts the steps that were planned.
        now_s: When it is planned.
        batch: What is in it so far.
        waiting: Those without a row, in the order in which they are let in.
        tokens_left: What is left of the token budget.
        preempted: Those that gave way in this step. Nobody is let in any more once a running sequence took their blocks.
        held_back: Why the first waiting sequence was not let in; None while none was refused.
    """

    def __init__(self, number: int, now_s: float, residents: Residents, waiting: Waiting, budget: Budget):
        self.number = number
        self.now_s = now_s
        self.batch = Batch([], [], [], [])
        self.waiting = waiting
        self.tokens_left = budget.tokens
        self.preempted: list[Sequence] = []
        self.held_back: Closed | None = None
        self._residents = residents
        self._max_sequences = budget.sequences
        self._is_short = False

    @property
    def running(self) -> list[Sequence]:
        """Those with a row, by rank."""
        return self._residents.running

    def decoding(self) -> list[Sequence]:
        """Lists the running sequences with one token to compute, by rank."""
        return [s for s in self._residents.running if len(s.prompt_ids) + len(s.output_ids) - s.computed_tokens == 1]

    def decode(self, sequence: Sequence) -> bool:
        """Puts the one pending token of a running sequence into the step.

        Where it needs a block and none is free, those of higher rank that are not in the step give way, the last first. False if it
        gave way itself before, or none is to be had: then it keeps what it has.
        """
        if sequence.state is not State.RUNNING or not self.tokens_left:
            return False
        if sequence.computed_tokens == len(sequence.block_table) * self._residents.pool.block_tokens:
            if not self._free_a_block_for(sequence):
                return False
            self._residents.grow(sequence)
            self.batch.grown.append(sequence)
        self.batch.decodes.append(sequence)
        sequence.served_step = self.number
        self.tokens_left -= 1
        return True

    def decode_all(self, sequences: list[Sequence]) -> bool:
        """Puts the pending tokens of all these into the step, where there is room for them and nobody has had to give way; else none."""
        pool = self._residents.pool
        block_tokens = pool.block_tokens
        growing = [s for s in sequences if s.computed_tokens == len(s.block_table) * block_tokens]
        if self.preempted or len(sequences) > self.tokens_left or len(growing) > pool.free:
            return False
        for sequence in growing:
            self._residents.grow(sequence)
        for sequence in sequences:
            sequence.served_step = self.number
        self.batch.grown.extend(growing)
        self.batch.decodes.extend(sequences)
        self.tokens_left -= len(sequences)
        return True

    def withdraw_decodes(self) -> None:
        """Takes all decodes out again: they wait for the next step, and keep the blocks that they got for this one."""
        self.tokens_left += len(self.batch.decodes)
        for sequence in self.batch.decodes:
            sequence.served_step = self.number - 1  # so that they are not taken for those who have just had their turn
        self.batch.decodes.clear()

    def prefills(self, lanes: Iterable[Lane] = Lane) -> Iterator[Sequence]:
        """Offers, lane by lane, the running sequences with more than one token to compute, then the waiting ones that find room.

        Each is to be given to `prefill` before the next one is asked for; one that is not ends the offers. A waiting sequence for
        which there is no room holds back all that wait behind it.
        """
        for lane in lanes:
            if self.batch.sequences < len(self.running):
                for sequence in [s for s in self.running if s.lane is lane and s.served_step != self.number and s.pending_tokens > 1]:
                    yield sequence
                    if sequence.served_step != self.number:
                        return
            while (head := self.waiting.first(lane)) is not None and self.admits(head):
                yield head
                if head.served_step != self.number:
                    return

    def admits(self, sequence: Sequence) -> bool:
        """Tells whether a waiting sequence may be let in now: there is a row and room, or lower lanes can give way."""
        if self.held_back is not None:
            return False
        if self._is_short or sequence.awaits_donor():
            self.held_back = Closed.KV_BLOCKS
        elif not self._has_room(sequence) and not self._displace_for(sequence):
            self.held_back = Closed.MAX_SEQUENCES if len(self.running) >= self._max_sequences else Closed.KV_BLOCKS
        return self.held_back is None

    def left_of(self, sequence: Sequence) -> int:
        """Counts the tokens of a waiting sequence that would have to be computed if it were let in now."""
        return sequence.tokens - self._residents.begins(sequence).tokens

    def displace(self) -> None:
        """Lets running sequences of lower lanes give way to the first waiting one, where it finds no room otherwise."""
        head = next((head for lane in Lane if (head := self.waiting.first(lane)) is not None), None)
        if head is not None and not head.awaits_donor() and not self._has_room(head):
            self._displace_for(head)

    def put_first(self, sequence: Sequence) -> None:
        """Raises a sequence above its lane: it gives way to nobody who came later, and lower ones give way to it."""
        rank = (Lane.PRIORITY, *sequence.rank[1:])
        if sequence.state is State.RUNNING:
            self._residents.raise_rank(sequence, rank)
        else:
            sequence.rank = rank

    def prefill(self, sequence: Sequence, most_tokens: int) -> int:
        """Puts at most so many of a sequence's pending tokens into the step, and lets it in first where it waits; returns how many."""
        most_tokens = min(most_tokens, self.tokens_left)
        if most_tokens < 1:
            return 0
        if sequence.state is State.WAITING:
            self._admit(sequence)
        pending = sequence.pending_tokens
        if pending == 1:
            self.decode(sequence)
            return 1
        count = min(most_tokens, pending)
        if sequence.unscored_tokens > 0:
            count = min(count, SCORED_CHUNK_TOKENS)
        self.batch.prefills.append(Chunk(sequence, sequence.computed_tokens, count))
        sequence.served_step = self.number
        self.tokens_left -= count
        self.waiting.charge(sequence.lane, sequence.tenant, count)
        return count

    def charge_decodes(self) -> Composition:
        """Writes the decodes of the step on their tenants' accounts, all at once: there are many, and they decide nothing in it. Returns them."""
        decodes = Counter([(s.lane, s.tenant) for s in self.batch.decodes])
        for (lane, tenant), tokens in decodes.items():
            self.waiting.charge(lane, tenant, tokens)
        return decodes

    def why(self) -> Closed:
        """Names what keeps more out where no policy does."""
        if not self.tokens_left:
            return Closed.BUDGET
        return self.held_back or Closed.QUEUE_EMPTY

    def _admit(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        copy = self._residents.admit(sequence, self._residents.begins(sequence))
        self.batch.admitted.append(sequence)
        if copy is not None:
            self.batch.copies.append(copy)

    def _has_room(self, sequence: Sequence) -> bool:
        return len(self.running) < self._max_sequences and self._residents.fits(sequence, self._residents.begins(sequence))

    def _displace_for(self, sequence: Sequence) -> bool:
        """Preempts the last of the lower lanes, unless that would not help."""
        if not self.running or self.running[-1].rank[0] <= sequence.rank[0]:
            return False
        lower = [s for s in self.running if s.rank[0] > sequence.rank[0] and s.served_step != self.number]
        if not lower or not self._residents.could_fit_without(sequence, lower):
            return False
        while lower and not self._has_room(sequence):
            self._preempt(lower.pop())
        return self._has_room(sequence)

    def _free_a_block_for(self, sequence: Sequence) -> bool:
        while not self._residents.pool.free:
            last = next((s for s in reversed(self.running) if s is sequence or s.served_step != self.number), sequence)
            if last is sequence:
                return False
            self._is_short = True
            self._preempt(last)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._residents.release(sequence)
        sequence.computed_tokens = 0
        sequence.state = State.WAITING
        self.waiting.push(sequence)
        self.preempted.append(sequence)
