"""The blocks of the KV cache: who holds which, which are free, and what free ones still hold."""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from pipeline.scheduling.prefixes import Prefixes


class BlockPool:
    """Hands out block numbers and takes them back.

    A block is held by at least one sequence; or idle: nobody holds it, and what it holds can be found; or empty. Several
    holders of one block (a shared prefix) are counted. Idle blocks count as free: they are given away, the one that was let go
    longest ago first, when no empty one is left.
    """

    def __init__(self, blocks: int, block_tokens: int):
        self.total = blocks
        self.block_tokens = block_tokens
        self.prefixes = Prefixes()
        self._empty = list(range(blocks - 1, -1, -1))  # a stack: the block freed last is the warmest in the processor's cache
        self._idle: OrderedDict[int, None] = OrderedDict()  # as they were let go; a plain dict takes ever longer to find its first
        self._holders = [0] * blocks

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - self.free

    def blocks_for(self, tokens: int) -> int:
        """Counts the blocks that `tokens` tokens fill."""
        return -(-tokens // self.block_tokens)

    def held(self, blocks: Iterable[int]) -> int:
        """Counts those of `blocks` that somebody holds: sharing them takes nothing from what is free."""
        return sum(self._holders[block] > 0 for block in blocks)

    def freed_by(self, tables: Iterable[Iterable[int]]) -> int:
        """Counts the blocks that nobody would hold if the holders of these tables let go."""
        holds = Counter(block for table in tables for block in table)
        return sum(self._holders[block] == times for block, times in holds.items())

    def allocate(self, count: int) -> list[int]:
        """Takes `count` free blocks; the caller has checked that there are as many."""
        assert count <= self.free, "the scheduler allocates only what is free"  # noqa: S101 -- our bug, not outside input
        taken = [self._empty.pop() if self._empty else self._evict() for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Adds a holder to each of `blocks`, which are held already, or idle."""
        for block in blocks:
            if not self._holders[block]:
                assert block in self._idle, "what an empty block holds means nothing"  # noqa: S101 -- our bug, not outside input
                del self._idle[block]
            self._holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Gives up one hold of each of `blocks`. Name a sequence's last block first: a prefix should outlive what follows it."""
        for block in blocks:
            assert self._holders[block] > 0, "a block is released once per holder"  # noqa: S101 -- our bug, not outside input
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self.prefixes:
                self._idle[block] = None
            else:
                self._empty.append(block)

    def forget(self, blocks: Iterable[int]) -> list[int]:
        """Lets the content of `blocks` be found no longer; returns those that nobody holds."""
        unheld = []
        for block in set(blocks):
            if block in self.prefixes:
                self.prefixes.forget(block)
            if block in self._idle:
                del self._idle[block]
                self._empty.append(block)
            if not self._holders[block]:
                unheld.append(block)
        return unheld

    def check(self, tables: Iterable[Iterable[int]]) -> None:
        """Asserts that blocks are conserved: `tables` are all the holds there are, and every other block is idle or empty."""
        holders = Counter(block for table in tables for block in table)
        assert [holders[block] for block in range(self.total)] == self._holders, "holds are counted"  # noqa: S101 -- our bug, not outside input
        parts = [*holders, *self._idle, *self._empty]
        assert sorted(parts) == list(range(self.total)), "each block is held, idle or empty"  # noqa: S101 -- likewise
        assert all(block in self.prefixes for block in self._idle), "an idle block can be found"  # noqa: S101 -- likewise
        assert not any(block in self.prefixes for block in self._empty), "an empty one cannot"  # noqa: S101 -- likewise

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        self.prefixes.forget(block)
        return block
