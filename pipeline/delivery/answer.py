"""How one request is answered: as a stream of events, or as one batch-output line. Two classes, one set of verbs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from pipeline.delivery.outbox import Channel, Outbox, Posted
from pipeline.delivery.routes import Route
from pipeline.engine.base import StepOutput
from schemas.codec import ResultLine, encode_event, encode_result, error_event
from schemas.errors import PenstockError
from schemas.events import Begin, Chunk, End, Event, FinishReason, Reset, StreamHead, Usage
from schemas.pooled_results import Pooled, pooled_body
from schemas.request import Endpoint, GenerationBody, Request
from schemas.results import Choice, chat_completion, join_logprobs, text_completion

ID_PREFIXES = {
    Endpoint.CHAT: "chatcmpl",
    Endpoint.COMPLETIONS: "cmpl",
    Endpoint.EMBEDDINGS: "embd",
    Endpoint.SCORE: "score",
    Endpoint.RERANK: "rerank",
    Endpoint.CLASSIFY: "classify",
}
"""What the ids of OpenAI's and vLLM's objects begin with."""


class Answer(Protocol):
    """What the worker says to a requester, in the order in which it may say it: open, take and flush, then end or fail."""

    def open(self) -> None:
        """Announces the attempt."""
        ...

    def take(self, output: StepOutput) -> None:
        """Adds output of one step."""
        ...

    def flush(self, *, is_due: bool, max_tokens: int) -> bool:
        """Sends what is pending when it is due, the first of the answer, or `max_tokens` or more; tells whether nothing is left to send."""
        ...

    def restart(self, reason: str) -> None:
        """Voids everything said so far: the engine starts this request again."""
        ...

    def end(self, usage: Usage) -> None:
        """Says the last word of a request that went well."""
        ...

    def fail(self, error: PenstockError) -> None:
        """Says the last word of a request that did not."""
        ...


def answer_for(
    request: Request,
    route: Route,
    epoch: int,
    outbox: Outbox,
    channel: Channel,
    *,
    on_first: Callable[[Posted], None],
    on_settled: Callable[[], None],
) -> Answer:
    """Picks the form that the requester asked for.

    `on_first` is called when the log has acknowledged the first event with tokens, where there are events, and `on_settled` when it has
    the last word.
    """
    if request.stream:
        return StreamAnswer(request=request, route=route, epoch=epoch, outbox=outbox, channel=channel, on_first=on_first, on_settled=on_settled)
    return ResultAnswer(request=request, route=route, epoch=epoch, outbox=outbox, channel=channel, on_settled=on_settled)


@dataclass(slots=True)
class _Pending:
    """Tokens of one choice that no event has carried yet."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: dict[str, Any] | None = None
    is_open: bool = False
    finish_reason: FinishReason | None = None

    def add(self, output: StepOutput) -> None:
        """Adds what a step gave."""
        self.text += output.text
        self.token_ids.extend(output.token_ids)
        self.logprobs = join_logprobs(self.logprobs, output.logprobs)
        self.finish_reason = output.finish_reason or self.finish_reason


