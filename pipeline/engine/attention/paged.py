"""A KV cache in blocks, and attention over it: decodes by the compiled kernel where there is one for them, else in plain torch operations.

Keys and values of one layer lie as [KV heads, blocks, block tokens, width]. Gathering the blocks of many sequences then
gives a matrix per (KV head, sequence) in a single copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.engine.attention.decoding import decode, kernels_for
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.keeping import keep
from pipeline.engine.attention.keeping import kernels_for as keeping_kernels
from pipeline.engine.attention.plain import decode_plainly, prefill_plainly
from pipeline.engine.attention.prefilling import kernels_for as prefilling_kernels
from pipeline.engine.attention.prefilling import prefill
from pipeline.engine.attention.step import AttentionStep, PrefillChunk
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.threads import workers


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps per token."""

    kv_heads: int
    key_width: int
    value_width: int

    @property
    def width(self) -> int:
        """Numbers per token."""
        return self.kv_heads * (self.key_width + self.value_width)


class _LayerCache:
    __slots__ = ("_keeping", "_kernels", "_prefilling", "flat_keys", "flat_values", "keys", "values")

    def __init__(self, shape: LayerShape, blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device):
        # Zeros: what is padding in a gather must be finite, whatever was there before.
        self.keys = torch.zeros(shape.kv_heads, blocks, block_tokens, shape.key_width, dtype=dtype, device=device)
        self.values = torch.zeros(shape.kv_heads, blocks, block_tokens, shape.value_width, dtype=dtype, device=device)
        self.flat_keys, self.flat_values = self.keys.flatten(1, 2), self.values.flatten(1, 2)
        self._kernels: dict[int, Pair | None] = {}
        self._keeping, self._prefilling = keeping_kernels(self.keys), prefilling_kernels(self.keys, self.values)

    def keep(self, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Puts tokens into their slots, [KV heads, tokens or more, width] both."""
        keep(self._keeping, key, value, slots, self.flat_keys, self.flat_values)

    def decode_kernel(self, heads: int) -> Kernel | None:
        """What decodes with so many query heads; None where nothing does but torch's operations, or not yet."""
        if heads not in self._kernels:
            self._kernels[heads] = kernels_for(self.keys, self.values, heads)
        kernels = self._kernels[heads]
        return None if kernels is None else kernels.find(is_parallel=workers() > 1)

    def prefill_kernel(self) -> Kernel | None:
        """What computes chunks of prefill; None as above."""
        return None if self._prefilling is None else self._prefilling.find(is_parallel=workers() > 1)


class PagedAttention:
    """The cache of one model and the arithmetic over it.

    Set `step` before each forward pass. Writing the same step again writes the same numbers, so a step that failed half
    way can be run again in parts.
    """

    def __init__(self, layers: dict[nn.Module, LayerShape], *, blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device):
        self.block_tokens = block_tokens
        self.step: AttentionStep | None = None
        self._layers = {module: _LayerCache(shape, blocks, block_tokens, dtype, device) for module, shape in layers.items()}

    def clear(self, blocks: Iterable[int]) -> None:
        """Zeroes blocks that may hold something other than numbers, before somebody else gets them."""
        numbers = list(blocks)
        for layer in self._layers.values():
            layer.keys[:, numbers] = 0
            layer.values[:, numbers] = 0

    def copy(self, blocks: Iterable[tuple[int, int]]) -> None:
        """Copies blocks, (from, to), for a sequence that goes on where another one does as well."""
        sources, targets = (list(numbers) for numbers in zip(*blocks, strict=True))
        for layer in self._layers.values():
            layer.keys[:, targets] = layer.keys[:, sources]
            layer.values[:, targets] = layer.values[:, sources]

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """Writes the step's keys and values and computes the layer; see `hook.Attention`. What only fills the row up gets zeros."""
        layer, step = self._layers[module], self.step
        assert step is not None, "the runner sets the step"  # noqa: S101 -- our bug, not outside input
        tokens = step.slots.numel()
        layer.keep(key[0], value[0], step.slots)
        attended = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
        attended[tokens:] = 0
        if step.buckets and (kernel := layer.decode_kernel(query.shape[1])) is not None:
            decode(kernel, layer.keys, layer.values, step.decodes(), query[0], form, attended)
        else:
            for bucket in step.buckets:
                attended[bucket.start : bucket.start + bucket.sequences] = decode_plainly(layer.keys, layer.values, bucket, query[0], form)
        if step.chunks and (kernel := layer.prefill_kernel()) is not None:
            prefill(kernel, layer.keys, layer.values, step.prefills(), query[0], form, attended)
        else:
            for chunk in step.chunks:
                own = attended[chunk.start : chunk.start + chunk.tokens]
                own[:] = prefill_plainly(*_context(layer, chunk, key, value), chunk, query, form)
        return attended.unsqueeze(0)


def _context(layer: _LayerCache, chunk: PrefillChunk, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of a chunk's sequence up to its end, [1, KV heads, context tokens, width] both."""
    if chunk.opens:
        own = slice(chunk.start, chunk.start + chunk.tokens)
        return key[:, :, own], value[:, :, own]
    keys, values = (cache.index_select(1, chunk.blocks).flatten(1, 2)[None, :, : chunk.context_tokens] for cache in (layer.keys, layer.values))
    return keys, values
