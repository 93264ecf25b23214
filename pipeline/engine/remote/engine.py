"""The engine of a remote model: requests are streams of a server, a step hands over what has arrived."""

import asyncio
import heapq
import queue
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
import structlog

from pipeline.engine.base import EngineStats, Job, ModelInfo, RequestKey, StepOutput
from pipeline.engine.remote.body import generation_body, guessed_tokens, remote_body
from pipeline.engine.remote.connection import Server, events
from pipeline.engine.remote.transcript import Transcript
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.sequence import Lane
from pipeline.settings import Dialect
from schemas.errors import EngineError, InvalidRequest, PenstockError
from schemas.request import Request

log = structlog.get_logger(__name__)

STEP_WAIT_S = 0.005
"""How long a step waits for a first output: short beside a token's time, and it keeps the worker's loop from spinning."""
FULL_WAIT_S = 0.01
MAX_OUTPUTS = 4_096
"""Outputs that have arrived and were not stepped for; beyond them streams are not read, and the servers' own buffers fill."""
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    path: str
    body: dict[str, Any]


@dataclass(slots=True, eq=False)
class _Stream:
    """One attempt at a request. Its identity tells its outputs from those of an earlier attempt under the same key."""

    key: RequestKey
    job: Job
    future: "Future[None] | None" = None


@dataclass(order=True, slots=True)
class _Turn:
    lane: int
    number: int
    stream: _Stream = field(compare=False)


class RemoteEngine:
    """Serves one model of one server; built by `remote.loading.load_remote`.

    Args:
        info: What the model is, as far as the server says.
        server: Where it is.
        model: The server's name for it.
        dialect: Which fields it takes.
        concurrent: Streams open at a time; the rest waits here, by lane and order of arrival.
    """

    def __init__(self, *, info: ModelInfo, server: Server, model: str, dialect: Dialect, concurrent: int):
        self._info = info
        self._server = server
        self._model = model
        self._dialect = dialect
        self._concurrent = concurrent
        self._numbers = count()
        self._waiting: list[_Turn] = []
        self._running: dict[RequestKey, _Stream] = {}
        self._outputs: queue.Queue[tuple[_Stream, StepOutput]] = queue.Queue(MAX_OUTPUTS)
        self._loop = asyncio.new_event_loop()
        self._client: httpx2.AsyncClient | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"remote-{info.name}", daemon=True)

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._info

    def warm_up(self) -> None:
        """Starts the thread; the server warms itself."""
        if not self._thread.is_alive():
            self._client = self._server.client(self._concurrent)
            self._thread.start()

    def prepare(self, request: Request) -> Job:
        """Puts the request in the server's words.

        Raises:
            InvalidRequest: Or one of its classes: the server does not serve such a request or lacks a field that it sets.
        """
        body = generation_body(request, self._info.name)
        remote = remote_body(body, self._model, self._dialect)
        sampling = body.sampling
        return Job(
            prompt_tokens=guessed_tokens(body),
            max_output_tokens=(sampling.max_tokens or self._info.context_tokens) * sampling.n,
            choices=sampling.n,
            work=_Work(path=request.endpoint.value.removeprefix("/v1/"), body=remote),
        )

    def prepare_likelihood(self, text: str | Sequence[int]) -> Job:  # noqa: ARG002 -- whatever the text
        """Refuses: OpenAI's API has no log-probabilities of a given text."""
        raise InvalidRequest(f"model {self._info.name!r} is served elsewhere, by an API that can't tell how likely a text is", param="model")

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:  # noqa: ARG002 -- the protocol's clock
        """Queues a request."""
        heapq.heappush(self._waiting, _Turn(int(lane), next(self._numbers), _Stream(key, job)))

    def cancel(self, key: RequestKey) -> None:
        """Drops a request; a stream is closed, which tells the server to stop."""
        if (stream := self._running.pop(key, None)) is not None and stream.future is not None:
            stream.future.cancel()
        self._waiting = [turn for turn in self._waiting if turn.stream.key != key]
        heapq.heapify(self._waiting)

    def has_work(self) -> bool:
        """Tells whether a step would do anything."""
        return bool(self._waiting or self._running)

    def step(self, now_s: float) -> Sequence[StepOutput]:  # noqa: ARG002 -- the protocol's clock
        """Opens streams where there is room and hands over what has arrived, waiting a moment for the first."""
        while self._waiting and len(self._running) < self._concurrent:
            stream = heapq.heappop(self._waiting).stream
            self._running[stream.key] = stream
            stream.future = self._submit(self._serve(stream))
        outputs: list[StepOutput] = []
        try:
            arrived = self._outputs.get(timeout=STEP_WAIT_S)
            while True:
                outputs += self._accepted(*arrived)
                arrived = self._outputs.get_nowait()
        except queue.Empty:
            return outputs

    def stats(self) -> EngineStats:
        """Reads the gauges."""
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            waiting_tokens=sum(turn.stream.job.prompt_tokens for turn in self._waiting),
            batch_sequences=len(self._running),
        )

    def closed_batches(self) -> Sequence[ClosedBatch]:
        """Has none to explain."""
        return ()

    def close(self) -> None:
        """Closes every stream and connection and ends the thread."""
        for key in tuple(self._running):
            self.cancel(key)
        if self._thread.is_alive():
            self._submit(self._leave()).result(CLOSE_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_S)
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _accepted(self, stream: _Stream, output: StepOutput) -> list[StepOutput]:
        """Forgets a request with its last output, and passes over what a cancelled attempt left in the queue."""
        if self._running.get(stream.key) is not stream:
            return []
        if output.error is not None or output.usage is not None:
            del self._running[stream.key]
        return [output]

    async def _serve(self, stream: _Stream) -> None:
        work: _Work = stream.job.work
        transcript = Transcript(stream.key, stream.job.choices, stream.job.prompt_tokens)
        try:
            assert self._client is not None  # noqa: S101 -- our own bug: streams open after `warm_up`
            async with aclosing(events(self._client, work.path, work.body)) as arriving:
                async for data in arriving:
                    await self._emit(stream, transcript.read(data))
            await self._emit(stream, transcript.close())
        except PenstockError as error:
            await self._emit(stream, [StepOutput(key=stream.key, error=error)])
        except Exception as error:  # noqa: BLE001 -- a fault of one stream must end this stream, and be told
            log.error("remote_stream_failed", model=self._info.name, error=type(error).__name__)
            await self._emit(stream, [StepOutput(key=stream.key, error=EngineError(f"the engine failed on this request: {type(error).__name__}"))])

    async def _emit(self, stream: _Stream, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            while self._outputs.full():  # noqa: ASYNC110 -- another thread empties it
                await asyncio.sleep(FULL_WAIT_S)
            self._outputs.put_nowait((stream, output))

    async def _leave(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        if self._client is not None:
            await self._client.aclose()
