"""A request as the worker takes it in: one line of an OpenAI Batch file, validated, with where it came from.

The bodies live beside this module, by what the endpoint does: `generation` writes text, `pooled` only reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from schemas.faults import from_validation
from schemas.fields import ServiceTier
from schemas.generation import ChatBody, CompletionBody
from schemas.messages import Message
from schemas.pooled import ClassifyBody, EmbeddingsBody, RerankBody, ScoreBody
from schemas.record import Origin, ReplyAddress
from schemas.sampling import SamplingParams

__all__ = [
    "BODIES",
    "MAX_CUSTOM_ID_CHARACTERS",
    "Body",
    "ChatBody",
    "ClassifyBody",
    "CompletionBody",
    "EmbeddingsBody",
    "Endpoint",
    "GenerationBody",
    "Message",
    "Request",
    "RerankBody",
    "SamplingParams",
    "ScoreBody",
    "ServiceTier",
    "parse_body",
]

MAX_CUSTOM_ID_CHARACTERS = 256


class Endpoint(StrEnum):
    """The `url` of a request."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    SCORE = "/v1/score"
    RERANK = "/v1/rerank"
    CLASSIFY = "/v1/classify"


GenerationBody = ChatBody | CompletionBody
Body = ChatBody | CompletionBody | EmbeddingsBody | ScoreBody | RerankBody | ClassifyBody

BODIES: Mapping[Endpoint, type[Body]] = MappingProxyType(
    {
        Endpoint.CHAT: ChatBody,
        Endpoint.COMPLETIONS: CompletionBody,
        Endpoint.EMBEDDINGS: EmbeddingsBody,
        Endpoint.SCORE: ScoreBody,
        Endpoint.RERANK: RerankBody,
        Endpoint.CLASSIFY: ClassifyBody,
    }
)
"""What each endpoint takes."""


def parse_body(endpoint: Endpoint, data: Mapping[str, Any]) -> Body:
    """Validates a parsed JSON object as the endpoint's body.

    Raises:
        InvalidRequest: Or one of its classes; `param` is the dotted path of the field, the message never holds its value.
    """
    try:
        return BODIES[endpoint].model_validate(data)
    except ValidationError as error:
        raise from_validation(error, whole="body") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A valid request. `timestamp_ms` is its record's, `deadline_ms` what it asks for, both epoch milliseconds."""

    custom_id: str
    endpoint: Endpoint
    body: Body
    origin: Origin
    reply: ReplyAddress
    timestamp_ms: int
    deadline_ms: int | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def model(self) -> str:
        """Name of the model that it asks for."""
        return self.body.model

    @property
    def stream(self) -> bool:
        """Whether it is answered with a stream of events; otherwise with one result record."""
        return isinstance(self.body, GenerationBody) and self.body.stream

    @property
    def service_tier(self) -> ServiceTier:
        """The lane that it asks for."""
        return self.body.service_tier
