"""Kernels that are no more than their numbers: what there is to say about finding kernels needs no compiler.

A number above 99 is on disk from the start.
"""

from pipeline.engine.forms import CannotKeep, Form

NOWHERE = 13
"""The form that cannot be kept."""


def form(number: int) -> Form:
    """Names the kernel that returns the number."""
    return Form(__name__, (number,))


def define(number: int):
    """See `form`."""
    return Named(number)


class Named:
    """Stands for a `Definition`."""

    def __init__(self, number: int):
        self._number = number

    def is_kept(self) -> bool:
        if self._number == NOWHERE:
            raise CannotKeep("/nowhere: read-only")
        return self._number > 99

    def compiled(self):
        return lambda: self._number
