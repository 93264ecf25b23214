import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import BatchRow, Limits, Refusal, RequestHeaders, decode_requests, encode_request, encode_request_batch
from schemas.record import Origin, ReplyAddress
from schemas.request import Endpoint, Request, parse_body
from tests.schemas.samples import (
    LIMITS,
    MESSAGES,
    ORIGIN,
    TRACEPARENT,
    any_request,
    batch_rows,
    counts,
    custom_ids,
    names,
    repeatable,
    request_headers,
)

CHAT_BODY = {"model": "tiny", "messages": MESSAGES, "stream": True, "max_tokens": 64}


def taken(encoded, limits=LIMITS):
    """The one request of a record."""
    (request,) = decode_requests(encoded.value, encoded.headers, ORIGIN, 1_700, limits)
    assert isinstance(request, Request), request
    return request


def test_the_contracts_own_example_is_taken():
    """A line of a Batch file is a request as it stands."""
    value = (
        b'{"custom_id": "c-42", "method": "POST", "url": "/v1/chat/completions",\n'
        b' "body": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": true, "max_tokens": 64}}'
    )
    (request,) = decode_requests(value, (), ORIGIN, 1_700, LIMITS)
    assert request == Request(
        custom_id="c-42",
        endpoint=Endpoint.CHAT,
        body=parse_body(Endpoint.CHAT, CHAT_BODY),
        origin=ORIGIN,
        reply=ReplyAddress(custom_id="c-42", correlation_id="c-42", stream=True),
        timestamp_ms=1_700,
    )
    assert (request.model, request.stream, request.service_tier) == ("tiny", True, "default")


@repeatable
@given(custom_id=custom_ids, pair=any_request, key=st.none() | names, headers=request_headers)
def test_what_a_client_encodes_is_what_the_worker_takes(custom_id, pair, key, headers):
    """Any valid request survives the wire, with its headers and its key."""
    endpoint, body = pair
    encoded = encode_request(
        custom_id=custom_id,
        endpoint=endpoint,
        body=body,
        key=key,
        correlation_id=headers.correlation_id,
        reply_to=headers.reply_to,
        reply_partition=headers.reply_partition,
        deadline_ms=headers.deadline_ms,
        traceparent=headers.traceparent,
        tracestate=headers.tracestate,
    )
    assert encoded.key == (custom_id if key is None else key).encode()
    request = taken(encoded)
    assert request == Request(
        custom_id=custom_id,
        endpoint=endpoint,
        body=parse_body(endpoint, body),
        origin=ORIGIN,
        reply=ReplyAddress(
            custom_id=custom_id,
            correlation_id=custom_id if headers.correlation_id is None else headers.correlation_id,
            reply_to=headers.reply_to,
            reply_partition=headers.reply_partition,
            stream=body.get("stream", False),
        ),
        timestamp_ms=1_700,
        deadline_ms=headers.deadline_ms,
        traceparent=headers.traceparent,
        tracestate=headers.tracestate,
    )


@repeatable
@given(rows=batch_rows, headers=request_headers, key=st.none() | names)
def test_an_arrow_record_holds_many_requests(rows, headers, key):
    """Each row is the request that it would be alone, with an origin of its own; a row's deadline wins over the header's."""
    encoded = encode_request_batch(rows, key=key, headers=headers)
    assert encoded.key == (None if key is None else key.encode())
    requests = decode_requests(encoded.value, encoded.headers, ORIGIN, 1_700, LIMITS)
    for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
        assert isinstance(request, Request)
        assert (request.custom_id, request.endpoint) == (row.custom_id, row.endpoint)
        assert request.body == parse_body(row.endpoint, row.body)
        assert str(request.origin) == f"{ORIGIN}/{number}"
        assert request.deadline_ms == (headers.deadline_ms if row.deadline_ms is None else row.deadline_ms)
        assert request.reply.correlation_id == (row.custom_id if headers.correlation_id is None else headers.correlation_id)


def test_pooled_requests_are_never_streams():
    """Whatever else they say, they are answered by one record."""
    request = taken(encode_request(custom_id="e", endpoint=Endpoint.EMBEDDINGS, body={"model": "tiny", "input": "x"}))
    assert not request.stream
    assert not request.reply.stream


def test_the_last_header_of_a_name_counts_and_unknown_ones_are_ignored():
    """As Kafka's clients read repeated headers."""
    encoded = encode_request(custom_id="c", endpoint=Endpoint.CHAT, body=CHAT_BODY, correlation_id="first")
    headers = (*encoded.headers, ("x-other", b"\xff"), ("correlation_id", b"last"))
    (request,) = decode_requests(encoded.value, headers, ORIGIN, 1, LIMITS)
    assert request.reply.correlation_id == "last"


@pytest.mark.parametrize("content_type", [b"application/json", b"Application/JSON; charset=utf-8", b" application/json "])
def test_a_content_type_may_have_parameters(content_type):
    """Names of types ignore case, and what follows the semicolon changes nothing."""
    value = encode_request(custom_id="c", endpoint=Endpoint.CHAT, body=CHAT_BODY).value
    (request,) = decode_requests(value, (("content-type", content_type),), ORIGIN, 1, LIMITS)
    assert isinstance(request, Request)


