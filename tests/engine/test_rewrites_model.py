"""Whole models, rewritten."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pipeline.engine.rewrites.rewriting import rewrite
from tests.engine.rewriting import CPU, packs_here
from tests.engine.tiny_models import tiny_model

__all__ = ["packs_here"]


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_holds_its_weights_once(packs_here, tied):
    """The originals of what is packed are let go, except for an embedding that shares its numbers with the head."""
    model = tiny_model("llama", tie_word_embeddings=tied)
    assert isinstance(model, nn.Module)
    embedding = model.get_input_embeddings().weight
    head_numbers = model.get_output_embeddings().weight.clone()
    counts = rewrite(model, torch.float32, CPU)
    is_tiled = packs_here == "AVX2"
    head = "TiledLinear" if is_tiled else "PackedLinear"
    assert counts == {"RotaryAttention": 2, "GatedMlp": 2, "DecoderLayer": 2, head: 1, "RmsNorm": 2 * 2 + 1}
    left = list(model.parameters())
    assert {parameter.dim() for parameter in left if parameter is not embedding} == {1}
    shown = model.get_output_embeddings().weight
    assert shown.shape == embedding.shape
    if is_tiled:
        assert torch.equal(shown, head_numbers), "what was let go can be had again"
    else:
        assert shown.isnan().all(), "whoever computes with it is found out"


def test_a_rewritten_model_computes_what_it_did():
    """All kinds together, through transformers' own code."""
    model = tiny_model("qwen3")
    model.set_attn_implementation("eager")
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        rewrite(model, torch.float32, CPU)
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(model, AutoModelForCausalLM._model_mapping[type(model.config)])
