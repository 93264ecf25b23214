"""The compiled decode kernel against the same arithmetic in torch operations."""

import numpy as np
import pytest
import torch

from pipeline.engine.attention import decode as decode_kernel
from pipeline.engine.attention import decode_amx
from pipeline.engine.attention.decode import form as kernel_form
from pipeline.engine.attention.decoding import decode, kernels_for
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.paged import LayerShape, _LayerCache
from pipeline.engine.attention.plain import decode_plainly
from pipeline.engine.attention.step import AttentionStep, DecodeBucket
from pipeline.engine.threads import use_threads

LENGTHS = (41, 33, 32, 9, 8, 1)
PLAIN = Form(0.3, 0, 0.0, None)
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def layer_of(shape, block_tokens, dtype):
    """A cache of random numbers, and a step that decodes sequences of `LENGTHS` scattered over it, in two buckets."""
    draw = torch.Generator().manual_seed(0)
    held = [-(-length // block_tokens) for length in LENGTHS]
    layer = _LayerCache(shape, sum(held) + 1, block_tokens, dtype, torch.device("cpu"))
    for cache in (layer.keys, layer.values):
        cache.copy_(torch.randn(cache.shape, generator=draw))
    free = torch.randperm(sum(held) + 1, generator=draw).tolist()
    tables = [[free.pop() for _ in range(blocks)] for blocks in held]
    buckets = []
    for first, end in ((0, 3), (3, len(LENGTHS))):
        longest = held[first]
        padded = [table + table[:1] * (longest - len(table)) for table in tables[first:end]]
        lengths = torch.tensor(LENGTHS[first:end])
        buckets.append(DecodeBucket(first, end - first, torch.tensor(padded).flatten(), lengths, longest * block_tokens))
    return layer, AttentionStep(torch.empty(0, dtype=torch.int64), tuple(buckets), ())


def compared(layer, step, query, form):
    """What the kernel computes, and what torch does."""
    out = torch.full((query.shape[1] + 2, query.shape[0], layer.values.shape[-1]), torch.inf, dtype=query.dtype)
    with torch.inference_mode():
        decode(layer.decode_kernel(len(query)), layer.keys, layer.values, step.decodes(), query, form, out)
        expected = torch.cat([decode_plainly(layer.keys, layer.values, bucket, query, form) for bucket in step.buckets])
    assert out[len(LENGTHS) :].isinf().all(), "only the decodes' places are written"
    return out[: len(LENGTHS)].float(), expected.float()


@pytest.mark.parametrize(
    ("heads", "widths", "dtype"),
    [
        *((heads, (8, 6), dtype) for heads in (2, 4, 6) for dtype in BOUNDS),
        (6, (32, 32), torch.float32),  # this one and the next have kernels of their own; this is the shipped model's
        (4, (32, 16), torch.bfloat16),
        *((4, widths, torch.bfloat16) for widths in ((32, 64), (128, 128))),  # and these, where the processor multiplies tiles of them
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "form",
    [PLAIN, Form(0.3, 5, 0.0, None), Form(0.3, 0, 2.0, None), Form(0.3, 17, 1.5, torch.linspace(-1, 2, 6))],
    ids=["plain", "window", "softcap", "all"],
)
def test_the_kernel_computes_what_torch_computes(heads, widths, dtype, form):
    """Whatever the group of query heads, the window, the softcap and the sinks, over any blocks, in float32 and bfloat16."""
    form = form._replace(sinks=None if form.sinks is None else form.sinks[:heads].to(dtype))
    layer, step = layer_of(LayerShape(2, *widths), 16 if heads == 4 else 4, dtype)
    query = torch.randn(heads, len(LENGTHS), widths[0], generator=torch.Generator().manual_seed(1)).to(dtype)
    got, expected = compared(layer, step, query, form)
    assert (got - expected).abs().max() < BOUNDS[dtype]


def test_far_apart_scores_neither_overflow_nor_lose_the_best():
    """Scores of thousands: the best takes all, and the exponential of the others is as good as 0."""
    layer, step = layer_of(LayerShape(2, 8, 6), 4, torch.float32)
    got, expected = compared(layer, step, torch.full((2, len(LENGTHS), 8), 1e3), PLAIN)
    assert got.isfinite().all()
    assert (got - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("shape", "block_tokens", "dtype"), [(LayerShape(2, 8, 6), 4, torch.float32), (LayerShape(2, 64, 64), 16, torch.bfloat16)])
def test_a_sequence_that_is_not_a_number_harms_nobody(shape, block_tokens, dtype):
    """It stays one, so that the engine can tell; its neighbours are what they were."""
    layer, step = layer_of(shape, block_tokens, dtype)
    query = torch.randn(4, len(LENGTHS), shape.key_width, generator=torch.Generator().manual_seed(1)).to(dtype)
    query[:, 2] = torch.nan
    got, expected = compared(layer, step, query, PLAIN)
    others = [0, 1, 3, 4, 5]
    assert got[2].isnan().all()
    assert (got[others] - expected[others]).abs().max() < BOUNDS[dtype]


@pytest.mark.parametrize("is_parallel", [False, True])
def test_what_the_work_is_split_into_changes_nothing(is_parallel):
    """One, two or more workers than there is work: the same bits, and nearly those of torch; on one thread or several."""
    layer, step = layer_of(LayerShape(2, 8, 6), 4, torch.float32)
    decodes = step.decodes()
    query = torch.randn(len(LENGTHS), 4, 8, generator=torch.Generator().manual_seed(1))
    use_threads(2 if is_parallel else 1)
    kernel = kernel_form(2, 8, 6, is_half=False, is_parallel=is_parallel).define().compiled()
    outs = []
    for workers in (1, 2, 50):
        out = torch.empty(len(LENGTHS), 4, 6)
        kernel(
            query.numpy(),
            layer.keys.flatten(1, 2).numpy(),
            layer.values.flatten(1, 2).numpy(),
            decodes.blocks,
            decodes.starts,
            4,
            decodes.lengths,
            0.3,
            0,
            0.0,
            np.empty(0, dtype=np.float32),
            out.numpy(),
            workers,
        )
        outs.append(out)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])
    expected = torch.cat([decode_plainly(layer.keys, layer.values, bucket, query.transpose(0, 1), PLAIN) for bucket in step.buckets])
    assert (outs[0] - expected).abs().max() < BOUNDS[torch.float32]


def test_other_caches_are_left_to_torch():
    """The kernel knows float32 and bfloat16 in main memory."""
    cache = torch.empty(2, 1, 4, 8)
    assert kernels_for(cache, cache, 4) is not None
    assert kernels_for(cache.bfloat16(), cache.bfloat16(), 4) is not None
    assert kernels_for(cache.half(), cache.half(), 4) is None
    assert kernels_for(cache.to("meta"), cache.to("meta"), 4) is None


@pytest.mark.parametrize(
    ("heads", "shape", "dtype", "module"),
    [
        (6, (2, 1, 16, 64), torch.bfloat16, decode_amx),
        (6, (2, 1, 32, 128), torch.bfloat16, decode_amx),
        (6, (2, 1, 16, 64), torch.float32, decode_kernel),
        (6, (2, 1, 8, 64), torch.bfloat16, decode_kernel),
        (6, (2, 1, 16, 48), torch.bfloat16, decode_kernel),
        (34, (2, 1, 16, 64), torch.bfloat16, decode_kernel),
    ],
    ids=str,
)
def test_tiles_are_multiplied_where_a_cache_has_whole_ones(monkeypatch, heads, shape, dtype, module):
    """Of bfloat16, in blocks of 16 tokens or a multiple, and no more query heads to one of keys than a tile has rows."""
    cache = torch.empty(shape, dtype=dtype)
    monkeypatch.setattr("pipeline.engine.attention.decoding.has_tiles", lambda: True)
    assert {form.module for form in kernels_for(cache, cache, heads)._forms} == {module.__name__}
    monkeypatch.setattr("pipeline.engine.attention.decoding.has_tiles", lambda: False)
    assert {form.module for form in kernels_for(cache, cache, heads)._forms} == {decode_kernel.__name__}
