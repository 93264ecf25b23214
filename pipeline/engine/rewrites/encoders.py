"""Rewrites for models that read whole texts: linear layers by the project's own product, with what follows them in the same kernel.

No architecture is known here. A module is rewritten if it has the form, and if on random input it computes what it computed before.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import structlog
import torch
from torch import Tensor, nn

from pipeline.engine.compilation import workers
from pipeline.engine.rewrites.product import product_kernel
from pipeline.engine.rewrites.tile import COLUMNS, can_tile, panels

log = structlog.get_logger(__name__)

TRIED_ROWS = 7
BOUND = 1e-5
"""Largest distance of a row of a rewrite's output from the original's, relative to its length."""

NO_ROWS = np.empty((0, 0), dtype=np.float32)
NO_NUMBERS = np.empty(0, dtype=np.float32)


class Dense(nn.Module):  # type: ignore[misc]
    """In place of a linear layer; with `is_activated` also of the exact GELU behind it, with a norm of residual and norm."""

    def __init__(self, linear: nn.Linear, *, is_activated: bool = False, norm: nn.LayerNorm | None = None):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._panels = panels(linear.weight.detach().numpy())
        self._bias = np.zeros(len(self._panels) * COLUMNS, dtype=np.float32)
        if linear.bias is not None:
            self._bias[: self.out_features] = linear.bias.detach().numpy()
        self._gain = NO_NUMBERS if norm is None else norm.weight.detach().numpy()
        self._shift = NO_NUMBERS if norm is None else norm.bias.detach().numpy()
        self._epsilon = 0.0 if norm is None else norm.eps
        self._kernel = product_kernel(is_activated=is_activated, is_normed=norm is not None)

    @property
    def weight(self) -> Tensor:
        """Shape of the original, for models that ask. NaN, so that whoever computes with it is found out by the proof at load."""
        return torch.full((1, 1), torch.nan).expand(self.out_features, self.in_features)

    def forward(self, rows: Tensor, residual: Tensor | None = None) -> Tensor:
        """Rows in, rows out; `residual` is added before the norm."""
        out = rows.new_empty(*rows.shape[:-1], self.out_features)
        added = NO_ROWS if residual is None else residual.reshape(-1, self.out_features).contiguous().numpy()
        inputs = rows.reshape(-1, self.in_features).contiguous().numpy()
        results = out.view(-1, self.out_features).numpy()
        self._kernel(inputs, self._panels, self._bias, added, self._gain, self._shift, self._epsilon, results, workers())
        return out


@dataclass(slots=True)
class Rewritten:
    """What went in where, and how to take it out again."""

    counts: Counter[str] = field(default_factory=Counter)
    originals: list[tuple[nn.Module, str, nn.Module]] = field(default_factory=list)

    def undo(self) -> None:
        """Puts the original modules back."""
        for parent, name, module in self.originals:
            setattr(parent, name, module)
        self.originals.clear()


def rewrite_encoder(network: nn.Module, dtype: torch.dtype, device: torch.device) -> Rewritten:
    """Rewrites a model in place, where processor and dtype have something to gain by it."""
    done = Rewritten()
    if can_tile(dtype, device):
        with torch.inference_mode():
            _rewrite_children(network, done)
    return done


def _rewrite_children(parent: nn.Module, done: Rewritten) -> None:
    for name, child in list(parent.named_children()):
        if found := _substitute(child):
            kind, substitute = found
            setattr(parent, name, substitute)
            done.originals.append((parent, name, child))
            done.counts[kind] += 1
        else:
            _rewrite_children(child, done)


def _substitute(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The first of what is offered that agrees with the module, and what it is called."""
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 -- there is no public way to ask
        return None  # somebody else has changed what it does
    for kind, make, inputs in _offers(module):
        try:
            expected = module(*inputs)
        except Exception as error:  # noqa: BLE001 -- a module that has the form and takes other inputs may fail in any way
            log.debug("a module does not take what its form lets expect", module=type(module).__name__, error=type(error).__name__)
            continue
        candidate = make()
        if _agrees(expected, candidate(*inputs)):
            return kind, candidate
    return None


def _offers(module: nn.Module) -> Iterator[tuple[str, Callable[[], Dense], tuple[Tensor, ...]]]:
    """Names what may stand in for the module, how it is made, and inputs on which both are tried."""
    if type(module) is nn.Linear:  # not for a subclass, whose forward may do more
        yield "linear", partial(Dense, module), (_random(module.in_features),)
        return
    linears = [child for child in module.children() if type(child) is nn.Linear]
    norms = [child for child in module.children() if type(child) is nn.LayerNorm and child.bias is not None]
    own = {id(parameter) for child in linears + norms for parameter in child.parameters()}
    if len(linears) != 1 or len(norms) > 1 or any(id(parameter) not in own for parameter in module.parameters()):
        return
    (linear,) = linears
    if not norms:
        yield "linear and GELU", partial(Dense, linear, is_activated=True), (_random(linear.in_features),)
    elif norms[0].normalized_shape == (linear.out_features,):
        inputs = (_random(linear.in_features), _random(linear.out_features))
        yield "linear, residual and norm", partial(Dense, linear, norm=norms[0]), inputs


def _random(width: int) -> Tensor:
    """Rows of numbers, small ones and large ones."""
    rows = torch.randn(1, TRIED_ROWS, width, generator=torch.Generator().manual_seed(width))
    return rows * torch.logspace(-3, 1, TRIED_ROWS)[:, None]


def _agrees(expected: object, got: Tensor) -> bool:
    if not isinstance(expected, Tensor) or expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    return bool(((got - expected).norm(dim=-1) <= BOUND * expected.norm(dim=-1)).all())
