"""Attention of the chunks of prefill in bfloat16, by the processor's matrix unit: each over what its sequence has in the cache.

Work is split by (chunk, head). Keys and values of one are laid out as panels; then 32 queries at a time are scored against those that they
may look at, and the weights, rounded to bfloat16, multiplied with the values. All of a query's scores are held at once, in float32.
"""

from typing import Any

import numpy as np
from numba import prange

from pipeline.engine.amx import DEPTH, SIDE, narrow, no_sizes, pair, release
from pipeline.engine.attention.arithmetic import exp, fit, highest
from pipeline.engine.attention.decode import NUMBERS, longest, signature, slot, squash
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form
from pipeline.engine.tile_amx import BYTES, COLUMNS, ROWS, STEP, WIDE, fit_tiles, multiply_tiles, room, room_for_sums

NOTHING = np.uint64(0)


def can_serve(key_width: int, value_width: int) -> bool:
    """Tells whether there is a kernel for such heads: whole panels."""
    return not (key_width % DEPTH or value_width % COLUMNS)


def form(*, is_parallel: bool) -> Form:
    """Which kernel: whether several threads will run it."""
    return Form(__name__, (is_parallel,))


def define(is_parallel: int) -> Definition:
    """The kernel. NaN in a chunk stays in that chunk's sequence.

    Its arguments are those of `decode.define` for bfloat16, with chunks in place of sequences and two more in the end. The query is
    [heads, T, key width], a head's numbers side by side; lengths are the tokens of contexts; scaling is above 0; the output is
    [T, heads, value width]. In the end come the places of the chunks' first tokens in the row, and their tokens, int64 [chunks] both.
    """

    def prefill(
        query: Any,
        keys: Any,
        values: Any,
        blocks: Any,
        starts: Any,
        block_tokens: int,
        contexts: Any,
        scaling: float,
        window: int,
        softcap: float,
        sinks: Any,
        out: Any,
        workers: int,
        places: Any,
        tokens: Any,
    ) -> None:
        heads, key_width, value_width = query.shape[0], query.shape[2], values.shape[2]
        group, across = heads // keys.shape[0], heads * value_width * BYTES
        most = _whole(longest(contexts))
        wide = most + COLUMNS  # rows of scores and weights do not lie a power of two apart, as they would share few lines of the cache
        for worker in prange(workers):
            key_panels = room(most * key_width // 2).view(np.uint32)
            value_panels = room(most * value_width // 2).view(np.uint16)
            scores, weights = room(ROWS * wide).reshape(ROWS, wide), room(ROWS * wide // 2).view(np.uint16).reshape(ROWS, wide)
            sums, sizes, known = room_for_sums(), no_sizes(), 0
            zeros, parts = np.zeros(COLUMNS, dtype=np.float32), np.empty(ROWS, dtype=np.float32)
            for item in range(worker, places.size * heads, workers):
                chunk, head = item // heads, item % heads
                count, context, own = tokens[chunk], contexts[chunk], blocks[starts[chunk] :]
                before = context - count
                lowest = _lowest(before, window) // COLUMNS * COLUMNS
                _lay_keys(keys[head // group], own, block_tokens, lowest, context, key_panels)
                _lay_values(values[head // group], own, block_tokens, lowest, context, value_panels, most)
                for row in range(0, count, ROWS):
                    some = min(ROWS, count - row)
                    if some != known:
                        fit_tiles(sizes, some)
                        known = some
                    begin, end = _lowest(before + row, window) // COLUMNS * COLUMNS, _whole(before + row + some)
                    at = query.ctypes.data + np.uint64(head * query.strides[0] + (places[chunk] + row) * query.strides[1])
                    for token in range(begin, end, COLUMNS):
                        given = (at, query.strides[1], key_panels.ctypes.data + np.uint64(token * key_width * BYTES), key_width)
                        place = scores.ctypes.data + np.uint64(token * WIDE)
                        multiply_tiles(given, zeros.ctypes.data, (NOTHING, 0), (place, wide * WIDE, some - 1), (place, wide * WIDE), some)
                    for i in range(some):
                        token = before + row + i
                        own_scores, first = scores[i, begin:end], _lowest(token, window) - begin
                        own_sinks = sinks[head : head + 1]
                        parts[i] = _weigh(own_scores, first, token + 1 - begin, np.float32(scaling), softcap, own_sinks, weights[i, begin:end])
                    at = weights.ctypes.data + np.uint64(begin * BYTES)
                    for column in range(0, value_width, COLUMNS):
                        panel = value_panels.ctypes.data + np.uint64((column * most + begin * COLUMNS) * BYTES)
                        to = out.ctypes.data + np.uint64((places[chunk] + row) * across + (head * value_width + column) * BYTES)
                        given, place = (at, wide * BYTES, panel, end - begin), (sums.ctypes.data, COLUMNS * WIDE)
                        multiply_tiles(given, zeros.ctypes.data, (NOTHING, 0), (to, across, some - 1), place, some)
                        for i in range(some):
                            _scale(sums[i], parts[i])
                            narrow(2, sums.ctypes.data + np.uint64(i * COLUMNS * WIDE), to + np.uint64(i * across))
            release()

    return Definition(prefill, (*signature(is_half=True), NUMBERS, NUMBERS), bool(is_parallel))


def _whole_(tokens: int) -> int:
    return (tokens + COLUMNS - 1) // COLUMNS * COLUMNS


def _lowest_(token: int, window: int) -> int:
    """The first that a token may look at."""
    return max(token + 1 - window, 0) if window else 0


def _lay_keys_(keys: Any, blocks: Any, block_tokens: int, begin: int, end: int, panels: Any) -> None:
    """A panel for every 32 tokens, whose columns they are; behind the last one comes that again."""
    words = keys.view(np.uint32)
    for token in range(begin, _whole(end)):
        row = words[slot(blocks, min(token, end - 1), block_tokens)]
        first = token // COLUMNS * COLUMNS * row.size + token % COLUMNS // SIDE * SIDE * SIDE + token % SIDE
        for step in range(row.size // SIDE):
            piece, panel = row[step * SIDE : (step + 1) * SIDE], panels[first + step * SIDE * COLUMNS :]
            for i in range(SIDE):
                panel[i * SIDE] = piece[i]


def _lay_values_(values: Any, blocks: Any, block_tokens: int, begin: int, end: int, panels: Any, tokens: int) -> None:
    """A panel for every 32 columns, [tokens / 32, 2 x 16 x 16 x 2]; behind the last token comes that again."""
    stride, to = values.shape[1] * BYTES, panels.ctypes.data
    for token in range(begin, _whole(end), 2):
        one = values.ctypes.data + np.uint64(slot(blocks, min(token, end - 1), block_tokens) * stride)
        other = values.ctypes.data + np.uint64(slot(blocks, min(token + 1, end - 1), block_tokens) * stride)
        place = token // COLUMNS * STEP + token % COLUMNS // 2 * SIDE * WIDE
        for column in range(0, values.shape[1], COLUMNS):
            further = np.uint64(column * BYTES)
            pair(one + further, other + further, to + np.uint64(column * tokens * BYTES + place), STEP // 2)


def _weigh_(scores: Any, first: int, end: int, scaling: Any, softcap: float, sinks: Any, weights: Any) -> Any:
    """Makes weights of a query's scores from `first` to `end`, and returns by what their sums are yet to be multiplied.

    What lies around them weighs next to nothing: loops over whole vectors alone are several times as fast.
    """
    if softcap:
        _scale(scores, scaling)
        squash(scores[first:end], np.float32(softcap))
    factor = np.float32(1) if softcap else scaling
    scores[:first] = -np.inf
    scores[end:] = -np.inf
    best, total = highest(scores) * factor, np.float32(0)
    for sink in sinks:
        best = max(best, sink)
    for token in range(scores.size):
        weight = exp(scores[token] * factor - best)
        weights[token] = fit(weight, weights)
        total += weight
    for sink in sinks:
        total += exp(sink - best)
    return np.float32(1) / total


def _scale_(numbers: Any, factor: Any) -> None:
    for i in range(numbers.size):
        numbers[i] *= factor


_whole, _lowest, _scale = map(inlined, (_whole_, _lowest_, _scale_))
_lay_keys, _lay_values, _weigh = map(inlined, (_lay_keys_, _lay_values_, _weigh_))
