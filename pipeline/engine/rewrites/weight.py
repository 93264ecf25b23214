"""A weight that rows are multiplied with: by a kernel where that is faster, else by torch."""

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.rewrites.panels import Panels
from pipeline.engine.rewrites.panels_amx import TilePanels


class Weight:
    """One matrix, [width, depth], kept as it is read.

    Args:
        matrix: Of a linear layer.
        bias: What is added, [width].
    """

    __slots__ = ("_held", "bias")

    def __init__(self, matrix: Tensor, bias: Tensor | None = None):
        self.bias = None if bias is None else bias.detach()
        given = matrix.detach()
        self._held: Panels | TilePanels | Tensor = Panels.of(given, self.bias) or TilePanels.of(given, self.bias) or given

    @classmethod
    def of(cls, *linears: nn.Linear) -> "Weight":
        """Of linear layers that read the same rows: what several make of a row lies side by side; all have a bias, or none."""
        weights, biases = [linear.weight for linear in linears], [linear.bias for linear in linears if linear.bias is not None]
        return cls(torch.cat(weights) if len(weights) > 1 else weights[0], torch.cat(biases) if biases else None)

    @property
    def is_laid_out(self) -> bool:
        """Whether it lies as the kernel reads it."""
        return not isinstance(self._held, Tensor)

    def __call__(self, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """Rows, [..., depth], in; [..., width] out, added to `onto`, contiguous."""
        if not isinstance(self._held, Tensor):
            if (kernel := self._held.kernel()) is not None:
                return self._held.multiply(kernel, rows, onto)
            if not self._held.is_expected():  # compiling it has failed
                self._held = self._held.matrix()
        product = F.linear(rows, self.matrix(), self.bias)
        return product if onto is None else product.add_(onto)

    def matrix(self) -> Tensor:
        """As it was given, [width, depth]; a copy where it lies otherwise."""
        return self._held if isinstance(self._held, Tensor) else self._held.matrix()
