"""The gating of perceptrons as one compiled pass: `gate * sigmoid(slope * (gate + cubic * gate^3)) * up`."""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import exp
from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form

FLOATS = types.Array(types.float32, 1, "C")


def form(*, is_parallel: bool) -> Form:
    """Which kernel."""
    return Form(__name__, (is_parallel,))


def define(is_parallel: int) -> Definition:
    """Its arguments: gate and up, float32 and flat, of which the first is overwritten; slope; cubic; how many ways to split the work."""

    def gating(gate: Any, up: Any, slope: Any, cubic: Any, workers: int) -> None:
        share = (gate.size + workers - 1) // workers
        for worker in prange(workers):
            own, other = gate[worker * share : (worker + 1) * share], up[worker * share : (worker + 1) * share]
            for i in range(own.size):
                x = own[i]
                z = slope * (x + cubic * x * x * x)
                small = exp(-abs(z))
                own[i] = x * (np.float32(1) if z >= 0 else small) / (np.float32(1) + small) * other[i]

    return Definition(gating, (FLOATS, FLOATS, types.float32, types.float32, types.int64), bool(is_parallel))
