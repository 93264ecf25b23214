"""From tensors to the compiled kernel that computes chunks of prefill, where there is one for them."""

import torch
from torch import Tensor

from pipeline.engine.arrays import array
from pipeline.engine.attention import prefill_amx as by_tiles
from pipeline.engine.attention.decoding import arguments
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.plain import prefill_plainly
from pipeline.engine.attention.step import AttentionStep, PrefillChunk, Prefills
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.vectors import has_tiles

PROOF_CHUNKS = ((37, 37), (20, 53), (1, 32))
"""Tokens, and those of the context: one that opens its sequence, one that goes on, one that ends with a panel."""
PROOF_BLOCK_TOKENS, PROOF_HEADS, PROOF_WIDTH = 16, 4, 64


def kernels_for(keys: Tensor, values: Tensor) -> Pair | None:
    """The kernels for a cache, [KV heads, blocks, block tokens, width] both; None where there are none for it."""
    is_served = keys.is_cpu and keys.dtype is torch.bfloat16 and has_tiles() and by_tiles.can_serve(keys.shape[-1], values.shape[-1])
    return Pair(by_tiles.form, is_right) if is_served else None


def prefill(kernel: Kernel, keys: Tensor, values: Tensor, prefills: Prefills, query: Tensor, form: Form, attended: Tensor) -> None:
    """Computes one layer for the step's chunks, whose own keys and values are in the cache.

    Args:
        kernel: The one for such a cache.
        keys: [KV heads, blocks, block tokens, key width].
        values: [KV heads, blocks, block tokens, value width].
        prefills: What to compute.
        query: [heads, T, key width], a head's numbers side by side.
        form: What happens to the scores.
        attended: [T, heads, value width]; the chunks' places are written.
    """
    kernel(*arguments(array(query), keys, values, prefills.contexts, form, array(attended)), prefills.places, prefills.tokens)


def is_right(kernel: Kernel) -> bool:
    """Tells whether a kernel computes from random numbers what torch's operations do, for every kind of score."""
    draw = torch.Generator().manual_seed(0)
    held = [-(-context // PROOF_BLOCK_TOKENS) for _, context in PROOF_CHUNKS]
    cache = torch.randn(2, 2, sum(held), PROOF_BLOCK_TOKENS, PROOF_WIDTH, generator=draw).bfloat16()
    tables = torch.randperm(sum(held), generator=draw).split(held)
    rows = sum(tokens for tokens, _ in PROOF_CHUNKS)
    query = torch.randn(PROOF_HEADS, rows, PROOF_WIDTH, generator=draw).bfloat16()
    chunks, place = [], 0
    for (tokens, context), table in zip(PROOF_CHUNKS, tables, strict=True):
        chunks.append(PrefillChunk(place, tokens, context, table))
        place += tokens
    prefills = AttentionStep(torch.empty(0, dtype=torch.int64), (), tuple(chunks)).prefills()
    for form in (Form(PROOF_WIDTH**-0.5, 0, 0.0, None), Form(PROOF_WIDTH**-0.5, 18, 1.5, torch.randn(PROOF_HEADS, generator=draw))):
        got = torch.full((rows, PROOF_HEADS, PROOF_WIDTH), torch.nan, dtype=query.dtype)
        prefill(kernel, cache[0], cache[1], prefills, query, form, got)
        expected = []
        for chunk in chunks:
            context_keys, context_values = cache[:, :, chunk.blocks].flatten(2, 3)[:, None, :, : chunk.context_tokens].float()
            expected.append(prefill_plainly(context_keys, context_values, chunk, query[None].float(), form))
        if not are_close(got, torch.cat(expected).to(got.dtype)):
            return False
    return True
