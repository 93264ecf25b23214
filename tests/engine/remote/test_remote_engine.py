import socket
import time
from typing import Any

import pytest

from pipeline.engine.base import Engine, StepOutput
from pipeline.scheduling.sequence import Lane
from pipeline.settings import Dialect
from schemas.errors import EngineError, InvalidRequest, Overloaded, UnsupportedField
from schemas.events import FinishReason, Usage
from schemas.request import Endpoint, Request
from tests.engine.serving import chat, completion, request
from tests.openai_server import KEY

WITHIN_S = 20.0


def run(engine: Engine, *requests: Request) -> dict[int, list[StepOutput]]:
    """Steps until all is answered; outputs by request."""
    for key, one in enumerate(requests):
        engine.add(key, engine.prepare(one), Lane.DEFAULT, 0.0)
    outputs: dict[int, list[StepOutput]] = {key: [] for key in range(len(requests))}
    deadline_s = time.monotonic() + WITHIN_S
    while engine.has_work():
        assert time.monotonic() < deadline_s, f"no end after {outputs}"
        for output in engine.step(0.0):
            outputs.setdefault(output.key, []).append(output)
    return outputs


def text(outputs: list[StepOutput], index: int = 0) -> str:
    """What one choice said."""
    return "".join(output.text for output in outputs if output.index == index)


def error(outputs: list[StepOutput]) -> Any:
    """The last word of a request that failed."""
    assert all(output.error is None for output in outputs[:-1])
    return outputs[-1].error


def test_a_stream_arrives_as_outputs_and_ends_with_the_servers_count(server, connect):
    """Text as it was said, one end, usage with it."""
    (outputs,) = run(connect(), completion("one two")).values()
    assert text(outputs) == "ab"
    assert [output.finish_reason for output in outputs] == [None, None, FinishReason.LENGTH]
    assert outputs[-1].usage == Usage(prompt_tokens=7, completion_tokens=40)
    assert (server.paths, server.keys) == (["/v1/completions"], {f"Bearer {KEY}"})


def test_the_server_gets_the_requesters_fields_and_every_default(server, connect):
    """Its own defaults never apply; the model has the server's name for it."""
    run(connect(), chat("Hi", temperature=0.5, stop=["x"], seed=3, max_tokens=9, logit_bias={"5": 1}, logprobs=True, top_logprobs=2))
    (body,) = server.bodies
    assert body.pop("messages") == [{"role": "user", "content": "Hi"}]
    assert body == {
        "model": "big",
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 1,
        "temperature": 0.5,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 9,
        "seed": 3,
        "stop": ["x"],
        "logit_bias": {"5": 1.0},
        "logprobs": True,
        "top_logprobs": 2,
    }


def test_a_server_of_vllms_dialect_returns_token_ids_and_takes_its_fields(server, connect):
    """What it added to OpenAI's fields is sent, and ids come back."""
    (outputs,) = run(connect(dialect=Dialect.VLLM), completion([1, 2], top_k=4, ignore_eos=True)).values()
    assert [output.token_ids for output in outputs] == [(0,), (1,), ()]
    assert {"top_k": 4, "ignore_eos": True, "return_token_ids": True, "prompt": [1, 2]}.items() <= server.bodies[0].items()


@pytest.mark.parametrize(
    ("field", "value"), [("top_k", 4), ("min_p", 0.1), ("min_tokens", 1), ("stop_token_ids", [3]), ("ignore_eos", True), ("repetition_penalty", 1.1)]
)
def test_a_field_that_the_server_lacks_is_refused_by_name(connect, field: str, value: Any):
    """Before anything is sent."""
    with pytest.raises(UnsupportedField) as refused:
        connect().prepare(completion("x", **{field: value}))
    assert refused.value.param == field


def test_what_is_no_generation_is_refused(connect):
    """The engine serves text only, and says so."""
    with pytest.raises(InvalidRequest, match="generates text"):
        connect().prepare(request(Endpoint.EMBEDDINGS, input="x"))


def test_several_choices_run_side_by_side_and_end_together(connect):
    """Each has its text; the usage of all comes with the last end."""
    (outputs,) = run(connect(), completion("x", n=3)).values()
    assert [text(outputs, index) for index in range(3)] == ["ab"] * 3
    ends = [output for output in outputs if output.finish_reason]
    assert [end.index for end in ends] == [0, 1, 2]
    assert [end.usage is not None for end in ends] == [False, False, True]


