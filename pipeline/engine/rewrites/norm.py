"""The root-mean-square norm as one pass over its rows, not the six that models spell out."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.arrays import array, pair_for
from pipeline.engine.compilation import Kernel
from pipeline.engine.rewrites import rms_norm
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.rewrites.rewrite import Rewrite
from pipeline.engine.threads import is_worth_splitting, workers

PROOF_ROWS, PROOF_WIDTH = 9, 37


class RmsNorm(Rewrite):
    """In place of a module that has nothing but a weight."""

    def __init__(self, weight: Tensor, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.width = weight.numel()
        self.variance_epsilon = epsilon
        self._kernels = pair_for(weight.dtype, rms_norm.form, is_right)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows in, rows out."""
        kernel = None
        if rows.dtype is self.weight.dtype and rows.is_contiguous():
            kernel = self._kernels.find(is_parallel=is_worth_splitting(rows.numel()))
        return even(kernel, rows, self.weight, self.variance_epsilon)


def even(kernel: Kernel | None, rows: Tensor, weight: Tensor, epsilon: float, room: Tensor | None = None) -> Tensor:
    """Norms rows, [..., width], contiguous for the kernel, which writes them into `room`; with torch's operations where there is none."""
    if kernel is None:
        return F.rms_norm(rows, weight.shape, weight, epsilon)
    result, width = torch.empty_like(rows) if room is None else room, rows.shape[-1]
    kernel(array(rows).reshape(-1, width), array(weight), np.float32(epsilon), array(result).reshape(-1, width), workers())
    return result


def is_right(kernel: Kernel, *, dtype: torch.dtype) -> bool:
    """Tells whether a kernel computes from random numbers, small ones and large ones, what torch's operations do."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(PROOF_ROWS, PROOF_WIDTH, generator=draw) * torch.logspace(-3, 2, PROOF_ROWS)[:, None]
    weight = torch.randn(PROOF_WIDTH, generator=draw)
    rows, weight = rows.to(dtype), weight.to(dtype)
    return are_close(even(kernel, rows, weight, 1e-5, torch.full_like(rows, torch.nan)), even(None, rows, weight, 1e-5))


def norms(module: nn.Module) -> Iterator[Rewrite]:
    """Offers two: some models keep the weight less one."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() == 1 and isinstance(epsilon, float) and len(list(module.parameters())) == 1:
        yield RmsNorm(weight.detach(), epsilon)
        yield RmsNorm((1.0 + weight.detach().float()).to(weight.dtype), epsilon)
