"""From what pydantic found wrong to the error tree: one fault per request, by name of the field, without the field's value.

Validators of this package report through `fault`, so that nothing a requester wrote, except names of fields, can reach
an error message.
"""

from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from schemas.errors import InvalidJson, InvalidRequest, InvalidToken, UnsupportedField

MAX_PARAM_CHARACTERS = 128
"""A path longer than this is cut: its parts may be names that the requester made up."""

FaultCode = Literal["invalid_request", "unsupported_field", "invalid_token"]
"""Wire codes that a validator reports."""

_KINDS: dict[str, type[InvalidRequest]] = {"json_invalid": InvalidJson, "unsupported_field": UnsupportedField, "invalid_token": InvalidToken}

_WORDS = {
    "json_invalid": "is not JSON",
    "missing": "is required",
    "model_type": "must be an object",
    "tuple_type": "must be a list",
    "too_short": "is empty",
    "extra_forbidden": "is another name of a field that is given too: send one of them",
}
"""Pydantic's types of errors in our words, where its own are about Python. Unknown names are `wire_model`'s to refuse."""


def fault(code: FaultCode, message: str, *, at: str | None = None) -> PydanticCustomError:
    """Makes what a validator raises.

    Args:
        code: Wire code of the error.
        message: What is wrong and the way out; it is put after the path of the field. Never the value itself.
        at: Field below the place that the validator stands at, such as the other field of a contradiction.
    """
    return PydanticCustomError(code, "{message}", {"message": message, "at": at})


def from_validation(error: ValidationError, *, whole: str) -> InvalidRequest:
    """Names the first fault that pydantic found; `whole` is what to call the value where no field of it is at fault."""
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    path = dotted((*first["loc"], context.get("at")))
    words = _WORDS.get(first["type"]) or first["msg"].replace("Input should ", "must ").replace("String should ", "must ")
    return _KINDS.get(first["type"], InvalidRequest)(f"{path or whole} {words}", param=path)


def dotted(parts: tuple[Any, ...]) -> str | None:
    """Spells a path (`messages.0.content`), safe to send; None parts are left out, and None stands for the whole."""
    path = ".".join(str(part) for part in parts if part is not None)
    return path[:MAX_PARAM_CHARACTERS].encode("utf-8", "replace").decode("utf-8") or None
