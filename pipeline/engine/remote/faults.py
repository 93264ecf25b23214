"""What a server says when it does not serve, in the words of the error tree.

400 404? 413 422   the request is at fault        InvalidRequest, with the server's own message and param
429 503            it has no room now             Overloaded, after some patience
401 403 404        the worker is set up wrong     EngineError
else, no answer    it is broken or out of reach   EngineError, after some patience where nothing was sent yet
"""

import json
from typing import Any

from schemas.errors import EngineError, InvalidRequest, Overloaded, PenstockError
from schemas.request import ChatBody, CompletionBody

MAX_MESSAGE_CHARACTERS = 300
THE_REQUESTS_FAULT = frozenset({400, 413, 422})
BUSY = frozenset({429, 503})
FIELDS = frozenset(ChatBody.model_fields) | frozenset(CompletionBody.model_fields)
"""What a requester may be told to look at: servers name parts of their own, too."""


def fault_of(status: int, content: bytes) -> PenstockError:
    """The error for an answer that is not 200. Of its content only what an error object says is used."""
    message, param = _said(content)
    if status in THE_REQUESTS_FAULT:
        return InvalidRequest(f"the server behind this model refuses the request: {message}", param=param)
    if status in BUSY:
        return Overloaded(f"the server behind this model has no room now ({status})")
    if status in {401, 403}:
        return EngineError(f"the server behind this model refuses the worker's key ({status}): set the model's api_key")
    if status == 404:
        return EngineError("the server behind this model does not know the model or the address (404): set the model's source and url")
    return EngineError(f"the server behind this model failed ({status})")


def in_stream(error: Any) -> PenstockError:
    """The error for an error object that comes instead of a chunk."""
    code = error.get("code") if isinstance(error, dict) else None
    return fault_of(code if isinstance(code, int) else 500, json.dumps({"error": error}).encode())


def _said(content: bytes) -> tuple[str, str | None]:
    try:
        parsed = json.loads(content)
    except ValueError:
        return "it does not say why", None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return "it does not say why", None
    message, param = error.get("message"), error.get("param")
    text = message[:MAX_MESSAGE_CHARACTERS] if isinstance(message, str) and message else "it does not say why"
    return text, param if isinstance(param, str) and param in FIELDS else None
