"""A bound on open requests that both blocking and asynchronous callers can wait for."""

import threading
from collections import deque
from concurrent.futures import Future


class Slots:
    """Hands out a fixed number of slots, first come first served."""

    def __init__(self, limit: int):
        self.limit = limit
        self._free = limit
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    def take(self) -> Future[None]:
        """Asks for a slot; the future is done once it is there. Cancel it to stop waiting."""
        slot: Future[None] = Future()
        with self._lock:
            if self._free == 0:
                self._waiting.append(slot)
                return slot
            self._free -= 1
        slot.set_result(None)
        return slot

    def give(self) -> None:
        """Returns a slot."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                slot = self._waiting.popleft()
            if slot.set_running_or_notify_cancel():
                slot.set_result(None)
                return

    def withdraw(self, slot: Future[None]) -> None:
        """Stops waiting for a slot, and returns it if it came at the last moment."""
        if not slot.cancel():
            self.give()
