"""A worker that says what a test tells it to: it takes requests from a log and runs a script for each, all on one thread."""

import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Self

from pipeline.transport.base import Acknowledged, ChangeKind, Partition, Transport, TransportError
from schemas.codec import ResultLine, decode_requests, encode_event, encode_result, error_event
from schemas.control import Cancel, decode_control
from schemas.errors import Cancelled, PenstockError
from schemas.events import Begin, Chunk, End, Event, FinishReason, Reset, StreamHead, Usage
from schemas.intake import Refusal
from schemas.limits import Limits
from schemas.record import Encoded, Headers, Origin
from schemas.request import ChatBody, Endpoint, Request
from schemas.results import Choice, chat_completion, text_completion
from schemas.topics import Topics

Script = Generator[None, None, None]
"""What a worker does about one request; it yields to let others go on."""

TIMEOUT_S = 10.0


class Voice:
    """Speaks to one requester; what was said is in the log when a method returns."""

    def __init__(self, worker: "ScriptedWorker", request: Request):
        self._worker = worker
        self.request = request
        self.attempt = 0
        self.seq = 0
        self.sent_tokens = 0
        is_chat = request.endpoint is Endpoint.CHAT
        self.head = StreamHead(id="cmpl-1", object="chat.completion.chunk" if is_chat else "text_completion", created=1, model=request.model)

    @property
    def prompt(self) -> str:
        """The last message, or the prompt."""
        body = self.request.body
        return body.messages[-1].text if isinstance(body, ChatBody) else str(getattr(body, "prompt", ""))

    @property
    def is_cancelled(self) -> bool:
        """Whether the requester asked for the end."""
        return self.request.custom_id in self._worker.cancelled

    def begin(self, *, epoch: int = 0, resume: bool = False) -> int:
        """Opens an attempt and speaks under it from now on."""
        begin = Begin(
            custom_id=self.request.custom_id, model=self.request.model, origin=str(self.request.origin), created=1, epoch=epoch, resume=resume
        )
        self.attempt = self.say(begin)
        if not resume:
            self.seq = self.sent_tokens = 0
        return self.attempt

    def chunk(self, text: str, *token_ids: int, index: int = 0, logprobs: dict[str, Any] | None = None) -> None:
        """Adds tokens."""
        self.say(
            Chunk(
                head=self.head,
                attempt=self.attempt,
                seq=self.seq,
                text=text,
                token_ids=token_ids,
                token_offset=self.sent_tokens,
                index=index,
                opens_choice=self.seq == 0,
                logprobs=logprobs,
            )
        )
        self.seq += 1
        self.sent_tokens += len(token_ids)

    def reset(self) -> None:
        """Voids what was said."""
        self.say(Reset(attempt=self.attempt, reason="test"))
        self.seq = self.sent_tokens = 0

    def end(self, *reasons: FinishReason) -> None:
        """Closes."""
        usage = Usage(prompt_tokens=3, completion_tokens=self.sent_tokens)
        self.say(End(head=self.head, attempt=self.attempt, seq=self.seq, finish_reasons=reasons or (FinishReason.STOP,), usage=usage))

    def fail(self, error: PenstockError) -> None:
        """Closes with an error."""
        self.say(error_event(error, attempt=self.attempt, seq=self.seq))

    def refuse(self, error: PenstockError) -> None:
        """Refuses before anything began."""
        if self.request.stream:
            self.say(error_event(error))
        else:
            self.line(error)

    def line(self, answer: str | PenstockError) -> None:
        """Answers in one piece."""
        common = {"custom_id": self.request.custom_id, "request_id": "req-1", "origin": str(self.request.origin), "attempt": 0}
        if isinstance(answer, PenstockError):
            line = ResultLine.refused(answer, line_id="batch_req_1", **common)
        else:
            assemble = chat_completion if self.request.endpoint is Endpoint.CHAT else text_completion
            usage = Usage(prompt_tokens=3, completion_tokens=2)
            body = assemble(self.head, [Choice(text=answer, finish_reason=FinishReason.STOP)], usage)
            line = ResultLine(id="batch_req_1", status_code=200, body=body, **common)
        self._worker.send(self._reply_to(), encode_result(line, self.request.reply.correlation_id))

    def say(self, event: Event) -> int:
        """Writes any event; returns its offset."""
        encoded = encode_event(event, custom_id=self.request.custom_id, correlation_id=self.request.reply.correlation_id)
        return self._worker.send(self._reply_to(), encoded)

    def say_raw(self, value: bytes, headers: Headers) -> int:
        """Writes any bytes under the request's key."""
        return self._worker.send(self._reply_to(), Encoded(key=self.request.custom_id.encode(), value=value, headers=headers))

    def _reply_to(self) -> Partition:
        topics = self._worker.topics
        topic = topics.chunks if self.request.stream else topics.results
        number = self.request.reply.reply_partition
        return self._worker.partition_for(topic, self.request.custom_id) if number is None else Partition(topic, number)


