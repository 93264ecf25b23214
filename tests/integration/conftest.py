"""Fixtures of the tests with real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peer import Peer
from tests.worker_process import WorkerProcess

Start = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(kafka_broker, topic_prefix, tmp_path: Path) -> Iterator[Start]:
    """Starts worker processes on the shared broker, under this test's prefix; they are gone when the test is."""
    workers: list[WorkerProcess] = []

    def start(*arguments: str, **settings: str) -> WorkerProcess:
        own = {
            "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "PENSTOCK_KAFKA__TOPIC_PREFIX": topic_prefix,
            "PENSTOCK_KAFKA__GROUP_ID": topic_prefix,
            "PENSTOCK_KAFKA__PARTITIONS": "4",
            "PENSTOCK_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "PENSTOCK_DTYPE": "float32",
        }
        worker = WorkerProcess(tmp_path / f"worker-{len(workers)}", own | settings, *arguments)
        workers.append(worker)
        return worker.start()

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def connect(kafka_broker, topic_prefix) -> Iterator[Callable[..., Peer]]:
    """Connects a foreign program to this test's topics."""
    peers: list[Peer] = []

    def make(**options: object) -> Peer:
        peers.append(Peer(kafka_broker.bootstrap_servers, topic_prefix, **options))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()
