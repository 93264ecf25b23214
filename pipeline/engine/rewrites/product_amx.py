"""Products of rows with a weight in bfloat16, by the processor's matrix unit.

Rows go past a panel of the weight as long
as they stay in the second cache, and meanwhile the next panel is fetched into it. Few rows are not worth splitting: then each thread has
panels of its own, so that the weight is read from memory once.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.amx import DEPTH, SIDE, narrow, no_sizes, release
from pipeline.engine.attention.arithmetic import exp, load, put
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form
from pipeline.engine.tile_amx import BYTES, COLUMNS, LINE, ROWS, STEP, WIDE, fit_tiles, multiply_tiles, room_for_sums

CHUNK_BYTES = 512 * 1024
"""Of rows: a part of the second cache. The fastest of 128 to 1,024 KiB."""
WORTH_SPLITTING = 256
"""Rows of each thread from which on threads share out rows and not panels."""

MATRIX, PANELS = types.Array(types.uint16, 2, "C"), types.Array(types.uint16, 3, "C")
BIAS = types.Array(types.float32, 1, "C")


def form(*, is_gated: bool, is_parallel: bool) -> Form:
    """Which kernel: whether it gates the one half of a panel's columns with the other."""
    return Form(__name__, (is_gated, is_parallel))


def define(is_gated: int, is_parallel: int) -> Definition:
    """The kernel. A row's numbers are the same, bit for bit, whatever rows lie beside it.

    Its arguments, in order, bits of bfloat16 unless said otherwise: rows [T, depth]; panels [width / 32, depth / 32, 2 x 16 x 16 x 2], see
    `tile_amx`; the bias, float32 [width]; slope and cubic of the gate, float32, see
    `gating`; what is added, [T, width of the output], or empty; the output [T, width], or if it is gated half as wide; and how many ways to
    split the work.
    """

    def multiply(rows: Any, panels: Any, bias: Any, slope: Any, cubic: Any, onto: Any, out: Any, workers: int) -> None:
        count, depth = rows.shape
        stride, panel_bytes = depth * BYTES, depth * COLUMNS * BYTES
        chunk = max(CHUNK_BYTES // stride // ROWS * ROWS, ROWS)
        across, out_stride = SIDE if is_gated else COLUMNS, out.shape[1] * BYTES
        by_rows = count >= WORTH_SPLITTING * workers
        share = -(-count // (workers * ROWS)) * ROWS if by_rows else -(-panels.shape[0] // workers)
        for worker in prange(workers):
            own = worker * share, (worker + 1) * share
            row_begin, row_end = (own[0], min(own[1], count)) if by_rows else (0, count)
            panel_begin, panel_end = (0, panels.shape[0]) if by_rows else (own[0], min(own[1], panels.shape[0]))
            sums, sizes, known = room_for_sums(), no_sizes(), 0
            for begin in range(row_begin, row_end, chunk):
                end = min(begin + chunk, row_end)
                lines = -(-STEP // (LINE * -(-(end - begin) // ROWS)))
                for panel in range(panel_begin, panel_end):
                    at_panel, left = panels.ctypes.data + np.uint64(panel * panel_bytes), panel_bytes
                    for row in range(begin, end, ROWS):
                        some = min(ROWS, end - row)
                        if some != known:
                            fit_tiles(sizes, some)
                            known = some
                        given = (rows.ctypes.data + np.uint64(row * stride), stride, at_panel, depth)
                        ahead = (at_panel + np.uint64(2 * panel_bytes - left), lines if left > 0 and panel + 1 < panel_end else 0)
                        place = (out.ctypes.data + np.uint64(row * out_stride + panel * across * BYTES), out_stride, some - 1)
                        start = bias.ctypes.data + np.uint64(panel * COLUMNS * WIDE)
                        multiply_tiles(given, start, ahead, place, (sums.ctypes.data, COLUMNS * WIDE), some)
                        left -= lines * LINE * (depth // DEPTH)
                        _put(sums, (row, panel, some), is_gated, slope, cubic, onto, out)
            release()

    return Definition(multiply, (MATRIX, PANELS, BIAS, types.float32, types.float32, MATRIX, MATRIX, types.int64), bool(is_parallel))


def _put_(sums: Any, where: Any, is_gated: int, slope: Any, cubic: Any, onto: Any, out: Any) -> None:
    """Writes what came of rows and a panel."""
    (row, panel, some), width = where, out.shape[1]
    across = SIDE if is_gated else COLUMNS
    first, is_whole = panel * across, (panel + 1) * across <= width
    for i in range(some):
        own = sums[i]
        if is_gated:
            _gate(own, slope, cubic)
        if onto.size:
            _add(onto[row + i, first : first + across], own)
        if is_whole:
            place = out.ctypes.data + np.uint64(((row + i) * width + first) * BYTES)
            if is_gated:
                narrow(1, own.ctypes.data, place)
            else:
                narrow(2, own.ctypes.data, place)
        else:
            put(own, out[row + i, first:])


def _gate_(sums: Any, slope: Any, cubic: Any) -> None:
    """The first half by the second; see `gating`."""
    gate, up = sums[:SIDE], sums[SIDE:]
    for i in range(SIDE):
        x = gate[i]
        z = slope * (x + cubic * x * x * x)
        small = exp(-abs(z))
        gate[i] = x * (np.float32(1) if z >= 0 else small) / (np.float32(1) + small) * up[i]


def _add_(numbers: Any, sums: Any) -> None:
    for i in range(numbers.size):
        sums[i] += load(numbers[i])


_gate, _add = map(inlined, (_gate_, _add_))
_put = inlined(_put_)
