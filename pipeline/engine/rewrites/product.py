"""Linear layers whose activation, or residual and norm, happen while what they multiplied is still in the processor's cache."""

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from pipeline.engine.compilation import Kernel, inlined, kernel
from pipeline.engine.rewrites.tile import COLUMNS, ROWS, tile

CHUNK_ROWS = 24
"""Rows that stay in the cache while every panel goes by. Measured: 24 and 36 are the best, 96 loses a tenth."""

HALF, ONE = np.float32(0.5), np.float32(1)
FAR = np.float32(4)
"""Behind it erf is 1 to float32."""


@cache
def product_kernel(*, is_activated: bool, is_normed: bool) -> Kernel:
    """The kernel of one form.

    Its arguments, in order (float32 unless said otherwise): rows [T, depth]; panels, see `tile.Panels`; bias [columns, padded to
    sixteens]; residual [T, columns], read where it is normed; the norm's weight and bias [columns]; its epsilon; the output
    [T, columns]; and how many ways to split the work.
    """

    def multiply(rows: Any, panels: Any, bias: Any, residual: Any, gain: Any, shift: Any, epsilon: float, out: Any, workers: int) -> None:
        total, depth = rows.shape
        columns = out.shape[1]
        share = -(-total // (workers * ROWS)) * ROWS
        for worker in prange(workers):
            sums = np.empty(ROWS * COLUMNS, dtype=np.float32)
            first_row, first_panel, all_sums = rows.ctypes.data, panels.ctypes.data, sums.ctypes.data
            begin, end = worker * share, min((worker + 1) * share, total)
            for chunk in range(begin, end, CHUNK_ROWS):
                chunk_end = min(chunk + CHUNK_ROWS, end)
                for panel in range(panels.shape[0]):
                    column = panel * COLUMNS
                    width = min(COLUMNS, columns - column)
                    own_panel = first_panel + np.uint64(column * depth * 4)
                    for row in range(chunk, chunk_end, ROWS):
                        count = min(ROWS, chunk_end - row)
                        tile(first_row + np.uint64(row * depth * 4), depth * 4, count, own_panel, depth, all_sums, COLUMNS)
                        _add_bias(sums, bias, column, count)
                        if is_activated:
                            for i in range(count * COLUMNS):  # in one loop: a short one would be unrolled and not become vectors
                                sums[i] = _gelu(sums[i])
                        if is_normed:
                            _add_residual(sums, residual, row, column, count, width)
                        _put(sums, out, row, column, count, width)
                if is_normed:
                    _norm(out, chunk, chunk_end, gain, shift, np.float32(epsilon))

    return kernel(multiply)


def _gelu_(x: Any) -> Any:
    """Half x times one and erf(x / sqrt(2)); erf by the rational function that Eigen and XLA have, off by at most 4e-7."""
    z = x * np.float32(0.70710678118654752)
    z = FAR if z > FAR else z  # noqa: FURB136 -- NaN stays
    z = -FAR if z < -FAR else z  # noqa: FURB136
    s = z * z
    above = np.float32(-2.72614225801306e-10)
    above = above * s + np.float32(2.77068142495902e-08)
    above = above * s - np.float32(2.10102402082508e-06)
    above = above * s - np.float32(5.69250639462346e-05)
    above = above * s - np.float32(7.34990630326855e-04)
    above = above * s - np.float32(2.95459980854025e-03)
    above = above * s - np.float32(1.60960333262415e-02)
    below = np.float32(-1.45660718464996e-05)
    below = below * s - np.float32(2.13374055278905e-04)
    below = below * s - np.float32(1.68282697438203e-03)
    below = below * s - np.float32(7.37332916720468e-03)
    below = below * s - np.float32(1.42647390514189e-02)
    return HALF * x * (ONE + z * above / below)


def _add_bias_(sums: Any, bias: Any, column: int, count: int) -> None:
    for i in range(count):
        for j in range(COLUMNS):
            sums[i * COLUMNS + j] += bias[column + j]


def _add_residual_(sums: Any, residual: Any, row: int, column: int, count: int, width: int) -> None:
    for i in range(count):
        for j in range(width):
            sums[i * COLUMNS + j] += residual[row + i, column + j]


def _put_(sums: Any, out: Any, row: int, column: int, count: int, width: int) -> None:
    for i in range(count):
        for j in range(width):
            out[row + i, column + j] = sums[i * COLUMNS + j]


def _norm_(rows: Any, first: int, end: int, gain: Any, shift: Any, epsilon: Any) -> None:
    width = rows.shape[1]
    for row in range(first, end):
        total, squares = np.float32(0), np.float32(0)
        for i in range(width):
            total += rows[row, i]
        mean = total / np.float32(width)
        for i in range(width):
            squares += (rows[row, i] - mean) * (rows[row, i] - mean)
        factor = ONE / np.sqrt(squares / np.float32(width) + epsilon)
        for i in range(width):
            rows[row, i] = (rows[row, i] - mean) * factor * gain[i] + shift[i]


_gelu, _norm, _add_bias, _add_residual, _put = map(inlined, (_gelu_, _norm_, _add_bias_, _add_residual_, _put_))