@pytest.mark.parametrize(
    ("traceparent", "tracestate", "kept"),
    [
        (TRACEPARENT, "a=1", (TRACEPARENT, "a=1")),
        (TRACEPARENT, None, (TRACEPARENT, None)),
        (TRACEPARENT, "", (TRACEPARENT, None)),
        (TRACEPARENT, "x" * 513, (TRACEPARENT, None)),
        (None, "a=1", (None, None)),
        ("00-nothing", "a=1", (None, None)),
        (TRACEPARENT.upper(), None, (None, None)),
    ],
)
def test_a_malformed_trace_context_is_dropped(traceparent, tracestate, kept):
    """No request fails over its tracing."""
    request = taken(encode_request(custom_id="c", endpoint=Endpoint.CHAT, body=CHAT_BODY, traceparent=traceparent, tracestate=tracestate))
    assert (request.traceparent, request.tracestate) == kept


def test_a_trace_context_that_is_not_text_is_dropped():
    """Bytes that are no UTF-8 are as malformed as any."""
    value = encode_request(custom_id="c", endpoint=Endpoint.CHAT, body=CHAT_BODY).value
    (request,) = decode_requests(value, (("traceparent", b"\xff"),), ORIGIN, 1, LIMITS)
    assert isinstance(request, Request)
    assert request.traceparent is None


def rows_of(*rows: tuple[str, dict[str, object]]) -> list[BatchRow]:
    """Completions of these names and bodies."""
    return [BatchRow(custom_id=name, endpoint=Endpoint.COMPLETIONS, body=body) for name, body in rows]


def test_one_bad_row_harms_no_other():
    """Rows are refused one by one, at their own origins, and are no dead letters while they can be read."""
    encoded = encode_request_batch(rows_of(("a", {"model": "m", "prompt": "x"}), ("b", {"model": "m", "prompt": ""}), ("c", {"model": "m"})))
    first, second, third = decode_requests(encoded.value, encoded.headers, ORIGIN, 1, LIMITS)
    assert isinstance(first, Request)
    for number, (refused, name) in enumerate([(second, "b"), (third, "c")], start=1):
        assert isinstance(refused, Refusal)
        assert (refused.error.param, refused.reply.custom_id, refused.dead_letter) == ("prompt", name, False)
        assert refused.origin == Origin(ORIGIN.topic, ORIGIN.partition, ORIGIN.offset, number)


def test_a_malformed_header_refuses_every_row():
    """The header holds for all of them."""
    encoded = encode_request_batch(rows_of(("a", {"model": "m", "prompt": "x"}), ("b", {"model": "m", "prompt": "x"})))
    refusals = decode_requests(encoded.value, (*encoded.headers, ("deadline", b"x")), ORIGIN, 1, LIMITS)
    assert [(refused.error.param, refused.reply.custom_id) for refused in refusals] == [("deadline", "a"), ("deadline", "b")]


@pytest.mark.parametrize(
    ("row", "code", "param", "dead_letter"),
    [
        ((None, "/v1/completions", "{}", None), "invalid_request", "custom_id", True),
        (("", "/v1/completions", "{}", None), "invalid_request", "custom_id", True),
        (("a", None, "{}", None), "invalid_request", "url", True),
        (("a", "/v1/no", "{}", None), "unknown_url", "url", True),
        (("a", "/v1/completions", None, None), "invalid_json", "body", False),
        (("a", "/v1/completions", "{", None), "invalid_json", "body", False),
        (("a", "/v1/completions", "[]", None), "invalid_json", "body", False),
        (("a", "/v1/completions", '{"model": "m", "prompt": "x"}', -1), "invalid_request", "deadline", False),
        (("a", "/v1/completions", '{"model": "m", "prompt": "\\udc00"}', None), "invalid_request", "prompt", False),
    ],
)
def test_a_faulty_row_is_refused_by_its_column(arrow_value, row, code, param, dead_letter):
    """Nulls and broken JSON included."""
    value = arrow_value([row])
    (refused,) = decode_requests(value, RequestHeaders().encode(content_type="application/vnd.apache.arrow.stream"), ORIGIN, 1, LIMITS)
    assert (refused.error.code, refused.error.param, refused.dead_letter) == (code, param, dead_letter)
    assert str(refused.origin) == f"{ORIGIN}/0"


def test_rows_are_bounded():
    """A record of more rows than allowed is refused as a whole."""
    encoded = encode_request_batch(rows_of(*[(str(number), {"model": "m", "prompt": "x"}) for number in range(3)]))
    assert len(decode_requests(encoded.value, encoded.headers, ORIGIN, 1, Limits(rows=3))) == 3
    (refused,) = decode_requests(encoded.value, encoded.headers, ORIGIN, 1, Limits(rows=2))
    assert (refused.error.code, refused.dead_letter, refused.origin) == ("record_too_large", True, ORIGIN)


@repeatable
@given(deadline_ms=counts)
def test_a_deadline_is_a_number_of_any_size(deadline_ms):
    """Up to what 64 bits hold."""
    assert taken(encode_request(custom_id="c", endpoint=Endpoint.CHAT, body=CHAT_BODY, deadline_ms=deadline_ms)).deadline_ms == deadline_ms


@pytest.mark.parametrize("body", [{"prompt": float("nan")}, {"prompt": "\ud800"}])
def test_a_client_cannot_send_what_is_no_json(body):
    """The mistake surfaces where it is made."""
    with pytest.raises(ValueError, match=r"JSON|surrogate"):
        encode_request(custom_id="c", endpoint=Endpoint.COMPLETIONS, body=body)
