"""A bias, a residual and a layer norm as one compiled pass over what a product made."""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form

ROWS = types.Array(types.float32, 2, "C")
WEIGHTS = types.Array(types.float32, 1, "C")


def form(*, is_parallel: bool) -> Form:
    """Which kernel."""
    return Form(__name__, (is_parallel,))


def define(is_parallel: int) -> Definition:
    """The kernel.

    Its arguments, float32: rows [T, width], overwritten; the residual [T, width]; the product's bias, the norm's weight and its
    bias [width]; the norm's epsilon; how many ways to split the work.
    """

    def norm(rows: Any, residual: Any, bias: Any, weight: Any, shift: Any, epsilon: Any, workers: int) -> None:
        width = rows.shape[1]
        share = (rows.shape[0] + workers - 1) // workers
        for worker in prange(workers):
            for token in range(worker * share, min((worker + 1) * share, rows.shape[0])):
                own, other = rows[token], residual[token]
                total = np.float32(0)
                for i in range(width):
                    number = own[i] + bias[i] + other[i]
                    own[i] = number
                    total += number
                mean = total / np.float32(width)
                total = np.float32(0)
                for i in range(width):
                    number = own[i] - mean
                    total += number * number
                factor = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
                for i in range(width):
                    own[i] = (own[i] - mean) * factor * weight[i] + shift[i]

    return Definition(norm, (ROWS, ROWS, WEIGHTS, WEIGHTS, WEIGHTS, types.float32, types.int64), bool(is_parallel))
