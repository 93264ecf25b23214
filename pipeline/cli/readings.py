"""How an event of the log is told: as one JSON object, or as one line for a person."""

from dataclasses import asdict
from typing import Any

from pipeline.client import Reading
from schemas.codec import ResultLine
from schemas.events import Begin, Chunk, End, Error, Reset

LINE_BREAK = "\N{RETURN SYMBOL}"


def kind(reading: Reading) -> str:
    """The wire's word for the event; `result` for a batch-output line."""
    return "result" if isinstance(reading.event, ResultLine) else type(reading.event).__name__.lower()


def as_json(reading: Reading) -> dict[str, Any]:
    """Everything about it."""
    return {
        "custom_id": reading.custom_id,
        "correlation_id": reading.correlation_id,
        "origin": reading.origin,
        "topic": reading.partition.topic,
        "partition": reading.partition.number,
        "offset": reading.offset,
        "timestamp_ms": reading.timestamp_ms,
        "accepted": reading.accepted,
        "event": kind(reading),
        "value": {name: value for name, value in asdict(reading.event).items() if value is not None},
    }


def as_text(reading: Reading) -> str:
    """What happened, in one line."""
    event = reading.event
    match event:
        case Chunk():
            text = event.text.replace("\n", LINE_BREAK)
        case Begin():
            text = "[goes on in another attempt]" if event.resume else "[starts over in another attempt]" if reading.accepted else "[begins]"
        case End():
            text = f"[{', '.join(event.finish_reasons)}: {event.usage.prompt_tokens} + {event.usage.completion_tokens} tokens]"
        case Error():
            text = f"[{event.code}: {event.message}]"
        case Reset():
            text = f"[starts over: {event.reason}]"
        case ResultLine():
            text = f"[answered with status {event.status_code}]" if event.error is None else f"[{event.error.code}: {event.error.message}]"
    return text


def is_last(reading: Reading) -> bool:
    """Whether nothing of the request follows."""
    return reading.accepted and isinstance(reading.event, (End, Error, ResultLine))
