"""What is put in place of attention with rotary positions, and what turns its heads in another way."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipeline.engine.attention.hook import answering
from tests.engine.rewriting import packs_here, rewritten
from tests.engine.tiny_models import tiny_model

__all__ = ["packs_here"]


class Plainly:
    """Attends by torch, and notes in which form."""

    def __init__(self):
        self.forms = []

    def attend(self, module, query, key, value, form):
        self.forms.append(form)
        attended = scaled_dot_product_attention(query, key, value, is_causal=True, scale=form.scaling, enable_gqa=True)
        return attended.transpose(1, 2)


def attended(layer, rows, positions):
    """What a layer makes of rows, and the form in which it attends."""
    plainly = Plainly()
    with answering(plainly):
        return layer(hidden_states=rows, position_embeddings=positions, attention_mask=None)[0], plainly.forms


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 3}),
        ("gemma3_text", {"query_pre_attn_scalar": 5}),
        ("nemotron", {}),
    ],
    ids=["llama", "biases", "qwen2", "norms of heads", "window", "scaling", "in part"],
)
def test_attention_with_rotary_positions_is_replaced_by_what_computes_the_same(kind, options):
    """At positions that it was not chosen by; the hook is asked for the same form of attention."""
    layer = tiny_model(kind, **options).model.layers[0].self_attn
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    rows = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(5))
    positions = torch.randn(2, 1, 9, 4 if kind == "nemotron" else 8, generator=torch.Generator().manual_seed(6)).unbind()
    with torch.inference_mode():
        expected, forms = attended(layer, rows, positions)
        substitute, counts = rewritten(layer)
        assert counts == {"RotaryAttention": 1}
        got, found = attended(substitute, rows, positions)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert found == forms
    assert not list(substitute.parameters()), "the original's weights are let go"


def test_attention_that_turns_its_heads_in_another_way_stays(packs_here):
    """In part by its own account, in pairs, or with a factor on the outcome: its linear layers alone are packed."""
    scaled = tiny_model("llama").model.layers[0].self_attn
    forward = type(scaled).forward
    scaled.__class__ = type("Scaled", (type(scaled),), {"forward": lambda self, *args, **more: (1.001 * forward(self, *args, **more)[0], None)})
    partial, paired = (tiny_model(kind).model.layers[0].self_attn for kind in ("stablelm", "cohere"))
    for layer in (scaled, partial, paired):
        substitute, counts = rewritten(layer)
        assert substitute is layer
        assert counts == {"TiledLinear" if packs_here == "AVX2" else "PackedLinear": 4}
