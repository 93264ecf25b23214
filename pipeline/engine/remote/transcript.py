"""What a server's stream says about one request, chunk by chunk, as outputs of an engine. Pure: bytes of events in, outputs out."""

import json
from typing import Any

from pipeline.engine.base import RequestKey, StepOutput
from pipeline.engine.remote.faults import in_stream
from schemas.errors import EngineError
from schemas.events import FinishReason, Usage

DONE = b"[DONE]"


class Transcript:
    """Reads one stream. The ends of choices are held back: usage, which goes with the last one, comes after them.

    Args:
        key: The request's.
        choices: How many choices must end.
        prompt_tokens: Counts as the prompt where the server does not count.
    """

    def __init__(self, key: RequestKey, choices: int, prompt_tokens: int):
        self._key = key
        self._choices = choices
        self._prompt_tokens = prompt_tokens
        self._reasons: dict[int, FinishReason] = {}
        self._usage: Usage | None = None
        self._counted = 0

    def read(self, data: bytes) -> list[StepOutput]:
        """Takes one event.

        Raises:
            PenstockError: It is no chunk, or an error.
        """
        if data == DONE:
            return []
        chunk = _parsed(data)
        if "error" in chunk:
            raise in_stream(chunk["error"])
        self._usage = _usage(chunk.get("usage")) or self._usage
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            raise _garbled("a chunk without choices")
        return [output for choice in choices if (output := self._choice(choice)) is not None]

    def close(self) -> list[StepOutput]:
        """The stream is over: the ends of all choices.

        Raises:
            EngineError: Some never ended.
        """
        if len(self._reasons) < self._choices:
            raise EngineError("the server behind this model ended its stream before the answer")
        usage = self._usage or Usage(prompt_tokens=self._prompt_tokens, completion_tokens=self._counted)
        last = max(self._reasons)
        return [
            StepOutput(key=self._key, index=index, finish_reason=reason, usage=usage if index == last else None)
            for index, reason in sorted(self._reasons.items())
        ]

    def _choice(self, choice: Any) -> StepOutput | None:
        index = choice.get("index") if isinstance(choice, dict) else None
        if type(index) is not int or not 0 <= index < self._choices:
            raise _garbled("a choice that was not asked for")
        if index in self._reasons:
            return None
        text, token_ids, logprobs = _text(choice), _token_ids(choice), choice.get("logprobs")
        if (reason := choice.get("finish_reason")) is not None:
            self._reasons[index] = _reason(reason)
        if not (text or token_ids):
            return None
        self._counted += len(token_ids) or 1
        return StepOutput(key=self._key, index=index, text=text, token_ids=token_ids, logprobs=logprobs if isinstance(logprobs, dict) else None)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError:
        raise _garbled("an event that is not JSON") from None
    if not isinstance(chunk, dict):
        raise _garbled("an event that is no object")
    return chunk


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise _garbled("text that is no string")
    return text or ""


def _token_ids(choice: dict[str, Any]) -> tuple[int, ...]:
    token_ids = choice.get("token_ids") or ()
    if not isinstance(token_ids, list | tuple) or not all(type(token) is int and token >= 0 for token in token_ids):
        raise _garbled("token ids that are no ids")
    return tuple(token_ids)


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise _garbled("a usage that does not count")
    return Usage(prompt_tokens=int(usage["prompt_tokens"]), completion_tokens=int(usage.get("completion_tokens", 0)))


def _reason(reason: Any) -> FinishReason:
    if not isinstance(reason, str) or reason not in set(FinishReason):
        raise _garbled("an end for no known reason")
    return FinishReason(reason)


def _garbled(what: str) -> EngineError:
    return EngineError(f"the server behind this model sent {what}")
