"""The root-mean-square norm as one compiled pass."""

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

    Its arguments, float32: rows [T, width]; the norm's weight [width]; what is added to the mean square; the output [T, width];
    how many ways to split the work.
    """

    def norm(rows: Any, weight: Any, epsilon: Any, out: Any, workers: int) -> None:
        width = rows.shape[1]
        share = (rows.shape[0] + workers - 1) // workers
        for worker in prange(workers):
            for token in range(worker * share, min((worker + 1) * share, rows.shape[0])):
                own, normed = rows[token], out[token]
                total = np.float32(0)
                for i in range(width):
                    total += own[i] * own[i]
                factor = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
                for i in range(width):
                    normed[i] = own[i] * factor * weight[i]

    return Definition(norm, (ROWS, WEIGHTS, types.float32, ROWS, types.int64), bool(is_parallel))
