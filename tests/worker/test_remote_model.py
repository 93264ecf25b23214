"""A model of another server behind the worker's loop: a real socket, the embedded log."""

import pytest
from pydantic import SecretStr

from pipeline.engine.remote.loading import load_remote
from pipeline.settings import EngineKind, EngineSettings, ModelSettings
from schemas.errors import EngineError
from schemas.events import Chunk, End, Error
from tests.openai_server import KEY, serving


@pytest.fixture
def server():
    """A server of OpenAI's API."""
    with serving() as shared:
        yield shared


@pytest.fixture
def remote(server):
    """An engine of the server's model, under the name that the bench asks for."""
    model = ModelSettings(name="fake", source="big", engine=EngineKind.OPENAI, url=server.url, api_key=SecretStr(KEY))
    engine = load_remote(model, EngineSettings())
    engine.warm_up()
    yield engine
    server.go_on.set()
    engine.close()


def test_a_remote_answer_is_a_stream_like_any_other(bench, remote):
    """Text without token ids arrives whole; the usage is the server's."""
    worker = bench(remote)
    worker.publish("a", prompt="one two")
    worker.run_until_closed("a")
    *chunks, end = worker.accepted("a")
    assert isinstance(end, End)
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)) == "ab"
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (7, 40)
    worker.run_until(lambda: worker.lag() == 0)


def test_a_remote_fault_is_tried_again_from_the_start(bench, remote, server):
    """What was said before is void; the second attempt is what a reader has."""

    def cut_first(handler, body):
        if len(server.bodies) > 1:
            handler.words(body, "good")
            return
        handler.begin()
        handler.event(choices=[{"index": 0, "text": "bad", "finish_reason": None}])
        handler.cut()

    server.script = cut_first
    worker = bench(remote)
    worker.publish("a", prompt="x")
    worker.run_until_closed("a")
    assert [event.text for event in worker.accepted("a") if isinstance(event, Chunk)] == ["good"]


def test_a_cancel_reaches_the_server(bench, remote, server):
    """From the control topic to a closed connection."""

    def endless(handler, _):
        handler.begin()
        while not server.go_on.wait(0.001):
            handler.event(choices=[{"index": 0, "text": "x", "finish_reason": None}])

    server.script = endless
    worker = bench(remote)
    worker.publish("a", prompt="x")
    worker.run_until(lambda: any(isinstance(event, Chunk) for event in worker.accepted("a")))
    worker.cancel("a")
    worker.run_until_closed("a")
    assert isinstance(worker.closing("a"), Error)
    assert server.disconnects.acquire(timeout=20.0)


def test_a_server_that_stays_broken_ends_in_a_dead_letter(bench, remote, server):
    """After as many attempts as the settings allow, with the code of an engine's fault."""
    server.script = lambda handler, _: handler.whole(500, b"broken")
    worker = bench(remote)
    worker.publish("a", prompt="x")
    worker.run_until_closed("a")
    assert worker.closing("a").code == EngineError.code
    worker.run_until(lambda: len(worker.dead_letters()) == 1)
    assert len(server.bodies) == 2
