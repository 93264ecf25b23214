"""Products of rows with a weight, as a kernel makes them that keeps both in the nearest caches; float32.

A few rows at a time go past every panel of the weight, and of a deep weight a part of its depth at a time.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form
from pipeline.engine.tile import BYTES, ROWS, columns, tile

CHUNK_ROWS, CHUNK_DEPTH = 72, 192
"""What stays in the caches. Of 24 to 288 rows and 128 to 384 numbers none was clearly better on two shared cores."""

MATRIX = types.Array(types.float32, 2, "C")
PANELS = types.Array(types.float32, 3, "C")
VECTOR = types.Array(types.float32, 1, "C")


def form(lanes: int, *, is_parallel: bool) -> Form:
    """Which kernel is for vectors of so many numbers."""
    return Form(__name__, (lanes, is_parallel))


def padded_rows(rows: int) -> int:
    """How many rows the output has room for: the last tile is written whole."""
    return -(-rows // ROWS) * ROWS


def define(lanes: int, is_parallel: int) -> Definition:
    """The kernel. A row's numbers are the same, bit for bit, whatever rows lie beside it.

    Its arguments, in order, float32: rows [T, depth]; panels [width / columns of a tile, depth, columns of a tile]; the bias, [width], or
    empty; the output [`padded_rows`, width]; and how many ways to split the work.
    """
    across = columns(lanes)

    def multiply(rows: Any, panels: Any, bias: Any, out: Any, workers: int) -> None:
        depth, width = rows.shape[1], out.shape[1]
        share = -(-out.shape[0] // (workers * ROWS)) * ROWS
        for worker in prange(workers):
            end = min((worker + 1) * share, rows.shape[0])
            for begin in range(worker * share, end, CHUNK_ROWS):
                for first in range(0, depth, CHUNK_DEPTH):
                    numbers = min(CHUNK_DEPTH, depth - first)
                    for panel in range(panels.shape[0]):
                        at_panel = panels.ctypes.data + np.uint64((panel * depth + first) * across * BYTES)
                        for row in range(begin, min(begin + CHUNK_ROWS, end), ROWS):
                            at_row = rows.ctypes.data + np.uint64((row * depth + first) * BYTES)
                            at_out = out.ctypes.data + np.uint64((row * width + panel * across) * BYTES)
                            start = (at_out, width)
                            if not first:
                                start = (bias.ctypes.data + np.uint64(panel * across * BYTES) if bias.size else np.uint64(0), 0)
                            tile(lanes, at_row, depth * BYTES, rows.shape[0] - row, at_panel, numbers, start, at_out, width)

    return Definition(multiply, (MATRIX, PANELS, VECTOR, MATRIX, types.int64), bool(is_parallel))
