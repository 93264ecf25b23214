"""Decode attention in bfloat16 by the processor's matrix unit.

As `decode`, but scores and sums are products of tiles, 16 tokens at a time. Keys lie in the cache as a product's left side wants them,
with the query as its right side; values are its right side, once two tokens' are paired. Weights are rounded to bfloat16 for that.
"""

from typing import Any

import numpy as np
from numba import prange

from pipeline.engine.amx import DEPTH, SIDE, configure, dot, load, no_sizes, pair, release, size, store, zero
from pipeline.engine.attention.arithmetic import prefetch, put
from pipeline.engine.attention.decode import longest, signature, slot, weigh
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form

COLUMNS = 4 * SIDE
"""Of values whose sums are made at once."""
BYTES, WIDE = 2, 4
"""Of a number of the cache; of a sum, and of two numbers."""
TILE = SIDE // 2 * SIDE * WIDE
"""Bytes of the pairs that sixteen columns have of sixteen tokens."""


def can_serve(group: int, key_width: int, value_width: int, block_tokens: int) -> bool:
    """Tells whether there is a kernel for such a cache: whole tiles, and a group that fits into one."""
    return group <= SIDE and not (key_width % DEPTH or value_width % COLUMNS or block_tokens % SIDE)


def form(group: int, key_width: int, value_width: int, *, is_parallel: bool) -> Form:
    """Which kernel is for one kind of cache; see `decode.form`."""
    return Form(__name__, (group, key_width, value_width, is_parallel))


