"""Record headers: their names, and their values between bytes and Python. All values are UTF-8 strings."""

import re
from collections.abc import Iterable
from typing import TypeVar

from schemas.errors import InvalidRequest
from schemas.record import Headers

T = TypeVar("T")

CONTENT_TYPE = "content-type"
CORRELATION_ID = "correlation_id"
REPLY_TO = "reply_to"
REPLY_PARTITION = "reply_partition"
DEADLINE = "deadline"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
EVENT = "event"
ATTEMPT = "attempt"
SEQ = "seq"
EPOCH = "epoch"
RESUME = "resume"
ORIGIN = "origin"
RETRY_AFTER_MS = "retry_after_ms"

JSON_TYPE = "application/json"
ARROW_TYPE = "application/vnd.apache.arrow.stream"

MAX_INT64 = 2**63 - 1
MAX_INT32 = 2**31 - 1

_DECIMAL = re.compile(r"[0-9]{1,19}", re.ASCII)


def encode(pairs: Iterable[tuple[str, str | int | None]]) -> Headers:
    """Encodes header values; those that are None are left out."""
    return tuple((name, str(value).encode("utf-8")) for name, value in pairs if value is not None)


def text(headers: Headers, name: str) -> str | None:
    """Reads a header; the last of a name counts.

    Raises:
        InvalidRequest: The value is not UTF-8.
    """
    found = None
    for key, value in headers:
        if key == name:
            found = value
    if found is None:
        return None
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"header {name} is not UTF-8", param=name) from None


def decimal(headers: Headers, name: str, *, limit: int = MAX_INT64) -> int | None:
    """Reads a header that holds a number from 0 to `limit` in decimal digits.

    Raises:
        InvalidRequest: It holds something else.
    """
    digits = text(headers, name)
    if digits is None:
        return None
    if _DECIMAL.fullmatch(digits) is None or int(digits) > limit:
        raise InvalidRequest(f"header {name} must be a decimal number from 0 to {limit}", param=name)
    return int(digits)


def required(found: T | None, name: str) -> T:
    """Insists on a header.

    Raises:
        InvalidRequest: It is absent.
    """
    if found is None:
        raise InvalidRequest(f"header {name} is missing", param=name)
    return found


def key_text(key: bytes | None) -> str | None:
    """Reads a reply record's key, which is the `custom_id`.

    Raises:
        InvalidRequest: It is not UTF-8.
    """
    try:
        return None if key is None else key.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the key is not UTF-8", param="custom_id") from None
