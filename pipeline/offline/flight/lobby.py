"""Where callers wait for the worker's loop: open while it serves, closed with a reason before and after."""

import threading

from pipeline.offline.flight.exchange import Ended, Exchange
from pipeline.offline.flight.wire import Welcome

LOADING = "the worker loads its models: try again"
DRAINING = "the worker is draining: try again, here or elsewhere"


class Lobby:
    """Counts callers in and out; what they have in common with the loop, beside their exchanges.

    Args:
        exchanges: How many there may be at a time.
    """

    def __init__(self, exchanges: int):
        self._limit = exchanges
        self._lock = threading.Lock()
        self._present: set[Exchange] = set()
        self._arrived: list[Exchange] = []
        self._closed_for = LOADING
        self._welcome: Welcome | None = None

    def open(self, welcome: Welcome) -> None:
        """Lets callers in, and tells them of the worker."""
        with self._lock:
            self._welcome = welcome

    def close(self) -> None:
        """Lets nobody in any more."""
        with self._lock:
            self._welcome = None
            self._closed_for = DRAINING

    def welcome(self) -> Welcome:
        """What the worker is.

        Raises:
            Ended: It does not serve, yet or any more.
        """
        with self._lock:
            return self._served()

    def enter(self, exchange: Exchange) -> None:
        """Lets a caller in.

        Raises:
            Ended: There is no room, or the worker does not serve.
        """
        with self._lock:
            self._served()
            if len(self._present) >= self._limit:
                raise Ended(f"{self._limit} callers are here already: try again", is_retryable=True)
            self._present.add(exchange)
            self._arrived.append(exchange)

    def leave(self, exchange: Exchange) -> None:
        """Takes leave of a caller."""
        with self._lock:
            self._present.discard(exchange)

    def arrivals(self) -> list[Exchange]:
        """Those who came since the last time."""
        if not self._arrived:  # every step asks: without the lock
            return []
        with self._lock:
            arrived, self._arrived = self._arrived, []
            return arrived

    @property
    def callers(self) -> int:
        """How many there are."""
        return len(self._present)

    def _served(self) -> Welcome:
        if self._welcome is None:
            raise Ended(self._closed_for, is_retryable=True)
        return self._welcome
