"""Decode attention on a processor: a kernel that reads the paged cache where it lies, and each sequence to its own length.

Work is split by (sequence, KV head); the query heads of the group share what is read. It is compiled for the widths, the
group and the dtype, within seconds.
"""

from typing import Any

import numpy as np
from numba import prange, types

from pipeline.engine.attention.arithmetic import exp, held, highest, load, prefetch, put
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form

VECTOR_NUMBERS = 16
"""Widths that are multiples of this get a kernel of their own."""


NUMBERS = types.Array(types.int64, 1, "C")
SINKS = types.Array(types.float32, 1, "C")


def form(group: int, key_width: int, value_width: int, *, is_half: bool, is_parallel: bool) -> Form:
    """Which kernel is for one kind of cache; odd widths share one, which is slower and need not be compiled for each.

    Args:
        group: Query heads per KV head.
        key_width: Numbers of a key.
        value_width: Numbers of a value.
        is_half: Whether they are the bits of bfloat16, and not float32.
        is_parallel: Whether several threads will run it.
    """
    is_odd = key_width % VECTOR_NUMBERS or value_width % VECTOR_NUMBERS
    return Form(__name__, (*((0, 0, 0) if is_odd else (group, key_width, value_width)), is_half, is_parallel))


def define(known_group: int, known_key_width: int, known_value_width: int, is_half: int, is_parallel: int) -> Definition:
    """The kernel for known sizes, or with zeros for any. NaN in a sequence stays in that sequence.

    Its arguments, in order: query [sequences, heads, key width], in any layout, and keys and values [KV heads, slots, width], float32 or
    the bits of bfloat16; the block numbers of all sequences, int64; where each one's begin, int64; the tokens of a block; lengths, int64;
    scaling; window, 0 for none; softcap, 0 for none; sinks [heads], float32, or empty; the output [sequences, heads, value width], as the
    query; and how many ways to split the work. It computes in float32.
    """

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
        kv_heads, room = keys.shape[0], longest(lengths)
        group = known_group or query.shape[1] // kv_heads
        key_width, value_width = known_key_width or keys.shape[2], known_value_width or values.shape[2]
        for worker in prange(workers):
            scores = np.empty((group, room), dtype=np.float32)
            rows = np.empty((group, key_width), dtype=np.float32)
            sums = np.empty((group, value_width), dtype=np.float32)
            for item in range(worker, lengths.size * kv_heads, workers):
                sequence, kv_head = item // kv_heads, item % kv_heads
                length = lengths[sequence]
                first = max(length - window, 0) if window else 0
                own = blocks[starts[sequence] :]
                for head in range(group):
                    for i in range(key_width):
                        rows[head, i] = load(query[sequence, kv_head * group + head, i]) * np.float32(scaling)
                _score(rows, keys[kv_head], own, block_tokens, first, length, scores, group, key_width)
                for head in range(group):
                    place = kv_head * group + head
                    weigh(scores[head, first:length], softcap, sinks[place : place + 1])
                _gather(values[kv_head], own, block_tokens, first, length, scores, sums, group, value_width)
                for head in range(group):
                    put(sums[head], out[sequence, kv_head * group + head])

    return Definition(decode, signature(is_half=is_half), bool(is_parallel))


def signature(*, is_half: int) -> tuple[Any, ...]:
    """Types of the arguments of `define`'s kernel."""
    number = held(is_half=is_half)
    view, cache = types.Array(number, 3, "A"), types.Array(number, 3, "C")
    sequences, scores = (NUMBERS, NUMBERS, types.int64, NUMBERS), (types.float64, types.int64, types.float64, SINKS)
    return view, cache, cache, *sequences, *scores, cache, types.int64


def _longest_(lengths: Any) -> Any:
    best = np.int64(0)
    for sequence in range(lengths.size):
        best = max(best, lengths[sequence])
    return best


