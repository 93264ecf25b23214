"""How events of the log are told."""

import json

import pytest

from pipeline.cli.readings import as_json, as_text, is_last, kind
from pipeline.client import Reading
from pipeline.transport.base import Partition
from schemas.codec import ErrorBody, ResultLine
from schemas.events import Begin, Chunk, End, Error, Event, FinishReason, Reset, StreamHead, Usage

HEAD = StreamHead(id="cmpl-1", object="text_completion", created=0, model="m")
BEGIN = {"custom_id": "c", "model": "m", "origin": "r/0/0", "created": 0, "epoch": 1}
LINE = {"id": "b", "custom_id": "c", "status_code": 200, "request_id": "q", "body": {}, "origin": "r/0/0", "attempt": 0}
USAGE = Usage(prompt_tokens=3, completion_tokens=4)


def reading(event: Event | ResultLine, *, accepted: bool = True) -> Reading:
    """An event as read."""
    partition = Partition("penstock.chunks", 1)
    return Reading(custom_id="c", correlation_id="k", origin="r/0/0", event=event, accepted=accepted, partition=partition, offset=5, timestamp_ms=6)


TOLD = [
    (Begin(**BEGIN, resume=False), False, "begin", "[begins]"),
    (Begin(**BEGIN, resume=False), True, "begin", "[starts over in another attempt]"),
    (Begin(**BEGIN, resume=True), False, "begin", "[goes on in another attempt]"),
    (Chunk(head=HEAD, attempt=1, seq=0, text="a\nb", token_ids=(1,), token_offset=0), True, "chunk", "a\u23ceb"),
    (
        End(head=HEAD, attempt=1, seq=1, finish_reasons=(FinishReason.STOP, FinishReason.LENGTH), usage=USAGE),
        True,
        "end",
        "[stop, length: 3 + 4 tokens]",
    ),
    (Error(code="engine_error", type="server_error", message="broken"), True, "error", "[engine_error: broken]"),
    (Reset(attempt=1, reason="moved"), True, "reset", "[starts over: moved]"),
    (ResultLine(**LINE), True, "result", "[answered with status 200]"),
    (ResultLine(**LINE | {"error": ErrorBody(code="overloaded", message="later")}), True, "result", "[overloaded: later]"),
]


@pytest.mark.parametrize(("event", "accepted", "word", "text"), TOLD)
def test_every_event_has_a_word_and_a_line(event: Event | ResultLine, accepted, word: str, text: str):
    """Text is shown as it is but in one line; what is not text stands in brackets; JSON has all of it."""
    told = reading(event, accepted=accepted)
    assert (kind(told), as_text(told)) == (word, text)
    line = json.loads(json.dumps(as_json(told), default=str))
    assert (line["event"], line["accepted"], line["topic"], line["partition"], line["offset"]) == (word, accepted, "penstock.chunks", 1, 5)


def test_the_last_word_is_known():
    """An end, an error or a result that counts closes a request; nothing else does."""
    last = {word for event, _, word, _ in TOLD if is_last(reading(event))}
    assert last == {"end", "error", "result"}
    assert not any(is_last(reading(event, accepted=False)) for event, *_ in TOLD)
