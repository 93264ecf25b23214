"""The asynchronous client: the same core, waited for without blocking the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from pipeline.client.connection import Connection, open_connection
from pipeline.client.handle import check_streamed
from pipeline.client.outcome import Delta, Result
from pipeline.client.submission import Options, Submission, chat_body, completion_body
from pipeline.client.sync import MAX_OPEN, TIMEOUT_S
from pipeline.client.transcript import Cursor, Transcript
from pipeline.settings import Settings, load
from pipeline.transport.base import BrokerUnavailable, Transport, TransportError
from schemas.errors import Overloaded
from schemas.record import Origin
from schemas.request import Endpoint

T = TypeVar("T")


class AsyncHandle:
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

    def __aiter__(self) -> AsyncIterator[Delta]:
        """Yields the answer from its start, waiting without limit for what is not there yet."""
        return self.deltas()

    async def deltas(self, timeout_s: float | None = None) -> AsyncIterator[Delta]:
        """Yields the answer from its start; every call begins anew. Raises as `Handle.deltas` does."""
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
            else:
                await self._until(partial(self._transcript.has_news, cursor), timeout_s)

    async def result(self, timeout_s: float | None = None) -> Result:
        """Waits for the whole answer. Raises as `Handle.result` does."""
        await self._until(lambda: self._transcript.is_closed, timeout_s)
        return self._transcript.result()

    async def cancel(self) -> None:
        """Asks for the end of the request and does not wait for it: unless it ends first, its result will be `Cancelled`."""
        if not self.is_done:
            self._connection.cancel(self.custom_id)

    async def __aenter__(self) -> Self:
        """Nothing to do: the request is on its way."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Cancels what is left unfinished, as far as the log can be reached."""
        with suppress(TransportError):
            await self.cancel()

    async def _until(self, is_so: Callable[[], bool], timeout_s: float | None) -> None:
        """Waits for changes of the transcript until `is_so`."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is gone, and whoever waited in it
                loop.call_soon_threadsafe(changed.set)

        self._transcript.watch(wake)
        try:
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise self._connection.late(timeout_s) from None
        finally:
            self._transcript.unwatch(wake)


class AsyncClient:
    """Talks to workers through the log, for use in one event loop. Arguments as for `Client`."""

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

    async def submit(self, body: Mapping[str, Any], **options: Unpack[Options]) -> AsyncHandle:
        """Sends a request and returns once the log has it. Raises as `Client.submit` does."""
        submission = Submission.of(body, options)
        transcript = Transcript(submission.custom_id)
        await self._connect()
        await self._take_slot()
        posted = self._connection.post(submission, transcript)
        try:
            at = await self._wait(posted)
        except Exception:
            self._connection.abandon(submission.custom_id)
            raise
        except BaseException:
            self._connection.disown(submission.custom_id)
            raise
        return AsyncHandle(self._connection, transcript, Origin(*at.partition, at.offset), is_streamed=submission.is_streamed)

    async def stream(self, body: Mapping[str, Any], **options: Unpack[Options]) -> AsyncIterator[Delta]:
        """Submits with `"stream": true` and yields the answer as it comes; closing the iterator early cancels the request."""
        async with await self.submit({**body, "stream": True}, **options) as handle:
            async for delta in handle:
                yield delta

    async def chat(self, messages: str | Sequence[Mapping[str, Any]], *, model: str, timeout_s: float | None = None, **parameters: Any) -> Result:
        """Sends a conversation, or one user message, and waits for the answer."""
        handle = await self.submit(chat_body(messages, model, parameters))
        return await handle.result(timeout_s)

    async def complete(self, prompt: str | Sequence[int], *, model: str, timeout_s: float | None = None, **parameters: Any) -> Result:
        """Sends a prompt, as text or token ids, and waits for its continuation."""
        handle = await self.submit(completion_body(prompt, model, parameters), url=Endpoint.COMPLETIONS)
        return await handle.result(timeout_s)

    async def cancel(self, custom_id: str) -> None:
        """Asks for the end of any request of that name, whoever submitted it; returns once the log has the message."""
        await self._connect()
        await self._wait(self._connection.cancel(custom_id))

    async def close(self) -> None:
        """Lets go of the log; requests that are still open go on in the worker, unread."""
        await asyncio.to_thread(self._connection.close)

    async def __aenter__(self) -> Self:
        """Nothing to do: the first call connects."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes."""
        await self.close()

    async def _connect(self) -> None:
        await self._wait(self._connection.connect(), grace_s=self._connection.timeout_s)

    async def _take_slot(self) -> None:
        slots = self._connection.slots
        slot = slots.take()
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                await asyncio.wrap_future(slot)
        except BaseException as error:
            slots.withdraw(slot)
            if isinstance(error, TimeoutError):
                raise Overloaded(f"{slots.limit} requests are unanswered: wait for some, or raise max_open") from None
            raise

    async def _wait(self, future: Future[T], grace_s: float = 0.0) -> T:
        timeout_s = self._connection.timeout_s + grace_s
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise BrokerUnavailable(f"no answer from the log within {timeout_s:g} s") from None
