"""The events of one stream, in the order that a reader meets them (wire contract 1).

`begin` opens an attempt, `chunk` adds tokens, `end` and `error` close the stream, `reset` voids what was accepted.
`attempt` is the offset of the attempt's own `begin` record; `seq` counts chunks and the closing event from 0.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal


class FinishReason(StrEnum):
    """Why a choice ended."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"


StreamObject = Literal["chat.completion.chunk", "text_completion"]
"""The OpenAI object that a stream is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request. `is_cached`: they were computed for an earlier request that asked the same."""

    prompt_tokens: int
    completion_tokens: int
    is_cached: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt and output tokens together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Opens an attempt; its own offset becomes the attempt's id."""

    custom_id: str
    model: str
    origin: str
    created: int
    epoch: int
    resume: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """What every chunk object of a stream repeats: OpenAI's `id`, `object`, `created` (Unix seconds) and `model`."""

    id: str
    object: StreamObject
    created: int
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some output tokens of one choice.

    `text` may be shorter than what `token_ids` stand for: text that could become a stop string, or half a character, is
    held back until a later chunk. `token_offset` counts the request's output tokens before this chunk. `logprobs` is
    OpenAI's object for these tokens. `opens_choice` marks the first chunk of a choice: a chat chunk then carries the role.
    """

    head: StreamHead
    attempt: int
    seq: int
    text: str
    token_ids: tuple[int, ...]
    token_offset: int
    index: int = 0
    opens_choice: bool = False
    logprobs: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Closes a stream that went well: one finish reason per choice, in the order of the choices' indexes."""

    head: StreamHead
    attempt: int
    seq: int
    finish_reasons: tuple[FinishReason, ...]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Closes a stream that failed; without `attempt` (and `seq`) it refuses a request that never began.

    `retry_after_ms` says when the same request may succeed, where the worker knows.
    """

    code: str
    type: str
    message: str
    param: str | None = None
    attempt: int | None = None
    seq: int | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """What the reader accepted so far is void."""

    attempt: int
    reason: str


Event = Begin | Chunk | End | Error | Reset
