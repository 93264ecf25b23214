"""Stream events between models and records (wire contract 1).

Encoding builds plain dictionaries, since every flush of every stream passes here; decoding checks types with the models of
`stream_values`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas import headers as names
from schemas.errors import InvalidJson, InvalidRequest, PenstockError
from schemas.events import Begin, Chunk, End, Error, Event, Reset, StreamHead, Usage
from schemas.faults import from_validation
from schemas.json_value import dump
from schemas.record import Encoded, Headers
from schemas.results import usage_object
from schemas.stream_values import BeginValue, ChatChoice, ChatHead, ChunkValue, EndValue, ErrorValue, ResetValue, TextHead

_BEGIN: TypeAdapter[BeginValue] = TypeAdapter(BeginValue)
_CHUNK: TypeAdapter[ChunkValue] = TypeAdapter(ChunkValue)
_END: TypeAdapter[EndValue] = TypeAdapter(EndValue)
_ERROR: TypeAdapter[ErrorValue] = TypeAdapter(ErrorValue)
_RESET: TypeAdapter[ResetValue] = TypeAdapter(ResetValue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An event as a reader meets it. `custom_id` and `correlation_id` are None where the refused request had none that could be read."""

    custom_id: str | None
    correlation_id: str | None
    event: Event


def encode_event(event: Event, *, custom_id: str | None, correlation_id: str | None = None) -> Encoded:
    """Makes the record of one event.

    Args:
        event: What happened.
        custom_id: Key of the record; None where the request's could not be read.
        correlation_id: What the requester asked to have echoed; defaults to `custom_id`.
    """
    correlation_id = custom_id if correlation_id is None else correlation_id
    return Encoded(
        key=None if custom_id is None else custom_id.encode("utf-8"),
        value=dump(_value(event)),
        headers=names.encode(((names.CORRELATION_ID, correlation_id), *_headers(event))),
    )


def error_event(error: PenstockError, *, attempt: int | None = None, seq: int | None = None) -> Error:
    """Makes the event that tells a requester of a fault; without `attempt` it refuses a request that never began."""
    return Error(
        code=error.code, type=error.type, message=error.message, param=error.param, attempt=attempt, seq=seq, retry_after_ms=error.retry_after_ms
    )


def decode_event(key: bytes | None, value: bytes | None, headers: Headers) -> Received:
    """Reads the record of one event.

    Raises:
        InvalidJson: The value is not JSON.
        InvalidRequest: A header or field is missing, of the wrong type, or contradicts another.
    """
    custom_id = names.key_text(key)
    kind = names.text(headers, names.EVENT)
    if kind is None or kind not in _DECODERS:
        raise InvalidRequest(f"header {names.EVENT} must be one of {', '.join(_DECODERS)}", param=names.EVENT)
    if value is None:
        raise InvalidJson("the event has no value")
    try:
        event = _DECODERS[kind](value, headers)
    except ValidationError as error:
        raise from_validation(error, whole="the value") from None
    if isinstance(event, Begin) and event.custom_id != custom_id:
        raise InvalidRequest("the key must be the custom_id", param="custom_id")
    return Received(custom_id=custom_id, correlation_id=names.text(headers, names.CORRELATION_ID), event=event)


def _value(event: Event) -> dict[str, Any]:
    match event:
        case Chunk():
            return _chunk(event)
        case Begin():
            return {"custom_id": event.custom_id, "model": event.model, "origin": event.origin, "created": event.created}
        case End():
            return _end(event)
        case Error():
            return {"error": {"message": event.message, "type": event.type, "param": event.param, "code": event.code}}
    return {"reason": event.reason}


def _headers(event: Event) -> tuple[tuple[str, str | int | None], ...]:
    match event:
        case Chunk() | End():
            return ((names.EVENT, type(event).__name__.lower()), (names.ATTEMPT, event.attempt), (names.SEQ, event.seq))
        case Error():
            return (
                (names.EVENT, "error"),
                (names.ATTEMPT, event.attempt),
                (names.SEQ, event.seq),
                (names.RETRY_AFTER_MS, event.retry_after_ms),
            )
        case Begin():
            return ((names.EVENT, "begin"), (names.EPOCH, event.epoch), (names.RESUME, "true" if event.resume else "false"))
    return ((names.EVENT, "reset"), (names.ATTEMPT, event.attempt))


