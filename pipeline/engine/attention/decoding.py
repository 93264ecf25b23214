"""From tensors to the compiled decode kernel, where there is one for them."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.engine.arrays import HELD, Array, array
from pipeline.engine.attention import decode as by_vectors
from pipeline.engine.attention import decode_amx as by_tiles
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.plain import decode_plainly
from pipeline.engine.attention.step import AttentionStep, Contexts, DecodeBucket
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.threads import workers
from pipeline.engine.vectors import has_tiles

NO_SINKS: npt.NDArray[np.float32] = np.empty(0, dtype=np.float32)
PROOF_LENGTHS = (37, 21, 16, 1)
PROOF_BLOCK_TOKENS = 16


def kernels_for(keys: Tensor, values: Tensor, heads: int) -> Pair | None:
    """The kernels for a cache, [KV heads, blocks, block tokens, width] both, and so many query heads; None where there are none for it."""
    if keys.device.type != "cpu" or keys.dtype not in HELD:
        return None
    is_half, sizes = keys.dtype is torch.bfloat16, (heads // keys.shape[0], keys.shape[-1], values.shape[-1])
    form = partial(by_vectors.form, *sizes, is_half=is_half)
    if is_half and has_tiles() and by_tiles.can_serve(*sizes, block_tokens=keys.shape[2]):
        form = partial(by_tiles.form, *sizes)
    return Pair(form, partial(is_right, sizes=sizes, dtype=keys.dtype))


def decode(kernel: Kernel, keys: Tensor, values: Tensor, decodes: Contexts, query: Tensor, form: Form, attended: Tensor) -> None:
    """Computes one layer for the step's decodes, in float32 whatever the cache holds; the query and the output have its dtype.

    Args:
        kernel: The one for such a cache.
        keys: [KV heads, blocks, block tokens, key width].
        values: [KV heads, blocks, block tokens, value width].
        decodes: What to decode.
        query: [heads, T, key width]; the decodes come first.
        form: What happens to the scores.
        attended: [T, heads, value width]; the decodes' places are written.
    """
    sequences = decodes.lengths.size
    own = array(query)[:, :sequences].transpose(1, 0, 2)
    kernel(*arguments(own, keys, values, decodes, form, array(attended)[:sequences]))


def arguments(query: Array, keys: Tensor, values: Tensor, contexts: Contexts, form: Form, out: Array) -> tuple[Any, ...]:
    """What kernels take that attend over a cache; see `decode.define`."""
    return (
        query,
        array(keys).reshape(keys.shape[0], -1, keys.shape[-1]),
        array(values).reshape(values.shape[0], -1, values.shape[-1]),
        contexts.blocks,
        contexts.starts,
        keys.shape[2],
        contexts.lengths,
        form.scaling,
        form.window,
        float(form.softcap),
        NO_SINKS if form.sinks is None else form.sinks.float().numpy(),
        out,
        workers(),
    )


def is_right(kernel: Kernel, *, sizes: tuple[int, int, int], dtype: torch.dtype) -> bool:
    """Tells whether a kernel computes from random numbers what torch's operations do, for every kind of score.

    Args:
        kernel: For some group of query heads, width of a key and width of a value.
        sizes: These.
        dtype: Of the cache.
    """
    group, key_width, value_width = sizes
    draw = torch.Generator().manual_seed(0)
    held = [-(-length // PROOF_BLOCK_TOKENS) for length in PROOF_LENGTHS]
    shape = (2, sum(held), PROOF_BLOCK_TOKENS)
    keys, values = (torch.randn(*shape, width, generator=draw).to(dtype) for width in (key_width, value_width))
    query = torch.randn(2 * group, len(held), key_width, generator=draw).to(dtype)
    tables = torch.randperm(sum(held), generator=draw).split(held)
    buckets = tuple(
        DecodeBucket(place, 1, table, torch.tensor([length]), table.numel() * PROOF_BLOCK_TOKENS)
        for place, (table, length) in enumerate(zip(tables, PROOF_LENGTHS, strict=True))
    )
    decodes = AttentionStep(torch.empty(0, dtype=torch.int64), buckets, ()).decodes()
    sinks = torch.randn(2 * group, generator=draw)
    for form in (Form(key_width**-0.5, 0, 0.0, None), Form(key_width**-0.5, 18, 1.5, sinks)):
        got = torch.full((len(held), 2 * group, value_width), torch.nan, dtype=dtype)
        decode(kernel, keys, values, decodes, query, form, got)
        expected = [decode_plainly(keys.float(), values.float(), bucket, query.float(), form) for bucket in buckets]
        if not are_close(got, torch.cat(expected).to(dtype)):
            return False
    return True
