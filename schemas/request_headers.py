"""The headers of a request record: where to answer, until when, and whose trace it belongs to."""

import re
from dataclasses import dataclass
from typing import Self

from schemas import headers as names
from schemas.errors import InvalidRequest
from schemas.record import Headers

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]*)?", re.ASCII)
_TRACESTATE = re.compile(r"[ -~]{1,512}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """What the headers of a request say. `deadline_ms` is in epoch milliseconds; absent headers are None."""

    correlation_id: str | None = None
    reply_to: str | None = None
    reply_partition: int | None = None
    deadline_ms: int | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    @classmethod
    def read(cls, headers: Headers) -> tuple[Self, InvalidRequest | None]:
        """Reads what can be read; the fault is the first header that is malformed, and its field is then None.

        A malformed trace context is dropped, as W3C's recommendation has it: no request fails over its tracing.
        """
        correlation_id, fault_1 = _text(headers, names.CORRELATION_ID)
        reply_to, fault_2 = _text(headers, names.REPLY_TO)
        reply_partition, fault_3 = _decimal(headers, names.REPLY_PARTITION, names.MAX_INT32)
        deadline_ms, fault_4 = _decimal(headers, names.DEADLINE, names.MAX_INT64)
        traceparent, tracestate = _trace(headers)
        read = cls(
            correlation_id=correlation_id,
            reply_to=reply_to,
            reply_partition=reply_partition,
            deadline_ms=deadline_ms,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        return read, fault_1 or fault_2 or fault_3 or fault_4

    def encode(self, *, content_type: str) -> Headers:
        """Gives the headers of a request record."""
        return names.encode(
            (
                (names.CONTENT_TYPE, content_type),
                (names.CORRELATION_ID, self.correlation_id),
                (names.REPLY_TO, self.reply_to),
                (names.REPLY_PARTITION, self.reply_partition),
                (names.DEADLINE, self.deadline_ms),
                (names.TRACEPARENT, self.traceparent),
                (names.TRACESTATE, self.tracestate),
            )
        )


def _text(headers: Headers, name: str) -> tuple[str | None, InvalidRequest | None]:
    try:
        return names.text(headers, name), None
    except InvalidRequest as fault:
        return None, fault


def _decimal(headers: Headers, name: str, limit: int) -> tuple[int | None, InvalidRequest | None]:
    try:
        return names.decimal(headers, name, limit=limit), None
    except InvalidRequest as fault:
        return None, fault


def _trace(headers: Headers) -> tuple[str | None, str | None]:
    traceparent, _ = _text(headers, names.TRACEPARENT)
    if traceparent is None or _TRACEPARENT.fullmatch(traceparent) is None:
        return None, None
    tracestate, _ = _text(headers, names.TRACESTATE)
    return traceparent, tracestate if tracestate and _TRACESTATE.fullmatch(tracestate) else None
