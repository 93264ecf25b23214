"""Reads ahead in a thread, so that the engine does not wait for disks; bounded, so that nothing piles up."""

import queue
import threading
from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")
WAIT_S = 0.1


class Nothing(Enum):
    """What there may be instead of an item."""

    YET = "yet"
    MORE = "more"


class Prefetch(Generic[T]):
    """An iterator's items, of which `depth` are read before they are asked for. What it raises is raised by `take`."""

    def __init__(self, items: Iterator[T], depth: int = 1):
        self._items = items
        self._ready: queue.Queue[T | Nothing | BaseException] = queue.Queue(depth)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def take(self, *, waits: bool) -> T | Nothing:
        """The next item; `Nothing.YET` where it is not there in time, `Nothing.MORE` at the end."""
        try:
            item = self._ready.get(block=waits, timeout=WAIT_S)
        except queue.Empty:
            return Nothing.YET
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stops reading and waits until the thread is out of the iterator."""
        self._is_closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(Nothing.MORE)
        except BaseException as error:  # noqa: BLE001 -- it belongs to whoever takes
            self._put(error)

    def _put(self, item: T | Nothing | BaseException) -> bool:
        while not self._is_closed.is_set():
            try:
                self._ready.put(item, timeout=WAIT_S)
            except queue.Full:
                continue
            return True
        return False
