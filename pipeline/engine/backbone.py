"""What a causal language model computes below its output head, kept so that the head can run over a part of it at a time.

A head's logits for every place of a long prompt may be larger than the weights. The model's own code below and above the backbone
stays in charge: whatever it does to logits (caps, scales, paddings) it does to each part.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.engine.attention.hook import Form, UnsupportedAttention, answering

PROOF_TOKENS = 3
CLOSE = 1e-2
"""Largest distance of logits from those that the head makes in one go, relative to these: the products are the same, in other shapes."""


class Backbone:
    """A part of a model whose output can be noted, and given again in place of computing it."""

    def __init__(self, module: nn.Module):
        self._module = module

    @contextmanager
    def noting(self) -> Generator[list[Any]]:
        """Notes what it computes, call by call."""
        noted: list[Any] = []
        handle = self._module.register_forward_hook(lambda _module, _arguments, output: noted.append(output))
        try:
            yield noted
        finally:
            handle.remove()

    @contextmanager
    def giving(self, output: Any) -> Generator[None]:
        """Gives `output`, whatever it is called with."""
        self._module.forward = lambda *_, **__: output
        try:
            yield
        finally:
            del self._module.forward


class _Zeros:
    """Answers attention with zeros."""

    @staticmethod
    def attend(_module: nn.Module, query: Tensor, _key: Tensor, value: Tensor, _form: Form) -> Tensor:
        """See `hook.Attention`."""
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1])


class _Refusal:
    """Answers no attention: below the backbone's end nobody attends."""

    @staticmethod
    def attend(module: nn.Module, _query: Tensor, _key: Tensor, _value: Tensor, _form: Form) -> Tensor:
        """See `hook.Attention`."""
        raise UnsupportedAttention(f"{type(module).__name__} attends above the backbone")


def find_backbone(model: Any) -> Backbone | None:
    """Takes the first part that the model itself calls, if the model makes the same logits of what that part gives again.

    Args:
        model: A causal language model whose attention goes through the hook.

    Returns:
        None where it does not: such a model scores no prompts.
    """
    places = list(range(PROOF_TOKENS))
    first = _first_called(model, places)
    if first is None:
        return None
    backbone = Backbone(first)
    with answering(_Zeros()), backbone.noting() as noted:
        expected = _logits(model, places)
    if len(noted) != 1:
        return None
    try:
        with answering(_Refusal()), backbone.giving(noted[0]):
            again = torch.stack([_logits(model, [place])[0] for place in places])
    except Exception:  # noqa: BLE001 -- whatever a model does with what it is given, here it only tells that this is not the way
        return None
    return backbone if bool((again - expected).norm() <= CLOSE * expected.norm()) else None


def _first_called(model: Any, places: list[int]) -> nn.Module | None:
    called: list[nn.Module] = []
    handles = [part.register_forward_pre_hook(lambda module, _arguments: called.append(module)) for part in model.modules() if part is not model]
    try:
        with answering(_Zeros()):
            _logits(model, places)
    finally:
        for handle in handles:
            handle.remove()
    return called[0] if called else None


def _logits(model: Any, places: list[int]) -> Tensor:
    """Logits of some places of a short text, [places, vocabulary]."""
    row = torch.arange(PROOF_TOKENS, device=model.device)[None]
    with torch.inference_mode():
        output = model(input_ids=row, position_ids=row, use_cache=False, logits_to_keep=torch.tensor(places, device=model.device))
    logits: Tensor = output.logits[0].float()
    return logits
