"""The worker's end of a producer in a process of its own."""

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Self

from pipeline.settings import KafkaSettings
from pipeline.transport.base import (
    Acknowledged,
    Acknowledgement,
    BrokerUnavailable,
    Partition,
    ProducerFatal,
    RecordRejected,
    TransportError,
)
from pipeline.transport.kafka.admission import Admission
from pipeline.transport.kafka.apart.line import Note, Outcome, Task, pass_on, receive, send
from pipeline.transport.kafka.producer import EXIT_TIMEOUT_S
from schemas.record import Encoded

START_TIMEOUT_S = 60.0  # of an interpreter, on a machine that is busy; the search for a broker comes on top
GONE_WITHIN_S = 0.5  # a process that was told to go, when nothing is left to wait for

_log = logging.getLogger(__name__)


class ApartProducer:
    """Hands records to a process that sends them, and acknowledgements back.

    The process ends with its line: closed here, or broken since the worker is no more. If it ends by itself, this producer is fatal.
    """

    def __init__(self, settings: KafkaSettings, admission: Admission, connect_timeout_s: float):
        self._admission = admission
        self._open: dict[int, tuple[Partition, Acknowledgement]] = {}
        self._numbers = count()
        self._sending = threading.Lock()
        self._idle = threading.Condition()
        self._outgoing: SimpleQueue[Task | None] = SimpleQueue()
        self._end_of_line: TransportError | None = None
        self._line, self._process = _start(settings, connect_timeout_s)
        self._writer = threading.Thread(target=pass_on, args=(self._outgoing, self._line), name="kafka-apart-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="kafka-apart-reader", daemon=True)
        self._writer.start()
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def send(self, partition: Partition, record: Encoded, on_ack: Acknowledgement) -> None:
        """Queues a record.

        Raises:
            UnknownTopic: The topic or partition does not exist.
            RecordRejected: The record is too large for the topic, or the broker's ACLs do not let us write to it.
            ProducerFatal: The producer is closed, or its process has ended.
        """
        self._admission.admit(partition, record)
        with self._sending:  # the end of the line takes the lock to fail what is open: nothing comes after that
            if self._end_of_line is not None:
                raise ProducerFatal(f"{self._end_of_line}: make another")
            number = next(self._numbers)
            self._open[number] = (partition, on_ack)
            self._outgoing.put(Task(number, *partition, record.key, record.value, record.headers))

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return self._admission.partitions(topic)

    def partition_for(self, topic: str, key: bytes) -> Partition:
        """Where a record with that key belongs."""
        return self._admission.partition_for(topic, key)

    def flush(self, timeout_s: float) -> None:
        """Waits until everything sent was acknowledged or has failed.

        Raises:
            BrokerUnavailable: Something is still open after `timeout_s`.
        """
        with self._idle:
            if not self._idle.wait_for(lambda: not self._open, timeout_s):
                raise BrokerUnavailable(f"{len(self._open)} records are not acknowledged after {timeout_s:.1f} s")

    def close(self, timeout_s: float) -> None:
        """Flushes for as long as it is given, then ends the process and tells those still waiting."""
        deadline_s = time.monotonic() + timeout_s
        with self._sending:
            is_first = self._end_of_line is None
            self._end_of_line = self._end_of_line or BrokerUnavailable("the producer was closed before the record was acknowledged")
        if is_first:
            try:
                self.flush(timeout_s)
            except BrokerUnavailable:
                _log.warning("closing the producer with %d records not acknowledged", len(self._open))
            self._outgoing.put(None)
        self._end(max(deadline_s - time.monotonic(), GONE_WITHIN_S))

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes, leaving a while for what was sent."""
        self.close(timeout_s=EXIT_TIMEOUT_S)

    def _end(self, timeout_s: float) -> None:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._outgoing.put(None)  # where the end was not of our making, the writer waits for its next frame still
        self._writer.join()
        self._line.close()

    def _read(self) -> None:
        """Hands out acknowledgements until the line ends; what is open then has failed."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                for item in receive(self._line):
                    if isinstance(item, Note):
                        logging.getLogger(item.logger).log(item.level, "%s", item.text)
                    elif item is not None:
                        self._settle(item)
                self._tell_if_idle()
        with self._sending:
            if self._end_of_line is None:
                self._end_of_line = ProducerFatal("the producer's process has ended")
        for number in tuple(self._open):
            self._settle(Outcome(number, self._end_of_line))
        self._tell_if_idle()

    def _settle(self, outcome: Outcome) -> None:
        partition, on_ack = self._open[outcome.number]
        if isinstance(outcome.offset, RecordRejected):  # what is known of the topic let it pass
            self._admission.forget(partition.topic)
        try:
            on_ack(outcome.offset if isinstance(outcome.offset, TransportError) else Acknowledged(partition, outcome.offset))
        except Exception:  # noqa: BLE001 -- a caller's mistake must not end the thread that serves all callers
            _log.exception("an acknowledgement callback raised")
        del self._open[outcome.number]

    def _tell_if_idle(self) -> None:
        if not self._open:
            with self._idle:
                self._idle.notify_all()


def _start(settings: KafkaSettings, connect_timeout_s: float) -> tuple[Connection, "subprocess.Popen[bytes]"]:
    """Starts the process and waits until its producer has found the cluster.

    Raises:
        TransportError: It has not.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", "-m", "pipeline.transport.kafka.apart", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603 -- our own module
    line = Connection(ours.detach())
    failure: TransportError | None = BrokerUnavailable("interrupted")
    try:
        failure = _greet(line, settings, connect_timeout_s)
    finally:
        if failure is not None:
            process.kill()
            process.wait()
            line.close()
    if failure is not None:
        raise failure
    return line, process


def _greet(line: Connection, settings: KafkaSettings, connect_timeout_s: float) -> TransportError | None:
    """Tells the process what to connect to, and returns why it has not."""
    timeout_s = START_TIMEOUT_S + connect_timeout_s
    try:
        send(line, (settings, connect_timeout_s))
        if not line.poll(timeout_s):
            return BrokerUnavailable(f"the producer's process was not ready within {timeout_s:.0f} s")
        failure: TransportError | None = receive(line)
    except (EOFError, OSError):
        return BrokerUnavailable("the producer's process ended while it started; its last words are on stderr")
    return failure
