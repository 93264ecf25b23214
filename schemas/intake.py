"""Request records to requests: whatever the bytes are, each request in them is taken or refused, and nothing is raised.

What can be read is read in the order that keeps the answer reachable: sizes first, then the headers that say where to
answer, then the envelope, then the body. The first fault ends it; the refusal carries what was read until then.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from schemas import arrow
from schemas import headers as names
from schemas.errors import InvalidJson, InvalidRequest, PenstockError, RecordTooLarge, UnknownUrl, UnsupportedField
from schemas.faults import dotted
from schemas.json_value import is_whole, load_object, refuse_surrogates
from schemas.limits import Limits
from schemas.record import Headers, Origin, ReplyAddress
from schemas.request import MAX_CUSTOM_ID_CHARACTERS, Endpoint, Request, parse_body
from schemas.request_headers import RequestHeaders

_LINE_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that is not taken.

    `dead_letter` tells whether the record goes to the dead letters as well: it can't be read as a request. Faults of a
    request that can be read are only answered.
    """

    error: PenstockError
    origin: Origin
    reply: ReplyAddress
    dead_letter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One request before validation: parsed JSON in every field, or the fault of what should have been the body."""

    origin: Origin
    custom_id: Any
    method: Any
    url: Any
    body: Any
    body_bytes: bytes
    deadline_ms: int | None = None
    fault: InvalidRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What the lines of one record share. `fault` is that of a header: it refuses them all."""

    meta: RequestHeaders
    fault: InvalidRequest | None
    timestamp_ms: int


def decode_requests(value: bytes | None, headers: Headers, origin: Origin, timestamp_ms: int, limits: Limits) -> tuple[Request | Refusal, ...]:
    """Reads one record of a request topic.

    Args:
        value: One line of a Batch file, or an Arrow stream where the content type says so.
        headers: The record's headers.
        origin: Where the record lies, without a row.
        timestamp_ms: The record's timestamp (epoch milliseconds).
        limits: Bounds, checked before anything is parsed.

    Returns:
        One entry for JSON; for Arrow one per row, or one refusal where the record as a whole can't be read.
    """
    meta, fault = RequestHeaders.read(headers)
    try:
        lines = _lines(_sized(value, headers, limits), headers, origin, limits)
    except InvalidRequest as error:
        return (Refusal(error=error, origin=origin, reply=_address(meta, custom_id=None, stream=True), dead_letter=True),)
    context = _Context(meta=meta, fault=fault, timestamp_ms=timestamp_ms)
    return tuple(_decode(line, context) for line in lines)


def _sized(value: bytes | None, headers: Headers, limits: Limits) -> bytes:
    if value is None:
        raise InvalidJson("the record has no value: send one request as a JSON object")
    if len(value) > limits.record_bytes:
        raise RecordTooLarge(f"the record has {len(value)} bytes; the limit is {limits.record_bytes}: send less in one record")
    if len(headers) > limits.headers:
        raise RecordTooLarge(f"the record has {len(headers)} headers; the limit is {limits.headers}", param="headers")
    header_bytes = sum(len(name) + len(content) for name, content in headers)
    if header_bytes > limits.header_bytes:
        raise RecordTooLarge(f"the headers have {header_bytes} bytes; the limit is {limits.header_bytes}", param="headers")
    return value


def _lines(value: bytes, headers: Headers, origin: Origin, limits: Limits) -> Iterable[_Line]:
    declared = names.text(headers, names.CONTENT_TYPE) or names.JSON_TYPE
    match declared.partition(";")[0].strip().lower():
        case names.JSON_TYPE:
            return (_json_line(value, origin),)
        case names.ARROW_TYPE:
            rows = arrow.read_rows(value, max_rows=limits.rows, max_decoded_bytes=arrow.DECODED_RATIO * limits.record_bytes)
            return (_arrow_line(row, number, origin) for number, row in enumerate(rows))
        case _:
            raise InvalidRequest(f"content-type must be {names.JSON_TYPE} or {names.ARROW_TYPE}", param=names.CONTENT_TYPE)


