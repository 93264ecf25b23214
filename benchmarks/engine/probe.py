"""How fast this machine reads memory and multiplies, at a given number of threads: the best of several tries."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.engine.limits import Machine

READ_BYTES = 512 * 1024 * 1024
"""Far beyond any cache."""
ROW = 2_048
SIDES = (256, 512, 1_024, 2_048)
LONG_S = 0.3
"""Larger products are not tried after one that took so long: without instructions for it, bfloat16 is a thousand times slower than float32."""
TRIES = 5


def probe(dtype: str, threads: int) -> Machine:
    """Reads a large matrix once per product, and multiplies two square ones.

    Where the processor is slower in `dtype` than in float32, the latter counts: an engine could widen.
    """
    import torch  # noqa: PLC0415 -- the table is printed without it

    torch.set_num_threads(threads)
    dtypes = {torch.float32, getattr(torch, dtype)}
    return Machine(bytes_per_s=_bandwidth(torch), flops=max(_flops(torch, kind) for kind in dtypes))


def _bandwidth(torch: Any) -> float:
    numbers = torch.ones(READ_BYTES // 4).view(-1, ROW)
    vector = torch.ones(ROW)
    return READ_BYTES / min(_seconds(lambda: torch.mv(numbers, vector)), _seconds(lambda: torch.sum(numbers)))


def _flops(torch: Any, kind: Any) -> float:
    best = 0.0
    for side in SIDES:
        left, right = torch.rand(side, side).to(kind), torch.rand(side, side).to(kind)
        seconds = _seconds(partial(torch.mm, left, right))
        best = max(best, 2.0 * side**3 / seconds)
        if seconds > LONG_S:
            break
    return best


def _seconds(work: Callable[[], object]) -> float:
    work()
    best = float("inf")
    for _ in range(TRIES):
        started_s = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started_s)
    return best