def define(group: int, key_width: int, value_width: int, is_parallel: int) -> Definition:
    """The kernel; its arguments are those of `decode.define` for bfloat16."""

    def decode(
        query: Any,
        keys: Any,
        values: Any,
        blocks: Any,
        starts: Any,
        block_tokens: int,
        lengths: Any,
        scaling: float,
        window: int,
        softcap: float,
        sinks: Any,
        out: Any,
        workers: int,
    ) -> None:
        kv_heads, room = keys.shape[0], (longest(lengths) + SIDE - 1) // SIDE * SIDE
        for worker in prange(workers):
            scores, weights = np.empty((group, room), dtype=np.float32), np.empty((group, room), dtype=np.uint16)
            rows, pairs = np.empty((key_width // 2, group, 2), dtype=np.uint16), np.empty((4, SIDE // 2, 2 * SIDE), dtype=np.uint16)
            turned, sums = np.empty((SIDE, group), dtype=np.float32), np.empty((group, COLUMNS), dtype=np.float32)
            to_score, to_gather = _sizes(group)
            for item in range(worker, lengths.size * kv_heads, workers):
                sequence, kv_head = item // kv_heads, item % kv_heads
                length, own = lengths[sequence], blocks[starts[sequence] :]
                first = max(length - window, 0) if window else 0
                begin, end = first // SIDE * SIDE, (length + SIDE - 1) // SIDE * SIDE
                for head in range(group):
                    for i in range(key_width):
                        rows[i // 2, head, i % 2] = query[sequence, kv_head * group + head, i]
                configure(to_score)
                _score(rows, keys[kv_head], own, block_tokens, begin, end, np.float32(scaling), turned, scores)
                for head in range(group):
                    place = kv_head * group + head
                    _weigh(scores[head, begin:end], first - begin, length - begin, softcap, sinks[place : place + 1], weights[head, begin:end])
                configure(to_gather)
                for column in range(0, value_width, COLUMNS):
                    _gather(values[kv_head], column, own, block_tokens, begin, end, weights, pairs, sums)
                    for head in range(group):
                        put(sums[head], out[sequence, kv_head * group + head, column : column + COLUMNS])
            release()

    return Definition(decode, signature(is_half=True), bool(is_parallel))


def _sizes_(group: int) -> Any:
    """Of tiles, for scores: sums 0, keys 4, queries 5; and to gather values: sums 0 to 3, weights 4, values 5."""
    to_score, to_gather = no_sizes(), no_sizes()
    size(to_score, 0, SIDE, WIDE * group)
    size(to_score, 4, SIDE, BYTES * DEPTH)
    size(to_score, 5, SIDE, WIDE * group)
    for tile in range(4):
        size(to_gather, tile, group, WIDE * SIDE)
    size(to_gather, 4, group, BYTES * SIDE)
    size(to_gather, 5, SIDE // 2, WIDE * SIDE)
    return to_score, to_gather


def _score_(rows: Any, keys: Any, blocks: Any, block_tokens: int, begin: int, end: int, scaling: Any, turned: Any, scores: Any) -> None:
    """Scores, [group, tokens], of a query in pairs, [width / 2, group, 2]; `turned` is room, [16, group]."""
    group, width = rows.shape[1], keys.shape[1]
    for token in range(begin, end, SIDE):
        at = keys.ctypes.data + np.uint64(slot(blocks, token, block_tokens) * width * BYTES)
        _fetch(keys, slot(blocks, min(token + SIDE, end - SIDE), block_tokens))
        zero(0)
        for i in range(0, width, DEPTH):
            load(4, at + np.uint64(i * BYTES), width * BYTES)
            load(5, rows.ctypes.data + np.uint64(i * group * BYTES), group * WIDE)
            dot(0, 4, 5)
        store(0, turned.ctypes.data, group * WIDE)
        for head in range(group):
            piece = scores[head, token : token + SIDE]
            for i in range(SIDE):
                piece[i] = turned[i, head] * scaling


def _weigh_(scores: Any, first: int, end: int, softcap: float, sinks: Any, weights: Any) -> None:
    """Weights of a head's scores from `first` to `end`; what lies around them weighs nothing."""
    looked_at = scores[first:end]
    weigh(looked_at, softcap, sinks)
    weights[:first] = 0
    weights[end:] = 0
    put(looked_at, weights[first:end])


def _gather_(values: Any, column: int, blocks: Any, block_tokens: int, begin: int, end: int, weights: Any, pairs: Any, sums: Any) -> None:
    """Sums of 64 columns of values, [group, 64], by weights, [group, tokens]; `pairs` is room, [4, 8, 16 x 2]."""
    stride, to = values.shape[1] * BYTES, pairs.ctypes.data
    zero(0)
    zero(1)
    zero(2)
    zero(3)
    for token in range(begin, end, SIDE):
        at = values.ctypes.data + np.uint64(slot(blocks, token, block_tokens) * stride + column * BYTES)
        _fetch(values, slot(blocks, min(token + SIDE, end - SIDE), block_tokens))
        for number in range(0, SIDE, 2):
            one, place = at + np.uint64(number * stride), to + np.uint64(number * SIDE * BYTES)
            pair(one, one + np.uint64(stride), place, TILE)
            one, place = one + np.uint64(DEPTH * BYTES), place + np.uint64(2 * TILE)
            pair(one, one + np.uint64(stride), place, TILE)
        load(4, weights.ctypes.data + np.uint64(token * BYTES), weights.shape[1] * BYTES)
        load(5, to, SIDE * WIDE)
        dot(0, 4, 5)
        load(5, to + np.uint64(TILE), SIDE * WIDE)
        dot(1, 4, 5)
        load(5, to + np.uint64(2 * TILE), SIDE * WIDE)
        dot(2, 4, 5)
        load(5, to + np.uint64(3 * TILE), SIDE * WIDE)
        dot(3, 4, 5)
    store(0, sums.ctypes.data, COLUMNS * WIDE)
    store(1, sums.ctypes.data + np.uint64(SIDE * WIDE), COLUMNS * WIDE)
    store(2, sums.ctypes.data + np.uint64(2 * SIDE * WIDE), COLUMNS * WIDE)
    store(3, sums.ctypes.data + np.uint64(3 * SIDE * WIDE), COLUMNS * WIDE)


def _fetch_(cache: Any, slot: int) -> None:
    """The tokens that are read next; see `decode`."""
    for row in range(slot, slot + SIDE):
        for column in range(0, cache.shape[1], DEPTH):
            prefetch(cache, row, column)


_fetch, _sizes = map(inlined, (_fetch_, _sizes_))
_score, _weigh, _gather = map(inlined, (_score_, _weigh_, _gather_))
