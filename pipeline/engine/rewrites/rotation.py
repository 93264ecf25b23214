"""Rotary positions as one compiled pass over rows of query, key and value heads, with the norm of a head before it where a model has one.

Rotation by halves, as GPT-NeoX has it: of the numbers of a head that turn, `i` turns with the one half of them further on.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import fit, held, load
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form


def form(*, is_half: bool, is_parallel: bool) -> Form:
    """Which kernel: whether for the bits of bfloat16, and not for float32, and whether several threads will run it."""
    return Form(__name__, (is_half, is_parallel))


def define(is_half: int, is_parallel: int) -> Definition:
    """The kernel for heads of any even width. It computes in float32.

    Its arguments, float32 or the bits of bfloat16: rows [T, numbers], turned in place; cosines and sines [T, as many of a head's first
    numbers as turn]; the weights of the norms of a query and of a key head [width], or empty; the norms' epsilon, float32; how many
    query heads there are, and how many key heads after them; numbers of a head; how many ways to split the work.
    """
    matrix, vector = types.Array(held(is_half=is_half), 2, "C"), types.Array(held(is_half=is_half), 1, "C")

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
                    for i in range(width):
                        head[i] = load(own[i])
                    if norm.size:
                        _even(head, norm, epsilon)
                        for i in range(2 * half, width):
                            own[i] = fit(head[i], own)
                    for i in range(half):
                        own[i] = fit(head[i] * load(cosine[i]) - head[i + half] * load(sine[i]), own)
                        own[i + half] = fit(head[i + half] * load(cosine[i + half]) + head[i] * load(sine[i + half]), own)

    scalars = (types.float32, types.int64, types.int64, types.int64, types.int64)
    return Definition(rotate, (matrix, matrix, matrix, vector, vector, *scalars), bool(is_parallel))


def _even_(head: Any, weight: Any, epsilon: Any) -> None:
    total = np.float32(0)
    for i in range(head.size):
        total += head[i] * head[i]
    factor = np.float32(1) / np.sqrt(total / np.float32(head.size) + epsilon)
    for i in range(head.size):
        head[i] *= factor * load(weight[i])


_even = inlined(_even_)
