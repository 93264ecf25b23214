"""Records that could not be served: the original as it was, with what happened to it in headers of our own."""

from dataclasses import dataclass
from typing import Self

from schemas import headers as names
from schemas.errors import PenstockError
from schemas.record import Encoded, Headers, Origin

ERROR_CODE = "penstock_error_code"
ERROR_MESSAGE = "penstock_error_message"
ORIGIN = "penstock_origin"
ATTEMPTS = "penstock_attempts"
FAILED_AT = "penstock_failed_at"

ADDED = (ERROR_CODE, ERROR_MESSAGE, ORIGIN, ATTEMPTS, FAILED_AT)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What happened: `origin` as the wire spells it, how often it was tried, and when it failed (epoch milliseconds)."""

    origin: str
    error_code: str
    error_message: str
    attempts: int
    failed_at_ms: int

    @classmethod
    def of(cls, error: PenstockError, origin: Origin, *, attempts: int, failed_at_ms: int) -> Self:
        """Says what an error did to the record at `origin`."""
        return cls(origin=str(origin), error_code=error.code, error_message=error.message, attempts=attempts, failed_at_ms=failed_at_ms)


def encode_dead_letter(key: bytes | None, value: bytes | None, headers: Headers, letter: DeadLetter) -> Encoded:
    """Makes the dead letter of a record. Headers of an earlier death, left by a replay, give way to the new ones."""
    added = names.encode(
        (
            (ERROR_CODE, letter.error_code),
            (ERROR_MESSAGE, letter.error_message),
            (ORIGIN, letter.origin),
            (ATTEMPTS, letter.attempts),
            (FAILED_AT, letter.failed_at_ms),
        )
    )
    return Encoded(key=key, value=value, headers=(*original_headers(headers), *added))


def original_headers(headers: Headers) -> Headers:
    """The headers that the record had before it died, for a replay."""
    return tuple((name, value) for name, value in headers if name not in ADDED)


def decode_dead_letter(headers: Headers) -> DeadLetter:
    """Reads what happened to a dead letter.

    Raises:
        InvalidRequest: A header is missing or malformed; `param` names it.
    """
    return DeadLetter(
        origin=names.required(names.text(headers, ORIGIN), ORIGIN),
        error_code=names.required(names.text(headers, ERROR_CODE), ERROR_CODE),
        error_message=names.required(names.text(headers, ERROR_MESSAGE), ERROR_MESSAGE),
        attempts=names.required(names.decimal(headers, ATTEMPTS), ATTEMPTS),
        failed_at_ms=names.required(names.decimal(headers, FAILED_AT), FAILED_AT),
    )
