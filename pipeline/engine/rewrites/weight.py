"""A weight that rows are multiplied with: by a kernel where that is faster, else by torch."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor

from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import KERNELS
from pipeline.engine.rewrites import product
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.threads import workers
from pipeline.engine.tile import columns

LANES = 8
"""Of AVX2. Processors with wider vectors are left to torch, whose libraries have better for them."""
NO_BIAS = np.empty(0, dtype=np.float32)
PROOF_ROWS, PROOF_DEPTH, PROOF_WIDTH = 9, 389, 48


class Weight:
    """One matrix, [width, depth], float32, kept as it is read.

    Args:
        matrix: Of a linear layer, or those of several, one below the other.
        bias: What is added, [width].

    Attributes:
        is_laid_out: Whether it lies as the kernel reads it.
    """

    def __init__(self, matrix: Tensor, bias: Tensor | None = None):
        self.width, self.depth = matrix.shape
        self.bias = bias
        self.is_laid_out = torch.backends.cpu.get_cpu_capability() == "AVX2" and not self.width % columns(LANES)
        self._matrix = panels(matrix) if self.is_laid_out else matrix

    def times(self, rows: Tensor) -> Tensor:
        """Rows, [..., depth], in; [..., width] out."""
        kernel = KERNELS.find(product.form(LANES, is_parallel=workers() > 1), is_right) if self.is_laid_out else None
        if kernel is None:
            return F.linear(rows, self.matrix(), self.bias)
        return multiply(kernel, rows, self._matrix, self.bias)

    def matrix(self) -> Tensor:
        """As it was given, [width, depth]; a copy where it lies otherwise."""
        return self._matrix.transpose(1, 2).flatten(0, 1) if self.is_laid_out else self._matrix


def panels(matrix: Tensor) -> Tensor:
    """[width, depth] -> [width / columns of a tile, depth, columns of a tile]."""
    return matrix.detach().unflatten(0, (-1, columns(LANES))).transpose(1, 2).contiguous()


def multiply(kernel: Kernel, rows: Tensor, laid_out: Tensor, bias: Tensor | None) -> Tensor:
    """Multiplies rows, [..., depth], with panels and adds the bias."""
    flat = rows.reshape(-1, rows.shape[-1]).contiguous()
    width = laid_out.shape[0] * laid_out.shape[2]
    out = flat.new_empty(product.padded_rows(len(flat)), width)
    added: npt.NDArray[np.float32] = NO_BIAS if bias is None else bias.numpy()
    kernel(flat.numpy(), laid_out.numpy(), added, out.numpy(), workers())
    return out[: len(flat)].view(*rows.shape[:-1], width)


def is_right(kernel: Kernel) -> bool:
    """Tells whether a kernel computes from random numbers what torch's operation does."""
    draw = torch.Generator().manual_seed(0)
    rows, matrix = torch.randn(PROOF_ROWS, PROOF_DEPTH, generator=draw), torch.randn(PROOF_WIDTH, PROOF_DEPTH, generator=draw)
    biases = (None, torch.randn(PROOF_WIDTH, generator=draw))
    return all(are_close(multiply(kernel, rows, panels(matrix), bias), F.linear(rows, matrix, bias)) for bias in biases)
