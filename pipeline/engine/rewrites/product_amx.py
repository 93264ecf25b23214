"""Products of rows with a weight in bfloat16, by the processor's matrix unit.

Two tiles of rows times two tiles of columns are summed at once, in the four tiles that leaves. Rows go past a panel of the weight as long
as they stay in the second cache, and meanwhile the next panel is fetched into it. Few rows are not worth splitting: then each thread has
panels of its own, so that the weight is read from memory once.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.amx import DEPTH, SIDE, configure, dot, load, narrow, no_sizes, release, size, store
from pipeline.engine.attention.arithmetic import claim, exp, fetch, put
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form

COLUMNS = ROWS = 2 * SIDE
"""Of a panel; and of what is multiplied with it at a time."""
BYTES, WIDE = 2, 4
"""Of a number of rows and panels; of a sum, and of two numbers."""
STEP = DEPTH * COLUMNS * BYTES
"""Bytes of a panel that are multiplied at a time."""
LINE = 64
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

    Its arguments, in order, bits of bfloat16 unless said otherwise: rows [T, depth]; panels [width / 32, depth / 32, 2 x 16 x 16 x 2]: of
    each half of the columns, and each pair of numbers, 16 pairs; the bias, float32 [width]; slope and cubic of the gate, float32, see
    `gating`; the output [T, width], or if it is gated half as wide; and how many ways to split the work.
    """

    def multiply(rows: Any, panels: Any, bias: Any, slope: Any, cubic: Any, out: Any, workers: int) -> None:
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
            sums, sizes, known = _room(), no_sizes(), 0
            for begin in range(row_begin, row_end, chunk):
                end = min(begin + chunk, row_end)
                lines = -(-STEP // (LINE * -(-(end - begin) // ROWS)))
                for panel in range(panel_begin, panel_end):
                    at_panel, left = panels.ctypes.data + np.uint64(panel * panel_bytes), panel_bytes
                    for row in range(begin, end, ROWS):
                        some = min(ROWS, end - row)
                        if some != known:
                            _size(sizes, some)
                            known = some
                        given = (rows.ctypes.data + np.uint64(row * stride), stride, at_panel, depth)
                        ahead = (at_panel + np.uint64(2 * panel_bytes - left), lines if left > 0 and panel + 1 < panel_end else 0)
                        place = (out.ctypes.data + np.uint64(row * out_stride + panel * across * BYTES), out_stride, some - 1)
                        _multiply(given, bias.ctypes.data + np.uint64(panel * COLUMNS * WIDE), ahead, place, sums, some)
                        left -= lines * LINE * (depth // DEPTH)
                        _put(sums, (row, panel, some), is_gated, slope, cubic, out)
            release()

    return Definition(multiply, (MATRIX, PANELS, BIAS, types.float32, types.float32, MATRIX, types.int64), bool(is_parallel))


def _room_() -> Any:
    """For sums, [rows, columns], that begins where a cache line does."""
    numbers = np.empty(ROWS * COLUMNS + LINE // WIDE, dtype=np.float32)
    skipped = -(numbers.ctypes.data // np.uint64(WIDE)) % np.uint64(LINE // WIDE)
    return numbers[skipped : skipped + np.uint64(ROWS * COLUMNS)].reshape(ROWS, COLUMNS)


def _size_(sizes: Any, rows: int) -> None:
    """For so many rows: sums 0 and 1 of the first sixteen, 2 and 3 of the others; these rows 4 and 5; columns 6 and 7."""
    few, others = min(rows, SIDE), max(rows - SIDE, 1)
    size(sizes, 0, few, WIDE * SIDE)
    size(sizes, 1, few, WIDE * SIDE)
    size(sizes, 2, others, WIDE * SIDE)
    size(sizes, 3, others, WIDE * SIDE)
    size(sizes, 4, few, BYTES * DEPTH)
    size(sizes, 5, others, BYTES * DEPTH)
    size(sizes, 6, SIDE, WIDE * SIDE)
    size(sizes, 7, SIDE, WIDE * SIDE)
    configure(sizes)


def _multiply_(given: Any, start: Any, ahead: Any, out: Any, sums: Any, rows: int) -> None:
    if rows > SIDE:
        _many(given, start, ahead, out, sums.ctypes.data)
    else:
        _few(given, start, ahead, out, sums.ctypes.data)


def _many_(given: Any, start: Any, ahead: Any, out: Any, sums: Any) -> None:
    """Up to 32 rows with a panel: where they begin, how far they lie apart, where the panel begins, and the depth.

    Lines of memory are asked for meanwhile: of the panel that comes `ahead`; and those that the rows are written to, which lie far apart.
    """
    (row, stride, panel, depth), (place, lines), (target, apart, last) = given, ahead, out
    other = row + np.uint64(SIDE * stride)
    load(0, start, 0)  # the same for each row
    load(1, start + np.uint64(SIDE * WIDE), 0)
    load(2, start, 0)
    load(3, start + np.uint64(SIDE * WIDE), 0)
    for step in range(depth // DEPTH):
        load(6, panel, SIDE * WIDE)
        load(7, panel + np.uint64(STEP // 2), SIDE * WIDE)
        load(4, row, stride)
        load(5, other, stride)
        for line in range(lines):
            fetch(place + np.uint64(line * LINE))
        claim(target + np.uint64(min(2 * step, last) * apart))
        claim(target + np.uint64(min(2 * step + 1, last) * apart))
        dot(0, 4, 6)
        dot(1, 4, 7)
        dot(2, 5, 6)
        dot(3, 5, 7)
        row, other = row + np.uint64(DEPTH * BYTES), other + np.uint64(DEPTH * BYTES)
        panel, place = panel + np.uint64(STEP), place + np.uint64(lines * LINE)
    store(0, sums, COLUMNS * WIDE)
    store(1, sums + np.uint64(SIDE * WIDE), COLUMNS * WIDE)
    store(2, sums + np.uint64(SIDE * COLUMNS * WIDE), COLUMNS * WIDE)
    store(3, sums + np.uint64(SIDE * COLUMNS * WIDE + SIDE * WIDE), COLUMNS * WIDE)


def _few_(given: Any, start: Any, ahead: Any, out: Any, sums: Any) -> None:
    """As `_many`, of at most 16 rows."""
    (row, stride, panel, depth), (place, lines), (target, apart, last) = given, ahead, out
    load(0, start, 0)
    load(1, start + np.uint64(SIDE * WIDE), 0)
    for step in range(depth // DEPTH):
        load(4, row, stride)
        load(6, panel, SIDE * WIDE)
        load(7, panel + np.uint64(STEP // 2), SIDE * WIDE)
        for line in range(lines):
            fetch(place + np.uint64(line * LINE))
        claim(target + np.uint64(min(step, last) * apart))
        dot(0, 4, 6)
        dot(1, 4, 7)
        row, panel, place = row + np.uint64(DEPTH * BYTES), panel + np.uint64(STEP), place + np.uint64(lines * LINE)
    store(0, sums, COLUMNS * WIDE)
    store(1, sums + np.uint64(SIDE * WIDE), COLUMNS * WIDE)


def _put_(sums: Any, where: Any, is_gated: int, slope: Any, cubic: Any, out: Any) -> None:
    """Writes what came of rows and a panel."""
    (row, panel, some), width = where, out.shape[1]
    across = SIDE if is_gated else COLUMNS
    first, is_whole = panel * across, (panel + 1) * across <= width
    for i in range(some):
        own = sums[i]
        if is_gated:
            _gate(own, slope, cubic)
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


_room, _size, _many, _few, _gate = map(inlined, (_room_, _size_, _many_, _few_, _gate_))
_multiply, _put = map(inlined, (_multiply_, _put_))
