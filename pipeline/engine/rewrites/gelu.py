"""A bias and GELU as one compiled pass over what a product made.

The error function is formula 7.1.26 of Abramowitz and Stegun's Handbook of Mathematical Functions: off by 1.5e-7 at most.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import exp
from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form

ROWS = types.Array(types.float32, 2, "C")
WEIGHTS = types.Array(types.float32, 1, "C")

ROOT_HALF = np.float32(0.5**0.5)
ONE, HALF = np.float32(1), np.float32(0.5)
P = np.float32(0.3275911)
A1, A2, A3, A4, A5 = map(np.float32, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


def form(*, is_parallel: bool) -> Form:
    """Which kernel."""
    return Form(__name__, (is_parallel,))


def define(is_parallel: int) -> Definition:
    """Its arguments: rows [T, width], float32, overwritten; the bias [width]; how many ways to split the work."""

    def gelu(rows: Any, bias: Any, workers: int) -> None:
        share = (rows.shape[0] + workers - 1) // workers
        for worker in prange(workers):
            for token in range(worker * share, min((worker + 1) * share, rows.shape[0])):
                own = rows[token]
                for i in range(own.size):
                    x = own[i] + bias[i]
                    z = abs(x) * ROOT_HALF
                    t = ONE / (ONE + P * z)
                    tail = HALF * t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * exp(-z * z)
                    own[i] = x * (ONE - tail if x > 0 else tail)

    return Definition(gelu, (ROWS, WEIGHTS, types.int64), bool(is_parallel))
