import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import ErrorBody, ResultLine, decode_result, encode_result
from schemas.control import Assigned, Cancel, decode_control, encode_control
from schemas.dead_letter import ADDED, DeadLetter, decode_dead_letter, encode_dead_letter, original_headers
from schemas.errors import InvalidJson, InvalidRequest, RateLimited, UnsupportedField
from schemas.events import FinishReason, StreamHead, Usage
from schemas.record import Origin
from schemas.results import Choice, chat_completion, text_completion
from tests.schemas.samples import custom_ids, dead_letters, raw_headers, repeatable, result_lines, texts

LINE = ResultLine(id="batch_req_1", custom_id="c-42", status_code=200, request_id="r", body={"x": 1}, origin="t/0/9", attempt=7)
HEAD = StreamHead(id="chatcmpl-1", object="chat.completion.chunk", created=1_700, model="tiny")
CHOICES = [Choice(text="a", finish_reason=FinishReason.STOP), Choice(text="b", finish_reason=FinishReason.LENGTH, logprobs={"content": []})]
USAGE = Usage(prompt_tokens=2, completion_tokens=3)


def test_a_result_is_a_line_of_a_batch_output_file():
    """Value and headers are those of the contract."""
    record = encode_result(LINE)
    assert json.loads(record.value or b"") == {
        "id": "batch_req_1",
        "custom_id": "c-42",
        "response": {"status_code": 200, "request_id": "r", "body": {"x": 1}},
        "error": None,
    }
    assert (record.key, record.headers) == (b"c-42", (("correlation_id", b"c-42"), ("origin", b"t/0/9"), ("attempt", b"7")))


def test_a_refused_result_says_why_twice():
    """In short at the top, and as OpenAI's error object in the body, under the error's HTTP status."""
    error = UnsupportedField("tools: not here", param="tools")
    line = ResultLine.refused(error, line_id="b", custom_id="c", request_id="r", origin="t/0/9", attempt=7)
    value = json.loads(encode_result(line, "k").value or b"")
    assert value["error"] == {"code": "unsupported_field", "message": "tools: not here"}
    assert value["response"] == {
        "status_code": 400,
        "request_id": "r",
        "body": {"error": {"message": "tools: not here", "type": "invalid_request_error", "param": "tools", "code": "unsupported_field"}},
    }
    assert line.error == ErrorBody(code="unsupported_field", message="tools: not here")


def test_a_result_that_may_come_later_says_when_in_a_header():
    """As a stream's error does."""
    line = ResultLine.refused(RateLimited("slow down", retry_after_s=0.5), line_id="b", custom_id="c", request_id="r", origin="t/0/9", attempt=7)
    assert dict(encode_result(line).headers)["retry_after_ms"] == b"500"


@repeatable
@given(line=result_lines, correlation_id=st.none() | texts)
def test_every_result_survives_the_wire(line, correlation_id):
    """With a correlation id of its own or the line's."""
    record = encode_result(line, correlation_id)
    assert decode_result(record.key, record.value, record.headers) == line
    expected = line.custom_id if correlation_id is None else correlation_id
    assert dict(record.headers).get("correlation_id") == (None if expected is None else expected.encode())


@pytest.mark.parametrize(
    ("key", "changes", "headers", "param"),
    [
        (b"another", {}, {}, "custom_id"),
        (b"\xff", {}, {}, "custom_id"),
        (None, {}, {}, "custom_id"),
        (b"c-42", {"response": None}, {}, "response"),
        (b"c-42", {"response": {"status_code": 0, "request_id": "r", "body": {}}}, {}, "response.status_code"),
        (b"c-42", {"error": {}}, {}, "error.code"),
        (b"c-42", {}, {"origin": None}, "origin"),
        (b"c-42", {}, {"attempt": None}, "attempt"),
        (b"c-42", {}, {"attempt": b"x"}, "attempt"),
    ],
)
def test_a_result_that_breaks_the_contract_is_refused(key, changes, headers, param):
    """By the name of what is wrong."""
    record = encode_result(LINE)
    value = json.dumps(json.loads(record.value or b"") | changes).encode()
    merged: dict[str, Any] = dict(record.headers) | headers
    with pytest.raises(InvalidRequest) as caught:
        decode_result(key, value, tuple((name, content) for name, content in merged.items() if content is not None))
    assert caught.value.param == param


