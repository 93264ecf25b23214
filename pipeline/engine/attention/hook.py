"""The function that transformers' models call in place of their own attention.

It is registered once under `NAME`. transformers makes no mask for a name that it does not know masks for, so a packed row
of many sequences passes through a model with `position_ids` alone, and each layer's call arrives here. Who answers is set
around the forward pass by `answering`, per thread: one process may serve several models.
"""

from collections.abc import Generator
from contextlib import contextmanager
from threading import local
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "penstock_paged"

IGNORED = frozenset(
    {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "cache_position"}
)
"""Arguments that say nothing about the arithmetic of attention."""


class UnsupportedAttention(Exception):
    """A model asks attention for something that is not served here."""


class Form(NamedTuple):
    """How a layer turns products of queries and keys into weights.

    Attributes:
        scaling: Factor on the scores.
        window: A token looks at this many, itself included; 0: at all before it.
        softcap: Scores are squashed to ± this by tanh; 0: not.
        sinks: Per head a score that takes part in the softmax and has no value, [heads], or None.
    """

    scaling: float
    window: int
    softcap: float
    sinks: Tensor | None

    @property
    def is_plain(self) -> bool:
        """Tells whether this is what torch's own attention computes."""
        return not self.softcap and self.sinks is None


class Attention(Protocol):
    """Whoever computes attention for a model."""

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """Computes one layer over a packed row.

        Args:
            module: The layer's attention module, its identity within the model.
            query: [1, heads, T, key width].
            key: [1, KV heads, T, key width].
            value: [1, KV heads, T, value width].
            form: What happens to the scores.

        Returns:
            [1, T, heads, value width].
        """
        ...


_thread = local()


@contextmanager
def answering(attention: Attention) -> Generator[None]:
    """Lets `attention` answer the calls of this thread's models."""
    _thread.attention = attention
    try:
        yield
    finally:
        del _thread.attention


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
    """Has whoever answers this thread compute one layer; see `Attention`."""
    attention: Attention = _thread.attention
    return attention.attend(module, query, key, value, form)


def _forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> tuple[Tensor, None]:
    scaling = kwargs.pop("scaling", None)
    form = Form(
        scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        window=kwargs.pop("sliding_window", None) or 0,
        softcap=kwargs.pop("softcap", None) or 0.0,
        sinks=kwargs.pop("s_aux", None),
    )
    if attention_mask is not None:
        raise UnsupportedAttention("it makes an attention mask of its own")
    if kwargs.pop("dropout", 0.0):
        raise UnsupportedAttention("it drops out attention weights")
    if kwargs.pop("is_causal", None) is False:
        raise UnsupportedAttention("its attention is not causal")
    for name in kwargs.keys() - IGNORED:
        if kwargs[name] is not None:
            raise UnsupportedAttention(f"it passes {name!r} to attention")
    return attend(module, query, key, value, form), None


AttentionInterface.register(NAME, _forward)
