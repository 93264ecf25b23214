"""The threads that torch and compiled kernels run on.

Both use one pool: numba's OpenMP layer finds the OpenMP library that torch has loaded. Where that layer cannot be loaded,
kernels run on one thread; numba's other layers would bring a pool of their own, or end the process when two engines meet.
"""

from importlib import import_module
from threading import local

import numba
import torch

try:
    import_module("numba.np.ufunc.omppool")
except ImportError:
    HAS_POOL = False
else:
    HAS_POOL = True
    numba.config.THREADING_LAYER = "omp"


WORTH_WAKING = 16_384
"""Numbers: a thread is woken within some ten microseconds, and these are passed over in as many."""

_thread = local()


def use_threads(threads: int) -> None:
    """Sets the number of compute threads of torch, and of the kernels that this thread calls."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if HAS_POOL and workers() != (own := min(threads, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(own)
        _thread.workers = own


def workers() -> int:
    """How many ways a kernel splits its work: one that is not parallel is for 1."""
    if (known := getattr(_thread, "workers", None)) is None:
        known = _thread.workers = int(numba.get_num_threads()) if HAS_POOL else 1
    return known


def is_worth_splitting(numbers: int) -> bool:
    """Tells whether one pass over so many numbers is faster on several threads."""
    return numbers >= WORTH_WAKING and workers() > 1
