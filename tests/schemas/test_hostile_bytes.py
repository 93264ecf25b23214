"""Whatever is written to a topic, reading it ends in a model or in the error tree."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Refusal, decode_event, decode_requests, decode_result, encode_event, encode_request, encode_result
from schemas.dead_letter import decode_dead_letter, encode_dead_letter
from schemas.errors import BY_CODE, InvalidRequest
from schemas.events import Begin
from schemas.record import Encoded
from schemas.request import Request
from tests.schemas.samples import LIMITS, ORIGIN, any_request, events, json_values, names, repeatable, result_lines

HEADER_NAMES = st.sampled_from(["content-type", "correlation_id", "reply_to", "reply_partition", "deadline", "traceparent", "tracestate"])
EVENT_HEADER_NAMES = st.sampled_from(["event", "attempt", "seq", "epoch", "resume", "correlation_id", "origin", "penstock_attempts"])
HEADER_VALUES = st.binary(max_size=12) | st.sampled_from(
    [b"application/json", b"application/vnd.apache.arrow.stream", b"0", b"17", b"true", b"begin", b"chunk", b"end", b"error", b"reset"]
)
LITERALS = st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-0", "1" * 400, '"\\ud800"', "null", "[]", "{}", '""', "true", "0.5"])

FORMS = ("stop", "stop_token_ids", "logit_bias", "metadata", "n", "seed", "stream_options", "response_format")

thorough = settings(repeatable, max_examples=150)


def headers(of: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[tuple[str, bytes], ...]]:
    """Headers of these names, with values that may or may not fit them."""
    return st.lists(st.tuples(of, HEADER_VALUES), max_size=6).map(tuple)


def can_be_sent(text: str) -> bool:
    """Whether it holds no half of a character."""
    return text.encode(errors="replace").decode() == text


def check_error(error: object) -> None:
    """Asserts that it is one that a requester can be told of."""
    assert isinstance(error, InvalidRequest)
    assert BY_CODE[error.code] is type(error)
    assert can_be_sent(error.message)
    assert can_be_sent(error.param or "")


def check_requests(value: bytes | None, record_headers: Any) -> None:
    """Decodes, and asserts what holds for any bytes."""
    answers = decode_requests(value, record_headers, ORIGIN, 1, LIMITS)
    assert answers
    for answer in answers:
        assert isinstance(answer, Request | Refusal)
        if isinstance(answer, Refusal):
            check_error(answer.error)
            assert answer.dead_letter or answer.reply.custom_id is not None


@thorough
@given(value=st.none() | st.binary(max_size=200), record_headers=headers(HEADER_NAMES))
def test_random_bytes_are_never_raised_upon(value, record_headers):
    """Every record of a request topic is taken or refused; what is not a dead letter has somebody to answer."""
    check_requests(value, record_headers)


@thorough
@given(value=json_values, record_headers=headers(HEADER_NAMES))
def test_random_json_is_never_raised_upon(value, record_headers):
    """Nor is JSON of any shape."""
    check_requests(json.dumps(value).encode(), record_headers)


@thorough
@given(pair=any_request, name=names, value=json_values, data=st.data())
def test_any_value_in_any_field_is_taken_or_refused(pair, name, value, data):
    """A field of the endpoint, or a made-up one, may hold anything."""
    endpoint, body = pair
    field = data.draw(st.sampled_from([*body, name, *FORMS]), label="field")
    check_requests(encode_request(custom_id="c", endpoint=endpoint, body=body | {field: value}).value, ())


@thorough
@given(pair=any_request, literal=LITERALS, data=st.data())
def test_literals_that_python_lets_through_are_refused_with_an_owner(pair, literal, data):
    """NaN, numbers beyond a float and half characters never hide the `custom_id`."""
    endpoint, body = pair
    field = data.draw(st.sampled_from([*body, "temperature", "max_tokens"]), label="field")
    line = json.dumps({"custom_id": "c-42", "method": "POST", "url": endpoint, "body": body | {field: "@@@"}})
    (answer,) = decode_requests(line.replace('"@@@"', literal).encode(), (), ORIGIN, 1, LIMITS)
    assert answer.reply.custom_id == "c-42"
    if literal in {"NaN", "Infinity", "-Infinity", "1e999"}:
        assert isinstance(answer, Refusal)
        assert (answer.error.code, answer.dead_letter) in {("invalid_request", False), ("unsupported_field", False)}
        assert answer.error.param == field


def mutated(data: st.DataObject, value: bytes) -> bytes:
    """Changes, drops or repeats a few bytes."""
    damaged = bytearray(value)
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        at = data.draw(st.integers(0, max(len(damaged) - 1, 0)), label="at")
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3), label="bytes")
    return bytes(damaged)


@thorough
@given(pair=any_request, data=st.data())
def test_damaged_requests_are_never_raised_upon(pair, data):
    """A valid line with a few bytes changed."""
    endpoint, body = pair
    check_requests(mutated(data, encode_request(custom_id="c-42", endpoint=endpoint, body=body).value or b""), ())


def check_event(key: bytes | None, value: bytes | None, record_headers: Any) -> None:
    """Reads an event, and asserts that it says the same when it is written anew, or that the reader's error can be told."""
    try:
        found = decode_event(key, value, record_headers)
    except InvalidRequest as error:
        check_error(error)
        return
    anew = encode_event(found.event, custom_id=found.custom_id, correlation_id=found.correlation_id)
    expected = replace(found, correlation_id=found.custom_id) if found.correlation_id is None else found
    assert decode_event(anew.key, anew.value, anew.headers) == expected


