"""Lines of requests with one fault each, and what is answered to them."""

import json
from typing import Any

from schemas.codec import Limits, Refusal, decode_requests
from schemas.request import Endpoint
from tests.schemas.samples import LIMITS, MESSAGES, ORIGIN

CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS
VALID: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"messages": MESSAGES},
    Endpoint.COMPLETIONS: {"prompt": "Hi"},
    Endpoint.EMBEDDINGS: {"input": "Hi"},
    Endpoint.SCORE: {"text_1": "a", "text_2": ["b", "c"]},
    Endpoint.RERANK: {"query": "a", "documents": ["b"]},
    Endpoint.CLASSIFY: {"input": "Hi"},
}


def refusal(value: bytes | None, headers: dict[str, bytes] | None = None, limits: Limits = LIMITS) -> Refusal:
    """The one refusal of a record."""
    (refused,) = decode_requests(value, tuple((headers or {}).items()), ORIGIN, 1, limits)
    assert isinstance(refused, Refusal)
    return refused


def line(**changes: Any) -> bytes:
    """A valid line with some members changed; an ellipsis leaves one out."""
    valid = {"custom_id": "c-42", "method": "POST", "url": "/v1/completions", "body": {"model": "tiny", "prompt": "Hi"}}
    return json.dumps({name: value for name, value in (valid | changes).items() if value is not ...}).encode()


def body_line(endpoint: Endpoint, **fields: Any) -> bytes:
    """A valid line with some fields of its body changed; an ellipsis leaves one out."""
    body = {"model": "tiny"} | VALID[endpoint] | fields
    return line(url=endpoint, body={name: value for name, value in body.items() if value is not ...})


def user(content: Any, **fields: Any) -> list[Any]:
    """One message of a user."""
    return [{"role": "user", "content": content, **fields}]
