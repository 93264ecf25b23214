"""Compiling kernels with numba, and the threads that these and torch run on.

Both use one pool: numba's OpenMP layer finds the OpenMP library that torch has loaded. Where that layer cannot be loaded,
kernels run on one thread; numba's other layers would bring a pool of their own, or end the process when two engines meet.
"""

import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numba
import torch

FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
"""Sums in any order; but NaN stays NaN, for the engine tells by it that a sequence failed."""

try:
    import_module("numba.np.ufunc.omppool")
except ImportError:
    IS_PARALLEL = False
else:
    IS_PARALLEL = True
    numba.config.THREADING_LAYER = "omp"

Kernel = Callable[..., None]


def inlined(function: Any) -> Any:
    """A function that becomes part of the kernel that calls it, so that the kernel's constants are its own."""
    return numba.njit(forceinline=True, fastmath=FASTMATH, error_model="numpy")(function)


def kernel(function: Any) -> Kernel:
    """A kernel, compiled at its first call and kept on disk where there is a folder for it.

    What the function takes from around it must be plain numbers: they are constants to the compiler, and tell kept kernels apart.
    """
    options: dict[str, Any] = {"parallel": IS_PARALLEL, "fastmath": FASTMATH, "nogil": True, "error_model": "numpy"}
    try:
        with _kept_in(_folder(Path(function.__code__.co_filename).parent)):
            made: Kernel = numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):  # nothing can be written there
        made = numba.njit(**options)(function)
    return made


def use_threads(threads: int) -> None:
    """Sets the number of compute threads of torch, and of the kernels that this thread calls."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if numba.get_num_threads() != (own := min(threads, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(own)


def workers() -> int:
    """How many ways a kernel splits its work."""
    count: int = numba.get_num_threads()
    return count


@cache
def _folder(sources: Path) -> str:
    """Where the kernels of a package are kept: apart for each version of its sources, for numba looks at one file's date only."""
    if numba.config.CACHE_DIR:
        return str(numba.config.CACHE_DIR)
    digest = hashlib.sha256()
    for file in [Path(__file__), *sorted(sources.glob("*.py"))]:
        digest.update(file.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(home / "penstock" / "kernels" / digest.hexdigest()[:16])


@contextmanager
def _kept_in(folder: str) -> Generator[None]:
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
