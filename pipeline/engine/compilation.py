"""Compiling kernels with numba, and keeping them on disk.

A kernel is one function for one signature, so that it is known before its first call what there is to compile; nothing is
compiled behind a caller's back. No tensor library is needed for it.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numba
from numba.core.caching import FunctionCache

from pipeline.engine.forms import CannotKeep

FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
"""Sums in any order; but NaN stays NaN, for the engine tells by it that a sequence failed."""

Kernel = Callable[..., None]

SHARED = tuple(Path(__file__).parent / name for name in ("compilation.py", "tile.py", "tile_amx.py", "amx.py", "attention/arithmetic.py"))
"""Sources that kernels of any package are made of."""

CACHE_DIR: str = numba.config.CACHE_DIR
_config_lock = Lock()


def inlined(function: Any) -> Any:
    """A function that becomes part of the kernel that calls it, so that the kernel's constants are its own."""
    return numba.njit(forceinline=True, fastmath=FASTMATH, error_model="numpy")(function)


class Definition(NamedTuple):
    """What there is to compile.

    Attributes:
        function: What it takes from around it must be plain numbers: they are constants to the compiler, and tell kept kernels apart.
        signature: Numba's types of its arguments.
        is_parallel: Whether its `prange` runs on several threads. That takes nearly twice as long to compile.
    """

    function: Any
    signature: tuple[Any, ...]
    is_parallel: bool

    def is_kept(self) -> bool:
        """Tells whether it lies on disk, compiled.

        Raises:
            CannotKeep: Nothing can lie there.
        """
        with _kept_in(self._folder()):
            return FunctionCache(self.function).load_overload(self.signature, self._dispatcher(is_kept=False).targetctx) is not None

    def compiled(self) -> Kernel:
        """Compiles it within seconds, or takes it from disk within a tenth of one. It is kept where there is a folder for it."""
        try:
            folder = self._folder()
        except CannotKeep:
            return self._finished(self._dispatcher(is_kept=False))
        with _kept_in(folder):
            made = self._dispatcher(is_kept=True)
        with alone_with(folder / f"{self._name()}.lock"):
            return self._finished(made)

    def _finished(self, dispatcher: Any) -> Kernel:
        dispatcher.compile(self.signature)
        dispatcher.disable_compile()
        kernel: Kernel = dispatcher
        return kernel

    def _name(self) -> str:
        constants = [cell.cell_contents for cell in self.function.__closure__ or ()]
        return hashlib.sha256(repr((self.function.__qualname__, constants, self.signature)).encode()).hexdigest()[:16]

    def _dispatcher(self, *, is_kept: bool) -> Any:
        make = numba.njit(parallel=self.is_parallel, fastmath=FASTMATH, nogil=True, error_model="numpy", cache=is_kept)
        return make(self.function)

    def _folder(self) -> Path:
        folder = _home(Path(self.function.__code__.co_filename).parent) / ("parallel" if self.is_parallel else "serial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotKeep(f"{folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise CannotKeep(f"{folder}: not writable")
        return folder


@cache
def _home(sources: Path) -> Path:
    """Where the kernels of a package are kept: apart for each version of its sources, for numba looks at one file's date only."""
    digest = hashlib.sha256()
    for file in [*SHARED, *sorted(sources.glob("*.py"))]:
        digest.update(file.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = Path(CACHE_DIR) if CACHE_DIR else home / "penstock" / "kernels"
    return kept / digest.hexdigest()[:16]


@contextmanager
def alone_with(file: Path) -> Generator[None]:
    """Lets one process at a time compile a kernel: those that waited find it on disk. Where files cannot be locked, each compiles it."""
    with file.open("ab") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _kept_in(folder: Path) -> Generator[None]:
    with _config_lock:  # numba has one folder for all
        numba.config.CACHE_DIR = str(folder)
        try:
            yield
        finally:
            numba.config.CACHE_DIR = CACHE_DIR
