"""Walks a model and puts in place of its modules what computes the same, faster."""

from collections import Counter
from collections.abc import Callable, Iterator

import structlog
import torch
from torch import nn

from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.rewrites.gated import gated
from pipeline.engine.rewrites.linear import can_pack, packed
from pipeline.engine.rewrites.norm import norms

log = structlog.get_logger(__name__)

ROWS = 7

OFFERS: tuple[Callable[[nn.Module], Iterator[nn.Module]], ...] = (gated, packed, norms)


def rewrite(network: nn.Module, dtype: torch.dtype, device: torch.device) -> Counter[str]:
    """Rewrites a model in place, where processor and dtype have something to offer. The original's weights are let go one by one.

    Returns:
        How often each kind of module went in.
    """
    counts: Counter[str] = Counter()
    if can_pack(dtype, device):
        with torch.inference_mode():
            _rewrite_children(network, dtype, counts, {})
    return counts


def _rewrite_children(parent: nn.Module, dtype: torch.dtype, counts: Counter[str], seen: dict[int, nn.Module]) -> None:
    names = [name for name, _ in parent.named_children()]
    for name in names:  # one at a time: a list of the children would keep the weights of those that are replaced
        child = getattr(parent, name)
        if id(child) in seen:
            continue
        if substitute := _substitute(child, dtype):
            setattr(parent, name, substitute)
            counts[type(substitute).__name__] += 1
        else:
            seen[id(child)] = child
            _rewrite_children(child, dtype, counts, seen)


def _substitute(module: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """The first of what is offered that agrees with the module."""
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 -- there is no public way to ask
        return None  # somebody else has changed what it does
    for offer in OFFERS:
        for candidate in offer(module):
            if agrees(module, candidate, dtype):
                return candidate
    return None


def agrees(module: nn.Module, candidate: nn.Module, dtype: torch.dtype) -> bool:
    """Tells whether two modules compute the same from random rows of `candidate.width` numbers, small ones and large ones."""
    width: int = candidate.width
    rows = torch.randn(1, ROWS, width, generator=torch.Generator().manual_seed(0))
    rows = (rows * torch.logspace(-3, 1, ROWS)[:, None]).to(dtype)
    expected = module(rows)
    try:
        got = candidate(rows)
    except RuntimeError as error:
        log.debug("a rewrite does not run here", rewrite=type(candidate).__name__, error=str(error).splitlines()[0][:200])
        return False
    return are_close(got, expected)
