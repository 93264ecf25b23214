"""What is left of Kafka's clients once they are closed: no socket and no thread."""

import threading
from contextlib import ExitStack

import pytest
from kafka import KafkaAdminClient

from pipeline.settings import KafkaSettings
from pipeline.transport.base import Partition, TopicSpec
from pipeline.transport.kafka import KafkaTransport
from pipeline.transport.kafka.clients import Clients
from tests.broker import KafkaBroker
from tests.transport.actors import Member, until
from tests.transport.conftest import send
from tests.transport.connecting import numbered, shared

__all__ = ["shared"]

pytestmark = pytest.mark.integration


def test_a_client_that_is_closed_with_something_left_to_write_leaves_no_socket(kafka_broker: KafkaBroker):
    """More than the network takes at once is waiting when the client closes; nothing is left to the garbage collector."""
    made = Clients(KafkaSettings(bootstrap_servers=kafka_broker.bootstrap_servers)).make(KafkaAdminClient)
    made.client.list_topics()
    transports = [t for t in made.network._manager.transports if t._sock is not None]
    sockets = [transport._sock for transport in transports]
    stuck = transports[0]
    made.loop.run(lambda: stuck.write(bytes(64 * 2**20)) or stuck.close())
    assert stuck._sock.fileno() >= 0
    made.client.close()
    assert [socket.fileno() for socket in sockets] == [-1] * len(sockets)


def test_consumers_and_producers_leave_no_thread_behind(shared: KafkaTransport, topic_prefix: str):
    """Whatever they start ends with them."""
    topic = f"{topic_prefix}.topic"
    shared.create([TopicSpec(name=topic, partitions=1)])
    before = set(threading.enumerate())
    with ExitStack() as stack:
        producer = stack.enter_context(shared.producer())
        member = Member(stack.enter_context(shared.consumer(f"{topic_prefix}.group", [topic])))
        stack.enter_context(shared.reader(frozenset({Partition(topic, 0)})))
        send(producer, [(Partition(topic, 0), record) for record in numbered(1)])
        until(lambda: member.records, member)
    until(lambda: set(threading.enumerate()) <= before)
