"""A bias, a residual and a layer norm as one compiled pass over what a product made."""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import fit, held, load
from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form


def form(*, is_half: bool, is_parallel: bool) -> Form:
    """Which kernel: whether for the bits of bfloat16, and not for float32, and whether several threads will run it."""
    return Form(__name__, (is_half, is_parallel))


def define(is_half: int, is_parallel: int) -> Definition:
    """The kernel.

    Its arguments, float32 or the bits of bfloat16: rows [T, width], overwritten; the residual [T, width]; the product's bias, the norm's
    weight and its bias [width]; the norm's epsilon, float32; how many ways to split the work. It computes in float32.
    """
    matrix, vector = types.Array(held(is_half=is_half), 2, "C"), types.Array(held(is_half=is_half), 1, "C")

    def norm(rows: Any, residual: Any, bias: Any, weight: Any, shift: Any, epsilon: Any, workers: int) -> None:
        width = rows.shape[1]
        share = (rows.shape[0] + workers - 1) // workers
        for worker in prange(workers):
            sums = np.empty(width, dtype=np.float32)
            for token in range(worker * share, min((worker + 1) * share, rows.shape[0])):
                own, other = rows[token], residual[token]
                total = np.float32(0)
                for i in range(width):
                    number = load(own[i]) + load(bias[i]) + load(other[i])
                    sums[i] = number
                    total += number
                mean = total / np.float32(width)
                total = np.float32(0)
                for i in range(width):
                    number = sums[i] - mean
                    total += number * number
                factor = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
                for i in range(width):
                    own[i] = fit((sums[i] - mean) * factor * load(weight[i]) + load(shift[i]), own)

    return Definition(norm, (matrix, matrix, vector, vector, vector, types.float32, types.int64), bool(is_parallel))