@dataclass(slots=True, kw_only=True)
class StreamAnswer:
    """Events in one partition of the reply topic.

    Nothing but `begin` is sent before its acknowledgement: its offset is the attempt that every other event names. What
    the engine makes meanwhile waits here.
    """

    request: Request
    route: Route
    epoch: int
    outbox: Outbox
    channel: Channel
    on_first: Callable[[Posted], None]
    on_settled: Callable[[], None]
    head: StreamHead = field(init=False)
    attempt: int | None = None
    first: Posted | None = None
    seq: int = 0
    sent_tokens: int = 0
    has_spoken: bool = False
    pending: dict[int, _Pending] = field(default_factory=dict)
    last_word: Usage | PenstockError | None = None

    def __post_init__(self) -> None:
        """Fixes what every event repeats."""
        self.head = stream_head(self.request)

    def open(self) -> None:
        """Writes `begin`; the attempt is open once the log has acknowledged it."""
        request = self.request
        begin = Begin(
            custom_id=request.custom_id, model=request.model, origin=str(request.origin), created=int(time.time()), epoch=self.epoch, resume=False
        )
        self._post(begin, on_landed=self._opened)

    def take(self, output: StepOutput) -> None:
        """Adds to what is pending; the first token of all goes out at the next flush."""
        self.pending.setdefault(output.index, _Pending()).add(output)

    def flush(self, *, is_due: bool, max_tokens: int) -> bool:
        """Sends pending tokens, once the attempt is open."""
        if self.attempt is None:
            return False
        if is_due or not self.has_spoken or sum(len(pending.token_ids) for pending in self.pending.values()) >= max_tokens:
            self._send_pending()
            self.has_spoken = True
            return True
        return False

    def restart(self, reason: str) -> None:
        """Sends `reset`; the sequence number and the token offset start at 0 again."""
        self.pending.clear()
        self.has_spoken = False
        if self.attempt is not None and self.seq > 0:
            self._post(Reset(attempt=self.attempt, reason=reason))
        self.seq = self.sent_tokens = 0

    def end(self, usage: Usage) -> None:
        """Sends what is pending and `end`, as soon as the attempt is open."""
        self.last_word = usage
        self._close()

    def fail(self, error: PenstockError) -> None:
        """Sends what is pending and `error`, as soon as the attempt is open."""
        self.last_word = error
        self._close()

    def _opened(self, offset: int) -> None:
        self.attempt = offset
        self._close()

    def _close(self) -> None:
        if self.attempt is None or self.last_word is None:
            return
        self._send_pending()
        self._post(self._closing_event(self.attempt, self.last_word), on_landed=lambda _: self.on_settled())

    def _closing_event(self, attempt: int, last_word: Usage | PenstockError) -> Event:
        if isinstance(last_word, PenstockError):
            return error_event(last_word, attempt=attempt, seq=self.seq)
        reasons = tuple(self.pending[index].finish_reason or FinishReason.STOP for index in sorted(self.pending))
        return End(head=self.head, attempt=attempt, seq=self.seq, finish_reasons=reasons, usage=last_word)

    def _send_pending(self) -> None:
        for index, pending in self.pending.items():
            if self.attempt is None or not (pending.token_ids or pending.text):
                continue
            chunk = Chunk(
                head=self.head,
                attempt=self.attempt,
                seq=self.seq,
                text=pending.text,
                token_ids=tuple(pending.token_ids),
                token_offset=self.sent_tokens,
                index=index,
                opens_choice=not pending.is_open,
                logprobs=pending.logprobs,
            )
            if self.first is None:
                self.first = self._post(chunk, on_landed=self._first_landed)
            else:
                self._post(chunk)
            self.seq += 1
            self.sent_tokens += len(pending.token_ids)
            pending.text, pending.token_ids, pending.logprobs, pending.is_open = "", [], None, True

    def _first_landed(self, _: int) -> None:
        if self.first is not None:
            self.on_first(self.first)

    def _post(self, event: Event, on_landed: Callable[[int], None] | None = None) -> Posted | None:
        encoded = encode_event(event, custom_id=self.request.custom_id, correlation_id=self.route.correlation_id)
        return self.outbox.post(self.channel, self.route.partition, encoded, on_landed)


@dataclass(slots=True, kw_only=True)
class ResultAnswer:
    """One batch-output line, when everything is there."""

    request: Request
    route: Route
    epoch: int
    outbox: Outbox
    channel: Channel
    on_settled: Callable[[], None]
    choices: dict[int, _Pending] = field(default_factory=dict)
    pooled: Pooled | None = None

    def open(self) -> None:
        """Announces nothing: a result has no attempt that could be resumed."""

    def take(self, output: StepOutput) -> None:
        """Adds to the line."""
        self.choices.setdefault(output.index, _Pending()).add(output)
        self.pooled = output.pooled or self.pooled

    def flush(self, *, is_due: bool, max_tokens: int) -> bool:  # noqa: ARG002 -- part of the protocol
        """Waits for the end."""
        return True

    def restart(self, reason: str) -> None:  # noqa: ARG002 -- part of the protocol
        """Starts the line again."""
        self.choices.clear()
        self.pooled = None

    def end(self, usage: Usage) -> None:
        """Sends the line."""
        request, head = self.request, stream_head(self.request)
        line = ResultLine(
            id=f"batch_req_{head.id}",
            custom_id=request.custom_id,
            status_code=200,
            request_id=head.id,
            body=self._body(head, usage),
            origin=str(request.origin),
            attempt=self.epoch,
        )
        self._post(line)

    def fail(self, error: PenstockError) -> None:
        """Sends a line that holds the error."""
        request, name = self.request, stream_head(self.request).id
        self._post(
            ResultLine.refused(
                error, line_id=f"batch_req_{name}", custom_id=request.custom_id, request_id=name, origin=str(request.origin), attempt=self.epoch
            )
        )

    def _body(self, head: StreamHead, usage: Usage) -> dict[str, Any]:
        asked = self.request.body
        if self.pooled is not None and not isinstance(asked, GenerationBody):
            return pooled_body(asked, head, self.pooled, usage)
        body = chat_completion if self.request.endpoint is Endpoint.CHAT else text_completion
        choices = [
            Choice(text=c.text, logprobs=c.logprobs, finish_reason=c.finish_reason or FinishReason.STOP) for _, c in sorted(self.choices.items())
        ]
        return body(head, choices, usage)

    def _post(self, line: ResultLine) -> None:
        encoded = encode_result(line, correlation_id=self.route.correlation_id)
        self.outbox.post(self.channel, self.route.partition, encoded, lambda _: self.on_settled())


def stream_head(request: Request) -> StreamHead:
    """What OpenAI's objects for one request repeat: the same in every attempt at it."""
    is_chat = request.endpoint is Endpoint.CHAT
    name = blake2b(f"{request.origin} {request.custom_id}".encode(), digest_size=12).hexdigest()
    return StreamHead(
        id=f"{ID_PREFIXES[request.endpoint]}-{name}",
        object="chat.completion.chunk" if is_chat else "text_completion",
        created=request.timestamp_ms // 1000,
        model=request.model,
    )
