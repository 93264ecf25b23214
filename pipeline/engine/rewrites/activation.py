"""Activations of gated perceptrons: inside a product of our own or of oneDNN's, or in one compiled pass over what two plain products made.

oneDNN computes `swish` and `gelu` on AVX2 so slowly that a product with one of them takes up to a sixth longer than without; the
pass takes a third of that. It knows the family `x * sigmoid(slope * (x + cubic * x^3))`: swish, and gelu by tanh.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.amx import SIDE
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.rewrites import gating
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.rewrites.linear import Packed
from pipeline.engine.rewrites.panels_amx import TilePanels, can_lay
from pipeline.engine.threads import is_worth_splitting, workers

Product = Callable[[Tensor], Tensor]
"""With a weight: rows in, rows out."""


class Activation(Protocol):
    """Computes `activation(gate(rows)) * up(rows)`."""

    def __call__(self, gate: Any, up: Any, rows: Tensor) -> Tensor:
        """Rows in, [1, T, hidden width] out."""
        ...


class Epilogue(NamedTuple):
    """Inside oneDNN's products, by its names."""

    name: str
    how: str = ""

    def __call__(self, gate: Packed, up: Packed, rows: Tensor) -> Tensor:
        """See `Activation`."""
        return up.times(rows, gate.bent(rows, self.name, self.how))


class Erf(NamedTuple):
    """GELU by the error function, after the products."""

    def __call__(self, gate: Product, up: Product, rows: Tensor) -> Tensor:
        """See `Activation`."""
        return F.gelu(gate(rows)).mul_(up(rows))


class Sigmoid(NamedTuple):
    """After the products, for float32."""

    slope: float = 1.0
    cubic: float = 0.0

    def __call__(self, gate: Product, up: Product, rows: Tensor) -> Tensor:
        """See `Activation`."""
        gated, other = gate(rows), up(rows)
        kernel = GATING.find(is_parallel=is_worth_splitting(gated.numel()))
        return self.gate(kernel, gated, other)

    def gate(self, kernel: Kernel | None, gate: Tensor, up: Tensor) -> Tensor:
        """Gates in place, [..., hidden width] both; with torch's operations where there is no kernel."""
        if kernel is not None:
            kernel(gate.view(-1).numpy(), up.view(-1).numpy(), np.float32(self.slope), np.float32(self.cubic), workers())
            return gate
        bent = gate * (1 + self.cubic * gate * gate) if self.cubic else gate
        return gate.mul_(torch.sigmoid(self.slope * bent)).mul_(up)

    def is_right(self, kernel: Kernel) -> bool:
        """Tells whether a kernel computes from random numbers, small ones and large ones, what torch's operations do."""
        draw = torch.Generator().manual_seed(0)
        gate = torch.randn(PROOF_ROWS, PROOF_WIDTH, generator=draw) * torch.logspace(-3, 2, PROOF_ROWS)[:, None]
        up = torch.randn(PROOF_ROWS, PROOF_WIDTH, generator=draw)
        return all(are_close(kind.gate(kernel, gate.clone(), up), kind.gate(None, gate.clone(), up)) for kind in SIGMOIDS)


@dataclass(frozen=True, slots=True)
class Tiled:
    """Inside the product with both weights at once, for bfloat16."""

    panels: TilePanels
    sigmoid: Sigmoid

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows in, [1, T, hidden width] out."""
        if (kernel := self.panels.kernel()) is not None:
            return self.panels.multiply(kernel, rows)
        return self.sigmoid.gate(None, *self.panels.by_torch(rows))


GELU_SLOPE = 2 * (2 / np.pi) ** 0.5
SIGMOIDS = (Sigmoid(), Sigmoid(GELU_SLOPE, 0.044715))
GATING = Pair(gating.form, SIGMOIDS[0].is_right)
PROOF_ROWS, PROOF_WIDTH = 8, 33
EPILOGUES = (Epilogue("swish"), Epilogue("gelu", "tanh"), Epilogue("gelu", "none"))


def tiled(gate: nn.Linear, up: nn.Linear) -> Iterator[Tiled]:
    """What there is for two layers at once."""
    if not can_lay(gate.weight) or gate.out_features % SIDE or (gate.bias is None) != (up.bias is None):
        return
    biases = None if gate.bias is None else (gate.bias.detach(), up.bias.detach())
    for sigmoid in SIGMOIDS:
        panels = TilePanels.lay_gate(gate.weight.detach(), up.weight.detach(), biases, (sigmoid.slope, sigmoid.cubic))
        if panels.is_expected():
            yield Tiled(panels, sigmoid)


def activations(gate: Product, up: Product, dtype: torch.dtype) -> Iterator[Activation]:
    """What there is for two products, the faster ones first. Which one a model means, comparing tells."""
    if dtype is torch.float32:
        yield from SIGMOIDS
    yield from EPILOGUES if isinstance(gate, Packed) and isinstance(up, Packed) else (Erf(),)
