"""The line between a worker and its producer's process: frames of pickled tuples, over a pair of sockets that nobody else has."""

import pickle
import time
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from pipeline.transport.base import TransportError

LINGER_S = 0.001  # what a step emits leaves in one frame


class Task(NamedTuple):
    """A record to send; `number` names it in its `Outcome`."""

    number: int
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Outcome(NamedTuple):
    """What became of a task: the record's offset, or why there is none."""

    number: int
    offset: int | TransportError


class Note(NamedTuple):
    """A line for the log, which only the worker knows how to write."""

    logger: str
    level: int
    text: str


def send(connection: Connection, frame: object) -> None:
    """Sends a frame.

    Raises:
        OSError: The other end is gone.
    """
    connection.send_bytes(pickle.dumps(frame, pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """Waits for a frame.

    Raises:
        EOFError: The other end is gone.
        OSError: Likewise.
    """
    return pickle.loads(connection.recv_bytes())  # noqa: S301 -- from our own process


def pass_on(items: SimpleQueue[Any], connection: Connection) -> None:
    """Sends what is put into a queue, many items a frame, until it meets None, which it passes on too, or the other end is gone."""
    while True:
        frame = [items.get()]
        if frame[0] is not None:
            time.sleep(LINGER_S)
        try:
            while frame[-1] is not None:
                frame.append(items.get_nowait())
        except Empty:
            pass
        try:
            send(connection, frame)
        except OSError:
            return
        if frame[-1] is None:
            return
