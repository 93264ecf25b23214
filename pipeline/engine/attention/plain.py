"""Attention in plain torch operations, on any device.

Of decodes, the query heads of one KV head are the rows of a matrix product, so that keys are read once per group and not once per head.
"""

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor

from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.step import DecodeBucket, PrefillChunk

SCORE_TILE_TOKENS = 256
"""Query tokens whose scores are held at once where SDPA cannot be used."""


def decode_plainly(keys: Tensor, values: Tensor, bucket: DecodeBucket, query: Tensor, form: Form) -> Tensor:
    """Computes one token per sequence.

    Args:
        keys: [KV heads, blocks, block tokens, key width].
        values: [KV heads, blocks, block tokens, value width].
        bucket: What to decode.
        query: [heads, T, key width].
        form: What happens to the scores.

    Returns:
        [sequences, heads, value width].
    """
    kv_heads, sequences, padded_tokens = keys.shape[0], bucket.sequences, bucket.padded_tokens
    keys = keys.index_select(1, bucket.blocks).view(kv_heads * sequences, padded_tokens, -1)
    values = values.index_select(1, bucket.blocks).view(kv_heads * sequences, padded_tokens, -1)
    own = query[:, bucket.start : bucket.start + sequences]
    rows = own.unflatten(0, (kv_heads, -1)).transpose(1, 2).reshape(kv_heads * sequences, -1, own.shape[-1])
    mask = bucket.mask(form.window, kv_heads, query.dtype)
    if form.is_plain:
        weights = torch.baddbmm(mask, rows, keys.mT, alpha=form.scaling).softmax(-1, dtype=torch.float32).to(values.dtype)
    else:
        scores = squash(torch.bmm(rows, keys.mT).mul_(form.scaling), form.softcap).add_(mask)
        sinks = None if form.sinks is None else form.sinks.view(kv_heads, 1, -1).expand(-1, sequences, -1).reshape(kv_heads * sequences, -1)
        weights = softmax(scores, sinks)
    attended = torch.bmm(weights, values)
    return attended.view(kv_heads, sequences, -1, attended.shape[-1]).transpose(0, 1).flatten(1, 2)


def prefill_plainly(keys: Tensor, values: Tensor, chunk: PrefillChunk, query: Tensor, form: Form) -> Tensor:
    """Computes consecutive tokens of one sequence.

    Args:
        keys: Of the tokens up to the end of the chunk, [1, KV heads, context tokens, key width].
        values: Likewise, [1, KV heads, context tokens, value width].
        chunk: What to prefill.
        query: Of the packed row, [1, heads, T, key width].
        form: What happens to the scores.

    Returns:
        [tokens, heads, value width].
    """
    query = query[:, :, chunk.start : chunk.start + chunk.tokens]
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


def squash(scores: Tensor, softcap: float) -> Tensor:
    """Squashes scores in place to ± softcap; 0: not."""
    return scores.div_(softcap).tanh_().mul_(softcap) if softcap else scores


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the last dimension of [rows, tokens, context] in float32; `sinks` add a score without a value, [rows, tokens or 1]."""
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
    column = sinks.to(scores.dtype)[..., None].expand(*scores.shape[:-1], 1)
    return torch.cat((scores, column), -1).softmax(-1, dtype=torch.float32)[..., :-1].to(scores.dtype)
