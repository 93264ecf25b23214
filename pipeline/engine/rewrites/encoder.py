"""The layers of encoders that follow BERT: what comes after a product is one pass over it.

torch writes the bias into the result before it multiplies, and passes over that again for each operation that follows.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.arrays import array, pair_for
from pipeline.engine.compilation import Kernel
from pipeline.engine.rewrites import gelu, layer_norm
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.rewrites.linear import for_many_rows, tiled_linears
from pipeline.engine.rewrites.rewrite import Rewrite
from pipeline.engine.rewrites.weight import Weight
from pipeline.engine.threads import workers

PROOF_ROWS, PROOF_WIDTH = 9, 37


class GeluLinear(Rewrite):
    """In place of a linear layer and GELU."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.width = linear.in_features
        self._product, self._bias = for_many_rows(Weight(linear.weight)), linear.bias.detach()
        self._kernels = pair_for(self._bias.dtype, gelu.form, gelu_is_right)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Rows in, rows out."""
        kernel = self._kernels.find(is_parallel=workers() > 1)
        return bend(kernel, self._product(hidden_states), self._bias)


def bend(kernel: Kernel | None, rows: Tensor, bias: Tensor) -> Tensor:
    """GELU of rows and a bias, [..., width] and [width]; rows may be overwritten. With torch's operations where there is no kernel."""
    if kernel is None:
        return F.gelu(rows.add_(bias))
    kernel(array(rows.view(-1, rows.shape[-1])), array(bias), workers())
    return rows


def gelu_is_right(kernel: Kernel, *, dtype: torch.dtype) -> bool:
    """Tells whether a kernel computes from random numbers, small ones and large ones, what torch's operations do."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(PROOF_ROWS, PROOF_WIDTH, generator=draw) * torch.logspace(-3, 2, PROOF_ROWS)[:, None]
    bias = torch.randn(PROOF_WIDTH, generator=draw)
    rows, bias = rows.to(dtype), bias.to(dtype)
    return are_close(bend(kernel, rows.clone(), bias), bend(None, rows.clone(), bias))


class Norm(NamedTuple):
    """A layer norm: weight and bias, [width], and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    epsilon: float


class NormedLinear(Rewrite):
    """In place of a linear layer, a residual and a layer norm."""

    def __init__(self, linear: nn.Linear, norm: nn.LayerNorm):
        super().__init__()
        self.width = linear.in_features
        self.out_width = linear.out_features
        self._product, self._bias = for_many_rows(Weight(linear.weight)), linear.bias.detach()
        self._norm = Norm(norm.weight.detach(), norm.bias.detach(), norm.eps)
        self._kernels = pair_for(self._bias.dtype, layer_norm.form, norm_is_right)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Rows and the residual in, by transformers' names, rows out."""
        kernel = self._kernels.find(is_parallel=workers() > 1)
        return close(kernel, self._product(hidden_states), self._bias, input_tensor, self._norm)

    @staticmethod
    def ask(module: nn.Module, rows: Tensor) -> Tensor:
        """Rows, and random numbers as the residual."""
        width = module.out_width if isinstance(module, NormedLinear) else module.dense.out_features
        residual = torch.randn(*rows.shape[:-1], width, generator=torch.Generator().manual_seed(1)).to(rows.dtype)
        answer: Tensor = module(rows, residual)
        return answer


def close(kernel: Kernel | None, rows: Tensor, bias: Tensor, residual: Tensor, norm: Norm) -> Tensor:
    """Norms the sum of rows, a bias and the residual; rows may be overwritten. With torch's operations where there is no kernel."""
    if kernel is None:
        return F.layer_norm(rows.add_(bias).add_(residual), norm.weight.shape, norm.weight, norm.bias, norm.epsilon)
    flat = (rows.view(-1, rows.shape[-1]), residual.reshape(-1, rows.shape[-1]), bias, norm.weight, norm.bias)
    kernel(*map(array, flat), np.float32(norm.epsilon), workers())
    return rows


def norm_is_right(kernel: Kernel, *, dtype: torch.dtype) -> bool:
    """Tells whether a kernel computes from random numbers what torch's operations do."""
    draw = torch.Generator().manual_seed(0)
    rows, residual = torch.randn(2, PROOF_ROWS, PROOF_WIDTH, generator=draw).to(dtype)
    bias, weight, shift = torch.randn(3, PROOF_WIDTH, generator=draw).to(dtype)
    norm = Norm(weight, shift, 1e-3)
    return are_close(close(kernel, rows.clone(), bias, residual, norm), close(None, rows.clone(), bias, residual, norm))


def gelu_linears(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for a module that has a linear layer with a bias and takes rows alone."""
    linear: Any = getattr(module, "dense", None)
    if type(linear) is nn.Linear and linear.bias is not None and _has(module, weights=2, arguments=1):
        yield GeluLinear(linear)


def normed_linears(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for a module that has a linear layer with a bias and a layer norm, and takes rows and a residual."""
    linear: Any = getattr(module, "dense", None)
    norm: Any = getattr(module, "LayerNorm", None)
    if type(linear) is not nn.Linear or type(norm) is not nn.LayerNorm or not _has(module, weights=4, arguments=2):
        return
    if linear.bias is not None and norm.bias is not None and norm.normalized_shape == (linear.out_features,):
        yield NormedLinear(linear, norm)


def _has(module: nn.Module, *, weights: int, arguments: int) -> bool:
    return len(list(module.parameters())) == weights and len(inspect.signature(module.forward).parameters) == arguments


OFFERS: tuple[Callable[[nn.Module], Iterator[Rewrite]], ...] = (gelu_linears, normed_linears, tiled_linears)
"""For encoders."""
