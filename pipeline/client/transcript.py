"""What one request has been answered so far: the reader thread writes it, any number of readers follow it."""

import threading
from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

from pipeline.client.outcome import Delta, Result, raised
from pipeline.delivery.fence import Fence
from schemas.codec import ResultLine
from schemas.events import Begin, Chunk, End, Error, Event, FinishReason, Reset
from schemas.results import Choice, chat_completion, join_logprobs, text_completion


class Cursor(NamedTuple):
    """How far a reader has come: restarts seen, and chunks read since."""

    restarts: int = 0
    chunks: int = 0


class Transcript:
    """Accepted events of one request. It holds one answer and no more, so a slow reader costs no memory beyond that."""

    def __init__(self, custom_id: str):
        self.custom_id = custom_id
        self._fence = Fence()
        self._chunks: list[Chunk] = []
        self._restarts = 0
        self._last_word: End | ResultLine | None = None
        self._fault: Callable[[], Exception] | None = None
        self._changed = threading.Condition()
        self._watchers: list[Callable[[], None]] = []

    @property
    def is_closed(self) -> bool:
        """Whether the last word was said."""
        return self._last_word is not None or self._fault is not None

    def take(self, event: Event, offset: int) -> None:
        """Takes an event as read; the reader's rule decides whether it counts."""
        with self._changed:
            if self.is_closed or not self._fence.admits(event, offset):
                return
            match event:
                case Begin() | Reset():
                    self._restarts += bool(self._chunks)
                    self._chunks.clear()
                case Chunk():
                    self._chunks.append(event)
                case End():
                    self._last_word = event
                case Error():
                    self._fault = lambda: raised(event.code, event.message, event.param, event.retry_after_ms)
        self._announce()

    def take_line(self, line: ResultLine) -> None:
        """Takes a batch-output line; the first one counts."""
        with self._changed:
            if self.is_closed:
                return
            if line.error is None:
                self._last_word = line
            else:
                code, message = line.error.code, line.error.message
                self._fault = lambda: raised(code, message, retry_after_ms=line.retry_after_ms)
        self._announce()

    def fail(self, fault: Callable[[], Exception]) -> None:
        """Closes without an answer."""
        with self._changed:
            if self.is_closed:
                return
            self._fault = fault
        self._announce()

    def read(self, cursor: Cursor) -> tuple[Cursor, Delta | None]:
        """Reads on from `cursor`; None where nothing more is there yet."""
        with self._changed:
            if cursor.restarts != self._restarts:
                voided, cursor = cursor.chunks > 0, Cursor(self._restarts)
                if voided:
                    return cursor, Delta(restarted=True)
            if cursor.chunks == len(self._chunks):
                return cursor, None
            chunk = self._chunks[cursor.chunks]
        delta = Delta(text=chunk.text, token_ids=chunk.token_ids, index=chunk.index, logprobs=chunk.logprobs)
        return Cursor(cursor.restarts, cursor.chunks + 1), delta

    def wait(self, cursor: Cursor | None, timeout_s: float | None) -> bool:
        """Waits for more than `cursor` has seen, or for the last word only; tells whether it came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_closed if cursor is None else self.has_news(cursor), timeout_s)

    def has_news(self, cursor: Cursor) -> bool:
        """Tells whether there is more than `cursor` has seen, or the last word was said."""
        return self.is_closed or cursor != Cursor(self._restarts, len(self._chunks))

    def watch(self, watcher: Callable[[], None]) -> None:
        """Calls `watcher` after every change from now on, on the thread that made it."""
        with self._changed:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Ends that."""
        with self._changed:
            self._watchers.remove(watcher)

    def result(self) -> Result:
        """The whole answer of a closed transcript.

        Raises:
            PenstockError: The request failed; the class stands for the wire's code.
            BrokerUnavailable: The log was lost before the answer came.
        """
        if self._fault is not None:
            raise self._fault()
        match self._last_word:
            case ResultLine():
                return Result(custom_id=self.custom_id, body=self._last_word.body or {})
            case End():
                return self._assembled(self._last_word)
            case None:
                raise AssertionError("the transcript is still open")

    def _announce(self) -> None:
        with self._changed:
            self._changed.notify_all()
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher()

    def _assembled(self, end: End) -> Result:
        pieces = [[chunk for chunk in self._chunks if chunk.index == index] for index in range(len(end.finish_reasons))]
        choices = [_choice(chunks, reason) for chunks, reason in zip(pieces, end.finish_reasons, strict=True)]
        assemble = chat_completion if end.head.object == "chat.completion.chunk" else text_completion
        return Result(
            custom_id=self.custom_id,
            body=assemble(end.head, choices, end.usage),
            token_ids=tuple(tuple(token for chunk in chunks for token in chunk.token_ids) for chunks in pieces),
            restarts=self._restarts,
        )


def _choice(chunks: Sequence[Chunk], finish_reason: FinishReason) -> Choice:
    return Choice(
        text="".join(chunk.text for chunk in chunks),
        finish_reason=finish_reason,
        logprobs=reduce(join_logprobs, (chunk.logprobs for chunk in chunks), None),
    )
