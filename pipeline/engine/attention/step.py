"""What attention must know of one step: built once, read by every layer.

The step's tokens are packed into one row of T. First come the decodes, one token of each sequence, ordered by falling
length so that sequences of like length stand together (a bucket); then the chunks of prefill.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DecodeBucket:
    """Decoding sequences of like length, padded to the longest.

    Attributes:
        start: Place of the first one's token in the packed row; the others follow.
        sequences: How many they are.
        blocks: Block numbers, [sequences x blocks per sequence], int64; a shorter sequence repeats one of its own blocks.
        lengths: Tokens of each, the one decoded now included, [sequences], int64.
        padded_tokens: Tokens per sequence that `blocks` hold.
    """

    start: int
    sequences: int
    blocks: Tensor
    lengths: Tensor
    padded_tokens: int
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def mask(self, window: int, kv_heads: int, dtype: torch.dtype) -> Tensor:
        """0 where a token may look, -inf where it may not, [kv_heads x sequences, 1, padded_tokens]; made once per step, window and head count."""
        key = (window, kv_heads)
        if key not in self._masks:
            positions = torch.arange(self.padded_tokens, device=self.lengths.device)
            ends = self.lengths[:, None]
            hidden = positions >= ends
            if window:
                hidden |= positions < ends - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self._masks[key] = mask.repeat(kv_heads, 1).unsqueeze(1)
        return self._masks[key]


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """What some sequences have in the cache, without padding, for what reads each to its own length; int64 all.

    Attributes:
        blocks: Block numbers of all.
        starts: Where in `blocks` each one's begin, [sequences].
        lengths: Tokens of each, those computed now included, [sequences].
    """

    blocks: Numbers
    starts: Numbers
    lengths: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class PrefillChunk:
    """Consecutive tokens of one sequence.

    Attributes:
        start: Place of the first token in the packed row.
        tokens: How many there are.
        context_tokens: Tokens of the sequence up to the end of the chunk.
        blocks: Block numbers that hold these, [blocks], int64.
    """

    start: int
    tokens: int
    context_tokens: int
    blocks: Tensor
    _masks: dict[int, Tensor] = field(default_factory=dict)

    @property
    def opens(self) -> bool:
        """Tells whether the chunk starts its sequence, so that it looks at nothing but itself."""
        return self.tokens == self.context_tokens

    def visible(self, window: int) -> Tensor:
        """True where a token may look, [tokens, context_tokens]; made once per step and window."""
        if window not in self._masks:
            device = self.blocks.device
            positions = torch.arange(self.context_tokens, device=device)
            own = positions[self.context_tokens - self.tokens :, None]
            visible = positions <= own
            if window:
                visible &= positions > own - window
            self._masks[window] = visible
        return self._masks[window]


@dataclass(frozen=True, slots=True, eq=False)
class Prefills:
    """The chunks of prefill, for what computes them all at once.

    Attributes:
        contexts: Of each one's sequence, up to the end of the chunk.
        places: Of each one's first token in the packed row, [chunks], int64.
        tokens: How many there are in each, [chunks], int64.
    """

    contexts: Contexts
    places: Numbers
    tokens: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class AttentionStep:
    """One step's batch, as attention sees it.

    Attributes:
        slots: Where each packed token's key and value go, block x block_tokens + place in the block, [T], int64.
        buckets: The decodes.
        chunks: The prefills.
    """

    slots: Tensor
    buckets: tuple[DecodeBucket, ...]
    chunks: tuple[PrefillChunk, ...]
    _decodes: list[Contexts] = field(default_factory=list)
    _prefills: list[Prefills] = field(default_factory=list)

    def decodes(self) -> Contexts:
        """All buckets in one; made once per step, where there is one."""
        if not self._decodes:
            starts, begin = [], 0
            for bucket in self.buckets:
                starts.append(torch.arange(begin, begin + bucket.blocks.numel(), bucket.blocks.numel() // bucket.sequences))
                begin += bucket.blocks.numel()
            blocks = torch.cat([bucket.blocks for bucket in self.buckets])
            lengths = torch.cat([bucket.lengths for bucket in self.buckets])
            self._decodes.append(Contexts(blocks.numpy(), torch.cat(starts).numpy(), lengths.numpy()))
        return self._decodes[0]

    def prefills(self) -> Prefills:
        """All chunks in one; made once per step, where there is one."""
        if not self._prefills:
            sizes = np.array([(chunk.start, chunk.tokens, chunk.context_tokens, chunk.blocks.numel()) for chunk in self.chunks], dtype=np.int64)
            places, tokens, lengths, held = np.ascontiguousarray(sizes.T)
            blocks = torch.cat([chunk.blocks for chunk in self.chunks]).numpy()
            self._prefills.append(Prefills(Contexts(blocks, np.cumsum(held) - held, lengths), places, tokens))
        return self._prefills[0]