def test_a_server_that_does_not_count_is_counted_for(server, connect):
    """A chunk of text is a token, unless its ids say how many."""
    server.script = lambda handler, body: handler.words(body, "a", "b", "c", usage=False)
    (outputs,) = run(connect(), completion([4, 5])).values()
    assert outputs[-1].usage == Usage(prompt_tokens=2, completion_tokens=3)


def test_the_server_sees_a_cancel_and_nothing_more_is_said(server, connect):
    """The connection closes, which is how servers learn of it; a neighbour goes on."""

    def endless(handler, body):
        if body["prompt"] == "short":
            server.go_on.wait(WITHIN_S)
            handler.words(body, "a")
            return
        handler.begin()
        while True:
            handler.event(choices=[{"index": 0, "text": "x", "finish_reason": None}])
            time.sleep(0.001)

    server.script = endless
    engine = connect()
    seen: list[StepOutput] = []
    engine.add(0, engine.prepare(completion("long")), Lane.DEFAULT, 0.0)
    engine.add(1, engine.prepare(completion("short")), Lane.DEFAULT, 0.0)
    deadline_s = time.monotonic() + WITHIN_S
    while not seen and time.monotonic() < deadline_s:
        seen += engine.step(0.0)
    engine.cancel(0)
    assert server.disconnects.acquire(timeout=WITHIN_S)
    server.go_on.set()
    rest: list[StepOutput] = []
    while engine.has_work() and time.monotonic() < deadline_s:
        rest += engine.step(0.0)
    assert {output.key for output in seen} == {0}
    assert {output.key for output in rest} == {1}
    assert text(rest) == "a"


def test_a_cancelled_request_in_the_queue_is_never_sent(server, connect):
    """Nor does it hold a place."""
    server.script = lambda handler, body: (server.go_on.wait(WITHIN_S), handler.words(body, "a"))
    engine = connect(concurrent=1)
    for key in range(3):
        engine.add(key, engine.prepare(completion(f"p{key}")), Lane.DEFAULT, 0.0)
    engine.step(0.0)
    assert (engine.stats().running, engine.stats().waiting) == (1, 2)
    engine.cancel(1)
    server.go_on.set()
    run(engine)
    assert [body["prompt"] for body in server.bodies] == ["p0", "p2"]


def test_a_request_may_come_again_under_its_key(connect):
    """As the worker does after a fault: nothing of the attempt before is taken for the new one."""
    engine = connect()
    engine.add(0, engine.prepare(completion("first")), Lane.DEFAULT, 0.0)
    engine.step(0.0)
    engine.cancel(0)
    (outputs,) = run(engine, completion("second")).values()
    assert text(outputs) == "ab"
    assert [output.finish_reason for output in outputs] == [None, None, FinishReason.LENGTH]


def test_only_so_many_streams_are_open_at_a_time(server, connect):
    """The rest waits here; all are served."""
    outputs = run(connect(concurrent=3), *(completion(f"p{key}") for key in range(12)))
    assert [text(one) for one in outputs.values()] == ["ab"] * 12
    assert server.open_most <= 3


def test_lanes_come_before_arrival(server, connect):
    """Priority before default before flex, and in order within."""
    engine = connect(concurrent=1)
    for key, lane in enumerate((Lane.FLEX, Lane.DEFAULT, Lane.PRIORITY, Lane.DEFAULT)):
        engine.add(key, engine.prepare(completion(f"p{key}")), lane, 0.0)
    run(engine)
    assert [body["prompt"] for body in server.bodies] == ["p2", "p1", "p3", "p0"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, InvalidRequest), (422, InvalidRequest), (401, EngineError), (404, EngineError), (307, EngineError), (429, Overloaded), (500, EngineError)],
)
def test_a_refusal_becomes_the_trees_error(server, connect, status: int, expected: type):
    """The requester's fault is told with the server's message; a worker set up wrong, or a broken server, without it."""
    server.script = lambda handler, _: handler.whole(status, {"error": {"message": "the reason", "param": "seed"}}, location="/v1/elsewhere")
    (outputs,) = run(connect(), completion("x")).values()
    fault = error(outputs)
    assert type(fault) is expected
    assert ("the reason" in fault.message) == (expected is InvalidRequest)
    assert fault.param == ("seed" if expected is InvalidRequest else None)
    assert fault.retryable == (expected is not InvalidRequest)
    assert KEY not in fault.message


def test_a_param_that_the_requester_never_sent_is_not_told(server, connect):
    """Servers name parts of their own."""
    server.script = lambda handler, _: handler.whole(400, {"error": {"message": "too long", "param": "input_tokens"}})
    (outputs,) = run(connect(), completion("x")).values()
    assert (error(outputs).message.endswith("too long"), error(outputs).param) == (True, None)


