"""Where a sequence can begin: what of it is computed already, in blocks that it may share or copy."""

from dataclasses import dataclass, field

from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Reuse:
    """The beginning of a sequence that need not be computed.

    Attributes:
        tokens: How many.
        blocks: Full blocks to share; nobody writes into them again.
        pages: The numbers of their pages, as far as they are known.
        source: The block whose first tokens are to be copied, since whoever holds it writes into it; None where `tokens` end with a block.
    """

    tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    source: int | None = None


def reusable(sequence: Sequence, pool: BlockPool) -> Reuse:
    """Finds the longest beginning of a waiting sequence that is computed: in the cache of prefixes, or by another choice of its request.

    The last token is always computed, since its logits are sampled from.
    """
    block_tokens, limit = pool.block_tokens, sequence.reusable_tokens
    found = [] if sequence.salt is None else pool.prefixes.find(sequence.salt, sequence.first_pages(limit // block_tokens, block_tokens))
    own = min(limit, len(sequence.prompt_ids))
    if own > len(found) * block_tokens and (donor := sequence.donor()) is not None:
        whole, rest = divmod(own, block_tokens)
        return Reuse(own, donor.block_table[:whole], donor.pages[:whole], donor.block_table[whole] if rest else None)
    return Reuse(len(found) * block_tokens, [page.block for page in found], [page.number for page in found])