def check_result(key: bytes | None, value: bytes | None, record_headers: Any) -> None:
    """The same of a result, whose body is any object or none: a number in it may be beyond what can be written."""
    try:
        found = decode_result(key, value, record_headers)
    except InvalidRequest as error:
        check_error(error)
        return
    assert isinstance(found.body, dict | None)
    found = replace(found, body=None)
    anew = encode_result(found)
    assert decode_result(anew.key, anew.value, anew.headers) == found


def check_dead_letter(record_headers: Any) -> None:
    """The same of a dead letter."""
    try:
        found = decode_dead_letter(record_headers)
    except InvalidRequest as error:
        check_error(error)
        return
    assert decode_dead_letter(encode_dead_letter(None, None, (), found).headers) == found


@thorough
@given(key=st.none() | st.binary(max_size=8), value=st.none() | st.binary(max_size=60), record_headers=headers(EVENT_HEADER_NAMES))
def test_random_bytes_are_no_reply(key, value, record_headers):
    """Readers of replies and dead letters meet only the error tree."""
    check_event(key, value, record_headers)
    check_result(key, value, record_headers)
    check_dead_letter(record_headers)


@thorough
@given(event=events, value=json_values, data=st.data())
def test_damaged_events_raise_only_the_error_tree(event, value, data):
    """A valid event with bytes changed, or any JSON in one of its members, its key or its headers."""
    record = encode_event(event, custom_id=event.custom_id if isinstance(event, Begin) else "c")
    members = json.loads(record.value or b"")
    member = data.draw(st.sampled_from(sorted(members)), label="member")
    replaced = json.dumps(members | {member: value}).encode()
    check_event(record.key, replaced, record.headers)
    check_event(record.key, mutated(data, record.value or b""), record.headers)
    check_event(record.key, record.value, (*record.headers, *data.draw(headers(EVENT_HEADER_NAMES), label="headers")))


@thorough
@given(line=result_lines, data=st.data())
def test_damaged_results_raise_only_the_error_tree(line, data):
    """A valid result with bytes changed."""
    record: Encoded = encode_result(line)
    check_result(record.key, mutated(data, record.value or b""), record.headers)


@pytest.mark.parametrize("depth", [300, 5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_of_any_depth_is_read_or_refused(depth, opening, closing):
    """In a request and in an event."""
    nested = opening * depth + b"1" + closing * depth
    check_requests(b'{"custom_id":"c","method":"POST","url":"/v1/completions","body":' + nested + b"}", ())
    check_event(b"c", b'{"reason":' + nested + b"}", (("event", b"reset"), ("attempt", b"1")))
