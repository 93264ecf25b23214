"""Products of rows with a weight, as a kernel makes them that keeps both in the nearest caches; float32.

A few rows at a time go past every panel of the weight, and of a deep weight a part of its depth at a time. Few rows are not worth
splitting: then each thread has panels of its own, so that the weight is read from memory once.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.compilation import Definition
from pipeline.engine.forms import Form
from pipeline.engine.tile import BYTES, ROWS, VECTORS, columns, tile

CHUNK_ROWS, CHUNK_DEPTH = 36, 768
"""What stays in the caches. Of 36 to 144 rows and 192 to 768 numbers the fastest: the deeper, the less often sums are stored and read again."""

MATRIX = types.Array(types.float32, 2, "C")
PANELS = types.Array(types.float32, 3, "C")
NARROW_PANELS = types.Array(types.int32, 3, "C")


def form(lanes: int, *, is_narrow: bool, is_parallel: bool) -> Form:
    """Which kernel is for vectors of so many numbers."""
    return Form(__name__, (lanes, is_narrow, is_parallel))


def define(lanes: int, is_narrow: int, is_parallel: int) -> Definition:
    """The kernel. A row's numbers are the same, bit for bit, whatever rows lie beside it.

    Its arguments, in order, float32: rows [T, depth]; panels [width / columns of a tile, depth, columns of a tile], or narrow ones, int32
    [width / columns of a tile, depth, lanes]; what is added, [T, width], or the same for each row, [1, width], or empty; the output
    [T, width]; and how many ways to split the work.
    """
    across = columns(lanes)
    step_bytes = across * BYTES // (VECTORS if is_narrow else 1)
    narrow = int(is_narrow)

    def multiply(rows: Any, panels: Any, onto: Any, out: Any, workers: int) -> None:
        count, depth, width = rows.shape[0], rows.shape[1], out.shape[1]
        tiles = max(-(-count // ROWS), 1)
        tall = max(-(-count // tiles), 1)  # rows of a tile: all of about one size
        chunk = CHUNK_ROWS // tall * tall
        apart = width if onto.shape[0] > 1 else 0
        by_rows = count >= CHUNK_ROWS * workers
        share = -(-tiles // workers) * tall if by_rows else -(-panels.shape[0] // workers)
        for worker in prange(workers):
            own = worker * share, (worker + 1) * share
            row_begin, row_end = (own[0], min(own[1], count)) if by_rows else (0, count)
            panel_begin, panel_end = (0, panels.shape[0]) if by_rows else (own[0], min(own[1], panels.shape[0]))
            for begin in range(row_begin, row_end, chunk):
                for first in range(0, depth, CHUNK_DEPTH):
                    numbers = min(CHUNK_DEPTH, depth - first)
                    for panel in range(panel_begin, panel_end):
                        at_panel = panels.ctypes.data + np.uint64((panel * depth + first) * step_bytes)
                        for row in range(begin, min(begin + chunk, row_end), tall):
                            at_row = rows.ctypes.data + np.uint64((row * depth + first) * BYTES)
                            at_out = out.ctypes.data + np.uint64((row * width + panel * across) * BYTES)
                            start = (at_out, width)
                            if not first:
                                place = (row * apart + panel * across) * BYTES
                                start = (onto.ctypes.data + np.uint64(place) if onto.size else np.uint64(0), apart)
                            own_rows = (at_row, depth * BYTES, min(tall, row_end - row))
                            tile(lanes, narrow, own_rows, at_panel, numbers, start, (at_out, width))

    return Definition(multiply, (MATRIX, NARROW_PANELS if is_narrow else PANELS, MATRIX, MATRIX, types.int64), bool(is_parallel))
