"""A bound on what Arrow may hold in a process that reads other people's record batches.

A compressed batch of a megabyte may stand for many gigabytes, and Arrow Flight unpacks it before anybody can look at it. Arrow's
pools have no bound of their own, but one of them, mimalloc, can be told to live within what it reserved at the start: an allocation
beyond that fails at once, and the batch with it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MIB = 1024 * 1024
WORKER_MIB = 256
"""For a worker: a few batches of each caller of its door, and what an Arrow record of the log may unpack to."""
_POOL = "ARROW_DEFAULT_MEMORY_POOL"


def bound() -> None:
    """Has Arrow take no more than `WORKER_MIB` from now on. Call it before anything imports pyarrow.

    Arrow does not keep to it where pyarrow is there already, or was built without mimalloc: ask `is_bounded`.
    """
    if "pyarrow" in sys.modules:
        return
    reserved = {"MIMALLOC_RESERVE_OS_MEMORY": f"{WORKER_MIB}MiB", "MIMALLOC_DISALLOW_OS_ALLOC": "1", "MIMALLOC_LIMIT_OS_ALLOC": "1"}
    with _environment({_POOL: "mimalloc", **reserved}):
        import pyarrow as pa  # noqa: PLC0415 -- the library reads the variables when it is loaded, and the pool's name when it is first used

        pa.default_memory_pool()


def is_bounded() -> bool:
    """Whether Arrow refuses to hold more than that. Memory that is not touched costs nothing."""
    import pyarrow as pa  # noqa: PLC0415 -- see above

    try:
        pa.allocate_buffer(WORKER_MIB * MIB + 1)
    except MemoryError:
        return True
    return False


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables for a moment: processes started later are not to have them."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
