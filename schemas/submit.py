"""Requests as their senders write them: one line per record, or many rows in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas import arrow
from schemas.headers import ARROW_TYPE, JSON_TYPE
from schemas.json_value import dump
from schemas.record import Encoded
from schemas.request import Endpoint
from schemas.request_headers import RequestHeaders


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One request of an Arrow record: the endpoint's OpenAI body as JSON has it. `deadline_ms` is in epoch milliseconds."""

    custom_id: str
    endpoint: Endpoint
    body: Mapping[str, Any]
    deadline_ms: int | None = None


def encode_request(
    *,
    custom_id: str,
    endpoint: Endpoint,
    body: Mapping[str, Any],
    key: str | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    reply_partition: int | None = None,
    deadline_ms: int | None = None,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> Encoded:
    """Makes the record of one request. The body goes as it is: the worker validates it and answers.

    Args:
        custom_id: The sender's name for the request, 1 to 256 characters.
        endpoint: The `url`.
        body: The endpoint's OpenAI body.
        key: Requests of one key reach one worker in order, a conversation's say; defaults to `custom_id`.
        correlation_id: Echoed on every reply; defaults to `custom_id`.
        reply_to: Reply topic; defaults to the deployment's topic of streams or results.
        reply_partition: Partition of the reply topic.
        deadline_ms: When the request is no longer wanted, in epoch milliseconds.
        traceparent: W3C trace context.
        tracestate: The same.

    Raises:
        ValueError: The body holds NaN, an infinity or half a surrogate pair.
    """
    headers = RequestHeaders(
        correlation_id=correlation_id,
        reply_to=reply_to,
        reply_partition=reply_partition,
        deadline_ms=deadline_ms,
        traceparent=traceparent,
        tracestate=tracestate,
    )
    line = {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": body}
    return Encoded(key=(custom_id if key is None else key).encode("utf-8"), value=dump(line), headers=headers.encode(content_type=JSON_TYPE))


def encode_request_batch(rows: Sequence[BatchRow], *, key: str | None = None, headers: RequestHeaders | None = None) -> Encoded:
    """Makes one Arrow record of many requests; its headers hold for every row that does not say otherwise.

    Raises:
        ValueError: A body holds NaN, an infinity or half a surrogate pair.
    """
    value = arrow.write_rows([arrow.Row(row.custom_id, row.endpoint, dump(row.body).decode("utf-8"), row.deadline_ms) for row in rows])
    return Encoded(
        key=None if key is None else key.encode("utf-8"),
        value=value,
        headers=(headers or RequestHeaders()).encode(content_type=ARROW_TYPE),
    )
