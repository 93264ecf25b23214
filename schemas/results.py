"""Bodies of answers without a stream, as OpenAI defines them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import PenstockError
from schemas.events import FinishReason, StreamHead, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One whole output. `logprobs` is OpenAI's object for all its tokens."""

    text: str
    finish_reason: FinishReason
    logprobs: dict[str, Any] | None = None


def chat_completion(head: StreamHead, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
    """OpenAI's `chat.completion`; the choices are in the order of their indexes."""
    contents = [{"message": {"role": "assistant", "content": choice.text, "refusal": None}} for choice in choices]
    return _body("chat.completion", head, contents, choices, usage)


def text_completion(head: StreamHead, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
    """OpenAI's `text_completion`; the choices are in the order of their indexes."""
    return _body("text_completion", head, [{"text": choice.text} for choice in choices], choices, usage)


def join_logprobs(first: dict[str, Any] | None, then: dict[str, Any] | None) -> dict[str, Any] | None:
    """Puts OpenAI's logprobs objects of consecutive tokens together: every member is a list over tokens."""
    if first is None or then is None:
        return then if first is None else first
    return {name: (value or []) + (then.get(name) or []) if isinstance(value, list) else value for name, value in first.items()}


CACHE_HIT: dict[str, int | str] = {"penstock_cache": "hit"}
"""What the usage of an answer says that an earlier request has paid for."""


def usage_object(usage: Usage) -> dict[str, int | str]:
    """OpenAI's usage object."""
    counts: dict[str, int | str] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    return counts | CACHE_HIT if usage.is_cached else counts


def error_object(error: PenstockError) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def _body(kind: str, head: StreamHead, contents: Sequence[dict[str, Any]], choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "choices": [
            {"index": index, **content, "logprobs": choice.logprobs, "finish_reason": choice.finish_reason.value}
            for index, (content, choice) in enumerate(zip(contents, choices, strict=True))
        ],
        "usage": usage_object(usage),
    }
