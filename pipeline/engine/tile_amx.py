"""Up to 32 rows times a panel of 32 columns in bfloat16, by the processor's matrix unit: what products and attention are made of.

Two tiles of rows are multiplied with two tiles of columns, in the four tiles of sums that leaves. A panel lies as the unit reads it,
[depth / 32, 2 x 16 x 16 x 2]: of each half of the columns, and each pair of numbers, 16 pairs.
"""

from typing import Any

import numpy as np

from pipeline.engine.amx import DEPTH, SIDE, configure, dot, load, size, store
from pipeline.engine.attention.arithmetic import claim, fetch
from pipeline.engine.compilation import inlined

COLUMNS = ROWS = 2 * SIDE
"""Of a panel; and of what is multiplied with it at a time."""
BYTES, WIDE = 2, 4
"""Of a number of rows and panels; of a sum, and of two numbers."""
STEP = DEPTH * COLUMNS * BYTES
"""Bytes of a panel that are multiplied at a time."""
LINE = 64


def _room(size: int) -> Any:
    numbers = np.empty(size + LINE // WIDE, dtype=np.float32)
    skipped = -(numbers.ctypes.data // np.uint64(WIDE)) % np.uint64(LINE // WIDE)
    return numbers[skipped : skipped + np.uint64(size)]


def _room_for_sums() -> Any:
    return room(ROWS * COLUMNS).reshape(ROWS, COLUMNS)


def _fit(sizes: Any, rows: int) -> None:
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


def _multiply(given: Any, start: Any, ahead: Any, out: Any, sums: Any, rows: int) -> None:
    """Up to 32 rows with a panel."""
    if rows > SIDE:
        _many(given, start, ahead, out, sums)
    else:
        _few(given, start, ahead, out, sums)


def _many_(given: Any, start: Any, ahead: Any, out: Any, sums: Any) -> None:
    """More than 16."""
    (row, stride, panel, depth), (place, lines), (target, apart, last), (to, across) = given, ahead, out, sums
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
    further = to + np.uint64(SIDE * across)
    store(0, to, across)
    store(1, to + np.uint64(SIDE * WIDE), across)
    store(2, further, across)
    store(3, further + np.uint64(SIDE * WIDE), across)


def _few_(given: Any, start: Any, ahead: Any, out: Any, sums: Any) -> None:
    """At most 16."""
    (row, stride, panel, depth), (place, lines), (target, apart, last), (to, across) = given, ahead, out, sums
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
    store(0, to, across)
    store(1, to + np.uint64(SIDE * WIDE), across)


_many, _few = map(inlined, (_many_, _few_))
room: Any = inlined(_room)
"""In kernels: `room(size)` makes an array of so many float32 numbers that begins where a cache line does."""
room_for_sums: Any = inlined(_room_for_sums)
"""In kernels: `room_for_sums()` makes an array for them, float32 [32, 32]."""
fit_tiles: Any = inlined(_fit)
"""In kernels: `fit_tiles(sizes, rows)` readies the tiles for so many rows, 1 to 32; `sizes` are `amx.no_sizes`."""
multiply_tiles: Any = inlined(_multiply)
"""In kernels: `multiply_tiles(given, start, ahead, out, sums, rows)`.

Given are addresses and sizes: where the rows begin, how many bytes they lie apart, where the panel begins, and the depth. Sums begin with the
32 float32 numbers at `start`, the same for each row. Lines of memory are asked for meanwhile: of what is multiplied with next, where it
begins and how many lines at each step of the depth; and of what will be written, where its first row begins, how many bytes rows lie
apart, and how many come after the first. Sums are written where they begin, so many bytes from row to row.
"""
