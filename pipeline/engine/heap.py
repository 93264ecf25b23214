"""What becomes of memory that a step's tensors give back.

glibc maps each large block for itself and unmaps it when it is freed, so that every step asks the kernel for the same pages again, and
has them zeroed: a quarter of the time of a step of 1,024 tokens. Kept in the heap they are there for the next step. As they are freed
in the order in which they came, what is kept is about what one step needs at its peak.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's names and numbers."""
MAPPED_BYTES = 256 * 1024 * 1024
"""Blocks from this size on are mapped as before: they are caches and weights, which stay."""
KEPT_BYTES = 1024 * 1024 * 1024
"""Free memory at the heap's end beyond this goes back to the system."""
CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""By which whoever starts the process may have chosen."""


def keep_freed() -> None:
    """Has this process keep what it frees, where its memory is glibc's and nobody has chosen otherwise; what lies free now goes back first."""
    library = ctypes.CDLL(None)
    if any(name in os.environ for name in CHOICES) or not hasattr(library, "mallopt"):
        return
    library.malloc_trim(ctypes.c_size_t(0))
    library.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
