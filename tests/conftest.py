"""Fixtures that every test may ask for."""

import atexit
import gc
import logging
import os
import secrets
from collections.abc import Generator, Iterator

import pytest
import structlog

# Before anybody imports torch: tiny models gain nothing from a second thread, and threads that wait for one another on busy cores lose most of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.broker import ExternalBroker, KafkaBroker, PrivateBrokers, complaints, delete_topics, require_kafka


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays to the end: garbage is looked for among what tests make, not among a million objects of libraries."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.unfreeze)  # so that libraries can clean up


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Whoever sets up logging in this process writes to the standard error of one test, which the next one no longer has."""
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker | ExternalBroker]:
    """A real broker that all tests share: started when first asked for, or the one that PENSTOCK_TEST_KAFKA names."""
    external = os.environ.get("PENSTOCK_TEST_KAFKA")
    if external:
        yield ExternalBroker(external)
        return
    require_kafka()
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def private_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBrokers]:
    """Starts brokers of the test's own, to kill, pause and restart: call it as you would KafkaBroker."""
    require_kafka()
    brokers = PrivateBrokers(tmp_path_factory.mktemp("kafka"))
    yield brokers
    brokers.close()


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A topic prefix that no other test uses; its topics on the shared broker go when the test ends."""
    prefix = f"test-{secrets.token_hex(6)}"
    yield prefix
    if "kafka_broker" in request.fixturenames:
        delete_topics(request.getfixturevalue("kafka_broker").bootstrap_servers, prefix)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts what the broker complained of beside the failure of a test that used one."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {})
        shared, private = used.get("kafka_broker"), used.get("private_broker")
        brokers = [shared] if isinstance(shared, KafkaBroker) else []
        for broker in [*brokers, *(private.brokers if private else [])]:
            report.sections.append((f"Kafka broker: {broker.log_file}", complaints(broker)))
    return report
