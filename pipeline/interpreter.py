"""How the interpreter of a process is shared among its threads, and when it stops to collect."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_S = 0.001
"""How long a thread that computes may let one wait that brings or sends records: a fifth of Python's default, since these take the
interpreter several times for each record, and first tokens wait for them."""


def share_promptly() -> None:
    """Lets threads that wait for the interpreter have it sooner."""
    sys.setswitchinterval(SWITCH_S)


@contextmanager
def keeping_what_is_loaded() -> Iterator[None]:
    """Takes everything there is for permanent meanwhile.

    A full collection looks through the 600,000 objects that the libraries of a model bring: 0.3 to 0.4 s in which no step ends.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()  # so that libraries can clean up at the end of the process
