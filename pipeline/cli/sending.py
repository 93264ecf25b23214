"""Sends the lines of a batch file, without waiting for the answers or with."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.cli.batch_file import BadLine, Line, failed, succeeded
from pipeline.client import Client, Handle
from pipeline.client.submission import Submission
from pipeline.transport.base import Acknowledged, Producer, RecordRejected, TransportError
from schemas.errors import PenstockError
from schemas.record import Origin

ROUND = 1_000
"""Records between two waits for their acknowledgements."""
FLUSH_S = 30.0
OPEN_REQUESTS = 256
"""Requests that wait for their answers at a time: enough to fill the largest batches several times over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one line: where the log put it, or why it did not."""

    name: str
    origin: Origin | None = None
    error: Exception | None = None


def send(producer: Producer, topic: str, lines: Iterable[Line | BadLine]) -> Iterator[Sent]:
    """Writes requests to the log, and tells of each in the order of the file once the log has it.

    Raises:
        BrokerUnavailable: The log does not answer; what was told of is in it.
    """
    lines = iter(lines)
    while turn := tuple(islice(lines, ROUND)):
        answers: dict[int, Acknowledged | Exception] = {}
        for number, line in enumerate(turn):
            _post(producer, topic, line, number, answers)
        producer.flush(FLUSH_S)
        yield from (_sent(line, answers[number]) for number, line in enumerate(turn))


def _post(producer: Producer, topic: str, line: Line | BadLine, number: int, answers: dict[int, Acknowledged | Exception]) -> None:
    if isinstance(line, BadLine):
        answers[number] = line.error
        return
    try:
        submission = Submission.of(line.body, {"custom_id": line.custom_id, "url": line.url})
        where = producer.partition_for(topic, submission.key.encode())
        producer.send(where, submission.encode(), lambda answer: answers.update({number: answer}))
    except (PenstockError, RecordRejected, ValueError) as error:
        answers[number] = error


def _sent(line: Line | BadLine, answer: Acknowledged | Exception) -> Sent:
    name = f"line {line.number}" if isinstance(line, BadLine) else line.custom_id
    if isinstance(answer, Acknowledged):
        return Sent(name=name, origin=Origin(*answer.partition, answer.offset))
    if isinstance(answer, TransportError) and not isinstance(answer, RecordRejected):
        raise answer
    return Sent(name=name, error=answer)


def ask(client: Client, lines: Iterable[Line | BadLine], timeout_s: float | None) -> Iterator[dict[str, Any]]:
    """Sends requests and yields their output lines in the order of the file; those left open at the end are cancelled.

    Raises:
        TimeoutError: Not all answers came within `timeout_s`.
        BrokerUnavailable: The log does not answer.
    """
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    waiting: deque[Handle | dict[str, Any]] = deque()
    try:
        for line in lines:
            waiting.append(_submit(client, line))
            if len(waiting) > OPEN_REQUESTS:
                yield _answer(waiting[0], until_s)
                waiting.popleft()
        while waiting:
            yield _answer(waiting[0], until_s)
            waiting.popleft()
    finally:
        for asked in waiting:
            if isinstance(asked, Handle):
                asked.release()


def _submit(client: Client, line: Line | BadLine) -> Handle | dict[str, Any]:
    if isinstance(line, BadLine):
        return failed(None, line.error)
    try:
        return client.submit(line.body, custom_id=line.custom_id, url=line.url)
    except PenstockError as error:
        return failed(line.custom_id, error)


def _answer(asked: Handle | dict[str, Any], until_s: float | None) -> dict[str, Any]:
    if not isinstance(asked, Handle):
        return asked
    try:
        return succeeded(asked.result(None if until_s is None else max(until_s - time.monotonic(), 0.0)))
    except PenstockError as error:
        return failed(asked.custom_id, error)
