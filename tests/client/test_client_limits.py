"""What the blocking client does when names, room, time or the log run out."""

import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.client import Client, Handle
from pipeline.settings import Settings
from pipeline.transport.base import BrokerUnavailable, Partition, RecordRejected, Transport, UnknownTopic
from schemas.errors import (
    DuplicateRequest,
    Overloaded,
)
from schemas.record import Headers
from tests.client.conftest import Work
from tests.scripted_worker import Script, Voice, echo, wait_for_cancel


def chat(text: str, **more: object) -> dict[str, object]:
    """A body of one user message."""
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}


def test_options_reach_the_worker(client: Client, work: Work):
    """Deadline, key and trace context travel with the request."""
    worker = work(echo)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.submit(chat("go"), custom_id="mine", deadline_s=60.0, key="conversation-7", traceparent=trace).result(10.0)
    (taken,) = worker.taken
    assert (taken.custom_id, taken.traceparent) == ("mine", trace)
    assert taken.deadline_ms == pytest.approx(taken.timestamp_ms + 60_000, abs=10_000)
    assert Partition(taken.origin.topic, taken.origin.partition) == worker.partition_for(worker.topics.requests, "conversation-7")


def test_a_late_answer_is_a_timeout_and_the_request_goes_on(client: Client, work: Work):
    """A wait that ends early raises TimeoutError; the answer can still be had later."""
    go_on = threading.Event()

    def slow(voice: Voice) -> Script:
        voice.begin()
        while not go_on.is_set():
            yield
        voice.chunk("late", 1)
        voice.end()

    work(slow)
    handle = client.submit(chat("go", stream=True))
    with pytest.raises(TimeoutError):
        handle.result(0.05)
    with pytest.raises(TimeoutError):
        next(handle.deltas(timeout_s=0.05))
    go_on.set()
    assert handle.result(10.0).text == "late"


def test_a_name_is_used_once(client: Client, work: Work):
    """A `custom_id` that this client has sent, open or answered, is refused here: the worker would answer it no more."""
    work(echo)
    handle = client.submit(chat("go"), custom_id="same")
    with pytest.raises(DuplicateRequest, match="same"):
        client.submit(chat("go"), custom_id="same")
    handle.result(10.0)
    with pytest.raises(DuplicateRequest):
        client.submit(chat("go"), custom_id="same")


def test_open_requests_are_bounded(settings: Settings, transport: Transport, work: Work):
    """`submit` waits for room, raises `Overloaded` where none comes, and goes on once an answer is complete."""
    work(wait_for_cancel)
    with Client(settings, transport, timeout_s=0.5, max_open=2) as client:
        first, second = client.submit(chat("a", stream=True)), client.submit(chat("b", stream=True))
        with pytest.raises(Overloaded, match="2 requests"):
            client.submit(chat("c", stream=True))
        first.cancel()
        third = client.submit(chat("c", stream=True))
        assert next(iter(third)).text == "well"
        assert not second.is_done


def test_what_others_write_to_the_reply_topic_is_ignored(client: Client, work: Work):
    """Records of other clients, under the same name or of no known form, do not reach a handle."""
    hostile: list[Headers] = [
        (("correlation_id", b"somebody else"), ("event", b"error")),
        (("event", b"error"),),
        (("correlation_id", b"\xff"), ("event", b"end")),
        (),
    ]

    def surrounded(voice: Voice) -> Script:
        own = ("correlation_id", str(voice.request.reply.correlation_id).encode())
        for headers in [*hostile, (own, ("event", b"nonsense")), (own,), (own, ("event", b"chunk"))]:
            voice.say_raw(b'{"error": {"message": "m", "type": "t", "param": null, "code": "engine_error"}}', headers)
        voice.begin()
        voice.chunk("mine", 1)
        voice.end()
        yield

    work(surrounded)
    assert client.submit(chat("go", stream=True)).result(10.0).text == "mine"


def test_two_clients_read_their_own_answers(settings: Settings, transport: Transport, work: Work):
    """Clients that share the reply topics, and even a name, each get their own answer."""
    work(echo)
    with Client(settings, transport) as one, Client(settings, transport) as other:
        first = one.submit(chat("first", stream=True), custom_id="same")
        second = other.submit(chat("second", stream=True), custom_id="same")
        assert (first.result(10.0).text, second.result(10.0).text) == ("first", "second")


def test_without_topics_a_submit_says_what_to_do(settings: Settings):
    """A log without the contract's topics is an error of its own, and the next call tries again."""
    with Client(settings, timeout_s=2.0) as client:
        for _ in range(2):
            with pytest.raises(UnknownTopic):
                client.submit(chat("go"))


def test_without_a_log_a_submit_fails_after_the_timeout(tmp_path: Path):
    """A log that can't be reached is BrokerUnavailable."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with Client.embedded(blocked / "folder", timeout_s=0.3) as client, pytest.raises(BrokerUnavailable):
        client.submit(chat("go"))


def test_a_log_that_goes_away_ends_the_wait(settings: Settings, transport: Transport, monkeypatch: pytest.MonkeyPatch):
    """While an answer is awaited the log is asked for signs of life; without any the wait ends in BrokerUnavailable."""
    with Client(settings, transport, timeout_s=0.5) as client:
        handle = client.submit(chat("nobody answers"))
        monkeypatch.setattr("pipeline.client.pulse.PROBE_AFTER_S", 0.05)
        monkeypatch.setattr(transport, "ping", _gone)
        with pytest.raises(BrokerUnavailable, match="away"):
            _wait_in_turns(handle)
        with pytest.raises(BrokerUnavailable, match="no answer from the log"):
            handle.result(10.0)


def _wait_in_turns(handle: Handle) -> None:
    while not handle.is_done:
        with suppress(TimeoutError):
            handle.result(0.1)


def _gone(timeout_s: float) -> str:
    raise BrokerUnavailable(f"nobody answered within {timeout_s} s")


def test_an_oversized_request_is_refused_and_its_name_is_free_again(client: Client, work: Work):
    """A record that the log refuses raises at once, holds no slot, and may be sent again smaller."""
    work(echo)
    with pytest.raises(RecordRejected):
        client.submit(chat("x" * 9_000_000), custom_id="big")
    assert client.submit(chat("small"), custom_id="big").result(10.0).text == "small"


def test_a_closed_client_leaves_nobody_waiting(settings: Settings, transport: Transport):
    """Open handles fail when the client closes, and a closed client refuses to work."""
    client = Client(settings, transport)
    handle = client.submit(chat("nobody answers"))
    waiting = threading.Thread(target=client.close)
    waiting.start()
    with pytest.raises(BrokerUnavailable, match="closed"):
        handle.result(10.0)
    waiting.join()
    with pytest.raises(RuntimeError, match="closed"):
        client.submit(chat("go"))


def test_connect_names_the_broker(monkeypatch: pytest.MonkeyPatch):
    """`Client.connect` is Kafka at that address; nothing is contacted before the first call."""
    monkeypatch.setenv("PENSTOCK_TRANSPORT", "embedded")
    monkeypatch.setattr("pipeline.client.connection.PING_S", 0.1)
    with Client.connect("127.0.0.1:1", topic_prefix="other", timeout_s=0.2) as client, pytest.raises(BrokerUnavailable):
        client.chat("go", model="tiny")
