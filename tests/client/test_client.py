"""The blocking client, against a scripted worker on the embedded log."""

import threading

import pytest

from pipeline.client import Client
from schemas.errors import (
    BY_CODE,
    Cancelled,
    DeadlineExceeded,
    EngineError,
    InvalidRequest,
    PenstockError,
    PromptTooLong,
    UnknownUrl,
    UnsupportedField,
)
from schemas.events import FinishReason
from tests.client.conftest import Work
from tests.scripted_worker import Script, Voice, echo, wait_for_cancel
from tests.waiting import wait_for


def chat(text: str, **more: object) -> dict[str, object]:
    """A body of one user message."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}


def test_a_stream_yields_what_the_worker_says_in_order(client: Client, work: Work):
    """Every delta carries the text and tokens of one event, and the result is all of them together."""
    work(echo)
    handle = client.submit(chat("one two three", stream=True))
    deltas = list(handle)
    assert [(d.text, d.token_ids) for d in deltas] == [("one", (0,)), (" two", (1,)), (" three", (2,))]
    result = handle.result(timeout_s=0.0)
    assert (result.text, result.token_ids, result.restarts) == ("one two three", ((0, 1, 2),), 0)
    assert (result.finish_reason, result.usage["completion_tokens"], result.body["object"]) == ("stop", 3, "chat.completion")


def test_an_answer_can_be_iterated_again_and_by_several(client: Client, work: Work):
    """A stream is followed from its start by each iterator, also after the end."""
    work(echo)
    handle = client.submit(chat("a b c", stream=True))
    texts: list[str] = []
    others = [threading.Thread(target=lambda: texts.append("".join(d.text for d in handle))) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [*texts, "".join(d.text for d in handle)] == ["a b c"] * 4


def test_without_stream_the_result_is_the_response_body(client: Client, work: Work):
    """A request that is not streamed is answered from the results topic in one piece, and can't be iterated."""
    worker = work(echo)
    handle = client.submit(chat("whole"))
    assert handle.result(10.0).text == "whole"
    assert handle.result(10.0).token_ids is None
    assert str(handle.origin) == str(worker.taken[0].origin)
    with pytest.raises(InvalidRequest, match="stream"):
        next(iter(handle))


def test_shorthands_return_the_text(client: Client, work: Work):
    """`chat` takes a message or a conversation, `complete` a prompt in text or ids."""
    worker = work(echo)
    assert client.chat("hello", model="tiny", max_tokens=5).text == "hello"
    assert client.chat([{"role": "user", "content": "again"}], model="tiny").text == "again"
    assert client.complete("once", model="tiny").text == "once"
    client.complete([1, 2], model="tiny")
    assert worker.taken[0].body.sampling.max_tokens == 5
    assert worker.taken[3].body.prompt == (1, 2)


def test_many_requests_side_by_side_do_not_mix(client: Client, work: Work):
    """Each handle gets its own events, whatever the order in which they arrive."""
    work(echo)
    handles = [client.submit(chat(f"{n} " * 5 + "end", stream=True)) for n in range(30)]
    assert [handle.result(10.0).text for handle in handles] == [f"{n} " * 5 + "end" for n in range(30)]


