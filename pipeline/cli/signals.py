"""Ctrl-C and SIGTERM as a question that work asks between its steps, so that it can end in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interruption:
    """The signal that came, if one did."""

    number: int | None = None


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Takes the first signal as a wish; the second one does what it always does."""
    came = Interruption()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def take(number: int, _frame: FrameType | None) -> None:
        came.number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, take)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
