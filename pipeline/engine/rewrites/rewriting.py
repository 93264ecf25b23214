"""Walks a model and puts in place of its modules what computes the same, faster."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from pipeline.engine.rewrites import encoder
from pipeline.engine.rewrites.decoder import decoder_layers
from pipeline.engine.rewrites.gated import gated
from pipeline.engine.rewrites.linear import can_pack, can_pack_for_many_rows, packed_linears, tiled_linears
from pipeline.engine.rewrites.norm import norms
from pipeline.engine.rewrites.rewrite import Rewrite, agrees
from pipeline.engine.rewrites.rotary import rotary
from pipeline.engine.rewrites.shared import share

Offers = Sequence[Callable[[nn.Module], Iterator[Rewrite]]]

OFFERS: Offers = (rotary, gated, tiled_linears, packed_linears, norms)
"""For models that generate."""
WHOLES: Offers = (decoder_layers,)
"""Likewise, for modules whose parts have been rewritten."""


def rewrite(network: nn.Module, dtype: torch.dtype, device: torch.device) -> Counter[str]:
    """Rewrites a model that generates in place, where processor and dtype have something to offer. The original's weights are let go one by one.

    Returns:
        How often each kind of module went in.
    """
    counts: Counter[str] = Counter()
    if can_pack(dtype, device):
        with torch.inference_mode():
            _rewrite_children(network, dtype, (OFFERS, WHOLES), counts, {})
    return counts


def rewrite_encoder(network: nn.Module, dtype: torch.dtype, device: torch.device) -> Counter[str]:
    """Rewrites a model that reads in place, likewise."""
    counts: Counter[str] = Counter()
    is_packed = can_pack_for_many_rows(dtype, device)
    if is_packed or (device.type == "cpu" and dtype is torch.float32):
        with torch.inference_mode():
            counts["SharedLinear"] = share(network, dtype)
            _rewrite_children(network, dtype, ((*encoder.OFFERS, packed_linears) if is_packed else encoder.OFFERS, ()), counts, {})
    return +counts


def _rewrite_children(parent: nn.Module, dtype: torch.dtype, offers: tuple[Offers, Offers], counts: Counter[str], seen: dict[int, nn.Module]) -> None:
    """With what is offered for modules as they come, and for those whose parts have been rewritten."""
    parts, wholes = offers
    names = [name for name, _ in parent.named_children()]
    for name in names:  # one at a time: a list of the children would keep the weights of those that are replaced
        child = getattr(parent, name)
        if id(child) in seen:
            continue
        if (substitute := _substitute(child, dtype, parts)) is None:
            seen[id(child)] = child
            _rewrite_children(child, dtype, offers, counts, seen)
            substitute = _substitute(child, dtype, wholes)
        if substitute is not None:
            setattr(parent, name, substitute)
            counts[type(substitute).__name__] += 1


def _substitute(module: nn.Module, dtype: torch.dtype, offers: Offers) -> Rewrite | None:
    """The first of what is offered that agrees with the module."""
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 -- there is no public way to ask
        return None  # somebody else has changed what it does
    for offer in offers:
        for candidate in offer(module):
            if agrees(module, candidate, dtype):
                return candidate
    return None
