"""What the client sends: a request line with its reply address, and the options that callers may give."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

from schemas.codec import encode_request
from schemas.errors import UnknownUrl
from schemas.record import Encoded
from schemas.request import Endpoint


class Options(TypedDict, total=False):
    """What may be said about a request besides its body.

    Attributes:
        url: The endpoint; `/v1/chat/completions` unless given.
        custom_id: Identity of the request within its tenant, 1 to 256 characters; a random one unless given.
        deadline_s: Seconds from now after which it ends with `DeadlineExceeded`.
        key: Requests of one key reach the same worker in order (a conversation's id, say); `custom_id` unless given.
        traceparent: W3C trace context.
    """

    url: str
    custom_id: str
    deadline_s: float
    key: str
    traceparent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One request on its way out."""

    body: Mapping[str, Any]
    endpoint: Endpoint
    custom_id: str
    key: str
    is_named: bool
    deadline_ms: int | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any], options: Options) -> Self:
        """Fills in what was left out.

        Raises:
            UnknownUrl: No such endpoint.
        """
        custom_id = options.get("custom_id") or uuid.uuid4().hex
        deadline_s = options.get("deadline_s")
        return cls(
            body=body,
            endpoint=_endpoint(options.get("url", Endpoint.CHAT)),
            custom_id=custom_id,
            key=options.get("key") or custom_id,
            is_named="custom_id" in options,
            deadline_ms=None if deadline_s is None else int((time.time() + deadline_s) * 1000),
            traceparent=options.get("traceparent"),
        )

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.body.get("stream") is True

    def encode(self, correlation_id: str | None = None, reply_partition: int | None = None) -> Encoded:
        """Writes the request record. Without a reply address the answer goes where the deployment sends it by default."""
        return encode_request(
            custom_id=self.custom_id,
            endpoint=self.endpoint,
            body=self.body,
            key=self.key,
            correlation_id=correlation_id,
            reply_partition=reply_partition,
            deadline_ms=self.deadline_ms,
            traceparent=self.traceparent,
        )


def _endpoint(url: str) -> Endpoint:
    try:
        return Endpoint(url)
    except ValueError:
        raise UnknownUrl(f"no such endpoint: choose one of {', '.join(Endpoint)}", param="url") from None


def chat_body(messages: str | Sequence[Mapping[str, Any]], model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a conversation, or of one user message."""
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    return {"model": model, "messages": turns, **parameters}


def completion_body(prompt: str | Sequence[int], model: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a prompt, as text or token ids."""
    return {"model": model, "prompt": prompt if isinstance(prompt, str) else list(prompt), **parameters}
