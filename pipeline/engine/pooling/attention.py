"""Attention over a packed row in which every text looks at itself alone.

Registered under `NAME` with transformers, which makes no mask for a name that it does not know masks for. Where every token looks
at the whole text, a kernel computes all texts at once. Else texts of equal length, which lie side by side, are computed together;
nothing is padded, and no mask is made but for sliding windows.
"""

from collections.abc import Generator
from contextlib import contextmanager
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from pipeline.engine.pooling import ragged
from pipeline.engine.pooling.batching import Run

NAME = "penstock_packed"

_thread = local()


class UnsupportedAttention(Exception):
    """A model asks attention for something that a packed row does not have."""


@contextmanager
def laid_out(row: tuple[Run, ...]) -> Generator[None]:
    """Tells this thread's attention how the row is laid out."""
    _thread.row, _thread.starts, _thread.longest = row, ragged.starts_of(row), max(run.tokens for run in row)
    try:
        yield
    finally:
        del _thread.row, _thread.starts, _thread.longest


def _visible(tokens: int, window: int, *, is_causal: bool, device: torch.device) -> Tensor | None:
    """True where a token may look, [tokens, tokens]; None where torch's own rule says it."""
    if not window or window >= tokens:
        return None
    places = torch.arange(tokens, device=device)
    distance = places[:, None] - places
    return (distance.abs() < window) & (distance >= 0) if is_causal else distance.abs() < window


def _forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> tuple[Tensor, None]:
    if attention_mask is not None:
        raise UnsupportedAttention("it makes an attention mask of its own")
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise UnsupportedAttention(f"it passes {name!r} to attention")
    asked = kwargs.get("is_causal")
    is_causal = bool(getattr(module, "is_causal", False) if asked is None else asked)
    window = kwargs.get("sliding_window") or 0
    heads, width, asked_scaling = query.shape[1], value.shape[-1], kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if asked_scaling is None else asked_scaling
    sees_all = not is_causal and (not window or window >= _thread.longest)
    if sees_all and scaling > 0 and (kernel := ragged.find_kernel(query, value)) is not None:
        return ragged.attend(kernel, query, key, value, _thread.starts, scaling).unsqueeze(0), None
    output = query.new_empty(query.shape[2], heads, width)
    for run in _thread.row:
        visible = _visible(run.tokens, window, is_causal=is_causal, device=query.device)
        attended = scaled_dot_product_attention(
            _texts(query, run),
            _texts(key, run),
            _texts(value, run),
            attn_mask=visible,
            is_causal=is_causal and visible is None,
            scale=scaling,
            enable_gqa=key.shape[1] != heads,
        )
        output[run.start : run.end] = attended.transpose(1, 2).reshape(-1, heads, width)
    return output.unsqueeze(0), None


def _texts(packed: Tensor, run: Run) -> Tensor:
    """[1, heads, T, width] -> [texts, heads, tokens, width], without a copy."""
    return packed[0, :, run.start : run.end].unflatten(1, (run.texts, run.tokens)).transpose(0, 1)


AttentionInterface.register(NAME, _forward)