def test_a_busy_server_is_asked_again(server, connect):
    """It has room the third time."""

    def busy_twice(handler, body):
        if len(server.bodies) < 3:
            handler.whole(503, b"busy", retry_after="0")
        else:
            handler.words(body, "a")

    server.script = busy_twice
    (outputs,) = run(connect(), completion("x")).values()
    assert text(outputs) == "a"
    assert len(server.bodies) == 3


def test_a_cut_connection_fails_its_request_and_no_other(server, connect):
    """What was said before stays said; the neighbours end as they should."""

    def cut_one(handler, body):
        if body["prompt"] != "cut":
            handler.words(body, "a", "b")
            return
        handler.begin()
        handler.event(choices=[{"index": 0, "text": "x", "finish_reason": None}])
        handler.cut()

    server.script = cut_one
    first, cut, last = run(connect(), completion("p"), completion("cut"), completion("q")).values()
    assert isinstance(error(cut), EngineError)
    assert text(cut) == "x"
    assert [text(first), text(last)] == ["ab", "ab"]


GARBAGE = {
    "no JSON": b"data: {nonsense\n\n",
    "no object": b"data: [1]\n\n",
    "no choices": b"data: {}\n\n",
    "a choice that is none": b'data: {"choices": ["x"]}\n\n',
    "a choice too many": b'data: {"choices": [{"index": 1, "text": "x"}]}\n\n',
    "text that is none": b'data: {"choices": [{"index": 0, "text": 5}]}\n\n',
    "ids that are none": b'data: {"choices": [{"index": 0, "text": "x", "token_ids": ["y"]}]}\n\n',
    "an unknown end": b'data: {"choices": [{"index": 0, "text": "x", "finish_reason": ["z"]}]}\n\n',
    "a count that is none": b'data: {"choices": [], "usage": {"prompt_tokens": -1}}\n\n',
    "an error": b'data: {"error": {"message": "secret details", "code": 500}}\n\n',
    "no UTF-8": b"data: \xff\xfe\n\n",
    "an early end": b"data: [DONE]\n\n",
    "an endless event": b"data: " + b"x" * (4 * 1024 * 1024 + 10),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_fails_the_request_and_names_no_details(server, connect, what: str):
    """It is told as the engine's fault, which may be tried again; a second request is served as if nothing had been."""

    def garbled(handler, body):
        if body["prompt"] == "good":
            handler.words(body, "a")
            return
        handler.begin()
        handler.raw(GARBAGE[what])
        handler.close_stream()

    server.script = garbled
    engine = connect()
    (outputs,) = run(engine, completion("bad")).values()
    fault = error(outputs)
    assert type(fault) is EngineError
    assert "secret details" not in fault.message
    (outputs,) = run(engine, completion("good")).values()
    assert text(outputs) == "a"


def test_a_silent_server_is_given_up(server, connect):
    """Its request fails; the connection is closed."""

    def silent(handler, _):
        handler.begin()
        server.go_on.wait(WITHIN_S)

    server.script = silent
    (outputs,) = run(connect(silence_s=0.1), completion("x")).values()
    assert isinstance(error(outputs), EngineError)
    assert "silent" in error(outputs).message


def test_a_server_that_went_away_is_told_apart_from_one_that_refuses(connect):
    """Nobody listens there any more."""
    engine = connect()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        engine._client.base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/"
        (outputs,) = run(engine, completion("x")).values()
    assert "out of reach" in error(outputs).message


def test_slow_steps_slow_the_streams_and_lose_nothing(server, connect):
    """What has arrived is bounded; the server waits, and every word comes in order."""
    engine = connect()
    engine._outputs.maxsize = 4
    words = [f"{number} " for number in range(200)]
    server.script = lambda handler, body: handler.words(body, *words)
    (outputs,) = run(engine, completion("x")).values()
    assert text(outputs) == "".join(words)


def test_closing_ends_streams_that_run(server, connect):
    """The server sees the connections close."""

    def endless(handler, _):
        handler.begin()
        while True:
            handler.event(choices=[{"index": 0, "text": "x", "finish_reason": None}])
            time.sleep(0.001)

    server.script = endless
    engine = connect()
    engine.add(0, engine.prepare(completion("x")), Lane.DEFAULT, 0.0)
    deadline_s = time.monotonic() + WITHIN_S
    while not engine.step(0.0):
        assert time.monotonic() < deadline_s
    engine.close()
    assert server.disconnects.acquire(timeout=WITHIN_S)
    assert not engine.has_work()