def echo(voice: Voice) -> Script:
    """Says the prompt back, one word a chunk, until it is cancelled."""
    if not voice.request.stream:
        voice.line(voice.prompt)
        return
    voice.begin()
    for number, word in enumerate(voice.prompt.split(" ")):
        voice.chunk(word if number == 0 else f" {word}", number)
        yield
    voice.end()


def wait_for_cancel(voice: Voice) -> Script:
    """Says one word and then nothing until it is cancelled."""
    voice.begin()
    voice.chunk("well", 1)
    while not voice.is_cancelled:
        yield
    voice.fail(Cancelled("the request was cancelled"))


class ScriptedWorker:
    """Takes every request of the log, one script each, until closed."""

    def __init__(self, transport: Transport, topics: Topics, script: Callable[[Voice], Script] = echo):
        self.topics = topics
        self.script = script
        self.cancelled: set[str] = set()
        self.taken: list[Request] = []
        self.finished = 0
        self._transport = transport
        self._producer = transport.producer()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted-worker", daemon=True)

    def partition_for(self, topic: str, key: str) -> Partition:
        """Where a key belongs."""
        return self._producer.partition_for(topic, key.encode())

    def send(self, partition: Partition, record: Encoded) -> int:
        """Writes a record and waits for its offset."""
        landed: list[Acknowledged | TransportError] = []
        self._producer.send(partition, record, landed.append)
        self._producer.flush(TIMEOUT_S)
        assert isinstance(landed[0], Acknowledged), landed[0]
        return landed[0].offset

    def __enter__(self) -> Self:
        """Starts, and waits for the partitions."""
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(self, *exc: object) -> None:
        """Stops."""
        self._stopping.set()
        self._thread.join(TIMEOUT_S)
        self._producer.close(1.0)
        assert not self._thread.is_alive()

    def _refuse(self, refusal: Refusal) -> None:
        reply = refusal.reply
        assert reply.custom_id is not None
        assert reply.reply_partition is not None
        encoded = encode_event(error_event(refusal.error), custom_id=reply.custom_id, correlation_id=reply.correlation_id)
        self.send(Partition(self.topics.chunks, reply.reply_partition), encoded)

    def _run(self) -> None:
        consumer = self._transport.consumer("scripted", [self.topics.requests])
        control = self._transport.reader(frozenset({Partition(self.topics.control, 0)}))
        scripts: list[Script] = []
        while not self._stopping.is_set():
            for record in consumer.poll(0.0 if scripts else 0.01, 100):
                origin = Origin(*record.partition, record.offset)
                for request in decode_requests(record.value, record.headers, origin, record.timestamp_ms, Limits()):
                    if isinstance(request, Refusal):
                        self._refuse(request)
                    else:
                        self.taken.append(request)
                        scripts.append(self.script(Voice(self, request)))
            for change in consumer.changes():
                if change.kind is ChangeKind.ASSIGNED:
                    consumer.resume(change.partitions)
                    self._ready.set()
            self.cancelled.update(m.custom_id for r in control.poll(0.0, 100) if isinstance(m := decode_control(r.value), Cancel))
            still_open = [script for script in scripts if next(script, self) is not self]
            self.finished += len(scripts) - len(still_open)
            scripts = still_open
            time.sleep(0.001)
        consumer.close(0.0)
        control.close(0.0)
