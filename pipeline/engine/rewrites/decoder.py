"""The layers of models that generate: what comes of attention and of the perceptron is added to the row within their last products."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.engine.attention.hook import UnsupportedAttention
from pipeline.engine.rewrites.gated import GatedMlp
from pipeline.engine.rewrites.rewrite import Rewrite
from pipeline.engine.rewrites.rotary import RotaryAttention, observe

ATTENTION, PERCEPTRON = "self_attn", "mlp"
NORMS = ("input_layernorm", "post_attention_layernorm")


class DecoderLayer(Rewrite):
    """In place of a layer that norms, attends, adds, norms, bends and adds, and whose parts have been rewritten; it keeps them."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.self_attn: RotaryAttention = getattr(module, ATTENTION)
        self.mlp: GatedMlp = getattr(module, PERCEPTRON)
        self.input_layernorm, self.post_attention_layernorm = (getattr(module, name) for name in NORMS)
        self.width, self.head_dim = self.self_attn.width, self.self_attn.head_dim
        if (kind := getattr(module, "attention_type", None)) is not None:
            self.attention_type = kind  # by which some models choose a layer's mask

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        """Rows in, rows out, by transformers' names."""
        hidden_states = hidden_states.contiguous()
        rows, _none = self.self_attn(self.input_layernorm(hidden_states), position_embeddings, hidden_states)
        answer: Tensor = self.mlp(self.post_attention_layernorm(rows), rows)
        return answer

    @staticmethod
    def ask(module: nn.Module, rows: Tensor) -> Tensor:
        """As attention is asked."""
        answer: Tensor = observe(module, rows / 10, getattr(module, ATTENTION).head_dim)[0]
        return answer


def decoder_layers(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for what has such parts, and nothing else."""
    parts = dict(module.named_children())
    if parts.keys() != {ATTENTION, PERCEPTRON, *NORMS} or any(True for _ in module.parameters(recurse=False)):
        return
    attention, perceptron = parts[ATTENTION], parts[PERCEPTRON]
    if not isinstance(attention, RotaryAttention) or not isinstance(perceptron, GatedMlp):
        return
    try:
        answer = DecoderLayer.ask(module, torch.zeros(1, 1, attention.width, dtype=attention.dtype))
    except (RuntimeError, TypeError, UnsupportedAttention):  # it is called in a way of its own
        return
    if isinstance(answer, Tensor):
        yield DecoderLayer(module)
