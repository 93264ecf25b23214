"""Penstock's Python SDK: `Client`, `AsyncClient`, `Reader`, and every error that they raise."""

from pipeline.client import AsyncClient, Client, Reader
from pipeline.settings import BadConfiguration
from pipeline.transport.base import BrokerUnavailable, RecordRejected, TransportError, UnknownTopic
from schemas.errors import (
    BatchExpired,
    Cancelled,
    DeadlineExceeded,
    DuplicateRequest,
    EngineError,
    InvalidJson,
    InvalidRequest,
    InvalidToken,
    Overloaded,
    PenstockError,
    PromptTooLong,
    RateLimited,
    RecordTooLarge,
    UnauthorizedReply,
    UnknownModel,
    UnknownUrl,
    UnsupportedField,
)

__all__ = [
    "AsyncClient",
    "BadConfiguration",
    "BatchExpired",
    "BrokerUnavailable",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "DuplicateRequest",
    "EngineError",
    "InvalidJson",
    "InvalidRequest",
    "InvalidToken",
    "Overloaded",
    "PenstockError",
    "PromptTooLong",
    "RateLimited",
    "Reader",
    "RecordRejected",
    "RecordTooLarge",
    "TransportError",
    "UnauthorizedReply",
    "UnknownModel",
    "UnknownTopic",
    "UnknownUrl",
    "UnsupportedField",
]
