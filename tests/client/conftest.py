"""A log of the test's own, and workers that do as they are told."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.client import Client
from pipeline.settings import Settings, load
from pipeline.transport import topics
from pipeline.transport.base import Transport
from pipeline.transport.opening import open_transport
from tests.scripted_worker import Script, ScriptedWorker, Voice

Work = Callable[[Callable[[Voice], Script]], ScriptedWorker]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An embedded log in an empty folder, with few partitions."""
    return load({"transport": "embedded", "data_dir": tmp_path, "kafka": {"partitions": 3}})


@pytest.fixture
def transport(settings: Settings) -> Iterator[Transport]:
    """That log, with its topics."""
    log = open_transport(settings)
    topics.apply(log, topics.contract(settings.kafka))
    yield log
    log.close()


@pytest.fixture
def work(settings: Settings, transport: Transport) -> Iterator[Work]:
    """Starts a worker with a script."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(ScriptedWorker(transport, settings.topics, script))


@pytest.fixture(autouse=True)
def closes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's thread looks often whether it is to end, so that no test waits for that."""
    monkeypatch.setattr("pipeline.client.connection.POLL_S", 0.005)


@pytest.fixture
def client(settings: Settings, transport: Transport) -> Iterator[Client]:
    """A client of that log."""
    with Client(settings, transport, timeout_s=10.0) as client:
        yield client
