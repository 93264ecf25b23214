"""Activations of gated perceptrons: in the product's own epilogue, or in one compiled pass over what two plain products made.

oneDNN computes `swish` and `gelu` on AVX2 so slowly that a product with one of them takes up to a sixth longer than without; the
pass takes a third of that. It knows the family `x * sigmoid(slope * (x + cubic * x^3))`: swish, and gelu by tanh.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numba import prange
from torch import Tensor

from pipeline.engine.attention.arithmetic import exp
from pipeline.engine.compilation import Kernel, kernel, workers
from pipeline.engine.rewrites.linear import Packed


class Activation(Protocol):
    """Computes `activation(gate(rows)) * up(rows)`."""

    def __call__(self, gate: Packed, up: Packed, rows: Tensor) -> Tensor:
        """Rows in, [1, T, hidden width] out."""
        ...


class Epilogue(NamedTuple):
    """Inside the products, by oneDNN's names."""

    name: str
    how: str = ""

    def __call__(self, gate: Packed, up: Packed, rows: Tensor) -> Tensor:
        """See `Activation`."""
        return up.times(rows, gate(rows, self.name, self.how))


class Sigmoid(NamedTuple):
    """After the products, for float32."""

    slope: float = 1.0
    cubic: float = 0.0

    def __call__(self, gate: Packed, up: Packed, rows: Tensor) -> Tensor:
        """See `Activation`."""
        gated = gate(rows)
        gating_kernel()(gated.view(-1).numpy(), up(rows).view(-1).numpy(), np.float32(self.slope), np.float32(self.cubic), workers())
        return gated


GELU_SLOPE = 2 * (2 / np.pi) ** 0.5
EPILOGUES = (Epilogue("swish"), Epilogue("gelu", "tanh"), Epilogue("gelu", "none"))


def activations(dtype: torch.dtype) -> Iterator[Activation]:
    """What there is, the faster ones first. Which one a model means, comparing tells."""
    if dtype is torch.float32:
        yield Sigmoid()
        yield Sigmoid(GELU_SLOPE, 0.044715)
    yield from EPILOGUES


@cache
def gating_kernel() -> Kernel:
    """Its arguments: gate and up, float32 and flat, of which the first is overwritten; slope; cubic; how many ways to split the work."""

    def gating(gate: Any, up: Any, slope: Any, cubic: Any, workers: int) -> None:
        share = (gate.size + workers - 1) // workers
        for worker in prange(workers):
            own, other = gate[worker * share : (worker + 1) * share], up[worker * share : (worker + 1) * share]
            for i in range(own.size):
                x = own[i]
                z = slope * (x + cubic * x * x * x)
                small = exp(-abs(z))
                own[i] = x * (np.float32(1) if z >= 0 else small) / (np.float32(1) + small) * other[i]

    return kernel(gating)
