import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Received, decode_event, encode_event, error_event
from schemas.errors import InvalidJson, InvalidRequest, PenstockError, PromptTooLong, RateLimited
from schemas.events import Begin, Chunk, End, Error, FinishReason, Reset, StreamHead, Usage
from schemas.record import Encoded
from tests.schemas.samples import custom_ids, events, repeatable, texts

CHAT = StreamHead(id="chatcmpl-1", object="chat.completion.chunk", created=1_700, model="tiny")
TEXT = StreamHead(id="cmpl-1", object="text_completion", created=1_700, model="tiny")
BEGIN = Begin(custom_id="c-42", model="tiny", origin="penstock.requests/3/9", created=1_700, epoch=7, resume=True)
CHUNK = Chunk(head=CHAT, attempt=12, seq=3, text="hé", token_ids=(5, 6), token_offset=40, index=1)
END = End(head=CHAT, attempt=12, seq=4, finish_reasons=(FinishReason.STOP, FinishReason.LENGTH), usage=Usage(prompt_tokens=2, completion_tokens=3))
ERROR = Error(code="engine_error", type="server_error", message="it broke", attempt=12, seq=4)
RESET = Reset(attempt=12, reason="another revision")


def encoded(event: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The value of an event's record and its headers beside `correlation_id`."""
    record = encode_event(event, custom_id="c-42", correlation_id="k")
    assert record.key == b"c-42"
    assert record.value is not None
    headers = {name: value.decode() for name, value in record.headers}
    assert headers.pop("correlation_id") == "k"
    return json.loads(record.value), headers


def test_begin_announces_the_attempt_without_naming_it():
    """Its own offset is the attempt, so it has no such header, but an epoch and whether it resumes."""
    value, headers = encoded(BEGIN)
    assert value == {"custom_id": "c-42", "model": "tiny", "origin": "penstock.requests/3/9", "created": 1_700}
    assert headers == {"event": "begin", "epoch": "7", "resume": "true"}
    assert encoded(replace(BEGIN, resume=False))[1]["resume"] == "false"


def test_an_error_that_may_pass_says_when_in_a_header():
    """In whole milliseconds, never too early; the value stays OpenAI's error object, and a reader gets the number back."""
    told = encode_event(error_event(RateLimited("slow down", retry_after_s=1.2341)), custom_id="c")
    assert dict(told.headers)["retry_after_ms"] == b"1235"
    assert json.loads(told.value or b"")["error"] == {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limited"}
    event = decode_event(told.key, told.value, told.headers).event
    assert isinstance(event, Error)
    assert event.retry_after_ms == 1235


def test_the_usage_of_a_repeated_answer_says_so():
    """`penstock_cache` is there on a hit, and on nothing else."""
    hit = replace(END, usage=replace(END.usage, is_cached=True))
    assert encoded(hit)[0]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "penstock_cache": "hit"}
    assert "penstock_cache" not in encoded(END)[0]["usage"]


def test_a_chat_chunk_is_openais_object_and_its_tokens():
    """An OpenAI client reads it as it is; a resuming worker finds ids and offset beside it."""
    value, headers = encoded(CHUNK)
    assert value == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700,
        "model": "tiny",
        "choices": [{"index": 1, "delta": {"content": "hé"}, "logprobs": None, "finish_reason": None}],
        "sequence_number": 3,
        "token_ids": [5, 6],
        "token_offset": 40,
    }
    assert headers == {"event": "chunk", "attempt": "12", "seq": "3"}


def test_the_first_chunk_of_a_chat_choice_carries_the_role():
    """As OpenAI's streams begin."""
    value, _ = encoded(replace(CHUNK, opens_choice=True))
    assert value["choices"][0]["delta"] == {"role": "assistant", "content": "hé"}


def test_a_completion_chunk_holds_text():
    """And the logprobs where they were asked for."""
    value, _ = encoded(replace(CHUNK, head=TEXT, opens_choice=True, logprobs={"tokens": ["h"]}))
    assert value["object"] == "text_completion"
    assert value["choices"] == [{"index": 1, "text": "hé", "logprobs": {"tokens": ["h"]}, "finish_reason": None}]


