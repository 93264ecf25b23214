"""The messages of a chat: who said what, as text."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, field_validator

from schemas.faults import fault
from schemas.wire_model import WireModel

Role = Literal["system", "developer", "user", "assistant"]

_PART_TYPES = frozenset({"image_url", "input_audio", "file", "refusal", "video_url", "audio_url", "image", "video"})


def _content(value: Any) -> str:
    """Takes a string or text parts; gives the text, parts on lines of their own (as vLLM joins them)."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise fault("invalid_request", "must be a string or a list of text parts")
    return "\n".join(_part(part, str(number)) for number, part in enumerate(value))


def _part(part: Any, at: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise fault("invalid_request", 'must be a text part: {"type": "text", "text": "..."}', at=at)
    if kind != "text":
        known = "a part type that Penstock does not support" if kind in _PART_TYPES else "not a part type"
        raise fault("unsupported_field", f"is {known}: send text parts only", at=f"{at}.type")
    if unknown := part.keys() - {"type", "text"}:
        raise fault("unsupported_field", "is not supported in a text part: leave it out", at=f"{at}.{min(unknown)}")
    if not isinstance(part.get("text"), str):
        raise fault("invalid_request", "must be a string", at=f"{at}.text")
    return str(part["text"])


class Message(WireModel):
    """One turn. `content` may be a string or a list of text parts; it is kept as one text."""

    unsupported: ClassVar = frozenset({"tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations", "reasoning_content"})

    role: Role
    content: Annotated[str, PlainValidator(_content, json_schema_input_type=str | list[dict[str, str]]), Field(repr=False)]
    name: Annotated[str, Field(max_length=256)] | None = None

    @field_validator("role", mode="before")
    @classmethod
    def _no_tools(cls, role: Any) -> Any:
        if role in ("tool", "function"):
            raise fault("unsupported_field", "is a role that Penstock does not support: tools are not served")
        return role

    @property
    def text(self) -> str:
        """What was said."""
        return self.content
