"""The life of a worker process, and the signals that end it."""

import signal
import threading
from enum import StrEnum
from types import FrameType

import structlog

log = structlog.get_logger(__name__)


class State(StrEnum):
    """Where the process stands."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    CLOSED = "closed"


class Lifecycle:
    """Turns signals into two questions that the loop asks: should I stop, and should I leave at once?

    The first SIGTERM or SIGINT asks for a drain, the second ends it. Handlers only set events: what they mean is done by
    the loop, at a step's border.
    """

    def __init__(self) -> None:
        self.state = State.STARTING
        self._stop = threading.Event()
        self._out = threading.Event()

    def listen(self) -> None:
        """Installs the handlers; only the main thread may."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def stop(self) -> None:
        """Asks for a drain, as SIGTERM does."""
        self._stop.set()

    def wants_stop(self) -> bool:
        """Tells whether nothing new is to be taken."""
        return self._stop.is_set()

    def wants_out(self) -> bool:
        """Tells whether to leave what runs."""
        return self._out.is_set()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            self._out.set()
        self._stop.set()
