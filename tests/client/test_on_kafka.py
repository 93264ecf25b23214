"""The client and the command on a real Kafka broker."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from pipeline.client import AsyncClient, Client
from pipeline.settings import Settings, load
from pipeline.transport import topics
from pipeline.transport.base import BrokerUnavailable, Transport, UnknownTopic
from pipeline.transport.opening import open_transport
from schemas.errors import Cancelled
from tests.broker import ExternalBroker, KafkaBroker, PrivateBrokers
from tests.scripted_worker import ScriptedWorker, echo, wait_for_cancel

pytestmark = pytest.mark.integration

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "one two three"}], "stream": True}


def on_broker(bootstrap_servers: str, prefix: str) -> Settings:
    """Settings for a broker, with few partitions."""
    return load({"transport": "kafka", "kafka": {"bootstrap_servers": bootstrap_servers, "topic_prefix": prefix, "partitions": 3}})


@pytest.fixture
def settings(kafka_broker: KafkaBroker | ExternalBroker, topic_prefix: str) -> Settings:
    """The shared broker, under a prefix of the test's own."""
    return on_broker(kafka_broker.bootstrap_servers, topic_prefix)


@pytest.fixture
def transport(settings: Settings) -> Iterator[Transport]:
    """That log, with its topics."""
    log = open_transport(settings)
    topics.apply(log, topics.contract(settings.kafka))
    yield log
    log.close()


def test_streams_and_results_come_back(settings: Settings, transport: Transport):
    """Streamed and unstreamed requests are answered, also the very first one, of which nothing may be missed."""
    with (
        ScriptedWorker(transport, settings.topics, echo),
        Client.connect(settings.kafka.bootstrap_servers, topic_prefix=settings.kafka.topic_prefix) as client,
    ):
        assert "".join(delta.text for delta in client.stream(BODY)) == "one two three"
        assert client.submit({**BODY, "stream": False}).result(30.0).text == "one two three"
        handles = [client.submit(BODY) for _ in range(20)]
        assert {handle.result(30.0).text for handle in handles} == {"one two three"}


def test_cancels_reach_the_worker(settings: Settings, transport: Transport):
    """A cancel goes through the control topic to whoever runs the request."""
    with ScriptedWorker(transport, settings.topics, wait_for_cancel), Client(settings) as client:
        handle = client.submit(BODY)
        assert next(iter(handle)).text == "well"
        handle.cancel()
        with pytest.raises(Cancelled):
            handle.result(30.0)


def test_the_asynchronous_client_does_the_same(settings: Settings, transport: Transport):
    """Several streams in one loop."""

    async def use() -> list[str]:
        async with AsyncClient(settings) as client:

            async def follow() -> str:
                return "".join([delta.text async for delta in client.stream(BODY)])

            return await asyncio.gather(*(follow() for _ in range(5)))

    with ScriptedWorker(transport, settings.topics, echo):
        assert asyncio.run(use()) == ["one two three"] * 5


def test_missing_topics_are_told_at_once(settings: Settings):
    """A broker without the topics is not waited for."""
    with Client(settings, timeout_s=20.0) as client, pytest.raises(UnknownTopic):
        client.submit(BODY)


def test_a_broker_that_dies_ends_the_wait(private_broker: PrivateBrokers):
    """Whoever waits for an answer hears that the log is gone, and so does whoever submits."""
    broker = private_broker()
    settings = on_broker(broker.bootstrap_servers, "penstock")
    log = open_transport(settings)
    topics.apply(log, topics.contract(settings.kafka))
    log.close()
    with Client(settings, timeout_s=4.0) as client:
        handle = client.submit(BODY)
        broker.kill()
        with pytest.raises(BrokerUnavailable):
            handle.result(60.0)
        with pytest.raises(BrokerUnavailable):
            client.submit(BODY)


def test_a_stream_outlives_a_short_outage(private_broker: PrivateBrokers):
    """A broker that comes back within the client's patience is no error: the stream goes on, whole."""
    broker = private_broker()
    settings = on_broker(broker.bootstrap_servers, "penstock")
    log = open_transport(settings)
    topics.apply(log, topics.contract(settings.kafka))
    is_back = threading.Event()

    def through_an_outage(voice):
        voice.begin()
        voice.chunk("before", 1)
        while not is_back.is_set():
            yield
        voice.chunk(" after", 2)
        voice.end()

    with ScriptedWorker(log, settings.topics, through_an_outage), Client(settings, timeout_s=60.0) as client:
        handle = client.submit(BODY)
        deltas = handle.deltas(60.0)
        assert next(deltas).text == "before"
        broker.kill()
        broker.start()
        is_back.set()
        assert [delta.text for delta in deltas] == [" after"]
        assert handle.result().text == "before after"
    log.close()