@pytest.mark.parametrize(("head", "content"), [(CHAT, {"delta": {}}), (TEXT, {"text": ""})])
def test_end_closes_every_choice_and_counts_tokens(head, content):
    """One end for all choices: nothing added, each finish reason, usage."""
    value, headers = encoded(replace(END, head=head))
    assert value["choices"] == [
        {"index": 0, **content, "logprobs": None, "finish_reason": "stop"},
        {"index": 1, **content, "logprobs": None, "finish_reason": "length"},
    ]
    assert value["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert value["sequence_number"] == 4
    assert "token_ids" not in value
    assert headers == {"event": "end", "attempt": "12", "seq": "4"}


def test_an_error_is_openais_object():
    """Within an attempt it has a place in the sequence; one that refuses has neither attempt nor seq."""
    value, headers = encoded(ERROR)
    assert value == {"error": {"message": "it broke", "type": "server_error", "param": None, "code": "engine_error"}}
    assert headers == {"event": "error", "attempt": "12", "seq": "4"}
    assert encoded(replace(ERROR, attempt=None, seq=None))[1] == {"event": "error"}


def test_a_fault_becomes_its_error_event():
    """Code, type, message and param are the fault's."""
    event = error_event(PromptTooLong(9, 8))
    assert event == Error(code="prompt_too_long", type="invalid_request_error", message=PromptTooLong(9, 8).message, param="prompt")
    assert error_event(PenstockError("x"), attempt=1, seq=2) == Error(code="internal_error", type="server_error", message="x", attempt=1, seq=2)


def test_reset_needs_only_the_attempt():
    """It has no place in the sequence, which starts again."""
    assert encoded(RESET) == ({"reason": "another revision"}, {"event": "reset", "attempt": "12"})


def test_the_correlation_id_defaults_to_the_custom_id():
    """And a refused request may have neither."""
    assert ("correlation_id", b"c") in encode_event(RESET, custom_id="c").headers
    record = encode_event(ERROR, custom_id=None, correlation_id="k")
    assert (record.key, record.headers[0]) == (None, ("correlation_id", b"k"))
    assert decode_event(None, record.value, record.headers) == Received(custom_id=None, correlation_id="k", event=ERROR)
    assert [name for name, _ in encode_event(RESET, custom_id=None).headers] == ["event", "attempt"]


@repeatable
@given(event=events, custom_id=custom_ids, correlation_id=st.none() | texts)
def test_every_event_survives_the_wire(event, custom_id, correlation_id):
    """What a reader decodes is what the worker encoded. Completions do not tell which chunk opens a choice."""
    if isinstance(event, Begin):
        custom_id = event.custom_id
    record = encode_event(event, custom_id=custom_id, correlation_id=correlation_id)
    if isinstance(event, Chunk) and event.head.object == "text_completion":
        event = replace(event, opens_choice=False)
    expected = custom_id if correlation_id is None else correlation_id
    assert decode_event(record.key, record.value, record.headers) == Received(custom_id=custom_id, correlation_id=expected, event=event)


def test_a_newer_writer_may_say_more():
    """Readers ignore members and headers that they do not know."""
    record = encode_event(CHUNK, custom_id="c")
    value = json.dumps(json.loads(record.value or b"") | {"system_fingerprint": "x"}).encode()
    assert decode_event(record.key, value, (*record.headers, ("shard", b"1"))).event == CHUNK


def damaged(event: Any, changes: dict[str, Any], headers: dict[str, bytes | None]) -> Encoded:
    """A record of the event with some members and headers replaced, or without them."""
    record = encode_event(event, custom_id="c-42")
    value = json.loads(record.value or b"") | changes
    merged = {name: content for name, content in (dict(record.headers) | headers).items() if content is not None}
    return Encoded(key=record.key, value=json.dumps(value).encode(), headers=tuple(merged.items()))


CHOICE = {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
END_CHOICE = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
DAMAGES = [
    (CHUNK, {}, {"event": None}, "event"),
    (CHUNK, {}, {"event": b"chunky"}, "event"),
    (CHUNK, {}, {"event": b"\xff"}, "event"),
    (CHUNK, {}, {"attempt": None}, "attempt"),
    (CHUNK, {}, {"attempt": b"-1"}, "attempt"),
    (CHUNK, {}, {"attempt": b"1.0"}, "attempt"),
    (CHUNK, {}, {"attempt": b"9" * 20}, "attempt"),
    (CHUNK, {}, {"seq": None}, "seq"),
    (CHUNK, {}, {"seq": b"4"}, "seq"),
    (CHUNK, {}, {"correlation_id": b"\xff"}, "correlation_id"),
    (CHUNK, {"sequence_number": 4}, {}, "seq"),
    (CHUNK, {"object": "chat.completion"}, {}, None),
    (CHUNK, {"object": "text_completion"}, {}, "text_completion.choices.0.text"),
    (CHUNK, {"token_ids": ["5"]}, {}, "chat.completion.chunk.token_ids.0"),
    (CHUNK, {"token_ids": [-1]}, {}, "chat.completion.chunk.token_ids.0"),
    (CHUNK, {"token_offset": -1}, {}, "chat.completion.chunk.token_offset"),
    (CHUNK, {"choices": []}, {}, "chat.completion.chunk.choices"),
    (CHUNK, {"choices": [CHOICE, CHOICE]}, {}, "chat.completion.chunk.choices"),
    (CHUNK, {"choices": [CHOICE | {"delta": {"role": "user"}}]}, {}, "chat.completion.chunk.choices.0.delta.role"),
    (END, {"choices": [END_CHOICE | {"finish_reason": "tired"}]}, {}, "chat.completion.chunk.choices.0.finish_reason"),
    (END, {"choices": [END_CHOICE | {"index": 1}]}, {}, "choices"),
    (END, {"usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 6}}, {}, "usage.total_tokens"),
    (END, {"usage": None}, {}, "chat.completion.chunk.usage"),
    (END, {}, {"attempt": None}, "attempt"),
    (ERROR, {}, {"seq": None}, "seq"),
    (ERROR, {}, {"attempt": None}, "seq"),
    (ERROR, {"error": "x"}, {}, "error"),
    (RESET, {"reason": 1}, {}, "reason"),
    (RESET, {}, {"attempt": None}, "attempt"),
    (BEGIN, {"custom_id": "another"}, {}, "custom_id"),
    (BEGIN, {"created": "now"}, {}, "created"),
    (BEGIN, {}, {"epoch": None}, "epoch"),
    (BEGIN, {}, {"resume": None}, "resume"),
    (BEGIN, {}, {"resume": b"True"}, "resume"),
]


@pytest.mark.parametrize(("event", "changes", "headers", "param"), DAMAGES)
def test_an_event_that_breaks_the_contract_is_refused(event, changes, headers, param):
    """By the name of the header or member at fault: a reader must not guess."""
    record = damaged(event, changes, headers)
    with pytest.raises(InvalidRequest) as caught:
        decode_event(record.key, record.value, record.headers)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("key", "value", "kind"), [(b"\xff", b"{}", InvalidRequest), (b"c", None, InvalidJson), (b"c", b"{", InvalidJson), (b"c", b"\xff", InvalidJson)]
)
def test_a_record_that_is_no_event_is_refused(key, value, kind):
    """Whatever else was written to a reply topic."""
    with pytest.raises(InvalidRequest) as caught:
        decode_event(key, value, (("event", b"reset"), ("attempt", b"1")))
    assert type(caught.value) is kind


def test_nothing_unreadable_is_written():
    """A NaN among logprobs is a bug of ours and must not reach a reader."""
    with pytest.raises(ValueError, match="JSON"):
        encode_event(replace(CHUNK, logprobs={"x": float("nan")}), custom_id="c")
