"""Attention of texts of any lengths, side by side in one row, each over all of itself: nothing is padded but the last few keys of a text.

Work is split by (text, head). Keys and values of one are laid out as the product's inner loop reads them; then six queries at a time
are scored, normalised and multiplied with the values, while all of it is in the processor's nearest cache.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import VECTOR, exp, highest
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form
from pipeline.engine.tile import BYTES, ROWS, columns, lay, tile, turn

HEADS = types.Array(types.float32, 3, "A")
OUT = types.Array(types.float32, 3, "C")
STARTS = types.Array(types.int64, 1, "C")
ROOM = types.Array(types.float32, 2, "C")


def form(lanes: int, *, is_parallel: bool) -> Form:
    """Which kernel is for vectors of so many numbers."""
    return Form(__name__, (lanes, is_parallel))


def room_numbers(longest: int, key_width: int, value_width: int) -> int:
    """How much room a worker needs where the longest text has so many tokens: for a head's keys and values, and a few of its scores."""
    padded = _filled_(longest)
    return padded * (key_width + value_width + ROWS) + ROWS


def define(lanes: int, is_parallel: int) -> Definition:
    """The kernel. NaN in a text stays in that text.

    Its arguments, in order (float32 unless said otherwise): queries [T, heads, key width]; keys [T, KV heads, key width]; values
    [T, KV heads, value width]; where the texts begin and the last one ends, int64 [texts + 1]; scaling; room for the work, [workers,
    `room_numbers`]; and the output [T, heads, value width]. Key widths are multiples of the lanes, value widths of twice as much. The
    numbers of a head lie side by side in queries, keys and values; heads and rows may lie apart.
    """
    across = columns(lanes)

    def attend(query: Any, key: Any, value: Any, starts: Any, scaling: Any, room: Any, out: Any) -> None:
        heads, key_width, value_width = query.shape[1], query.shape[2], value.shape[2]
        group = heads // key.shape[1]
        row_bytes, key_bytes, value_bytes, out_bytes = query.strides[0], key.strides[0], value.strides[0], out.strides[0]
        padded = _filled(np.diff(starts).max())
        for worker in prange(room.shape[0]):
            keys, values, scores, parts = _cut(room[worker], padded, key_width, value_width)
            at_keys, at_values, at_scores = keys.ctypes.data, values.ctypes.data, scores.ctypes.data
            for item in range(worker, (starts.size - 1) * heads, room.shape[0]):
                head, kv_head = item % heads, item % heads // group
                begin, end = starts[item // heads], starts[item // heads + 1]
                tokens = end - begin
                row = key.ctypes.data + np.uint64(begin * key_bytes + kv_head * key.strides[1])
                for token in range(0, -(-tokens // across) * across, lanes):  # half a panel at a time; behind the last key comes that again
                    panel = at_keys + np.uint64((token // across * across * key_width + token % across) * BYTES)
                    for i in range(0, key_width, lanes):
                        place = row + np.uint64(token * key_bytes + i * BYTES)
                        turn(lanes, place, key_bytes, tokens - token, panel + np.uint64(i * across * BYTES))
                row = value.ctypes.data + np.uint64(begin * value_bytes + kv_head * value.strides[1])
                for column in range(0, value_width, across):
                    lay(lanes, row + np.uint64(column * BYTES), value_bytes, tokens, at_values + np.uint64(column * tokens * BYTES))
                for first in range(begin, end, ROWS):
                    count = min(ROWS, end - first)
                    row = query.ctypes.data + np.uint64(first * row_bytes + head * query.strides[1])
                    for column in range(0, tokens, across):
                        panel, place = at_keys + np.uint64(column * key_width * BYTES), at_scores + np.uint64(column * BYTES)
                        tile(lanes, 0, (row, row_bytes, count), panel, key_width, (0, 0), (place, padded))
                    _weigh(scores, count, tokens, scaling, parts)
                    row = out.ctypes.data + np.uint64(first * out_bytes + head * value_width * BYTES)
                    for column in range(0, value_width, across):
                        panel, place = at_values + np.uint64(column * tokens * BYTES), row + np.uint64(column * BYTES)
                        tile(lanes, 0, (at_scores, padded * BYTES, count), panel, tokens, (0, 0), (place, heads * value_width))
                    _scale(out, first, count, head, parts)

    return Definition(attend, (HEADS, HEADS, HEADS, STARTS, types.float32, ROOM, OUT), bool(is_parallel))


def _cut_(room: Any, padded: int, key_width: int, value_width: int) -> Any:
    """A worker's room: keys, values, scores, [rows, padded], and parts, [rows]."""
    values, scores = padded * key_width, padded * (key_width + value_width)
    parts = scores + ROWS * padded
    return room[:values], room[values:scores], room[scores:parts].reshape(ROWS, padded), room[parts : parts + ROWS]


def _weigh_(scores: Any, count: int, tokens: int, scaling: Any, parts: Any) -> None:
    """Turns scores into weights that are yet to be multiplied by their row's part.

    What fills the last vectors weighs next to nothing: loops over whole vectors alone are several times as fast.
    """
    for row in range(count):
        own = scores[row, : _filled(tokens)]
        for token in range(tokens, own.size):
            own[token] = -np.inf
        best, total = highest(own), np.float32(0)
        for token in range(own.size):
            weight = exp((own[token] - best) * scaling)
            own[token] = weight
            total += weight
        parts[row] = np.float32(1) / total


def _scale_(out: Any, first: int, count: int, head: int, parts: Any) -> None:
    for row in range(count):
        own, part = out[first + row, head], parts[row]
        for i in range(own.size):
            own[i] *= part


def _filled_(tokens: int) -> int:
    """As many numbers as fill whole vectors, and whole panels."""
    return -(-tokens // VECTOR) * VECTOR


_cut, _weigh, _scale, _filled = map(inlined, (_cut_, _weigh_, _scale_, _filled_))
