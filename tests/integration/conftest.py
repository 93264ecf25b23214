"""Fixtures of the tests with real processes."""

import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.broker import delete_topics
from tests.peer import Peer
from tests.worker_process import WorkerProcess

Start = Callable[..., WorkerProcess]

STARTED: list[WorkerProcess] = []
"""Every worker of the running test and its module, for the report of a failure."""


def settings_on(bootstrap_servers: str, prefix: str) -> dict[str, str]:
    """What a worker of these tests is told: exact arithmetic, few partitions, a short session."""
    return {
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "PENSTOCK_KAFKA__TOPIC_PREFIX": prefix,
        "PENSTOCK_KAFKA__GROUP_ID": prefix,
        "PENSTOCK_KAFKA__PARTITIONS": "4",
        "PENSTOCK_KAFKA__SESSION_TIMEOUT_MS": "10000",
        "PENSTOCK_DTYPE": "float32",
    }


@pytest.fixture
def start_worker(kafka_broker, topic_prefix, tmp_path: Path) -> Iterator[Start]:
    """Starts worker processes on the shared broker, under this test's prefix; they are gone when the test is."""
    workers: list[WorkerProcess] = []

    def start(*arguments: str, **settings: str) -> WorkerProcess:
        worker = WorkerProcess(tmp_path / f"worker-{len(workers)}", settings_on(kafka_broker.bootstrap_servers, topic_prefix) | settings, *arguments)
        workers.append(worker)
        STARTED.append(worker)
        return worker.start()

    yield start
    for worker in workers:
        worker.kill()
        STARTED.remove(worker)


@pytest.fixture
def connect(kafka_broker, topic_prefix) -> Iterator[Callable[[], Peer]]:
    """Connects a foreign program to this test's topics."""
    peers: list[Peer] = []

    def make() -> Peer:
        peers.append(Peer(kafka_broker.bootstrap_servers, topic_prefix))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture(scope="module")
def worker(kafka_broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker that the tests of a module share; `peer` talks to it."""
    prefix = f"test-{secrets.token_hex(6)}"
    process = WorkerProcess(tmp_path_factory.mktemp("worker"), settings_on(kafka_broker.bootstrap_servers, prefix) | {"PENSTOCK_LOG__LEVEL": "DEBUG"})
    STARTED.append(process)
    with process:
        yield process
    STARTED.remove(process)
    delete_topics(kafka_broker.bootstrap_servers, prefix)


@pytest.fixture
def peer(worker: WorkerProcess) -> Iterator[Peer]:
    """A foreign program that talks to the shared worker."""
    with Peer(worker.settings["PENSTOCK_KAFKA__BOOTSTRAP_SERVERS"], worker.settings["PENSTOCK_KAFKA__TOPIC_PREFIX"]) as one:
        yield one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the end of every worker's log beside a failure."""
    report = yield
    if report.failed:
        for process in STARTED:
            report.sections.append((f"worker log {process.log_file}", process.log()[-5_000:]))
    return report