def _json_line(value: bytes, origin: Origin) -> _Line:
    line = load_object(value, what="the record's value")
    unknown = next((name for name in line if name not in _LINE_FIELDS), None)
    body = line.get("body")
    return _Line(
        origin=origin,
        custom_id=line.get("custom_id"),
        method=line.get("method"),
        url=line.get("url"),
        body=body,
        body_bytes=value,
        fault=_not_a_body(body) if unknown is None else _unknown_field(unknown),
    )


def _arrow_line(row: arrow.Row, number: int, origin: Origin) -> _Line:
    body_bytes = (row.body or "").encode("utf-8")
    body, fault = None, None
    try:
        body = load_object(body_bytes, what="body")
    except InvalidJson as error:
        fault = InvalidJson(error.message, param="body")
    return _Line(
        origin=Origin(origin.topic, origin.partition, origin.offset, number),
        custom_id=row.custom_id,
        method="POST",
        url=row.url,
        body=body,
        body_bytes=body_bytes,
        deadline_ms=row.deadline_ms,
        fault=fault,
    )


def _not_a_body(body: Any) -> InvalidRequest | None:
    return None if isinstance(body, dict) else InvalidRequest("body must be the endpoint's JSON object", param="body")


def _unknown_field(name: str) -> UnsupportedField:
    path = dotted((name,))
    return UnsupportedField(f"{path} is not a field of a request line; it has {', '.join(_LINE_FIELDS)}", param=path)


def _decode(line: _Line, context: _Context) -> Request | Refusal:
    custom_id = line.custom_id if _is_custom_id(line.custom_id) else None
    stream = isinstance(line.body, dict) and line.body.get("stream") is True
    reply = _address(context.meta, custom_id=custom_id, stream=stream)
    try:
        endpoint = _endpoint(line)
    except InvalidRequest as error:
        return Refusal(error=error, origin=line.origin, reply=reply, dead_letter=True)
    try:
        return _request(line, endpoint, reply, context)
    except InvalidRequest as error:
        return Refusal(error=error, origin=line.origin, reply=reply, dead_letter=False)


def _request(line: _Line, endpoint: Endpoint, reply: ReplyAddress, context: _Context) -> Request:
    if fault := context.fault or line.fault:
        raise fault
    if line.deadline_ms is not None and line.deadline_ms < 0:
        raise InvalidRequest("deadline must be in epoch milliseconds", param=names.DEADLINE)
    refuse_surrogates(line.body_bytes, line.body)
    return Request(
        custom_id=line.custom_id,
        endpoint=endpoint,
        body=parse_body(endpoint, line.body),
        origin=line.origin,
        reply=reply,
        timestamp_ms=context.timestamp_ms,
        deadline_ms=context.meta.deadline_ms if line.deadline_ms is None else line.deadline_ms,
        traceparent=context.meta.traceparent,
        tracestate=context.meta.tracestate,
    )


def _address(meta: RequestHeaders, *, custom_id: str | None, stream: bool) -> ReplyAddress:
    return ReplyAddress(
        custom_id=custom_id,
        correlation_id=custom_id if meta.correlation_id is None else meta.correlation_id,
        reply_to=meta.reply_to,
        reply_partition=meta.reply_partition,
        stream=stream,
    )


def _is_custom_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_CUSTOM_ID_CHARACTERS and is_whole(value)


def _endpoint(line: _Line) -> Endpoint:
    """Checks the envelope: what fails here can't be read as a request."""
    if not _is_custom_id(line.custom_id):
        raise InvalidRequest(f"custom_id must be a string of 1 to {MAX_CUSTOM_ID_CHARACTERS} characters", param="custom_id")
    if line.method != "POST":
        raise InvalidRequest("method must be POST", param="method")
    if not isinstance(line.url, str):
        raise InvalidRequest("url must be a string", param="url")
    if line.url not in set(Endpoint):
        raise UnknownUrl(f"url is none of {', '.join(Endpoint)}", param="url")
    return Endpoint(line.url)