def _chunk(chunk: Chunk) -> dict[str, Any]:
    content: dict[str, Any] = {"text": chunk.text}
    if chunk.head.object == "chat.completion.chunk":
        content = {"delta": {"role": "assistant", "content": chunk.text} if chunk.opens_choice else {"content": chunk.text}}
    return {
        **_head(chunk.head),
        "choices": [{"index": chunk.index, **content, "logprobs": chunk.logprobs, "finish_reason": None}],
        "sequence_number": chunk.seq,
        "token_ids": chunk.token_ids,
        "token_offset": chunk.token_offset,
    }


def _end(end: End) -> dict[str, Any]:
    content: dict[str, Any] = {"delta": {}} if end.head.object == "chat.completion.chunk" else {"text": ""}
    return {
        **_head(end.head),
        "choices": [{"index": index, **content, "logprobs": None, "finish_reason": reason.value} for index, reason in enumerate(end.finish_reasons)],
        "usage": usage_object(end.usage),
        "sequence_number": end.seq,
    }


def _head(head: StreamHead) -> dict[str, Any]:
    return {"id": head.id, "object": head.object, "created": head.created, "model": head.model}


def _read_begin(value: bytes, headers: Headers) -> Begin:
    read = _BEGIN.validate_json(value)
    resume = names.text(headers, names.RESUME)
    if resume not in ("true", "false"):
        raise InvalidRequest(f"header {names.RESUME} must be true or false", param=names.RESUME)
    return Begin(
        custom_id=read.custom_id,
        model=read.model,
        origin=read.origin,
        created=read.created,
        epoch=_number(headers, names.EPOCH),
        resume=resume == "true",
    )


def _read_chunk(value: bytes, headers: Headers) -> Chunk:
    read = _CHUNK.validate_json(value)
    (choice,) = read.choices
    text, opens = (choice.delta.content, choice.delta.role is not None) if isinstance(choice, ChatChoice) else (choice.text, False)
    return Chunk(
        head=_stream_head(read),
        attempt=_number(headers, names.ATTEMPT),
        seq=_seq(headers, read.sequence_number),
        text=text,
        token_ids=tuple(read.token_ids),
        token_offset=read.token_offset,
        index=choice.index,
        opens_choice=opens,
        logprobs=choice.logprobs,
    )


def _read_end(value: bytes, headers: Headers) -> End:
    read = _END.validate_json(value)
    if [choice.index for choice in read.choices] != list(range(len(read.choices))):
        raise InvalidRequest("choices must be in the order of their indexes, from 0", param="choices")
    usage = Usage(
        prompt_tokens=read.usage.prompt_tokens,
        completion_tokens=read.usage.completion_tokens,
        is_cached=read.usage.penstock_cache is not None,
    )
    if usage.total_tokens != read.usage.total_tokens:
        raise InvalidRequest("usage.total_tokens must be the sum of the others", param="usage.total_tokens")
    return End(
        head=_stream_head(read),
        attempt=_number(headers, names.ATTEMPT),
        seq=_seq(headers, read.sequence_number),
        finish_reasons=tuple(choice.finish_reason for choice in read.choices),
        usage=usage,
    )


def _read_error(value: bytes, headers: Headers) -> Error:
    body = _ERROR.validate_json(value).error
    attempt = names.decimal(headers, names.ATTEMPT)
    seq = names.decimal(headers, names.SEQ)
    if (attempt is None) != (seq is None):
        raise InvalidRequest(f"headers {names.ATTEMPT} and {names.SEQ} go together", param=names.SEQ)
    retry_after_ms = names.decimal(headers, names.RETRY_AFTER_MS)
    return Error(code=body.code, type=body.type, message=body.message, param=body.param, attempt=attempt, seq=seq, retry_after_ms=retry_after_ms)


def _read_reset(value: bytes, headers: Headers) -> Reset:
    return Reset(attempt=_number(headers, names.ATTEMPT), reason=_RESET.validate_json(value).reason)


_DECODERS: dict[str, Callable[[bytes, Headers], Event]] = {
    "begin": _read_begin,
    "chunk": _read_chunk,
    "end": _read_end,
    "error": _read_error,
    "reset": _read_reset,
}


def _stream_head(read: ChatHead | TextHead) -> StreamHead:
    return StreamHead(id=read.id, object=read.object, created=read.created, model=read.model)


def _number(headers: Headers, name: str) -> int:
    return names.required(names.decimal(headers, name), name)


def _seq(headers: Headers, sequence_number: int) -> int:
    if _number(headers, names.SEQ) != sequence_number:
        raise InvalidRequest(f"header {names.SEQ} must equal sequence_number", param=names.SEQ)
    return sequence_number
