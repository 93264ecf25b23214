"""Acknowledgements on their way back: in order per partition, once each, on a thread of their own."""

import logging
import queue
import threading
from collections import defaultdict, deque

from pipeline.transport.base import Acknowledged, Acknowledgement, Partition, TransportError

Outcome = Acknowledged | TransportError

_log = logging.getLogger(__name__)


class Expected:
    """An acknowledgement that a caller waits for."""

    __slots__ = ("on_ack", "outcome", "partition")

    def __init__(self, partition: Partition, on_ack: Acknowledgement):
        self.partition = partition
        self.on_ack = on_ack
        self.outcome: Outcome | None = None


class Acknowledgements:
    """Hands outcomes to callers.

    The library calls back on its I/O thread, and on the *caller's* thread when a record was acknowledged before the
    callback could be attached; a caller that holds a lock would then meet itself. So every outcome passes through a
    line per partition, which keeps the order, and a thread, which keeps callers apart from the I/O.

    Thousands of records pass per second, between three threads that share one interpreter lock. So each side has a lock of its own
    that hardly ever meets another thread, and counts for itself.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[Partition, deque[Expected]] = defaultdict(deque)
        self._settling = threading.Lock()
        self._expected = 0  # counted by senders, who take turns
        self._returned = 0  # counted by the thread below
        self._idle = threading.Condition()
        self._outcomes: queue.SimpleQueue[tuple[Acknowledgement, Outcome] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="kafka-acknowledgements", daemon=True)

    def start(self) -> None:
        """Starts handing out."""
        self._thread.start()

    def expect(self, partition: Partition, on_ack: Acknowledgement) -> Expected:
        """Takes a place in the partition's line, before the record is sent. One caller at a time."""
        expected = Expected(partition, on_ack)
        self._lines[partition].append(expected)
        self._expected += 1
        return expected

    def forget(self, expected: Expected) -> None:
        """Gives the last place in a line back: the record was never sent. One caller at a time, with `expect`."""
        self._lines[expected.partition].remove(expected)
        self._expected -= 1

    def settle(self, expected: Expected, outcome: Outcome) -> None:
        """Takes note of an outcome; only the first one counts."""
        with self._settling:
            if expected.outcome is None:
                expected.outcome = outcome
                self._move(self._lines[expected.partition])

    def settle_all(self, outcome: TransportError) -> None:
        """Gives everything that is still open the same outcome."""
        with self._settling:
            for line in list(self._lines.values()):
                for expected in line:
                    expected.outcome = expected.outcome or outcome
                self._move(line)

    def wait(self, timeout_s: float) -> int:
        """Waits until every callback has returned, and tells how many are open after `timeout_s`."""
        with self._idle:
            self._idle.wait_for(lambda: self._returned == self._expected, timeout_s)
            return self._expected - self._returned

    def stop(self) -> None:
        """Ends the thread after what is in its queue."""
        self._outcomes.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _move(self, line: deque[Expected]) -> None:
        """Lets those at the head of a line go that have their outcome."""
        while line and (outcome := line[0].outcome) is not None:
            self._outcomes.put((line.popleft().on_ack, outcome))

    def _run(self) -> None:
        while (settled := self._outcomes.get()) is not None:
            on_ack, outcome = settled
            try:
                on_ack(outcome)
            except Exception:  # noqa: BLE001 -- a caller's mistake must not end the thread that serves all callers
                _log.exception("an acknowledgement callback raised")
            self._returned += 1
            if self._outcomes.empty():
                with self._idle:
                    self._idle.notify_all()
