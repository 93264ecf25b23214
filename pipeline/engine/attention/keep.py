"""A step's keys and values put into the cache, in one compiled pass: torch's copies by index take half as long again."""

from typing import Any

from numba import prange, types

from pipeline.engine.attention.arithmetic import held
from pipeline.engine.compilation import Definition, inlined
from pipeline.engine.forms import Form

SLOTS = types.Array(types.int64, 1, "C")


def form(*, is_half: bool, is_parallel: bool) -> Form:
    """Which kernel: whether for the bits of bfloat16, and not for float32, and whether several threads will run it."""
    return Form(__name__, (is_half, is_parallel))


def define(is_half: int, is_parallel: int) -> Definition:
    """The kernel.

    Its arguments: keys and values of tokens, [KV heads, T or more, width] both, in any layout, float32 or the bits of bfloat16; the tokens'
    slots, int64 [T]; keys and values of the cache, [KV heads, slots, width]; how many ways to split the work.
    """
    view, cache = types.Array(held(is_half=is_half), 3, "A"), types.Array(held(is_half=is_half), 3, "C")

    def keep(keys: Any, values: Any, slots: Any, all_keys: Any, all_values: Any, workers: int) -> None:
        for worker in prange(workers):
            for token in range(worker, slots.size, workers):
                _copy(keys, token, all_keys, slots[token])
                _copy(values, token, all_values, slots[token])

    return Definition(keep, (view, view, SLOTS, cache, cache, types.int64), bool(is_parallel))


def _copy_(rows: Any, token: int, cache: Any, slot: int) -> None:
    for head in range(cache.shape[0]):
        to = cache[head, slot]
        for i in range(to.size):
            to[i] = rows[head, token, i]


_copy = inlined(_copy_)
