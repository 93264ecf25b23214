"""The answer to a request without a stream: one line of an OpenAI Batch output file."""

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError

from schemas import headers as names
from schemas.errors import InvalidJson, InvalidRequest, PenstockError
from schemas.faults import from_validation
from schemas.json_value import dump
from schemas.record import Encoded, Headers
from schemas.results import error_object
from schemas.stream_values import WireValue


class ErrorBody(WireValue):
    """What went wrong, in short; the response's body holds OpenAI's whole error object."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLine:
    """One line. `attempt` is the offset of the attempt's `begin` where there is one; `body` is the endpoint's response.

    `custom_id` is None where the refused request's could not be read.
    """

    id: str
    custom_id: str | None
    status_code: int
    request_id: str
    body: dict[str, Any] | None
    error: ErrorBody | None = None
    origin: str
    attempt: int
    retry_after_ms: int | None = None

    @classmethod
    def refused(cls, error: PenstockError, *, line_id: str, custom_id: str | None, request_id: str, origin: str, attempt: int) -> Self:
        """Makes the line that tells a requester of a fault."""
        return cls(
            id=line_id,
            custom_id=custom_id,
            status_code=error.status,
            request_id=request_id,
            body={"error": error_object(error)},
            error=ErrorBody(code=error.code, message=error.message),
            origin=origin,
            attempt=attempt,
            retry_after_ms=error.retry_after_ms,
        )


class ResponseValue(WireValue):
    """What the endpoint answered."""

    status_code: Annotated[int, Field(ge=100, le=599)]
    request_id: str
    body: dict[str, Any] | None


class ResultValue(WireValue):
    """Value of a result record."""

    id: str
    custom_id: str | None
    response: ResponseValue
    error: ErrorBody | None


def encode_result(line: ResultLine, correlation_id: str | None = None) -> Encoded:
    """Makes the record of one result; `correlation_id` defaults to the line's `custom_id`."""
    value = {
        "id": line.id,
        "custom_id": line.custom_id,
        "response": {"status_code": line.status_code, "request_id": line.request_id, "body": line.body},
        "error": None if line.error is None else {"code": line.error.code, "message": line.error.message},
    }
    correlation_id = line.custom_id if correlation_id is None else correlation_id
    return Encoded(
        key=None if line.custom_id is None else line.custom_id.encode("utf-8"),
        value=dump(value),
        headers=names.encode(
            (
                (names.CORRELATION_ID, correlation_id),
                (names.ORIGIN, line.origin),
                (names.ATTEMPT, line.attempt),
                (names.RETRY_AFTER_MS, line.retry_after_ms),
            )
        ),
    )


def decode_result(key: bytes | None, value: bytes | None, headers: Headers) -> ResultLine:
    """Reads the record of one result.

    Raises:
        InvalidJson: The value is not JSON.
        InvalidRequest: A header or field is missing, of the wrong type, or contradicts another.
    """
    if value is None:
        raise InvalidJson("the result has no value")
    try:
        read = ResultValue.model_validate_json(value)
    except ValidationError as error:
        raise from_validation(error, whole="the value") from None
    if names.key_text(key) != read.custom_id:
        raise InvalidRequest("the key must be the custom_id", param="custom_id")
    return ResultLine(
        id=read.id,
        custom_id=read.custom_id,
        status_code=read.response.status_code,
        request_id=read.response.request_id,
        body=read.response.body,
        error=read.error,
        origin=names.required(names.text(headers, names.ORIGIN), names.ORIGIN),
        attempt=names.required(names.decimal(headers, names.ATTEMPT), names.ATTEMPT),
        retry_after_ms=names.decimal(headers, names.RETRY_AFTER_MS),
    )