def test_several_choices_are_told_apart(client: Client, work: Work):
    """Deltas name their choice, and the result has every choice's text and finish reason."""

    def two(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("a", 1, index=0)
        voice.chunk("x", 2, index=1)
        voice.chunk("b", 3, index=0)
        voice.end(FinishReason.STOP, FinishReason.LENGTH)
        yield

    work(two)
    handle = client.submit({"model": "tiny", "prompt": "p", "n": 2, "stream": True}, url="/v1/completions")
    assert [(d.index, d.text) for d in handle] == [(0, "a"), (1, "x"), (0, "b")]
    result = handle.result()
    assert (result.texts, result.token_ids) == (("ab", "x"), ((1, 3), (2,)))
    assert [c["finish_reason"] for c in result.body["choices"]] == ["stop", "length"]


def test_logprobs_of_all_pieces_are_put_together(client: Client, work: Work):
    """A delta has the logprobs of its tokens, the result those of all."""

    def likely(voice: Voice) -> Script:
        voice.begin()
        for token_id in (1, 2):
            voice.chunk("x", token_id, logprobs={"content": [{"token": "x", "logprob": -0.5 * token_id, "bytes": [120], "top_logprobs": []}]})
        voice.end()
        yield

    work(likely)
    handle = client.submit(chat("go", stream=True, logprobs=True))
    assert [d.logprobs["content"][0]["logprob"] for d in handle if d.logprobs] == [-0.5, -1.0]
    assert [entry["logprob"] for entry in handle.result().body["choices"][0]["logprobs"]["content"]] == [-0.5, -1.0]


def test_only_the_first_result_counts(client: Client, work: Work):
    """A worker that died after answering may have a successor that answers again."""

    def twice(voice: Voice) -> Script:
        voice.line("first")
        voice.line("second")
        voice.line(EngineError("third"))
        yield

    worker = work(twice)
    handle = client.submit(chat("go"))
    assert handle.result(10.0).text == "first"
    wait_for(lambda: worker.finished == 1)
    client.submit(chat("another, so that the repeats have been read")).result(10.0)
    assert handle.result().text == "first"


def test_a_void_beginning_that_nobody_saw_is_not_told(client: Client, work: Work):
    """Who had read nothing yet when the answer started over just gets the answer."""

    def starts_over(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("wrong", 1)
        voice.reset()
        voice.chunk("right", 2)
        voice.end()
        yield

    work(starts_over)
    handle = client.submit(chat("go", stream=True))
    handle.result(10.0)
    assert [(d.text, d.restarted) for d in handle] == [("right", False)]


def test_a_resumed_answer_goes_on_without_a_seam(client: Client, work: Work):
    """After a takeover the reader gets every token once: the old attempt's late events and the repeats are dropped."""

    def takeover(voice: Voice) -> Script:
        old = voice.begin(epoch=1)
        voice.chunk("one", 1)
        voice.chunk(" two", 2)
        new = voice.begin(epoch=2, resume=True)
        voice.attempt = old
        voice.chunk(" zombie", 9)
        voice.attempt, voice.seq = new, 1
        voice.chunk(" repeated", 2)
        voice.chunk(" three", 3)
        voice.end()
        voice.end()
        yield

    work(takeover)
    handle = client.submit(chat("go", stream=True))
    assert [d.text for d in handle] == ["one", " two", " three"]
    assert handle.result().restarts == 0


@pytest.mark.parametrize("restart", [Voice.reset, Voice.begin])
def test_an_answer_that_starts_over_says_so(client: Client, work: Work, restart):
    """Who was shown a void beginning gets a piece that says so; who reads later sees the final text alone."""
    shown = threading.Event()

    def starts_over(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("wrong", 1)
        while not shown.is_set():
            yield
        restart(voice)
        voice.chunk("right", 2)
        voice.end()

    work(starts_over)
    handle = client.submit(chat("go", stream=True))
    deltas = handle.deltas(timeout_s=10.0)
    assert next(deltas).text == "wrong"
    shown.set()
    assert [(d.text, d.restarted) for d in deltas] == [("", True), ("right", False)]
    assert [(d.text, d.restarted) for d in handle] == [("right", False)]
    assert (handle.result().text, handle.result().restarts) == ("right", 1)


@pytest.mark.parametrize("error", [EngineError("broken"), PromptTooLong(9, 5), DeadlineExceeded("late"), UnsupportedField("no", param="tools")])
@pytest.mark.parametrize("how", ["in an attempt", "before an attempt", "in one piece"])
def test_a_failed_request_raises_its_class(client: Client, work: Work, error: PenstockError, how: str):
    """The wire's code becomes the tree's class, with the message, however the worker says it."""

    def fails(voice: Voice) -> Script:
        if how == "in an attempt":
            voice.begin()
            voice.chunk("some", 1)
            voice.fail(error)
        else:
            voice.refuse(error)
        yield

    work(fails)
    with pytest.raises(type(error)) as caught:
        client.submit(chat("go", stream=how != "in one piece")).result(10.0)
    assert type(caught.value) is BY_CODE[error.code]
    assert caught.value.message == error.message


def test_a_stream_that_fails_raises_after_what_was_said(client: Client, work: Work):
    """The deltas before the error are yielded first."""

    def fails(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("some", 1)
        voice.fail(EngineError("broken", param="x"))
        yield

    work(fails)
    deltas = client.stream(chat("go"))
    assert next(deltas).text == "some"
    with pytest.raises(EngineError, match="broken"):
        next(deltas)


def test_a_body_that_breaks_the_contract_is_refused_by_the_worker(client: Client, work: Work):
    """The client sends what it is given, and raises what the worker answers; only the endpoint has to exist."""
    work(echo)
    with pytest.raises(InvalidRequest, match="temperature"):
        client.submit(chat("go", temperature="hot")).result(10.0)
    with pytest.raises(UnknownUrl):
        client.submit({}, url="/v1/nothing")


def test_a_cancelled_request_ends_as_cancelled(client: Client, work: Work):
    """`cancel` reaches the worker, and the result says so."""
    work(wait_for_cancel)
    handle = client.submit(chat("go", stream=True))
    assert next(iter(handle)).text == "well"
    assert not handle.is_done
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(10.0)
    assert handle.is_done


def test_leaving_a_stream_early_cancels_it(client: Client, work: Work):
    """A loop that breaks, and a handle that is left unfinished, end their requests."""
    worker = work(wait_for_cancel)
    for _ in client.stream(chat("go"), custom_id="streamed"):
        break
    with client.submit(chat("go", stream=True), custom_id="handled") as handle:
        pass
    client.cancel("unknown to this client")
    with pytest.raises(Cancelled):
        handle.result(10.0)
    wait_for(lambda: worker.cancelled == {"streamed", "handled", "unknown to this client"})


def test_a_finished_request_is_not_cancelled(client: Client, work: Work):
    """Leaving a handle whose answer is complete sends nothing."""
    worker = work(echo)
    with client.submit(chat("go", stream=True)) as handle:
        handle.result(10.0)
    client.chat("once more, so that the worker has read the control topic", model="tiny", timeout_s=10.0)
    assert worker.cancelled == set()
