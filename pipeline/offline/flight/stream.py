"""The caller's end of one exchange: rows out on one thread, answers in on another, and nobody who waits for either."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import flight

from pipeline.offline.answer import Answer
from pipeline.offline.flight.wire import BATCH_BYTES, BATCH_ROWS, BODY_SCHEMA, Goodbye, Wanted, read_answers
from pipeline.offline.refusals import Fault
from schemas.errors import InvalidRequest, RecordTooLarge
from schemas.json_value import dump

ROW_BYTES = BATCH_BYTES - 1024
"""The longest body of a row."""
OFFSET_BYTES = 16
"""What a row takes in a batch beside its body."""
HANG_UP_S = 5.0

Numbered = tuple[int, Answer]
Body = tuple[int, bytes]
"""A row's number and its body as JSON."""


class Broken(Exception):
    """The exchange ended before all rows were answered.

    Attributes:
        is_refused: Whether the worker does not want rows such as these.
        was_entered: Whether rows may have reached an engine.
        was_told: Whether the worker said so itself, and that the rows may be sent again.
    """

    def __init__(self, message: str, *, is_refused: bool = False, was_entered: bool = False, was_told: bool = False):
        super().__init__(message)
        self.message = message
        self.is_refused = is_refused
        self.was_entered = was_entered
        self.was_told = was_told


def to_body(fields: Mapping[str, Any]) -> bytes | Fault:
    """The body of a row's request, or why it has none that can be sent."""
    try:
        body = dump(dict(fields))
    except (ValueError, TypeError):
        return Fault(InvalidRequest.code, "the row holds half of a surrogate pair, or a value that JSON does not have")
    return body if len(body) <= ROW_BYTES else Fault(RecordTooLarge.code, f"the row's request has more than {ROW_BYTES} bytes")


class Stream:
    """One exchange, begun as soon as it is made."""

    def __init__(self, client: Any, wanted: Wanted, options: Any):
        self._task = wanted.task
        self._writer, self._reader = client.do_exchange(flight.FlightDescriptor.for_command(wanted.to_bytes()), options)
        self._lock = threading.Condition()
        self._outgoing: deque[Any] = deque()
        self._arrived: list[Numbered] = []
        self._broken: Broken | None = None
        self._was_entered = self._is_closed = self._is_cancelled = False
        self._threads = [threading.Thread(target=work, name=f"bulk-{work.__name__.strip('_')}", daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def send(self, rows: Sequence[Body]) -> None:
        """Queues rows; bodies are no longer than `ROW_BYTES`."""
        with self._lock:
            self._outgoing.extend(_batches(rows))
            self._lock.notify_all()

    def take(self, wait_s: float) -> list[Numbered]:
        """Answers, once there are some or the wait is over.

        Raises:
            Broken: There will be no more.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._arrived or self._broken is not None, wait_s)
            taken, self._arrived = self._arrived, []
            if not taken and self._broken is not None:
                raise self._broken
            return taken

    def close(self, *, is_done: bool) -> None:
        """Hangs up; the worker cancels what it has of the rows, unless they are all answered."""
        with self._lock:
            self._is_closed, self._is_cancelled = True, not is_done
            self._lock.notify_all()
        if is_done:
            self._join()
        self._reader.cancel()
        self._join()
        try:
            self._writer.close()
        except (pa.ArrowException, OSError):  # it was cancelled a moment ago
            return

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(HANG_UP_S)

    def _send(self) -> None:
        try:
            self._writer.begin(BODY_SCHEMA)
            while (batch := self._next()) is not None:
                self._writer.write_batch(batch)
            if not self._is_cancelled:  # a read that fails says it as well, and gRPC aborts the process of whoever says it twice (apache/arrow#49818)
                self._writer.done_writing()
        except (pa.ArrowException, OSError):  # whoever receives is told why
            return

    def _next(self) -> Any:
        with self._lock:
            self._lock.wait_for(lambda: self._outgoing or self._is_closed)
            return None if self._is_closed else self._outgoing.popleft()

    def _receive(self) -> None:
        try:
            _ = self._reader.schema
            self._was_entered = True
            while True:
                self._arrive(self._reader.read_chunk())
        except StopIteration:
            broken = self._break("the worker ended the exchange")
        except Broken as error:
            broken = error
        except (flight.FlightServerError, flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError) as error:
            broken = self._break(said(error), is_refused=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            broken = self._break(said(error))
        with self._lock:
            self._broken = broken
            self._lock.notify_all()

    def _arrive(self, chunk: Any) -> None:
        if chunk.data is None:
            goodbye = Goodbye.model_validate_json(chunk.app_metadata.to_pybytes())
            self._reader.cancel()
            raise self._break(goodbye.message, was_told=goodbye.is_retryable)
        answers = list(read_answers(chunk.data, self._task))
        with self._lock:
            self._arrived += answers
            self._lock.notify_all()

    def _break(self, message: str, *, is_refused: bool = False, was_told: bool = False) -> Broken:
        return Broken(message, is_refused=is_refused, was_entered=self._was_entered, was_told=was_told)


def said(error: Exception) -> str:
    """What the other side said, without what the library adds to it."""
    return str(error).partition(". Detail:")[0].partition(". gRPC client debug")[0]


def _batches(rows: Sequence[Body]) -> list[Any]:
    batches: list[Any] = []
    numbers: list[int] = []
    bodies: list[bytes] = []
    size_bytes = 0
    for number, body in rows:
        if bodies and (size_bytes + len(body) + OFFSET_BYTES > BATCH_BYTES or len(bodies) == BATCH_ROWS):
            batches.append(_batch(numbers, bodies))
            numbers, bodies, size_bytes = [], [], 0
        numbers.append(number)
        bodies.append(body)
        size_bytes += len(body) + OFFSET_BYTES
    return [*batches, _batch(numbers, bodies)] if bodies else batches


def _batch(numbers: list[int], bodies: list[bytes]) -> Any:
    return pa.record_batch([pa.array(numbers, pa.int64()), pa.array(bodies, pa.utf8())], schema=BODY_SCHEMA)
