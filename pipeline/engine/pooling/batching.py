"""Texts side by side without paying for padding. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

PADDING_SHARE = 0.1
"""A padded bucket may hold this many padding tokens for each real one. Fewer would make more and smaller products of matrices."""


@dataclass(frozen=True, slots=True)
class Run:
    """Texts of equal length that lie one after the other in a packed row."""

    start: int
    texts: int
    tokens: int

    @property
    def end(self) -> int:
        """The place behind the last token."""
        return self.start + self.texts * self.tokens


def by_length(lengths: Sequence[int]) -> list[int]:
    """The numbers of the texts, shortest first."""
    return sorted(range(len(lengths)), key=lengths.__getitem__)


def runs(lengths: Sequence[int]) -> tuple[Run, ...]:
    """Groups neighbours of equal length; `lengths` are in the order of the row."""
    found: list[Run] = []
    start = 0
    for tokens in lengths:
        if found and found[-1].tokens == tokens:
            found[-1] = Run(found[-1].start, found[-1].texts + 1, tokens)
        else:
            found.append(Run(start, 1, tokens))
        start += tokens
    return tuple(found)


def buckets(lengths: Sequence[int], padding_share: float = PADDING_SHARE) -> list[list[int]]:
    """Groups texts of like length: padded to its longest, no bucket has more padding than its share.

    Returns:
        The numbers of the texts of each bucket; every text is in one.
    """
    found: list[list[int]] = []
    real = 0
    for number in by_length(lengths):
        real += lengths[number]
        if found and (len(found[-1]) + 1) * lengths[number] <= real * (1 + padding_share):
            found[-1].append(number)
        else:
            found.append([number])
            real = lengths[number]
    return found


def filling(lengths: Sequence[int], tokens: int) -> list[int]:
    """Lengths of what fills a row up to so many tokens, none longer than the longest text."""
    missing, longest = tokens - sum(lengths), max(lengths)
    return [longest] * (missing // longest) + ([missing % longest] if missing % longest else [])
