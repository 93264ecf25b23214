"""The sequences that run, the rows and blocks that they hold, and those that they will need."""

from bisect import insort
from collections.abc import Callable
from operator import attrgetter

from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.reuse import Reuse, reusable
from pipeline.scheduling.sequence import Lane, Sequence, State

_rank = attrgetter("rank")


class Residents:
    """Owns the rows and, through the pool, the blocks.

    Each sequence has a reserve: the blocks that it is expected to hold in the end, beyond which it grows as long as there are any.
    A newcomer is let in where the free blocks cover its own and what the others' reserves lack.

    Args:
        pool: The blocks.
        rows: How many may ever run at a time.
        expected_tokens: Tells how many tokens a sequence will probably have in the end.
        flex_share: The part of the pool that flex sequences may reserve.
    """

    def __init__(self, pool: BlockPool, *, rows: int, expected_tokens: Callable[[Sequence], int], flex_share: float):
        self.pool = pool
        self.running: list[Sequence] = []
        self._rows = list(range(rows - 1, -1, -1))
        self._expected_tokens = expected_tokens
        self._flex_ceiling = int(pool.total * flex_share)
        self._lacking = 0  # blocks of reserves that are not taken yet
        self._flex_reserved = 0

    def fits(self, sequence: Sequence, begins: Reuse) -> bool:
        """Tells whether there are blocks for `sequence` now and later, besides what is kept for those that run."""
        reserve = self._reserve(sequence)
        if sequence.lane is Lane.FLEX and self._flex_reserved and self._flex_reserved + reserve > self._flex_ceiling:
            return False
        needed = reserve + self._lacking - self.pool.free
        return needed <= 0 or needed <= self.pool.held(begins.blocks)

    def could_fit_without(self, sequence: Sequence, others: list[Sequence]) -> bool:
        """Tells whether `sequence` would fit if these gave up what they hold."""
        freed = self.pool.freed_by(other.block_table for other in others)
        lacking = self._lacking - sum(_lacks(other) for other in others)
        return self._reserve(sequence) + lacking <= self.pool.free + freed

    def admit(self, sequence: Sequence, begins: Reuse) -> tuple[int, int] | None:
        """Gives a sequence a row and blocks for all that it has now; returns the blocks (from, to) that must be copied for it."""
        sequence.state = State.RUNNING
        sequence.row = self._rows.pop()
        insort(self.running, sequence, key=_rank)
        self.pool.share(begins.blocks)  # before anything is evicted
        own = self.pool.allocate(self.pool.blocks_for(sequence.tokens) - len(begins.blocks))
        sequence.block_table = begins.blocks + own
        sequence.pages = begins.pages
        sequence.computed_tokens = begins.tokens
        self._set_reserve(sequence, self._reserve(sequence))
        return None if begins.source is None else (begins.source, own[0])

    def grow(self, sequence: Sequence) -> None:
        """Gives a sequence one more block; the caller has checked that one is free."""
        self.keep_pages(sequence)
        is_expected = len(sequence.block_table) < sequence.reserved_blocks
        sequence.block_table += self.pool.allocate(1)
        if is_expected:
            self._lacking -= 1
        else:  # it turns out longer
            self._set_reserve(sequence, self._reserve(sequence))

    def release(self, sequence: Sequence) -> None:
        """Takes back all that a sequence holds."""
        self.keep_pages(sequence)
        self.running.remove(sequence)
        self._set_reserve(sequence, 0)
        self.pool.release(reversed(sequence.block_table))
        self._rows.append(sequence.row)
        sequence.block_table, sequence.pages, sequence.row = [], [], -1

    def raise_rank(self, sequence: Sequence, rank: tuple[int, float, int]) -> None:
        """Lets a running sequence give way later than it would."""
        self.running.remove(sequence)
        sequence.rank = rank
        insort(self.running, sequence, key=_rank)

    def keep_pages(self, sequence: Sequence) -> None:
        """Lets the full blocks of a sequence be found, those that cannot be yet."""
        if sequence.salt is None:
            return
        pages, block_tokens = sequence.pages, self.pool.block_tokens
        for number in range(len(pages), sequence.computed_tokens // block_tokens):
            parent = pages[-1] if pages else sequence.salt
            pages.append(self.pool.prefixes.keep(sequence.block_table[number], parent, sequence.page(number, block_tokens)))

    def begins(self, sequence: Sequence) -> Reuse:
        """Finds what of a waiting sequence is computed already."""
        return reusable(sequence, self.pool)

    def _reserve(self, sequence: Sequence) -> int:
        """Counts the blocks that a sequence is expected to need; never more than there are, so that it can run alone."""
        return min(self.pool.blocks_for(max(self._expected_tokens(sequence), sequence.tokens)), self.pool.total)

    def _set_reserve(self, sequence: Sequence, blocks: int) -> None:
        self._lacking -= _lacks(sequence)
        if sequence.lane is Lane.FLEX:
            self._flex_reserved += blocks - sequence.reserved_blocks
        sequence.reserved_blocks = blocks
        self._lacking += _lacks(sequence)


def _lacks(sequence: Sequence) -> int:
    return max(sequence.reserved_blocks - len(sequence.block_table), 0)
