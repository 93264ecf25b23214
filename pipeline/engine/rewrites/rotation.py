"""Rotary positions as one compiled pass over rows of query, key and value heads, with the norm of a head before it where a model has one.

Rotation by halves, as GPT-NeoX has it: of the numbers of a head that turn, `i` turns with the one half of them further on.
"""

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
    """The kernel for heads of any even width.

    Its arguments: rows [T, numbers], float32, turned in place; cosines and sines [T, as many of a head's first numbers as turn];
    the weights of the norms of a query and of a key head [width], or empty; the norms' epsilon; how many query heads there are, and
    how many key heads after them; numbers of a head; how many ways to split the work.
    """

    def rotate(
        rows: Any,
        cosines: Any,
        sines: Any,
        query_norm: Any,
        key_norm: Any,
        epsilon: Any,
        query_heads: int,
        key_heads: int,
        width: int,
        workers: int,
    ) -> None:
        half = cosines.shape[1] // 2
        for worker in prange(workers):
            head = np.empty(width, dtype=np.float32)
            for token in range(worker, rows.shape[0], workers):
                cosine, sine = cosines[token], sines[token]
                for number in range(query_heads + key_heads):
                    own = rows[token, number * width : (number + 1) * width]
                    norm = query_norm if number < query_heads else key_norm
                    if norm.size:
                        total = np.float32(0)
                        for i in range(width):
                            total += own[i] * own[i]
                        factor = np.float32(1) / np.sqrt(total / np.float32(width) + epsilon)
                        for i in range(width):
                            own[i] *= factor * norm[i]
                    for i in range(2 * half):
                        head[i] = own[i]
                    for i in range(half):
                        own[i] = head[i] * cosine[i] - head[i + half] * sine[i]
                        own[i + half] = head[i + half] * cosine[i + half] + head[i] * sine[i + half]

    scalars = (types.float32, types.int64, types.int64, types.int64, types.int64)
    return Definition(rotate, (ROWS, ROWS, ROWS, WEIGHTS, WEIGHTS, *scalars), bool(is_parallel))
