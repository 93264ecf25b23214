"""A bias and GELU as one compiled pass over what a product made.

The error function is formula 7.1.26 of Abramowitz and Stegun's Handbook of Mathematical Functions: off by 1.5e-7 at most.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import exp, fit, held, load
from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form

ROOT_HALF = np.float32(0.5**0.5)
ONE, HALF = np.float32(1), np.float32(0.5)
P = np.float32(0.3275911)
A1, A2, A3, A4, A5 = map(np.float32, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


def form(*, is_half: bool, is_parallel: bool) -> Form:
    """Which kernel: whether for the bits of bfloat16, and not for float32, and whether several threads will run it."""
    return Form(__name__, (is_half, is_parallel))


def define(is_half: int, is_parallel: int) -> Definition:
    """Its arguments, float32 or the bits of bfloat16: rows [T, width], overwritten; the bias [width]; how many ways to split the work."""
    matrix, vector = types.Array(held(is_half=is_half), 2, "C"), types.Array(held(is_half=is_half), 1, "C")

    def gelu(rows: Any, bias: Any, workers: int) -> None:
        share = (rows.shape[0] + workers - 1) // workers
        for worker in prange(workers):
            for token in range(worker * share, min((worker + 1) * share, rows.shape[0])):
                own = rows[token]
                for i in range(own.size):
                    x = load(own[i]) + load(bias[i])
                    z = abs(x) * ROOT_HALF
                    t = ONE / (ONE + P * z)
                    tail = HALF * t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * exp(-z * z)
                    own[i] = fit(x * (ONE - tail if x > 0 else tail), own)

    return Definition(gelu, (matrix, vector, types.int64), bool(is_parallel))
