"""What is put in place of an encoder's layers, and what only looks like them."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from pipeline.engine.rewrites import rewriting
from pipeline.engine.rewrites.encoder import GeluLinear, NormedLinear
from pipeline.engine.rewrites.linear import TiledLinear
from pipeline.engine.rewrites.rewriting import rewrite_encoder
from tests.engine.rewriting import CPU, ROWS, packs_here

__all__ = ["packs_here"]


class Bent(nn.Module):
    """What widens rows in BERT."""

    def __init__(self, activation):
        super().__init__()
        self.dense, self.act = nn.Linear(16, 24), activation

    def forward(self, hidden_states):
        return self.act(self.dense(hidden_states))


class Normed(nn.Module):
    """What closes each half of a layer in BERT."""

    def __init__(self, share=1.0):
        super().__init__()
        self.dense, self.LayerNorm, self.share = nn.Linear(16, 24), nn.LayerNorm(24, eps=1e-3), share
        with torch.no_grad():
            self.LayerNorm.weight.uniform_(0.5, 1.5)
            self.LayerNorm.bias.normal_()

    def forward(self, hidden_states, input_tensor):
        return self.LayerNorm(self.dense(hidden_states) + self.share * input_tensor)


def rewritten_encoder(module):
    """An encoder's only layer, rewritten, and the counts."""
    parent = nn.Sequential(module.requires_grad_(requires_grad=False))
    counts = rewrite_encoder(parent, torch.float32, CPU)
    return parent[0], dict(counts)


@pytest.mark.parametrize(("module", "more", "kind"), [(Bent(nn.GELU()), 0, GeluLinear), (Normed(), 1, NormedLinear)], ids=["gelu", "norm"])
def test_a_layer_of_an_encoder_is_replaced_by_what_computes_the_same(module, more, kind):
    """On rows that it was not chosen by, of texts side by side or one below the other."""
    for shape in ((1, 5), (3, 2)):
        rows, residual = (torch.randn(*shape, width, generator=torch.Generator().manual_seed(width)) for width in (16, 24))
        asked = [rows, residual][: 1 + more]
        with torch.inference_mode():
            expected = module(*asked)
            substitute, counts = rewritten_encoder(module)
            assert type(substitute) is kind
            assert counts == {kind.__name__: 1}
            torch.testing.assert_close(substitute(*asked), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("module", "more", "kind"), [(Bent(nn.GELU()), 0, GeluLinear), (Normed(), 1, NormedLinear)], ids=["gelu", "norm"])
def test_a_layer_in_bfloat16_is_replaced_where_the_processor_multiplies_it(monkeypatch, module, more, kind):
    """With packed weights, or torch's product where there are none; bias, residual and norm are computed in float32 and rounded once."""
    monkeypatch.setattr(rewriting, "can_pack_for_many_rows", lambda *_: True)
    asked = [torch.randn(1, 5, width, generator=torch.Generator().manual_seed(width)).bfloat16() for width in (16, 24)][: 1 + more]
    parent = nn.Sequential(deepcopy(module).to(torch.bfloat16).requires_grad_(requires_grad=False))
    with torch.inference_mode():
        expected = parent[0](*asked)
        assert rewrite_encoder(parent, torch.bfloat16, CPU) == {kind.__name__: 1}
        torch.testing.assert_close(parent[0](*asked), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("module", [Bent(nn.ReLU()), Bent(nn.GELU(approximate="tanh")), Normed(share=0.999), nn.Linear(16, 20)], ids=str)
def test_a_layer_that_looks_like_an_encoders_and_computes_something_else_stays(module):
    """Another activation, a residual less a thousandth, and a linear layer whose columns fill no tile. None is packed: encoders have many rows."""
    assert rewritten_encoder(module) == (module, {})


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("capability", "kind"), [("AVX2", TiledLinear), ("AVX512", nn.Linear), ("DEFAULT", nn.Linear)])
def test_a_linear_layer_is_replaced_where_there_is_a_kernel_for_it(monkeypatch, capability, kind, has_bias):
    """And still shows its weight and its bias to a model that asks."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    module = nn.Linear(16, 32, bias=has_bias)
    with torch.inference_mode():
        expected = module(ROWS)
        substitute, counts = rewritten_encoder(module)
        assert type(substitute) is kind
        assert counts == ({"TiledLinear": 1} if kind is TiledLinear else {})
        torch.testing.assert_close(substitute(ROWS), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(substitute.weight, module.weight, rtol=0, atol=0)
        assert (substitute.bias is None) == (not has_bias)
        assert (substitute.in_features, substitute.out_features) == (16, 32)


class Attending(nn.Module):
    """What reads rows three times in BERT."""

    def __init__(self, key_width=16):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 24), nn.Linear(key_width, 24), nn.Linear(key_width, 8)

    def forward(self, rows, others=None):
        return self.query(rows), self.key(rows if others is None else others), self.value(rows)


def test_queries_keys_and_values_share_a_product():
    """Of the same rows; asked with others, or again after a failure, each layer answers for what it was asked with."""
    module = Attending().requires_grad_(requires_grad=False)
    others = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        asked = [(ROWS,), (ROWS, others), (others, ROWS)]
        expected = [module(*rows) for rows in asked]
        substitute, counts = rewritten_encoder(module)
        assert counts == {"SharedLinear": 1}
        substitute.query(others)  # and then something fails
        for rows, answers in zip(asked, expected, strict=True):
            for got, answer in zip(substitute(*rows), answers, strict=True):
                torch.testing.assert_close(got, answer, rtol=1e-5, atol=1e-5)


def test_layers_that_read_rows_of_different_widths_share_nothing():
    """As where queries read a text and keys another model's."""
    module = Attending(key_width=12)
    assert rewritten_encoder(module) == (module, {})


def test_an_encoder_of_another_dtype_stays():
    """The passes know float32."""
    parent = nn.Sequential(Bent(nn.GELU()).to(torch.bfloat16))
    assert not rewrite_encoder(parent, torch.bfloat16, CPU)
