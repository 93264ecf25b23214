import socket

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.engine.fake import FakeEngine
from pipeline.engine.load_error import LoadError
from pipeline.engine.remote.engine import RemoteEngine
from pipeline.engine.selection import open_engine
from pipeline.settings import EngineKind, EngineSettings, ModelSettings, Settings, load
from tests.openai_server import KEY


def remote(url: str, source: str = "big") -> ModelSettings:
    """A remote model's settings."""
    return ModelSettings(name="tiny", source=source, engine=EngineKind.OPENAI, url=url, api_key=SecretStr(KEY))


def test_the_settings_choose_the_engine(server):
    """By name, with what the server says about the model."""
    engine = open_engine(remote(server.url), Settings(), EngineSettings())
    assert isinstance(engine, RemoteEngine)
    assert (engine.info.name, engine.info.source, engine.info.context_tokens) == ("tiny", "big", 512)
    engine.close()
    assert isinstance(open_engine(ModelSettings(name="words", source="-", engine=EngineKind.FAKE), Settings(), EngineSettings()), FakeEngine)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"data": [{"id": "other"}]}, "no model 'big'; it has other"),
        ({"data": []}, "it has none"),
        ([1], "it has none"),
        ({"data": ["big"]}, "it has none"),
        (401, "set the model's api_key"),
        (404, "is the url its /v1"),
        (b"<html>", "is not JSON"),
    ],
)
def test_a_server_that_cannot_serve_the_model_refuses_the_start(server, models, says: str):
    """In one line that says what to do, and never the key."""
    server.models = models
    with pytest.raises(LoadError, match=says) as refused:
        open_engine(remote(server.url), Settings(), EngineSettings())
    assert KEY not in str(refused.value)


def test_a_server_that_is_not_there_refuses_the_start():
    """Nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(LoadError, match="no server answers"):
            open_engine(remote(f"http://127.0.0.1:{unused.getsockname()[1]}/v1"), Settings(), EngineSettings())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"engine": "openai"}, "needs a url"),
        ({"engine": "openai", "url": "ftp://host/v1"}, "pattern"),
        ({"engine": "openai", "url": "http://user:word@host/v1"}, "pattern"),
        ({"url": "http://host/v1"}, "only a model with engine openai"),
        ({"api_key": "x"}, "only a model with engine openai"),
        ({"engine": "gpu"}, "transformers"),
    ],
)
def test_contradictory_settings_are_refused(wrong: dict[str, str], says: str):
    """A url without a server's engine, the engine without one, a password in the url."""
    with pytest.raises(ValidationError, match=says):
        ModelSettings(name="tiny", source="big", **wrong)


def test_the_key_is_never_shown():
    """Not by the settings, not by what they are printed as."""
    settings = load({"models": [{"name": "tiny", "source": "big", "engine": "openai", "url": "http://host/v1", "api_key": KEY}]})
    assert KEY not in repr(settings)
    assert KEY not in settings.model_dump_json()