def _slot_(blocks: Any, token: int, block_tokens: int) -> int:
    """Where in the cache a sequence's token lies."""
    place: int = blocks[token // block_tokens] * block_tokens + token % block_tokens
    return place


def _fetch_(cache: Any, row: int, width: int) -> None:
    """Four rows of the block that is read next: blocks lie apart, so the processor does not see them coming."""
    for ahead in range(row, row + 4):
        for column in range(0, width, VECTOR_NUMBERS):
            prefetch(cache, ahead, column)


_fetch = inlined(_fetch_)


def _score_(query: Any, keys: Any, blocks: Any, block_tokens: int, first: int, length: int, scores: Any, group: int, width: int) -> None:
    last = (length - 1) // block_tokens
    for block in range(first // block_tokens, last + 1):
        begin = block * block_tokens
        at_block, next_slot = blocks[block] * block_tokens, blocks[min(block + 1, last)] * block_tokens
        token, end = max(first - begin, 0), min(length - begin, block_tokens)
        while token + 4 <= end:  # four at a time: their sums do not wait for each other
            at, place = np.uint64(at_block + token), begin + token
            _fetch(keys, next_slot + token, width)
            for head in range(group):
                a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for i in range(width):
                    number = query[head, i]
                    a += number * load(keys[at, i])
                    b += number * load(keys[at + np.uint64(1), i])
                    c += number * load(keys[at + np.uint64(2), i])
                    d += number * load(keys[at + np.uint64(3), i])
                scores[head, place], scores[head, place + 1], scores[head, place + 2], scores[head, place + 3] = a, b, c, d
            token += 4
        while token < end:
            for head in range(group):
                a = np.float32(0)
                for i in range(width):
                    a += query[head, i] * load(keys[at_block + token, i])
                scores[head, begin + token] = a
            token += 1


def _weigh_(scores: Any, softcap: float, sinks: Any) -> None:
    """Makes weights of scores."""
    if softcap:
        squash(scores, np.float32(softcap))
    _normalise(scores, sinks)


def _squash_(scores: Any, softcap: Any) -> None:
    for token in range(scores.size):
        x = scores[token] / softcap
        small = exp(np.float32(-2) * abs(x))
        size = softcap * (np.float32(1) - small) / (np.float32(1) + small)
        scores[token] = size if x > 0 else -size


def _normalise_(scores: Any, sinks: Any) -> None:
    """Over all of an array, for loops from one number to another are not made vectors: the first might be below 0."""
    best = highest(scores)
    for sink in sinks:
        best = max(best, sink)
    total = np.float32(0)
    for token in range(scores.size):
        weight = exp(scores[token] - best)
        scores[token] = weight
        total += weight
    for sink in sinks:
        total += exp(sink - best)
    factor = np.float32(1) / total
    for token in range(scores.size):
        scores[token] *= factor


def _gather_(values: Any, blocks: Any, block_tokens: int, first: int, length: int, weights: Any, out: Any, group: int, width: int) -> None:
    for head in range(group):
        for i in range(width):
            out[head, i] = 0
    last = (length - 1) // block_tokens
    for block in range(first // block_tokens, last + 1):
        begin = block * block_tokens
        at_block, next_slot = blocks[block] * block_tokens, blocks[min(block + 1, last)] * block_tokens
        token, end = max(first - begin, 0), min(length - begin, block_tokens)
        while token + 4 <= end:  # four at a time: a quarter of the loads and stores of the sums
            place = begin + token
            _fetch(values, next_slot + token, width)
            p, q, r, s = values[at_block + token], values[at_block + token + 1], values[at_block + token + 2], values[at_block + token + 3]
            for head in range(group):
                a, b, c, d = weights[head, place], weights[head, place + 1], weights[head, place + 2], weights[head, place + 3]
                for i in range(width):
                    out[head, i] += a * load(p[i]) + b * load(q[i]) + c * load(r[i]) + d * load(s[i])
            token += 4
        while token < end:
            p = values[at_block + token]
            for head in range(group):
                weight = weights[head, begin + token]
                for i in range(width):
                    out[head, i] += weight * load(p[i])
            token += 1


_score, _normalise, _gather = map(inlined, (_score_, _normalise_, _gather_))
longest, slot, squash, weigh = map(inlined, (_longest_, _slot_, _squash_, _weigh_))
