"""The threads that torch and compiled kernels run on.

Both use one pool: numba's OpenMP layer finds the OpenMP library that torch has loaded. Where that layer cannot be loaded,
kernels run on one thread; numba's other layers would bring a pool of their own, or end the process when two engines meet.
"""

from importlib import import_module

import numba
import torch

try:
    import_module("numba.np.ufunc.omppool")
except ImportError:
    HAS_POOL = False
else:
    HAS_POOL = True
    numba.config.THREADING_LAYER = "omp"


def use_threads(threads: int) -> None:
    """Sets the number of compute threads of torch, and of the kernels that this thread calls."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if HAS_POOL and numba.get_num_threads() != (own := min(threads, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(own)


def workers() -> int:
    """How many ways a kernel splits its work: one that is not parallel is for 1."""
    return int(numba.get_num_threads()) if HAS_POOL else 1
