"""The blocks of the KV cache: who holds which, and which are free."""

from collections.abc import Iterable


class BlockPool:
    """Hands out block numbers and takes them back.

    Every block is either in the free list with no holder, or out of it with at least one. Several holders of one block
    (a shared prefix) are counted; the last one to release it frees it.
    """

    def __init__(self, blocks: int, block_tokens: int):
        self.total = blocks
        self.block_tokens = block_tokens
        self._free = list(range(blocks - 1, -1, -1))  # a stack: the block freed last is the warmest in the processor's cache
        self._holders = [0] * blocks

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """Counts the blocks that `tokens` tokens fill."""
        return -(-tokens // self.block_tokens)

    def allocate(self, count: int) -> list[int]:
        """Takes `count` free blocks; the caller has checked that there are as many."""
        assert count <= len(self._free), "the scheduler allocates only what is free"  # noqa: S101 -- our bug, not outside input
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Adds a holder to each of `blocks`, which somebody holds already."""
        for block in blocks:
            assert self._holders[block] > 0, "only a held block can be shared"  # noqa: S101 -- our bug, not outside input
            self._holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Gives up one hold of each of `blocks`."""
        for block in blocks:
            assert self._holders[block] > 0, "a block is released once per holder"  # noqa: S101 -- our bug, not outside input
            self._holders[block] -= 1
            if not self._holders[block]:
                self._free.append(block)
