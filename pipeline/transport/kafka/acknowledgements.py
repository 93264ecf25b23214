"""Acknowledgements on their way back: in order per partition, once each, on a thread of their own."""

import logging
import queue
import threading
from collections import defaultdict, deque

from pipeline.transport.base import Acknowledged, Acknowledgement, Partition, TransportError

_log = logging.getLogger(__name__)


class Expected:
    """An acknowledgement that a caller waits for."""

    __slots__ = ("on_ack", "outcome", "partition")

    def __init__(self, partition: Partition, on_ack: Acknowledgement):
        self.partition = partition
        self.on_ack = on_ack
        self.outcome: Acknowledged | TransportError | None = None


class Acknowledgements:
    """Hands outcomes to callers.

    The library calls back on its I/O thread, and on the *caller's* thread when a record was acknowledged before the
    callback could be attached; a caller that holds a lock would then meet itself. So every outcome passes through a
    line per partition, which keeps the order, and a thread, which keeps callers apart from the I/O.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[Partition, deque[Expected]] = defaultdict(deque)
        self._open = 0
        self._state = threading.Condition()
        self._outcomes: queue.SimpleQueue[tuple[Acknowledgement, Acknowledged | TransportError] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kafka-acknowledgements", daemon=True)

    def start(self) -> None:
        """Starts handing out."""
        self._thread.start()

    def expect(self, partition: Partition, on_ack: Acknowledgement) -> Expected:
        """Takes a place in the partition's line, before the record is sent."""
        expected = Expected(partition, on_ack)
        with self._state:
            self._lines[partition].append(expected)
            self._open += 1
        return expected

    def forget(self, expected: Expected) -> None:
        """Gives the place back: the record was never sent."""
        with self._state:
            self._lines[expected.partition].remove(expected)
            self._close(1)
            self._move(expected.partition)

    def settle(self, expected: Expected, outcome: Acknowledged | TransportError) -> None:
        """Takes note of an outcome; only the first one counts."""
        with self._state:
            if expected.outcome is None:
                expected.outcome = outcome
                self._move(expected.partition)

    def settle_all(self, outcome: TransportError) -> None:
        """Gives everything that is still open the same outcome."""
        with self._state:
            for partition, line in self._lines.items():
                for expected in line:
                    expected.outcome = expected.outcome or outcome
                self._move(partition)

    def wait(self, timeout_s: float) -> int:
        """Waits until every callback has returned, and tells how many are open after `timeout_s`."""
        with self._state:
            self._state.wait_for(lambda: self._open == 0, timeout_s)
            return self._open

    def stop(self) -> None:
        """Ends the thread after what is in its queue."""
        self._outcomes.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _move(self, partition: Partition) -> None:
        """Lets those at the head of the line go that have their outcome."""
        line = self._lines[partition]
        while line and (outcome := line[0].outcome) is not None:
            self._outcomes.put((line.popleft().on_ack, outcome))

    def _close(self, count: int) -> None:
        self._open -= count
        if self._open == 0:
            self._state.notify_all()

    def _run(self) -> None:
        while (settled := self._outcomes.get()) is not None:
            on_ack, outcome = settled
            try:
                on_ack(outcome)
            except Exception:  # noqa: BLE001 -- a caller's mistake must not end the thread that serves all callers
                _log.exception("an acknowledgement callback raised")
            with self._state:
                self._close(1)
