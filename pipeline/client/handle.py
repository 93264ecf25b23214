"""One submitted request, for blocking callers."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from pipeline.client.connection import Connection
from pipeline.client.outcome import Delta, Result
from pipeline.client.transcript import Cursor, Transcript
from pipeline.transport.base import TransportError
from schemas.errors import InvalidRequest
from schemas.record import Origin


class Handle:
    """A request that the log has taken. As a context manager it cancels the request when it is left unfinished.

    Attributes:
        origin: Where the log put it.
    """

    def __init__(self, connection: Connection, transcript: Transcript, origin: Origin, *, is_streamed: bool):
        self._connection = connection
        self._transcript = transcript
        self._is_streamed = is_streamed
        self.origin = origin

    @property
    def custom_id(self) -> str:
        """Identity of the request."""
        return self._transcript.custom_id

    @property
    def is_done(self) -> bool:
        """Whether the answer is complete."""
        return self._transcript.is_closed

    def __iter__(self) -> Iterator[Delta]:
        """Yields the answer from its start, waiting without limit for what is not there yet."""
        return self.deltas()

    def deltas(self, timeout_s: float | None = None) -> Iterator[Delta]:
        """Yields the answer from its start; every call begins anew.

        Args:
            timeout_s: The longest silence to wait through; None is unbounded.

        Raises:
            InvalidRequest: The request was not submitted with `"stream": true`.
            PenstockError: The request failed; the class stands for the wire's code.
            TimeoutError: Nothing came for `timeout_s`.
            BrokerUnavailable: Likewise, and the log does not answer either.
        """
        check_streamed(is_streamed=self._is_streamed)
        cursor = Cursor()
        while True:
            is_closed = self._transcript.is_closed  # asked before reading: what comes between is read in the next turn
            cursor, delta = self._transcript.read(cursor)
            if delta is not None:
                yield delta
            elif is_closed:
                self._transcript.result()
                return
            elif not self._transcript.wait(cursor, timeout_s):
                raise self._connection.late(timeout_s)

    def result(self, timeout_s: float | None = None) -> Result:
        """Waits for the whole answer.

        Raises:
            PenstockError: The request failed; the class stands for the wire's code.
            TimeoutError: The answer is not complete after `timeout_s`; the request goes on.
            BrokerUnavailable: Likewise, and the log does not answer either.
        """
        if not self._transcript.wait(None, timeout_s):
            raise self._connection.late(timeout_s)
        return self._transcript.result()

    def cancel(self) -> None:
        """Asks for the end of the request and does not wait for it: unless it ends first, its result will be `Cancelled`.

        Raises:
            TransportError: The log does not take the message.
        """
        if not self.is_done:
            self._connection.cancel(self.custom_id)

    def release(self) -> None:
        """Cancels what is left unfinished, as far as the log can be reached."""
        with suppress(TransportError):
            self.cancel()

    def __enter__(self) -> Self:
        """Nothing to do: the request is on its way."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Cancels what is left unfinished, as far as the log can be reached."""
        self.release()


def check_streamed(*, is_streamed: bool) -> None:
    """Refuses to iterate over an answer that comes in one piece."""
    if not is_streamed:
        raise InvalidRequest('the request was not submitted with "stream": true: ask for its result()', param="stream")
