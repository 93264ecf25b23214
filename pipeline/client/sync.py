"""The blocking client."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from pipeline.client.connection import open_connection
from pipeline.client.handle import Handle
from pipeline.client.outcome import Delta, Result
from pipeline.client.submission import Options, Submission, chat_body, completion_body
from pipeline.client.transcript import Transcript
from pipeline.settings import Settings, load
from pipeline.transport.base import BrokerUnavailable, Transport
from schemas.errors import Overloaded
from schemas.record import Origin
from schemas.request import Endpoint

MAX_OPEN = 1_024
TIMEOUT_S = 30.0

T = TypeVar("T")


class Client:
    """Talks to workers through the log. Thread-safe; close it when done.

    Args:
        settings: Where the log is; read from the environment unless given.
        transport: An open transport to use instead; it stays the caller's to close.
        timeout_s: How long the log may be away before a call fails with `BrokerUnavailable`.
        max_open: How many requests may be unanswered at a time; `submit` waits for room.
    """

    def __init__(
        self, settings: Settings | None = None, transport: Transport | None = None, *, timeout_s: float = TIMEOUT_S, max_open: int = MAX_OPEN
    ):
        self._connection = open_connection(settings, transport, timeout_s=timeout_s, max_open=max_open)

    @classmethod
    def connect(cls, bootstrap_servers: str, *, topic_prefix: str | None = None, timeout_s: float = TIMEOUT_S, max_open: int = MAX_OPEN) -> Self:
        """A client of the Kafka cluster at `bootstrap_servers`, all else as the environment says."""
        flags = {"transport": "kafka", "kafka": {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix}}
        return cls(load(flags), timeout_s=timeout_s, max_open=max_open)

    @classmethod
    def embedded(cls, data_dir: Path | None = None, *, timeout_s: float = TIMEOUT_S, max_open: int = MAX_OPEN) -> Self:
        """A client of the embedded log on this machine."""
        return cls(load({"transport": "embedded", "data_dir": data_dir}), timeout_s=timeout_s, max_open=max_open)

    def submit(self, body: Mapping[str, Any], **options: Unpack[Options]) -> Handle:
        """Sends a request and returns once the log has it.

        Args:
            body: The endpoint's OpenAI body.
            options: See `Options`.

        Raises:
            BrokerUnavailable: The log does not answer; whether it has the request is not known.
            UnknownTopic: The topics do not exist: start a worker, or run `penstock topics apply`.
            Overloaded: As many requests as allowed are unanswered, and none ended in time.
            DuplicateRequest: This client has submitted that `custom_id` before.
            RecordRejected: The request is too large.
        """
        submission = Submission.of(body, options)
        transcript = Transcript(submission.custom_id)
        self._connect()
        self._take_slot()
        posted = self._connection.post(submission, transcript)
        try:
            at = self._wait(posted)
        except Exception:
            self._connection.abandon(submission.custom_id)
            raise
        except BaseException:
            self._connection.disown(submission.custom_id)
            raise
        return Handle(self._connection, transcript, Origin(*at.partition, at.offset), is_streamed=submission.is_streamed)

    def stream(self, body: Mapping[str, Any], **options: Unpack[Options]) -> Iterator[Delta]:
        """Submits with `"stream": true` and yields the answer as it comes; leaving the loop early cancels the request."""
        return _followed(self.submit({**body, "stream": True}, **options))

    def chat(self, messages: str | Sequence[Mapping[str, Any]], *, model: str, timeout_s: float | None = None, **parameters: Any) -> Result:
        """Sends a conversation, or one user message, and waits for the answer."""
        return self.submit(chat_body(messages, model, parameters)).result(timeout_s)

    def complete(self, prompt: str | Sequence[int], *, model: str, timeout_s: float | None = None, **parameters: Any) -> Result:
        """Sends a prompt, as text or token ids, and waits for its continuation."""
        return self.submit(completion_body(prompt, model, parameters), url=Endpoint.COMPLETIONS).result(timeout_s)

    def cancel(self, custom_id: str) -> None:
        """Asks for the end of any request of that name, whoever submitted it; returns once the log has the message."""
        self._connect()
        self._wait(self._connection.cancel(custom_id))

    def close(self) -> None:
        """Lets go of the log; requests that are still open go on in the worker, unread."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Nothing to do: the first call connects."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes."""
        self.close()

    def _connect(self) -> None:
        self._wait(self._connection.connect(), grace_s=self._connection.timeout_s)

    def _take_slot(self) -> None:
        slots = self._connection.slots
        slot = slots.take()
        try:
            slot.result(self._connection.timeout_s)
        except BaseException as error:
            slots.withdraw(slot)
            if isinstance(error, TimeoutError):
                raise Overloaded(f"{slots.limit} requests are unanswered: wait for some, or raise max_open") from None
            raise

    def _wait(self, future: Future[T], grace_s: float = 0.0) -> T:
        timeout_s = self._connection.timeout_s + grace_s
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise BrokerUnavailable(f"no answer from the log within {timeout_s:g} s") from None


def _followed(handle: Handle) -> Iterator[Delta]:
    with handle:
        yield from handle
