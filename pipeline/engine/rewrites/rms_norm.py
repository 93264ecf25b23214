"""The root-mean-square norm as one compiled pass."""

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

    Its arguments, float32 or the bits of bfloat16: rows [T, width]; the norm's weight [width]; what is added to the mean square, float32;
    the output [T, width]; how many ways to split the work. It computes in float32.
    """
    matrix, vector = types.Array(held(is_half=is_half), 2, "C"), types.Array(held(is_half=is_half), 1, "C")

    def norm(rows: Any, weight: Any, epsilon: Any, out: Any, workers: int) -> None:
        width = rows.shape[1]
        share = (rows.shape[0] + workers - 1) // workers
        for worker in prange(workers):
            for token in range(worker * share, min((worker + 1) * share, rows.shape[0])):
                own, normed = rows[token], out[token]
                total = np.float32(0)
                for i in range(width):
                    total += load(own[i]) * load(own[i])
                factor = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
                for i in range(width):
                    normed[i] = fit(load(own[i]) * factor * load(weight[i]), normed)

    return Definition(norm, (matrix, vector, types.float32, matrix, types.int64), bool(is_parallel))
