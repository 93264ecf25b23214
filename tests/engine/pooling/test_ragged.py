"""The compiled attention of texts of any lengths against torch's, text by text."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipeline.engine.attention.ragged import form
from pipeline.engine.pooling import attention, ragged
from pipeline.engine.pooling.attention import laid_out
from pipeline.engine.pooling.batching import Run, runs

LENGTHS = (1, 2, 2, 6, 7, 15, 16, 17, 33, 64, 97)
STARTS = np.cumsum([0, *LENGTHS])


@pytest.fixture(scope="module", params=[8, 16], ids="{} lanes".format)
def kernel(request):
    """For one thread; a processor without such vectors takes shorter ones."""
    return form(request.param, is_parallel=False).define().compiled()


def heads_of(count, width, lengths=LENGTHS, seed=0):
    """Random numbers as a model lays them out, [1, heads, T, width]."""
    rows = torch.randn(1, sum(lengths), count, width, generator=torch.Generator().manual_seed(seed))
    return rows.transpose(1, 2)


def by_torch(query, key, value, scaling, lengths=LENGTHS):
    """Each text by itself, [T, heads, width]."""
    texts = zip(*(heads.split(lengths, dim=2) for heads in (query, key, value)), strict=True)
    return torch.cat([scaled_dot_product_attention(*text, scale=scaling, enable_gqa=True)[0].transpose(0, 1) for text in texts])


@pytest.mark.parametrize(("heads", "kv_heads", "key_width", "value_width"), [(3, 3, 32, 32), (4, 2, 16, 64), (2, 1, 64, 32)])
def test_each_text_attends_to_itself_alone(kernel, heads, kv_heads, key_width, value_width):
    """Of one token or of many, with heads that share keys, and with values of another width."""
    query, key, value = heads_of(heads, key_width), heads_of(kv_heads, key_width, seed=1), heads_of(kv_heads, value_width, seed=2)
    got = ragged.attend(kernel, query, key, value, STARTS, 0.3)
    torch.testing.assert_close(got, by_torch(query, key, value, 0.3), rtol=1e-5, atol=1e-5)


def test_scores_far_apart_are_no_overflow(kernel):
    """The highest is taken off before the exponential, so that the one key wins."""
    query, key, value = heads_of(2, 32) * 100, heads_of(2, 32, seed=1), heads_of(2, 32, seed=2)
    torch.testing.assert_close(ragged.attend(kernel, query, key, value, STARTS, 1.0), by_torch(query, key, value, 1.0), rtol=1e-4, atol=1e-4)


def test_a_text_is_the_same_bit_for_bit_whatever_lies_beside_it(kernel):
    """Alone, or among others."""
    together = [heads_of(3, 32, seed=seed) for seed in range(3)]
    got = ragged.attend(kernel, *together, STARTS, 0.2).split(LENGTHS)
    for place, alone in enumerate(zip(*(heads.split(LENGTHS, dim=2) for heads in together), strict=True)):
        assert torch.equal(ragged.attend(kernel, *alone, np.array([0, LENGTHS[place]]), 0.2), got[place])


@pytest.mark.parametrize("which", range(3), ids=["query", "key", "value"])
def test_what_is_not_a_number_stays_in_its_text(kernel, which):
    """And there it is seen: a failure is told by it."""
    heads = [heads_of(2, 32, seed=seed) for seed in range(3)]
    begin, end = STARTS[7:9]
    heads[which][0, 1, end - 1] = torch.nan
    got = ragged.attend(kernel, *heads, STARTS, 0.2)
    assert got[begin:end].isnan().any()
    assert not got[:begin].isnan().any()
    assert not got[end:].isnan().any()


def test_a_kernel_that_computes_something_else_is_found_out():
    """Before it serves."""
    assert not ragged.is_right(lambda *arguments: arguments[-1].fill(0.0))


def test_it_serves_models_whose_tokens_see_the_whole_text(monkeypatch):
    """And leaves those that look back alone, windows and scores that are turned around to torch."""
    served = []
    monkeypatch.setattr(ragged, "find_kernel", lambda *_: "kernel")
    monkeypatch.setattr(ragged, "attend", lambda kernel, query, *_: served.append(kernel) or query[0].transpose(0, 1))
    query = heads_of(2, 32, (5, 5, 9))
    row = runs((5, 5, 9))
    assert row == (Run(0, 2, 5), Run(10, 1, 9))
    for more, is_served in (
        ({}, True),
        ({"sliding_window": 9}, True),
        ({"sliding_window": 8}, False),
        ({"is_causal": True}, False),
        ({"scaling": -0.1}, False),
    ):
        served.clear()
        with laid_out(row):
            attention._forward(torch.nn.Identity(), query, query, query, **more)
        assert served == ["kernel"] * is_served


def test_only_widths_that_fill_vectors_have_a_kernel(monkeypatch):
    """On a processor whose vectors are known, in float32 and bfloat16."""
    monkeypatch.setattr(ragged.KERNELS, "find", lambda form, _: form.arguments[0])
    for capability, lanes in (("AVX2", 8), ("AVX512", 16), ("DEFAULT", None)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert ragged.find_kernel(heads_of(2, 32), heads_of(2, 32)) == lanes
        assert ragged.find_kernel(heads_of(2, 32).bfloat16(), heads_of(2, 32).bfloat16()) == lanes
        assert ragged.find_kernel(heads_of(2, 32).half(), heads_of(2, 32).half()) is None
        assert ragged.find_kernel(heads_of(2, 20), heads_of(2, 32)) is None
        assert ragged.find_kernel(heads_of(2, 32), heads_of(2, 24)) is None
