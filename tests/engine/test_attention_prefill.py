"""Chunks of prefill by the processor's matrix unit against torch's operations in float32."""

import pytest
import torch

from pipeline.engine.attention import prefill_amx
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.plain import prefill_plainly
from pipeline.engine.attention.prefilling import is_right, kernels_for, prefill
from pipeline.engine.attention.step import AttentionStep, PrefillChunk
from pipeline.engine.vectors import has_tiles

CHUNKS = ((70, 70), (1, 1), (33, 97), (16, 17), (5, 64), (1, 40))
"""Tokens, and those of the context: some open their sequence, and some go on."""
ROWS = sum(tokens for tokens, _ in CHUNKS)
PLAIN = Form(0.3, 0, 0.0, None)
BOUND = 2e-2

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="this processor has no matrix unit for bfloat16")


@pytest.fixture(scope="module", params=[False, True], ids=["one thread", "several"])
def kernel(request):
    """Compiled."""
    return prefill_amx.form(is_parallel=request.param).define().compiled()


def numbers(*shape, seed=0):
    """Random ones."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def step_of(block_tokens):
    """A step of `CHUNKS` whose blocks are scattered over a cache, and how many blocks that has."""
    held = [-(-context // block_tokens) for _, context in CHUNKS]
    free = torch.randperm(sum(held) + 1, generator=torch.Generator().manual_seed(0))
    chunks, place = [], 0
    for (tokens, context), blocks in zip(CHUNKS, free[:-1].split(held), strict=True):
        chunks.append(PrefillChunk(place, tokens, context, blocks))
        place += tokens
    return AttentionStep(torch.empty(0, dtype=torch.int64), (), tuple(chunks)), sum(held) + 1


def of_torch(keys, values, step, query, form):
    """What torch makes of it in float32."""
    rows = []
    for chunk in step.chunks:
        context = [cache[:, chunk.blocks].flatten(1, 2)[None, :, : chunk.context_tokens].float() for cache in (keys, values)]
        rows.append(prefill_plainly(*context, chunk, query[None].float(), form))
    return torch.cat(rows)


def test_the_chunks_of_a_step_are_one():
    """Where they lie, how long they are, and which blocks are whose."""
    step, _ = step_of(16)
    together = step.prefills()
    assert together is step.prefills(), "made once"
    assert list(zip(together.tokens.tolist(), together.contexts.lengths.tolist(), strict=True)) == list(CHUNKS)
    assert together.places.tolist() == [chunk.start for chunk in step.chunks]
    ends = [*together.contexts.starts.tolist()[1:], together.contexts.blocks.size]
    for chunk, first, end in zip(step.chunks, together.contexts.starts, ends, strict=True):
        assert together.contexts.blocks[first:end].tolist() == chunk.blocks.tolist()


@needs_tiles
@pytest.mark.parametrize(("heads", "widths", "block_tokens"), [(4, (64, 64), 16), (2, (32, 96), 5), (6, (128, 64), 32)])
@pytest.mark.parametrize(
    "form",
    [PLAIN, Form(0.3, 5, 0.0, None), Form(0.3, 0, 2.0, None), Form(0.3, 37, 1.5, torch.linspace(-1, 2, 6))],
    ids=["plain", "window", "softcap", "all"],
)
def test_it_computes_what_torch_computes(kernel, heads, widths, block_tokens, form):
    """Whatever the group, the window, the softcap and the sinks, over any blocks, from a row in which heads lie side by side."""
    form = form._replace(sinks=None if form.sinks is None else form.sinks[:heads])
    step, blocks = step_of(block_tokens)
    keys, values = (numbers(2, blocks, block_tokens, width, seed=seed) for seed, width in enumerate(widths))
    query = numbers(ROWS, heads + 3, widths[0], seed=2).transpose(0, 1)[:heads]
    got = torch.full((ROWS + 2, heads, widths[1]), torch.inf).bfloat16()
    prefill(kernel, keys, values, step.prefills(), query, form, got)
    assert got[ROWS:].isinf().all(), "only the chunks' places are written"
    assert (got[:ROWS].float() - of_torch(keys, values, step, query, form)).abs().max() < BOUND


@needs_tiles
def test_a_chunk_that_is_not_a_number_harms_nobody(kernel):
    """It stays one, so that the engine can tell; its neighbours are what they were, and what lies behind a sequence is not looked at."""
    step, blocks = step_of(16)
    keys, values, query = numbers(2, blocks, 16, 64), numbers(2, blocks, 16, 64, seed=1), numbers(4, ROWS, 64, seed=2)
    got, poisoned = (torch.empty(ROWS, 4, 64).bfloat16() for _ in range(2))
    prefill(kernel, keys, values, step.prefills(), query, PLAIN, got)
    chunk = step.chunks[2]
    query[:, chunk.start : chunk.start + chunk.tokens] = torch.nan
    for cache in (keys, values):
        cache[:, chunk.blocks] = torch.nan
        for other in step.chunks:
            cache[:, other.blocks[-1], other.context_tokens % 16 or 16 :] = torch.nan
    prefill(kernel, keys, values, step.prefills(), query, PLAIN, poisoned)
    own = slice(chunk.start, chunk.start + chunk.tokens)
    assert poisoned[own].isnan().all()
    poisoned[own] = got[own]
    assert torch.equal(poisoned, got)


@needs_tiles
def test_far_apart_scores_neither_overflow_nor_lose_the_best(kernel):
    """Scores of thousands: the best takes all."""
    step, blocks = step_of(16)
    keys, values, query = numbers(2, blocks, 16, 64) * 30, numbers(2, blocks, 16, 64, seed=1), numbers(4, ROWS, 64, seed=2) * 30
    got = torch.empty(ROWS, 4, 64).bfloat16()
    prefill(kernel, keys, values, step.prefills(), query, PLAIN, got)
    assert (got.float() - of_torch(keys, values, step, query, PLAIN)).abs().max() < BOUND


@needs_tiles
def test_a_wrong_kernel_does_not_pass(kernel):
    """One that writes nothing, one that looks too far, and one that mixes up whose blocks are whose."""
    assert is_right(kernel)
    assert not is_right(lambda *_: None)
    assert not is_right(lambda *given: kernel(*given[:8], 0, *given[9:]))
    assert not is_right(lambda *given: kernel(*given[:4], given[4][::-1].copy(), *given[5:]))


def test_other_caches_are_left_to_torch(monkeypatch):
    """The kernel knows bfloat16 in whole panels, where the processor multiplies tiles of it."""
    cache = torch.empty(2, 1, 4, 64).bfloat16()
    monkeypatch.setattr("pipeline.engine.attention.prefilling.has_tiles", lambda: True)
    assert kernels_for(cache, cache) is not None
    assert kernels_for(cache.float(), cache.float()) is None
    assert kernels_for(cache, cache[..., :48]) is None
    assert kernels_for(cache.to("meta"), cache.to("meta")) is None
    monkeypatch.setattr("pipeline.engine.attention.prefilling.has_tiles", lambda: False)
    assert kernels_for(cache, cache) is None
