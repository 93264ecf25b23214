"""Verbs that watch and end requests: tail, inspect, cancel."""

import json
import time
from collections.abc import Callable

import pytest

from pipeline.cli.durations import since_ms
from pipeline.client import Client
from pipeline.settings import Settings
from pipeline.transport.base import Partition, Transport
from schemas.codec import encode_request
from schemas.dead_letter import DeadLetter, encode_dead_letter
from schemas.record import Encoded
from schemas.request import Endpoint
from tests.cli.conftest import Command, Terminal, Work
from tests.scripted_worker import Script, ScriptedWorker, Voice, echo, wait_for_cancel
from tests.waiting import wait_for


def test_tail_shows_what_counts_and_leaves_when_all_is_said(
    command: Command, log: list[object], settings: Settings, transport: Transport, work: Work
):
    """Events that count, of the named requests only, until each has its last word."""

    def repeats(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("line one\nline two", 1)
        voice.seq -= 1
        voice.chunk("repeated", 1)
        voice.end()
        yield

    work(repeats)
    with Client(settings, transport) as client:
        for name in ("a", "b", "other"):
            client.submit({"model": "tiny", "prompt": "x", "stream": True}, url="/v1/completions", custom_id=name).result(10.0)
    done = command("tail", "a", "b", *log)
    assert done.code == 0
    lines = {tuple(part.strip() for part in shown.split("|")) for shown in done.out.splitlines()}
    assert lines == {(name, text) for name in "ab" for text in ("line one\u23celine two", "[stop: 3 + 2 tokens]")}
    events = [json.loads(event) for event in command("tail", "a", "--json", *log).out.splitlines()]
    assert [(e["event"], e["value"].get("text")) for e in events] == [("chunk", "line one\nline two"), ("end", None)]
    assert events[0]["custom_id"] == "a"
    assert events[0]["accepted"] is True


@pytest.mark.integration
def test_tail_follows_live_until_it_is_stopped(
    terminal: Callable[..., Terminal], log: list[object], settings: Settings, transport: Transport, work: Work
):
    """Without IDs it shows every request from now on, neutralised, and ends with Ctrl-C."""

    def rude(voice: Voice) -> Script:
        voice.begin()
        voice.chunk("\x1b[2Jlive", 1)
        voice.end()
        yield

    work(rude)
    screen = terminal("tail", *log, environment={"NO_COLOR": "1", "TERM": "dumb"})
    body = {"model": "tiny", "prompt": "live", "stream": True}
    with Client(settings, transport) as client:  # tail has to be there before it can follow, so it is told more than once
        screen.read_until("live", meanwhile=lambda: client.submit(body, url="/v1/completions").result(10.0))
    screen.interrupt()
    code, shown = screen.finish()
    assert code == 130
    assert "\u241b[2Jlive" in shown
    assert "\x1b[2J" not in shown


def test_cancel_reaches_the_worker(command: Command, log: list[object], settings: Settings, transport: Transport, work: Work):
    """Any request can be ended by its name."""
    worker = work(wait_for_cancel)
    with Client(settings, transport) as client:
        handle = client.submit({"model": "tiny", "prompt": "x", "stream": True}, url="/v1/completions", custom_id="mine")
        assert next(iter(handle)).text == "well"
        assert json.loads(command("cancel", "mine", "--json", *log).out) == {"type": "cancel", "custom_id": "mine"}
        wait_for(lambda: handle.is_done)
        assert command("cancel", "a", "b", *log).code == 0
    wait_for(lambda: worker.cancelled == {"mine", "a", "b"})


def test_inspect_gathers_everything(command: Command, log: list[object], settings: Settings, transport: Transport, work: Work):
    """The record, every attempt and event with whether it counts, cancels and dead letters, in one place."""

    def taken_over(voice: Voice) -> Script:
        voice.begin(epoch=1)
        voice.chunk("one", 1)
        voice.begin(epoch=2, resume=True)
        voice.seq = 0
        voice.chunk("again", 1)
        voice.chunk(" two", 2)
        voice.end()
        yield

    worker = work(taken_over)
    with Client(settings, transport) as client:
        handle = client.submit({"model": "tiny", "prompt": "x", "stream": True}, url="/v1/completions", custom_id="mine")
        client.submit({"model": "tiny", "prompt": "x", "stream": True}, url="/v1/completions", custom_id="not mine").result(10.0)
        handle.result(10.0)
        client.cancel("mine")
    letter = DeadLetter(origin=str(handle.origin), error_code="engine_error", error_message="gave up", attempts=2, failed_at_ms=1_800_000_000_000)
    worker.send(Partition(settings.topics.dlq, 0), encode_dead_letter(b"mine", b"{}", (), letter))
    worker.send(Partition(settings.topics.dlq, 0), Encoded(key=b"mine", value=b"no letter"))
    told = json.loads(command("inspect", "mine", "--json", *log).out)
    assert [(r["origin"], r["model"], r["stream"]) for r in told["requests"]] == [(str(handle.origin), "tiny", True)]
    assert [(e["event"], e["accepted"]) for e in told["events"]] == [
        *(("begin", False), ("chunk", True), ("begin", False), ("chunk", False), ("chunk", True), ("end", True)),
    ]
    assert len(told["cancels_ms"]) == 1
    assert [d["error_message"] for d in told["dead_letters"]] == ["gave up"]
    text = command("inspect", "mine", *log).out
    for part in (str(handle.origin), "goes on in another attempt", "(does not count)", "[stop: 3 + 3 tokens]", "asked for", "gave up (attempts: 2)"):
        assert part in text


def test_inspect_finds_refused_and_unanswered_requests(command: Command, log: list[object], settings: Settings, transport: Transport):
    """A request that breaks the contract is shown with its fault; one that nobody answered is shown alone."""
    for name, body in (("refused", {"model": "tiny"}), ("waiting", {"model": "tiny", "prompt": "x"})):
        encoded = encode_request(custom_id=name, endpoint=Endpoint.COMPLETIONS, body=body)
        with transport.producer() as producer:
            producer.send(producer.partition_for(settings.topics.requests, name.encode()), encoded, lambda _: None)
    refused = json.loads(command("inspect", "refused", "--json", *log).out)
    assert refused["requests"][0]["refused"]["code"] == "invalid_request"
    assert "prompt" in command("inspect", "refused", *log).out
    waiting = json.loads(command("inspect", "waiting", "--json", *log).out)
    assert (len(waiting["requests"]), waiting["events"]) == (1, [])


def test_inspect_finds_answers_of_a_request_that_is_gone(command: Command, log: list[object], settings: Settings, transport: Transport):
    """Where the request is older than the window its answers are looked for where they are by default."""
    with ScriptedWorker(transport, settings.topics, echo) as worker:
        encoded = encode_request(custom_id="old", endpoint=Endpoint.COMPLETIONS, body={"model": "tiny", "prompt": "x", "stream": True})
        worker.send(worker.partition_for(settings.topics.requests, "old"), encoded)
        wait_for(lambda: worker.finished == 1)
    told = json.loads(command("inspect", "old", "--json", *log).out)
    assert [e["event"] for e in told["events"]] == ["begin", "chunk", "end"]


@pytest.mark.usefixtures("transport")
def test_inspect_says_when_there_is_nothing(command: Command, log: list[object]):
    """An unknown ID is an error."""
    done = command("inspect", "nobody", *log)
    assert (done.code, done.out) == (1, "")
    assert "nobody" in done.err


@pytest.mark.parametrize(("text", "ago_ms"), [("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000), ("1d", 86_400_000)])
def test_durations_are_read_as_people_write_them(text: str, ago_ms: int):
    """A number and a letter; nothing given is nothing."""
    assert since_ms(text) == pytest.approx(time.time() * 1000 - ago_ms, abs=10_000)
    assert since_ms(None) is None
