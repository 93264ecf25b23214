"""The producer's process: `python -m pipeline.transport.kafka.apart DESCRIPTOR`, started by `ApartProducer` and ended by the end of its line."""

import logging
import signal
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue

from pipeline.interpreter import share_promptly
from pipeline.transport.base import Acknowledged, Partition, Producer, TransportError
from pipeline.transport.kafka.apart.line import Note, Outcome, Task, pass_on, receive, send
from pipeline.transport.kafka.transport import KafkaTransport
from schemas.record import Encoded

LAST_WORDS_S = 5.0
"""How long what was handed over before the worker died may take to reach the log."""

Outgoing = SimpleQueue[Outcome | Note | None]


class Notes(logging.Handler):
    """Sends what the library logs to the worker."""

    def __init__(self, outgoing: Outgoing):
        super().__init__()
        self._outgoing = outgoing

    def emit(self, record: logging.LogRecord) -> None:
        """Puts the line into the queue."""
        self._outgoing.put(Note(record.name, record.levelno, self.format(record)))


def main(descriptor: int) -> None:
    """Makes a producer as the worker says, and sends what the worker sends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the worker ends this process when it has drained
        signal.signal(number, signal.SIG_IGN)
    share_promptly()
    line = Connection(descriptor)
    outgoing: Outgoing = SimpleQueue()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[Notes(outgoing)])
    settings, connect_timeout_s = receive(line)
    transport = KafkaTransport(settings, revoke_budget_s=0.0, connect_timeout_s=connect_timeout_s)
    try:
        producer = transport.producer()
    except TransportError as error:
        send(line, error)
        return
    send(line, None)
    writer = threading.Thread(target=pass_on, args=(outgoing, line), daemon=True)
    writer.start()
    producer.close(0.0 if serve(line, producer, outgoing) else LAST_WORDS_S)
    transport.close()
    outgoing.put(None)
    writer.join()


def serve(line: Connection, producer: Producer, outgoing: Outgoing) -> bool:
    """Sends until the worker says that it is done, or has gone without a word; tells which."""
    while True:
        try:
            frame: list[Task | None] = receive(line)
        except (EOFError, OSError):
            return False
        for task in frame:
            if task is None:
                return True
            take(task, producer, outgoing)


def take(task: Task, producer: Producer, outgoing: Outgoing) -> None:
    """Sends one record."""
    record = Encoded(key=task.key, value=task.value, headers=task.headers)
    try:
        producer.send(Partition(task.topic, task.partition), record, partial(tell, outgoing, task.number))
    except TransportError as error:
        outgoing.put(Outcome(task.number, error))


def tell(outgoing: Outgoing, number: int, ack: Acknowledged | TransportError) -> None:
    """Tells the worker what became of a record."""
    outgoing.put(Outcome(number, ack.offset if isinstance(ack, Acknowledged) else ack))


if __name__ == "__main__":
    main(int(sys.argv[1]))
