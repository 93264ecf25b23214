"""The Muon optimizer for matrices: momentum whose singular values are all made equal.

After Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024). torch's own computes in bfloat16, which a CPU without
matrix instructions for it does forty times slower than float32.
"""

from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: chosen for a steep slope at zero, so that few rounds are enough."""
_ROUNDS = 5


class Muon:
    """Updates matrices in place. The learning rate is an argument of the step: a schedule needs no state here."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], momentum: float):
        self._matrices = list(matrices)
        self._averages = [torch.zeros_like(matrix) for matrix in self._matrices]
        self._momentum = momentum

    def step(self, rate: float) -> None:
        """Applies the gradients, with Nesterov momentum, and clears them."""
        with torch.no_grad():
            for matrix, average in zip(self._matrices, self._averages, strict=True):
                self._update(matrix, average, rate)

    def _update(self, matrix: torch.nn.Parameter, average: torch.Tensor, rate: float) -> None:
        if matrix.grad is None:
            return
        average.lerp_(matrix.grad, 1 - self._momentum)
        update = orthogonalized(matrix.grad.lerp(average, self._momentum))
        matrix.add_(update, alpha=-rate * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5)
        matrix.grad = None


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Brings the singular values of a float32 matrix near 1 by Newton-Schulz iteration."""
    first, third, fifth = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = wide @ wide.T
        wide = first * wide + (third * gram + fifth * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
