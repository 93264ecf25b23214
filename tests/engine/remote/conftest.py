"""Engines of a server of OpenAI's API in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.engine.remote.loading import load_remote
from pipeline.settings import Dialect, EngineKind, EngineSettings, ModelSettings
from tests.openai_server import KEY, Server, serving


@pytest.fixture(autouse=True)
def no_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server speaks plain HTTP: to read the system's certificates for each client would take longer than all else."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that listens."""
    with serving() as shared:
        yield shared


@pytest.fixture
def connect(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes engines of the server's model, warm; nothing is waited for between tries."""
    monkeypatch.setattr("pipeline.engine.remote.connection.PATIENCE_S", (0.0, 0.0, 0.0))
    made = []

    def make(*, concurrent: int = 8, dialect: Dialect = Dialect.OPENAI, silence_s: float = 30.0) -> Any:
        model = ModelSettings(
            name="tiny", source="big", engine=EngineKind.OPENAI, url=server.url, api_key=SecretStr(KEY), dialect=dialect, silence_s=silence_s
        )
        made.append(load_remote(model, EngineSettings(max_sequences=concurrent)))
        made[-1].warm_up()
        return made[-1]

    yield make
    server.go_on.set()
    for engine in made:
        engine.close()
