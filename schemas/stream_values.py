"""The values of stream events as they stand on the wire, for reading and for describing them.

Names are OpenAI's where OpenAI has them. What else a value holds is ignored: a newer writer may say more.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import FinishReason, StreamObject

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class WireValue(BaseModel):
    """Base: types as they are, nothing converted, unknown names ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class BeginValue(WireValue):
    """Value of a `begin` event."""

    custom_id: str
    model: str
    origin: Annotated[str, Field(description="topic/partition/offset, and /row within an Arrow record")]
    created: Annotated[Count, Field(description="Unix seconds")]


class Delta(WireValue):
    """What a chat chunk adds. The role comes with the first chunk of a choice."""

    role: Literal["assistant"] | None = None
    content: str = ""


class ChatChoice(WireValue):
    """The one choice of a chat chunk."""

    index: Count
    delta: Delta
    logprobs: dict[str, Any] | None = None
    finish_reason: FinishReason | None = None


class TextChoice(WireValue):
    """The one choice of a completion chunk."""

    index: Count
    text: str
    logprobs: dict[str, Any] | None = None
    finish_reason: FinishReason | None = None


class UsageValue(WireValue):
    """Tokens of a request."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    penstock_cache: Annotated[Literal["hit"] | None, Field(description="present where an earlier answer to the same was given again")] = None


class _Head(WireValue):
    id: str
    object: StreamObject
    created: Count
    model: str
    sequence_number: Annotated[Count, Field(description="equals the header seq")]


class ChatHead(_Head):
    """What chat events share."""

    object: Literal["chat.completion.chunk"]


class TextHead(_Head):
    """What completion events share."""

    object: Literal["text_completion"]


class _Tokens(WireValue):
    token_ids: Annotated[list[Count], Field(description="the ids that this chunk adds")]
    token_offset: Annotated[Count, Field(description="output tokens of the request before this chunk")]


class ChatChunkValue(ChatHead, _Tokens):
    """Value of a chat `chunk`."""

    choices: Annotated[list[ChatChoice], Field(min_length=1, max_length=1)]


class TextChunkValue(TextHead, _Tokens):
    """Value of a completion `chunk`."""

    choices: Annotated[list[TextChoice], Field(min_length=1, max_length=1)]


class EndDelta(WireValue):
    """Empty: the text is complete."""


class ChatEndChoice(WireValue):
    """One choice of a chat's `end`."""

    index: Count
    delta: EndDelta
    finish_reason: FinishReason


class TextEndChoice(WireValue):
    """One choice of a completion's `end`."""

    index: Count
    text: Literal[""]
    finish_reason: FinishReason


class ChatEndValue(ChatHead):
    """Value of a chat `end`: every choice, in order."""

    choices: Annotated[list[ChatEndChoice], Field(min_length=1)]
    usage: UsageValue


class TextEndValue(TextHead):
    """Value of a completion `end`: every choice, in order."""

    choices: Annotated[list[TextEndChoice], Field(min_length=1)]
    usage: UsageValue


ChunkValue = Annotated[ChatChunkValue | TextChunkValue, Field(discriminator="object")]
EndValue = Annotated[ChatEndValue | TextEndValue, Field(discriminator="object")]


class ErrorBodyValue(WireValue):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorValue(WireValue):
    """Value of an `error` event."""

    error: ErrorBodyValue


class ResetValue(WireValue):
    """Value of a `reset` event."""

    reason: str
