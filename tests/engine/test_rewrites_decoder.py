"""Whole layers of models that generate, rewritten."""

import pytest
import torch

from pipeline.engine.attention.hook import answering
from pipeline.engine.rewrites.decoder import DecoderLayer
from pipeline.engine.rewrites.rewriting import rewrite
from pipeline.engine.rewrites.rotary import _Observer
from tests.engine.rewriting import CPU, packs_here
from tests.engine.tiny_models import MIXTURE, tiny_model

__all__ = ["packs_here"]

IDS = torch.arange(12)[None]


def logits(model):
    """What a model makes of a row, attention answered as it is where layers are compared."""
    with torch.inference_mode(), answering(_Observer()):
        return model(input_ids=IDS).logits


def rewritten(model):
    """How many layers of a model were rewritten whole; it computes what it did."""
    expected = logits(model)
    counts = rewrite(model, torch.float32, CPU)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    return counts["DecoderLayer"]


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"sliding_window": 4}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("gemma", {}),
    ],
    ids=str,
)
def test_layers_that_add_twice_are_rewritten(kind, overrides):
    """With biases or without, with norms of heads or windows."""
    assert rewritten(tiny_model(kind, **overrides)) == 2


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("granite", {"residual_multiplier": 0.22}), ("gemma2", {}), ("olmo2", {}), ("qwen3_moe", MIXTURE)],
    ids=str,
)
def test_layers_that_do_more_stay(kind, overrides):
    """What is scaled before it is added, normed after it was computed, or computed by experts, is left to the model."""
    assert rewritten(tiny_model(kind, **overrides)) == 0


def test_a_layer_that_somebody_hooks_stays():
    """Whoever looks at what goes in or comes out is still called."""
    model, seen = tiny_model("llama"), []
    model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    assert rewritten(model) == 1
    assert len(seen) == 2


def test_a_part_that_somebody_hooks_is_still_called():
    """A norm that stayed as it was, within a layer that did not."""
    model, seen = tiny_model("llama"), []
    model.model.layers[0].input_layernorm.register_forward_hook(lambda *_: seen.append(1))
    assert rewritten(model) == 2
    assert len(seen) > 2


def test_what_goes_in_is_not_overwritten():
    """A model may keep it."""
    model = tiny_model("llama")
    rewrite(model, torch.float32, CPU)
    layer = model.model.layers[0]
    assert isinstance(layer, DecoderLayer)
    rows = torch.randn(1, 9, layer.width)
    given = rows.clone()
    with answering(_Observer()):
        got = layer(rows, torch.randn(2, 1, 9, layer.head_dim).unbind())
    assert torch.equal(rows, given)
    assert not torch.equal(got, given)