@pytest.mark.parametrize("value", [None, b"", b"["])
def test_a_value_that_is_no_json_is_no_result(value):
    """A null value as little as broken JSON."""
    with pytest.raises(InvalidJson):
        decode_result(b"c", value, ())


def test_a_chat_completion_is_openais():
    """Field by field."""
    assert chat_completion(HEAD, CHOICES, USAGE) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700,
        "model": "tiny",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "a", "refusal": None}, "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "b", "refusal": None}, "logprobs": {"content": []}, "finish_reason": "length"},
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }


def test_a_text_completion_is_openais():
    """Field by field."""
    body = text_completion(HEAD, CHOICES[:1], USAGE)
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_a_cancel_is_the_contracts():
    """Keyed by the request that it ends."""
    record = encode_control(Cancel("c-42"))
    assert (record.key, json.loads(record.value or b"")) == (b"c-42", {"type": "cancel", "custom_id": "c-42"})


@repeatable
@given(message=st.builds(Cancel, custom_ids) | st.builds(Assigned, texts, st.lists(texts, max_size=4).map(tuple)))
def test_every_control_message_survives_the_wire(message):
    """Clients' and workers' own."""
    assert decode_control(encode_control(message).value) == message


@pytest.mark.parametrize(
    "value",
    [
        *(None, b"", b"{", b"[]", b"\xff", b"{}", b'{"type": "reload"}', b'{"type": "cancel"}', b'{"type": "cancel", "custom_id": 1}'),
        *(b'{"type": "cancel", "custom_id": ""}', b'{"type": "assigned", "member": "m"}', b"[" * 10_000),
    ],
)
def test_what_is_no_control_message_is_ignored(value):
    """Every worker reads this topic: nothing in it may stop one."""
    assert decode_control(value) is None


LETTER = DeadLetter.of(UnsupportedField("no é"), Origin("t", 0, 9), attempts=2, failed_at_ms=1_700)


def test_a_dead_letter_is_the_original_with_headers_added():
    """Key, value and headers stay, a null value and repeated headers included."""
    record = encode_dead_letter(None, None, (("a", b"\xff"), ("a", b"2")), LETTER)
    assert (record.key, record.value) == (None, None)
    assert record.headers == (
        ("a", b"\xff"),
        ("a", b"2"),
        ("penstock_error_code", b"unsupported_field"),
        ("penstock_error_message", "no é".encode()),
        ("penstock_origin", b"t/0/9"),
        ("penstock_attempts", b"2"),
        ("penstock_failed_at", b"1700"),
    )


@repeatable
@given(letter=dead_letters, headers=raw_headers, key=st.none() | st.binary(), value=st.none() | st.binary())
def test_every_dead_letter_survives_the_wire_and_a_second_death(letter, headers, key, value):
    """A replayed record that dies again tells of its last death only, and gives its own headers back."""
    first = encode_dead_letter(key, value, headers, LETTER)
    second = encode_dead_letter(first.key, first.value, first.headers, letter)
    assert decode_dead_letter(second.headers) == letter
    assert (second.key, second.value, original_headers(second.headers)) == (key, value, headers)
    assert len(second.headers) == len(headers) + len(ADDED)


@pytest.mark.parametrize("missing", ADDED)
def test_a_dead_letter_without_one_of_its_headers_is_refused(missing):
    """By the header's name."""
    headers = tuple(header for header in encode_dead_letter(b"", b"", (), LETTER).headers if header[0] != missing)
    with pytest.raises(InvalidRequest) as caught:
        decode_dead_letter(headers)
    assert caught.value.param == missing
