"""A KV cache in blocks, and attention over it: decodes by the compiled kernel where there is one for them, else in plain torch operations.

Keys and values of one layer lie as [KV heads, blocks, block tokens, width]. Gathering the blocks of many sequences then
gives a matrix per (KV head, sequence) in a single copy.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.attention.decoding import decode, kernels_for
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.keeping import keep
from pipeline.engine.attention.keeping import kernels_for as keeping_kernels
from pipeline.engine.attention.plain import decode_plainly, softmax, squash
from pipeline.engine.attention.step import AttentionStep, PrefillChunk
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.threads import workers

SCORE_TILE_TOKENS = 256
"""Query tokens whose scores are held at once where SDPA cannot be used."""


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
    __slots__ = ("_keeping", "_kernels", "flat_keys", "flat_values", "keys", "values")

    def __init__(self, shape: LayerShape, blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device):
        # Zeros: what is padding in a gather must be finite, whatever was there before.
        self.keys = torch.zeros(shape.kv_heads, blocks, block_tokens, shape.key_width, dtype=dtype, device=device)
        self.values = torch.zeros(shape.kv_heads, blocks, block_tokens, shape.value_width, dtype=dtype, device=device)
        self.flat_keys, self.flat_values = self.keys.flatten(1, 2), self.values.flatten(1, 2)
        self._kernels: dict[int, Pair | None] = {}
        self._keeping = keeping_kernels(self.keys)

    def keep(self, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Puts tokens into their slots, [KV heads, tokens or more, width] both."""
        keep(self._keeping, key, value, slots, self.flat_keys, self.flat_values)

    def kernel(self, heads: int) -> Kernel | None:
        """What decodes with so many query heads; None where nothing does but torch's operations, or not yet."""
        if heads not in self._kernels:
            self._kernels[heads] = kernels_for(self.keys, self.values, heads)
        kernels = self._kernels[heads]
        return None if kernels is None else kernels.find(is_parallel=workers() > 1)


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
        kernel = layer.kernel(query.shape[1]) if step.buckets else None
        if kernel is not None:
            decode(kernel, layer.keys, layer.values, step.decodes(), query[0], form, attended)
        else:
            for bucket in step.buckets:
                attended[bucket.start : bucket.start + bucket.sequences] = decode_plainly(layer.keys, layer.values, bucket, query[0], form)
        for chunk in step.chunks:
            attended[chunk.start : chunk.start + chunk.tokens] = _prefill(layer, chunk, query, key, value, form)
        return attended.unsqueeze(0)


def _prefill(layer: _LayerCache, chunk: PrefillChunk, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
    """Consecutive tokens of one sequence: [tokens, heads, value width]."""
    own = slice(chunk.start, chunk.start + chunk.tokens)
    query = query[:, :, own]
    if chunk.opens:
        keys, values = key[:, :, own], value[:, :, own]
    else:
        keys = layer.keys.index_select(1, chunk.blocks).flatten(1, 2)[None, :, : chunk.context_tokens]
        values = layer.values.index_select(1, chunk.blocks).flatten(1, 2)[None, :, : chunk.context_tokens]
    if not form.is_plain:
        return _prefill_in_tiles(query[0], keys[0], values[0], chunk.visible(form.window), form)
    causal = chunk.opens and (not form.window or chunk.tokens <= form.window)
    attended = F.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=None if causal else chunk.visible(form.window),
        is_causal=causal,
        scale=form.scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return attended[0].transpose(0, 1)


def _prefill_in_tiles(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor, form: Form) -> Tensor:
    """Scores in the open, a tile of query tokens at a time, for what SDPA does not know."""
    groups = query.shape[0] // keys.shape[0]
    keys, values = keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)
    sinks = None if form.sinks is None else form.sinks[:, None]
    tiles = []
    for tile, may_look in zip(query.split(SCORE_TILE_TOKENS, 1), visible.split(SCORE_TILE_TOKENS), strict=True):
        scores = squash(torch.bmm(tile, keys.mT).mul_(form.scaling), form.softcap).masked_fill_(~may_look, -torch.inf)
        tiles.append(torch.bmm(softmax(scores, sinks), values))
    return torch.cat(tiles, 1).transpose(0, 1)
