"""Every fault that crosses the wire, as a tree of exceptions.

    PenstockError               internal_error
    ├── InvalidRequest          invalid_request       the requester's fault; the same request will fail again
    │   ├── InvalidJson         invalid_json
    │   ├── UnknownUrl          unknown_url
    │   ├── UnsupportedField    unsupported_field
    │   ├── PromptTooLong       prompt_too_long
    │   ├── InvalidToken        invalid_token
    │   ├── UnknownModel        unknown_model
    │   ├── UnauthorizedReply   unauthorized_reply_topic
    │   ├── RecordTooLarge      record_too_large
    │   ├── DuplicateRequest    duplicate_request
    │   ├── DeadlineExceeded    deadline_exceeded
    │   ├── Cancelled           cancelled
    │   └── BatchExpired        batch_expired
    ├── RateLimited             rate_limited          wait, then the same request may succeed
    ├── Overloaded              overloaded
    └── EngineError             engine_error          the engine failed on this request; a retry may help

`code` and `type` are the wire's words (wire contract 1), `param` names the field at fault where there is one, `retryable`
tells whether the same request can succeed later, `status` is the HTTP status of a batch-output line. `retry_after_s` says
when it may, where the worker knows: the wire's header `retry_after_ms`.
"""

import math
from typing import ClassVar


class PenstockError(Exception):
    """A fault of ours that nobody classified."""

    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = True
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None):
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def retry_after_ms(self) -> int | None:
        """The same in whole milliseconds, rounded up: a retry must not come too early."""
        return None if self.retry_after_s is None else math.ceil(self.retry_after_s * 1000)


class InvalidRequest(PenstockError):
    """The request breaks the contract; `param` names the field."""

    code = "invalid_request"
    type = "invalid_request_error"
    retryable = False
    status = 400


class InvalidJson(InvalidRequest):
    """The record's value is not one JSON object in UTF-8."""

    code = "invalid_json"


class UnknownUrl(InvalidRequest):
    """No such endpoint."""

    code = "unknown_url"
    status = 404


class UnsupportedField(InvalidRequest):
    """A field that Penstock, or the engine behind it, does not support: refused by name, never ignored."""

    code = "unsupported_field"


class PromptTooLong(InvalidRequest):
    """The prompt does not fit the model's context."""

    code = "prompt_too_long"

    def __init__(self, prompt_tokens: int, limit_tokens: int, *, param: str = "prompt"):
        super().__init__(
            f"prompt has {prompt_tokens} tokens; the model takes {limit_tokens}: shorten it or pick a model with a longer context",
            param=param,
        )


class InvalidToken(InvalidRequest):
    """A token id lies outside the model's vocabulary."""

    code = "invalid_token"


class UnknownModel(InvalidRequest):
    """This deployment serves no model of that name."""

    code = "unknown_model"
    status = 404


class UnauthorizedReply(InvalidRequest):
    """The reply topic is not allow-listed for the tenant."""

    code = "unauthorized_reply_topic"
    status = 403


class RecordTooLarge(InvalidRequest):
    """The record is larger than the contract allows."""

    code = "record_too_large"
    status = 413


class DuplicateRequest(InvalidRequest):
    """The same tenant sent the same `custom_id` with another reply address."""

    code = "duplicate_request"
    status = 409


class DeadlineExceeded(InvalidRequest):
    """The request's deadline passed before it ended."""

    code = "deadline_exceeded"
    status = 408


class Cancelled(InvalidRequest):
    """A control message ended the request."""

    code = "cancelled"
    status = 499


class BatchExpired(InvalidRequest):
    """The batch that the request belongs to expired before it ran."""

    code = "batch_expired"


class RateLimited(PenstockError):
    """The tenant is above its rate."""

    code = "rate_limited"
    type = "rate_limit_error"
    status = 429


class Overloaded(PenstockError):
    """The worker has no room now."""

    code = "overloaded"
    status = 503


class EngineError(PenstockError):
    """The engine failed on this request."""

    code = "engine_error"


def _tree(root: type[PenstockError]) -> dict[str, type[PenstockError]]:
    return {root.code: root} | {code: error for child in root.__subclasses__() for code, error in _tree(child).items()}


BY_CODE: dict[str, type[PenstockError]] = _tree(PenstockError)
"""Wire code → class."""
