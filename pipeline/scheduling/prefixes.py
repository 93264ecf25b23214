"""What full blocks hold, so that a prompt which begins like an earlier one finds the work done.

A page is the token ids of one full block. Pages form a tree: a page is known by the page before it and by its own tokens, so
that equal tokens after a different beginning are another page. Finding one compares its tokens: a dictionary compares what
hashes alike, and numbers of pages are never used twice. The idea is that of vLLM's automatic prefix caching and SGLang's
radix tree, the latter with one block per edge.
"""

from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

Parent = int | str
"""The number of the page before, or the salt that a tree grows from. Trees of different salts share nothing."""


class Page(NamedTuple):
    """A full block whose content can be found. `number` is its identity; that of its block outlives it."""

    number: int
    block: int
    parent: Parent
    token_ids: bytes


class Prefixes:
    """The pages of one pool, by content and by block."""

    def __init__(self) -> None:
        self._by_content: dict[tuple[Parent, bytes], Page] = {}
        self._by_block: dict[int, Page] = {}
        self._numbers = count(1)

    def __contains__(self, block: int) -> bool:
        """Tells whether what a block holds can be found."""
        return block in self._by_block

    def find(self, salt: str, pages: Iterable[bytes]) -> list[Page]:
        """Follows `pages` from the root of `salt` as far as they are known."""
        found: list[Page] = []
        parent: Parent = salt
        for token_ids in pages:
            page = self._by_content.get((parent, token_ids))
            if page is None:
                break
            found.append(page)
            parent = page.number
        return found

    def keep(self, block: int, parent: Parent, token_ids: bytes) -> int:
        """Lets a full block be found, unless another one holds the same; returns the number of the page."""
        page = self._by_content.get((parent, token_ids))
        if page is None:
            page = Page(next(self._numbers), block, parent, token_ids)
            self._by_content[parent, token_ids] = self._by_block[block] = page
        return page.number

    def forget(self, block: int) -> None:
        """Lets a block be found no longer. Pages after it cannot be reached any more; their blocks age and go."""
        page = self._by_block.pop(block)
        del self._by_content[page.parent, page.token_ids]
